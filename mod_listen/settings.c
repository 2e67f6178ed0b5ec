/**
 * @file settings.c  autoload_configs/listen.conf.xml
 *
 * The core's parser fills the variables below, reports bad values and puts the
 * defaults in their place. Only load and reload come here, one at a time; all
 * others work on the copy that is handed out.
 */
#include <stdlib.h>
#include <string.h>

#include <switch.h>

#include "settings.h"
#include "shm/shm.h"

static char *socket_path;
static char *socket_mode;
static char *socket_group;
static int max_listens;
static int ring_ms;
static int adopt_timeout_ms;
static switch_bool_t idle_writer;

static switch_xml_config_string_options_t octal = {NULL, 0, "^0?[0-7]{3}$"};
static switch_xml_config_int_options_t slots_range = {SWITCH_TRUE, 1, SWITCH_TRUE, LSN_SLOTS_MAX};
static switch_xml_config_int_options_t ring_range = {SWITCH_TRUE, 200, SWITCH_TRUE, 60000};
static switch_xml_config_int_options_t adopt_range = {SWITCH_TRUE, 0, SWITCH_TRUE, 600000};

static switch_xml_config_item_t items[] = {
	SWITCH_CONFIG_ITEM_STRING_STRDUP("handoff-socket", CONFIG_RELOADABLE, &socket_path, NULL,
	                                 "path", "where workers attach, by default "
	                                         "$${run_dir}/listen.sock"),
	SWITCH_CONFIG_ITEM("handoff-mode", SWITCH_CONFIG_STRING, CONFIG_RELOADABLE, &socket_mode,
	                   "0660", &octal, "octal", "file mode of the handoff socket"),
	SWITCH_CONFIG_ITEM_STRING_STRDUP("handoff-group", CONFIG_RELOADABLE, &socket_group, NULL,
	                                 "group", "group that owns the handoff socket"),
	SWITCH_CONFIG_ITEM("max-listens", SWITCH_CONFIG_INT, CONFIG_RELOADABLE, &max_listens, 1024,
	                   &slots_range, "1-4096", "listens that may run at once"),
	SWITCH_CONFIG_ITEM("ring-ms", SWITCH_CONFIG_INT, CONFIG_RELOADABLE, &ring_ms, 10000,
	                   &ring_range, "200-60000", "audio that a capture ring holds, ms"),
	SWITCH_CONFIG_ITEM("adopt-timeout-ms", SWITCH_CONFIG_INT, CONFIG_RELOADABLE,
	                   &adopt_timeout_ms, 10000, &adopt_range, "0-600000",
	                   "how long a listen waits for another worker, ms"),
	SWITCH_CONFIG_ITEM("idle-writer", SWITCH_CONFIG_BOOL, CONFIG_RELOADABLE, &idle_writer,
	                   SWITCH_TRUE, NULL, "true|false",
	                   "play to channels that nobody else writes to"),
	SWITCH_CONFIG_ITEM_END()
};

/* A missing file is no fault: all settings have defaults. */
static void parse_file(void)
{
	switch_xml_t cfg = NULL, settings = NULL;
	switch_xml_t xml = switch_xml_open_cfg("listen.conf", &cfg, NULL);

	if (cfg)
		settings = switch_xml_child(cfg, "settings");
	switch_xml_config_parse(settings ? switch_xml_child(settings, "param") : NULL, SWITCH_FALSE,
	                        items);
	if (xml)
		switch_xml_free(xml);
}

static void copy_path(struct settings *s)
{
	if (zstr(socket_path)) {
		switch_snprintf(s->socket, sizeof(s->socket), "%s/listen.sock", SWITCH_GLOBAL_dirs.run_dir);
		return;
	}
	if (strlen(socket_path) > SETTINGS_PATH_MAX)
		switch_log_printf(SWITCH_CHANNEL_LOG, SWITCH_LOG_ERROR,
		                  "handoff-socket is longer than %u bytes and was cut\n",
		                  SETTINGS_PATH_MAX);
	switch_copy_string(s->socket, socket_path, sizeof(s->socket));
}

/**
 * Reads the configuration.
 *
 * @param s  The settings are stored here
 */
void settings_read(struct settings *s)
{
	parse_file();
	memset(s, 0, sizeof(*s));
	copy_path(s);
	switch_copy_string(s->group, socket_group ? socket_group : "", sizeof(s->group));
	s->mode = (mode_t)strtoul(socket_mode, NULL, 8);
	s->max_listens = (uint32_t)max_listens;
	s->ring_ms = (uint32_t)ring_ms;
	s->adopt_timeout_ms = (uint32_t)adopt_timeout_ms;
	s->idle_writer = idle_writer == SWITCH_TRUE;
	switch_xml_config_cleanup(items);
	socket_path = socket_mode = socket_group = NULL;
}

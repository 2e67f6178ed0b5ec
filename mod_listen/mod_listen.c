/**
 * @file mod_listen.c  Streams the audio of calls to workers: loading and unloading
 *
 * Three roads lead out of this module: shared memory for audio and digits
 * (shm/), a socket that hands it over and tells who is alive (handoff.c), and
 * the switch's own events and API commands for control.
 */
#include <string.h>

#include <switch.h>

#include "api.h"
#include "app.h"
#include "events.h"
#include "lookup.h"
#include "registry.h"
#include "service.h"
#include "taps.h"
#include "version.h"
#include "workers.h"
#include "writer.h"

#define LEAVE_MS 5000u /* how long unloading waits for threads to leave the module */

#define VERB_SYNTAX "<url> [key=value ...] | {json}"

SWITCH_MODULE_LOAD_FUNCTION(mod_listen_load);
SWITCH_MODULE_SHUTDOWN_FUNCTION(mod_listen_shutdown);
SWITCH_MODULE_DEFINITION(mod_listen, mod_listen_load, mod_listen_shutdown, NULL);

static switch_status_t list_workers(const char *line, const char *cursor,
                                    switch_console_callback_match_t **matches)
{
	(void)line;
	(void)cursor;
	registry_lock();
	for (uint32_t i = 0; i < LSN_WORKERS_MAX; i++) {
		const struct worker *w = workers_at(i);

		if (w)
			switch_console_push_match(matches, w->name);
	}
	registry_unlock();
	return *matches ? SWITCH_STATUS_SUCCESS : SWITCH_STATUS_FALSE;
}

static switch_status_t list_listens(const char *line, const char *cursor,
                                    switch_console_callback_match_t **matches)
{
	uint32_t n;
	struct listen **list = lookup_channel(NULL, &n);

	(void)line;
	(void)cursor;
	for (uint32_t i = 0; i < n; i++)
		switch_console_push_match(matches, list[i]->id);
	lookup_free(list, n);
	return *matches ? SWITCH_STATUS_SUCCESS : SWITCH_STATUS_FALSE;
}

static const char *const completions[] = {
	"uuid_listen ::console::list_uuid ::[start:stop:pause:resume:kill:send:list",
	"listen ::[status:list:workers:reload ::[json",
	"listen drain ::listen::list_workers",
	"listen_ctl ::[describe:accept:event:end ::listen::list_listens",
};

static void complete(const char *how)
{
	char line[200];

	for (unsigned i = 0; i < sizeof(completions) / sizeof(*completions); i++) {
		switch_snprintf(line, sizeof(line), "%s %s", how, completions[i]);
		switch_console_set_complete(line);
	}
}

static void add_interfaces(switch_loadable_module_interface_t **module_interface)
{
	switch_application_interface_t *app;
	switch_api_interface_t *api;

	SWITCH_ADD_APP(app, "listen", "Stream the call to a WebSocket server",
	               "Answers if needed, streams until an end reason, sets listen_* variables",
	               listen_app, VERB_SYNTAX, SAF_NONE);
	SWITCH_ADD_APP(app, "listen_start", "Stream the call in the background",
	               "Returns at once; streams until stopped or hang-up", listen_start_app,
	               VERB_SYNTAX, SAF_MEDIA_TAP);
	SWITCH_ADD_APP(app, "listen_stop", "End a background listen of this channel",
	               "Ends the listen of that name, by default the one named listen",
	               listen_stop_app, "[name]", SAF_NONE);
	SWITCH_ADD_API(api, "uuid_listen", "Background listens on a channel", uuid_listen_api,
	               UUID_LISTEN_SYNTAX);
	SWITCH_ADD_API(api, "listen", "Listens, workers and settings of mod_listen", listen_api,
	               LISTEN_SYNTAX);
	SWITCH_ADD_API(api, "listen_ctl", "For workers of mod_listen, not for users", listen_ctl_api,
	               LISTEN_CTL_SYNTAX);
	switch_console_add_complete_func("::listen::list_workers", list_workers);
	switch_console_add_complete_func("::listen::list_listens", list_listens);
	complete("add");
}

/* The core checks one number that has not changed for years; its structures have. */
static void compare_versions(void)
{
	char running[32];

	switch_snprintf(running, sizeof(running), "%s.%s.%s", switch_version_major(),
	                switch_version_minor(), switch_version_micro());
	if (strcmp(BUILT_FOR, running))
		switch_log_printf(SWITCH_CHANNEL_LOG, SWITCH_LOG_WARNING,
		                  "mod_listen was built for FreeSWITCH %s, this is %s: build it again\n",
		                  BUILT_FOR, running);
}

SWITCH_MODULE_LOAD_FUNCTION(mod_listen_load)
{
	struct settings settings;
	int err;

	settings_read(&settings);
	*module_interface = switch_loadable_module_create_module_interface(pool, modname);
	err = registry_init(&settings, *module_interface);
	if (err)
		goto fail;
	taps_init();
	err = events_init();
	if (err)
		goto fail_events;
	err = workers_init();
	if (!err)
		err = service_start(&settings, pool);
	if (err)
		goto fail_service;
	add_interfaces(module_interface);
	compare_versions();
	switch_log_printf(SWITCH_CHANNEL_LOG, SWITCH_LOG_NOTICE,
	                  "mod_listen %s: workers attach at %s\n", MOD_LISTEN_VERSION, settings.socket);
	return SWITCH_STATUS_SUCCESS;

fail_service:
	workers_close();
	events_close();
fail_events:
	taps_close();
	registry_close();
fail:
	switch_log_printf(SWITCH_CHANNEL_LOG, SWITCH_LOG_ERROR, "mod_listen cannot be loaded: %s\n",
	                  strerror(-err));
	return SWITCH_STATUS_TERM;
}

static void end_all(void)
{
	uint32_t n;
	struct listen **list = lookup_channel(NULL, &n);

	for (uint32_t i = 0; i < n; i++)
		(void)listen_end_reason(list[i], NULL, REASON_STOPPED);
	lookup_free(list, n);
}

/* No callback, writer or slot may know of us when our code is unmapped. */
static bool all_left(void)
{
	struct slot_counts n;
	struct lsn_counters sum;

	registry_lock();
	slots_count(&n, &sum);
	registry_unlock();
	return !n.live && !taps_count() && !writer_count();
}

SWITCH_MODULE_SHUTDOWN_FUNCTION(mod_listen_shutdown)
{
	unsigned waited_ms = 0;

	registry_shut();
	complete("del");
	switch_console_del_complete_func("::listen::list_workers");
	switch_console_del_complete_func("::listen::list_listens");
	for (; !all_left() && waited_ms < LEAVE_MS; waited_ms += 10) {
		end_all();
		switch_yield(10000);
	}
	service_stop();
	writer_reap();
	if (!all_left()) {
		switch_log_printf(SWITCH_CHANNEL_LOG, SWITCH_LOG_ERROR,
		                  "mod_listen is still in use by calls and stays in memory\n");
		return SWITCH_STATUS_NOUNLOAD;
	}
	workers_close();
	events_close();
	taps_close();
	registry_close();
	return SWITCH_STATUS_SUCCESS;
}

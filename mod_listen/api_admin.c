/**
 * @file api_admin.c  listen: what operators ask of the module as a whole
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "adoption.h"
#include "api.h"
#include "command.h"
#include "registry.h"
#include "report.h"
#include "service.h"

static void drain(char *rest, switch_stream_handle_t *stream)
{
	const char *name = command_word(&rest);
	uint32_t moved, left;
	cJSON *obj;

	if (!*name) {
		stream->write_function(stream, "-USAGE: listen %s\n", LISTEN_SYNTAX);
		return;
	}
	if (adoption_drain(name, &moved, &left)) {
		stream->write_function(stream, "-ERR NO_SUCH_WORKER %s\n", name);
		return;
	}
	if (!command_json(rest)) {
		stream->write_function(stream, "+OK %s is draining: %u listens moved, %u stay\n", name,
		                       moved, left);
		return;
	}
	obj = cJSON_CreateObject();
	cJSON_AddStringToObject(obj, "worker", name);
	cJSON_AddNumberToObject(obj, "moved", moved);
	cJSON_AddNumberToObject(obj, "left", left);
	command_write_json(stream, "", obj);
}

static void keep(cJSON *kept, const char *setting, const char *why)
{
	char text[160];

	switch_snprintf(text, sizeof(text), "%s: %s", setting, why);
	cJSON_AddItemToArray(kept, cJSON_CreateString(text));
}

static const char *why_not_bound(int err)
{
	return err == -EBUSY ? "workers are attached" : "the new socket cannot be made, see the log";
}

/* Puts in force what can change now; lists the rest in `kept`. */
static void apply(struct settings *wanted, cJSON *kept)
{
	struct settings old;
	int bound;

	registry_settings(&old);
	if (wanted->max_listens != old.max_listens)
		keep(kept, "max-listens", "takes effect when the module is loaded again");
	if (wanted->ring_ms != old.ring_ms)
		keep(kept, "ring-ms", "takes effect when the module is loaded again");
	wanted->max_listens = old.max_listens;
	wanted->ring_ms = old.ring_ms;
	bound = service_rebind(wanted);
	if (bound < 0) {
		keep(kept, "handoff-socket, handoff-mode, handoff-group", why_not_bound(bound));
		memcpy(wanted->socket, old.socket, sizeof(old.socket));
		memcpy(wanted->group, old.group, sizeof(old.group));
		wanted->mode = old.mode;
	}
	registry_set_settings(wanted);
}

static void reload(char *rest, switch_stream_handle_t *stream)
{
	cJSON *obj, *kept;
	const cJSON *item;
	struct settings s;
	const char *err = NULL;

	if (switch_xml_reload(&err) != SWITCH_STATUS_SUCCESS) {
		stream->write_function(stream, "-ERR BAD_CONFIGURATION %s\n", err ? err : "");
		return;
	}
	obj = cJSON_CreateObject();
	cJSON_AddBoolToObject(obj, "reloaded", 1);
	kept = cJSON_AddArrayToObject(obj, "kept");
	settings_read(&s);
	apply(&s, kept);
	if (command_json(rest)) {
		command_write_json(stream, "", obj);
		return;
	}
	stream->write_function(stream, "+OK reloaded\n");
	cJSON_ArrayForEach(item, kept)
		stream->write_function(stream, "not changed: %s\n", item->valuestring);
	cJSON_Delete(obj);
}

/**
 * The API command listen.
 *
 * @param cmd      Arguments
 * @param session  Not used
 * @param stream   Where the answer goes
 *
 * @return SWITCH_STATUS_SUCCESS
 */
switch_status_t listen_api(const char *cmd, switch_core_session_t *session,
                           switch_stream_handle_t *stream)
{
	char *copy = strdup(cmd ? cmd : "");
	char *rest = copy, *verb;

	(void)session;
	switch_assert(copy);
	verb = command_word(&rest);
	if (!strcmp(verb, "status"))
		report_status(stream, command_json(rest));
	else if (!strcmp(verb, "list"))
		report_list(stream, NULL, command_json(rest));
	else if (!strcmp(verb, "workers"))
		report_workers(stream, command_json(rest));
	else if (!strcmp(verb, "reload"))
		reload(rest, stream);
	else if (!strcmp(verb, "drain"))
		drain(rest, stream);
	else
		stream->write_function(stream, "-USAGE: listen %s\n", LISTEN_SYNTAX);
	free(copy);
	return SWITCH_STATUS_SUCCESS;
}

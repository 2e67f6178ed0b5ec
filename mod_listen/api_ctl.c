/**
 * @file api_ctl.c  listen_ctl: what workers ask for
 */
#include <stdlib.h>
#include <string.h>

#include "api.h"
#include "command.h"
#include "events.h"
#include "lookup.h"
#include "registry.h"

static void describe(struct listen *l, switch_stream_handle_t *stream)
{
	static const char *const pauses[] = {
		[PAUSE_NONE] = "", [PAUSE_SILENCE] = "silence", [PAUSE_DROP] = "drop"};
	cJSON *obj = cJSON_CreateObject();
	char worker[WORKER_NAME_MAX + 1];

	lookup_worker_name(l, worker);
	cJSON_AddStringToObject(obj, "id", l->id);
	cJSON_AddStringToObject(obj, "uuid", l->uuid);
	cJSON_AddStringToObject(obj, "name", l->name);
	cJSON_AddNumberToObject(obj, "slot", l->slot);
	cJSON_AddNumberToObject(obj, "generation", l->gen);
	cJSON_AddStringToObject(obj, "worker", worker);
	cJSON_AddStringToObject(obj, "verb", l->verb);
	cJSON_AddRawToObject(obj, "attributes", l->attributes);
	cJSON_AddNumberToObject(obj, "sample_rate", l->rate);
	cJSON_AddStringToObject(obj, "mix_type", listen_mix_name(l));
	cJSON_AddBoolToObject(obj, "adopted", l->adopted);
	cJSON_AddStringToObject(obj, "paused", pauses[atomic_load(&l->paused)]);
	cJSON_AddBoolToObject(obj, "blocking", l->blocking);
	cJSON_AddNumberToObject(obj, "start_epoch_ms", (double)l->start_epoch_ms);
	command_write_json(stream, "+OK ", obj);
}

static void accept_it(struct listen *l, switch_stream_handle_t *stream)
{
	if (registry_accept(l))
		stream->write_function(stream, "+OK\n");
	else
		stream->write_function(stream, "-ERR GONE it has just ended\n");
}

static const char *text_of(const cJSON *obj, const char *key)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(obj, key);

	return cJSON_IsString(item) ? item->valuestring : NULL;
}

static uint64_t number_of(const cJSON *obj, const char *key)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(obj, key);

	return cJSON_IsNumber(item) && item->valuedouble > 0 && item->valuedouble < 9e15
	           ? (uint64_t)item->valuedouble : 0;
}

static void event(struct listen *l, const cJSON *json, switch_stream_handle_t *stream)
{
	const char *name = text_of(json, "event");
	const cJSON *headers = cJSON_GetObjectItemCaseSensitive(json, "headers");
	switch_core_session_t *session = switch_core_session_locate(l->uuid);
	switch_channel_t *channel = session ? switch_core_session_get_channel(session) : NULL;

	if (name && !events_worker(l, channel, name, cJSON_IsObject(headers) ? headers : NULL))
		stream->write_function(stream, "+OK\n");
	else
		stream->write_function(stream, "-ERR BAD_REQUEST event: found %s, expected connect, "
		                       "reconnect, dtmf, play_start, play_done, message or "
		                       "transcription\n", name ? name : "nothing");
	if (session)
		switch_core_session_rwunlock(session);
}

static void end(struct listen *l, const cJSON *json, switch_stream_handle_t *stream)
{
	const char *reason = text_of(json, "reason");
	struct ending ending = {
		.error = (char *)(uintptr_t)text_of(json, "error"),
		.digits = (char *)(uintptr_t)text_of(json, "digits"),
		.close_reason = (char *)(uintptr_t)text_of(json, "close_reason"),
		.bytes_sent = number_of(json, "bytes_sent"),
		.gap_ms = number_of(json, "gap_ms"),
		.close_code = number_of(json, "close_code"),
	};

	if (!reason || !reason_parse(reason, &ending.reason))
		stream->write_function(stream, "-ERR BAD_REQUEST reason: found %s, expected a reason for "
		                       "which a listen ends\n", reason ? reason : "nothing");
	else if (listen_end(l, NULL, &ending))
		stream->write_function(stream, "+OK\n");
	else
		stream->write_function(stream, "-ERR GONE it has just ended\n");
}

static void with_json(struct listen *l, const char *verb, const char *text,
                      switch_stream_handle_t *stream)
{
	cJSON *json = cJSON_Parse(text);

	if (!cJSON_IsObject(json))
		stream->write_function(stream, "-ERR BAD_REQUEST the argument is not a JSON object\n");
	else if (!strcmp(verb, "event"))
		event(l, json, stream);
	else
		end(l, json, stream);
	cJSON_Delete(json);
}

static bool is_verb(const char *verb, const char *rest)
{
	if (!strcmp(verb, "describe") || !strcmp(verb, "accept"))
		return !*rest;
	return !strcmp(verb, "event") || !strcmp(verb, "end");
}

/**
 * The API command listen_ctl.
 *
 * @param cmd      Arguments
 * @param session  Not used
 * @param stream   Where the answer goes
 *
 * @return SWITCH_STATUS_SUCCESS
 */
switch_status_t listen_ctl_api(const char *cmd, switch_core_session_t *session,
                               switch_stream_handle_t *stream)
{
	char *copy = strdup(cmd ? cmd : "");
	char *rest = copy, *verb, *id;
	struct listen *l = NULL;

	(void)session;
	switch_assert(copy);
	verb = command_word(&rest);
	id = command_word(&rest);
	if (!*id || !is_verb(verb, rest))
		stream->write_function(stream, "-USAGE: listen_ctl %s\n", LISTEN_CTL_SYNTAX);
	else if (!(l = registry_find(id)))
		stream->write_function(stream, "-ERR GONE there is no listen %s\n", id);
	else if (!strcmp(verb, "describe"))
		describe(l, stream);
	else if (!strcmp(verb, "accept"))
		accept_it(l, stream);
	else
		with_json(l, verb, rest, stream);
	if (l)
		listen_unref(l);
	free(copy);
	return SWITCH_STATUS_SUCCESS;
}

/**
 * @file api_channel.c  uuid_listen: background listens on a channel
 */
#include <stdlib.h>
#include <string.h>

#include "api.h"
#include "command.h"
#include "events.h"
#include "lookup.h"
#include "registry.h"
#include "report.h"

#define ACCEPT_MS 2000u

static void answer_start(switch_stream_handle_t *stream, struct listen *l)
{
	registry_wait_accept(l, ACCEPT_MS);
	if (l->accepted || atomic_load(&l->state) != LISTEN_ENDED) {
		stream->write_function(stream, "+OK %s\n", l->id);
	} else if (l->end.reason == REASON_BAD_REQUEST) {
		stream->write_function(stream, "-ERR BAD_REQUEST %s\n",
		                       l->end.error ? l->end.error : "the worker refused it");
	} else {
		stream->write_function(stream, "-ERR GONE it ended at once: %s%s%s\n",
		                       reason_name(l->end.reason), l->end.error ? ": " : "",
		                       l->end.error ? l->end.error : "");
	}
}

static void start(const char *uuid, const char *text, switch_stream_handle_t *stream)
{
	switch_core_session_t *session;
	struct refusal refusal;
	struct listen *l = NULL;
	struct request req;
	int err;

	if (request_parse(&req, text, &refusal)) {
		registry_count_refused();
		command_refused(stream, &refusal);
		return;
	}
	session = switch_core_session_locate(uuid);
	if (session) {
		err = listen_start(session, &req, false, &l, &refusal);
		switch_core_session_rwunlock(session);
	} else {
		err = refuse(&refusal, REASON_HANGUP, "NO_SUCH_CHANNEL", "%s", uuid);
	}
	request_close(&req);
	if (err) {
		command_refused(stream, &refusal);
		return;
	}
	/* the channel is not held while waiting */
	answer_start(stream, l);
	listen_unref(l);
}

/* Takes the name off `rest`, if the first word is one. */
static struct listen *find(const char *uuid, char **rest, bool more)
{
	char *copy = strdup(*rest), *at = copy;
	struct listen *l = NULL;
	char *word;

	switch_assert(copy);
	word = command_word(&at);
	if (*word && (!more || *at))
		l = lookup_name(uuid, word);
	if (l) {
		*rest += at - copy;
	} else if (!*word || more || !strcmp(word, "silence") || !strcmp(word, "drop")) {
		l = lookup_name(uuid, NAME_DEFAULT);
	}
	free(copy);
	return l;
}

static void not_found(const char *uuid, switch_stream_handle_t *stream)
{
	switch_core_session_t *session = switch_core_session_locate(uuid);

	if (session) {
		switch_core_session_rwunlock(session);
		stream->write_function(stream, "-ERR NO_SUCH_LISTEN no such listen on this channel\n");
	} else {
		stream->write_function(stream, "-ERR NO_SUCH_CHANNEL %s\n", uuid);
	}
}

static void stop(struct listen *l, switch_stream_handle_t *stream)
{
	if (listen_end_reason(l, NULL, REASON_STOPPED))
		stream->write_function(stream, "+OK %s\n", l->id);
	else
		stream->write_function(stream, "-ERR NO_SUCH_LISTEN it has just ended\n");
}

static bool argument_ok(const char *verb, const char *rest)
{
	if (!strcmp(verb, "pause"))
		return !*rest || !strcmp(rest, "silence") || !strcmp(rest, "drop");
	return !strcmp(verb, "send") ? *rest != '\0' : !*rest;
}

/* A worker that adopts the listen must not send what an operator holds back. */
static void note_pause(struct listen *l, const char *verb, const char *argument)
{
	if (!strcmp(verb, "resume"))
		atomic_store(&l->paused, PAUSE_NONE);
	else if (!strcmp(verb, "pause"))
		atomic_store(&l->paused, strcmp(argument, "drop") ? PAUSE_SILENCE : PAUSE_DROP);
}

static void relay(struct listen *l, const char *verb, const char *argument,
                  switch_stream_handle_t *stream)
{
	char worker[WORKER_NAME_MAX + 1];

	lookup_worker_name(l, worker);
	if (!*worker) {
		stream->write_function(stream, "-ERR NO_WORKER it waits for a worker\n");
		return;
	}
	if (!strcmp(verb, "pause") && !*argument)
		argument = "silence";
	note_pause(l, verb, argument);
	events_command(l, verb, argument);
	stream->write_function(stream, "+OK %s\n", l->id);
}

static bool is_verb(const char *verb)
{
	static const char *const verbs[] = {"stop", "pause", "resume", "kill", "send", NULL};

	for (const char *const *v = verbs; *v; v++) {
		if (!strcmp(*v, verb))
			return true;
	}
	return false;
}

static void control(const char *uuid, const char *verb, char *rest, switch_stream_handle_t *stream)
{
	struct listen *l = find(uuid, &rest, !strcmp(verb, "send"));

	if (!l)
		not_found(uuid, stream);
	else if (!argument_ok(verb, rest))
		stream->write_function(stream, "-USAGE: uuid_listen %s\n", UUID_LISTEN_SYNTAX);
	else if (!strcmp(verb, "stop"))
		stop(l, stream);
	else
		relay(l, verb, rest, stream);
	if (l)
		listen_unref(l);
}

/**
 * The API command uuid_listen.
 *
 * @param cmd      Arguments
 * @param session  Not used: the channel is named
 * @param stream   Where the answer goes
 *
 * @return SWITCH_STATUS_SUCCESS
 */
switch_status_t uuid_listen_api(const char *cmd, switch_core_session_t *session,
                                switch_stream_handle_t *stream)
{
	char *copy = strdup(cmd ? cmd : "");
	char *rest = copy, *uuid, *verb;

	(void)session;
	switch_assert(copy);
	uuid = command_word(&rest);
	verb = command_word(&rest);
	if (!strcmp(verb, "start") && *rest)
		start(uuid, rest, stream);
	else if (!strcmp(verb, "list"))
		report_list(stream, uuid, command_json(rest));
	else if (is_verb(verb))
		control(uuid, verb, rest, stream);
	else
		stream->write_function(stream, "-USAGE: uuid_listen %s\n", UUID_LISTEN_SYNTAX);
	free(copy);
	return SWITCH_STATUS_SUCCESS;
}

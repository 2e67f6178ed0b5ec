/**
 * @file events.c  The events listen::*
 *
 * All data stands in headers, one line each. The core escapes what would break
 * a line when it writes an event out, but not every client undoes that in the
 * right order: a line break is replaced before it gets that far.
 */
#include <stdlib.h>
#include <string.h>

#include "events.h"
#include "lookup.h"
#include "registry.h"
#include "text.h"

#define PREFIX "listen::"

/* The names that a worker may fire come last. */
static const char *const subclasses[] = {
	PREFIX "start",     PREFIX "adopt",     PREFIX "command", PREFIX "end",
	PREFIX "connect",   PREFIX "reconnect", PREFIX "dtmf",    PREFIX "play_start",
	PREFIX "play_done", PREFIX "message",   PREFIX "transcription",
};
#define SUBCLASSES (sizeof(subclasses) / sizeof(subclasses[0]))
#define FIRST_OF_WORKER 4u

static const char *const reserved[] = {
	"Listen-Version", "Listen-ID", "Listen-Name", "Listen-Worker", NULL,
};

/**
 * Reserves the names of all events.
 *
 * @return 0, or negative if another module has one of them
 */
int events_init(void)
{
	for (unsigned i = 0; i < SUBCLASSES; i++) {
		if (switch_event_reserve_subclass(subclasses[i]) != SWITCH_STATUS_SUCCESS) {
			switch_log_printf(SWITCH_CHANNEL_LOG, SWITCH_LOG_ERROR,
			                  "the event %s is reserved by another module\n", subclasses[i]);
			while (i--)
				switch_event_free_subclass(subclasses[i]);
			return -1;
		}
	}
	return 0;
}

/**
 * Gives the names back.
 */
void events_close(void)
{
	for (unsigned i = 0; i < SUBCLASSES; i++)
		switch_event_free_subclass(subclasses[i]);
}

static void add(switch_event_t *event, const char *header, const char *value)
{
	char *line = text_one_line(value ? value : "");

	switch_event_add_header_string(event, SWITCH_STACK_BOTTOM, header, line);
	free(line);
}

static void add_number(switch_event_t *event, const char *header, uint64_t value)
{
	switch_event_add_header(event, SWITCH_STACK_BOTTOM, header, "%" SWITCH_UINT64_T_FMT, value);
}

static switch_event_t *create(const char *subclass, struct listen *l, switch_channel_t *channel)
{
	char worker[WORKER_NAME_MAX + 1];
	switch_event_t *event = NULL;

	if (switch_event_create_subclass(&event, SWITCH_EVENT_CUSTOM, subclass) !=
	    SWITCH_STATUS_SUCCESS)
		return NULL;
	lookup_worker_name(l, worker);
	add(event, "Listen-Version", "1");
	add(event, "Listen-ID", l->id);
	add(event, "Listen-Name", l->name);
	add(event, "Listen-Worker", worker);
	if (channel)
		switch_channel_event_set_basic_data(channel, event);
	else
		add(event, "Unique-ID", l->uuid);
	return event;
}

/**
 * Fires listen::start.
 *
 * @param l        Listen
 * @param channel  Its channel
 */
void events_start(struct listen *l, switch_channel_t *channel)
{
	switch_event_t *event = create(PREFIX "start", l, channel);

	if (!event)
		return;
	add_number(event, "Listen-Sample-Rate", l->rate);
	add(event, "Listen-Mix-Type", listen_mix_name(l));
	switch_event_fire(&event);
}

/**
 * Fires listen::adopt.
 *
 * @param l     Listen, already given to its new worker
 * @param from  Name of the worker that had it
 */
void events_adopt(struct listen *l, const char *from)
{
	switch_event_t *event = create(PREFIX "adopt", l, NULL);

	if (!event)
		return;
	add(event, "Listen-From", from);
	switch_event_fire(&event);
}

/**
 * Fires listen::command.
 *
 * @param l         Listen
 * @param command   What is asked for
 * @param argument  Its argument, or NULL
 */
void events_command(struct listen *l, const char *command, const char *argument)
{
	switch_event_t *event = create(PREFIX "command", l, NULL);

	if (!event)
		return;
	add(event, "Listen-Command", command);
	add(event, "Listen-Argument", argument);
	switch_event_fire(&event);
}

static void add_counters(switch_event_t *event, const struct lsn_counters *c)
{
	add_number(event, "Listen-Captured-Near", c->captured[LSN_NEAR]);
	add_number(event, "Listen-Captured-Far", c->captured[LSN_FAR]);
	add_number(event, "Listen-Dropped-Near", c->dropped[LSN_NEAR]);
	add_number(event, "Listen-Dropped-Far", c->dropped[LSN_FAR]);
	add_number(event, "Listen-Trimmed-Near", c->trimmed[LSN_NEAR]);
	add_number(event, "Listen-Trimmed-Far", c->trimmed[LSN_FAR]);
	add_number(event, "Listen-Digits-Dropped", c->digits_dropped);
	add_number(event, "Listen-Played-Ms", c->played_ticks / (LSN_TICKS_HZ / 1000u));
	add_number(event, "Listen-Flushed-Ms", c->flushed_ticks / (LSN_TICKS_HZ / 1000u));
	add_number(event, "Listen-Corrupt", c->corrupt);
}

/**
 * Fires listen::end.
 *
 * @param l        Listen; l->end is filled in
 * @param channel  Its channel, or NULL if it is gone
 * @param c        Its counters
 */
void events_end(struct listen *l, switch_channel_t *channel, const struct lsn_counters *c)
{
	switch_event_t *event = create(PREFIX "end", l, channel);
	const struct ending *end = &l->end;

	if (!event)
		return;
	add(event, "Listen-Reason", reason_name(end->reason));
	add(event, "Listen-Status", reason_failed(end->reason) ? "failed" : "ok");
	add(event, "Listen-Digits", end->digits);
	add_number(event, "Listen-Duration-Ms", end->duration_ms);
	add(event, "Listen-Error", end->error);
	add_number(event, "Listen-Bytes-Sent", end->bytes_sent);
	add_number(event, "Listen-Gap-Ms", end->gap_ms);
	add_number(event, "Listen-Close-Code", end->close_code);
	add(event, "Listen-Close-Reason", end->close_reason);
	add_counters(event, c);
	switch_event_fire(&event);
}

static bool header_ok(const char *name)
{
	size_t n = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-");

	return n && !name[n];
}

static void add_workers_header(switch_event_t *event, const cJSON *item)
{
	char name[80];
	char *text = NULL;

	if (!item->string || !header_ok(item->string))
		return;
	switch_snprintf(name, sizeof(name), "%s%s",
	                strncasecmp(item->string, "Listen-", 7) ? "Listen-" : "", item->string);
	for (const char *const *r = reserved; *r; r++) {
		if (!strcasecmp(*r, name))
			return;
	}
	if (cJSON_IsString(item)) {
		add(event, name, item->valuestring);
	} else {
		text = cJSON_PrintUnformatted(item);
		add(event, name, text);
		free(text);
	}
}

/**
 * Fires an event on behalf of a worker.
 *
 * @param l        Listen
 * @param channel  Its channel, or NULL
 * @param name     Name without `listen::`
 * @param headers  JSON object with further headers, or NULL
 *
 * @return 0, or negative if a worker may not fire it
 */
int events_worker(struct listen *l, switch_channel_t *channel, const char *name,
                  const cJSON *headers)
{
	for (unsigned i = FIRST_OF_WORKER; i < SUBCLASSES; i++) {
		switch_event_t *event;
		const cJSON *item;

		if (strcmp(subclasses[i] + strlen(PREFIX), name))
			continue;
		event = create(subclasses[i], l, channel);
		if (!event)
			return 0;
		cJSON_ArrayForEach(item, headers)
			add_workers_header(event, item);
		switch_event_fire(&event);
		return 0;
	}
	return -1;
}

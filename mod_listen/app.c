/**
 * @file app.c  The dialplan applications
 */
#include <stdlib.h>
#include <string.h>

#include "app.h"
#include "carrier.h"
#include "lookup.h"
#include "registry.h"

static void report_refusal(switch_core_session_t *session, const struct refusal *refusal)
{
	const struct ending end = {.reason = refusal->reason};

	switch_log_printf(SWITCH_CHANNEL_SESSION_LOG(session), SWITCH_LOG_WARNING,
	                  "listen refused: %s %s\n", refusal->code, refusal->text);
	listen_set_result(switch_core_session_get_channel(session), NULL, &end);
}

static int make_ready(switch_channel_t *channel, bool early_media, struct refusal *refusal)
{
	switch_status_t status = early_media ? switch_channel_pre_answer(channel)
	                                     : switch_channel_answer(channel);

	if (status == SWITCH_STATUS_SUCCESS)
		return 0;
	if (switch_channel_down_nosig(channel))
		return refuse(refusal, REASON_HANGUP, "GONE", "the channel has hung up");
	return refuse(refusal, REASON_UNSUPPORTED_MEDIA, "UNSUPPORTED_MEDIA",
	              "the channel could not be answered");
}

static int begin(switch_core_session_t *session, const char *data, bool blocking,
                 struct listen **lp)
{
	switch_channel_t *channel = switch_core_session_get_channel(session);
	struct refusal refusal;
	struct request req;
	int err = request_parse(&req, data, &refusal);

	if (err) {
		registry_count_refused();
	} else {
		if (blocking)
			err = make_ready(channel, req.early_media, &refusal);
		if (!err)
			err = listen_start(session, &req, blocking, lp, &refusal);
		request_close(&req);
	}
	if (err)
		report_refusal(session, &refusal);
	return err;
}

/* Taking them from the queue is what makes the core's event DTMF be fired. */
static void swallow_digits(switch_channel_t *channel)
{
	switch_dtmf_t dtmf;

	while (switch_channel_has_dtmf(channel))
		(void)switch_channel_dequeue_dtmf(channel, &dtmf);
}

static enum reason why_left(switch_channel_t *channel)
{
	return switch_channel_up_nosig(channel) ? REASON_TRANSFER : REASON_HANGUP;
}

/* Reads, so that audio is captured, and writes a carrier, so that it is played. */
static enum reason stay(switch_core_session_t *session, struct listen *l, struct carrier *carrier)
{
	switch_channel_t *channel = switch_core_session_get_channel(session);

	while (listen_live(l)) {
		switch_frame_t *frame = NULL;
		switch_status_t status;

		if (!switch_channel_ready(channel))
			return why_left(channel);
		if (switch_channel_test_flag(channel, CF_BREAK)) {
			switch_channel_clear_flag(channel, CF_BREAK);
			return REASON_BREAK;
		}
		switch_ivr_parse_all_events(session);
		swallow_digits(channel);
		status = switch_core_session_read_frame(session, &frame, SWITCH_IO_FLAG_NONE, 0);
		if (!SWITCH_READ_ACCEPTABLE(status))
			return why_left(channel);
		if (l->playback && carrier_prepare(carrier, session))
			(void)carrier_write(carrier, session);
	}
	return REASON_STOPPED; /* not used: it has been ended with a reason of its own */
}

/* Somebody else is ending it: the variables are set when that is done. */
static void await_end(struct listen *l)
{
	while (atomic_load(&l->state) != LISTEN_ENDED)
		switch_cond_next();
}

/**
 * The application listen: streams until an end reason, then the dialplan goes on.
 *
 * @param session  Session
 * @param data     `<url> [key=value …]` or `{json}`
 */
void listen_app(switch_core_session_t *session, const char *data)
{
	struct carrier *carrier;
	struct listen *l = NULL;

	if (begin(session, data, true, &l))
		return;
	carrier = calloc(1, sizeof(*carrier));
	switch_assert(carrier);
	if (!listen_end_reason(l, session, stay(session, l, carrier)))
		await_end(l);
	carrier_close(carrier);
	free(carrier);
	listen_unref(l);
}

/**
 * The application listen_start: begins a background listen and returns.
 *
 * @param session  Session
 * @param data     `<url> [key=value …]` or `{json}`
 */
void listen_start_app(switch_core_session_t *session, const char *data)
{
	struct listen *l = NULL;

	if (!begin(session, data, false, &l))
		listen_unref(l);
}

/**
 * The application listen_stop: ends a background listen of this channel.
 *
 * @param session  Session
 * @param data     Name of the listen, or empty for the default
 */
void listen_stop_app(switch_core_session_t *session, const char *data)
{
	const char *name = zstr(data) ? NAME_DEFAULT : data;
	struct listen *l = lookup_name(switch_core_session_get_uuid(session), name);

	if (!l) {
		switch_log_printf(SWITCH_CHANNEL_SESSION_LOG(session), SWITCH_LOG_NOTICE,
		                  "no listen named %s runs on this channel\n", name);
		return;
	}
	(void)listen_end_reason(l, session, REASON_STOPPED);
	listen_unref(l);
}

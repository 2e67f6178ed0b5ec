/**
 * @file listen.c  One listen: what it is, how it begins and ends
 */
#include <stdlib.h>
#include <string.h>

#include "attributes.h"
#include "events.h"
#include "listen.h"
#include "registry.h"
#include "tap.h"

/**
 * @param l  Listen
 *
 * @return The same, with a reference more
 */
struct listen *listen_ref(struct listen *l)
{
	atomic_fetch_add_explicit(&l->refs, 1, memory_order_relaxed);
	return l;
}

/**
 * Gives up a reference.
 *
 * @param l  Listen
 */
void listen_unref(struct listen *l)
{
	if (atomic_fetch_sub_explicit(&l->refs, 1, memory_order_acq_rel) != 1)
		return;
	converter_close(&l->near);
	converter_close(&l->far);
	player_close(&l->player);
	if (l->tap)
		tap_unref(l->tap);
	pthread_mutex_destroy(&l->order);
	free(l->end.error);
	free(l->end.digits);
	free(l->end.close_reason);
	free(l->attributes);
	free(l->verb);
	free(l);
}

/**
 * @param l  Listen
 *
 * @return true until somebody begins to end it
 */
bool listen_live(const struct listen *l)
{
	return atomic_load(&l->state) == LISTEN_LIVE;
}

/**
 * @param l  Listen
 *
 * @return true if it hears what is written to the channel, too
 */
bool listen_wants_far(const struct listen *l)
{
	return l->mix != LSN_MONO;
}

/**
 * @param l  Listen
 *
 * @return What mixType was asked for
 */
const char *listen_mix_name(const struct listen *l)
{
	static const char *const names[] = {
		[LSN_MONO] = "mono", [LSN_STEREO] = "stereo", [LSN_MIXED] = "mixed"};

	return names[l->mix];
}

static struct listen *new_listen(switch_core_session_t *session, const struct request *req,
                                 bool blocking)
{
	struct listen *l = calloc(1, sizeof(*l));

	switch_assert(l);
	atomic_store(&l->refs, 1);
	atomic_store(&l->state, LISTEN_LIVE);
	pthread_mutex_init(&l->order, NULL);
	switch_uuid_str(l->id, sizeof(l->id));
	switch_copy_string(l->uuid, switch_core_session_get_uuid(session), sizeof(l->uuid));
	switch_copy_string(l->name, req->name, sizeof(l->name));
	l->verb = strdup(req->verb);
	switch_assert(l->verb);
	l->attributes = attributes_of(session);
	l->rate = req->rate;
	l->mix = req->mix;
	l->playback = req->playback;
	l->include_playback = req->include_playback;
	l->blocking = blocking;
	l->start_ns = lsn_now_ns();
	l->start_epoch_ms = switch_micro_time_now() / 1000;
	l->worker = LSN_NO_WORKER;
	return l;
}

static bool passthrough(switch_core_session_t *session)
{
	switch_codec_t *in = switch_core_session_get_read_codec(session);
	switch_codec_t *out = switch_core_session_get_write_codec(session);

	return !in || !out || switch_test_flag(in, SWITCH_CODEC_FLAG_PASSTHROUGH) ||
	       switch_test_flag(out, SWITCH_CODEC_FLAG_PASSTHROUGH);
}

/* Makes sure that there is audio, and that it can be decoded. */
static int need_media(switch_core_session_t *session, struct refusal *refusal)
{
	switch_channel_t *channel = switch_core_session_get_channel(session);

	if (switch_channel_down_nosig(channel))
		return refuse(refusal, REASON_HANGUP, "GONE", "the channel has hung up");
	if (switch_channel_test_flag(channel, CF_PROXY_MODE))
		switch_ivr_media(switch_core_session_get_uuid(session), SMF_REBRIDGE);
	if (!switch_channel_media_ready(channel) &&
	    switch_channel_pre_answer(channel) != SWITCH_STATUS_SUCCESS)
		return refuse(refusal, REASON_UNSUPPORTED_MEDIA, "UNSUPPORTED_MEDIA",
		              "the channel has no media, and could not be given any");
	if (passthrough(session))
		return refuse(refusal, REASON_UNSUPPORTED_MEDIA, "UNSUPPORTED_MEDIA",
		              "the channel's codec is passed through and cannot be decoded here");
	return 0;
}

/* Start comes before end, whoever ends it meanwhile. */
static void announce(struct listen *l, switch_core_session_t *session)
{
	switch_channel_t *channel = switch_core_session_get_channel(session);

	pthread_mutex_lock(&l->order);
	if (registry_publish(l)) {
		switch_channel_set_variable(channel, "listen_id", l->id);
		events_start(l, channel);
	}
	pthread_mutex_unlock(&l->order);
}

static int attach(struct listen *l, switch_core_session_t *session, struct refusal *refusal)
{
	switch_channel_t *channel = switch_core_session_get_channel(session);
	enum reason reason;

	if (!tap_attach(session, l))
		return 0;
	reason = switch_channel_down_nosig(channel) ? REASON_HANGUP : REASON_UNSUPPORTED_MEDIA;
	(void)listen_end_reason(l, session, reason);
	return refuse(refusal, reason, reason == REASON_HANGUP ? "GONE" : "UNSUPPORTED_MEDIA",
	              "the core did not let the channel be tapped");
}

/**
 * Begins a listen. Audio is captured from the first frame after this, while the
 * worker is still connecting.
 *
 * @param session   Session of the channel, held by the caller
 * @param req       What is asked for
 * @param blocking  Whether the channel waits for its end
 * @param lp        The listen, with a reference, is stored here
 * @param refusal   Filled in if it does not begin
 *
 * @return 0, or -EINVAL
 */
int listen_start(switch_core_session_t *session, const struct request *req, bool blocking,
                 struct listen **lp, struct refusal *refusal)
{
	struct listen *l = NULL;
	int err = need_media(session, refusal);

	if (err)
		goto out;
	l = new_listen(session, req, blocking);
	err = registry_open(l, refusal);
	if (err)
		goto out;
	err = tap_join(session, l, refusal);
	if (err) {
		(void)registry_retire(l, refusal->reason);
		goto out;
	}
	announce(l, session);
	err = attach(l, session, refusal);

out:
	if (err) {
		registry_count_refused();
		if (l)
			listen_unref(l);
	} else {
		*lp = l;
	}
	return err;
}

static char *copy_of(const char *s)
{
	char *copy = s ? strdup(s) : NULL;

	switch_assert(copy || !s);
	return copy;
}

static void note_end(struct listen *l, const struct ending *end)
{
	l->end = *end;
	l->end.error = copy_of(end->error);
	l->end.digits = copy_of(end->digits);
	l->end.close_reason = copy_of(end->close_reason);
	l->end.duration_ms = (lsn_now_ns() - l->start_ns) / 1000000u;
}

/**
 * Sets the variables that say how a listen ended.
 *
 * @param channel  Channel
 * @param id       Id of the listen, or NULL if it did not begin
 * @param end      How it ended
 */
void listen_set_result(switch_channel_t *channel, const char *id, const struct ending *end)
{
	switch_channel_set_variable(channel, "listen_id", id);
	switch_channel_set_variable(channel, "listen_status",
	                            reason_failed(end->reason) ? "failed" : "ok");
	switch_channel_set_variable(channel, "listen_reason", reason_name(end->reason));
	switch_channel_set_variable(channel, "listen_digits", end->digits);
	switch_channel_set_variable_printf(channel, "listen_duration_ms", "%" SWITCH_UINT64_T_FMT,
	                                   end->duration_ms);
}

static void report_end(struct listen *l, switch_core_session_t *session)
{
	switch_channel_t *channel = session ? switch_core_session_get_channel(session) : NULL;
	struct lsn_counters c;
	bool published;

	memset(&c, 0, sizeof(c));
	(void)lsn_slot_counters(l->arena, l->slot, &c);
	published = registry_retire(l, l->end.reason);
	if (channel)
		listen_set_result(channel, l->id, &l->end);
	if (published)
		events_end(l, channel, &c);
}

/**
 * Ends a listen, once: of several who try, one does it. On return of the one
 * that does, the variables are set and listen::end is fired.
 *
 * @param l        Listen
 * @param session  Session of its channel, or NULL if the caller holds none
 * @param end      How it ends; texts are copied
 *
 * @return true if this call has ended it
 */
bool listen_end(struct listen *l, switch_core_session_t *session, const struct ending *end)
{
	switch_core_session_t *held = NULL;
	int live = LISTEN_LIVE;

	if (!atomic_compare_exchange_strong(&l->state, &live, LISTEN_ENDING))
		return false;
	if (!session)
		session = held = switch_core_session_force_locate(l->uuid);
	tap_leave(l);
	pthread_mutex_lock(&l->order);
	note_end(l, end);
	report_end(l, session);
	pthread_mutex_unlock(&l->order);
	atomic_store(&l->state, LISTEN_ENDED);
	registry_wake_waiters();
	/* a tap that is gone has been dealt with, and perhaps we are in its CLOSE */
	if (!atomic_load(&l->tap->gone))
		tap_settle(l->tap, session);
	if (held)
		switch_core_session_rwunlock(held);
	return true;
}

/**
 * Ends a listen for a reason that needs no further words.
 *
 * @param l        Listen
 * @param session  Session of its channel, or NULL if the caller holds none
 * @param reason   Reason
 *
 * @return true if this call has ended it
 */
bool listen_end_reason(struct listen *l, switch_core_session_t *session, enum reason reason)
{
	const struct ending end = {.reason = reason};

	return listen_end(l, session, &end);
}

/**
 * @file writer.c  Writes to channels that nobody else writes to
 *
 * A parked or sleeping channel, or one whose far end sends nothing, has nobody
 * in whose frames playback could be mixed. For as long as there is something to
 * be heard, and nobody else has written for a while, a thread of its own writes
 * silent frames at the channel's pace. A thread per channel, for encoding
 * happens in it.
 */
#include <stdlib.h>
#include <string.h>

#include "carrier.h"
#include "lookup.h"
#include "media.h"
#include "registry.h"
#include "service.h"
#include "writer.h"

/* Nobody else has written for so long: three frames. */
#define IDLE_NS 60000000u
/* Frames to go on for after the last audio: a pause in speech is no reason to stop. */
#define LINGER_FRAMES 25u
#define RETRY_NS 1000000000u

struct writer {
	struct writer *next;
	struct tap *tap;
	switch_memory_pool_t *pool;
	switch_thread_t *thread;
	atomic_bool done;
};

static struct writer *writers; /* of the service thread */
static _Atomic uint32_t running;

static bool wanted(const struct listen *l, const void *arg)
{
	(void)arg;
	return l->playback && player_pending(&l->player, l->arena, l->slot);
}

static bool idle(struct tap *tap, uint64_t now_ns)
{
	uint64_t written_ns = atomic_load(&tap->written_ns);

	return atomic_load(&tap->bugs[TAP_WRITE]) && !atomic_load(&tap->gone) &&
	       (!written_ns || now_ns > written_ns + IDLE_NS) &&
	       now_ns >= atomic_load(&tap->writer_retry_ns);
}

/* What makes the core ignore a frame, or would be talked over. */
static bool may_write(switch_channel_t *channel)
{
	return switch_channel_media_ready(channel) && !switch_channel_test_flag(channel, CF_HOLD) &&
	       !switch_channel_test_flag(channel, CF_LEG_HOLDING) &&
	       !switch_channel_test_flag(channel, CF_PROXY_MODE) &&
	       !switch_channel_test_flag(channel, CF_AUDIO_PAUSE_WRITE);
}

static bool start_timer(switch_timer_t *timer, const struct carrier *c, switch_memory_pool_t *pool)
{
	uint32_t bytes = c->codec.implementation->decoded_bytes_per_packet;

	return switch_core_timer_init(timer, "soft", c->frame_us / 1000,
	                              (int)(bytes / 2u / c->channels), pool) == SWITCH_STATUS_SUCCESS;
}

/* Writes until nobody needs it any more. False if that could not be done. */
static bool write_frames(struct writer *w, switch_core_session_t *session, struct carrier *c)
{
	switch_channel_t *channel = switch_core_session_get_channel(session);
	uint64_t begun_ns = lsn_now_ns();
	uint32_t empty = 0;
	switch_timer_t timer;
	int frame_us = 0;

	memset(&timer, 0, sizeof(timer));
	while (switch_channel_up_nosig(channel) && !atomic_load(&w->tap->gone) &&
	       empty < LINGER_FRAMES && atomic_load(&w->tap->written_ns) <= begun_ns) {
		if (!carrier_prepare(c, session))
			break;
		if (frame_us != c->frame_us) {
			if (frame_us)
				switch_core_timer_destroy(&timer);
			frame_us = start_timer(&timer, c, w->pool) ? c->frame_us : 0;
			if (!frame_us)
				return false;
		}
		empty = tap_pending(w->tap) ? 0 : empty + 1;
		if (may_write(channel))
			(void)carrier_write(c, session);
		switch_core_timer_next(&timer);
	}
	if (frame_us)
		switch_core_timer_destroy(&timer);
	return frame_us != 0;
}

static void *SWITCH_THREAD_FUNC run(switch_thread_t *thread, void *arg)
{
	struct writer *w = arg;
	switch_core_session_t *session = switch_core_session_locate(w->tap->uuid);
	struct carrier *c = calloc(1, sizeof(*c));
	bool ok = false;

	(void)thread;
	switch_assert(c);
	media_i_am_writer(true);
	if (session) {
		ok = write_frames(w, session, c);
		carrier_close(c);
		switch_core_session_rwunlock(session);
	}
	free(c);
	if (!ok)
		atomic_store(&w->tap->writer_retry_ns, lsn_now_ns() + RETRY_NS);
	atomic_store(&w->tap->writing, false);
	atomic_store(&w->done, true);
	service_wake();
	return NULL;
}

static void launch(struct tap *tap)
{
	struct writer *w = calloc(1, sizeof(*w));
	switch_threadattr_t *attr = NULL;

	switch_assert(w);
	switch_core_new_memory_pool(&w->pool);
	w->tap = tap_ref(tap);
	switch_threadattr_create(&attr, w->pool);
	switch_threadattr_stacksize_set(attr, SWITCH_THREAD_STACKSIZE);
	switch_threadattr_priority_set(attr, SWITCH_PRI_REALTIME);
	if (switch_thread_create(&w->thread, attr, run, w, w->pool) != SWITCH_STATUS_SUCCESS) {
		atomic_store(&tap->writer_retry_ns, lsn_now_ns() + RETRY_NS);
		atomic_store(&tap->writing, false);
		tap_unref(tap);
		switch_core_destroy_memory_pool(&w->pool);
		free(w);
		return;
	}
	atomic_fetch_add(&running, 1);
	w->next = writers;
	writers = w;
}

/**
 * Starts a writer for each channel that needs one. For the service thread.
 *
 * @return true if there is audio that somebody has to go on looking after
 */
bool writer_serve(void)
{
	struct settings settings;
	struct listen **list;
	uint64_t now_ns = lsn_now_ns();
	uint32_t n;

	registry_settings(&settings);
	if (!settings.idle_writer)
		return false;
	list = lookup_all(wanted, NULL, &n);
	for (uint32_t i = 0; i < n; i++) {
		struct tap *tap = list[i]->tap;

		if (idle(tap, now_ns) && !atomic_exchange(&tap->writing, true))
			launch(tap);
	}
	lookup_free(list, n);
	return n > 0;
}

/**
 * Joins the writers that are done. For the service thread, or after it.
 */
void writer_reap(void)
{
	struct writer **at = &writers;

	while (*at) {
		struct writer *w = *at;
		switch_status_t status;

		if (!atomic_load(&w->done)) {
			at = &w->next;
			continue;
		}
		*at = w->next;
		switch_thread_join(&status, w->thread);
		tap_unref(w->tap);
		switch_core_destroy_memory_pool(&w->pool);
		free(w);
		atomic_fetch_sub(&running, 1);
	}
}

/**
 * @return Number of writers, those that are not yet joined included
 */
uint32_t writer_count(void)
{
	return atomic_load(&running);
}

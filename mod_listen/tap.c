/**
 * @file tap.c  The two media bugs of a channel, shared by all its listens
 *
 * A listen is in the tap while a pointer to it stands in one of the places.
 * Callbacks count themselves in before they look and out when they are done.
 * Whoever takes a pointer out waits until nobody is inside: from then on no
 * callback knows the listen, and none ever waited.
 *
 * `lock` serialises adding and removing bugs. CLOSE comes with the core's bug
 * list locked and must not take it: a thread that holds it may be waiting for
 * that list.
 */
#include <stdlib.h>
#include <string.h>

#include "digits.h"
#include "media.h"
#include "tap.h"
#include "taps.h"

#define BUG_FUNCTION "mod_listen"

/**
 * Makes a tap, with one reference.
 *
 * @param uuid  Channel
 *
 * @return The tap
 */
struct tap *tap_new(const char *uuid)
{
	struct tap *tap = calloc(1, sizeof(*tap));

	switch_assert(tap);
	atomic_store(&tap->refs, 1);
	tap->uuid = strdup(uuid);
	switch_assert(tap->uuid);
	pthread_mutex_init(&tap->lock, NULL);
	pthread_mutex_init(&tap->digits, NULL);
	return tap;
}

/**
 * @param tap  Tap
 *
 * @return The same, with a reference more
 */
struct tap *tap_ref(struct tap *tap)
{
	atomic_fetch_add_explicit(&tap->refs, 1, memory_order_relaxed);
	return tap;
}

/**
 * Gives up a reference.
 *
 * @param tap  Tap
 */
void tap_unref(struct tap *tap)
{
	if (atomic_fetch_sub_explicit(&tap->refs, 1, memory_order_acq_rel) != 1)
		return;
	pthread_mutex_destroy(&tap->lock);
	pthread_mutex_destroy(&tap->digits);
	free(tap->uuid);
	free(tap);
}

/**
 * Counts the caller in: what tap_at hands out stays valid until tap_exit.
 *
 * @param tap  Tap
 */
void tap_enter(struct tap *tap)
{
	/* Pairs with the exchange in tap_leave: either that one sees us inside, or
	 * we see the place empty. */
	atomic_fetch_add_explicit(&tap->inside, 1, memory_order_seq_cst);
}

/**
 * Counts the caller out.
 *
 * @param tap  Tap
 */
void tap_exit(struct tap *tap)
{
	atomic_fetch_sub_explicit(&tap->inside, 1, memory_order_release);
}

/**
 * @param tap    Tap that the caller has entered
 * @param place  0 … TAP_PLACES - 1
 *
 * @return The listen there, or NULL
 */
struct listen *tap_at(struct tap *tap, uint32_t place)
{
	return atomic_load_explicit(&tap->places[place], memory_order_seq_cst);
}

/**
 * @param tap  Tap
 *
 * @return true if a listen of it has something to be heard
 */
bool tap_pending(struct tap *tap)
{
	bool pending = false;

	tap_enter(tap);
	for (uint32_t i = 0; i < TAP_PLACES && !pending; i++) {
		struct listen *l = tap_at(tap, i);

		pending = l && l->playback && player_pending(&l->player, l->arena, l->slot);
	}
	tap_exit(tap);
	return pending;
}

/* With `lock` held nobody comes in, and none that is in can be freed before it is out. */
static int find_place(struct tap *tap, struct listen *l, struct refusal *refusal)
{
	uint32_t place = TAP_PLACES;
	bool taken = false;

	tap_enter(tap);
	for (uint32_t i = 0; i < TAP_PLACES; i++) {
		struct listen *other = tap_at(tap, i);

		if (other)
			taken |= !strcmp(other->name, l->name);
		else if (place == TAP_PLACES)
			place = i;
	}
	tap_exit(tap);
	if (taken)
		return refuse(refusal, REASON_BAD_REQUEST, "NAME_IN_USE",
		              "a listen named %s runs on this channel: choose another name", l->name);
	if (place == TAP_PLACES)
		return refuse(refusal, REASON_BAD_REQUEST, "TOO_MANY_LISTENS",
		              "%u listens run on this channel, and there is no place for more", TAP_PLACES);
	l->place = place;
	return 0;
}

/**
 * Puts a listen in the tap of a channel. If the channel is tapped already it
 * hears from now on.
 *
 * @param session  Session of the channel
 * @param l        Listen, with its slot open; l->tap is set
 * @param refusal  Filled in if that is not possible
 *
 * @return 0, or -EINVAL
 */
int tap_join(switch_core_session_t *session, struct listen *l, struct refusal *refusal)
{
	struct tap *tap;
	int err;

	for (;;) {
		tap = taps_find_or_new(l->uuid);
		pthread_mutex_lock(&tap->lock);
		if (!atomic_load(&tap->gone))
			break;
		pthread_mutex_unlock(&tap->lock);
		tap_unref(tap);
		if (switch_channel_down_nosig(switch_core_session_get_channel(session)))
			return refuse(refusal, REASON_HANGUP, "GONE", "the channel has hung up");
		switch_cond_next();
	}
	err = find_place(tap, l, refusal);
	if (!err) {
		l->tap = tap_ref(tap);
		atomic_store_explicit(&tap->places[l->place], l, memory_order_seq_cst);
	}
	pthread_mutex_unlock(&tap->lock);
	if (err)
		tap_settle(tap, session);
	tap_unref(tap);
	return err;
}

/**
 * Takes a listen out of its tap. On return no callback knows it.
 *
 * @param l  Listen
 */
void tap_leave(struct listen *l)
{
	struct tap *tap = l->tap;
	struct listen *expected = l;

	atomic_compare_exchange_strong(&tap->places[l->place], &expected, NULL);
	while (atomic_load_explicit(&tap->inside, memory_order_seq_cst))
		switch_cond_next();
}

static bool empty(struct tap *tap)
{
	for (uint32_t i = 0; i < TAP_PLACES; i++) {
		if (atomic_load(&tap->places[i]))
			return false;
	}
	return true;
}

static void end_all(struct tap *tap, switch_core_session_t *session)
{
	for (uint32_t i = 0; i < TAP_PLACES; i++) {
		struct listen *l;

		tap_enter(tap);
		l = tap_at(tap, i);
		if (l)
			listen_ref(l);
		tap_exit(tap);
		if (!l)
			continue;
		(void)listen_end_reason(l, session, REASON_HANGUP);
		listen_unref(l);
	}
}

/* The bug is gone: removed by us, or because the channel hangs up. */
static void closed(struct tap *tap, switch_media_bug_t *bug, enum tap_side side)
{
	switch_core_session_t *session = switch_core_media_bug_get_session(bug);

	atomic_store(&tap->bugs[side], NULL);
	if (!atomic_load(&tap->settling)) {
		atomic_store(&tap->gone, true);
		digits_unhook(session);
		taps_drop(tap);
		end_all(tap, session);
	}
	tap_unref(tap);
}

static switch_bool_t on_read_bug(switch_media_bug_t *bug, void *arg, switch_abc_type_t type)
{
	if (type == SWITCH_ABC_TYPE_READ)
		media_read(arg, bug);
	else if (type == SWITCH_ABC_TYPE_CLOSE)
		closed(arg, bug, TAP_READ);
	return SWITCH_TRUE;
}

static switch_bool_t on_write_bug(switch_media_bug_t *bug, void *arg, switch_abc_type_t type)
{
	if (type == SWITCH_ABC_TYPE_WRITE)
		media_write(arg, bug);
	else if (type == SWITCH_ABC_TYPE_WRITE_REPLACE)
		media_replace(arg, bug);
	else if (type == SWITCH_ABC_TYPE_CLOSE)
		closed(arg, bug, TAP_WRITE);
	return SWITCH_TRUE;
}

static int add_bug(struct tap *tap, switch_core_session_t *session, enum tap_side side)
{
	switch_media_bug_flag_t flags = side == TAP_READ ? SMBF_READ_STREAM
	                                                 : SMBF_WRITE_STREAM | SMBF_FIRST;
	switch_media_bug_t *bug = NULL;

	if (atomic_load(&tap->bugs[side]))
		return 0;
	tap_ref(tap);
	if (switch_core_media_bug_add(session, BUG_FUNCTION, tap->uuid,
	                              side == TAP_READ ? on_read_bug : on_write_bug, tap, 0,
	                              flags | SMBF_NO_PAUSE, &bug) != SWITCH_STATUS_SUCCESS) {
		tap_unref(tap);
		return -1;
	}
	atomic_store(&tap->bugs[side], bug);
	return 0;
}

static void remove_bugs(struct tap *tap, switch_core_session_t *session)
{
	for (unsigned side = 0; side < 2; side++) {
		switch_media_bug_t *bug = atomic_load(&tap->bugs[side]);

		/* Closed meanwhile? Then it is not in the list any more, and this is harmless. */
		if (bug)
			(void)switch_core_media_bug_remove(session, &bug);
	}
}

/**
 * Makes sure that the channel is tapped as a listen in its tap needs it.
 *
 * @param session  Session of the channel
 * @param l        Listen
 *
 * @return 0, also if the listen has ended meanwhile; negative if the core refuses
 */
int tap_attach(switch_core_session_t *session, struct listen *l)
{
	struct tap *tap = l->tap;
	int err = 0;

	pthread_mutex_lock(&tap->lock);
	if (!listen_live(l) || atomic_load(&tap->gone))
		goto out;
	if (!atomic_load(&tap->bugs[TAP_READ]))
		digits_hook(session);
	err = add_bug(tap, session, TAP_READ);
	if (!err && (l->playback || listen_wants_far(l)))
		err = add_bug(tap, session, TAP_WRITE);
	if (!atomic_load(&tap->bugs[TAP_READ]))
		digits_unhook(session);
	/* Added after the core had removed all bugs for the hang-up, these would
	 * stay until the session is destroyed. */
	if (!err && switch_channel_down_nosig(switch_core_session_get_channel(session)))
		remove_bugs(tap, session);

out:
	pthread_mutex_unlock(&tap->lock);
	return err;
}

/**
 * Removes the bugs if no listen is left. Not for callbacks.
 *
 * @param tap      Tap
 * @param session  Session of the channel, or NULL if there is none any more
 */
void tap_settle(struct tap *tap, switch_core_session_t *session)
{
	pthread_mutex_lock(&tap->lock);
	if (!atomic_load(&tap->gone) && empty(tap)) {
		atomic_store(&tap->settling, true);
		if (session) {
			digits_unhook(session);
			remove_bugs(tap, session);
		}
		atomic_store(&tap->gone, true);
		taps_drop(tap);
	}
	pthread_mutex_unlock(&tap->lock);
}

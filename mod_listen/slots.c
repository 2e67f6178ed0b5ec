/**
 * @file slots.c  The slots of the arena and what stands in them
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "registry.h"
#include "slots.h"

/* A worker that does not release an ended slot for so long never will. */
#define RECLAIM_NS 30000000000u
/* … and without anybody who reads it: it ended before its worker knew of it */
#define UNREAD_NS 2000000000u

struct slot {
	struct listen *listen; /* while it is published */
	bool used;             /* open, or ended and not yet reclaimed */
	bool ended;
	uint32_t worker;
	uint64_t end_ns;
};

static struct lsn_arena *arena;
static struct slot *table;
static uint32_t size;
static uint32_t next; /* slot to try first: freed slots rest as long as possible */
static uint32_t live;
static struct lsn_counters reclaimed; /* counters of the slots that were reclaimed */

/**
 * Makes the arena.
 *
 * @param slots    Number of slots
 * @param ring_ms  Audio that a capture ring holds, ms
 *
 * @return 0, or a negative errno value
 */
int slots_init(uint32_t slots, uint32_t ring_ms)
{
	struct lsn_config cfg = {.slots = slots, .ring_ms = ring_ms};
	int err = lsn_arena_create(&arena, &cfg);

	if (err)
		return err;
	table = calloc(slots, sizeof(*table));
	if (!table) {
		slots_close();
		return -ENOMEM;
	}
	size = slots;
	next = live = 0;
	memset(&reclaimed, 0, sizeof(reclaimed));
	return 0;
}

/**
 * Frees the arena.
 */
void slots_close(void)
{
	lsn_arena_free(arena);
	free(table);
	arena = NULL;
	table = NULL;
	size = 0;
}

/**
 * May be called without the lock.
 *
 * @return The arena
 */
struct lsn_arena *slots_arena(void)
{
	return arena;
}

static int find_free(uint32_t *slot)
{
	for (uint32_t i = 0; i < size; i++) {
		*slot = (next + i) % size;
		if (!table[*slot].used)
			return 0;
	}
	return -ENOSPC;
}

/**
 * Opens a slot for a listen.
 *
 * @param l       Listen; its rate, mix and start_ns are set
 * @param worker  Index of an attached worker
 *
 * @return 0, or -ENOSPC if all slots are in use
 */
int slots_open(struct listen *l, uint32_t worker)
{
	struct lsn_open o = {
		.rate = l->rate, .mix = l->mix, .worker = worker, .now_ns = l->start_ns};
	int err = find_free(&l->slot);

	if (!err)
		err = lsn_slot_open(arena, l->slot, &o, &l->gen);
	if (err)
		return err;
	l->arena = arena;
	l->worker = worker;
	table[l->slot] = (struct slot){.used = true, .worker = worker};
	next = (l->slot + 1) % size;
	live++;
	workers_at(worker)->listens++;
	return 0;
}

/**
 * Lets a listen be found.
 *
 * @param l  Listen
 */
void slots_publish(struct listen *l)
{
	table[l->slot].listen = l;
}

static void unload_worker(const struct listen *l)
{
	struct worker *w = workers_at(l->worker);

	if (w)
		w->listens--;
}

/**
 * Gives a listen to another worker, or to none.
 *
 * @param l       Listen
 * @param worker  Index, or LSN_NO_WORKER
 */
void slots_assign(struct listen *l, uint32_t worker)
{
	struct worker *w = workers_at(worker);

	unload_worker(l);
	l->worker = worker;
	table[l->slot].worker = worker;
	(void)lsn_slot_assign(arena, l->slot, worker);
	l->orphan_ns = w ? 0 : lsn_now_ns();
	if (w) {
		w->listens++;
		l->adopted = l->published;
	}
}

/**
 * Marks the slot of a listen as ended. No media thread may see the listen any more.
 *
 * @param l  Listen
 */
void slots_leave(struct listen *l)
{
	struct slot *s = &table[l->slot];

	unload_worker(l);
	s->listen = NULL;
	s->ended = true;
	/* who was told of nothing will not release anything */
	s->worker = l->published ? l->worker : LSN_NO_WORKER;
	s->end_ns = lsn_now_ns();
	(void)lsn_slot_end(arena, l->slot, s->end_ns);
	live--;
}

/**
 * Notes that a worker neither reads nor releases slots any more.
 *
 * @param worker  Index of the worker that is gone
 */
void slots_abandon(uint32_t worker)
{
	for (uint32_t i = 0; i < size; i++) {
		(void)lsn_slot_evict(arena, i, worker);
		if (table[i].ended && table[i].worker == worker)
			table[i].worker = LSN_NO_WORKER;
	}
}

static bool due(const struct slot *s, uint32_t slot, uint64_t now_ns)
{
	struct lsn_info info;

	if (!s->ended || lsn_slot_info(arena, slot, &info))
		return false;
	return s->worker == LSN_NO_WORKER || info.state == LSN_RELEASED ||
	       now_ns > s->end_ns + (info.reader == LSN_NO_WORKER ? UNREAD_NS : RECLAIM_NS);
}

static void add_counters(struct lsn_counters *sum, uint32_t slot)
{
	struct lsn_counters c;

	if (lsn_slot_counters(arena, slot, &c))
		return;
	for (unsigned i = 0; i < 2; i++) {
		sum->captured[i] += c.captured[i];
		sum->dropped[i] += c.dropped[i];
		sum->trimmed[i] += c.trimmed[i];
		sum->late[i] += c.late[i];
	}
	sum->filled += c.filled;
	sum->sent += c.sent;
	sum->played_ticks += c.played_ticks;
	sum->flushed_ticks += c.flushed_ticks;
	sum->digits_dropped += c.digits_dropped;
	sum->corrupt += c.corrupt;
}

/**
 * Frees the ended slots that nobody needs any more. Called by the service
 * thread only, without the lock: an ended slot is nobody else's, and giving
 * memory back takes time.
 *
 * @return true if ended slots are left
 */
bool slots_reclaim(void)
{
	uint64_t now_ns = lsn_now_ns();
	bool left = false;

	for (uint32_t i = 0; i < size; i++) {
		bool reclaim;

		registry_lock();
		reclaim = due(&table[i], i, now_ns);
		if (reclaim)
			add_counters(&reclaimed, i);
		left |= table[i].ended && !reclaim;
		registry_unlock();
		if (!reclaim)
			continue;
		(void)lsn_slot_reclaim(arena, i);
		registry_lock();
		table[i] = (struct slot){0};
		registry_unlock();
	}
	return left;
}

/**
 * @return Number of slots that are open and not ended
 */
uint32_t slots_live(void)
{
	return live;
}

/**
 * Lists the published listens that `wanted` wants.
 *
 * @param wanted  Filter
 * @param arg     For the filter
 * @param list    The list, with references, is stored here
 *
 * @return Number of listens in it
 */
uint32_t slots_collect(slots_filter wanted, const void *arg, struct listen ***list)
{
	uint32_t n = 0;

	*list = calloc(live + 1u, sizeof(**list));
	switch_assert(*list);
	for (uint32_t i = 0; i < size && n < live; i++) {
		if (table[i].listen && wanted(table[i].listen, arg))
			(*list)[n++] = listen_ref(table[i].listen);
	}
	return n;
}

/**
 * Counts slots, and adds up the counters of all that were ever in use.
 *
 * @param n    Slots by their state are stored here
 * @param sum  Totals are stored here
 */
void slots_count(struct slot_counts *n, struct lsn_counters *sum)
{
	*sum = reclaimed;
	memset(n, 0, sizeof(*n));
	for (uint32_t i = 0; i < size; i++) {
		const struct slot *s = &table[i];

		if (s->used)
			add_counters(sum, i);
		n->free += !s->used;
		n->ended += s->ended;
		n->live += s->used && !s->ended;
	}
}

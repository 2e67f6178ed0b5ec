/**
 * @file adoption.c  Listens that go to another worker
 *
 * A worker that is lost or drained gives its listens to the others, each to the
 * one that has the fewest. What nobody can take waits; the next worker that
 * comes takes it.
 */
#include <stdlib.h>
#include <string.h>

#include "adoption.h"
#include "events.h"
#include "lookup.h"
#include "registry.h"

static bool of_worker(const struct listen *l, const void *arg)
{
	return l->worker == *(const uint32_t *)arg;
}

/* Moves what it can of `list`, with the registry locked; the rest comes last in it. */
static uint32_t move_locked(struct listen **list, uint32_t n, bool keep)
{
	uint32_t moved = 0;

	for (uint32_t i = 0; i < n; i++) {
		uint32_t to = workers_least_loaded();

		if (to == LSN_NO_WORKER && keep)
			break;
		slots_assign(list[i], to);
		moved += to != LSN_NO_WORKER;
	}
	return moved;
}

static void tell(struct listen **list, uint32_t n, const char *from)
{
	for (uint32_t i = 0; i < n; i++)
		events_adopt(list[i], from);
	registry_count_adopted(n);
}

/**
 * Attaches a worker.
 *
 * @param name  Its name
 * @param pid   Its process id, or 0
 *
 * @return Its index, or LSN_NO_WORKER if all are taken
 */
uint32_t adoption_attach(const char *name, pid_t pid)
{
	uint32_t index;

	registry_lock();
	index = workers_attach(name, pid);
	registry_unlock();
	return index;
}

/**
 * Gives the listens that wait for a worker to whoever is there now.
 */
void adoption_welcomed(void)
{
	const uint32_t none = LSN_NO_WORKER;
	struct listen **list;
	uint32_t n, moved;

	registry_lock();
	n = slots_collect(of_worker, &none, &list);
	moved = move_locked(list, n, true);
	registry_unlock();
	for (uint32_t i = 0; i < moved; i++)
		events_adopt(list[i], list[i]->lost);
	registry_count_adopted(moved);
	lookup_free(list, n);
}

/**
 * Takes a worker off the list and gives its listens to the others.
 *
 * @param worker  Its index
 */
void adoption_lost(uint32_t worker)
{
	char name[WORKER_NAME_MAX + 1];
	struct listen **list;
	uint32_t n, moved;

	registry_lock();
	switch_copy_string(name, workers_at(worker)->name, sizeof(name));
	n = slots_collect(of_worker, &worker, &list);
	workers_detach(worker);
	slots_abandon(worker);
	for (uint32_t i = 0; i < n; i++)
		switch_copy_string(list[i]->lost, name, sizeof(list[i]->lost));
	moved = move_locked(list, n, false);
	registry_unlock();

	tell(list, moved, name);
	if (n > moved)
		switch_log_printf(SWITCH_CHANNEL_LOG, SWITCH_LOG_WARNING,
		                  "worker %s is gone, and %u listens wait for another one\n", name,
		                  n - moved);
	lookup_free(list, n);
}

/**
 * Gives a worker no more listens, and those that it has to others.
 *
 * @param name   Its name
 * @param moved  Number of listens that others took is stored here
 * @param left   Number of listens that stay with it is stored here
 *
 * @return 0, or negative if there is no such worker
 */
int adoption_drain(const char *name, uint32_t *moved, uint32_t *left)
{
	struct listen **list;
	uint32_t worker, n;

	registry_lock();
	worker = workers_find(name);
	if (worker == LSN_NO_WORKER) {
		registry_unlock();
		return -1;
	}
	workers_at(worker)->draining = true;
	n = slots_collect(of_worker, &worker, &list);
	*moved = move_locked(list, n, true);
	registry_unlock();

	*left = n - *moved;
	tell(list, *moved, name);
	lookup_free(list, n);
	return 0;
}

struct expiry {
	uint64_t now_ns;
	uint64_t timeout_ns;
};

static bool orphan(const struct listen *l, const void *arg)
{
	(void)arg;
	return l->orphan_ns != 0;
}

static bool expired(const struct listen *l, const void *arg)
{
	const struct expiry *e = arg;

	return l->orphan_ns && e->now_ns >= l->orphan_ns + e->timeout_ns;
}

/**
 * Ends the listens that have waited too long for a worker.
 *
 * @return true if others still wait
 */
bool adoption_expire(void)
{
	struct expiry e = {.now_ns = lsn_now_ns()};
	struct settings settings;
	struct listen **list;
	uint32_t n;

	registry_settings(&settings);
	e.timeout_ns = (uint64_t)settings.adopt_timeout_ms * 1000000u;
	list = lookup_all(expired, &e, &n);
	for (uint32_t i = 0; i < n; i++)
		(void)listen_end_reason(list[i], NULL, REASON_WORKER_LOST);
	lookup_free(list, n);

	list = lookup_all(orphan, NULL, &n);
	lookup_free(list, n);
	return n > 0;
}

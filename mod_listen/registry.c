/**
 * @file registry.c  All listens, by id
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "registry.h"
#include "service.h"

static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed; /* a listen was accepted or has ended */
	struct settings settings;
	switch_loadable_module_interface_t *module;
	uint32_t owed; /* holds on the module that the service thread gives back */
	bool shut;
	switch_hash_t *by_id;
	struct tallies tallies;
} reg = {.lock = PTHREAD_MUTEX_INITIALIZER};

/**
 * Makes the arena and an empty registry.
 *
 * @param s       Settings
 * @param module  The module, on which each live listen keeps a hold
 *
 * @return 0, or a negative errno value
 */
int registry_init(const struct settings *s, switch_loadable_module_interface_t *module)
{
	pthread_condattr_t attr;
	int err = slots_init(s->max_listens, s->ring_ms);

	if (err)
		return err;
	reg.settings = *s;
	reg.module = module;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&reg.changed, &attr);
	pthread_condattr_destroy(&attr);
	switch_core_hash_init(&reg.by_id);
	return 0;
}

/**
 * Frees the registry. No listen and no tap may be left.
 */
void registry_close(void)
{
	registry_release_module();
	switch_core_hash_destroy(&reg.by_id);
	pthread_cond_destroy(&reg.changed);
	slots_close();
}

/**
 * Refuses whatever would begin from now on.
 */
void registry_shut(void)
{
	registry_lock();
	reg.shut = true;
	pthread_cond_broadcast(&reg.changed);
	registry_unlock();
}

/**
 * Locks listens, slots and workers.
 */
void registry_lock(void)
{
	pthread_mutex_lock(&reg.lock);
}

/**
 * Unlocks them.
 */
void registry_unlock(void)
{
	pthread_mutex_unlock(&reg.lock);
}

/**
 * @param s  A copy of the settings in force is stored here
 */
void registry_settings(struct settings *s)
{
	registry_lock();
	*s = reg.settings;
	registry_unlock();
}

/**
 * @param s  Settings to be in force from now on
 */
void registry_set_settings(const struct settings *s)
{
	registry_lock();
	reg.settings = *s;
	registry_unlock();
}

static bool hold_module(void)
{
	return !reg.shut &&
	       switch_thread_rwlock_tryrdlock(reg.module->rwlock) == SWITCH_STATUS_SUCCESS;
}

/**
 * Gives a listen a slot and a worker. The module is held until it ends.
 *
 * @param l        Listen; its rate, mix and start_ns are set
 * @param refusal  Filled in if that is not possible
 *
 * @return 0, or -EINVAL
 */
int registry_open(struct listen *l, struct refusal *refusal)
{
	uint32_t worker;
	int err = 0;

	registry_lock();
	worker = workers_least_loaded();
	if (worker == LSN_NO_WORKER) {
		err = refuse(refusal, REASON_NO_WORKER, "NO_WORKER",
		             "no worker is attached: start one with `pylisten serve`");
	} else if (!hold_module()) {
		err = refuse(refusal, REASON_STOPPED, "UNLOADING", "mod_listen is being unloaded");
	} else if (slots_open(l, worker)) {
		reg.owed++;
		err = refuse(refusal, REASON_NO_WORKER, "TOO_MANY_LISTENS",
		             "max-listens is %u: raise it in autoload_configs/listen.conf.xml",
		             lsn_arena_slots(slots_arena()));
	}
	registry_unlock();
	if (err)
		service_wake();
	return err;
}

/**
 * Makes a listen known to all. If its worker was lost meanwhile it gets
 * another one.
 *
 * @param l  Listen, with its slot open
 *
 * @return false if it has been ended before
 */
bool registry_publish(struct listen *l)
{
	bool live;

	registry_lock();
	live = listen_live(l);
	if (live) {
		if (!workers_at(l->worker))
			slots_assign(l, workers_least_loaded());
		switch_core_hash_insert(reg.by_id, l->id, listen_ref(l));
		slots_publish(l);
		l->published = true;
		reg.tallies.started++;
	}
	registry_unlock();
	return live;
}

/**
 * Takes a listen that ends off the list and marks its slot as ended. No media
 * thread may see it any more.
 *
 * @param l       Listen
 * @param reason  Why it ends
 *
 * @return true if it was published
 */
bool registry_retire(struct listen *l, enum reason reason)
{
	bool published;

	registry_lock();
	published = l->published;
	slots_leave(l);
	reg.owed++;
	if (published) {
		switch_core_hash_delete(reg.by_id, l->id);
		reg.tallies.ended++;
		reg.tallies.reasons[reason]++;
	}
	registry_unlock();
	workers_ring(l->arena, l->slot);
	if (published)
		listen_unref(l);
	service_wake();
	return published;
}

/**
 * Notes that the worker found the verb valid.
 *
 * @param l  Listen
 *
 * @return false if it has ended meanwhile
 */
bool registry_accept(struct listen *l)
{
	bool live;

	registry_lock();
	live = listen_live(l);
	l->accepted |= live;
	pthread_cond_broadcast(&reg.changed);
	registry_unlock();
	return live;
}

/**
 * Waits until a listen is accepted or has ended, or the time is up.
 *
 * @param l           Listen
 * @param timeout_ms  Longest wait, ms
 */
void registry_wait_accept(struct listen *l, uint32_t timeout_ms)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += timeout_ms / 1000u;
	until.tv_nsec += (long)(timeout_ms % 1000u) * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	registry_lock();
	while (!l->accepted && !reg.shut && atomic_load(&l->state) != LISTEN_ENDED) {
		if (pthread_cond_timedwait(&reg.changed, &reg.lock, &until))
			break;
	}
	registry_unlock();
}

/**
 * Wakes those who wait in registry_wait_accept, after a listen has ended.
 */
void registry_wake_waiters(void)
{
	registry_lock();
	pthread_cond_broadcast(&reg.changed);
	registry_unlock();
}

/**
 * Gives back the holds of ended listens on the module. Only where no code of
 * the thread that ended them can be in the way of an unload: in the service
 * thread, which unloading waits for, or after it.
 */
void registry_release_module(void)
{
	registry_lock();
	for (; reg.owed; reg.owed--)
		switch_thread_rwlock_unlock(reg.module->rwlock);
	registry_unlock();
}

/**
 * @param n  Listens that went to another worker
 */
void registry_count_adopted(uint32_t n)
{
	registry_lock();
	reg.tallies.adopted += n;
	registry_unlock();
}

/**
 * Counts a request that was turned down.
 */
void registry_count_refused(void)
{
	registry_lock();
	reg.tallies.refused++;
	registry_unlock();
}

/**
 * @param id  Id of a listen
 *
 * @return The listen, with a reference, or NULL
 */
struct listen *registry_find(const char *id)
{
	struct listen *l;

	registry_lock();
	l = switch_core_hash_find(reg.by_id, id);
	if (l)
		listen_ref(l);
	registry_unlock();
	return l;
}

/**
 * @param t  What has been counted is stored here
 */
void registry_tallies(struct tallies *t)
{
	registry_lock();
	*t = reg.tallies;
	registry_unlock();
}

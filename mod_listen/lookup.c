/**
 * @file lookup.c  Finding listens
 *
 * What is found comes with a reference, and may end at any moment.
 */
#include <stdlib.h>
#include <string.h>

#include "lookup.h"
#include "registry.h"

/**
 * @param wanted  Filter
 * @param arg     For the filter
 * @param n       Number of listens is stored here
 *
 * @return The listens, with references, to be freed with lookup_free
 */
struct listen **lookup_all(slots_filter wanted, const void *arg, uint32_t *n)
{
	struct listen **list;

	registry_lock();
	*n = slots_collect(wanted, arg, &list);
	registry_unlock();
	return list;
}

static bool on_channel(const struct listen *l, const void *uuid)
{
	return !uuid || !strcmp(l->uuid, uuid);
}

/**
 * @param uuid  Channel, or NULL for all
 * @param n     Number of listens is stored here
 *
 * @return The listens, with references, to be freed with lookup_free
 */
struct listen **lookup_channel(const char *uuid, uint32_t *n)
{
	return lookup_all(on_channel, uuid, n);
}

/**
 * @param list  List
 * @param n     Number of listens in it
 */
void lookup_free(struct listen **list, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		listen_unref(list[i]);
	free(list);
}

/**
 * @param uuid  Channel
 * @param name  Name of a listen
 *
 * @return The live listen of that name on that channel, with a reference, or NULL
 */
struct listen *lookup_name(const char *uuid, const char *name)
{
	struct listen *found = NULL;
	uint32_t n;
	struct listen **list = lookup_channel(uuid, &n);

	for (uint32_t i = 0; i < n && !found; i++) {
		if (!strcmp(list[i]->name, name) && listen_live(list[i]))
			found = listen_ref(list[i]);
	}
	lookup_free(list, n);
	return found;
}

/**
 * @param l     Listen
 * @param name  Name of its worker, empty if it has none; WORKER_NAME_MAX + 1 bytes
 */
void lookup_worker_name(struct listen *l, char *name)
{
	const struct worker *w;

	registry_lock();
	w = workers_at(l->worker);
	switch_copy_string(name, w ? w->name : "", WORKER_NAME_MAX + 1);
	registry_unlock();
}

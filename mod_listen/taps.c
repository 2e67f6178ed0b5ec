/**
 * @file taps.c  The taps of all channels
 *
 * It has a lock of its own, for the hooks for digits look here.
 */
#include "taps.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static switch_hash_t *table; /* channel uuid → tap */
static uint32_t size;

/**
 * Makes an empty table.
 */
void taps_init(void)
{
	switch_core_hash_init(&table);
	size = 0;
}

/**
 * Frees the table, which must be empty.
 */
void taps_close(void)
{
	switch_core_hash_destroy(&table);
}

/**
 * @param uuid  Channel
 *
 * @return Its tap, with a reference, or NULL
 */
struct tap *taps_find(const char *uuid)
{
	struct tap *tap;

	pthread_mutex_lock(&lock);
	tap = switch_core_hash_find(table, uuid);
	if (tap)
		tap_ref(tap);
	pthread_mutex_unlock(&lock);
	return tap;
}

/**
 * @param uuid  Channel
 *
 * @return Its tap, made if there was none, with a reference
 */
struct tap *taps_find_or_new(const char *uuid)
{
	struct tap *tap;

	pthread_mutex_lock(&lock);
	tap = switch_core_hash_find(table, uuid);
	if (!tap) {
		tap = tap_new(uuid); /* its reference is the table's */
		switch_core_hash_insert(table, uuid, tap);
		size++;
	}
	tap_ref(tap);
	pthread_mutex_unlock(&lock);
	return tap;
}

/**
 * Takes a tap that is gone off the table.
 *
 * @param tap  Tap, of which the caller has a reference
 */
void taps_drop(struct tap *tap)
{
	bool mine;

	pthread_mutex_lock(&lock);
	mine = switch_core_hash_find(table, tap->uuid) == tap;
	if (mine) {
		switch_core_hash_delete(table, tap->uuid);
		size--;
	}
	pthread_mutex_unlock(&lock);
	if (mine)
		tap_unref(tap);
}

/**
 * @return Number of channels that are tapped
 */
uint32_t taps_count(void)
{
	uint32_t n;

	pthread_mutex_lock(&lock);
	n = size;
	pthread_mutex_unlock(&lock);
	return n;
}

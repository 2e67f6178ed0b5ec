/**
 * @file workers.c  Who is attached, and how to wake them
 *
 * A doorbell belongs to an index and is closed only with the module: media
 * threads ring it without a lock, and must never find its number reused.
 */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <switch.h>

#include "workers.h"

#define VISITOR "doctor-"

static struct worker table[LSN_WORKERS_MAX];
static _Atomic int doorbells[LSN_WORKERS_MAX];
static int kick = -1;

/**
 * Makes the eventfd by which workers wake the module.
 *
 * @return 0, or a negative errno value
 */
int workers_init(void)
{
	memset(table, 0, sizeof(table));
	for (uint32_t i = 0; i < LSN_WORKERS_MAX; i++)
		atomic_store(&doorbells[i], -1);
	kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return kick < 0 ? -errno : 0;
}

/**
 * Closes all eventfds. No media thread may be left in the module.
 */
void workers_close(void)
{
	for (uint32_t i = 0; i < LSN_WORKERS_MAX; i++) {
		int fd = atomic_exchange(&doorbells[i], -1);

		if (fd >= 0)
			close(fd);
	}
	if (kick >= 0)
		close(kick);
	kick = -1;
}

/**
 * @return The eventfd by which workers wake the module
 */
int workers_kick_fd(void)
{
	return kick;
}

/**
 * Rings the doorbell of the worker that serves a slot, if that worker waits.
 * Never blocks; an eventfd that cannot take another ring has been rung.
 *
 * @param a     Arena
 * @param slot  Slot in which something was put
 */
void workers_ring(struct lsn_arena *a, uint32_t slot)
{
	uint32_t index;
	int fd;

	if (!lsn_bell(a, slot, &index))
		return;
	fd = atomic_load_explicit(&doorbells[index], memory_order_acquire);
	if (fd >= 0)
		(void)eventfd_write(fd, 1);
}

/* Makes the doorbell of an index, or silences one that a predecessor left. */
static int open_doorbell(uint32_t index)
{
	int fd = atomic_load(&doorbells[index]);
	eventfd_t left;

	if (fd >= 0) {
		(void)eventfd_read(fd, &left);
		return 0;
	}
	fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (fd < 0)
		return -errno;
	atomic_store_explicit(&doorbells[index], fd, memory_order_release);
	return 0;
}

/**
 * Gives a worker an index.
 *
 * @param name  Its name, not in use
 * @param pid   Its process id, 0 if it is in another namespace
 *
 * @return The index, or LSN_NO_WORKER if there is none left
 */
uint32_t workers_attach(const char *name, pid_t pid)
{
	for (uint32_t i = 0; i < LSN_WORKERS_MAX; i++) {
		if (table[i].attached)
			continue;
		if (open_doorbell(i))
			break;
		table[i] = (struct worker){
			.attached = true,
			.pid = pid,
			/* a visitor that only looks at what a worker would find */
			.draining = !strncmp(name, VISITOR, sizeof(VISITOR) - 1),
		};
		switch_copy_string(table[i].name, name, sizeof(table[i].name));
		return i;
	}
	return LSN_NO_WORKER;
}

/**
 * Takes a worker off the list.
 *
 * @param index  Index
 */
void workers_detach(uint32_t index)
{
	table[index] = (struct worker){0};
}

/**
 * @param index  Index of an attached worker
 *
 * @return Its doorbell
 */
int workers_doorbell(uint32_t index)
{
	return atomic_load(&doorbells[index]);
}

/**
 * @param index  Index, or LSN_NO_WORKER
 *
 * @return The worker, or NULL if none is attached under this index
 */
struct worker *workers_at(uint32_t index)
{
	return index < LSN_WORKERS_MAX && table[index].attached ? &table[index] : NULL;
}

/**
 * @param name  Name
 *
 * @return Index of the attached worker of that name, or LSN_NO_WORKER
 */
uint32_t workers_find(const char *name)
{
	for (uint32_t i = 0; i < LSN_WORKERS_MAX; i++) {
		if (table[i].attached && !strcmp(table[i].name, name))
			return i;
	}
	return LSN_NO_WORKER;
}

/**
 * @return Index of the attached worker that has the fewest listens and is not
 *         draining, or LSN_NO_WORKER
 */
uint32_t workers_least_loaded(void)
{
	uint32_t best = LSN_NO_WORKER;

	for (uint32_t i = 0; i < LSN_WORKERS_MAX; i++) {
		if (!table[i].attached || table[i].draining)
			continue;
		if (best == LSN_NO_WORKER || table[i].listens < table[best].listens)
			best = i;
	}
	return best;
}

/**
 * @return Number of attached workers
 */
uint32_t workers_count(void)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < LSN_WORKERS_MAX; i++)
		n += table[i].attached;
	return n;
}

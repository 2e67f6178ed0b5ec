/**
 * @file workers.h  Who is attached, and how to wake them
 *
 * All but workers_ring and workers_kick_fd is called with the registry locked.
 */
#ifndef LISTEN_WORKERS_H
#define LISTEN_WORKERS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "shm/shm.h"

#define WORKER_NAME_MAX 31u

struct worker {
	bool attached;
	bool draining;
	char name[WORKER_NAME_MAX + 1];
	pid_t pid;
	uint32_t listens;
};

int workers_init(void);
void workers_close(void);
int workers_kick_fd(void);
void workers_ring(struct lsn_arena *a, uint32_t slot);

uint32_t workers_attach(const char *name, pid_t pid);
void workers_detach(uint32_t index);
int workers_doorbell(uint32_t index);
struct worker *workers_at(uint32_t index);
uint32_t workers_find(const char *name);
uint32_t workers_least_loaded(void);
uint32_t workers_count(void);

#endif

/**
 * @file slots.h  The slots of the arena and what stands in them
 *
 * Called with the registry locked, unless said otherwise.
 */
#ifndef LISTEN_SLOTS_H
#define LISTEN_SLOTS_H

#include "listen.h"

struct slot_counts {
	uint32_t free;
	uint32_t live;
	uint32_t ended;
};

typedef bool (*slots_filter)(const struct listen *l, const void *arg);

int slots_init(uint32_t slots, uint32_t ring_ms);
void slots_close(void);
struct lsn_arena *slots_arena(void);

int slots_open(struct listen *l, uint32_t worker);
void slots_publish(struct listen *l);
void slots_assign(struct listen *l, uint32_t worker);
void slots_leave(struct listen *l);
void slots_abandon(uint32_t worker);
bool slots_reclaim(void);

uint32_t slots_live(void);
uint32_t slots_collect(slots_filter wanted, const void *arg, struct listen ***list);
void slots_count(struct slot_counts *n, struct lsn_counters *sum);

#endif

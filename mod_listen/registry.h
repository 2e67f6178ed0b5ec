/**
 * @file registry.h  All listens, by id
 *
 * One lock for listens, slots and workers, held for short and never while the
 * core is called: whoever holds it waits for nobody.
 */
#ifndef LISTEN_REGISTRY_H
#define LISTEN_REGISTRY_H

#include "listen.h"
#include "settings.h"
#include "slots.h"

/* What is counted over the life of the module. */
struct tallies {
	uint64_t started;
	uint64_t ended;
	uint64_t refused;
	uint64_t adopted;
	uint64_t reasons[REASON_COUNT];
};

int registry_init(const struct settings *s, switch_loadable_module_interface_t *module);
void registry_close(void);
void registry_shut(void);
void registry_lock(void);
void registry_unlock(void);
void registry_settings(struct settings *s);
void registry_set_settings(const struct settings *s);

int registry_open(struct listen *l, struct refusal *refusal);
bool registry_publish(struct listen *l);
bool registry_retire(struct listen *l, enum reason reason);
bool registry_accept(struct listen *l);
void registry_wait_accept(struct listen *l, uint32_t timeout_ms);
void registry_wake_waiters(void);
void registry_release_module(void);
void registry_count_adopted(uint32_t n);
void registry_count_refused(void);

struct listen *registry_find(const char *id);
void registry_tallies(struct tallies *t);

#endif

/**
 * @file lookup.h  Finding listens
 */
#ifndef LISTEN_LOOKUP_H
#define LISTEN_LOOKUP_H

#include "listen.h"
#include "slots.h"

struct listen **lookup_all(slots_filter wanted, const void *arg, uint32_t *n);
struct listen **lookup_channel(const char *uuid, uint32_t *n);
void lookup_free(struct listen **list, uint32_t n);
struct listen *lookup_name(const char *uuid, const char *name);
void lookup_worker_name(struct listen *l, char *name);

#endif

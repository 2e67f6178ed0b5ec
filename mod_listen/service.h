/**
 * @file service.h  The module's own thread
 */
#ifndef LISTEN_SERVICE_H
#define LISTEN_SERVICE_H

#include <switch.h>

#include "settings.h"

int service_start(const struct settings *s, switch_memory_pool_t *pool);
void service_stop(void);
void service_wake(void);
int service_rebind(const struct settings *s);

#endif

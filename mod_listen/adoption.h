/**
 * @file adoption.h  Listens that go to another worker
 */
#ifndef LISTEN_ADOPTION_H
#define LISTEN_ADOPTION_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

uint32_t adoption_attach(const char *name, pid_t pid);
void adoption_welcomed(void);
void adoption_lost(uint32_t worker);
int adoption_drain(const char *name, uint32_t *moved, uint32_t *left);
bool adoption_expire(void);

#endif

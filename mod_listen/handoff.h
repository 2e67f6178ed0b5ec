/**
 * @file handoff.h  Hands workers the memory, and knows who is alive
 *
 * All of this belongs to the service thread.
 */
#ifndef LISTEN_HANDOFF_H
#define LISTEN_HANDOFF_H

#include <poll.h>
#include <stdbool.h>

#include "settings.h"
#include "shm/shm.h"

/* Connections that have not yet said who they are. */
#define HANDOFF_PENDING 16u
#define HANDOFF_PEERS (LSN_WORKERS_MAX + HANDOFF_PENDING)
#define HANDOFF_FDS (1u + HANDOFF_PEERS)

int handoff_open(const struct settings *s);
int handoff_rebind(const struct settings *s);
void handoff_close(void);
nfds_t handoff_poll(struct pollfd *fds);
void handoff_serve(const struct pollfd *fds, nfds_t n);
bool handoff_expire(void);

#endif

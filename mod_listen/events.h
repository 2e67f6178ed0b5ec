/**
 * @file events.h  The events listen::*
 */
#ifndef LISTEN_EVENTS_H
#define LISTEN_EVENTS_H

#include "listen.h"

int events_init(void);
void events_close(void);

void events_start(struct listen *l, switch_channel_t *channel);
void events_adopt(struct listen *l, const char *from);
void events_command(struct listen *l, const char *command, const char *argument);
void events_end(struct listen *l, switch_channel_t *channel, const struct lsn_counters *c);
int events_worker(struct listen *l, switch_channel_t *channel, const char *name,
                  const cJSON *headers);

#endif

/**
 * @file taps.h  The taps of all channels
 */
#ifndef LISTEN_TAPS_H
#define LISTEN_TAPS_H

#include "tap.h"

void taps_init(void);
void taps_close(void);
struct tap *taps_find(const char *uuid);
struct tap *taps_find_or_new(const char *uuid);
void taps_drop(struct tap *tap);
uint32_t taps_count(void);

#endif

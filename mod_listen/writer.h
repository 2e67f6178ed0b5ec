/**
 * @file writer.h  Writes to channels that nobody else writes to
 */
#ifndef LISTEN_WRITER_H
#define LISTEN_WRITER_H

#include <stdbool.h>
#include <stdint.h>

bool writer_serve(void);
void writer_reap(void);
uint32_t writer_count(void);

#endif

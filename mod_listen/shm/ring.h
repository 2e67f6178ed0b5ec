/**
 * @file ring.h  A single-producer single-consumer ring of records
 *
 * Positions are monotonic byte counts, never wrapped; an offset is taken modulo
 * the ring's size only to touch memory. A record is a 32-byte header and a
 * payload padded to 32 bytes, and never wraps: a PAD record fills the end of
 * the buffer. Each side keeps its own position in private memory and trusts
 * the other side's published one only after checking it.
 */
#ifndef LSN_RING_H
#define LSN_RING_H

#include <stdatomic.h>
#include <stdint.h>

#define LSN_LINE 128u /* two cache lines: adjacent-line prefetch pairs them */
#define LSN_RECORD_ALIGN 32u

enum lsn_record_type { LSN_REC_PAD = 1, LSN_REC_AUDIO = 2, LSN_REC_DIGIT = 3 };

struct lsn_record {
	uint32_t bytes; /* payload, without padding */
	uint16_t type;  /* enum lsn_record_type */
	uint16_t level; /* AUDIO: RMS, 0 … 32768 */
	uint32_t rate;  /* AUDIO: Hz */
	uint32_t reserved;
	uint64_t t_ns; /* capture: when its last sample was heard */
	uint64_t pos;  /* capture: time-line samples; playback: ticks */
};

struct lsn_ring_shared {
	_Alignas(LSN_LINE) _Atomic uint64_t wpos; /* published by the producer */
	_Alignas(LSN_LINE) _Atomic uint64_t rpos; /* published by the consumer */
};

struct lsn_ring {
	struct lsn_ring_shared *sh;
	uint8_t *data;
	uint32_t size; /* bytes, a multiple of LSN_RECORD_ALIGN */
};

/** Space that a record with this payload takes. */
uint32_t lsn_record_size(uint32_t bytes);
/** Appends a record; `wpos` is the producer's own position. -ENOBUFS if full,
 *  -EBADMSG if the consumer's published position is impossible. */
int lsn_ring_put(const struct lsn_ring *r, uint64_t *wpos, const struct lsn_record *rec,
                 const void *payload);
/** Bytes between the consumer's published position and `wpos`, or the full
 *  size if the published position is impossible. */
uint32_t lsn_ring_used(const struct lsn_ring *r, uint64_t wpos);
/** Looks at the record at *at, stepping over padding. 1: found, 0: none,
 *  -EBADMSG: what stands there cannot be a record. */
int lsn_ring_peek(const struct lsn_ring *r, uint64_t *at, struct lsn_record *rec,
                  const uint8_t **payload);
/** Publishes the consumer's position. */
void lsn_ring_consume(const struct lsn_ring *r, uint64_t rpos);
/** The producer's published position. */
uint64_t lsn_ring_wpos(const struct lsn_ring *r);

#endif

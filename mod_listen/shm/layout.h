/**
 * @file layout.h  What stands where in the arena (private to this folder)
 *
 * header page | doorbells | slot control blocks | slot data
 *
 * Everything is computed from two numbers, slots and ring_ms; a mapping whose
 * size does not follow from them is refused.
 */
#ifndef LSN_LAYOUT_H
#define LSN_LAYOUT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "ring.h"
#include "shm.h"

#define LSN_PAGE 4096u
#define LSN_CONTROL_BYTES 2048u
#define LSN_RING_MS_MIN 200u
#define LSN_RING_MS_MAX 60000u

struct lsn_header {
	uint32_t magic;
	uint16_t abi_major;
	uint16_t abi_minor;
	uint64_t layout;
	uint32_t slots;
	uint32_t ring_ms;
	uint32_t byte_order; /* 0x01020304 as the creator stores it */
	uint32_t reserved;
};

struct lsn_doorbell {
	_Alignas(LSN_LINE) _Atomic uint32_t armed;
};

/* Written by the producer. */
struct lsn_producer_counters {
	_Atomic uint64_t captured[2];
	_Atomic uint64_t dropped[2];
	_Atomic uint64_t trimmed[2];
	_Atomic uint64_t played_ticks;
	_Atomic uint64_t flushed_ticks;
	_Atomic uint64_t digits_dropped;
	_Atomic uint64_t corrupt;
};

/* Written by the consumer. */
struct lsn_consumer_counters {
	_Atomic uint64_t late[2];
	_Atomic uint64_t filled;
	_Atomic uint64_t sent;
	_Atomic uint64_t corrupt;
};

struct lsn_flush_shared {
	_Atomic uint64_t to;
	_Atomic uint64_t from;
	_Atomic uint64_t upto;
};

struct lsn_slot {
	/* identity: producer writes; `state` also goes ENDED → RELEASED by the consumer */
	_Alignas(LSN_PAGE) _Atomic uint32_t state;
	_Atomic uint32_t gen;
	_Atomic uint32_t worker;
	_Atomic uint32_t reader; /* the worker that is attached; the consumer writes it, too */
	_Atomic uint32_t rate;
	_Atomic uint32_t mix;
	_Atomic uint64_t start_ns;
	_Atomic uint64_t end_ns;

	struct lsn_ring_shared capture[2];
	struct lsn_ring_shared play;
	struct lsn_ring_shared control;

	/* consumer → producer */
	_Alignas(LSN_LINE) _Atomic uint64_t flush_to; /* ring position */
	_Atomic uint64_t written;                     /* playback ticks */
	_Atomic uint64_t emitted;                     /* time-line samples handed out */
	struct lsn_consumer_counters consumer;

	/* producer → consumer */
	_Alignas(LSN_LINE) _Atomic uint64_t played; /* playback ticks */
	_Atomic uint64_t flushes;
	struct lsn_flush_shared flush[LSN_FLUSHES];
	struct lsn_producer_counters producer;

	_Alignas(LSN_LINE) uint8_t control_data[LSN_CONTROL_BYTES];
};

/* What each process keeps to itself about a slot. */
struct lsn_producer {
	bool live;
	uint32_t gen;
	uint32_t rate;
	uint64_t start_ns;
	uint64_t wpos[2];
	uint64_t control_wpos;
	uint64_t next[2];    /* time-line position of the next record */
	uint64_t last_ns[2]; /* when the last record was written; 0 = never */
	uint32_t lag_count[2];
	uint64_t lag_min[2]; /* least lag behind the clock in this window, samples */
	uint64_t play_rpos;
	uint32_t play_used; /* samples already read of the record at play_rpos */
	uint64_t played;
	uint64_t flushes;
};

struct lsn_consumer {
	bool attached;
	bool open;
	bool drop;
	bool end_sent;
	bool moved_sent;
	uint32_t worker;
	uint32_t gen;
	uint32_t rate;
	uint32_t mix;
	uint32_t seen_state;
	uint64_t start_ns;
	uint64_t rpos[2];
	uint64_t control_rpos;
	uint64_t seen_wpos[3];  /* capture rings and control ring, at the last drain */
	uint64_t partial[2];    /* ring position + 1 of a record that was used in part */
	uint64_t last_ns[2];    /* t_ns of the newest record seen; 0 = none yet */
	uint64_t emitted;       /* time-line samples handed out */
	uint64_t play_wpos;
	uint64_t written; /* ticks */
};

struct lsn_arena {
	uint8_t *base;
	uint64_t size;
	int fd; /* -1 in a consumer */
	uint32_t slots;
	uint32_t ring_ms;
	uint32_t capture_max; /* bytes of one capture ring at LSN_RATE_MAX */
	uint32_t play_size;
	uint64_t bells_off;
	uint64_t slots_off;
	uint64_t data_off;
	uint64_t data_stride;
	struct lsn_producer *producer; /* [slots], in the creating process */
	struct lsn_consumer *consumer; /* [slots], in a mapping process */
	uint32_t *attached;            /* slots attached, in a mapping process */
	uint32_t attached_count;
};

struct lsn_slot *lsn_slot_at(const struct lsn_arena *a, uint32_t slot);
struct lsn_doorbell *lsn_bell_at(const struct lsn_arena *a, uint32_t worker);
struct lsn_ring lsn_capture_ring(const struct lsn_arena *a, uint32_t slot, uint32_t track,
                                 uint32_t rate);
struct lsn_ring lsn_play_ring(const struct lsn_arena *a, uint32_t slot);
struct lsn_ring lsn_control_ring(const struct lsn_arena *a, uint32_t slot);
uint8_t *lsn_slot_data(const struct lsn_arena *a, uint32_t slot);

static inline uint32_t lsn_frame_samples(uint32_t rate)
{
	return rate / (1000u / LSN_FRAME_MS);
}

/* Samples that have passed after `ns` nanoseconds; exact, no overflow for centuries. */
static inline uint64_t lsn_ns_to_samples(uint64_t ns, uint32_t rate)
{
	return ns / 1000000000u * rate + ns % 1000000000u * rate / 1000000000u;
}

static inline void lsn_count(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

#endif

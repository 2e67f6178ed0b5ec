/**
 * @file shm.h  The memory that a switch and its workers share
 *
 * One sealed memfd, the arena, cut into slots. A slot carries one listen: two
 * capture rings (near, far), one playback ring, one control ring and the
 * counters of both sides. This part knows nothing of FreeSWITCH; it is
 * compiled into mod_listen.so and, by cffi, into pylisten._shm, so that both
 * sides run the same code.
 *
 * Roles. The *producer* (the switch, or the simulator) owns the arena: it
 * opens, ends and reclaims slots, writes capture and control rings, and reads
 * playback rings. The *consumer* (a worker) maps the arena, attaches to the
 * slots that are assigned to it, drains them and writes playback rings.
 *
 * Rules.
 * - Each ring has one writer and one reader at a time. Full means: the newest
 *   is dropped and counted. Nothing here waits, logs or, after creation and
 *   mapping, allocates.
 * - Times are CLOCK_MONOTONIC nanoseconds. Samples are signed 16-bit, host
 *   order (little-endian; checked on mapping), mono within a ring.
 * - A capture record carries its absolute position on the listen's time-line
 *   (samples since the slot was opened, at the listen's rate), so a gap needs
 *   no message and a reader can be replaced at any moment.
 * - A playback position is counted in ticks of 1/192000 s: 192000 is the least
 *   common multiple of the six sample rates, so every position is a whole
 *   number whatever the rates of the clips.
 * - Whatever is read from shared memory is checked before it is used.
 *
 * Functions return 0, or a negative errno value, unless they say otherwise.
 */
#ifndef LSN_SHM_H
#define LSN_SHM_H

#include <stddef.h>
#include <stdint.h>

#define LSN_ABI_MAJOR 1u
#define LSN_ABI_MINOR 0u
#define LSN_MAGIC 0x314e534cu /* "LSN1" */
#define LSN_SLOTS_MAX 4096u
#define LSN_WORKERS_MAX 64u
#define LSN_NO_WORKER 0xffffffffu
#define LSN_TICKS_HZ 192000u
#define LSN_FRAME_MS 20u
#define LSN_RATE_MAX 64000u
#define LSN_PLAY_MS 2000u
#define LSN_FLUSHES 4u

enum lsn_mix { LSN_MONO = 0, LSN_STEREO = 1, LSN_MIXED = 2 };
enum lsn_track { LSN_NEAR = 0, LSN_FAR = 1 };
enum lsn_state { LSN_FREE = 0, LSN_LIVE = 1, LSN_ENDED = 2, LSN_RELEASED = 3 };
enum lsn_kind { LSN_AUDIO = 1, LSN_DIGIT = 2, LSN_END = 3, LSN_MOVED = 4 };

struct lsn_arena;

struct lsn_config {
	uint32_t slots;   /* 1 … LSN_SLOTS_MAX */
	uint32_t ring_ms; /* audio that a capture ring holds, 200 … 60000 ms */
};

struct lsn_open {
	uint32_t rate;   /* of the capture tracks: 8000 … 64000 Hz */
	uint32_t mix;    /* enum lsn_mix */
	uint32_t worker; /* index, or LSN_NO_WORKER */
	uint64_t now_ns;
};

/* One thing that a drain hands out: in order of time within a slot and kind. END
 * comes last; MOVED, once, when the switch has given the slot to another worker,
 * which waits for this one to detach. */
struct lsn_item {
	uint32_t kind; /* enum lsn_kind */
	uint32_t slot;
	uint32_t gen;
	uint32_t offset;   /* AUDIO: of the frame in the caller's buffer, bytes */
	uint32_t bytes;    /* AUDIO: 20 ms, interleaved if stereo */
	uint32_t level;    /* AUDIO: RMS of the near track, 0 … 32768 */
	uint32_t silence;  /* AUDIO: samples per track that were filled in */
	uint32_t digit;    /* DIGIT: ASCII code */
	uint32_t duration; /* DIGIT: timestamp units of 8 kHz */
	uint32_t far;      /* DIGIT: 1 = pressed by the far end */
	uint64_t pos;      /* time-line position, samples: start of the frame; for END the end */
};

struct lsn_flush {
	uint64_t to;   /* ring position (bytes) up to which audio was discarded */
	uint64_t from; /* ticks that had been played when the flush took effect */
	uint64_t upto; /* ticks at which playing goes on */
};

struct lsn_play_status {
	uint64_t written; /* ticks written so far */
	uint64_t played;  /* ticks behind us: written to the call, or flushed */
	uint64_t flushes; /* flushes done so far; the last LSN_FLUSHES are below */
	struct lsn_flush flush[LSN_FLUSHES]; /* flush n stands at n % LSN_FLUSHES */
	uint32_t room; /* bytes free in the playback ring, headers included */
};

struct lsn_counters {
	uint64_t captured[2];   /* samples written to each capture ring */
	uint64_t dropped[2];    /* samples lost because the ring was full */
	uint64_t trimmed[2];    /* silent samples left out to return to the clock */
	uint64_t late[2];       /* samples that came after their place was filled */
	uint64_t filled;        /* samples of silence that the reader filled in */
	uint64_t sent;          /* samples per track handed out in frames */
	uint64_t played_ticks;  /* really written to the call */
	uint64_t flushed_ticks; /* discarded by flushes */
	uint64_t digits_dropped;
	uint64_t corrupt; /* records that failed a check */
};

struct lsn_info {
	uint32_t state; /* enum lsn_state */
	uint32_t gen;
	uint32_t worker; /* to which it is assigned */
	uint32_t reader; /* which is attached */
	uint32_t rate;
	uint32_t mix;
	uint64_t start_ns;
	uint64_t end_ns; /* 0 while live */
};

/* -- arena ---------------------------------------------------------------- */

/** Creates an arena (producer). -EINVAL on a bad configuration. */
int lsn_arena_create(struct lsn_arena **ap, const struct lsn_config *cfg);
/** Maps an arena by its descriptor (consumer); the descriptor stays the
 *  caller's. -EPROTO: not an arena, or not sealed; -ENOTSUP: another ABI. */
int lsn_arena_map(struct lsn_arena **ap, int fd);
/** Unmaps; the creator's descriptor is closed too. */
void lsn_arena_free(struct lsn_arena *a);
/** The memfd of a created arena. */
int lsn_arena_fd(const struct lsn_arena *a);
uint64_t lsn_arena_size(const struct lsn_arena *a);
uint32_t lsn_arena_slots(const struct lsn_arena *a);
uint32_t lsn_arena_ring_ms(const struct lsn_arena *a);
uint64_t lsn_now_ns(void);
/** A number made of the layout; both builds must agree on it. */
uint64_t lsn_layout(void);
int lsn_rate_ok(uint32_t rate);

/* -- producer: slots ------------------------------------------------------ */

/** FREE → LIVE. -EBUSY if the slot is not free, -EINVAL on bad parameters. */
int lsn_slot_open(struct lsn_arena *a, uint32_t slot, const struct lsn_open *o, uint32_t *gen);
/** Gives the slot to a worker (or none). One that reads it still sees MOVED. */
int lsn_slot_assign(struct lsn_arena *a, uint32_t slot, uint32_t worker);
/** Forgets that `worker` reads the slot, because it is dead. */
int lsn_slot_evict(struct lsn_arena *a, uint32_t slot, uint32_t worker);
/** LIVE → ENDED. No capture or playback call may run or follow. */
int lsn_slot_end(struct lsn_arena *a, uint32_t slot, uint64_t now_ns);
/** ENDED or RELEASED → FREE, pages given back. -EBUSY while LIVE. */
int lsn_slot_reclaim(struct lsn_arena *a, uint32_t slot);
int lsn_slot_info(const struct lsn_arena *a, uint32_t slot, struct lsn_info *info);
int lsn_slot_counters(const struct lsn_arena *a, uint32_t slot, struct lsn_counters *c);

/* -- producer: capture and control ---------------------------------------- */

/** Appends audio of one track. `now_ns` is the time at which its last sample
 *  was heard. -ENOBUFS: dropped and counted. One thread per slot and track. */
int lsn_capture(struct lsn_arena *a, uint32_t slot, uint32_t track, uint64_t now_ns,
                const int16_t *pcm, uint32_t samples);
/** Appends a digit. Calls for one slot must be serialised by the caller. */
int lsn_digit(struct lsn_arena *a, uint32_t slot, uint64_t now_ns, char digit, uint32_t duration,
              int far);
/** After lsn_capture or lsn_digit: 1 if the worker's doorbell must be rung
 *  (write to its eventfd), with its index in *worker; else 0. */
int lsn_bell(struct lsn_arena *a, uint32_t slot, uint32_t *worker);

/* -- producer: playback --------------------------------------------------- */

/** Carries out pending flushes and returns the sample rate of the audio that
 *  comes next, or 0 if there is none. One thread per slot. */
uint32_t lsn_play_rate(struct lsn_arena *a, uint32_t slot);
/** Reads up to `max` samples of that rate; returns how many (fewer at a change
 *  of rate or at the end). The position moves on: what is read counts as played. */
uint32_t lsn_play_read(struct lsn_arena *a, uint32_t slot, int16_t *pcm, uint32_t max);
/** Whether audio waits, or a flush; callable from any thread. */
int lsn_play_pending(const struct lsn_arena *a, uint32_t slot);

/* -- consumer ------------------------------------------------------------- */

/** Begins to drain a slot that is assigned to `worker`. -ESTALE if generation
 *  or worker do not match; -EBUSY while another worker reads it. Flow is closed until lsn_flow opens it. */
int lsn_attach(struct lsn_arena *a, uint32_t slot, uint32_t gen, uint32_t worker);
/** Stops draining; the slot is left as it is (another worker may go on). */
int lsn_detach(struct lsn_arena *a, uint32_t slot, uint32_t gen);
/** Stops draining and tells the producer that the slot may be reused. */
int lsn_release(struct lsn_arena *a, uint32_t slot, uint32_t gen);
/** Opens or closes the flow of frames; digits and END pass while it is closed,
 *  but END only after the last frame, unless `discard` was asked for. */
int lsn_flow(struct lsn_arena *a, uint32_t slot, uint32_t gen, int open);
/** Gives up what the rings still hold, so that END can follow. Returns the
 *  number of samples per track given up. */
int64_t lsn_discard(struct lsn_arena *a, uint32_t slot, uint32_t gen, uint64_t now_ns);
/** Gives up audio that is older than `keep_ms`, while the flow is closed, so that
 *  the ring has room for what comes: the gap is then where the flow was closed,
 *  and its length is known. Returns the number of samples per track given up. */
int64_t lsn_trim(struct lsn_arena *a, uint32_t slot, uint32_t gen, uint64_t now_ns,
                 uint32_t keep_ms);
/** Drains all attached slots: frames, digits and ends go to `items`, audio to
 *  `pcm`. Returns the number of items; if it equals `max`, or the buffer was
 *  too small for another frame, *more is set: call again. */
uint32_t lsn_drain(struct lsn_arena *a, uint64_t now_ns, struct lsn_item *items, uint32_t max,
                   uint8_t *pcm, uint32_t pcm_bytes, uint32_t *more);
/** Arms the worker's doorbell. 1: something came meanwhile, drain again; 0: armed. */
int lsn_arm(struct lsn_arena *a, uint32_t worker);
/** Appends audio to the playback ring; returns the samples taken (fewer when
 *  the ring is full), or a negative errno value. *kick is set to 1 if the
 *  producer must be woken (write to the kick eventfd). */
int64_t lsn_play_write(struct lsn_arena *a, uint32_t slot, uint32_t gen, uint32_t rate,
                       const int16_t *pcm, uint32_t samples, uint32_t *kick);
/** Discards all audio written so far. */
int lsn_play_flush(struct lsn_arena *a, uint32_t slot, uint32_t gen);
int lsn_play_status(const struct lsn_arena *a, uint32_t slot, uint32_t gen,
                    struct lsn_play_status *st);

#endif

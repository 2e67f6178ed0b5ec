/**
 * @file producer.c  The switch's side: slots, capture, digits, doorbells
 *
 * Where a record stands on the time-line is decided here, where the clock of
 * the audio is: frames that follow one another are laid end to end; after a
 * pause (hold, an application that does not read) the next one is laid at the
 * present. So the reader never has to guess, and the stream cannot drift.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>

#include "layout.h"

/* A track that was silent for longer than this begins anew at the present. The
 * reader waits 50 ms longer (LSN_IDLE_NS in consumer.c) before it fills in. */
#define PAUSE_NS 200000000u
/* Frames in a window over which a lasting lag behind the clock is measured. */
#define LAG_WINDOW 50u
/* Ahead of the clock by this much, silent frames are left out … */
#define AHEAD_TRIM_MS 60u
/* … and by this much any frame: a burst that no listener could use. */
#define AHEAD_DROP_MS 500u
/* Level below which a frame counts as silent: -50 dBFS. */
#define SILENT_LEVEL 104u

static struct lsn_producer *producer_of(const struct lsn_arena *a, uint32_t slot)
{
	return a->producer && slot < a->slots ? &a->producer[slot] : NULL;
}

static void reset_ring(struct lsn_ring_shared *r)
{
	atomic_store_explicit(&r->wpos, 0, memory_order_relaxed);
	atomic_store_explicit(&r->rpos, 0, memory_order_relaxed);
}

static void reset_shared(struct lsn_slot *s)
{
	reset_ring(&s->capture[LSN_NEAR]);
	reset_ring(&s->capture[LSN_FAR]);
	reset_ring(&s->play);
	reset_ring(&s->control);
	atomic_store_explicit(&s->flush_to, 0, memory_order_relaxed);
	atomic_store_explicit(&s->written, 0, memory_order_relaxed);
	atomic_store_explicit(&s->emitted, 0, memory_order_relaxed);
	atomic_store_explicit(&s->played, 0, memory_order_relaxed);
	atomic_store_explicit(&s->flushes, 0, memory_order_relaxed);
	memset(&s->consumer, 0, sizeof(s->consumer));
	memset(&s->producer, 0, sizeof(s->producer));
	memset(s->flush, 0, sizeof(s->flush));
}

int lsn_slot_open(struct lsn_arena *a, uint32_t slot, const struct lsn_open *o, uint32_t *gen)
{
	struct lsn_producer *p = producer_of(a, slot);
	struct lsn_slot *s;

	if (!p || !o || !gen || !lsn_rate_ok(o->rate) || o->mix > LSN_MIXED)
		return -EINVAL;
	if (o->worker >= LSN_WORKERS_MAX && o->worker != LSN_NO_WORKER)
		return -EINVAL;
	s = lsn_slot_at(a, slot);
	if (p->live || atomic_load_explicit(&s->state, memory_order_acquire) != LSN_FREE)
		return -EBUSY;

	*p = (struct lsn_producer){
		.live = true,
		.gen = p->gen + 1,
		.rate = o->rate,
		.start_ns = o->now_ns,
		.lag_min = {UINT64_MAX, UINT64_MAX},
	};
	reset_shared(s);
	atomic_store_explicit(&s->gen, p->gen, memory_order_relaxed);
	atomic_store_explicit(&s->worker, o->worker, memory_order_relaxed);
	atomic_store_explicit(&s->reader, LSN_NO_WORKER, memory_order_relaxed);
	atomic_store_explicit(&s->rate, o->rate, memory_order_relaxed);
	atomic_store_explicit(&s->mix, o->mix, memory_order_relaxed);
	atomic_store_explicit(&s->start_ns, o->now_ns, memory_order_relaxed);
	atomic_store_explicit(&s->end_ns, 0, memory_order_relaxed);
	/* release: a reader that sees LIVE sees all of the above */
	atomic_store_explicit(&s->state, LSN_LIVE, memory_order_release);
	*gen = p->gen;
	return 0;
}

int lsn_slot_assign(struct lsn_arena *a, uint32_t slot, uint32_t worker)
{
	if (!producer_of(a, slot) || (worker >= LSN_WORKERS_MAX && worker != LSN_NO_WORKER))
		return -EINVAL;
	atomic_store_explicit(&lsn_slot_at(a, slot)->worker, worker, memory_order_release);
	return 0;
}

int lsn_slot_evict(struct lsn_arena *a, uint32_t slot, uint32_t worker)
{
	if (!producer_of(a, slot))
		return -EINVAL;
	(void)atomic_compare_exchange_strong_explicit(&lsn_slot_at(a, slot)->reader, &worker,
	                                              LSN_NO_WORKER, memory_order_release,
	                                              memory_order_relaxed);
	return 0;
}

int lsn_slot_end(struct lsn_arena *a, uint32_t slot, uint64_t now_ns)
{
	struct lsn_producer *p = producer_of(a, slot);
	struct lsn_slot *s;

	if (!p || !p->live)
		return -EINVAL;
	s = lsn_slot_at(a, slot);
	p->live = false;
	atomic_store_explicit(&s->end_ns, now_ns, memory_order_relaxed);
	atomic_store_explicit(&s->state, LSN_ENDED, memory_order_release);
	return 0;
}

int lsn_slot_reclaim(struct lsn_arena *a, uint32_t slot)
{
	struct lsn_producer *p = producer_of(a, slot);
	struct lsn_slot *s;

	if (!p)
		return -EINVAL;
	if (p->live)
		return -EBUSY;
	s = lsn_slot_at(a, slot);
	if (atomic_load_explicit(&s->state, memory_order_acquire) == LSN_FREE)
		return 0;
	/* Gives the memory back, and no later call can hear this one's audio. */
	(void)fallocate(a->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
	                (off_t)(a->data_off + slot * a->data_stride), (off_t)a->data_stride);
	atomic_store_explicit(&s->worker, LSN_NO_WORKER, memory_order_relaxed);
	atomic_store_explicit(&s->state, LSN_FREE, memory_order_release);
	return 0;
}

int lsn_slot_info(const struct lsn_arena *a, uint32_t slot, struct lsn_info *info)
{
	struct lsn_slot *s;

	if (slot >= a->slots || !info)
		return -EINVAL;
	s = lsn_slot_at(a, slot);
	info->state = atomic_load_explicit(&s->state, memory_order_acquire);
	info->gen = atomic_load_explicit(&s->gen, memory_order_relaxed);
	info->worker = atomic_load_explicit(&s->worker, memory_order_relaxed);
	info->reader = atomic_load_explicit(&s->reader, memory_order_relaxed);
	info->rate = atomic_load_explicit(&s->rate, memory_order_relaxed);
	info->mix = atomic_load_explicit(&s->mix, memory_order_relaxed);
	info->start_ns = atomic_load_explicit(&s->start_ns, memory_order_relaxed);
	info->end_ns = atomic_load_explicit(&s->end_ns, memory_order_relaxed);
	return 0;
}

int lsn_slot_counters(const struct lsn_arena *a, uint32_t slot, struct lsn_counters *c)
{
	struct lsn_slot *s;

	if (slot >= a->slots || !c)
		return -EINVAL;
	s = lsn_slot_at(a, slot);
	for (uint32_t i = 0; i < 2; i++) {
		c->captured[i] = atomic_load_explicit(&s->producer.captured[i], memory_order_relaxed);
		c->dropped[i] = atomic_load_explicit(&s->producer.dropped[i], memory_order_relaxed);
		c->trimmed[i] = atomic_load_explicit(&s->producer.trimmed[i], memory_order_relaxed);
		c->late[i] = atomic_load_explicit(&s->consumer.late[i], memory_order_relaxed);
	}
	c->filled = atomic_load_explicit(&s->consumer.filled, memory_order_relaxed);
	c->sent = atomic_load_explicit(&s->consumer.sent, memory_order_relaxed);
	c->played_ticks = atomic_load_explicit(&s->producer.played_ticks, memory_order_relaxed);
	c->flushed_ticks = atomic_load_explicit(&s->producer.flushed_ticks, memory_order_relaxed);
	c->digits_dropped = atomic_load_explicit(&s->producer.digits_dropped, memory_order_relaxed);
	c->corrupt = atomic_load_explicit(&s->producer.corrupt, memory_order_relaxed) +
	             atomic_load_explicit(&s->consumer.corrupt, memory_order_relaxed);
	return 0;
}

/* Root mean square. Integer, as there is no reason to draw in a maths library. */
static uint16_t level_of(const int16_t *pcm, uint32_t samples)
{
	uint64_t sum = 0, mean;
	uint32_t root = 0;

	for (uint32_t i = 0; i < samples; i++)
		sum += (uint64_t)((int64_t)pcm[i] * pcm[i]);
	mean = sum / samples;
	for (uint32_t bit = 1u << 15; bit; bit >>= 1) {
		if ((uint64_t)(root + bit) * (root + bit) <= mean)
			root += bit;
	}
	return (uint16_t)root;
}

/* A lag that lasts for a whole window is audio that never came; the time-line
 * is brought back to the clock. A lag that passes is jitter, and is not. */
static void correct_lag(struct lsn_producer *p, uint32_t track, uint64_t clock, uint32_t samples)
{
	uint64_t end = p->next[track] + samples;
	uint64_t lag = end < clock ? clock - end : 0;

	if (lag < p->lag_min[track])
		p->lag_min[track] = lag;
	if (++p->lag_count[track] < LAG_WINDOW)
		return;
	if (p->lag_min[track] > lsn_frame_samples(p->rate))
		p->next[track] += p->lag_min[track];
	p->lag_count[track] = 0;
	p->lag_min[track] = UINT64_MAX;
}

/* Moves p->next[track] to where a record of `samples` that was heard until
 * `now_ns` begins. */
static void place(struct lsn_producer *p, const struct lsn_slot *s, uint32_t track,
                  uint64_t now_ns, uint64_t clock, uint32_t samples)
{
	uint64_t last = p->last_ns[track] ? p->last_ns[track] : p->start_ns;
	bool first = !p->last_ns[track];
	uint64_t begin = clock > samples ? clock - samples : 0;

	if (first && !atomic_load_explicit(&s->emitted, memory_order_relaxed)) {
		/* nothing has been handed out: the exact place is still free */
		p->next[track] = begin;
	} else if (now_ns > last + PAUSE_NS || (first && track == LSN_FAR)) {
		/* The reader has filled in up to the present, or is about to; a little
		 * further, where the other track lies ahead of the clock. */
		uint64_t emitted = atomic_load_explicit(&s->emitted, memory_order_relaxed);

		if (emitted > clock && emitted - clock < p->rate)
			clock = emitted;
		if (clock > p->next[track])
			p->next[track] = clock;
	} else {
		correct_lag(p, track, clock, samples);
		return;
	}
	p->lag_count[track] = 0;
	p->lag_min[track] = UINT64_MAX;
}

int lsn_capture(struct lsn_arena *a, uint32_t slot, uint32_t track, uint64_t now_ns,
                const int16_t *pcm, uint32_t samples)
{
	struct lsn_producer *p = producer_of(a, slot);
	struct lsn_record rec = {.type = LSN_REC_AUDIO, .t_ns = now_ns};
	struct lsn_slot *s;
	struct lsn_ring ring;
	uint64_t clock, ahead;

	if (!p || !p->live || track > LSN_FAR || !pcm || samples > a->capture_max / 8u)
		return -EINVAL;
	if (!samples)
		return 0;
	s = lsn_slot_at(a, slot);
	ring = lsn_capture_ring(a, slot, track, p->rate);
	clock = now_ns > p->start_ns ? lsn_ns_to_samples(now_ns - p->start_ns, p->rate) : 0;
	place(p, s, track, now_ns, clock, samples);
	p->last_ns[track] = now_ns;

	rec.level = level_of(pcm, samples);
	ahead = p->next[track] > clock ? (p->next[track] - clock) * 1000u / p->rate : 0;
	if (ahead > AHEAD_DROP_MS) {
		lsn_count(&s->producer.dropped[track], samples);
		return -ENOBUFS;
	}
	if (ahead > AHEAD_TRIM_MS && rec.level < SILENT_LEVEL) {
		lsn_count(&s->producer.trimmed[track], samples);
		return 0;
	}
	rec.bytes = samples * 2u;
	rec.rate = p->rate;
	rec.pos = p->next[track];
	p->next[track] += samples;
	if (lsn_ring_put(&ring, &p->wpos[track], &rec, pcm)) {
		lsn_count(&s->producer.dropped[track], samples);
		return -ENOBUFS;
	}
	lsn_count(&s->producer.captured[track], samples);
	return 0;
}

int lsn_digit(struct lsn_arena *a, uint32_t slot, uint64_t now_ns, char digit, uint32_t duration,
              int far)
{
	struct lsn_producer *p = producer_of(a, slot);
	struct lsn_record rec = {.type = LSN_REC_DIGIT, .rate = duration, .t_ns = now_ns};
	struct lsn_ring ring;

	if (!p || !p->live)
		return -EINVAL;
	rec.level = (uint16_t)(unsigned char)digit;
	rec.reserved = far ? 1 : 0;
	rec.pos = now_ns > p->start_ns ? lsn_ns_to_samples(now_ns - p->start_ns, p->rate) : 0;
	ring = lsn_control_ring(a, slot);
	if (lsn_ring_put(&ring, &p->control_wpos, &rec, NULL)) {
		lsn_count(&lsn_slot_at(a, slot)->producer.digits_dropped, 1);
		return -ENOBUFS;
	}
	return 0;
}

int lsn_bell(struct lsn_arena *a, uint32_t slot, uint32_t *worker)
{
	struct lsn_doorbell *bell;

	if (slot >= a->slots || !worker)
		return 0;
	*worker = atomic_load_explicit(&lsn_slot_at(a, slot)->worker, memory_order_acquire);
	if (*worker >= LSN_WORKERS_MAX)
		return 0;
	bell = lsn_bell_at(a, *worker);
	/* Pairs with the fence in lsn_arm: either we see the bell armed, or the
	 * worker, which arms before it looks, sees the record just published. */
	atomic_thread_fence(memory_order_seq_cst);
	return atomic_load_explicit(&bell->armed, memory_order_relaxed) &&
	       atomic_exchange_explicit(&bell->armed, 0, memory_order_acq_rel);
}

/**
 * @file play.c  Playback: the worker writes, the switch reads
 *
 * The read position is the playback position. A flush is a ring position too:
 * what stands before it is skipped, what is written after it is not touched,
 * however the two race.
 */
#include <errno.h>
#include <string.h>

#include "layout.h"

static uint64_t ticks_of(uint32_t samples, uint32_t rate)
{
	return (uint64_t)samples * (LSN_TICKS_HZ / rate);
}

static bool play_record_ok(const struct lsn_record *rec)
{
	return rec->type == LSN_REC_AUDIO && lsn_rate_ok(rec->rate) && rec->bytes &&
	       rec->bytes % 2 == 0 && rec->bytes <= lsn_frame_samples(LSN_RATE_MAX) * 2u;
}

static struct lsn_producer *live_producer(const struct lsn_arena *a, uint32_t slot)
{
	struct lsn_producer *p = a->producer && slot < a->slots ? &a->producer[slot] : NULL;

	return p && p->live ? p : NULL;
}

/* The ring holds something that no worker of ours writes: gives all of it up, and moves the
 * position to where the writer believes to be. */
static void give_up(const struct lsn_ring *ring, struct lsn_slot *s, struct lsn_producer *p)
{
	uint64_t written = atomic_load_explicit(&s->written, memory_order_acquire);

	lsn_count(&s->producer.corrupt, 1);
	p->play_rpos = lsn_ring_wpos(ring);
	p->play_used = 0;
	if (written > p->played)
		p->played = written;
}

/* Publishes that what was played ends at `from`, and that playing goes on at p->played. */
static void publish_flush(const struct lsn_ring *ring, struct lsn_slot *s, struct lsn_producer *p,
                          uint64_t to, uint64_t from)
{
	struct lsn_flush_shared *f = &s->flush[p->flushes % LSN_FLUSHES];

	lsn_ring_consume(ring, p->play_rpos);
	lsn_count(&s->producer.flushed_ticks, p->played - from);
	atomic_store_explicit(&f->to, to, memory_order_relaxed);
	atomic_store_explicit(&f->from, from, memory_order_relaxed);
	atomic_store_explicit(&f->upto, p->played, memory_order_relaxed);
	p->flushes++;
	/* In this order: whoever sees the position jump sees the flush that made it. */
	atomic_store_explicit(&s->flushes, p->flushes, memory_order_release);
	atomic_store_explicit(&s->played, p->played, memory_order_release);
}

static int peek(const struct lsn_ring *ring, struct lsn_producer *p, struct lsn_record *rec,
                const uint8_t **payload)
{
	int found = lsn_ring_peek(ring, &p->play_rpos, rec, payload);

	if (found == 1 && (!play_record_ok(rec) || p->play_used >= rec->bytes / 2u))
		return -EBADMSG;
	return found;
}

/* Skips what stands before `to`, a position that is at most the writer's. */
static void flush(const struct lsn_ring *ring, struct lsn_slot *s, struct lsn_producer *p,
                  uint64_t to)
{
	uint64_t from = p->played;
	struct lsn_record rec;
	const uint8_t *payload;

	while (p->play_rpos < to) {
		if (peek(ring, p, &rec, &payload) != 1 || p->play_rpos >= to)
			break;
		p->played += ticks_of(rec.bytes / 2u - p->play_used, rec.rate);
		p->play_used = 0;
		p->play_rpos += lsn_record_size(rec.bytes);
	}
	if (p->play_rpos < to)
		give_up(ring, s, p);
	publish_flush(ring, s, p, to, from);
}

uint32_t lsn_play_rate(struct lsn_arena *a, uint32_t slot)
{
	struct lsn_producer *p = live_producer(a, slot);
	struct lsn_record rec;
	const uint8_t *payload;
	struct lsn_slot *s;
	struct lsn_ring ring;
	uint64_t to, wpos;
	int found;

	if (!p)
		return 0;
	s = lsn_slot_at(a, slot);
	ring = lsn_play_ring(a, slot);
	/* acquire pairs with lsn_play_flush: what stands before `to` is visible */
	to = atomic_load_explicit(&s->flush_to, memory_order_acquire);
	wpos = lsn_ring_wpos(&ring);
	if (to > p->play_rpos && to <= wpos)
		flush(&ring, s, p, to);

	found = peek(&ring, p, &rec, &payload);
	if (found < 0) {
		uint64_t from = p->played;

		give_up(&ring, s, p);
		publish_flush(&ring, s, p, p->play_rpos, from);
	}
	return found == 1 ? rec.rate : 0;
}

uint32_t lsn_play_read(struct lsn_arena *a, uint32_t slot, int16_t *pcm, uint32_t max)
{
	struct lsn_producer *p = live_producer(a, slot);
	uint32_t got = 0, rate = 0;
	struct lsn_record rec;
	const uint8_t *payload;
	struct lsn_slot *s;
	struct lsn_ring ring;

	if (!p || !pcm)
		return 0;
	s = lsn_slot_at(a, slot);
	ring = lsn_play_ring(a, slot);
	while (got < max && peek(&ring, p, &rec, &payload) == 1 && (!rate || rec.rate == rate)) {
		uint32_t left = rec.bytes / 2u - p->play_used;
		uint32_t n = left < max - got ? left : max - got;

		memcpy(pcm + got, payload + (size_t)p->play_used * 2u, (size_t)n * 2u);
		rate = rec.rate;
		got += n;
		p->play_used += n;
		if (n == left) {
			p->play_rpos += lsn_record_size(rec.bytes);
			p->play_used = 0;
			lsn_ring_consume(&ring, p->play_rpos);
		}
	}
	if (got) {
		p->played += ticks_of(got, rate);
		lsn_count(&s->producer.played_ticks, ticks_of(got, rate));
		atomic_store_explicit(&s->played, p->played, memory_order_release);
	}
	return got;
}

int lsn_play_pending(const struct lsn_arena *a, uint32_t slot)
{
	struct lsn_slot *s;

	if (slot >= a->slots)
		return 0;
	s = lsn_slot_at(a, slot);
	/* Pairs with the fence in lsn_play_write: whoever stops reading looks here
	 * once more, and sees the record or has made the writer kick. */
	atomic_thread_fence(memory_order_seq_cst);
	return atomic_load_explicit(&s->state, memory_order_acquire) == LSN_LIVE &&
	       atomic_load_explicit(&s->play.wpos, memory_order_acquire) !=
	           atomic_load_explicit(&s->play.rpos, memory_order_relaxed);
}

static struct lsn_consumer *attached(const struct lsn_arena *a, uint32_t slot, uint32_t gen)
{
	struct lsn_consumer *c = a->consumer && slot < a->slots ? &a->consumer[slot] : NULL;

	if (!c || !c->attached || c->gen != gen)
		return NULL;
	return atomic_load_explicit(&lsn_slot_at(a, slot)->gen, memory_order_relaxed) == gen ? c : NULL;
}

int64_t lsn_play_write(struct lsn_arena *a, uint32_t slot, uint32_t gen, uint32_t rate,
                       const int16_t *pcm, uint32_t samples, uint32_t *kick)
{
	struct lsn_consumer *c = attached(a, slot, gen);
	struct lsn_record rec = {.type = LSN_REC_AUDIO, .rate = rate};
	struct lsn_slot *s;
	struct lsn_ring ring;
	uint64_t before;
	uint32_t done = 0;

	if (!lsn_rate_ok(rate) || (samples && !pcm) || !kick)
		return -EINVAL;
	*kick = 0;
	if (!c)
		return -ESTALE;
	s = lsn_slot_at(a, slot);
	ring = lsn_play_ring(a, slot);
	before = c->play_wpos;
	while (done < samples) {
		uint32_t frame = lsn_frame_samples(rate);
		uint32_t n = samples - done < frame ? samples - done : frame;

		rec.bytes = n * 2u;
		rec.pos = c->written;
		if (lsn_ring_put(&ring, &c->play_wpos, &rec, pcm + done))
			break;
		done += n;
		c->written += ticks_of(n, rate);
	}
	atomic_store_explicit(&s->written, c->written, memory_order_release);
	/* Was the reader at the end of what was there? Then nobody may be looking.
	 * The fence keeps the look from moving before the write. */
	atomic_thread_fence(memory_order_seq_cst);
	*kick = done && atomic_load_explicit(&ring.sh->rpos, memory_order_relaxed) >= before;
	return done;
}

int lsn_play_flush(struct lsn_arena *a, uint32_t slot, uint32_t gen)
{
	struct lsn_consumer *c = attached(a, slot, gen);

	if (!c)
		return -ESTALE;
	atomic_store_explicit(&lsn_slot_at(a, slot)->flush_to, c->play_wpos, memory_order_release);
	return 0;
}

int lsn_play_status(const struct lsn_arena *a, uint32_t slot, uint32_t gen,
                    struct lsn_play_status *st)
{
	struct lsn_consumer *c = attached(a, slot, gen);
	struct lsn_slot *s;
	struct lsn_ring ring;

	if (!st)
		return -EINVAL;
	if (!c)
		return -ESTALE;
	s = lsn_slot_at(a, slot);
	ring = lsn_play_ring(a, slot);
	/* `played` first: see flush() */
	st->played = atomic_load_explicit(&s->played, memory_order_acquire);
	st->flushes = atomic_load_explicit(&s->flushes, memory_order_acquire);
	for (uint32_t i = 0; i < LSN_FLUSHES; i++) {
		st->flush[i].to = atomic_load_explicit(&s->flush[i].to, memory_order_relaxed);
		st->flush[i].from = atomic_load_explicit(&s->flush[i].from, memory_order_relaxed);
		st->flush[i].upto = atomic_load_explicit(&s->flush[i].upto, memory_order_relaxed);
	}
	st->written = c->written;
	st->room = ring.size - lsn_ring_used(&ring, c->play_wpos);
	return 0;
}

/**
 * @file consumer.c  The worker's side: attaching, draining, assembling frames
 *
 * A frame is 20 ms of the time-line. It is handed out as soon as every track
 * that the mix needs has either audio for all of it, or audio beyond it, or has
 * been silent for so long that none can come; what is missing is silence.
 */
#include <errno.h>
#include <string.h>

#include "layout.h"

/* A track without a record for this long is idle: its part of a frame is no
 * longer waited for. 50 ms more than PAUSE_NS in producer.c, so that a record
 * which the producer still lays end to end always finds its place free. */
#define IDLE_NS 250000000u
#define FRAME_SAMPLES_MAX (LSN_RATE_MAX / (1000u / LSN_FRAME_MS))

enum cover { COVERED, MISSING, BEYOND };

struct frame {
	int16_t pcm[2][FRAME_SAMPLES_MAX];
	uint32_t have[2]; /* samples copied */
	uint16_t level[2];
};

static struct lsn_consumer *attached(const struct lsn_arena *a, uint32_t slot, uint32_t gen)
{
	struct lsn_consumer *c = a->consumer && slot < a->slots ? &a->consumer[slot] : NULL;

	return c && c->attached && c->gen == gen ? c : NULL;
}

int lsn_attach(struct lsn_arena *a, uint32_t slot, uint32_t gen, uint32_t worker)
{
	struct lsn_consumer *c;
	struct lsn_info info;
	struct lsn_slot *s;
	uint32_t nobody = LSN_NO_WORKER;
	bool spoken; /* a far track that never spoke is not waited for */

	if (!a->consumer || slot >= a->slots)
		return -EINVAL;
	c = &a->consumer[slot];
	(void)lsn_slot_info(a, slot, &info);
	if (c->attached)
		return -EBUSY;
	if (info.gen != gen || info.worker != worker || !lsn_rate_ok(info.rate) ||
	    info.mix > LSN_MIXED || (info.state != LSN_LIVE && info.state != LSN_ENDED))
		return -ESTALE;

	s = lsn_slot_at(a, slot);
	/* acquire pairs with the release in lsn_detach: a predecessor's positions are final */
	if (!atomic_compare_exchange_strong_explicit(&s->reader, &nobody, worker,
	                                             memory_order_acquire, memory_order_relaxed))
		return -EBUSY;
	spoken = atomic_load_explicit(&s->capture[LSN_FAR].wpos, memory_order_acquire) != 0;
	*c = (struct lsn_consumer){
		.attached = true,
		.worker = worker,
		.gen = gen,
		.rate = info.rate,
		.mix = info.mix,
		.start_ns = info.start_ns,
		.control_rpos = atomic_load_explicit(&s->control.rpos, memory_order_acquire),
		.last_ns = {lsn_now_ns(), spoken ? lsn_now_ns() : 0},
		.emitted = atomic_load_explicit(&s->emitted, memory_order_acquire),
		.play_wpos = atomic_load_explicit(&s->play.wpos, memory_order_acquire),
		.written = atomic_load_explicit(&s->written, memory_order_acquire),
	};
	for (uint32_t i = 0; i < 2; i++) {
		c->rpos[i] = atomic_load_explicit(&s->capture[i].rpos, memory_order_acquire);
		c->partial[i] = c->rpos[i] + 1;
	}
	a->attached[a->attached_count++] = slot;
	return 0;
}

int lsn_detach(struct lsn_arena *a, uint32_t slot, uint32_t gen)
{
	struct lsn_consumer *c = attached(a, slot, gen);

	uint32_t me;

	if (!c)
		return -ESTALE;
	me = c->worker;
	c->attached = false;
	for (uint32_t i = 0; i < a->attached_count; i++) {
		if (a->attached[i] == slot) {
			a->attached[i] = a->attached[--a->attached_count];
			break;
		}
	}
	/* Unless the slot has long been another listen's. */
	if (atomic_load_explicit(&lsn_slot_at(a, slot)->gen, memory_order_relaxed) == gen)
		(void)atomic_compare_exchange_strong_explicit(&lsn_slot_at(a, slot)->reader, &me,
		                                              LSN_NO_WORKER, memory_order_release,
		                                              memory_order_relaxed);
	return 0;
}

int lsn_release(struct lsn_arena *a, uint32_t slot, uint32_t gen)
{
	uint32_t expected = LSN_ENDED;
	struct lsn_slot *s;
	int err = lsn_detach(a, slot, gen);

	if (err)
		return err;
	s = lsn_slot_at(a, slot);
	if (atomic_load_explicit(&s->gen, memory_order_relaxed) != gen)
		return -ESTALE;
	return atomic_compare_exchange_strong_explicit(&s->state, &expected, LSN_RELEASED,
	                                               memory_order_release, memory_order_relaxed)
	               ? 0
	               : -EBUSY;
}

int lsn_flow(struct lsn_arena *a, uint32_t slot, uint32_t gen, int open)
{
	struct lsn_consumer *c = attached(a, slot, gen);

	if (!c)
		return -ESTALE;
	c->open = open != 0;
	return 0;
}

static void corrupt(struct lsn_slot *s, const struct lsn_ring *ring, uint64_t *rpos)
{
	lsn_count(&s->consumer.corrupt, 1);
	*rpos = lsn_ring_wpos(ring);
	lsn_ring_consume(ring, *rpos);
}

/* Skips records that end at or before the time-line position `until`. */
static void skip_before(struct lsn_arena *a, uint32_t slot, uint32_t track, uint64_t until)
{
	struct lsn_consumer *c = &a->consumer[slot];
	struct lsn_ring ring = lsn_capture_ring(a, slot, track, c->rate);
	struct lsn_record rec;
	const uint8_t *payload;
	int found;

	while ((found = lsn_ring_peek(&ring, &c->rpos[track], &rec, &payload)) == 1 &&
	       rec.pos + rec.bytes / 2u <= until)
		c->rpos[track] += lsn_record_size(rec.bytes);
	if (found < 0)
		corrupt(lsn_slot_at(a, slot), &ring, &c->rpos[track]);
	else
		lsn_ring_consume(&ring, c->rpos[track]);
}

/* Moves on to the frame in which `until` lies; returns the samples per track given up. */
static int64_t skip_to(struct lsn_arena *a, uint32_t slot, uint64_t until_ns)
{
	struct lsn_consumer *c = &a->consumer[slot];
	uint64_t until, given_up;

	until = until_ns > c->start_ns ? lsn_ns_to_samples(until_ns - c->start_ns, c->rate) : 0;
	until -= until % lsn_frame_samples(c->rate);
	given_up = until > c->emitted ? until - c->emitted : 0;
	c->emitted += given_up;
	atomic_store_explicit(&lsn_slot_at(a, slot)->emitted, c->emitted, memory_order_release);
	skip_before(a, slot, LSN_NEAR, c->emitted);
	skip_before(a, slot, LSN_FAR, c->emitted);
	return (int64_t)given_up;
}

int64_t lsn_discard(struct lsn_arena *a, uint32_t slot, uint32_t gen, uint64_t now_ns)
{
	struct lsn_consumer *c = attached(a, slot, gen);
	struct lsn_info info;

	if (!c)
		return -ESTALE;
	(void)lsn_slot_info(a, slot, &info);
	c->drop = true;
	return skip_to(a, slot, info.end_ns && info.end_ns < now_ns ? info.end_ns : now_ns);
}

int64_t lsn_trim(struct lsn_arena *a, uint32_t slot, uint32_t gen, uint64_t now_ns,
                 uint32_t keep_ms)
{
	struct lsn_consumer *c = attached(a, slot, gen);
	uint64_t keep_ns = (uint64_t)keep_ms * 1000000u;
	struct lsn_info info;

	if (!c)
		return -ESTALE;
	(void)lsn_slot_info(a, slot, &info);
	if (info.end_ns && info.end_ns < now_ns)
		now_ns = info.end_ns;
	return now_ns > keep_ns ? skip_to(a, slot, now_ns - keep_ns) : 0;
}

/* Audio that came after its place was handed out as silence is lost; count it. */
static void count_late(struct lsn_slot *s, struct lsn_consumer *c, uint32_t track,
                       const struct lsn_record *rec, uint64_t at)
{
	uint64_t end = rec->pos + rec->bytes / 2u;

	if (rec->pos < c->emitted && c->partial[track] != at + 1)
		lsn_count(&s->consumer.late[track],
		          (end < c->emitted ? end : c->emitted) - rec->pos);
}

/* No producer of ours lays audio more than half a second ahead of the clock. */
static bool capture_record_ok(const struct lsn_record *rec, const struct lsn_consumer *c,
                              uint64_t now_ns)
{
	uint64_t passed_ns = now_ns > c->start_ns ? now_ns - c->start_ns : 0;

	return rec->type == LSN_REC_AUDIO && rec->rate == c->rate && rec->bytes &&
	       rec->bytes % 2 == 0 && rec->pos <= lsn_ns_to_samples(passed_ns, c->rate) + c->rate;
}

/* Copies what one track has for the frame at c->emitted. Nothing is consumed
 * yet: the other track may not be ready. */
static enum cover cover(struct lsn_arena *a, uint32_t slot, uint32_t track, struct frame *f,
                        uint64_t now_ns)
{
	struct lsn_consumer *c = &a->consumer[slot];
	struct lsn_slot *s = lsn_slot_at(a, slot);
	struct lsn_ring ring = lsn_capture_ring(a, slot, track, c->rate);
	uint32_t want = lsn_frame_samples(c->rate);
	uint64_t from = c->emitted, to = from + want, at = c->rpos[track];
	uint64_t next = from; /* records must not overlap; what does is used once */
	struct lsn_record rec;
	const uint8_t *payload;
	bool head = true; /* nothing before this record is still of use */
	int found;

	memset(f->pcm[track], 0, want * sizeof(int16_t));
	while ((found = lsn_ring_peek(&ring, &at, &rec, &payload)) == 1) {
		uint64_t end = rec.pos + rec.bytes / 2u;
		uint64_t begin = rec.pos > next ? rec.pos : next;
		uint64_t stop = end < to ? end : to;

		if (!capture_record_ok(&rec, c, now_ns)) {
			found = -EBADMSG;
			break;
		}
		if (rec.t_ns > c->last_ns[track])
			c->last_ns[track] = rec.t_ns;
		if (rec.pos >= to)
			return f->have[track] ? COVERED : BEYOND;
		if (head)
			count_late(s, c, track, &rec, at);
		if (stop > begin) {
			memcpy(f->pcm[track] + (begin - from), payload + (begin - rec.pos) * 2u,
			       (stop - begin) * 2u);
			f->have[track] += (uint32_t)(stop - begin);
			next = stop;
			if (rec.level > f->level[track])
				f->level[track] = rec.level;
		}
		if (end >= to)
			return COVERED;
		at += lsn_record_size(rec.bytes);
		head = end <= from;
		if (head) {
			c->rpos[track] = at;
			lsn_ring_consume(&ring, at);
		}
	}
	if (found < 0)
		corrupt(s, &ring, &c->rpos[track]);
	return MISSING;
}

/* Whether the frame at c->emitted may be handed out now. */
static bool ready(const struct lsn_consumer *c, const enum cover *cov, uint32_t tracks,
                  const struct frame *f, uint64_t now_ns, const struct lsn_info *info)
{
	uint64_t end = c->emitted + lsn_frame_samples(c->rate);
	bool ended = info->state != LSN_LIVE, certain = false;
	uint64_t until = ended && info->end_ns < now_ns ? info->end_ns : now_ns;

	for (uint32_t i = 0; i < tracks; i++) {
		bool idle = c->last_ns[i] + IDLE_NS < now_ns;

		if (cov[i] != MISSING || (ended && f->have[i]))
			certain = true;
		else if (!ended && !idle)
			return false;
	}
	/* Nothing is certain: silence, but only for time that has passed. */
	return certain || (until > c->start_ns &&
	                   lsn_ns_to_samples(until - c->start_ns, c->rate) >= end);
}

static int16_t saturate(int32_t v)
{
	return (int16_t)(v > INT16_MAX ? INT16_MAX : v < INT16_MIN ? INT16_MIN : v);
}

static uint32_t render(const struct frame *f, uint32_t mix, uint32_t samples, uint8_t *out)
{
	int16_t *pcm = (int16_t *)(void *)out;

	if (mix == LSN_MONO) {
		memcpy(out, f->pcm[LSN_NEAR], samples * 2u);
		return samples * 2u;
	}
	for (uint32_t i = 0; i < samples; i++) {
		if (mix == LSN_MIXED) {
			pcm[i] = saturate((int32_t)f->pcm[LSN_NEAR][i] + f->pcm[LSN_FAR][i]);
		} else {
			pcm[2 * i] = f->pcm[LSN_NEAR][i];
			pcm[2 * i + 1] = f->pcm[LSN_FAR][i];
		}
	}
	return samples * (mix == LSN_STEREO ? 4u : 2u);
}

/* Moves past what the frame used; remembers a record that is used in part. */
static void advance(struct lsn_arena *a, uint32_t slot, uint32_t track, uint64_t to)
{
	struct lsn_consumer *c = &a->consumer[slot];

	skip_before(a, slot, track, to);
	c->partial[track] = c->rpos[track] + 1;
}

/* 1: a frame was written to `out`; 0: none is ready. */
static int assemble(struct lsn_arena *a, uint32_t slot, uint64_t now_ns,
                    const struct lsn_info *info, struct lsn_item *item, uint8_t *out)
{
	struct lsn_consumer *c = &a->consumer[slot];
	struct lsn_slot *s = lsn_slot_at(a, slot);
	uint32_t samples = lsn_frame_samples(c->rate);
	uint32_t tracks = c->mix == LSN_MONO ? 1 : 2, have = 0;
	enum cover cov[2];
	struct frame f;

	memset(f.have, 0, sizeof(f.have));
	memset(f.level, 0, sizeof(f.level));
	for (uint32_t i = 0; i < tracks; i++)
		cov[i] = cover(a, slot, i, &f, now_ns);
	if (!ready(c, cov, tracks, &f, now_ns, info))
		return 0;

	for (uint32_t i = 0; i < tracks; i++)
		have += f.have[i];
	*item = (struct lsn_item){
		.kind = LSN_AUDIO,
		.slot = slot,
		.gen = c->gen,
		.bytes = render(&f, c->mix, samples, out),
		.level = f.level[LSN_NEAR],
		.silence = samples - f.have[LSN_NEAR],
		.pos = c->emitted,
	};
	c->emitted += samples;
	atomic_store_explicit(&s->emitted, c->emitted, memory_order_release);
	for (uint32_t i = 0; i < tracks; i++)
		advance(a, slot, i, c->emitted);
	lsn_count(&s->consumer.filled, (uint64_t)samples * tracks - have);
	lsn_count(&s->consumer.sent, samples);
	return 1;
}

static int next_digit(struct lsn_arena *a, uint32_t slot, struct lsn_item *item)
{
	struct lsn_consumer *c = &a->consumer[slot];
	struct lsn_ring ring = lsn_control_ring(a, slot);
	struct lsn_record rec;
	const uint8_t *payload;
	int found = lsn_ring_peek(&ring, &c->control_rpos, &rec, &payload);

	if (found < 0 || (found == 1 && rec.type != LSN_REC_DIGIT)) {
		corrupt(lsn_slot_at(a, slot), &ring, &c->control_rpos);
		return 0;
	}
	if (!found)
		return 0;
	*item = (struct lsn_item){
		.kind = LSN_DIGIT,
		.slot = slot,
		.gen = c->gen,
		.digit = rec.level & 0xffu,
		.duration = rec.rate,
		.far = rec.reserved,
		.pos = rec.pos,
	};
	c->control_rpos += lsn_record_size(rec.bytes);
	lsn_ring_consume(&ring, c->control_rpos);
	return 1;
}

struct batch {
	struct lsn_item *items;
	uint32_t max;
	uint32_t count;
	uint8_t *pcm;
	uint32_t pcm_bytes;
	uint32_t pcm_used;
	bool more;
};

static bool room(struct batch *b, uint32_t bytes)
{
	if (b->count < b->max && b->pcm_used + bytes <= b->pcm_bytes)
		return true;
	b->more = true;
	return false;
}

static void note_seen(struct lsn_arena *a, uint32_t slot, uint32_t state)
{
	struct lsn_consumer *c = &a->consumer[slot];
	struct lsn_slot *s = lsn_slot_at(a, slot);

	c->seen_state = state;
	c->seen_wpos[0] = atomic_load_explicit(&s->capture[0].wpos, memory_order_acquire);
	c->seen_wpos[1] = atomic_load_explicit(&s->capture[1].wpos, memory_order_acquire);
	c->seen_wpos[2] = atomic_load_explicit(&s->control.wpos, memory_order_acquire);
}

static void drain_frames(struct lsn_arena *a, uint32_t slot, uint64_t now_ns,
                         const struct lsn_info *info, struct batch *b)
{
	struct lsn_consumer *c = &a->consumer[slot];
	uint32_t bytes = lsn_frame_samples(c->rate) * (c->mix == LSN_STEREO ? 4u : 2u);

	while (room(b, bytes)) {
		struct lsn_item *item = &b->items[b->count];

		if (!assemble(a, slot, now_ns, info, item, b->pcm + b->pcm_used))
			return;
		item->offset = b->pcm_used;
		b->pcm_used += item->bytes;
		b->count++;
	}
}

/* Hands out a mark of the slot's fate, once, and after all else. */
static void put_mark(struct batch *b, uint32_t slot, const struct lsn_consumer *c,
                     enum lsn_kind kind, bool *sent)
{
	if (*sent || b->more || !room(b, 0))
		return;
	b->items[b->count++] = (struct lsn_item){
		.kind = kind,
		.slot = slot,
		.gen = c->gen,
		.pos = c->emitted,
	};
	*sent = true;
}

static void drain_slot(struct lsn_arena *a, uint32_t slot, uint64_t now_ns, struct batch *b)
{
	struct lsn_consumer *c = &a->consumer[slot];
	struct lsn_info info;

	(void)lsn_slot_info(a, slot, &info);
	note_seen(a, slot, info.state);
	if (info.gen != c->gen || (info.state != LSN_LIVE && info.state != LSN_ENDED)) {
		/* the switch has taken the slot back, or given it to another call */
		put_mark(b, slot, c, LSN_END, &c->end_sent);
		return;
	}
	if (info.worker != c->worker) {
		put_mark(b, slot, c, LSN_MOVED, &c->moved_sent);
		return;
	}
	while (room(b, 0) && next_digit(a, slot, &b->items[b->count]))
		b->count++;
	if (c->drop)
		(void)lsn_discard(a, slot, c->gen, now_ns);
	else if (c->open)
		drain_frames(a, slot, now_ns, &info, b);
	if (info.state == LSN_ENDED && (c->open || c->drop))
		put_mark(b, slot, c, LSN_END, &c->end_sent);
}

uint32_t lsn_drain(struct lsn_arena *a, uint64_t now_ns, struct lsn_item *items, uint32_t max,
                   uint8_t *pcm, uint32_t pcm_bytes, uint32_t *more)
{
	struct batch b = {.items = items, .max = max, .pcm = pcm, .pcm_bytes = pcm_bytes};

	for (uint32_t i = 0; i < a->attached_count; i++)
		drain_slot(a, a->attached[i], now_ns, &b);
	if (more)
		*more = b.more;
	return b.count;
}

static bool unseen(const struct lsn_arena *a, uint32_t slot)
{
	const struct lsn_consumer *c = &a->consumer[slot];
	struct lsn_slot *s = lsn_slot_at(a, slot);

	return atomic_load_explicit(&s->state, memory_order_acquire) != c->seen_state ||
	       atomic_load_explicit(&s->capture[0].wpos, memory_order_acquire) != c->seen_wpos[0] ||
	       atomic_load_explicit(&s->capture[1].wpos, memory_order_acquire) != c->seen_wpos[1] ||
	       atomic_load_explicit(&s->control.wpos, memory_order_acquire) != c->seen_wpos[2];
}

int lsn_arm(struct lsn_arena *a, uint32_t worker)
{
	struct lsn_doorbell *bell;

	if (worker >= LSN_WORKERS_MAX)
		return -EINVAL;
	bell = lsn_bell_at(a, worker);
	atomic_store_explicit(&bell->armed, 1, memory_order_relaxed);
	/* Pairs with the fence in lsn_bell: see there. */
	atomic_thread_fence(memory_order_seq_cst);
	for (uint32_t i = 0; i < a->attached_count; i++) {
		if (unseen(a, a->attached[i])) {
			atomic_store_explicit(&bell->armed, 0, memory_order_relaxed);
			return 1;
		}
	}
	return 0;
}

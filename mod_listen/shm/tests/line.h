/**
 * @file line.h  A call on a virtual clock: two talkers, a switch, a worker
 *
 * Each talker counts: its n-th sample is SAY(n) (the far one's is negative), so
 * what a frame holds tells which part of the speech it is, and zero is silence
 * that was filled in. Times are milliseconds since the slot was opened.
 */
#ifndef LINE_H
#define LINE_H

#include "check.h"

#define PERIOD 30000u
#define SAY(n) ((int16_t)(1000u + (n) % PERIOD))
#define OUT_MAX (64000u * 16u)
#define FRAME_MAX (64000u / 1000u * 120u)
#define DRAIN_MS 10u

struct line {
	struct lsn_arena *prod;
	struct lsn_arena *cons;
	uint32_t slot;
	uint32_t gen;
	uint32_t rate;
	uint32_t mix;
	uint32_t worker;
	uint64_t t_ms;

	uint32_t ptime_ms[2];
	uint32_t phase_ms[2];
	int talks[2];
	uint64_t said[2]; /* samples spoken so far */

	/* bounds of elapsed minus sent, checked after each drain */
	int64_t lag_max_ms;
	int64_t ahead_max_ms;

	uint64_t sent; /* samples per track handed out */
	uint64_t silence;
	int ended;
	uint32_t digits;
	char digit[64];
	uint64_t digit_pos[64];
	int16_t *out[2]; /* what the server hears */
};

/* A piece of speech as it was handed out, without a break. */
struct piece {
	uint64_t at;     /* time-line position */
	uint64_t source; /* which sample of the talker, modulo PERIOD */
	uint64_t samples;
};


static inline uint32_t per_ms(const struct line *l)
{
	return l->rate / 1000u;
}


static inline uint64_t line_now(const struct line *l)
{
	return T0 + l->t_ms * NS_PER_MS;
}


static inline void line_attach(struct line *l, int flow)
{
	test_clock_ns = line_now(l);
	CHECK_EQ(lsn_attach(l->cons, l->slot, l->gen, l->worker), 0);
	CHECK_EQ(lsn_flow(l->cons, l->slot, l->gen, flow), 0);
}


static inline void line_open(struct line *l, uint32_t rate, uint32_t mix, uint32_t ptime_ms,
                             uint32_t ring_ms)
{
	const struct lsn_open o = {.rate = rate, .mix = mix, .worker = 1, .now_ns = T0};

	*l = (struct line){
		.slot = 1,
		.rate = rate,
		.mix = mix,
		.worker = 1,
		.ptime_ms = {ptime_ms, ptime_ms},
		.talks = {1, mix != LSN_MONO},
		.lag_max_ms = ptime_ms + LSN_FRAME_MS + DRAIN_MS,
		.ahead_max_ms = LSN_FRAME_MS,
	};
	make_pair(&l->prod, &l->cons, 2, ring_ms);
	for (int i = 0; i < 2; i++) {
		l->out[i] = calloc(OUT_MAX, sizeof(int16_t));
		CHECK(l->out[i]);
	}
	CHECK_EQ(lsn_slot_open(l->prod, l->slot, &o, &l->gen), 0);
}


static inline void line_close(struct line *l)
{
	free_pair(l->prod, l->cons);
	free(l->out[0]);
	free(l->out[1]);
}


/** The talker speaks `ms` that are never captured. */
static inline void line_lose(struct line *l, uint32_t track, uint32_t ms)
{
	l->said[track] += (uint64_t)ms * per_ms(l);
}


/** The talker speaks `ms`, captured now. */
static inline int line_say(struct line *l, uint32_t track, uint32_t ms)
{
	static int16_t pcm[FRAME_MAX];
	const uint32_t samples = ms * per_ms(l);

	for (uint32_t i = 0; i < samples; i++) {
		const int16_t v = SAY(l->said[track] + i);

		pcm[i] = (int16_t)(track == LSN_FAR ? -v : v);
	}
	l->said[track] += samples;

	return lsn_capture(l->prod, l->slot, track, line_now(l), pcm, samples);
}


static inline void take_frame(struct line *l, const struct lsn_item *item, const uint8_t *pcm)
{
	const uint32_t samples = l->rate / 50u, tracks = l->mix == LSN_STEREO ? 2 : 1;
	const int16_t *in = (const int16_t *)(const void *)(pcm + item->offset);

	CHECK_EQ(item->pos, l->sent);
	CHECK_EQ(item->bytes, samples * tracks * 2u);
	CHECK(item->silence <= samples);
	CHECK(l->sent + samples <= OUT_MAX);
	CHECK(!l->ended);
	for (uint32_t i = 0; i < samples; i++)
		for (uint32_t t = 0; t < tracks; t++)
			l->out[t][l->sent + i] = in[i * tracks + t];
	l->sent += samples;
	l->silence += item->silence;
}


static inline void take_item(struct line *l, const struct lsn_item *item, const uint8_t *pcm)
{
	CHECK_EQ(item->slot, l->slot);
	CHECK_EQ(item->gen, l->gen);
	switch (item->kind) {
	case LSN_AUDIO:
		take_frame(l, item, pcm);
		break;
	case LSN_DIGIT:
		CHECK(l->digits < NELEMS(l->digit));
		l->digit_pos[l->digits] = item->pos;
		l->digit[l->digits++] = (char)item->digit;
		break;
	case LSN_END:
		CHECK(!l->ended);
		CHECK_EQ(item->pos, l->sent);
		l->ended = 1;
		break;
	default:
		CHECK(!"an unknown kind of item");
	}
}


/** Drains all that is there, `max` items and `frames` frames at a time. */
static inline void line_drain_by(struct line *l, uint32_t max, uint32_t frames)
{
	static _Alignas(8) uint8_t pcm[64u * 64000u / 50u * 4u];
	const uint32_t bytes = frames * (l->rate / 50u) * (l->mix == LSN_STEREO ? 4u : 2u);
	struct lsn_item items[64];
	uint32_t more, n;

	do {
		n = lsn_drain(l->cons, line_now(l), items, max, pcm, bytes, &more);
		for (uint32_t i = 0; i < n; i++)
			take_item(l, &items[i], pcm);
	} while (more);
}


static inline int64_t line_lag_ms(const struct line *l)
{
	return (int64_t)l->t_ms - (int64_t)(l->sent / per_ms(l));
}


static inline void line_drain(struct line *l)
{
	const int64_t lag_ms = (line_drain_by(l, 64, 64), line_lag_ms(l));

	if (l->ended)
		return;
	if (lag_ms > l->lag_max_ms || lag_ms < -l->ahead_max_ms) {
		fprintf(stderr,
		        "at %" PRIu64 " ms: %" PRId64 " ms behind the clock (rate %u, mix %u, frames %u ms)\n",
		        l->t_ms, lag_ms, l->rate, l->mix, l->ptime_ms[0]);
		exit(1);
	}
}


/** Lets `ms` pass: those who talk are captured frame by frame, the worker drains. */
static inline void line_run(struct line *l, uint32_t ms, int drain)
{
	for (const uint64_t until = l->t_ms + ms; l->t_ms < until;) {
		l->t_ms++;
		for (uint32_t i = 0; i < 2; i++) {
			const uint64_t t = l->t_ms + l->ptime_ms[i] - l->phase_ms[i];

			if (l->talks[i] && t % l->ptime_ms[i] == 0 && t >= l->ptime_ms[i])
				CHECK_EQ(line_say(l, i, l->ptime_ms[i]), 0);
		}
		if (drain && l->t_ms % DRAIN_MS == 0)
			line_drain(l);
	}
}


static inline void line_end(struct line *l)
{
	CHECK_EQ(lsn_slot_end(l->prod, l->slot, line_now(l)), 0);
	line_drain(l);
	CHECK(l->ended);
}


static inline struct lsn_counters line_counters(const struct line *l)
{
	struct lsn_counters c;

	CHECK_EQ(lsn_slot_counters(l->prod, l->slot, &c), 0);

	return c;
}


/** Cuts what was handed out of one track into pieces of speech; mixed audio, where both
 *  tracks speak at once, cannot be cut. Returns how many pieces there are. */
static inline uint32_t line_pieces(const struct line *l, uint32_t track, struct piece *p, uint32_t max)
{
	const int16_t *out = l->out[l->mix == LSN_STEREO ? track : 0];
	uint32_t n = 0;
	uint64_t next = PERIOD;

	for (uint64_t i = 0; i < l->sent; i++) {
		const int32_t v = track == LSN_FAR ? -out[i] : out[i];
		const uint64_t source = (uint64_t)(v - 1000);

		if (v < 1000) {
			CHECK(v == 0 || l->mix == LSN_MIXED);
			next = PERIOD;
			continue;
		}
		if (source != next) {
			CHECK(n < max);
			p[n++] = (struct piece){.at = i, .source = source};
		}
		p[n - 1].samples++;
		next = (source + 1) % PERIOD;
	}

	return n;
}


/** One piece, beginning at `at`, with all that the talker said since `source`. */
static inline void expect_all(const struct line *l, uint32_t track, uint64_t at, uint64_t source)
{
	struct piece p[8];

	CHECK_EQ(line_pieces(l, track, p, NELEMS(p)), 1);
	CHECK_EQ(p[0].at, at);
	CHECK_EQ(p[0].source, source % PERIOD);
	CHECK_EQ(p[0].samples, l->said[track] - source);
}

#endif

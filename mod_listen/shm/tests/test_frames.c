/**
 * @file test_frames.c  What a server hears: whole, in place, and never late or early
 */
#define _GNU_SOURCE
#include "line.h"

static const uint32_t PTIMES[] = {10, 20, 30, 40, 60};
static const uint32_t TWO_SIDED[] = {LSN_STEREO, LSN_MIXED};


/* Mixed: both counted up together, near positive and far negative: all zero. */
static void expect_mixed_out(const struct line *l)
{
	for (uint64_t i = 0; i < l->said[LSN_NEAR] && i < l->sent; i++)
		CHECK_EQ(l->out[0][i], 0);
}


static void steady_audio_comes_out_sample_by_sample(void)
{
	for (size_t r = 0; r < NELEMS(RATES); r++) {
		for (uint32_t mix = LSN_MONO; mix <= LSN_MIXED; mix++) {
			for (size_t p = 0; p < NELEMS(PTIMES); p++) {
				struct line l;

				line_open(&l, RATES[r], mix, PTIMES[p], 1000);
				line_attach(&l, 1);
				line_run(&l, 1200, 1);
				line_end(&l);
				CHECK_EQ(l.sent, 1200 * per_ms(&l));
				CHECK_EQ(l.silence, 0);
				CHECK_EQ(line_counters(&l).filled, 0);
				if (mix == LSN_MIXED)
					expect_mixed_out(&l);
				else
					expect_all(&l, LSN_NEAR, 0, 0);
				if (mix == LSN_STEREO)
					expect_all(&l, LSN_FAR, 0, 0);
				line_close(&l);
			}
		}
	}
}


/* Frames of both tracks at different times, and of different lengths. */
static void tracks_out_of_step_are_both_whole(void)
{
	for (size_t p = 0; p < NELEMS(PTIMES); p++) {
		for (uint32_t phase = 1; phase < 20; phase += 6) {
			struct line l;

			line_open(&l, 8000, LSN_STEREO, 20, 1000);
			l.ptime_ms[LSN_FAR] = PTIMES[p];
			l.phase_ms[LSN_FAR] = phase % PTIMES[p];
			l.lag_max_ms = PTIMES[p] + 40 + DRAIN_MS;
			line_attach(&l, 1);
			line_run(&l, 3000, 1);
			l.talks[LSN_NEAR] = l.talks[LSN_FAR] = 0;
			line_end(&l);
			expect_all(&l, LSN_NEAR, 0, 0);
			{
				struct piece far[8];

				CHECK_EQ(line_pieces(&l, LSN_FAR, far, NELEMS(far)), 1);
				CHECK_EQ(far[0].source, 0);
				CHECK(far[0].at <= 2 * PTIMES[p] * per_ms(&l));
				CHECK(far[0].samples >= l.said[LSN_FAR] - 20 * per_ms(&l));
			}
			CHECK_EQ(line_counters(&l).late[LSN_FAR], 0);
			line_close(&l);
		}
	}
}


static void a_far_track_that_never_speaks_holds_nothing_up(void)
{
	for (size_t i = 0; i < NELEMS(TWO_SIDED); i++) {
		struct line l;

		line_open(&l, 16000, TWO_SIDED[i], 20, 1000);
		l.talks[LSN_FAR] = 0;
		line_attach(&l, 1);
		line_run(&l, 2000, 1);
		line_end(&l);
		expect_all(&l, LSN_NEAR, 0, 0);
		CHECK_EQ(line_counters(&l).filled, l.sent);
		line_close(&l);
	}
}


/* Early media of the called leg, say: the caller has been silent from the start. */
static void a_near_track_that_never_speaks_is_silence_on_time(void)
{
	struct line l;

	line_open(&l, 8000, LSN_STEREO, 20, 1000);
	l.talks[LSN_NEAR] = 0;
	l.lag_max_ms = 300;
	line_attach(&l, 1);
	line_run(&l, 400, 1);
	l.lag_max_ms = 50;
	line_run(&l, 2000, 1);
	line_end(&l);
	expect_all(&l, LSN_FAR, 0, 0);
	CHECK_EQ(l.silence, l.sent);
	line_close(&l);
}


static void nobody_speaks_and_silence_is_on_time(void)
{
	for (uint32_t mix = LSN_MONO; mix <= LSN_MIXED; mix++) {
		struct line l;

		line_open(&l, 8000, mix, 20, 1000);
		l.talks[LSN_NEAR] = l.talks[LSN_FAR] = 0;
		l.lag_max_ms = 300;
		line_attach(&l, 1);
		line_run(&l, 400, 1);
		l.lag_max_ms = 30;
		line_run(&l, 3000, 1);
		line_end(&l);
		CHECK_EQ(l.sent, 3400 * per_ms(&l));
		line_close(&l);
	}
}


static void a_far_track_that_starts_late_is_laid_at_the_present(void)
{
	for (uint32_t phase = 0; phase < 20; phase++) {
		struct piece far[4];
		struct line l;

		line_open(&l, 8000, LSN_STEREO, 20, 1000);
		l.talks[LSN_FAR] = 0;
		l.phase_ms[LSN_FAR] = phase;
		line_attach(&l, 1);
		line_run(&l, 1000, 1);
		l.talks[LSN_FAR] = 1;
		l.lag_max_ms = 70;
		line_run(&l, 1000, 1);
		line_end(&l);
		expect_all(&l, LSN_NEAR, 0, 0);
		CHECK_EQ(line_pieces(&l, LSN_FAR, far, NELEMS(far)), 1);
		CHECK_EQ(far[0].source, 0);
		CHECK(far[0].at >= 980 * per_ms(&l));
		CHECK(far[0].at <= 1040 * per_ms(&l));
		line_close(&l);
	}
}


/* Both sides stop for three seconds, and come back. */
static void a_hold_is_filled_and_what_follows_is_in_place(void)
{
	for (size_t p = 0; p < NELEMS(PTIMES); p++) {
		for (uint32_t mix = LSN_MONO; mix <= LSN_STEREO; mix++) {
			const uint32_t ptime = PTIMES[p];
			struct piece near[4];
			struct line l;

			line_open(&l, 16000, mix, ptime, 1000);
			line_attach(&l, 1);
			line_run(&l, 1200, 1);
			l.talks[LSN_NEAR] = l.talks[LSN_FAR] = 0;
			l.lag_max_ms = 300 + ptime;
			line_run(&l, 400, 1);
			l.lag_max_ms = 30;
			line_run(&l, 2600, 1);
			l.talks[LSN_NEAR] = 1;
			l.talks[LSN_FAR] = mix == LSN_STEREO;
			l.lag_max_ms = 30 + ptime;
			l.ahead_max_ms = 20 + ptime;
			line_run(&l, 1200, 1);
			line_end(&l);

			CHECK_EQ(line_pieces(&l, LSN_NEAR, near, NELEMS(near)), 2);
			CHECK_EQ(near[0].at, 0);
			CHECK_EQ(near[0].samples, 1200 * per_ms(&l));
			/* the first frame after the hold was heard from 4200 ms on */
			CHECK(near[1].at >= 4180 * per_ms(&l));
			CHECK(near[1].at <= (4220 + ptime) * per_ms(&l));
			CHECK_EQ(near[1].source, near[0].samples % PERIOD);
			CHECK_EQ(near[0].samples + near[1].samples, l.said[LSN_NEAR]);
			line_close(&l);
		}
	}
}


/* The other side goes on meanwhile: nothing of the returning one may be cut off. */
static void the_first_word_after_a_hold_is_whole(void)
{
	for (uint32_t held = LSN_NEAR; held <= LSN_FAR; held++) {
		for (uint32_t phase = 0; phase < 20; phase++) {
			for (uint32_t hold_ms = 190; hold_ms <= 1000; hold_ms += 54) {
				struct piece p[4];
				struct lsn_counters c;
				struct line l;

				line_open(&l, 8000, LSN_STEREO, 20, 1000);
				l.phase_ms[LSN_FAR] = phase;
				l.lag_max_ms = 360;
				l.ahead_max_ms = 40;
				line_attach(&l, 1);
				line_run(&l, 500, 1);
				l.talks[held] = 0;
				line_run(&l, hold_ms, 1);
				l.talks[held] = 1;
				line_run(&l, 500, 1);
				/* the last frames of the other track are not waited for at the end */
				l.talks[LSN_NEAR] = l.talks[LSN_FAR] = 0;
				line_end(&l);
				c = line_counters(&l);
				CHECK_EQ(c.late[LSN_NEAR], 0);
				CHECK_EQ(c.late[LSN_FAR], 0);
				CHECK(line_pieces(&l, held, p, NELEMS(p)) <= 2);
				line_close(&l);
			}
		}
	}
}


/* After a hold of its own the far track may lie a frame ahead of the clock. */
static void the_first_word_is_whole_though_the_other_track_is_ahead(void)
{
	for (uint32_t ptime = 20; ptime <= 60; ptime += 20) {
		for (uint32_t phase = 0; phase < 20; phase++) {
			struct lsn_counters c;
			struct line l;

			line_open(&l, 8000, LSN_STEREO, 20, 1000);
			l.ptime_ms[LSN_FAR] = ptime;
			l.phase_ms[LSN_NEAR] = phase;
			l.lag_max_ms = 400;
			l.ahead_max_ms = 20 + ptime;
			line_attach(&l, 1);
			for (int held = LSN_FAR; held >= LSN_NEAR; held--) {
				line_run(&l, 500, 1);
				l.talks[held] = 0;
				line_run(&l, 600, 1);
				l.talks[held] = 1;
			}
			line_run(&l, 500, 1);
			c = line_counters(&l);
			CHECK_EQ(c.late[LSN_NEAR], 0);
			CHECK_EQ(c.late[LSN_FAR], 0);
			line_close(&l);
		}
	}
}


/* The network stalls for 150 ms, then all comes at once. */
static void a_burst_is_neither_lost_nor_filled(void)
{
	for (size_t p = 0; p < NELEMS(PTIMES); p++) {
		const uint32_t ptime = PTIMES[p];
		struct line l;

		line_open(&l, 8000, LSN_MONO, ptime, 1000);
		line_attach(&l, 1);
		line_run(&l, 1200, 1);
		l.talks[LSN_NEAR] = 0;
		l.lag_max_ms = 200 + ptime;
		line_run(&l, 120, 1);
		for (uint32_t ms = 0; ms < 120; ms += ptime)
			CHECK_EQ(line_say(&l, LSN_NEAR, ptime), 0);
		l.talks[LSN_NEAR] = 1;
		l.lag_max_ms = ptime + 30;
		line_run(&l, 1200, 1);
		line_end(&l);
		expect_all(&l, LSN_NEAR, 0, 0);
		CHECK_EQ(l.silence, 0);
		line_close(&l);
	}
}


/* One packet in 25 never comes: the stream must not fall behind by all of them. */
static void lost_packets_do_not_add_up(void)
{
	for (size_t p = 0; p < NELEMS(PTIMES); p++) {
		const uint32_t ptime = PTIMES[p];
		struct line l;

		line_open(&l, 8000, LSN_MONO, ptime, 1000);
		l.lag_max_ms = 6 * ptime + 50;
		l.ahead_max_ms = ptime + 20;
		line_attach(&l, 1);
		for (uint32_t n = 1; n * ptime <= 12000; n++) {
			if (n % 25 == 0) {
				l.talks[LSN_NEAR] = 0;
				line_lose(&l, LSN_NEAR, ptime);
			}
			line_run(&l, ptime, 1);
			l.talks[LSN_NEAR] = 1;
		}
		/* once nothing is lost any more it is back at the clock */
		line_run(&l, 100 * ptime > 3000 ? 3000 : 100 * ptime, 1);
		CHECK(line_lag_ms(&l) <= 2 * (int64_t)ptime + 40);
		line_end(&l);
		CHECK(l.sent + 20 * per_ms(&l) >= l.t_ms * per_ms(&l));
		line_close(&l);
	}
}


/* The talker's clock runs slow by 1 %: 20 ms of audio every 20.2 ms. */
static void a_slow_talker_is_kept_on_time(void)
{
	uint64_t next_us = 20200;
	struct line l;

	line_open(&l, 8000, LSN_MONO, 20, 1000);
	l.talks[LSN_NEAR] = 0;
	l.lag_max_ms = 100;
	line_attach(&l, 1);
	while (l.t_ms < 14000) {
		line_run(&l, 1, 1);
		if (l.t_ms * 1000 >= next_us) {
			CHECK_EQ(line_say(&l, LSN_NEAR, 20), 0);
			next_us += 20200;
		}
	}
	line_end(&l);
	line_close(&l);
}


/* The talker's clock runs fast by 1 %, and the talker pauses now and then. */
static void a_fast_talker_is_kept_on_time(void)
{
	static const int16_t quiet[160];
	uint64_t next_us = 19800, trimmed;
	struct line l;

	line_open(&l, 8000, LSN_MONO, 20, 1000);
	l.talks[LSN_NEAR] = 0;
	l.ahead_max_ms = 60 + 20 + 20;
	line_attach(&l, 1);
	while (l.t_ms < 15000) {
		line_run(&l, 1, 1);
		if (l.t_ms * 1000 < next_us)
			continue;
		if (l.t_ms % 2000 < 1500)
			CHECK_EQ(line_say(&l, LSN_NEAR, 20), 0);
		else
			CHECK_EQ(lsn_capture(l.prod, l.slot, LSN_NEAR, line_now(&l), quiet, 160), 0);
		next_us += 19800;
	}
	trimmed = line_counters(&l).trimmed[LSN_NEAR];
	/* 150 ms too much were spoken; all but what may lie ahead was left out */
	CHECK(trimmed >= (150 - 100) * per_ms(&l));
	CHECK(trimmed <= 200 * per_ms(&l));
	line_end(&l);
	line_close(&l);
}


/* The first words are spoken while the WebSocket is still connecting. */
static void what_gathered_before_the_flow_opened_comes_out_whole(void)
{
	for (uint32_t mix = LSN_MONO; mix <= LSN_STEREO; mix++) {
		struct line l;

		line_open(&l, 8000, mix, 20, 10000);
		line_attach(&l, 0);
		line_run(&l, 3000, 0);
		line_drain_by(&l, 64, 64);
		CHECK_EQ(l.sent, 0);
		CHECK_EQ(lsn_flow(l.cons, l.slot, l.gen, 1), 0);
		line_run(&l, 1000, 1);
		line_end(&l);
		expect_all(&l, LSN_NEAR, 0, 0);
		if (mix == LSN_STEREO)
			expect_all(&l, LSN_FAR, 0, 0);
		line_close(&l);
	}
}


/* The server is away for longer than the ring holds. */
static void a_full_ring_drops_the_newest_and_goes_on_in_place(void)
{
	struct piece p[4];
	struct lsn_counters c;
	struct line l;
	uint64_t lost = 0;

	line_open(&l, 8000, LSN_MONO, 20, 1000);
	line_attach(&l, 0);
	l.talks[LSN_NEAR] = 0;
	for (int n = 0; n < 200; n++) {
		line_run(&l, 20, 0);
		if (line_say(&l, LSN_NEAR, 20))
			lost += 160;
	}
	c = line_counters(&l);
	CHECK(lost > 0);
	CHECK(lost <= 3000 * per_ms(&l));
	CHECK_EQ(c.dropped[LSN_NEAR], lost);
	CHECK_EQ(c.captured[LSN_NEAR] + lost, l.said[LSN_NEAR]);

	CHECK_EQ(lsn_flow(l.cons, l.slot, l.gen, 1), 0);
	line_drain_by(&l, 64, 64);
	l.talks[LSN_NEAR] = 1;
	line_run(&l, 1000, 1);
	line_end(&l);
	CHECK_EQ(line_pieces(&l, LSN_NEAR, p, NELEMS(p)), 2);
	CHECK_EQ(p[0].at, 0);
	CHECK_EQ(p[1].at, 4000 * per_ms(&l));
	CHECK_EQ(p[0].samples, 4000 * per_ms(&l) - lost);
	line_close(&l);
}


static void the_end_follows_the_last_frame(void)
{
	for (uint32_t ms = 0; ms <= 50; ms += 10) {
		struct line l;

		line_open(&l, 8000, LSN_MONO, 10, 1000);
		line_attach(&l, 0);
		line_run(&l, 200 + ms, 0);
		CHECK_EQ(lsn_slot_end(l.prod, l.slot, line_now(&l)), 0);
		line_drain_by(&l, 64, 64);
		CHECK(!l.ended); /* not before what is left was sent */
		CHECK_EQ(lsn_flow(l.cons, l.slot, l.gen, 1), 0);
		line_drain_by(&l, 64, 64);
		CHECK(l.ended);
		expect_all(&l, LSN_NEAR, 0, 0);
		CHECK_EQ(l.sent, (200 + ms + 19) / 20 * 20 * per_ms(&l));
		line_drain_by(&l, 64, 64); /* no second end */
		line_close(&l);
	}
}


static void discarding_lets_the_end_through(void)
{
	struct lsn_item items[4];
	struct line l;
	uint8_t pcm[1280];
	uint32_t more;

	line_open(&l, 8000, LSN_STEREO, 20, 2000);
	line_attach(&l, 0);
	line_run(&l, 1000, 0);
	CHECK_EQ(lsn_slot_end(l.prod, l.slot, line_now(&l)), 0);
	l.t_ms += 500;
	CHECK_EQ(lsn_discard(l.cons, l.slot, l.gen, line_now(&l)), 1000 * per_ms(&l));
	CHECK_EQ(lsn_drain(l.cons, line_now(&l), items, 4, pcm, sizeof(pcm), &more), 1);
	CHECK_EQ(items[0].kind, LSN_END);
	CHECK_EQ(items[0].pos, 1000 * per_ms(&l));
	line_close(&l);
}


static void mixing_saturates(void)
{
	static const int16_t near[4] = {30000, -30000, 30000, 1};
	static const int16_t far[4] = {30000, -30000, -30000, 2};
	static const int16_t sum[4] = {INT16_MAX, INT16_MIN, 0, 3};
	int16_t pcm[2][160];
	struct line l;

	line_open(&l, 8000, LSN_MIXED, 20, 1000);
	line_attach(&l, 1);
	for (int i = 0; i < 160; i++) {
		pcm[0][i] = near[i % 4];
		pcm[1][i] = far[i % 4];
	}
	l.t_ms = 20;
	CHECK_EQ(lsn_capture(l.prod, l.slot, LSN_NEAR, line_now(&l), pcm[0], 160), 0);
	CHECK_EQ(lsn_capture(l.prod, l.slot, LSN_FAR, line_now(&l), pcm[1], 160), 0);
	line_drain(&l);
	CHECK_EQ(l.sent, 160);
	for (int i = 0; i < 160; i++)
		CHECK_EQ(l.out[0][i], sum[i % 4]);
	line_close(&l);
}


static void digits_come_in_order_with_their_places(void)
{
	struct line l;

	line_open(&l, 8000, LSN_MONO, 20, 1000);
	line_attach(&l, 0);
	for (uint32_t i = 0; i < 16; i++) {
		l.t_ms += 100;
		CHECK_EQ(lsn_digit(l.prod, l.slot, line_now(&l), "0123456789*#ABCD"[i], 1600, 0), 0);
		if (i % 3 == 0)
			line_drain_by(&l, 2, 1);
	}
	line_drain_by(&l, 2, 1);
	CHECK_EQ(l.digits, 16);
	CHECK_EQ(memcmp(l.digit, "0123456789*#ABCD", 16), 0);
	for (uint32_t i = 0; i < 16; i++)
		CHECK_EQ(l.digit_pos[i], (i + 1) * 800);
	CHECK_EQ(l.sent, 0);
	line_close(&l);
}


static void a_digit_tells_its_length_and_who_pressed_it(void)
{
	struct lsn_arena *prod, *cons;
	struct lsn_item item;
	uint8_t pcm[640];
	uint32_t more;

	make_pair(&prod, &cons, 1, 200);
	open_attached(prod, cons, 0, 16000, LSN_MONO, 0);
	CHECK_EQ(lsn_digit(prod, 0, T0 + NS_PER_S, '#', 2000, 1), 0);
	CHECK_EQ(lsn_drain(cons, T0, &item, 1, pcm, sizeof(pcm), &more), 1);
	CHECK_EQ(item.kind, LSN_DIGIT);
	CHECK_EQ(item.digit, '#');
	CHECK_EQ(item.duration, 2000);
	CHECK_EQ(item.far, 1);
	CHECK_EQ(item.pos, 16000);
	free_pair(prod, cons);
}


static void too_many_digits_are_counted(void)
{
	struct line l;
	uint32_t lost = 0;

	line_open(&l, 8000, LSN_MONO, 20, 1000);
	line_attach(&l, 1);
	for (int i = 0; i < 100; i++)
		lost += lsn_digit(l.prod, l.slot, line_now(&l), '1', 800, 0) == -ENOBUFS;
	line_drain_by(&l, 64, 64);
	CHECK(lost > 0);
	CHECK_EQ(l.digits, 100 - lost);
	CHECK_EQ(line_counters(&l).digits_dropped, lost);
	line_close(&l);
}


static void a_frame_tells_its_level(void)
{
	struct lsn_arena *prod, *cons;
	int16_t pcm[160] = {0};
	struct lsn_item item;
	uint8_t out[320];
	uint32_t more;

	make_pair(&prod, &cons, 1, 200);
	open_attached(prod, cons, 0, 8000, LSN_MONO, 0);
	for (uint32_t i = 0; i < 160; i++)
		pcm[i] = i % 2 ? 3000 : -4000;
	CHECK_EQ(lsn_capture(prod, 0, LSN_NEAR, T0 + 20 * NS_PER_MS, pcm, 160), 0);
	CHECK_EQ(lsn_drain(cons, T0 + 20 * NS_PER_MS, &item, 1, out, sizeof(out), &more), 1);
	CHECK_EQ(item.level, 3535); /* the root of (3000² + 4000²) / 2 */
	CHECK_EQ(item.silence, 0);
	free_pair(prod, cons);
}


static void small_batches_lose_nothing(void)
{
	struct line l;

	line_open(&l, 8000, LSN_STEREO, 30, 2000);
	line_attach(&l, 1);
	line_run(&l, 1200, 0);
	CHECK_EQ(lsn_digit(l.prod, l.slot, line_now(&l), '5', 800, 0), 0);
	CHECK_EQ(lsn_slot_end(l.prod, l.slot, line_now(&l)), 0);
	line_drain_by(&l, 1, 1);
	CHECK(l.ended);
	CHECK_EQ(l.digits, 1);
	expect_all(&l, LSN_NEAR, 0, 0);
	expect_all(&l, LSN_FAR, 0, 0);
	line_close(&l);
}


/* One drain serves all slots of a worker, each with its own audio and rate. */
static void slots_do_not_mix(void)
{
	static _Alignas(8) uint8_t out[8 * 64000 / 50 * 2];
	struct lsn_arena *prod, *cons;
	struct lsn_item items[8];
	int16_t pcm[1280];
	uint32_t more;

	make_pair(&prod, &cons, 6, 200);
	for (uint32_t i = 0; i < 6; i++) {
		open_attached(prod, cons, i, RATES[i], LSN_MONO, 0);
		for (uint32_t k = 0; k < RATES[i] / 50; k++)
			pcm[k] = (int16_t)(1000 + i);
		CHECK_EQ(lsn_capture(prod, i, LSN_NEAR, T0 + 20 * NS_PER_MS, pcm, RATES[i] / 50), 0);
	}
	CHECK_EQ(lsn_drain(cons, T0 + 20 * NS_PER_MS, items, 8, out, sizeof(out), &more), 6);
	CHECK_EQ(more, 0);
	for (uint32_t i = 0; i < 6; i++) {
		const int16_t *p = (const int16_t *)(const void *)(out + items[i].offset);
		const uint32_t slot = items[i].slot;

		CHECK_EQ(items[i].bytes, RATES[slot] / 50 * 2);
		for (uint32_t k = 0; k < RATES[slot] / 50; k++)
			CHECK_EQ(p[k], 1000 + slot);
	}
	free_pair(prod, cons);
}


int main(void)
{
	RUN(steady_audio_comes_out_sample_by_sample);
	RUN(tracks_out_of_step_are_both_whole);
	RUN(a_far_track_that_never_speaks_holds_nothing_up);
	RUN(a_near_track_that_never_speaks_is_silence_on_time);
	RUN(nobody_speaks_and_silence_is_on_time);
	RUN(a_far_track_that_starts_late_is_laid_at_the_present);
	RUN(a_hold_is_filled_and_what_follows_is_in_place);
	RUN(the_first_word_after_a_hold_is_whole);
	RUN(the_first_word_is_whole_though_the_other_track_is_ahead);
	RUN(a_burst_is_neither_lost_nor_filled);
	RUN(lost_packets_do_not_add_up);
	RUN(a_slow_talker_is_kept_on_time);
	RUN(a_fast_talker_is_kept_on_time);
	RUN(what_gathered_before_the_flow_opened_comes_out_whole);
	RUN(a_full_ring_drops_the_newest_and_goes_on_in_place);
	RUN(the_end_follows_the_last_frame);
	RUN(discarding_lets_the_end_through);
	RUN(mixing_saturates);
	RUN(digits_come_in_order_with_their_places);
	RUN(a_digit_tells_its_length_and_who_pressed_it);
	RUN(too_many_digits_are_counted);
	RUN(a_frame_tells_its_level);
	RUN(small_batches_lose_nothing);
	RUN(slots_do_not_mix);

	return failures;
}

/**
 * @file test_play.c  Playback: what is written is heard, once, and positions tell the truth
 */
#define _GNU_SOURCE
#include "check.h"

#define SAMPLE(n) ((int16_t)((n) % 32749u + 1u))

struct player {
	struct lsn_arena *prod;
	struct lsn_arena *cons;
	uint32_t gen;
	uint64_t wrote;   /* samples */
	uint64_t heard;   /* samples */
	int16_t buf[160000];
};

static struct player pl;


static void start(void)
{
	memset(&pl, 0, sizeof(pl));
	make_pair(&pl.prod, &pl.cons, 1, 200);
	pl.gen = open_attached(pl.prod, pl.cons, 0, 8000, LSN_MONO, 0);
}


static void stop(void)
{
	free_pair(pl.prod, pl.cons);
}


/* Writes the next samples of a count; returns how many were taken. */
static uint32_t write_on(uint32_t rate, uint32_t samples)
{
	uint32_t kick;
	int64_t n;

	CHECK(samples <= NELEMS(pl.buf));
	for (uint32_t i = 0; i < samples; i++)
		pl.buf[i] = SAMPLE(pl.wrote + i);
	n = lsn_play_write(pl.cons, 0, pl.gen, rate, pl.buf, samples, &kick);
	CHECK(n >= 0 && n <= samples);
	pl.wrote += (uint64_t)n;

	return (uint32_t)n;
}


/* Reads up to `max` samples and checks that they are the next of the count. */
static uint32_t hear_on(uint32_t max)
{
	const uint32_t n = lsn_play_read(pl.prod, 0, pl.buf, max);

	CHECK(n <= max);
	for (uint32_t i = 0; i < n; i++)
		CHECK_EQ(pl.buf[i], SAMPLE(pl.heard + i));
	pl.heard += n;

	return n;
}


static struct lsn_play_status status(void)
{
	struct lsn_play_status st;

	CHECK_EQ(lsn_play_status(pl.cons, 0, pl.gen, &st), 0);

	return st;
}


static void nothing_is_heard_before_something_is_written(void)
{
	start();
	CHECK_EQ(lsn_play_rate(pl.prod, 0), 0);
	CHECK_EQ(hear_on(160), 0);
	CHECK_EQ(lsn_play_pending(pl.prod, 0), 0);
	CHECK_EQ(status().played, 0);
	CHECK_EQ(status().written, 0);
	stop();
}


/* In pieces of every size, many times round the ring, at each rate. */
static void all_is_heard_in_order(void)
{
	for (size_t r = 0; r < NELEMS(RATES); r++) {
		const uint32_t tick = LSN_TICKS_HZ / RATES[r];
		uint64_t rnd = r + 1;

		start();
		while (pl.wrote < 2000000) {
			write_on(RATES[r], (uint32_t)(next_random(&rnd) % 3000));
			CHECK(lsn_play_rate(pl.prod, 0) == RATES[r] || pl.heard == pl.wrote);
			hear_on((uint32_t)(next_random(&rnd) % 3000));
			CHECK_EQ(status().written, pl.wrote * tick);
			CHECK_EQ(status().played, pl.heard * tick);
		}
		while (hear_on(1000))
			;
		CHECK_EQ(pl.heard, pl.wrote);
		stop();
	}
}


static void a_read_stops_where_the_rate_changes(void)
{
	start();
	for (size_t r = 0; r < NELEMS(RATES); r++)
		CHECK_EQ(write_on(RATES[r], 100), 100);
	for (size_t r = 0; r < NELEMS(RATES); r++) {
		CHECK_EQ(lsn_play_rate(pl.prod, 0), RATES[r]);
		CHECK_EQ(hear_on(1000), 100);
	}
	CHECK_EQ(status().played, 100 * (24 + 12 + 8 + 6 + 4 + 3));
	CHECK_EQ(status().played, status().written);
	stop();
}


static void a_full_ring_takes_no_more_and_loses_nothing(void)
{
	uint32_t taken;

	start();
	taken = write_on(64000, 160000);
	CHECK(taken >= 64000 * (LSN_PLAY_MS / 1000)); /* two seconds at the highest rate */
	CHECK(taken < 160000);
	CHECK_EQ(write_on(64000, 1280), 0);
	CHECK(status().room < 1280 * 2 + 32);
	CHECK_EQ(hear_on(12800), 12800);
	CHECK(write_on(64000, 1280) > 0);
	while (hear_on(1000))
		;
	CHECK_EQ(pl.heard, pl.wrote);
	stop();
}


static void room_is_what_can_be_written(void)
{
	uint32_t before;

	start();
	before = status().room;
	CHECK_EQ(write_on(8000, 160), 160);
	CHECK(status().room < before);
	CHECK_EQ(hear_on(160), 160);
	CHECK_EQ(status().room, before);
	stop();
}


static void wrong_rates_are_refused(void)
{
	const int16_t pcm[160] = {0};
	uint32_t kick;

	start();
	CHECK_EQ(lsn_play_write(pl.cons, 0, pl.gen, 44100, pcm, 160, &kick), -EINVAL);
	CHECK_EQ(lsn_play_write(pl.cons, 0, pl.gen, 0, pcm, 160, &kick), -EINVAL);
	CHECK_EQ(lsn_play_pending(pl.prod, 0), 0);
	stop();
}


/* The switch is woken when it may be asleep, and not for every write. */
static void the_first_write_kicks_and_the_second_does_not(void)
{
	const int16_t pcm[160] = {0};
	uint32_t kick;

	start();
	CHECK_EQ(lsn_play_write(pl.cons, 0, pl.gen, 8000, pcm, 160, &kick), 160);
	CHECK_EQ(kick, 1);
	CHECK_EQ(lsn_play_pending(pl.prod, 0), 1);
	CHECK_EQ(lsn_play_write(pl.cons, 0, pl.gen, 8000, pcm, 160, &kick), 160);
	CHECK_EQ(kick, 0);
	CHECK_EQ(lsn_play_read(pl.prod, 0, pl.buf, 320), 320);
	CHECK_EQ(lsn_play_pending(pl.prod, 0), 0);
	CHECK_EQ(lsn_play_write(pl.cons, 0, pl.gen, 8000, pcm, 160, &kick), 160);
	CHECK_EQ(kick, 1);
	stop();
}


static void a_flush_takes_all_that_was_written_and_no_more(void)
{
	struct lsn_play_status st;

	start();
	CHECK_EQ(write_on(8000, 1000), 1000);
	CHECK_EQ(hear_on(250), 250);
	CHECK_EQ(lsn_play_flush(pl.cons, 0, pl.gen), 0);
	CHECK_EQ(lsn_play_pending(pl.prod, 0), 1);
	CHECK_EQ(write_on(16000, 300), 300); /* sent right after the kill: it must be heard */

	CHECK_EQ(lsn_play_rate(pl.prod, 0), 16000);
	pl.heard = 1000;
	CHECK_EQ(hear_on(1000), 300);

	st = status();
	CHECK_EQ(st.flushes, 1);
	CHECK_EQ(st.flush[0].from, 250 * 24);
	CHECK_EQ(st.flush[0].upto, 1000 * 24);
	CHECK_EQ(st.played, 1000 * 24 + 300 * 12);
	CHECK_EQ(st.played, st.written);
	stop();
}


static void flushed_and_played_are_counted_apart(void)
{
	struct lsn_counters c;

	start();
	CHECK_EQ(write_on(8000, 1000), 1000);
	CHECK_EQ(hear_on(250), 250);
	CHECK_EQ(lsn_play_flush(pl.cons, 0, pl.gen), 0);
	CHECK_EQ(lsn_play_rate(pl.prod, 0), 0);
	CHECK_EQ(lsn_slot_counters(pl.prod, 0, &c), 0);
	CHECK_EQ(c.played_ticks, 250 * 24);
	CHECK_EQ(c.flushed_ticks, 750 * 24);
	stop();
}


static void flushing_nothing_does_no_harm(void)
{
	start();
	CHECK_EQ(lsn_play_flush(pl.cons, 0, pl.gen), 0);
	CHECK_EQ(lsn_play_rate(pl.prod, 0), 0);
	CHECK_EQ(write_on(8000, 160), 160);
	CHECK_EQ(lsn_play_rate(pl.prod, 0), 8000);
	CHECK_EQ(hear_on(160), 160);
	CHECK_EQ(lsn_play_flush(pl.cons, 0, pl.gen), 0);
	CHECK_EQ(lsn_play_rate(pl.prod, 0), 0);
	CHECK_EQ(status().played, 160 * 24);
	stop();
}


static void every_flush_leaves_its_mark(void)
{
	start();
	for (uint64_t n = 0; n < 20; n++) {
		struct lsn_play_status st;

		CHECK_EQ(write_on(8000, 500), 500);
		CHECK_EQ(lsn_play_rate(pl.prod, 0), 8000);
		CHECK_EQ(hear_on(100), 100);
		CHECK_EQ(lsn_play_flush(pl.cons, 0, pl.gen), 0);
		CHECK_EQ(lsn_play_rate(pl.prod, 0), 0);
		pl.heard = pl.wrote;
		st = status();
		CHECK_EQ(st.flushes, n + 1);
		CHECK_EQ(st.flush[n % LSN_FLUSHES].from, (n * 500 + 100) * 24);
		CHECK_EQ(st.flush[n % LSN_FLUSHES].upto, (n + 1) * 500 * 24);
	}
	stop();
}


/* Random writes, reads and flushes at random rates, against plain arithmetic. */
static void positions_agree_with_a_model(void)
{
	uint64_t rnd = 99, written = 0, played = 0, flushes = 0;
	uint64_t queue[4096], in = 0, out = 0; /* ticks of each sample's length */
	uint32_t used;

	start();
	for (int step = 0; step < 50000; step++) {
		const uint32_t rate = RATES[next_random(&rnd) % NELEMS(RATES)];
		uint32_t n = (uint32_t)(next_random(&rnd) % 100), got;

		switch (next_random(&rnd) % 5) {
		case 0:
		case 1:
			if (in - out + n > NELEMS(queue))
				break;
			n = write_on(rate, n);
			for (uint32_t i = 0; i < n; i++)
				queue[in++ % NELEMS(queue)] = LSN_TICKS_HZ / rate;
			written += (uint64_t)n * (LSN_TICKS_HZ / rate);
			break;
		case 2:
		case 3:
			got = hear_on(n);
			used = (uint32_t)queue[out % NELEMS(queue)];
			for (uint32_t i = 0; i < got; i++, out++) {
				CHECK_EQ(queue[out % NELEMS(queue)], used);
				played += used;
			}
			CHECK(got == n || out == in || queue[out % NELEMS(queue)] != used);
			break;
		default:
			if (in == out)
				break;
			CHECK_EQ(lsn_play_flush(pl.cons, 0, pl.gen), 0);
			CHECK_EQ(lsn_play_rate(pl.prod, 0), 0);
			out = in;
			pl.heard = pl.wrote;
			played = written;
			flushes++;
		}
		CHECK_EQ(status().written, written);
		CHECK_EQ(status().played, played);
		CHECK_EQ(status().flushes, flushes);
	}
	CHECK(flushes > 100);
	stop();
}


/* No capture or playback call follows the end; a worker that does not know yet is not harmed. */
static void an_ended_slot_plays_nothing(void)
{
	start();
	CHECK_EQ(write_on(8000, 160), 160);
	CHECK_EQ(lsn_slot_end(pl.prod, 0, T0 + NS_PER_S), 0);
	CHECK_EQ(lsn_play_rate(pl.prod, 0), 0);
	CHECK_EQ(lsn_play_read(pl.prod, 0, pl.buf, 160), 0);
	CHECK_EQ(lsn_play_pending(pl.prod, 0), 0);
	CHECK_EQ(write_on(8000, 160), 160);
	stop();
}


/* Nothing of one call is ever heard in the next. */
static void a_slot_used_again_begins_empty(void)
{
	start();
	CHECK_EQ(write_on(8000, 160), 160);
	CHECK_EQ(lsn_slot_end(pl.prod, 0, T0), 0);
	CHECK_EQ(lsn_release(pl.cons, 0, pl.gen), 0);
	CHECK_EQ(lsn_slot_reclaim(pl.prod, 0), 0);
	pl.gen = open_attached(pl.prod, pl.cons, 0, 16000, LSN_MONO, 0);
	CHECK_EQ(lsn_play_rate(pl.prod, 0), 0);
	CHECK_EQ(status().written, 0);
	CHECK_EQ(status().played, 0);
	CHECK_EQ(status().flushes, 0);
	pl.heard = pl.wrote;
	CHECK_EQ(write_on(16000, 160), 160);
	CHECK_EQ(hear_on(200), 160);
	stop();
}


int main(void)
{
	RUN(nothing_is_heard_before_something_is_written);
	RUN(all_is_heard_in_order);
	RUN(a_read_stops_where_the_rate_changes);
	RUN(a_full_ring_takes_no_more_and_loses_nothing);
	RUN(room_is_what_can_be_written);
	RUN(wrong_rates_are_refused);
	RUN(the_first_write_kicks_and_the_second_does_not);
	RUN(a_flush_takes_all_that_was_written_and_no_more);
	RUN(flushed_and_played_are_counted_apart);
	RUN(flushing_nothing_does_no_harm);
	RUN(every_flush_leaves_its_mark);
	RUN(positions_agree_with_a_model);
	RUN(an_ended_slot_plays_nothing);
	RUN(a_slot_used_again_begins_empty);

	return failures;
}

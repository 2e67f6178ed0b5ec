/**
 * @file test_adopt.c  A listen goes to another worker: nothing is lost, nothing comes twice
 */
#define _GNU_SOURCE
#include "line.h"

static const uint32_t PTIMES[] = {10, 20, 30, 40, 60};


/* The first worker is gone, with or without a farewell; the second begins. */
static void hand_over(struct line *l, int killed, int flow)
{
	struct lsn_arena *second;
	uint32_t before = l->worker;

	CHECK_EQ(lsn_arena_map(&second, lsn_arena_fd(l->prod)), 0);
	l->worker = l->worker == 1 ? 2 : 1;
	CHECK_EQ(lsn_slot_assign(l->prod, l->slot, l->worker), 0);
	CHECK_EQ(lsn_attach(second, l->slot, l->gen, l->worker), -EBUSY);
	if (killed)
		CHECK_EQ(lsn_slot_evict(l->prod, l->slot, before), 0);
	else
		CHECK_EQ(lsn_detach(l->cons, l->slot, l->gen), 0);
	lsn_arena_free(l->cons);
	l->cons = second;
	line_attach(l, flow);
}


static void both_talkers_are_whole(const struct line *l)
{
	expect_all(l, LSN_NEAR, 0, 0);
	if (l->mix == LSN_STEREO)
		expect_all(l, LSN_FAR, 0, 0);
	CHECK_EQ(l->silence, l->sent - l->said[LSN_NEAR]); /* the end of the last frame */
	CHECK_EQ(line_counters(l).late[LSN_NEAR], 0);
	CHECK_EQ(line_counters(l).late[LSN_FAR], 0);
}


static void a_hand_over_cuts_no_sample(void)
{
	for (size_t p = 0; p < NELEMS(PTIMES); p++) {
		for (uint32_t mix = LSN_MONO; mix <= LSN_STEREO; mix++) {
			for (int killed = 0; killed <= 1; killed++) {
				struct line l;

				line_open(&l, 8000, mix, PTIMES[p], 5000);
				line_attach(&l, 1);
				for (int n = 0; n < 8; n++) {
					line_run(&l, 130 + PTIMES[p], 1);
					hand_over(&l, killed, 1);
				}
				l.talks[LSN_NEAR] = l.talks[LSN_FAR] = 0;
				line_end(&l);
				both_talkers_are_whole(&l);
				line_close(&l);
			}
		}
	}
}


/* The far track's frames come some milliseconds after the near one's: the new worker must
 * wait for them as the old one did. */
static void a_hand_over_between_two_tracks_cuts_no_sample(void)
{
	for (uint32_t behind_ms = 1; behind_ms < 20; behind_ms++) {
		struct line l;

		line_open(&l, 8000, LSN_STEREO, 20, 5000);
		line_attach(&l, 1);
		line_run(&l, 100, 1);
		l.lag_max_ms = 70;
		l.talks[LSN_FAR] = 0;
		l.phase_ms[LSN_FAR] = behind_ms;
		line_run(&l, 20, 1);
		l.talks[LSN_FAR] = 1;
		line_run(&l, 380, 1);
		hand_over(&l, 1, 1);
		line_drain(&l);
		line_run(&l, 500, 1);
		l.talks[LSN_NEAR] = l.talks[LSN_FAR] = 0;
		line_run(&l, 20, 1);
		line_end(&l);
		CHECK_EQ(line_counters(&l).late[LSN_FAR], 0);
		expect_all(&l, LSN_FAR, 0, 0);
		line_close(&l);
	}
}


/* For two seconds there is no worker; then one connects for another second. */
static void what_gathered_meanwhile_is_sent_first(void)
{
	for (size_t p = 0; p < NELEMS(PTIMES); p++) {
		for (uint32_t mix = LSN_MONO; mix <= LSN_STEREO; mix++) {
			struct line l;

			line_open(&l, 8000, mix, PTIMES[p], 5000);
			line_attach(&l, 1);
			line_run(&l, 490, 1);
			line_run(&l, 2000, 0);
			hand_over(&l, 1, 0);
			line_run(&l, 1000, 0);
			line_drain_by(&l, 64, 64);
			CHECK_EQ(lsn_flow(l.cons, l.slot, l.gen, 1), 0);
			line_run(&l, 990, 1);
			l.talks[LSN_NEAR] = l.talks[LSN_FAR] = 0;
			line_end(&l);
			both_talkers_are_whole(&l);
			line_close(&l);
		}
	}
}


/* The call ended while no worker was there. */
static void an_ended_listen_is_adopted_too(void)
{
	struct line l;

	line_open(&l, 8000, LSN_MONO, 20, 5000);
	line_attach(&l, 1);
	line_run(&l, 500, 1);
	line_run(&l, 1000, 0);
	CHECK_EQ(lsn_slot_end(l.prod, l.slot, line_now(&l)), 0);
	l.t_ms += 3000;
	hand_over(&l, 1, 1);
	line_drain_by(&l, 64, 64);
	CHECK(l.ended);
	expect_all(&l, LSN_NEAR, 0, 0);
	CHECK_EQ(l.sent, 1500 * per_ms(&l));
	CHECK_EQ(lsn_release(l.cons, l.slot, l.gen), 0);
	line_close(&l);
}


/* A hand-over in the middle of a hold: the silence goes on, no more and no less. */
static void a_hold_goes_on_with_the_new_worker(void)
{
	struct piece near[4];
	struct line l;

	line_open(&l, 8000, LSN_MONO, 20, 5000);
	line_attach(&l, 1);
	line_run(&l, 500, 1);
	l.talks[LSN_NEAR] = 0;
	l.lag_max_ms = 300;
	line_run(&l, 1000, 1);
	hand_over(&l, 1, 1);
	line_run(&l, 1000, 1);
	l.talks[LSN_NEAR] = 1;
	l.ahead_max_ms = 40;
	line_run(&l, 500, 1);
	CHECK_EQ(line_pieces(&l, LSN_NEAR, near, NELEMS(near)), 2);
	CHECK_EQ(near[0].samples + near[1].samples, l.said[LSN_NEAR]);
	CHECK(near[1].at >= 2480 * per_ms(&l));
	CHECK(near[1].at <= 2540 * per_ms(&l));
	line_close(&l);
}


/* Digits that the old worker has not taken come to the new one. */
static void digits_are_handed_over(void)
{
	struct line l;

	line_open(&l, 8000, LSN_MONO, 20, 5000);
	line_attach(&l, 1);
	CHECK_EQ(lsn_digit(l.prod, l.slot, line_now(&l), '1', 800, 0), 0);
	line_drain(&l);
	CHECK_EQ(lsn_digit(l.prod, l.slot, line_now(&l), '2', 800, 0), 0);
	hand_over(&l, 1, 1);
	line_drain(&l);
	CHECK_EQ(l.digits, 2);
	CHECK_EQ(memcmp(l.digit, "12", 2), 0);
	line_close(&l);
}


/* What the old worker wrote to play is played, then what the new one writes. */
static void playback_goes_on_where_it_was(void)
{
	struct lsn_play_status st;
	int16_t pcm[800], heard[1600];
	struct line l;
	uint32_t kick;

	line_open(&l, 8000, LSN_MONO, 20, 5000);
	line_attach(&l, 1);
	for (uint32_t i = 0; i < 800; i++)
		pcm[i] = SAY(i);
	CHECK_EQ(lsn_play_write(l.cons, l.slot, l.gen, 8000, pcm, 800, &kick), 800);
	CHECK_EQ(lsn_play_rate(l.prod, l.slot), 8000);
	CHECK_EQ(lsn_play_read(l.prod, l.slot, heard, 130), 130);

	hand_over(&l, 1, 1);
	CHECK_EQ(lsn_play_status(l.cons, l.slot, l.gen, &st), 0);
	CHECK_EQ(st.written, 800 * 24);
	CHECK_EQ(st.played, 130 * 24);
	for (uint32_t i = 0; i < 800; i++)
		pcm[i] = SAY(800 + i);
	CHECK_EQ(lsn_play_write(l.cons, l.slot, l.gen, 8000, pcm, 800, &kick), 800);
	CHECK_EQ(lsn_play_rate(l.prod, l.slot), 8000);
	CHECK_EQ(lsn_play_read(l.prod, l.slot, heard + 130, 1600), 1470);
	for (uint32_t i = 0; i < 1600; i++)
		CHECK_EQ(heard[i], SAY(i));
	CHECK_EQ(lsn_play_status(l.cons, l.slot, l.gen, &st), 0);
	CHECK_EQ(st.played, st.written);
	line_close(&l);
}


/* The old worker lives on, for example because it was only stopped for a while. */
static void the_old_worker_cannot_take_it_back(void)
{
	struct lsn_arena *old;
	struct line l;

	line_open(&l, 8000, LSN_MONO, 20, 5000);
	line_attach(&l, 1);
	old = l.cons;
	CHECK_EQ(lsn_slot_assign(l.prod, l.slot, 2), 0);
	CHECK_EQ(lsn_detach(old, l.slot, l.gen), 0);
	CHECK_EQ(lsn_attach(old, l.slot, l.gen, 1), -ESTALE);
	line_close(&l);
}


/* What comes after the switch's decision is the new worker's, however late the old one looks. */
static void the_old_worker_is_told_and_reads_no_more(void)
{
	uint32_t more, frames = 0;
	struct lsn_item items[8];
	struct lsn_arena *old;
	uint8_t pcm[8 * 320];
	int16_t tone[160];
	struct line l;

	for (int i = 0; i < 160; i++)
		tone[i] = 1000;
	line_open(&l, 8000, LSN_MONO, 20, 5000);
	line_attach(&l, 1);
	old = l.cons;
	CHECK_EQ(lsn_arena_map(&l.cons, lsn_arena_fd(l.prod)), 0);
	CHECK_EQ(lsn_slot_assign(l.prod, l.slot, 2), 0);
	for (uint64_t n = 1; n <= 3; n++)
		CHECK_EQ(lsn_capture(l.prod, l.slot, LSN_NEAR, T0 + n * 20 * NS_PER_MS, tone, 160), 0);
	CHECK_EQ(lsn_drain(old, T0 + 60 * NS_PER_MS, items, 8, pcm, sizeof(pcm), &more), 1);
	CHECK_EQ(items[0].kind, LSN_MOVED);
	CHECK_EQ(lsn_drain(old, T0 + 80 * NS_PER_MS, items, 8, pcm, sizeof(pcm), &more), 0);
	CHECK_EQ(lsn_attach(l.cons, l.slot, l.gen, 2), -EBUSY);
	CHECK_EQ(lsn_detach(old, l.slot, l.gen), 0);
	lsn_arena_free(old);

	l.worker = 2;
	line_attach(&l, 1);
	frames = lsn_drain(l.cons, T0 + 80 * NS_PER_MS, items, 8, pcm, sizeof(pcm), &more);
	CHECK_EQ(frames, 3);
	for (uint32_t i = 0; i < frames; i++)
		CHECK_EQ(items[i].level, 1000);
	line_close(&l);
}


/* A dead worker's claim is forgotten, and nobody else's. */
static void only_the_dead_are_evicted(void)
{
	struct lsn_arena *second;
	struct line l;

	line_open(&l, 8000, LSN_MONO, 20, 5000);
	line_attach(&l, 1);
	CHECK_EQ(lsn_arena_map(&second, lsn_arena_fd(l.prod)), 0);
	CHECK_EQ(lsn_slot_assign(l.prod, l.slot, 2), 0);
	CHECK_EQ(lsn_slot_evict(l.prod, l.slot, 3), 0);
	CHECK_EQ(lsn_attach(second, l.slot, l.gen, 2), -EBUSY);
	CHECK_EQ(lsn_slot_evict(l.prod, l.slot, 1), 0);
	CHECK_EQ(lsn_attach(second, l.slot, l.gen, 2), 0);
	lsn_arena_free(second);
	line_close(&l);
}


int main(void)
{
	RUN(a_hand_over_cuts_no_sample);
	RUN(a_hand_over_between_two_tracks_cuts_no_sample);
	RUN(what_gathered_meanwhile_is_sent_first);
	RUN(an_ended_listen_is_adopted_too);
	RUN(a_hold_goes_on_with_the_new_worker);
	RUN(digits_are_handed_over);
	RUN(playback_goes_on_where_it_was);
	RUN(the_old_worker_cannot_take_it_back);
	RUN(the_old_worker_is_told_and_reads_no_more);
	RUN(only_the_dead_are_evicted);

	return failures;
}

/**
 * @file test_corrupt.c  The other side writes nonsense: no crash, no flood, and it is counted
 */
#define _GNU_SOURCE
#include "../layout.h"
#include "line.h"

#define ROUNDS 30000u

static uint64_t rnd;


/* Something that a check may have forgotten: near the truth, or far from it. */
static uint64_t nonsense(uint64_t truth)
{
	static const uint64_t edges[] = {0, 1, 31, 32, UINT32_MAX, UINT64_MAX, UINT64_MAX - 31,
	                                 INT64_MAX, UINT64_C(1) << 63};

	switch (next_random(&rnd) % 4) {
	case 0:
		return edges[next_random(&rnd) % NELEMS(edges)];
	case 1:
		return truth + (next_random(&rnd) % 256 - 128) * 32;
	case 2:
		return truth + next_random(&rnd) % 64 - 32;
	default:
		return next_random(&rnd);
	}
}


static void scribble64(_Atomic uint64_t *p)
{
	atomic_store(p, nonsense(atomic_load(p)));
}


static void scribble32(_Atomic uint32_t *p)
{
	atomic_store(p, (uint32_t)nonsense(atomic_load(p)));
}


/* A header with some wrong fields, or plain noise, over a record of a ring. */
static void scribble_ring(const struct lsn_ring *r)
{
	uint8_t *at = r->data + next_random(&rnd) % (r->size / 32) * 32;
	struct lsn_record rec;

	memcpy(&rec, at, sizeof(rec));
	switch (next_random(&rnd) % 6) {
	case 0:
		rec.bytes = (uint32_t)nonsense(rec.bytes);
		break;
	case 1:
		rec.type = (uint16_t)(next_random(&rnd) % 5);
		break;
	case 2:
		rec.rate = (uint32_t)nonsense(rec.rate);
		break;
	case 3:
		rec.pos = nonsense(rec.pos);
		break;
	case 4:
		rec.t_ns = nonsense(rec.t_ns);
		break;
	default:
		for (size_t i = 0; i < sizeof(rec); i++)
			((uint8_t *)&rec)[i] = (uint8_t)next_random(&rnd);
	}
	memcpy(at, &rec, sizeof(rec));
}


static void scribble_what_the_worker_writes(struct lsn_arena *a, uint32_t slot)
{
	struct lsn_slot *s = lsn_slot_at(a, slot);
	const struct lsn_ring play = lsn_play_ring(a, slot);
	_Atomic uint64_t *const words[] = {
		&s->capture[0].rpos, &s->capture[1].rpos, &s->control.rpos, &s->play.wpos,
		&s->flush_to,        &s->written,         &s->emitted,      &s->consumer.filled,
	};
	const uint64_t n = next_random(&rnd) % (NELEMS(words) + 3);

	if (n < NELEMS(words))
		scribble64(words[n]);
	else if (n == NELEMS(words))
		scribble32(&s->state);
	else
		scribble_ring(&play);
}


static void scribble_what_the_switch_writes(struct lsn_arena *a, uint32_t slot)
{
	struct lsn_slot *s = lsn_slot_at(a, slot);
	const struct lsn_ring near = lsn_capture_ring(a, slot, LSN_NEAR, 8000);
	const struct lsn_ring far = lsn_capture_ring(a, slot, LSN_FAR, 8000);
	const struct lsn_ring control = lsn_control_ring(a, slot);
	_Atomic uint64_t *const words[] = {
		&s->capture[0].wpos, &s->capture[1].wpos, &s->control.wpos,   &s->play.rpos,
		&s->played,          &s->flushes,         &s->flush[0].to,    &s->flush[1].upto,
		&s->start_ns,        &s->end_ns,          &s->producer.corrupt,
	};
	const uint64_t n = next_random(&rnd) % (NELEMS(words) + 7);

	switch (n < NELEMS(words) ? 0 : n - NELEMS(words) + 1) {
	case 0:
		scribble64(words[n]);
		break;
	case 1:
		scribble32(&s->rate);
		break;
	case 2:
		scribble32(&s->mix);
		break;
	case 3:
		scribble32(&s->worker);
		break;
	case 4:
	case 5:
		scribble_ring(&near);
		break;
	case 6:
		scribble_ring(&far);
		break;
	default:
		scribble_ring(&control);
	}
}


static void use_as_switch(struct lsn_arena *a, uint32_t slot, uint64_t now_ns)
{
	static int16_t pcm[3840];
	const uint32_t samples = (uint32_t)(next_random(&rnd) % 480);
	uint32_t worker;

	switch (next_random(&rnd) % 6) {
	case 0:
	case 1:
		(void)lsn_capture(a, slot, (uint32_t)(next_random(&rnd) % 2), now_ns, pcm, samples);
		break;
	case 2:
		(void)lsn_digit(a, slot, now_ns, '1', 800, 0);
		break;
	case 3:
		(void)lsn_play_rate(a, slot);
		break;
	case 4:
		CHECK(lsn_play_read(a, slot, pcm, samples) <= samples);
		break;
	default:
		(void)lsn_play_pending(a, slot);
		if (lsn_bell(a, slot, &worker))
			CHECK(worker < LSN_WORKERS_MAX);
	}
}


static void check_item(const struct lsn_item *item, uint32_t bytes)
{
	CHECK(item->kind >= LSN_AUDIO && item->kind <= LSN_MOVED);
	CHECK(item->slot < 2);
	if (item->kind == LSN_AUDIO) {
		CHECK(item->bytes == 320 || item->bytes == 640);
		CHECK((uint64_t)item->offset + item->bytes <= bytes);
		CHECK(item->silence <= 160);
	}
}


static void use_as_worker(struct lsn_arena *a, uint32_t slot, uint32_t gen, uint64_t now_ns)
{
	static _Alignas(8) uint8_t out[4 * 640];
	static const int16_t pcm[1000];
	struct lsn_play_status st;
	struct lsn_item items[8];
	uint32_t n, more, kick;

	switch (next_random(&rnd) % 5) {
	case 0:
	case 1:
		n = lsn_drain(a, now_ns, items, NELEMS(items), out, sizeof(out), &more);
		CHECK(n <= NELEMS(items));
		for (uint32_t i = 0; i < n; i++)
			check_item(&items[i], sizeof(out));
		break;
	case 2:
		CHECK(lsn_play_write(a, slot, gen, 8000, pcm, 300, &kick) <= 300);
		break;
	case 3:
		(void)lsn_play_flush(a, slot, gen);
		break;
	default:
		(void)lsn_play_status(a, slot, gen, &st);
	}
	(void)lsn_arm(a, 0);
}


/* Slot 1 belongs to another call: whatever happens to slot 0, it is served. */
static void check_the_other_call(struct lsn_arena *prod, struct lsn_arena *cons)
{
	static _Alignas(8) uint8_t out[64 * 640];
	struct lsn_item items[64];
	const int16_t word[160] = {[0] = 1234, [159] = 4321};
	uint32_t gen, more;

	CHECK(lsn_slot_info(prod, 0, &(struct lsn_info){0}) == 0);
	gen = open_attached(prod, cons, 1, 8000, LSN_MONO, 0);
	CHECK_EQ(lsn_capture(prod, 1, LSN_NEAR, T0 + 20 * NS_PER_MS, word, 160), 0);
	for (int tries = 0; tries < 100; tries++) {
		const uint32_t n = lsn_drain(cons, T0 + 20 * NS_PER_MS, items, 64, out, sizeof(out), &more);

		for (uint32_t i = 0; i < n; i++) {
			if (items[i].slot == 1) {
				CHECK_EQ(items[i].gen, gen);
				CHECK_EQ(memcmp(out + items[i].offset, word, sizeof(word)), 0);
				return;
			}
		}
	}
	CHECK(!"the other call was not served");
}


typedef void scribble_h(struct lsn_arena *a, uint32_t slot);

static void use_while(scribble_h *scribble)
{
	uint64_t corrupt = 0;

	for (uint32_t run = 0; run < 20; run++) {
		struct lsn_arena *prod, *cons;
		struct lsn_counters c;
		uint64_t now_ns = T0;
		uint32_t gen;

		rnd = run + 1;
		make_pair(&prod, &cons, 2, 300);
		gen = open_attached(prod, cons, 0, 8000, run % 3, 0);
		for (uint32_t i = 0; i < ROUNDS / 20; i++) {
			now_ns += next_random(&rnd) % (30 * NS_PER_MS);
			use_as_switch(prod, 0, now_ns);
			use_as_worker(cons, 0, gen, now_ns);
			if (i % 8 == 0)
				scribble(prod, 0);
		}
		CHECK_EQ(lsn_slot_counters(prod, 0, &c), 0);
		corrupt += c.corrupt != 0;
		check_the_other_call(prod, cons);
		(void)lsn_release(cons, 0, gen);
		free_pair(prod, cons);
	}
	CHECK(corrupt > 10);
}


static void a_mad_worker_cannot_harm_the_switch(void)
{
	use_while(scribble_what_the_worker_writes);
}


static void a_mad_switch_cannot_harm_the_worker(void)
{
	use_while(scribble_what_the_switch_writes);
}


static void scribble_anywhere(struct lsn_arena *a, uint32_t slot)
{
	uint8_t *control = (uint8_t *)lsn_slot_at(a, slot);
	uint8_t *data = lsn_slot_data(a, slot);

	if (next_random(&rnd) % 2)
		control[next_random(&rnd) % sizeof(struct lsn_slot)] = (uint8_t)next_random(&rnd);
	else
		data[next_random(&rnd) % (a->data_stride)] = (uint8_t)next_random(&rnd);
}


static void random_bytes_anywhere_harm_nobody(void)
{
	for (uint32_t run = 0; run < 20; run++) {
		struct lsn_arena *prod, *cons;
		uint64_t now_ns = T0;
		uint32_t gen;

		rnd = 1000 + run;
		make_pair(&prod, &cons, 2, 300);
		gen = open_attached(prod, cons, 0, 8000, run % 3, 0);
		for (uint32_t i = 0; i < ROUNDS / 20; i++) {
			now_ns += next_random(&rnd) % (30 * NS_PER_MS);
			use_as_switch(prod, 0, now_ns);
			use_as_worker(cons, 0, gen, now_ns);
			for (int n = 0; n < 50; n++)
				scribble_anywhere(prod, 0);
		}
		check_the_other_call(prod, cons);
		free_pair(prod, cons);
	}
}


/* Puts a record into the near ring behind the producer's back. */
static void forge(struct line *l, uint64_t pos, uint32_t samples, uint32_t rate)
{
	const struct lsn_ring ring = lsn_capture_ring(l->prod, l->slot, LSN_NEAR, l->rate);
	static const int16_t pcm[160] = {1000};
	const struct lsn_record rec = {
		.type = LSN_REC_AUDIO,
		.bytes = samples * 2,
		.rate = rate,
		.t_ns = line_now(l),
		.pos = pos,
	};

	CHECK_EQ(lsn_ring_put(&ring, &l->prod->producer[l->slot].wpos[LSN_NEAR], &rec, pcm), 0);
}


/* Drains a while; what is handed out must not run away from the clock. */
static void expect_no_flood(struct line *l)
{
	static _Alignas(8) uint8_t out[64 * 640];
	struct lsn_item items[64];
	uint64_t frames = 0;
	uint32_t more;

	for (int tries = 0; tries < 200; tries++) {
		const uint32_t n =
			lsn_drain(l->cons, line_now(l), items, NELEMS(items), out, sizeof(out), &more);

		for (uint32_t i = 0; i < n; i++) {
			frames += items[i].kind == LSN_AUDIO;
			CHECK(items[i].silence <= l->rate / 50);
		}
		if (!more)
			break;
	}
	CHECK(frames * LSN_FRAME_MS <= l->t_ms + 1000);
}


static void a_record_of_the_far_future_floods_nobody(void)
{
	static const uint64_t places[] = {8000 * 60, UINT64_C(1) << 32, UINT64_C(1) << 62, UINT64_MAX};

	for (size_t i = 0; i < NELEMS(places); i++) {
		struct line l;

		line_open(&l, 8000, LSN_MONO, 20, 1000);
		line_attach(&l, 1);
		line_run(&l, 200, 1);
		forge(&l, places[i], 160, 8000);
		expect_no_flood(&l);
		CHECK_EQ(line_counters(&l).corrupt, 1);
		line_close(&l);
	}
}


static void an_end_in_the_far_future_floods_nobody(void)
{
	struct line l;

	line_open(&l, 8000, LSN_MONO, 20, 1000);
	line_attach(&l, 1);
	line_run(&l, 200, 1);
	CHECK_EQ(lsn_slot_end(l.prod, l.slot, T0 + 1000000 * NS_PER_S), 0);
	expect_no_flood(&l);
	line_close(&l);
}


static void overlapping_records_do_not_upset_the_count_of_silence(void)
{
	struct line l;

	line_open(&l, 8000, LSN_MONO, 20, 1000);
	line_attach(&l, 1);
	line_run(&l, 200, 1);
	for (int n = 0; n < 5; n++)
		forge(&l, 1600, 80, 8000);
	forge(&l, 1610, 160, 8000);
	l.t_ms += 40;
	expect_no_flood(&l);
	CHECK(line_counters(&l).filled <= 2 * 160);
	line_close(&l);
}


/* The listen's rate is agreed at its start; audio at another rate is not passed on as if. */
static void a_record_of_another_rate_is_refused(void)
{
	struct line l;

	line_open(&l, 8000, LSN_MONO, 20, 1000);
	line_attach(&l, 1);
	line_run(&l, 200, 1);
	forge(&l, 1600, 160, 16000);
	line_drain_by(&l, 64, 64);
	CHECK_EQ(l.sent, 1600);
	CHECK_EQ(line_counters(&l).corrupt, 1);
	line_close(&l);
}


int main(void)
{
	RUN(a_mad_worker_cannot_harm_the_switch);
	RUN(a_mad_switch_cannot_harm_the_worker);
	RUN(random_bytes_anywhere_harm_nobody);
	RUN(a_record_of_the_far_future_floods_nobody);
	RUN(an_end_in_the_far_future_floods_nobody);
	RUN(overlapping_records_do_not_upset_the_count_of_silence);
	RUN(a_record_of_another_rate_is_refused);

	return failures;
}

/**
 * @file test_threads.c  Switch and worker at the same time
 *
 * Both sides use one mapping here, unlike in life: ThreadSanitizer knows memory
 * by its address, and would see neither races nor their absence across two.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include "../layout.h"
#include "line.h"

#define WAIT_MS 20000 /* longer than any machine is slow; reached only when a wake-up was lost */


static void share_mapping(struct lsn_arena *prod, struct lsn_arena *cons)
{
	CHECK_EQ(munmap(cons->base, cons->size), 0);
	cons->base = prod->base;
}


static void free_shared(struct lsn_arena *prod, struct lsn_arena *cons)
{
	cons->base = MAP_FAILED;
	free_pair(prod, cons);
}


static pthread_t start(void *(*thread)(void *), void *arg)
{
	pthread_t id;

	CHECK_EQ(pthread_create(&id, NULL, thread, arg), 0);

	return id;
}


/* -- the ring alone -------------------------------------------------------- */

#define RECORDS 100000u

static struct lsn_ring_shared ring_shared;
static uint8_t ring_data[4096];
static const struct lsn_ring ring = {
	.sh = &ring_shared,
	.data = ring_data,
	.size = sizeof(ring_data),
};


static void *put_records(void *arg)
{
	uint64_t wpos = 0;

	for (uint64_t n = 0; n < RECORDS;) {
		const uint64_t payload[8] = {n, n, n, n, n, n, n, n};
		const struct lsn_record rec = {
			.type = LSN_REC_AUDIO,
			.bytes = (uint32_t)(n % sizeof(payload)),
			.pos = n,
		};

		if (lsn_ring_put(&ring, &wpos, &rec, payload))
			sched_yield();
		else
			n++;
	}

	return arg;
}


static void a_ring_loses_and_tears_nothing(void)
{
	const pthread_t writer = start(put_records, NULL);
	uint64_t rpos = 0;

	for (uint64_t n = 0; n < RECORDS;) {
		const uint64_t expected[8] = {n, n, n, n, n, n, n, n};
		struct lsn_record rec;
		const uint8_t *payload;
		const int found = lsn_ring_peek(&ring, &rpos, &rec, &payload);

		CHECK(found >= 0);
		if (!found) {
			sched_yield();
			continue;
		}
		CHECK_EQ(rec.pos, n);
		CHECK_EQ(rec.bytes, n % sizeof(expected));
		CHECK_EQ(memcmp(payload, expected, rec.bytes), 0);
		rpos += lsn_record_size(rec.bytes);
		lsn_ring_consume(&ring, rpos);
		n++;
	}
	CHECK_EQ(pthread_join(writer, NULL), 0);
}


/* -- capture against drain -------------------------------------------------- */

#define CALL_MS 10000u

static struct line call;
static _Atomic uint64_t spoken_ms[2];
static _Atomic uint64_t heard_ms;


/* One media thread: frames of 20 ms, at most 100 ms before the other thread and 500 ms
 * before the worker. */
static void *speak(void *arg)
{
	const uint32_t track = *(const uint32_t *)arg;
	int16_t pcm[160];

	for (uint64_t t = 20; t <= CALL_MS; t += 20) {
		while (t > atomic_load(&spoken_ms[!track]) + 100 || t > atomic_load(&heard_ms) + 500)
			sched_yield();
		for (uint64_t i = 0; i < 160; i++) {
			const int16_t v = SAY((t - 20) * 8 + i);

			pcm[i] = (int16_t)(track == LSN_FAR ? -v : v);
		}
		CHECK_EQ(lsn_capture(call.prod, call.slot, track, T0 + t * NS_PER_MS, pcm, 160), 0);
		atomic_store(&spoken_ms[track], t);
	}

	return NULL;
}


static void two_media_threads_and_a_worker_lose_nothing(void)
{
	static const uint32_t tracks[] = {LSN_NEAR, LSN_FAR};
	pthread_t ids[2];

	line_open(&call, 8000, LSN_STEREO, 20, 2000);
	share_mapping(call.prod, call.cons);
	line_attach(&call, 0);
	for (size_t i = 0; i < 2; i++)
		ids[i] = start(speak, (void *)(uintptr_t)&tracks[i]);
	/* Open when both have begun, so that both begin at zero. */
	while (!atomic_load(&spoken_ms[0]) || !atomic_load(&spoken_ms[1]))
		sched_yield();
	CHECK_EQ(lsn_flow(call.cons, call.slot, call.gen, 1), 0);
	while (atomic_load(&heard_ms) < CALL_MS) {
		const uint64_t near = atomic_load(&spoken_ms[0]), far = atomic_load(&spoken_ms[1]);

		call.t_ms = near < far ? near : far;
		line_drain_by(&call, 64, 64);
		atomic_store(&heard_ms, call.sent / 8);
		sched_yield();
	}
	for (size_t i = 0; i < 2; i++)
		CHECK_EQ(pthread_join(ids[i], NULL), 0);
	call.said[0] = call.said[1] = CALL_MS * 8;
	expect_all(&call, LSN_NEAR, 0, 0);
	expect_all(&call, LSN_FAR, 0, 0);
	CHECK_EQ(line_counters(&call).late[LSN_FAR], 0);

	call.cons->base = MAP_FAILED;
	line_close(&call);
}


/* -- playback, with kills --------------------------------------------------- */

#define PLAY_SAMPLES 400000u

struct player {
	struct lsn_arena *prod, *cons;
	uint32_t gen;
	_Atomic uint64_t killed; /* samples before this one must not be heard any more */
	_Atomic int done;
	uint64_t wrote;
};

static struct player pl;


static int16_t numbered(uint64_t n)
{
	return (int16_t)(n % 65536u - 32768u);
}


/* A 16-bit sample names its number only while fewer than 65536 can be meant. */
static void wait_for_the_reader(void)
{
	struct lsn_play_status st;

	while (!lsn_play_status(pl.cons, 0, pl.gen, &st) && st.written - st.played > 30000 * 24)
		sched_yield();
}


static void *write_and_kill(void *arg)
{
	int16_t pcm[500];
	uint64_t rnd = 7;
	uint32_t kick;

	while (pl.wrote < PLAY_SAMPLES) {
		const uint32_t want = (uint32_t)(1 + next_random(&rnd) % NELEMS(pcm));
		int64_t n;

		for (uint32_t i = 0; i < want; i++)
			pcm[i] = numbered(pl.wrote + i);
		n = lsn_play_write(pl.cons, 0, pl.gen, 8000, pcm, want, &kick);
		CHECK(n >= 0);
		pl.wrote += (uint64_t)n;
		wait_for_the_reader();
		if (next_random(&rnd) % 20 == 0) {
			CHECK_EQ(lsn_play_flush(pl.cons, 0, pl.gen), 0);
			atomic_store(&pl.killed, pl.wrote);
		}
	}
	atomic_store(&pl.done, 1);

	return arg;
}


/* Which sample of the count is `v`, if it is not before `from`? */
static uint64_t number_of(int16_t v, uint64_t from)
{
	return from + (uint16_t)((uint16_t)(v + 32768) - (uint16_t)(from % 65536u));
}


static void a_kill_is_exact_however_it_races(void)
{
	struct lsn_counters c;
	struct lsn_play_status st;
	uint64_t next = 0, heard = 0;
	pthread_t writer;
	int16_t pcm[160];

	make_pair(&pl.prod, &pl.cons, 1, 200);
	share_mapping(pl.prod, pl.cons);
	pl.gen = open_attached(pl.prod, pl.cons, 0, 8000, LSN_MONO, 0);
	writer = start(write_and_kill, NULL);
	for (;;) {
		const int done = atomic_load(&pl.done);
		const uint64_t killed = atomic_load(&pl.killed);
		uint32_t n;

		(void)lsn_play_rate(pl.prod, 0);
		n = lsn_play_read(pl.prod, 0, pcm, NELEMS(pcm));
		if (!n && done)
			break;
		for (uint32_t i = 0; i < n; i++) {
			const uint64_t number = number_of(pcm[i], next);

			CHECK(number >= killed);
			CHECK(i == 0 || number == next);
			next = number + 1;
		}
		heard += n;
		if (!n)
			sched_yield();
	}
	CHECK_EQ(pthread_join(writer, NULL), 0);
	CHECK_EQ(lsn_play_status(pl.cons, 0, pl.gen, &st), 0);
	CHECK_EQ(lsn_slot_counters(pl.prod, 0, &c), 0);
	CHECK_EQ(st.written, pl.wrote * 24);
	CHECK_EQ(st.played, st.written);
	CHECK_EQ(c.played_ticks, heard * 24);
	CHECK_EQ(c.played_ticks + c.flushed_ticks, st.written);
	CHECK(st.flushes > 0);
	free_shared(pl.prod, pl.cons);
}


/* -- wake-ups --------------------------------------------------------------- */

#define RINGS 300000u

struct bell {
	struct lsn_arena *prod, *cons;
	int fd;
	_Atomic uint32_t taken;
};

static struct bell bell;


static int wait_for_bell(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	uint64_t n;

	if (poll(&p, 1, WAIT_MS) != 1)
		return 0;
	CHECK_EQ(read(fd, &n, sizeof(n)), sizeof(n));

	return 1;
}


/* So that the two sides meet at other points of their ways each time. */
static void spin(uint64_t n)
{
	for (volatile uint64_t i = n; i; i--)
		;
}


static void ring_bell(int fd)
{
	const uint64_t one = 1;

	CHECK_EQ(write(fd, &one, sizeof(one)), sizeof(one));
}


/* Digits one by one; each only when the one before was taken, so none is woken for twice. */
static void *press_digits(void *arg)
{
	uint64_t rnd = 3;
	uint32_t worker;

	for (uint32_t n = 1; n <= RINGS; n++) {
		CHECK_EQ(lsn_digit(bell.prod, 0, T0, '1', 800, 0), 0);
		if (lsn_bell(bell.prod, 0, &worker)) {
			CHECK_EQ(worker, 5);
			ring_bell(bell.fd);
		}
		while (atomic_load(&bell.taken) < n)
			sched_yield();
		spin(next_random(&rnd) % 400);
	}

	return arg;
}


static void the_doorbell_never_loses_a_wake_up(void)
{
	struct lsn_item items[8];
	uint8_t pcm[640];
	pthread_t switch_side;
	uint64_t rnd = 4;
	uint32_t more;

	make_pair(&bell.prod, &bell.cons, 1, 200);
	share_mapping(bell.prod, bell.cons);
	bell.fd = eventfd(0, EFD_CLOEXEC);
	CHECK(bell.fd >= 0);
	open_attached(bell.prod, bell.cons, 0, 8000, LSN_MONO, 5);
	switch_side = start(press_digits, NULL);
	while (atomic_load(&bell.taken) < RINGS) {
		const uint32_t n = lsn_drain(bell.cons, T0, items, 8, pcm, sizeof(pcm), &more);

		atomic_fetch_add(&bell.taken, n);
		spin(next_random(&rnd) % 800);
		if (atomic_load(&bell.taken) < RINGS && lsn_arm(bell.cons, 5) == 0)
			CHECK(wait_for_bell(bell.fd));
	}
	CHECK_EQ(pthread_join(switch_side, NULL), 0);
	CHECK_EQ(close(bell.fd), 0);
	free_shared(bell.prod, bell.cons);
}


#define CHUNKS 100000u

/* Writes on and on; the switch may fall asleep between any two writes. */
static void *write_chunks(void *arg)
{
	const uint32_t gen = *(const uint32_t *)arg;
	const int16_t pcm[8] = {0};
	uint64_t rnd = 5;
	uint32_t kick;

	for (uint32_t n = 0; n < CHUNKS;) {
		const int64_t taken = lsn_play_write(bell.cons, 0, gen, 8000, pcm, 8, &kick);

		CHECK(taken >= 0);
		if (kick)
			ring_bell(bell.fd);
		if (taken)
			n++;
		else
			sched_yield();
		spin(next_random(&rnd) % 200);
	}

	return NULL;
}


static void a_kick_is_never_lost(void)
{
	uint64_t heard = 0;
	pthread_t writer;
	int16_t pcm[160];
	uint32_t gen;

	make_pair(&bell.prod, &bell.cons, 1, 200);
	share_mapping(bell.prod, bell.cons);
	bell.fd = eventfd(0, EFD_CLOEXEC);
	CHECK(bell.fd >= 0);
	gen = open_attached(bell.prod, bell.cons, 0, 8000, LSN_MONO, 0);
	writer = start(write_chunks, &gen);
	while (heard < CHUNKS * 8) {
		heard += lsn_play_read(bell.prod, 0, pcm, 160);
		if (heard < CHUNKS * 8 && !lsn_play_pending(bell.prod, 0))
			CHECK(wait_for_bell(bell.fd));
	}
	CHECK_EQ(pthread_join(writer, NULL), 0);
	CHECK_EQ(close(bell.fd), 0);
	free_shared(bell.prod, bell.cons);
}


/* -- the life of a slot ------------------------------------------------------ */

#define LIVES 1000u

static struct bell life;
static _Atomic uint32_t opened_gen;


/* Serves what is opened, until it ends, and gives it back. */
static void *serve(void *arg)
{
	struct lsn_item items[8];
	uint8_t pcm[8 * 320];
	uint32_t last = 0;

	for (uint32_t n = 0; n < LIVES; n++) {
		uint32_t gen, more, frames = 0;
		int ended = 0;

		while ((gen = atomic_load(&opened_gen)) == last)
			sched_yield();
		last = gen;
		CHECK_EQ(lsn_attach(life.cons, 0, gen, 0), 0);
		CHECK_EQ(lsn_flow(life.cons, 0, gen, 1), 0);
		while (!ended) {
			const uint32_t got = lsn_drain(life.cons, T0 + 60 * NS_PER_MS, items, 8, pcm,
			                               sizeof(pcm), &more);

			for (uint32_t i = 0; i < got; i++) {
				CHECK_EQ(items[i].gen, gen);
				frames += items[i].kind == LSN_AUDIO;
				ended |= items[i].kind == LSN_END;
			}
			sched_yield();
		}
		CHECK_EQ(frames, 3);
		CHECK_EQ(lsn_release(life.cons, 0, gen), 0);
	}

	return arg;
}


static void a_slot_is_used_again_and_again(void)
{
	const struct lsn_open o = {.rate = 8000, .mix = LSN_MONO, .worker = 0, .now_ns = T0};
	const int16_t pcm[160] = {0};
	pthread_t worker;

	make_pair(&life.prod, &life.cons, 1, 200);
	share_mapping(life.prod, life.cons);
	worker = start(serve, NULL);
	for (uint32_t n = 0; n < LIVES; n++) {
		struct lsn_info info;
		uint32_t gen;

		CHECK_EQ(lsn_slot_open(life.prod, 0, &o, &gen), 0);
		atomic_store(&opened_gen, gen);
		for (uint32_t ms = 20; ms <= 60; ms += 20)
			CHECK_EQ(lsn_capture(life.prod, 0, LSN_NEAR, T0 + ms * NS_PER_MS, pcm, 160), 0);
		CHECK_EQ(lsn_slot_end(life.prod, 0, T0 + 60 * NS_PER_MS), 0);
		do {
			sched_yield();
			CHECK_EQ(lsn_slot_info(life.prod, 0, &info), 0);
		} while (info.state != LSN_RELEASED);
		CHECK_EQ(lsn_slot_reclaim(life.prod, 0), 0);
	}
	CHECK_EQ(pthread_join(worker, NULL), 0);
	free_shared(life.prod, life.cons);
}


int main(void)
{
	RUN(a_ring_loses_and_tears_nothing);
	RUN(two_media_threads_and_a_worker_lose_nothing);
	RUN(a_kill_is_exact_however_it_races);
	RUN(the_doorbell_never_loses_a_wake_up);
	RUN(a_kick_is_never_lost);
	RUN(a_slot_is_used_again_and_again);

	return failures;
}

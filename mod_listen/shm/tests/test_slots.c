/**
 * @file test_slots.c  Arenas, and the life of a slot
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"


static void bad_configurations_are_refused(void)
{
	static const struct lsn_config bad[] = {
		{.slots = 0, .ring_ms = 1000},
		{.slots = LSN_SLOTS_MAX + 1, .ring_ms = 1000},
		{.slots = 1, .ring_ms = 199},
		{.slots = 1, .ring_ms = 60001},
	};
	struct lsn_arena *a;

	for (size_t i = 0; i < NELEMS(bad); i++)
		CHECK_EQ(lsn_arena_create(&a, &bad[i]), -EINVAL);
}


static void both_sides_see_one_arena(void)
{
	struct lsn_arena *prod, *cons;

	make_pair(&prod, &cons, 7, 250);
	CHECK_EQ(lsn_arena_slots(cons), 7);
	CHECK_EQ(lsn_arena_ring_ms(cons), 250);
	CHECK_EQ(lsn_arena_size(cons), lsn_arena_size(prod));
	CHECK(lsn_arena_size(prod) > 0);
	free_pair(prod, cons);
}


static void the_largest_arena_can_be_made(void)
{
	struct lsn_arena *prod, *cons;

	make_pair(&prod, &cons, LSN_SLOTS_MAX, 10000);
	open_attached(prod, cons, LSN_SLOTS_MAX - 1, 64000, LSN_STEREO, 63);
	free_pair(prod, cons);
}


/* The descriptor was given to the consumer: it must stay open after unmapping. */
static void the_consumers_descriptor_stays_open(void)
{
	const struct lsn_config cfg = {.slots = 1, .ring_ms = 200};
	struct lsn_arena *prod, *cons;
	int fd;

	CHECK_EQ(lsn_arena_create(&prod, &cfg), 0);
	fd = dup(lsn_arena_fd(prod));
	CHECK_EQ(lsn_arena_map(&cons, fd), 0);
	lsn_arena_free(cons);
	CHECK(fcntl(fd, F_GETFD) >= 0);
	CHECK_EQ(close(fd), 0);
	lsn_arena_free(prod);
}


static void nobody_can_shrink_the_arena(void)
{
	const struct lsn_config cfg = {.slots = 1, .ring_ms = 200};
	struct lsn_arena *prod;

	CHECK_EQ(lsn_arena_create(&prod, &cfg), 0);
	CHECK(ftruncate(lsn_arena_fd(prod), 0) < 0);
	CHECK(ftruncate(lsn_arena_fd(prod), (off_t)lsn_arena_size(prod) * 2) < 0);
	lsn_arena_free(prod);
}


static int memfd_of(const void *data, size_t bytes, off_t size, unsigned seals)
{
	const int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	CHECK(fd >= 0);
	CHECK_EQ(ftruncate(fd, size), 0);
	CHECK_EQ(pwrite(fd, data, bytes, 0), bytes);
	CHECK_EQ(fcntl(fd, F_ADD_SEALS, seals), 0);

	return fd;
}


static void what_is_not_an_arena_is_not_mapped(void)
{
	static const unsigned all = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
	const struct lsn_config cfg = {.slots = 1, .ring_ms = 200};
	struct lsn_arena *prod, *cons;
	uint8_t page[4096];
	off_t size;
	int fds[5];

	CHECK_EQ(lsn_arena_create(&prod, &cfg), 0);
	CHECK_EQ(pread(lsn_arena_fd(prod), page, sizeof(page), 0), sizeof(page));
	size = (off_t)lsn_arena_size(prod);
	lsn_arena_free(prod);

	/* A good copy: shows that what follows fails for the reason that it should. */
	fds[0] = memfd_of(page, sizeof(page), size, all);
	CHECK_EQ(lsn_arena_map(&cons, fds[0]), 0);
	lsn_arena_free(cons);

	fds[1] = memfd_of(page, sizeof(page), size, 0);
	CHECK_EQ(lsn_arena_map(&cons, fds[1]), -EPROTO);
	fds[2] = memfd_of(page, sizeof(page), size / 2, all);
	CHECK_EQ(lsn_arena_map(&cons, fds[2]), -EPROTO);
	fds[3] = memfd_of("", 1, 1, all);
	CHECK_EQ(lsn_arena_map(&cons, fds[3]), -EPROTO);
	memset(page, 0, sizeof(page));
	fds[4] = memfd_of(page, sizeof(page), size, all);
	CHECK_EQ(lsn_arena_map(&cons, fds[4]), -EPROTO);

	for (size_t i = 0; i < NELEMS(fds); i++)
		CHECK_EQ(close(fds[i]), 0);
	CHECK(lsn_arena_map(&cons, -1) < 0);
}


static void six_rates_are_good_and_no_others(void)
{
	for (size_t i = 0; i < NELEMS(RATES); i++)
		CHECK(lsn_rate_ok(RATES[i]));

	CHECK(!lsn_rate_ok(0));
	CHECK(!lsn_rate_ok(7999));
	CHECK(!lsn_rate_ok(11025));
	CHECK(!lsn_rate_ok(22050));
	CHECK(!lsn_rate_ok(44100));
	CHECK(!lsn_rate_ok(96000));
	CHECK(!lsn_rate_ok(UINT32_MAX));
}


static void bad_openings_are_refused(void)
{
	static const struct lsn_open bad[] = {
		{.rate = 44100, .mix = LSN_MONO, .worker = 0, .now_ns = T0},
		{.rate = 8000, .mix = 3, .worker = 0, .now_ns = T0},
		{.rate = 8000, .mix = LSN_MONO, .worker = LSN_WORKERS_MAX, .now_ns = T0},
	};
	const struct lsn_open good = {.rate = 8000, .mix = 0, .worker = 0, .now_ns = T0};
	struct lsn_arena *prod, *cons;
	uint32_t gen;

	make_pair(&prod, &cons, 2, 200);
	for (size_t i = 0; i < NELEMS(bad); i++)
		CHECK_EQ(lsn_slot_open(prod, 0, &bad[i], &gen), -EINVAL);
	CHECK_EQ(lsn_slot_open(prod, 2, &good, &gen), -EINVAL);
	CHECK_EQ(lsn_slot_open(prod, UINT32_MAX, &good, &gen), -EINVAL);
	CHECK_EQ(lsn_slot_open(prod, 0, &good, &gen), 0);
	CHECK_EQ(lsn_slot_open(prod, 0, &good, &gen), -EBUSY);
	free_pair(prod, cons);
}


static uint32_t state_of(const struct lsn_arena *a, uint32_t slot)
{
	struct lsn_info info;

	CHECK_EQ(lsn_slot_info(a, slot, &info), 0);

	return info.state;
}


static void a_slot_lives_and_is_used_again(void)
{
	struct lsn_arena *prod, *cons;
	struct lsn_item items[4];
	uint8_t pcm[4096];
	uint32_t gen, again, more;

	make_pair(&prod, &cons, 2, 200);
	CHECK_EQ(state_of(prod, 1), LSN_FREE);
	gen = open_attached(prod, cons, 1, 8000, LSN_MONO, 3);
	CHECK_EQ(state_of(prod, 1), LSN_LIVE);
	CHECK_EQ(lsn_slot_reclaim(prod, 1), -EBUSY);

	CHECK_EQ(lsn_slot_end(prod, 1, T0), 0);
	CHECK_EQ(state_of(prod, 1), LSN_ENDED);
	CHECK_EQ(lsn_drain(cons, T0, items, 4, pcm, sizeof(pcm), &more), 1);
	CHECK_EQ(items[0].kind, LSN_END);
	CHECK_EQ(items[0].slot, 1);
	CHECK_EQ(items[0].gen, gen);

	CHECK_EQ(lsn_release(cons, 1, gen), 0);
	CHECK_EQ(state_of(prod, 1), LSN_RELEASED);
	CHECK_EQ(lsn_slot_reclaim(prod, 1), 0);
	CHECK_EQ(state_of(prod, 1), LSN_FREE);

	again = open_attached(prod, cons, 1, 48000, LSN_MIXED, 3);
	CHECK(again != gen);
	free_pair(prod, cons);
}


static void info_tells_what_was_opened(void)
{
	struct lsn_arena *prod, *cons;
	struct lsn_info info;
	uint32_t gen;

	make_pair(&prod, &cons, 1, 200);
	gen = open_attached(prod, cons, 0, 24000, LSN_STEREO, 5);
	CHECK_EQ(lsn_slot_info(cons, 0, &info), 0);
	CHECK_EQ(info.state, LSN_LIVE);
	CHECK_EQ(info.gen, gen);
	CHECK_EQ(info.worker, 5);
	CHECK_EQ(info.rate, 24000);
	CHECK_EQ(info.mix, LSN_STEREO);
	CHECK_EQ(info.start_ns, T0);
	CHECK_EQ(info.end_ns, 0);

	CHECK_EQ(lsn_slot_end(prod, 0, T0 + 5 * NS_PER_S), 0);
	CHECK_EQ(lsn_slot_info(prod, 0, &info), 0);
	CHECK_EQ(info.end_ns, T0 + 5 * NS_PER_S);
	CHECK(lsn_slot_info(prod, 1, &info) < 0);
	free_pair(prod, cons);
}


/* Audio of one call must never reach another: all that is stale is refused. */
static void a_stale_generation_can_do_nothing(void)
{
	struct lsn_arena *prod, *cons;
	struct lsn_play_status st;
	const struct lsn_open o = {.rate = 8000, .mix = LSN_MONO, .worker = 0, .now_ns = T0};
	const int16_t pcm[160] = {0};
	uint32_t old, gen, kick;

	make_pair(&prod, &cons, 1, 200);
	old = open_attached(prod, cons, 0, 8000, LSN_MONO, 0);
	CHECK_EQ(lsn_slot_end(prod, 0, T0), 0);
	CHECK_EQ(lsn_release(cons, 0, old), 0);
	CHECK_EQ(lsn_slot_reclaim(prod, 0), 0);
	CHECK_EQ(lsn_slot_open(prod, 0, &o, &gen), 0);

	CHECK_EQ(lsn_attach(cons, 0, old, 0), -ESTALE);
	CHECK_EQ(lsn_attach(cons, 0, gen, 0), 0);
	CHECK_EQ(lsn_flow(cons, 0, old, 0), -ESTALE);
	CHECK_EQ(lsn_discard(cons, 0, old, T0), -ESTALE);
	CHECK_EQ(lsn_play_write(cons, 0, old, 8000, pcm, 160, &kick), -ESTALE);
	CHECK_EQ(lsn_play_flush(cons, 0, old), -ESTALE);
	CHECK_EQ(lsn_play_status(cons, 0, old, &st), -ESTALE);
	CHECK_EQ(lsn_detach(cons, 0, old), -ESTALE);
	CHECK_EQ(lsn_release(cons, 0, old), -ESTALE);
	CHECK_EQ(state_of(prod, 0), LSN_LIVE);
	free_pair(prod, cons);
}


static void only_the_assigned_worker_attaches(void)
{
	const struct lsn_open o = {.rate = 8000, .mix = 0, .worker = LSN_NO_WORKER, .now_ns = T0};
	struct lsn_arena *prod, *cons;
	uint32_t gen;

	make_pair(&prod, &cons, 1, 200);
	CHECK_EQ(lsn_slot_open(prod, 0, &o, &gen), 0);
	CHECK_EQ(lsn_attach(cons, 0, gen, 1), -ESTALE);
	CHECK_EQ(lsn_slot_assign(prod, 0, 1), 0);
	CHECK_EQ(lsn_attach(cons, 0, gen, 2), -ESTALE);
	CHECK_EQ(lsn_attach(cons, 0, gen, 1), 0);
	free_pair(prod, cons);
}


static void every_index_is_checked(void)
{
	struct lsn_arena *prod, *cons;
	struct lsn_counters c;
	struct lsn_play_status st;
	int16_t pcm[160] = {0};
	uint32_t worker, kick;

	make_pair(&prod, &cons, 1, 200);
	CHECK(lsn_slot_assign(prod, 1, 0) < 0);
	CHECK(lsn_slot_end(prod, 1, T0) < 0);
	CHECK(lsn_slot_reclaim(prod, 1) < 0);
	CHECK(lsn_slot_counters(prod, 1, &c) < 0);
	CHECK(lsn_capture(prod, 1, LSN_NEAR, T0, pcm, 160) < 0);
	CHECK(lsn_digit(prod, 1, T0, '1', 800, 0) < 0);
	CHECK_EQ(lsn_bell(prod, 1, &worker), 0);
	CHECK_EQ(lsn_play_rate(prod, 1), 0);
	CHECK_EQ(lsn_play_read(prod, 1, pcm, 160), 0);
	CHECK_EQ(lsn_play_pending(prod, 1), 0);
	CHECK(lsn_attach(cons, 1, 1, 0) < 0);
	CHECK(lsn_detach(cons, 1, 1) < 0);
	CHECK(lsn_release(cons, 1, 1) < 0);
	CHECK(lsn_flow(cons, 1, 1, 1) < 0);
	CHECK(lsn_discard(cons, 1, 1, T0) < 0);
	CHECK(lsn_play_write(cons, 1, 1, 8000, pcm, 160, &kick) < 0);
	CHECK(lsn_play_flush(cons, 1, 1) < 0);
	CHECK(lsn_play_status(cons, 1, 1, &st) < 0);
	free_pair(prod, cons);
}


int main(void)
{
	RUN(bad_configurations_are_refused);
	RUN(both_sides_see_one_arena);
	RUN(the_largest_arena_can_be_made);
	RUN(the_consumers_descriptor_stays_open);
	RUN(nobody_can_shrink_the_arena);
	RUN(what_is_not_an_arena_is_not_mapped);
	RUN(six_rates_are_good_and_no_others);
	RUN(bad_openings_are_refused);
	RUN(a_slot_lives_and_is_used_again);
	RUN(info_tells_what_was_opened);
	RUN(a_stale_generation_can_do_nothing);
	RUN(only_the_assigned_worker_attaches);
	RUN(every_index_is_checked);

	return failures;
}

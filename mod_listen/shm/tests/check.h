/**
 * @file check.h  What every test program of this directory shares
 *
 * A test is a function without arguments; main() runs them in order with
 * RUN() and returns failures. A failed CHECK prints the place and ends the test.
 */
#ifndef CHECK_H
#define CHECK_H

#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../shm.h"

#define CHECK(cond)                                                                   \
	do {                                                                              \
		if (!(cond)) {                                                                \
			fprintf(stderr, "%s:%d: %s: failed: %s\n", __FILE__, __LINE__, __func__,  \
			        #cond);                                                           \
			exit(1);                                                                  \
		}                                                                             \
	} while (0)

/* Compares two numbers and shows both. */
#define CHECK_EQ(a, b)                                                                \
	do {                                                                              \
		const int64_t a_ = (int64_t)(a), b_ = (int64_t)(b);                           \
		if (a_ != b_) {                                                               \
			fprintf(stderr, "%s:%d: %s: %s is %" PRId64 ", expected %s = %" PRId64    \
			        "\n", __FILE__, __LINE__, __func__, #a, a_, #b, b_);              \
			exit(1);                                                                  \
		}                                                                             \
	} while (0)

/* Each test in a process of its own: a crash of one does not hide the others. */
#define RUN(test) run(#test, test)

#define NELEMS(a) (sizeof(a) / sizeof((a)[0]))
#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S UINT64_C(1000000000)

/* The time at which tests begin. */
#define T0 (100 * NS_PER_S)

/* The clock of the tests: linked in place of the machine's (--wrap in the Makefile). */
static uint64_t test_clock_ns = T0;

uint64_t __wrap_lsn_now_ns(void);
uint64_t __wrap_lsn_now_ns(void)
{
	return test_clock_ns;
}

static int failures;

static const uint32_t RATES[] = {8000, 16000, 24000, 32000, 48000, 64000};


static inline void run(const char *name, void (*test)(void))
{
	int status = 1;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		test();
		exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status) {
		printf("    FAILED %s (status %#x)\n", name, (unsigned)status);
		failures = 1;
	} else {
		printf("    ok %s\n", name);
	}
}


/** Opens slot `slot` for worker `worker` at T0 and attaches to it, flow open. */
static inline uint32_t open_attached(struct lsn_arena *prod, struct lsn_arena *cons, uint32_t slot,
                                     uint32_t rate, uint32_t mix, uint32_t worker)
{
	const struct lsn_open o = {.rate = rate, .mix = mix, .worker = worker, .now_ns = T0};
	uint32_t gen = 0;

	CHECK_EQ(lsn_slot_open(prod, slot, &o, &gen), 0);
	CHECK_EQ(lsn_attach(cons, slot, gen, worker), 0);
	CHECK_EQ(lsn_flow(cons, slot, gen, 1), 0);

	return gen;
}


/** A pair of mappings of one arena, as the switch and a worker have them. */
static inline void make_pair(struct lsn_arena **prod, struct lsn_arena **cons, uint32_t slots,
                             uint32_t ring_ms)
{
	const struct lsn_config cfg = {.slots = slots, .ring_ms = ring_ms};

	CHECK_EQ(lsn_arena_create(prod, &cfg), 0);
	CHECK_EQ(lsn_arena_map(cons, lsn_arena_fd(*prod)), 0);
}


static inline void free_pair(struct lsn_arena *prod, struct lsn_arena *cons)
{
	lsn_arena_free(cons);
	lsn_arena_free(prod);
}


/** xorshift64*: the same numbers on every run. */
static inline uint64_t next_random(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;

	return *state * UINT64_C(0x2545f4914f6cdd1d);
}

#endif

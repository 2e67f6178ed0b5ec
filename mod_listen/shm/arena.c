/**
 * @file arena.c  Making, mapping and cutting up the shared memory
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "layout.h"

#define BYTE_ORDER_MARK 0x01020304u
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

_Static_assert(sizeof(struct lsn_slot) % LSN_PAGE == 0, "control blocks are whole pages");
_Static_assert(sizeof(struct lsn_header) <= LSN_PAGE, "the header fits its page");

static uint64_t round_page(uint64_t n)
{
	return (n + LSN_PAGE - 1) / LSN_PAGE * LSN_PAGE;
}

/* Bytes of a capture ring: ring_ms of audio in 10 ms records, the smallest
 * that a switch delivers in practice, and one large record for the padding. */
static uint32_t capture_bytes(uint32_t ring_ms, uint32_t rate)
{
	uint64_t records = ring_ms / 10u + 16u;

	return (uint32_t)round_page(records * lsn_record_size(rate / 100u * 2u));
}

static uint64_t bells_bytes(void)
{
	return round_page(sizeof(struct lsn_doorbell) * (uint64_t)LSN_WORKERS_MAX);
}

static void measure(struct lsn_arena *a, uint32_t slots, uint32_t ring_ms)
{
	uint64_t play_records = LSN_PLAY_MS / LSN_FRAME_MS + 1u;

	a->slots = slots;
	a->ring_ms = ring_ms;
	a->capture_max = capture_bytes(ring_ms, LSN_RATE_MAX);
	a->play_size =
		(uint32_t)round_page(play_records * lsn_record_size(lsn_frame_samples(LSN_RATE_MAX) * 2u));
	a->bells_off = LSN_PAGE;
	a->slots_off = a->bells_off + bells_bytes();
	a->data_off = a->slots_off + (uint64_t)slots * sizeof(struct lsn_slot);
	a->data_stride = 2u * (uint64_t)a->capture_max + a->play_size;
	a->size = a->data_off + (uint64_t)slots * a->data_stride;
}

static bool config_ok(uint32_t slots, uint32_t ring_ms)
{
	return slots >= 1 && slots <= LSN_SLOTS_MAX && ring_ms >= LSN_RING_MS_MIN &&
	       ring_ms <= LSN_RING_MS_MAX;
}

int lsn_arena_create(struct lsn_arena **ap, const struct lsn_config *cfg)
{
	struct lsn_arena *a;
	struct lsn_header *h;
	int err = 0;

	if (!ap || !cfg || !config_ok(cfg->slots, cfg->ring_ms))
		return -EINVAL;

	a = calloc(1, sizeof(*a));
	if (!a)
		return -ENOMEM;
	a->fd = -1;
	a->base = MAP_FAILED;
	measure(a, cfg->slots, cfg->ring_ms);

	a->producer = calloc(a->slots, sizeof(*a->producer));
	if (!a->producer) {
		err = -ENOMEM;
		goto out;
	}
	a->fd = memfd_create("mod_listen", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (a->fd < 0 || ftruncate(a->fd, (off_t)a->size) || fcntl(a->fd, F_ADD_SEALS, SEALS)) {
		err = -errno;
		goto out;
	}
	a->base = mmap(NULL, a->size, PROT_READ | PROT_WRITE, MAP_SHARED, a->fd, 0);
	if (a->base == MAP_FAILED) {
		err = -errno;
		goto out;
	}
	h = (struct lsn_header *)a->base;
	*h = (struct lsn_header){
		.magic = LSN_MAGIC,
		.abi_major = LSN_ABI_MAJOR,
		.abi_minor = LSN_ABI_MINOR,
		.layout = lsn_layout(),
		.slots = a->slots,
		.ring_ms = a->ring_ms,
		.byte_order = BYTE_ORDER_MARK,
	};
	for (uint32_t i = 0; i < a->slots; i++) {
		atomic_store_explicit(&lsn_slot_at(a, i)->worker, LSN_NO_WORKER, memory_order_relaxed);
		atomic_store_explicit(&lsn_slot_at(a, i)->reader, LSN_NO_WORKER, memory_order_relaxed);
	}

out:
	if (err)
		lsn_arena_free(a);
	else
		*ap = a;
	return err;
}

/* The file must be sealed: a peer that could shrink it would make us fault. */
static int check_file(struct lsn_arena *a, int fd)
{
	struct lsn_header h;
	struct stat st;
	int seals = fcntl(fd, F_GET_SEALS);

	if (seals < 0 || (seals & SEALS) != SEALS || fstat(fd, &st))
		return -EPROTO;
	if (pread(fd, &h, sizeof(h), 0) != (ssize_t)sizeof(h))
		return -EPROTO;
	if (h.magic != LSN_MAGIC || h.byte_order != BYTE_ORDER_MARK)
		return -EPROTO;
	if (h.abi_major != LSN_ABI_MAJOR || h.layout != lsn_layout())
		return -ENOTSUP;
	if (!config_ok(h.slots, h.ring_ms))
		return -EPROTO;
	measure(a, h.slots, h.ring_ms);
	return a->size == (uint64_t)st.st_size ? 0 : -EPROTO;
}

int lsn_arena_map(struct lsn_arena **ap, int fd)
{
	struct lsn_arena *a;
	int err;

	if (!ap || fd < 0)
		return -EINVAL;

	a = calloc(1, sizeof(*a));
	if (!a)
		return -ENOMEM;
	a->fd = -1;
	a->base = MAP_FAILED;

	err = check_file(a, fd);
	if (err)
		goto out;
	a->consumer = calloc(a->slots, sizeof(*a->consumer));
	a->attached = calloc(a->slots, sizeof(*a->attached));
	if (!a->consumer || !a->attached) {
		err = -ENOMEM;
		goto out;
	}
	a->base = mmap(NULL, a->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (a->base == MAP_FAILED)
		err = -errno;

out:
	if (err)
		lsn_arena_free(a);
	else
		*ap = a;
	return err;
}

void lsn_arena_free(struct lsn_arena *a)
{
	if (!a)
		return;
	if (a->base != MAP_FAILED)
		munmap(a->base, a->size);
	if (a->fd >= 0)
		close(a->fd);
	free(a->producer);
	free(a->consumer);
	free(a->attached);
	free(a);
}

int lsn_arena_fd(const struct lsn_arena *a)
{
	return a->fd;
}

uint64_t lsn_arena_size(const struct lsn_arena *a)
{
	return a->size;
}

uint32_t lsn_arena_slots(const struct lsn_arena *a)
{
	return a->slots;
}

uint32_t lsn_arena_ring_ms(const struct lsn_arena *a)
{
	return a->ring_ms;
}

uint64_t lsn_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* FNV-1a over the numbers that both builds must agree on. */
uint64_t lsn_layout(void)
{
	static const uint64_t facts[] = {
		sizeof(struct lsn_header),
		sizeof(struct lsn_slot),
		sizeof(struct lsn_record),
		sizeof(struct lsn_doorbell),
		offsetof(struct lsn_slot, capture),
		offsetof(struct lsn_slot, play),
		offsetof(struct lsn_slot, control),
		offsetof(struct lsn_slot, flush_to),
		offsetof(struct lsn_slot, played),
		offsetof(struct lsn_slot, control_data),
		LSN_TICKS_HZ,
		LSN_PLAY_MS,
		LSN_FLUSHES,
		LSN_WORKERS_MAX,
	};
	uint64_t hash = 0xcbf29ce484222325u;

	for (size_t i = 0; i < sizeof(facts) / sizeof(facts[0]); i++)
		hash = (hash ^ facts[i]) * 0x100000001b3u;
	return hash;
}

int lsn_rate_ok(uint32_t rate)
{
	return rate == 8000 || rate == 16000 || rate == 24000 || rate == 32000 || rate == 48000 ||
	       rate == 64000;
}

struct lsn_slot *lsn_slot_at(const struct lsn_arena *a, uint32_t slot)
{
	return (struct lsn_slot *)(void *)(a->base + a->slots_off) + slot;
}

struct lsn_doorbell *lsn_bell_at(const struct lsn_arena *a, uint32_t worker)
{
	return (struct lsn_doorbell *)(void *)(a->base + a->bells_off) + worker;
}

uint8_t *lsn_slot_data(const struct lsn_arena *a, uint32_t slot)
{
	return a->base + a->data_off + slot * a->data_stride;
}

struct lsn_ring lsn_capture_ring(const struct lsn_arena *a, uint32_t slot, uint32_t track,
                                 uint32_t rate)
{
	return (struct lsn_ring){
		.sh = &lsn_slot_at(a, slot)->capture[track],
		.data = lsn_slot_data(a, slot) + (uint64_t)track * a->capture_max,
		.size = capture_bytes(a->ring_ms, rate),
	};
}

struct lsn_ring lsn_play_ring(const struct lsn_arena *a, uint32_t slot)
{
	return (struct lsn_ring){
		.sh = &lsn_slot_at(a, slot)->play,
		.data = lsn_slot_data(a, slot) + 2u * (uint64_t)a->capture_max,
		.size = a->play_size,
	};
}

struct lsn_ring lsn_control_ring(const struct lsn_arena *a, uint32_t slot)
{
	struct lsn_slot *s = lsn_slot_at(a, slot);

	return (struct lsn_ring){
		.sh = &s->control,
		.data = s->control_data,
		.size = LSN_CONTROL_BYTES,
	};
}

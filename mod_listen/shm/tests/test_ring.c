/**
 * @file test_ring.c  The ring of records: order, wrapping, fullness, distrust
 */
#define _GNU_SOURCE
#include "../ring.h"
#include "check.h"

#define SIZE 4096u

static struct lsn_ring_shared shared;
static uint8_t data[SIZE];


static struct lsn_ring new_ring(void)
{
	memset(&shared, 0, sizeof(shared));
	memset(data, 0xaa, sizeof(data));

	return (struct lsn_ring){.sh = &shared, .data = data, .size = SIZE};
}


/* A record whose length and content follow from its number. */
static uint32_t payload_of(uint64_t n, uint8_t *buf)
{
	const uint32_t bytes = (uint32_t)(n * 7919u % 700u);

	for (uint32_t i = 0; i < bytes; i++)
		buf[i] = (uint8_t)(n + i);

	return bytes;
}


static int put_numbered(const struct lsn_ring *r, uint64_t *wpos, uint64_t n)
{
	uint8_t buf[700];
	const struct lsn_record rec = {
		.type = LSN_REC_AUDIO,
		.bytes = payload_of(n, buf),
		.pos = n,
	};

	return lsn_ring_put(r, wpos, &rec, buf);
}


static void expect_numbered(const struct lsn_ring *r, uint64_t *rpos, uint64_t n)
{
	struct lsn_record rec;
	const uint8_t *payload;
	uint8_t buf[700];

	CHECK_EQ(lsn_ring_peek(r, rpos, &rec, &payload), 1);
	CHECK_EQ(rec.type, LSN_REC_AUDIO);
	CHECK_EQ(rec.pos, n);
	CHECK_EQ(rec.bytes, payload_of(n, buf));
	CHECK_EQ(memcmp(payload, buf, rec.bytes), 0);
	*rpos += lsn_record_size(rec.bytes);
	lsn_ring_consume(r, *rpos);
}


static void an_empty_ring_has_nothing(void)
{
	const struct lsn_ring r = new_ring();
	struct lsn_record rec;
	const uint8_t *payload;
	uint64_t rpos = 0;

	CHECK_EQ(lsn_ring_peek(&r, &rpos, &rec, &payload), 0);
	CHECK_EQ(lsn_ring_used(&r, 0), 0);
}


/* Thousands of times round the buffer, with every fill level and length. */
static void records_come_out_as_they_went_in(void)
{
	const struct lsn_ring r = new_ring();
	uint64_t wpos = 0, rpos = 0, in = 0, out = 0, rnd = 1;

	while (out < 20000) {
		const uint64_t target = next_random(&rnd) % 8;

		for (uint64_t i = 0; i < target && !put_numbered(&r, &wpos, in); i++)
			in++;
		while (in - out > target / 2)
			expect_numbered(&r, &rpos, out++);
	}
	CHECK(wpos > 1000 * SIZE);
}


static void a_full_ring_refuses_the_newest(void)
{
	const struct lsn_ring r = new_ring();
	uint64_t wpos = 0, rpos = 0, in = 0, before;

	while (!put_numbered(&r, &wpos, in))
		in++;
	before = wpos;
	CHECK_EQ(put_numbered(&r, &wpos, in), -ENOBUFS);
	CHECK_EQ(wpos, before);
	for (uint64_t n = 0; n < in; n++)
		expect_numbered(&r, &rpos, n);
	CHECK_EQ(put_numbered(&r, &wpos, in), 0);
	expect_numbered(&r, &rpos, in);
}


static void a_ring_can_be_filled_to_the_last_byte(void)
{
	const struct lsn_ring r = new_ring();
	const struct lsn_record rec = {.type = LSN_REC_AUDIO, .bytes = SIZE - LSN_RECORD_ALIGN};
	static const uint8_t payload[SIZE];
	struct lsn_record got;
	const uint8_t *p;
	uint64_t wpos = 0, rpos = 0;

	CHECK_EQ(lsn_ring_put(&r, &wpos, &rec, payload), 0);
	CHECK_EQ(lsn_ring_used(&r, wpos), SIZE);
	CHECK_EQ(lsn_ring_put(&r, &wpos, &(struct lsn_record){.type = LSN_REC_AUDIO}, NULL), -ENOBUFS);
	CHECK_EQ(lsn_ring_peek(&r, &rpos, &got, &p), 1);
	CHECK_EQ(got.bytes, rec.bytes);
}


static void positions_go_on_past_32_bits(void)
{
	const struct lsn_ring r = new_ring();
	const uint64_t far_on = (UINT64_C(1) << 40) - SIZE;
	uint64_t wpos = far_on, rpos = far_on;

	atomic_store(&shared.wpos, far_on);
	atomic_store(&shared.rpos, far_on);
	for (uint64_t n = 0; n < 1000; n++) {
		CHECK_EQ(put_numbered(&r, &wpos, n), 0);
		expect_numbered(&r, &rpos, n);
	}
}


static void an_impossible_reader_is_noticed(void)
{
	const struct lsn_ring r = new_ring();
	uint64_t wpos = 0;

	CHECK_EQ(put_numbered(&r, &wpos, 1), 0);
	atomic_store(&shared.rpos, wpos + LSN_RECORD_ALIGN);
	CHECK_EQ(put_numbered(&r, &wpos, 2), -EBADMSG);
	CHECK_EQ(lsn_ring_used(&r, wpos), SIZE);
}


static void an_impossible_writer_is_noticed(void)
{
	const struct lsn_ring r = new_ring();
	static const uint64_t bad[] = {SIZE + 32, 1, 31, 33, UINT64_MAX, UINT64_MAX - 31};
	struct lsn_record rec;
	const uint8_t *payload;
	uint64_t rpos = 0;

	for (size_t i = 0; i < NELEMS(bad); i++) {
		atomic_store(&shared.wpos, bad[i]);
		CHECK_EQ(lsn_ring_peek(&r, &rpos, &rec, &payload), -EBADMSG);
		CHECK_EQ(rpos, 0);
	}
}


static void a_record_longer_than_what_was_written_is_noticed(void)
{
	const struct lsn_ring r = new_ring();
	static const uint32_t bad[] = {97, SIZE, SIZE - 31, UINT32_MAX, UINT32_MAX - 31, 0x80000000u};
	struct lsn_record rec = {.type = LSN_REC_AUDIO, .bytes = 96}, got;
	static const uint8_t payload[96];
	const uint8_t *p;
	uint64_t wpos = 0, rpos = 0;

	CHECK_EQ(lsn_ring_put(&r, &wpos, &rec, payload), 0);
	for (uint16_t type = LSN_REC_PAD; type <= LSN_REC_AUDIO; type++) {
		for (size_t i = 0; i < NELEMS(bad); i++) {
			rec.bytes = bad[i];
			rec.type = type;
			memcpy(data, &rec, sizeof(rec));
			rpos = 0;
			CHECK_EQ(lsn_ring_peek(&r, &rpos, &got, &p), -EBADMSG);
		}
	}
}


int main(void)
{
	RUN(an_empty_ring_has_nothing);
	RUN(records_come_out_as_they_went_in);
	RUN(a_full_ring_refuses_the_newest);
	RUN(a_ring_can_be_filled_to_the_last_byte);
	RUN(positions_go_on_past_32_bits);
	RUN(an_impossible_reader_is_noticed);
	RUN(an_impossible_writer_is_noticed);
	RUN(a_record_longer_than_what_was_written_is_noticed);

	return failures;
}

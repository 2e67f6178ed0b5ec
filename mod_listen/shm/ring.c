/**
 * @file ring.c  A single-producer single-consumer ring of records
 */
#include "ring.h"

#include <errno.h>
#include <string.h>

_Static_assert(sizeof(struct lsn_record) == LSN_RECORD_ALIGN, "a header is one unit of alignment");
_Static_assert(sizeof(struct lsn_ring_shared) == 2 * LSN_LINE, "each position has its own line");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "64-bit atomics must work across processes");

uint32_t lsn_record_size(uint32_t bytes)
{
	return LSN_RECORD_ALIGN + (bytes + LSN_RECORD_ALIGN - 1) / LSN_RECORD_ALIGN * LSN_RECORD_ALIGN;
}

static uint32_t offset_of(const struct lsn_ring *r, uint64_t pos)
{
	return (uint32_t)(pos % r->size);
}

uint32_t lsn_ring_used(const struct lsn_ring *r, uint64_t wpos)
{
	/* acquire pairs with the release in lsn_ring_consume: the consumer has
	 * finished reading what we are about to overwrite */
	uint64_t used = wpos - atomic_load_explicit(&r->sh->rpos, memory_order_acquire);

	return used > r->size ? r->size : (uint32_t)used;
}

int lsn_ring_put(const struct lsn_ring *r, uint64_t *wpos, const struct lsn_record *rec,
                 const void *payload)
{
	uint64_t used = *wpos - atomic_load_explicit(&r->sh->rpos, memory_order_acquire);
	uint32_t need = lsn_record_size(rec->bytes);
	uint32_t off = offset_of(r, *wpos);
	uint32_t contiguous = r->size - off;
	uint32_t pad = contiguous < need ? contiguous : 0;

	if (used > r->size)
		return -EBADMSG;
	if ((uint64_t)need + pad > r->size - used)
		return -ENOBUFS;

	if (pad) {
		struct lsn_record filler = {
			.bytes = pad - LSN_RECORD_ALIGN,
			.type = LSN_REC_PAD,
		};

		memcpy(r->data + off, &filler, sizeof(filler));
		off = 0;
	}
	memcpy(r->data + off, rec, sizeof(*rec));
	if (rec->bytes)
		memcpy(r->data + off + LSN_RECORD_ALIGN, payload, rec->bytes);

	*wpos += (uint64_t)need + pad;
	/* release pairs with the acquire in lsn_ring_wpos: header and payload are
	 * visible before the position that covers them */
	atomic_store_explicit(&r->sh->wpos, *wpos, memory_order_release);
	return 0;
}

uint64_t lsn_ring_wpos(const struct lsn_ring *r)
{
	return atomic_load_explicit(&r->sh->wpos, memory_order_acquire);
}

int lsn_ring_peek(const struct lsn_ring *r, uint64_t *at, struct lsn_record *rec,
                  const uint8_t **payload)
{
	uint64_t wpos = lsn_ring_wpos(r);

	for (;;) {
		uint64_t avail = wpos - *at;
		uint32_t off = offset_of(r, *at);
		uint32_t limit = r->size - off;

		if (!avail)
			return 0;
		if (avail > r->size || avail % LSN_RECORD_ALIGN || off % LSN_RECORD_ALIGN)
			return -EBADMSG;
		if (limit > avail)
			limit = (uint32_t)avail;

		memcpy(rec, r->data + off, sizeof(*rec));
		/* the first test keeps lsn_record_size from overflowing */
		if (rec->bytes > limit || lsn_record_size(rec->bytes) > limit)
			return -EBADMSG;
		if (rec->type != LSN_REC_PAD) {
			*payload = r->data + off + LSN_RECORD_ALIGN;
			return 1;
		}
		*at += lsn_record_size(rec->bytes);
	}
}

void lsn_ring_consume(const struct lsn_ring *r, uint64_t rpos)
{
	atomic_store_explicit(&r->sh->rpos, rpos, memory_order_release);
}

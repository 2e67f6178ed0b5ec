/**
 * @file player.h  From the playback ring to samples at the channel's rate
 */
#ifndef LISTEN_PLAYER_H
#define LISTEN_PLAYER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "audio.h"
#include "shm/shm.h"

/* More than one block of the greatest upsampling, 8 to 64 kHz, leaves behind. */
#define CARRY_MAX 64u

struct player {
	struct converter converter;
	uint32_t rate;       /* of the clip that is playing; 0 = none yet */
	uint32_t out_rate;   /* of the channel */
	uint32_t skip;       /* samples made that are still to be left out */
	uint32_t tail;       /* zeros, at `rate`, still to follow the clip */
	atomic_bool sounding; /* something of a clip is still to be heard */
	uint64_t flushed;    /* lsn_counters.flushed_ticks that has been acted on */
	int16_t carry[CARRY_MAX];
	uint32_t carry_n;
	int16_t out[FRAME_MAX];
};

bool player_pull(struct player *pl, struct lsn_arena *a, uint32_t slot, uint32_t rate, uint32_t n);
bool player_pending(const struct player *pl, const struct lsn_arena *a, uint32_t slot);
void player_close(struct player *pl);

#endif

/**
 * @file player.c  From the playback ring to samples at the channel's rate
 *
 * The channel asks for a frame, and as many samples are read as that takes: a
 * block is ceil(missing × clip rate / channel rate) samples, and what comes out
 * beyond the frame, less than one input sample's worth, is carried over. So
 * nothing is lost or doubled at any ratio, and the read position is never more
 * than the resampler's few milliseconds ahead of what is heard.
 */
#include <string.h>

#include "player.h"

/* Longer than the resampler's filter at any of the rates: 80 taps of 8 kHz. */
#define FILTER_MS 10u
/* Half the filter that the resampler has at quality 5 of audio.c, in samples of
 * the lower of the two rates: by so much its output is late. */
#define HALF_FILTER 40u

/* What comes out late is left out at the beginning of a clip and pushed out by
 * zeros at its end. So a clip is as long as it is, and the next one, at another
 * rate, begins where it ends. */
static uint32_t late_in(const struct player *pl)
{
	if (pl->rate == pl->out_rate)
		return 0; /* no filter */
	return pl->rate <= pl->out_rate ? HALF_FILTER : HALF_FILTER * pl->rate / pl->out_rate;
}

static void begin_anew(struct player *pl)
{
	pl->tail = 0;
	pl->skip = pl->rate ? late_in(pl) * pl->out_rate / pl->rate : 0;
}

static void push(struct player *pl, uint32_t *done, uint32_t n, const int16_t *pcm, uint32_t got)
{
	uint32_t skip = pl->skip < got ? pl->skip : got;
	uint32_t direct, rest;

	pl->skip -= skip;
	pcm += skip;
	got -= skip;
	direct = got < n - *done ? got : n - *done;
	rest = got - direct;

	memcpy(pl->out + *done, pcm, (size_t)direct * sizeof(*pcm));
	*done += direct;
	rest = rest < CARRY_MAX ? rest : CARRY_MAX;
	memcpy(pl->carry, pcm + direct, (size_t)rest * sizeof(*pcm));
	pl->carry_n = rest;
}

static void take_carry(struct player *pl, uint32_t *done, uint32_t n)
{
	uint32_t take = pl->carry_n < n ? pl->carry_n : n;

	memcpy(pl->out, pl->carry, (size_t)take * sizeof(*pl->carry));
	memmove(pl->carry, pl->carry + take, (size_t)(pl->carry_n - take) * sizeof(*pl->carry));
	pl->carry_n -= take;
	*done = take;
}

/* Samples of the clip that `missing` samples of the channel take. */
static uint32_t needed(const struct player *pl, uint32_t missing)
{
	uint64_t wanted = (uint64_t)missing + pl->skip;
	uint64_t n = (wanted * pl->rate + pl->out_rate - 1) / pl->out_rate;

	return n < CONVERT_MAX ? (uint32_t)n : CONVERT_MAX;
}

/* What was in the filter must not be heard: zeros push it out unheard. */
static void forget(struct player *pl)
{
	int16_t zeros[LSN_RATE_MAX / 1000u * FILTER_MS] = {0};
	uint32_t made;

	pl->carry_n = 0;
	if (pl->rate)
		(void)converter_run(&pl->converter, pl->rate, pl->out_rate, zeros,
		                    pl->rate / 1000u * FILTER_MS, &made);
	begin_anew(pl);
}

/* Carries out a flush that the worker asked for; returns the next clip's rate. */
static uint32_t next_rate(struct player *pl, struct lsn_arena *a, uint32_t slot)
{
	uint32_t rate = lsn_play_rate(a, slot);
	struct lsn_counters c;

	if (!lsn_slot_counters(a, slot, &c) && c.flushed_ticks != pl->flushed) {
		pl->flushed = c.flushed_ticks;
		forget(pl);
	}
	return rate;
}

static uint32_t read_clip(struct player *pl, struct lsn_arena *a, uint32_t slot, int16_t *pcm,
                          uint32_t want)
{
	uint32_t n = lsn_play_read(a, slot, pcm, want);

	if (n)
		pl->tail = late_in(pl);
	return n;
}

static uint32_t read_tail(struct player *pl, int16_t *pcm, uint32_t want)
{
	uint32_t n = pl->tail < want ? pl->tail : want;

	memset(pcm, 0, (size_t)n * sizeof(*pcm));
	pl->tail -= n;
	return n;
}

/* One block: of the clip, or of the tail of the one before. False at the end. */
static bool block(struct player *pl, struct lsn_arena *a, uint32_t slot, uint32_t *done, uint32_t n)
{
	uint32_t rate = next_rate(pl, a, slot);
	int16_t pcm[CONVERT_MAX];
	const int16_t *made;
	uint32_t got, made_n;
	bool clip;

	if (rate && rate != pl->rate && !pl->tail) {
		pl->rate = rate;
		begin_anew(pl);
	}
	if (!pl->rate)
		return false;
	clip = rate == pl->rate;
	got = clip ? read_clip(pl, a, slot, pcm, needed(pl, n - *done))
	           : read_tail(pl, pcm, needed(pl, n - *done));
	if (!got)
		return false;
	made = converter_run(&pl->converter, pl->rate, pl->out_rate, pcm, got, &made_n);
	if (made)
		push(pl, done, n, made, made_n);
	if (!clip && !pl->tail)
		begin_anew(pl);
	return true;
}

/**
 * Fills pl->out with what is to be heard next, zeros where there is nothing.
 * Called by whoever writes to the channel, one at a time.
 *
 * @param pl    Player
 * @param a     Arena
 * @param slot  Slot of the listen
 * @param rate  Rate of the channel, Hz
 * @param n     Samples wanted, at most FRAME_MAX
 *
 * @return true if there is anything but silence in it
 */
bool player_pull(struct player *pl, struct lsn_arena *a, uint32_t slot, uint32_t rate, uint32_t n)
{
	uint32_t done = 0;

	if (rate != pl->out_rate) {
		pl->out_rate = rate;
		pl->carry_n = 0;
		begin_anew(pl);
	}
	(void)next_rate(pl, a, slot);
	take_carry(pl, &done, n);
	while (done < n && block(pl, a, slot, &done, n))
		continue;
	memset(pl->out + done, 0, (size_t)(n - done) * sizeof(*pl->out));
	atomic_store_explicit(&pl->sounding, pl->tail || pl->carry_n, memory_order_relaxed);
	return done > 0;
}

/**
 * Whether something waits to be heard; any thread may ask.
 *
 * @param pl    Player
 * @param a     Arena
 * @param slot  Slot of the listen
 *
 * @return true if so
 */
bool player_pending(const struct player *pl, const struct lsn_arena *a, uint32_t slot)
{
	return lsn_play_pending(a, slot) || atomic_load_explicit(&pl->sounding, memory_order_relaxed);
}

/**
 * Frees what a player holds.
 *
 * @param pl  Player
 */
void player_close(struct player *pl)
{
	converter_close(&pl->converter);
}

/**
 * @file media.c  What happens in the media threads
 *
 * Nothing here waits, logs, fires events or reads variables; memory is
 * allocated only when a rate changes and a resampler is remade.
 *
 * READ and WRITE callbacks of a channel run at the same time in different
 * threads, but each side is serialised by the core. So each side may be the one
 * writer of its capture rings, and the writing side the one reader of the
 * playback rings.
 */
#include <string.h>

#include "media.h"

/* Keeps the encoder in use for a while after the last clip: switching it off
 * and on between the words of a bot would be heard with some codecs. */
#define HANGOVER_NS 1000000000u

struct format {
	uint32_t rate;
	uint32_t channels;
};

static _Thread_local bool i_am_writer;

/**
 * Says whether the calling thread is an idle writer, whose frames do not count
 * as somebody writing.
 *
 * @param yes  true if so
 */
void media_i_am_writer(bool yes)
{
	i_am_writer = yes;
}

/* Audio in the read bug has the wire codec's rate, but the channels of the
 * codec on top, and the label that the core puts on it may be wrong. */
static struct format read_format(switch_core_session_t *session)
{
	switch_codec_implementation_t real, top;

	switch_core_session_get_real_read_impl(session, &real);
	switch_core_session_get_read_impl(session, &top);
	return (struct format){real.actual_samples_per_second, top.number_of_channels};
}

static struct format write_format(switch_core_session_t *session)
{
	switch_codec_implementation_t impl;

	switch_core_session_get_write_impl(session, &impl);
	return (struct format){impl.actual_samples_per_second, impl.number_of_channels};
}

static void capture(struct listen *l, enum lsn_track track, uint32_t rate, int16_t *pcm, uint32_t n)
{
	struct converter *cv = track == LSN_NEAR ? &l->near : &l->far;
	uint64_t now_ns = lsn_now_ns();
	uint32_t made_n;
	const int16_t *made = converter_run(cv, rate, l->rate, pcm, n, &made_n);

	if (!made || !made_n)
		return;
	(void)lsn_capture(l->arena, l->slot, track, now_ns, made, made_n);
	workers_ring(l->arena, l->slot);
}

static bool wants(const struct listen *l, enum lsn_track track)
{
	return track == LSN_NEAR || listen_wants_far(l);
}

static void capture_all(struct tap *tap, enum lsn_track track, uint32_t rate, int16_t *pcm,
                        uint32_t n)
{
	for (uint32_t i = 0; i < TAP_PLACES; i++) {
		struct listen *l = tap_at(tap, i);

		if (l && wants(l, track))
			capture(l, track, rate, pcm, n);
	}
}

/* Hands all that the bug has gathered to the listens. */
static void drain(struct tap *tap, switch_media_bug_t *bug, enum lsn_track track, struct format fmt)
{
	uint8_t data[SWITCH_RECOMMENDED_BUFFER_SIZE * 2];
	switch_frame_t frame = {.data = data, .buflen = sizeof(data)};

	/* SWITCH_TRUE: with one direction only, SWITCH_FALSE would make up audio for ever */
	while (switch_core_media_bug_read(bug, &frame, SWITCH_TRUE) == SWITCH_STATUS_SUCCESS) {
		uint32_t samples = frame.datalen / 2u;

		samples = audio_downmix(frame.data, samples < FRAME_MAX ? samples : FRAME_MAX,
		                        fmt.channels);
		capture_all(tap, track, fmt.rate, frame.data, samples);
	}
}

/**
 * Takes what was read from the channel.
 *
 * @param tap  Tap
 * @param bug  Its read bug
 */
void media_read(struct tap *tap, switch_media_bug_t *bug)
{
	tap_enter(tap);
	drain(tap, bug, LSN_NEAR, read_format(switch_core_media_bug_get_session(bug)));
	tap_exit(tap);
}

static bool anyone_wants_far(struct tap *tap)
{
	for (uint32_t i = 0; i < TAP_PLACES; i++) {
		struct listen *l = tap_at(tap, i);

		if (l && listen_wants_far(l))
			return true;
	}
	return false;
}

/* The core throws audio away when a frame is longer than two of the channel's. */
static bool too_long(switch_media_bug_t *bug)
{
	switch_codec_implementation_t impl;
	switch_size_t read = 0, written = 0;

	switch_core_session_get_read_impl(switch_core_media_bug_get_session(bug), &impl);
	switch_core_media_bug_inuse(bug, &read, &written);
	return written > (switch_size_t)impl.decoded_bytes_per_packet * 2u;
}

/**
 * Takes what is being written to the channel, or has the core ask media_replace
 * for this frame, if there is something to play.
 *
 * @param tap  Tap
 * @param bug  Its write bug
 */
void media_write(struct tap *tap, switch_media_bug_t *bug)
{
	uint64_t now_ns = lsn_now_ns();
	bool far, replace;

	if (!i_am_writer)
		atomic_store_explicit(&tap->written_ns, now_ns, memory_order_relaxed);
	replace = tap_pending(tap) || (tap->played_ns && now_ns < tap->played_ns + HANGOVER_NS);

	tap_enter(tap);
	far = anyone_wants_far(tap);
	replace |= far && too_long(bug);
	if (!replace && far)
		drain(tap, bug, LSN_FAR, write_format(switch_core_media_bug_get_session(bug)));
	else
		switch_core_media_bug_flush(bug);
	tap_exit(tap);

	/* The core looks at the flag right after this callback. */
	if (replace)
		switch_core_media_bug_set_flag(bug, SMBF_WRITE_REPLACE);
	else
		switch_core_media_bug_clear_flag(bug, SMBF_WRITE_REPLACE);
}

/* Adds up what all listens play; what each plays stays in its player. */
static bool play_all(struct tap *tap, uint32_t rate, int32_t *total, uint32_t n)
{
	bool heard = false;

	for (uint32_t i = 0; i < TAP_PLACES; i++) {
		struct listen *l = tap_at(tap, i);

		if (!l || !l->playback)
			continue;
		l->heard = player_pull(&l->player, l->arena, l->slot, rate, n);
		for (uint32_t k = 0; l->heard && k < n; k++)
			total[k] += l->player.out[k];
		heard |= l->heard;
	}
	return heard;
}

/* The far track: what the far end says and what the other listens play. */
static void capture_far(struct tap *tap, uint32_t rate, const int16_t *base, const int32_t *total,
                        uint32_t n)
{
	int16_t pcm[FRAME_MAX];

	for (uint32_t i = 0; i < TAP_PLACES; i++) {
		struct listen *l = tap_at(tap, i);
		bool without;

		if (!l || !listen_wants_far(l))
			continue;
		without = l->playback && l->heard && !l->include_playback;
		for (uint32_t k = 0; k < n; k++)
			pcm[k] = audio_clip(base[k] + total[k] - (without ? l->player.out[k] : 0));
		capture(l, LSN_FAR, rate, pcm, n);
	}
}

static void mix_in(int16_t *pcm, uint32_t channels, const int32_t *total, uint32_t n)
{
	for (uint32_t k = 0; k < n; k++) {
		for (uint32_t c = 0; c < channels; c++)
			pcm[k * channels + c] = audio_clip(pcm[k * channels + c] + total[k]);
	}
}

/**
 * Mixes playback into the frame that is being written.
 *
 * @param tap  Tap
 * @param bug  Its write bug
 */
void media_replace(struct tap *tap, switch_media_bug_t *bug)
{
	switch_frame_t *frame = switch_core_media_bug_get_write_replace_frame(bug);
	struct format fmt = write_format(switch_core_media_bug_get_session(bug));
	uint32_t samples = frame ? frame->datalen / 2u : 0, n;
	int32_t total[FRAME_MAX];
	int16_t base[FRAME_MAX];

	if (!fmt.channels)
		fmt.channels = 1;
	if (!samples || samples > FRAME_MAX || !fmt.rate)
		return;
	memcpy(base, frame->data, (size_t)samples * sizeof(*base));
	n = audio_downmix(base, samples, fmt.channels);
	memset(total, 0, (size_t)n * sizeof(*total));

	tap_enter(tap);
	if (play_all(tap, fmt.rate, total, n))
		tap->played_ns = lsn_now_ns();
	capture_far(tap, fmt.rate, base, total, n);
	tap_exit(tap);

	mix_in(frame->data, fmt.channels, total, n);
	switch_core_media_bug_set_write_replace_frame(bug, frame);
}

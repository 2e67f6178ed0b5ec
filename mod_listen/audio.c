/**
 * @file audio.c  Resampling, downmix and mixing of 16-bit samples
 */
#include <stdbool.h>

#include "audio.h"

/* Speex quality: 80 taps, pass band to 0.92 of the lower rate's half. */
#define QUALITY 5

static bool prepare(struct converter *cv, uint32_t from_hz, uint32_t to_hz)
{
	uint64_t most;

	if (cv->from_hz == from_hz && cv->to_hz == to_hz)
		return cv->resampler != NULL;
	converter_close(cv);
	cv->from_hz = from_hz;
	cv->to_hz = to_hz;
	/* The core makes the output buffer for just as many samples as the ratio
	 * says; a few more, and no input is left over for want of room. */
	most = CONVERT_MAX + (uint64_t)16 * from_hz / to_hz + 16;
	return switch_resample_create(&cv->resampler, from_hz, to_hz, (uint32_t)most, QUALITY, 1) ==
	       SWITCH_STATUS_SUCCESS;
}

/**
 * Converts samples from one rate to another. The resampler is remade when a
 * rate differs from that of the last call; that is the only time at which this
 * allocates.
 *
 * @param cv       Converter, zeroed before its first use
 * @param from_hz  Rate of the samples given
 * @param to_hz    Rate wanted
 * @param pcm      Samples, mono
 * @param n        How many, at most CONVERT_MAX
 * @param out_n    Number of samples made; 0 if the rates cannot be converted
 *
 * @return The samples, valid until the next call; `pcm` itself if the rates are equal
 */
const int16_t *converter_run(struct converter *cv, uint32_t from_hz, uint32_t to_hz, int16_t *pcm,
                             uint32_t n, uint32_t *out_n)
{
	*out_n = 0;
	if (from_hz == to_hz) {
		*out_n = n;
		return pcm;
	}
	if (!from_hz || !to_hz || n > CONVERT_MAX || !prepare(cv, from_hz, to_hz))
		return NULL;
	*out_n = switch_resample_process(cv->resampler, pcm, n);
	return cv->resampler->to;
}

/**
 * Frees what a converter holds; it can be used again.
 *
 * @param cv  Converter
 */
void converter_close(struct converter *cv)
{
	switch_resample_destroy(&cv->resampler);
	cv->from_hz = cv->to_hz = 0;
}

/**
 * Makes one channel of several, in place, by their mean.
 *
 * @param pcm       Samples, interleaved
 * @param n         Samples, all channels together
 * @param channels  Number of channels
 *
 * @return Samples of the one channel
 */
uint32_t audio_downmix(int16_t *pcm, uint32_t n, uint32_t channels)
{
	if (channels < 2)
		return n;
	n /= channels;
	for (uint32_t i = 0; i < n; i++) {
		int32_t sum = 0;

		for (uint32_t c = 0; c < channels; c++)
			sum += pcm[i * channels + c];
		pcm[i] = (int16_t)(sum / (int32_t)channels);
	}
	return n;
}

/**
 * @param v  Sum of samples
 *
 * @return The nearest sample
 */
int16_t audio_clip(int32_t v)
{
	return (int16_t)(v > INT16_MAX ? INT16_MAX : v < INT16_MIN ? INT16_MIN : v);
}

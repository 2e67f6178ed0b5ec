/**
 * @file audio.h  Resampling, downmix and mixing of 16-bit samples
 */
#ifndef LISTEN_AUDIO_H
#define LISTEN_AUDIO_H

#include <stdint.h>

#include <switch.h>

/* Most samples, all channels together, that a frame of the core can hold. */
#define FRAME_MAX (SWITCH_RECOMMENDED_BUFFER_SIZE / 2u)

/* Most samples that go into a converter at once. */
#define CONVERT_MAX FRAME_MAX

struct converter {
	switch_audio_resampler_t *resampler;
	uint32_t from_hz;
	uint32_t to_hz;
};

const int16_t *converter_run(struct converter *cv, uint32_t from_hz, uint32_t to_hz, int16_t *pcm,
                             uint32_t n, uint32_t *out_n);
void converter_close(struct converter *cv);

uint32_t audio_downmix(int16_t *pcm, uint32_t n, uint32_t channels);
int16_t audio_clip(int32_t v);

#endif

/**
 * @file carrier.h  Silent frames for playback to be mixed into
 */
#ifndef LISTEN_CARRIER_H
#define LISTEN_CARRIER_H

#include <stdbool.h>

#include <switch.h>

struct carrier {
	switch_codec_t codec;
	switch_frame_t frame;
	uint32_t rate;
	uint32_t channels;
	int frame_us;
	uint8_t data[SWITCH_RECOMMENDED_BUFFER_SIZE];
};

bool carrier_prepare(struct carrier *c, switch_core_session_t *session);
switch_status_t carrier_write(struct carrier *c, switch_core_session_t *session);
void carrier_close(struct carrier *c);

#endif

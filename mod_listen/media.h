/**
 * @file media.h  What happens in the media threads
 */
#ifndef LISTEN_MEDIA_H
#define LISTEN_MEDIA_H

#include "tap.h"

void media_read(struct tap *tap, switch_media_bug_t *bug);
void media_write(struct tap *tap, switch_media_bug_t *bug);
void media_replace(struct tap *tap, switch_media_bug_t *bug);

void media_i_am_writer(bool yes);

#endif

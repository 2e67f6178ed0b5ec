/**
 * @file digits.h  DTMF of a channel, for all its listens
 */
#ifndef LISTEN_DIGITS_H
#define LISTEN_DIGITS_H

#include <switch.h>

void digits_hook(switch_core_session_t *session);
void digits_unhook(switch_core_session_t *session);

#endif

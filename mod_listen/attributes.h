/**
 * @file attributes.h  What is known of a call
 */
#ifndef LISTEN_ATTRIBUTES_H
#define LISTEN_ATTRIBUTES_H

#include <switch.h>

char *attributes_of(switch_core_session_t *session);

#endif

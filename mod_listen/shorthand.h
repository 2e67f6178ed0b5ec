/**
 * @file shorthand.h  `<url> [key=value …]` as JSON
 */
#ifndef LISTEN_SHORTHAND_H
#define LISTEN_SHORTHAND_H

#include <switch.h>

#include "reason.h"

cJSON *shorthand_parse(const char *text, struct refusal *refusal);

#endif

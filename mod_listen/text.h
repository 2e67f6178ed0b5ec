/**
 * @file text.h  Checks on text that comes from outside
 */
#ifndef LISTEN_TEXT_H
#define LISTEN_TEXT_H

#include <stdbool.h>
#include <stddef.h>

bool text_utf8_ok(const char *s);
bool text_label_ok(const char *s, size_t max);
char *text_one_line(const char *s);

#endif

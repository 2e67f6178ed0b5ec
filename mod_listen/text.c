/**
 * @file text.c  Checks on text that comes from outside
 */
#include <stdint.h>
#include <string.h>

#include <switch.h>

#include "text.h"

/* Bytes of the well-formed UTF-8 sequence at `s`, or 0. */
static size_t sequence(const unsigned char *s)
{
	uint32_t code;
	size_t n;

	if (s[0] < 0x80)
		return 1;
	n = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
	if (s[0] < 0xc2 || s[0] > 0xf4)
		return 0;
	code = s[0] & (0xffu >> (n + 1));
	for (size_t i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		code = code << 6 | (s[i] & 0x3fu);
	}
	if ((n == 3 && code < 0x800) || (n == 4 && code < 0x10000) || code > 0x10ffff)
		return 0;
	return code >= 0xd800 && code <= 0xdfff ? 0 : n;
}

/**
 * Checks that a text is UTF-8, so that a worker can decode what holds it.
 *
 * @param s  Text
 *
 * @return true if it is well-formed
 */
bool text_utf8_ok(const char *s)
{
	const unsigned char *p = (const unsigned char *)s;

	while (*p) {
		size_t n = sequence(p);

		if (!n)
			return false;
		p += n;
	}
	return true;
}

/**
 * Checks a label, such as the name of a listen or of a worker.
 *
 * @param s    Text
 * @param max  Most characters it may have
 *
 * @return true if it is 1 … max characters of A-Z a-z 0-9 . _ -
 */
bool text_label_ok(const char *s, size_t max)
{
	size_t n = strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-");

	return n && n <= max && !s[n];
}

/**
 * Makes a text fit for an event header or JSON: one line of UTF-8. Control
 * characters become spaces, bytes that are not UTF-8 question marks.
 *
 * @param s  Text, or NULL
 *
 * @return The text, to be freed, or NULL for NULL
 */
char *text_one_line(const char *s)
{
	unsigned char *copy;
	size_t n;

	if (!s)
		return NULL;
	copy = (unsigned char *)strdup(s);
	switch_assert(copy);
	for (unsigned char *p = copy; *p; p += n ? n : 1) {
		n = sequence(p);
		if (!n)
			*p = '?';
		else if (*p < 0x20 || *p == 0x7f)
			*p = ' ';
	}
	return (char *)copy;
}

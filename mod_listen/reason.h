/**
 * @file reason.h  Why a listen ended, or did not begin
 */
#ifndef LISTEN_REASON_H
#define LISTEN_REASON_H

#include <stdbool.h>

enum reason {
	REASON_DISCONNECT,
	REASON_CLOSED,
	REASON_FINISH_KEY,
	REASON_MAX_LENGTH,
	REASON_SILENCE,
	REASON_STOPPED,
	REASON_BREAK,
	REASON_HANGUP,
	REASON_TRANSFER,
	REASON_CONNECT_FAILED,
	REASON_BAD_REQUEST,
	REASON_NO_WORKER,
	REASON_WORKER_LOST,
	REASON_UNSUPPORTED_MEDIA,
	REASON_COUNT
};

const char *reason_name(enum reason reason);
bool reason_failed(enum reason reason);
bool reason_parse(const char *name, enum reason *reason);

/* Why a request was turned down: `-ERR <code> <text>` for operators, `reason`
 * for the variable listen_reason. */
struct refusal {
	enum reason reason;
	const char *code;
	char text[512];
};

int refuse(struct refusal *refusal, enum reason reason, const char *code, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

#endif

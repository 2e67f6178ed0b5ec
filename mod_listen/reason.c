/**
 * @file reason.c  Why a listen ended, or did not begin
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "reason.h"

static const char *const names[REASON_COUNT] = {
	[REASON_DISCONNECT] = "disconnect",
	[REASON_CLOSED] = "closed",
	[REASON_FINISH_KEY] = "finish-key",
	[REASON_MAX_LENGTH] = "max-length",
	[REASON_SILENCE] = "silence",
	[REASON_STOPPED] = "stopped",
	[REASON_BREAK] = "break",
	[REASON_HANGUP] = "hangup",
	[REASON_TRANSFER] = "transfer",
	[REASON_CONNECT_FAILED] = "connect-failed",
	[REASON_BAD_REQUEST] = "bad-request",
	[REASON_NO_WORKER] = "no-worker",
	[REASON_WORKER_LOST] = "worker-lost",
	[REASON_UNSUPPORTED_MEDIA] = "unsupported-media",
};

/**
 * @param reason  Reason
 *
 * @return Its name, as in the variable listen_reason
 */
const char *reason_name(enum reason reason)
{
	return names[reason];
}

/**
 * @param reason  Reason
 *
 * @return true if listen_status is `failed` for it
 */
bool reason_failed(enum reason reason)
{
	return reason >= REASON_CONNECT_FAILED;
}

/**
 * Finds a reason by its name.
 *
 * @param name    Name
 * @param reason  The reason is stored here
 *
 * @return false if there is none of that name
 */
bool reason_parse(const char *name, enum reason *reason)
{
	for (unsigned i = 0; i < REASON_COUNT; i++) {
		if (!strcmp(names[i], name)) {
			*reason = (enum reason)i;
			return true;
		}
	}
	return false;
}

/**
 * Fills in a refusal.
 *
 * @param refusal  To be filled in
 * @param reason   For the variable listen_reason
 * @param code     For `-ERR`
 * @param fmt      What is wrong and, where it can be said, how to mend it
 *
 * @return -EINVAL, so that a caller can return it
 */
int refuse(struct refusal *refusal, enum reason reason, const char *code, const char *fmt, ...)
{
	va_list ap;

	refusal->reason = reason;
	refusal->code = code;
	va_start(ap, fmt);
	(void)vsnprintf(refusal->text, sizeof(refusal->text), fmt, ap);
	va_end(ap);
	return -EINVAL;
}

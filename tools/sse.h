/* sse: Server-Sent Events (WHATWG HTML, 9.2) as they come from a socket: bytes in any pieces in,
 * the data of each event out. Only `data` fields matter to an OpenAI-compatible stream; event
 * names, ids, retry times and comments (keep-alive pings) are passed over. */
#ifndef TOOLS_SSE_H
#define TOOLS_SSE_H

#include "base/err.h"
#include <stddef.h>

/* One event may not be longer: a server that sends more is broken or hostile. */
#define SSE_EVENT_BYTES_MAX (16 << 20)

struct sse {
    char *line, *data; /* what has come of the line and of the event; owned */
    size_t n_line, cap_line, n_data, cap_data;
    int has_data, after_cr;
};

/* The data of one event, NUL-terminated, lines joined by '\n'. Returns 0 to go on; anything else
 * ends sse_feed, which returns it. */
typedef int sse_fn(void *user, const char *data, size_t n);

/* sse_feed takes the next bytes and calls fn for each event that is complete with them. A zeroed
 * struct is ready for use. ERR_LIMIT: an event is too long; ERR_NOMEM; or what fn returned. */
int sse_feed(struct sse *s, const char *bytes, size_t n, sse_fn *fn, void *user, struct err *err);
void sse_fini(struct sse *s);

#endif

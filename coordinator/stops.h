/* stops: text that grows token by token, and the strings that end it. Holds back the shortest tail
 * that could still become a stop string, so that a client never sees the beginning of one. */
#ifndef COORDINATOR_STOPS_H
#define COORDINATOR_STOPS_H

#include "base/err.h"
#include <stddef.h>

struct stops {
    char **text; /* [n], own copies */
    size_t *bytes;
    int n, include;
    char *held; /* not yet given out */
    size_t n_held, cap;
    size_t n_out; /* of held: what the last call released */
};

int stops_init(struct stops *s, const char *const *text, int n, int include, struct err *err);
void stops_fini(struct stops *s);
/* stops_push appends bytes. Returns -1, or the index of the stop string that is now complete (of
 * several the one that begins first); stops_released tells what may be shown. ERR_NOMEM: -2. */
int stops_push(struct stops *s, const char *bytes, size_t n);
/* stops_pass appends bytes without looking for stop strings, and releases them. */
void stops_pass(struct stops *s, const char *bytes, size_t n);
/* stops_flush releases all that was held. */
void stops_flush(struct stops *s);
/* stops_released: valid until the next push or flush. */
const char *stops_released(const struct stops *s, size_t *n);

#endif

/* clock: the real one. CLOCK_MONOTONIC because deadlines must survive a corrected wall clock. */
#include "base/clock.h"

#include <time.h>

static int64_t monotonic_now_ns(void *self)
{
    (void)self;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * NS_PER_S + now.tv_nsec;
}

const struct clock clock_real = {monotonic_now_ns, NULL};

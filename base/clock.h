/* clock: time as an interface, so that the engine, the pool and the worker run unchanged under a
 * simulated clock. Nanoseconds, monotonic. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>

struct clock {
    int64_t (*now_ns)(void *self);
    void *self;
};

/* clock_real: CLOCK_MONOTONIC. */
extern const struct clock clock_real;
static inline int64_t clock_now(const struct clock *clock)
{
    return clock->now_ns(clock->self);
}
#define NS_PER_US 1000LL
#define NS_PER_MS 1000000LL
#define NS_PER_S  1000000000LL

#endif

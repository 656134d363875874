/* mistakes: a sample in which each rule of the tree is broken once; never compiled. */
#include "proto/frames.h"
#include "base/err.h"
#include <pthread.h>

/* A comment may say -ffast-math, "zmq.h" and getenv("HOME") as often as it likes. */
__attribute__((optimize("fast-math"))) static float sum;
static _Atomic float racing;
static _Atomic(double) racing_too;

static const char *choose(void)
{
    const char *name = getenv("SIGMOE_ISA");
    return name ? name : getenv("SIGMOE_KERNEL");
}

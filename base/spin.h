/* spin: whether a wait should poll before it sleeps. To sleep and be woken costs 5 us on a busy CPU
 * and 50 us on an idle one, so a wait that ends soon is better polled; one that does not end soon
 * burns a CPU that the awaited may need. Which of the two it is, the last waits tell: after a few
 * polls in vain it sleeps at once for a while, then tries again, ever more rarely. So where threads
 * are more than CPUs, and polling keeps the awaited from running, it stops by itself. */
#ifndef BASE_SPIN_H
#define BASE_SPIN_H

#include "base/clock.h"

#define SPIN_MISSES   4  /* in a row, then it rests */
#define SPIN_REST     16 /* waits without a poll, at first; doubles */
#define SPIN_REST_MAX 1024

struct spin {
    int64_t ns; /* how long a poll may last; 0: never poll */
    int n_miss, rest, rests;
};

/* spin_begin: how long the wait at hand may poll, ns; 0: not at all. */
static inline int64_t spin_begin(struct spin *s)
{
    if (s->rest > 0) {
        s->rest--;
        return 0;
    }
    return s->ns;
}

/* spin_end: what the poll that spin_begin allowed came to. */
static inline void spin_end(struct spin *s, int paid)
{
    if (paid) {
        s->n_miss = s->rests = 0;
        return;
    }
    if (++s->n_miss < SPIN_MISSES)
        return;
    /* One more miss is enough next time. */
    s->n_miss = SPIN_MISSES - 1;
    s->rest = SPIN_REST << s->rests;
    if (s->rest < SPIN_REST_MAX)
        s->rests++;
}

/* spin_relax: between two looks. */
static inline void spin_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

#endif

/* pool_await: whose answers end a wait. A wake-up costs the thread that sleeps and whoever computes
 * beside it, so the coordinator asks for those only that it can do something with. */
#include "coordinator/pool_state.h"

#include <string.h>

/* The link whose answer is likely to be the dispatch's last: it was given the most. */
static const struct link *last_link(const struct pool *pool, const struct dispatch_state *ds)
{
    const struct link *last = NULL;
    int most = 0;
    for (int i = 0; i < pool->n_link; i++) {
        const struct link *l = pool->link[i];
        for (const struct call *c = l->sent.head; c; c = c->next) {
            if (c->dispatch == ds && c->n_assign >= most) {
                most = c->n_assign;
                last = l;
            }
        }
    }
    return last;
}

/* crowded: workers that share memory with us have no fewer threads than it has CPUs. Then whoever
 * wakes takes a CPU from one that computes; else an answer is better taken while others are out. */
static int crowded(const struct pool *pool)
{
    int threads = 0;
    for (int i = 0; i < pool->n_link; i++) {
        const struct link *l = pool->link[i];
        int here = l->sent.head && strcmp(pool_via(pool, l), "shm") == 0;
        threads += here ? l->threads : 0;
    }
    return threads >= pool->n_cpu;
}

/* A dispatch needs all its answers, so one of them is awaited; of a link with a queue each, for its
 * credit. When the one is here and others are not, the next wait is for one of those. */
void pool_await(struct pool *pool)
{
    struct transport *t = pool->config.transport;
    if (!t->awaited) {
        return;
    }
    int all = pool->states == NULL || !crowded(pool);
    for (int i = 0; i < pool->n_link; i++) {
        t->awaited(t->self, i, all || pool->link[i]->queue.head != NULL);
    }
    for (const struct dispatch_state *ds = pool->states; ds && !all; ds = ds->next) {
        const struct link *last = last_link(pool, ds);
        if (last) {
            t->awaited(t->self, last->index, 1);
        }
    }
}

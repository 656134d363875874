/* pool_choice: what a plan is told of the workers beside what they hold: how much each has to do,
 * how fast it was seen to be, how far away it is. Only those that the choice of holders looks at.
 */
#include "coordinator/pool_state.h"

#include <string.h>

/* A speed is believed once so many slots were computed. */
#define SLOTS_SEEN 256

/* near_by: 0 this process, 1 this host, 2 elsewhere. */
static int32_t near_by(const char *endpoint)
{
    if (strncmp(endpoint, "inproc://", 9) == 0) {
        return 0;
    }
    int loopback =
        strncmp(endpoint, "tcp://127.", 10) == 0 || strncmp(endpoint, "tcp://[::1]", 11) == 0;
    return loopback || strncmp(endpoint, "ipc://", 6) == 0 ? 1 : 2;
}

/* speeds: slots a microsecond of computing; a worker that has not shown one yet counts as the mean
 * of those that have. */
static void speeds(struct pool *pool)
{
    double sum = 0;
    int n = 0;
    for (int i = 0; i < pool->n_link; i++) {
        const struct link *l = pool->link[i];
        pool->speed[i] = 0;
        if (l->answered < SLOTS_SEEN || l->compute_ns <= 0) {
            continue;
        }
        pool->speed[i] = (float)((double)l->answered * 1e3 / (double)l->compute_ns);
        sum += (double)pool->speed[i];
        n++;
    }
    for (int i = 0; i < pool->n_link; i++) {
        if (!(pool->speed[i] > 0)) {
            pool->speed[i] = n > 0 ? (float)(sum / n) : 1.0F;
        }
    }
}

void pool_choice(struct pool *pool, struct plan_input *in)
{
    in->choice = pool->config.choice;
    in->split_rows = pool->config.split_rows;
    in->seed = pool->stats.dispatches;
    in->load = pool->load;
    if (in->choice == REPLICA_BY_SPEED) {
        speeds(pool);
        in->speed = pool->speed;
    }
    if (in->choice == REPLICA_LOCAL) {
        for (int i = 0; i < pool->n_link; i++) {
            pool->distance[i] = near_by(pool->link[i]->endpoint);
        }
        in->distance = pool->distance;
    }
}

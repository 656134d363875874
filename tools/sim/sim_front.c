/* sim_front: what lies between users and engines: the client and each server's HTTP thread, one
 * thing after the other, where they are on a declared host. Elsewhere they take no time. */
#include "tools/sim/sim_state.h"

#include <stdlib.h>

#define WORDS_FIRST 64

/* ---- tokens that the client has seen ---- */

static void token_seen(struct sim *sim, int request)
{
    struct load_request *r = &sim->out->request[request];
    int64_t begin_ns = (int64_t)(sim->config.warmup_s * (double)NS_PER_S);
    if (r->n_got == 0)
        r->first_ns = sim->now_ns;
    else if (r->due_ns >= begin_ns)
        samples_add(&sim->out->gap_ms, (double)(sim->now_ns - r->last_ns) / (double)NS_PER_MS);
    r->last_ns = sim->now_ns;
    r->n_got++;
    if (in_figures(sim, sim->now_ns))
        sim->out->tokens++;
    struct load_slice *slice = slice_at(sim, sim->now_ns);
    if (slice)
        slice->tokens++;
    if (r->n_got >= r->n_output) {
        r->status = REQUEST_OK;
        sim->n_open--;
    }
}

/* ---- desks ---- */

static struct work word_work(const struct sim *sim, const struct sim_desk *d,
                             const struct sim_word *w)
{
    const struct front_cost *f = d->coord ? &sim->cost->server : &sim->cost->client;
    double ns = w->token ? f->token_ns : f->request_ns;
    return (struct work){ns, ns * sim->cost->other_feel, 0};
}

static void desk_begin(struct sim *sim, struct sim_desk *d)
{
    if (d->n > 0)
        task_start(sim, &d->task, word_work(sim, d, &d->word[d->head]));
}

static void word_on(struct sim *sim, struct sim_desk *d, struct sim_word w)
{
    struct coord *c = &sim->coord[w.request % sim->config.n_coordinator];
    if (w.token && d->coord)
        desk_put(sim, &sim->client, w);
    else if (w.token)
        token_seen(sim, w.request);
    else if (d->coord)
        coord_arrival(sim, d->coord, w.request);
    else
        desk_put(sim, &c->front, w);
}

static void desk_done(struct sim *sim, void *owner)
{
    struct sim_desk *d = owner;
    struct sim_word w = d->word[d->head];
    d->head = (d->head + 1) % d->n_max;
    d->n--;
    desk_begin(sim, d);
    word_on(sim, d, w);
}

static int desk_grow(struct sim_desk *d)
{
    int n_max = d->n_max ? d->n_max * 2 : WORDS_FIRST;
    struct sim_word *word = malloc((size_t)n_max * sizeof(*word));
    if (!word)
        return ERR_NOMEM;
    for (int i = 0; i < d->n; i++)
        word[i] = d->word[(d->head + i) % d->n_max];
    free(d->word);
    d->word = word;
    d->n_max = n_max;
    d->head = 0;
    return 0;
}

void desk_put(struct sim *sim, struct sim_desk *d, struct sim_word w)
{
    if (!d->task.host) {
        word_on(sim, d, w);
        return;
    }
    if (d->n == d->n_max && desk_grow(d)) {
        sim_fail(sim, err_set(sim->err, ERR_NOMEM, "no memory for what clients wait for"));
        return;
    }
    d->word[(d->head + d->n++) % d->n_max] = w;
    if (d->n == 1)
        desk_begin(sim, d);
}

int desk_create(struct sim_desk *d, struct host *host, struct coord *coord)
{
    *d = (struct sim_desk){.coord = coord};
    return task_create(&d->task, host, 1, desk_done, d);
}

void desk_destroy(struct sim_desk *d)
{
    task_destroy(&d->task);
    free(d->word);
    d->word = NULL;
}

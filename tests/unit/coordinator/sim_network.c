/* sim_network: messages under way, and the transport that the pool is given. */
#include "sim_state.h"

#include <string.h>

/* ---- the network ---- */

static void fly(struct sim *s, int link, int to_pool, struct frames *f, int64_t extra)
{
    struct sim_link *l = &s->link[link];
    if (s->n_flight == FLIGHT_MAX) {
        sim_violate(s, "more messages in flight than a run may have", FLIGHT_MAX);
        frames_close(f);
        return;
    }
    struct flight *e = &s->flight[s->n_flight++];
    *e = (struct flight){.order = s->n_order++,
                         .link = link,
                         .worker = l->worker,
                         .to_pool = to_pool,
                         .connection = l->connection,
                         .life = s->worker[l->worker].life};
    e->at = s->now + extra + 1000 + (int64_t)sim_random(s, (uint64_t)s->config.delay_max_ns + 1);
    e->at = e->at > l->last_at[to_pool] ? e->at : l->last_at[to_pool];
    l->last_at[to_pool] = e->at;
    frames_init(&e->frames);
    frames_move(&e->frames, f);
}

static void copy_frames(struct frames *to, struct frames *from)
{
    frames_init(to);
    for (int i = 0; i < from->n; i++) {
        zmq_msg_init(&to->part[i]);
        zmq_msg_copy(&to->part[i], &from->part[i]);
        to->n++;
    }
}

void sim_launch(struct sim *s, int link, int to_pool, struct frames *f, int64_t extra)
{
    if (sim_chance(s, s->config.drop)) {
        frames_close(f);
        return;
    }
    if (sim_chance(s, s->config.duplicate)) {
        struct frames twin;
        copy_frames(&twin, f);
        fly(s, link, to_pool, &twin, extra);
    }
    fly(s, link, to_pool, f, extra);
}

void sim_drop_flight(struct sim *s, int i)
{
    frames_close(&s->flight[i].frames);
    s->n_flight--;
    if (i != s->n_flight) {
        struct flight *last = &s->flight[s->n_flight];
        frames_init(&s->flight[i].frames);
        struct frames *to = &s->flight[i].frames;
        frames_move(to, &last->frames);
        s->flight[i].at = last->at;
        s->flight[i].order = last->order;
        s->flight[i].link = last->link;
        s->flight[i].worker = last->worker;
        s->flight[i].to_pool = last->to_pool;
        s->flight[i].revive = last->revive;
        s->flight[i].connection = last->connection;
        s->flight[i].life = last->life;
    }
}

int sim_next_flight(const struct sim *s)
{
    int best = -1;
    for (int i = 0; i < s->n_flight; i++) {
        const struct flight *e = &s->flight[i], *b = best < 0 ? NULL : &s->flight[best];
        if (!b || e->at < b->at || (e->at == b->at && e->order < b->order)) {
            best = i;
        }
    }
    return best;
}

/* ---- the transport ---- */

static int sim_open(void *self, int link, const char *endpoint, struct err *err)
{
    struct sim *s = self;
    int worker = link < SIM_WORKERS_MAX && strlen(endpoint) == 5 ? endpoint[4] - '0' : -1;
    if (worker < 0 || worker >= s->config.n_worker) {
        return err_set(err, ERR_NET, "no simulated worker at %s", endpoint);
    }
    s->link[link] = (struct sim_link){.open = 1, .worker = worker, .connection = ++s->n_connection};
    return 0;
}

static void sim_close(void *self, int link)
{
    struct sim *s = self;
    int kept = 0;
    s->link[link].open = 0;
    s->link[link].n_out = 0;
    for (int i = 0; i < s->n_inbox; i++) {
        if (s->inbox[i].link == link) {
            frames_close(&s->inbox[i].frames);
        } else if (kept++ != i) {
            s->inbox[kept - 1].link = s->inbox[i].link;
            frames_move(&s->inbox[kept - 1].frames, &s->inbox[i].frames);
        }
    }
    s->n_inbox = kept;
}

static int sim_send(void *self, int link, struct frames *f)
{
    struct sim *s = self;
    struct sim_link *l = &s->link[link];
    sim_event(s);
    if (!l->open) {
        sim_violate(s, "a send on a closed link", (uint64_t)link);
        return ERR_GONE;
    }
    if (!s->worker[l->worker].alive) {
        uint64_t how = sim_random(s, 8);
        if (how < 6) {
            return how < 1 ? ERR_GONE : ERR_AGAIN;
        }
    } else if (sim_chance(s, s->config.again)) {
        return ERR_AGAIN;
    }
    sim_note_sent(s, l, f);
    sim_launch(s, link, 0, f, 0);
    return 0;
}

void sim_deliver(struct sim *s, int i)
{
    struct flight *e = &s->flight[i];
    struct sim_link *l = &s->link[e->link];
    struct frames f;
    int link = e->link, revive = e->revive, worker = e->worker, to_pool = e->to_pool;
    int lost =
        !revive && (!l->open || l->connection != e->connection ||
                    (!to_pool && (!s->worker[worker].alive || s->worker[worker].life != e->life)));
    frames_init(&f);
    frames_move(&f, &e->frames);
    sim_drop_flight(s, i);
    if (revive) {
        sim_revive(s, worker);
    } else if (!lost && to_pool && s->n_inbox < FLIGHT_MAX) {
        sim_event(s);
        s->inbox[s->n_inbox].link = link;
        frames_init(&s->inbox[s->n_inbox].frames);
        frames_move(&s->inbox[s->n_inbox++].frames, &f);
    } else if (!lost) {
        sim_event(s);
        if (s->worker[worker].alive) {
            sim_worker_receive(s, link, &f);
        }
    }
    frames_close(&f);
}

static void deliver_due(struct sim *s)
{
    for (int i; (i = sim_next_flight(s)) >= 0 && s->flight[i].at <= s->now;) {
        sim_deliver(s, i);
    }
}

static int sim_recv(void *self, int *link, struct frames *f)
{
    struct sim *s = self;
    deliver_due(s);
    if (s->n_inbox == 0) {
        return 0;
    }
    *link = s->inbox[0].link;
    frames_init(f);
    frames_move(f, &s->inbox[0].frames);
    s->n_inbox--;
    for (int i = 0; i < s->n_inbox; i++) {
        s->inbox[i].link = s->inbox[i + 1].link;
        frames_move(&s->inbox[i].frames, &s->inbox[i + 1].frames);
    }
    sim_note_received(s, &s->link[*link], f);
    return 1;
}

static void sim_awaited(void *self, int link, int yes)
{
    struct sim *s = self;
    s->link[link].quiet = !yes;
}

/* All workers are on this host, and say of most seeds that they crowd it. */
static const char *sim_via(void *self, int link)
{
    (void)self;
    (void)link;
    return "shm";
}

/* What has tensors comes as through shared memory: who is not awaited does not ring. */
static int rings(const struct sim *s)
{
    for (int i = 0; i < s->n_inbox; i++) {
        if (s->inbox[i].frames.n == 1 || !s->link[s->inbox[i].link].quiet) {
            return 1;
        }
    }
    return 0;
}

static void sim_wait(void *self, int64_t until)
{
    struct sim *s = self;
    while (!rings(s) && s->now < until) {
        int i = sim_next_flight(s);
        if (i < 0 || s->flight[i].at > until) {
            s->now = until;
            return;
        }
        s->now = s->flight[i].at > s->now ? s->flight[i].at : s->now;
        sim_deliver(s, i);
    }
}

struct transport sim_network(struct sim *s)
{
    return (struct transport){.self = s,
                              .open = sim_open,
                              .close = sim_close,
                              .send = sim_send,
                              .recv = sim_recv,
                              .wait = sim_wait,
                              .awaited = sim_awaited,
                              .via = sim_via};
}

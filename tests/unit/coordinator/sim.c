/* sim: see sim.h. One list of events ordered by time, then by when they were made; the worker's
 * loop is worker_receive. */
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FLIGHT_MAX 4096
#define CALLS_MAX  (1 << 20)
#define LOOK_NS    100 /* a look at the clock takes time */

struct flight {
    int64_t at;
    uint64_t order;
    int link, worker, to_pool, revive; /* revive: no message */
    uint64_t connection, life;
    struct frames frames;
};

struct sim_link {
    int open, worker;
    uint64_t connection;
    int64_t last_at[2]; /* of the last message each way: order is kept */
    uint64_t out[256];  /* calls sent and not answered */
    int n_out;
    uint64_t ping_nonce, last_call, last_call_at_ping;
};

struct sim_worker {
    int alive;
    uint64_t life, greeted /* connection */, epoch;
    struct sim_ways ways;
    uint8_t *held;
    int n_request, *batch, n_hung;
    uint64_t plan; /* the Assign at hand: loading when first told, done when told again */
};

struct inbox {
    int link;
    struct frames frames;
};

struct sim {
    struct sim_config config;
    struct transport transport;
    struct clock clock;
    int64_t now, n_event;
    uint64_t random, n_order, n_connection;
    int faults;
    struct sim_link link[SIM_WORKERS_MAX];
    struct sim_worker worker[SIM_WORKERS_MAX];
    struct flight *flight;
    int n_flight;
    struct inbox *inbox;
    int n_inbox;
    uint8_t *seen; /* [CALLS_MAX] */
    char violation[1200];
};

/* splitmix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014). */
static uint64_t mix(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint64_t sim_random(struct sim *s, uint64_t below)
{
    return mix(&s->random) % below;
}

static int chance(struct sim *s, int per_thousand)
{
    return s->faults && per_thousand && sim_random(s, 1000) < (uint64_t)per_thousand;
}

static void violate(struct sim *s, const char *what, uint64_t value)
{
    if (!s->violation[0]) {
        snprintf(s->violation, sizeof(s->violation), "%s (%llu) at event %lld", what,
                 (unsigned long long)value, (long long)s->n_event);
    }
}

void sim_expert(const struct wire_shape *shape, int layer, int expert, const void *row, void *out)
{
    size_t bytes = (size_t)shape->d_wire * dtype_bytes(shape->dtype);
    uint64_t state = hash_bytes(row, bytes).lo ^ ((uint64_t)layer << 32 | (uint32_t)expert);
    /* Numbers of size 0.5 to 2, either sign: an engine can go on computing with them. The exponent
     * lies in the upper half of an f32 and in every half that is a bf16. */
    for (size_t i = 0; i < bytes / 2; i++) {
        uint16_t half = (uint16_t)mix(&state);
        if (shape->dtype == DTYPE_BF16 || i % 2 == 1) {
            half = (uint16_t)((half & 0x80ffu) | 0x3f00u);
        }
        memcpy((unsigned char *)out + 2 * i, &half, sizeof(half));
    }
}

static void compute(const struct wire_shape *shape, const struct msg_request *m, void *out)
{
    size_t bytes = (size_t)shape->d_wire * dtype_bytes(shape->dtype);
    int at = 0;
    for (int s = 0; s < m->n_seg; s++) {
        for (uint32_t i = 0; i < m->seg_count[s]; i++, at++) {
            sim_expert(shape, m->layer, (int)m->seg_expert[s],
                       (const unsigned char *)m->rows + (size_t)m->row_index[at] * bytes,
                       (unsigned char *)out + (size_t)at * bytes);
        }
    }
}

int sim_local(void *shape, const struct msg_request *request, void *out, struct err *err)
{
    (void)err;
    compute(shape, request, out);
    return 0;
}

/* ---- the network ---- */

static void fly(struct sim *s, int link, int to_pool, struct frames *f, int64_t extra)
{
    struct sim_link *l = &s->link[link];
    if (s->n_flight == FLIGHT_MAX) {
        violate(s, "more messages in flight than a run may have", FLIGHT_MAX);
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

static void launch(struct sim *s, int link, int to_pool, struct frames *f, int64_t extra)
{
    if (chance(s, s->config.drop)) {
        frames_close(f);
        return;
    }
    if (chance(s, s->config.duplicate)) {
        struct frames twin;
        copy_frames(&twin, f);
        fly(s, link, to_pool, &twin, extra);
    }
    fly(s, link, to_pool, f, extra);
}

static void drop_flight(struct sim *s, int i)
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

static int next_flight(const struct sim *s)
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

/* ---- death ---- */

void sim_forget(struct sim *s, int worker)
{
    s->worker[worker].life++;
    s->worker[worker].greeted = 0;
    s->worker[worker].n_hung = 0;
}

void sim_kill(struct sim *s, int worker)
{
    if (!s->worker[worker].alive) {
        return;
    }
    sim_forget(s, worker);
    s->worker[worker].alive = 0;
    /* What it had sent may still arrive, or not. */
    for (int i = 0; i < s->n_flight;) {
        if (s->flight[i].worker == worker && s->flight[i].to_pool && sim_random(s, 2)) {
            drop_flight(s, i);
        } else {
            i++;
        }
    }
    if (s->config.revive && s->n_flight < FLIGHT_MAX) {
        s->flight[s->n_flight++] = (struct flight){
            .at = s->now + (int64_t)sim_random(s, (uint64_t)s->config.down_max_ns + 1),
            .order = s->n_order++,
            .worker = worker,
            .revive = 1};
    }
}

void sim_revive(struct sim *s, int worker)
{
    s->worker[worker].alive = 1;
}

/* Each message that is sent or arrives is an event: the moments at which things can go wrong. */
static void event(struct sim *s)
{
    s->n_event++;
    if (s->config.kill_at == s->n_event) {
        sim_kill(s, s->config.kill_worker);
    }
    if (chance(s, s->config.die)) {
        sim_kill(s, (int)sim_random(s, (uint64_t)s->config.n_worker));
    }
    if (chance(s, s->config.forget)) {
        sim_forget(s, (int)sim_random(s, (uint64_t)s->config.n_worker));
    }
}

/* ---- a worker ---- */

static void answer_error(struct sim *s, int link, uint64_t call, enum wire_error code)
{
    struct frames f;
    frames_init(&f);
    if (msg_build_error(&f, call, code, "the simulation wants it so") == 0) {
        launch(s, link, 1, &f, 0);
    }
}

static void answer_hello(struct sim *s, int link, struct sim_worker *w, const struct msg_hello *h)
{
    size_t n = (size_t)s->config.shape.n_layer * (size_t)s->config.shape.n_expert;
    uint8_t bits[64] = {0};
    struct msg_welcome m = {.fingerprint = w->ways.fingerprint,
                            .incarnation = w->life + 1,
                            .epoch = w->epoch,
                            .name = "w0",
                            .dtype = w->ways.dtype,
                            .credits = w->ways.credits,
                            .row_limit = s->config.row_limit,
                            .held = bits,
                            .held_bytes = (n + 7) / 8};
    struct frames f;
    (void)h;
    m.name[1] = (char)('0' + (w - s->worker));
    memcpy(m.numerics, w->ways.numerics, sizeof(m.numerics));
    for (size_t i = 0; i < n; i++) {
        bits[i / 8] = (uint8_t)(bits[i / 8] | w->held[i] << (i % 8));
    }
    w->greeted = s->link[link].connection;
    frames_init(&f);
    if (msg_build_welcome(&f, &m) == 0) {
        launch(s, link, 1, &f, 0);
    }
}

static int answer_not_held(struct sim *s, int link, struct sim_worker *w,
                           const struct msg_request *r)
{
    uint32_t lacks[64];
    struct msg_not_held m = {
        .call = r->call, .epoch = w->epoch, .layer = r->layer, .expert = lacks};
    for (int i = 0; i < r->n_seg; i++) {
        if (!w->held[r->layer * s->config.shape.n_expert + (int)r->seg_expert[i]]) {
            lacks[m.n_expert++] = r->seg_expert[i];
        }
    }
    struct frames f;
    frames_init(&f);
    if (m.n_expert && msg_build_not_held(&f, &m) == 0) {
        launch(s, link, 1, &f, 0);
    }
    return m.n_expert;
}

static void answer_rows(struct sim *s, int link, const struct msg_request *r)
{
    const struct wire_shape *shape = &s->config.shape;
    size_t bytes = (size_t)r->n_assign * (size_t)shape->d_wire * dtype_bytes(shape->dtype);
    int64_t work = (int64_t)sim_random(s, (uint64_t)s->config.compute_max_ns + 1);
    struct wirebuf_pool *bufs = wirebuf_pool_create();
    struct wirebuf *b = wirebuf_get(bufs, bytes);
    struct msg_reply m = {.call = r->call,
                          .compute_ns = (uint64_t)work,
                          .handle_ns = (uint64_t)work,
                          .layer = r->layer,
                          .n_assign = r->n_assign,
                          .d_wire = shape->d_wire,
                          .dtype = shape->dtype,
                          .rows = wirebuf_data(b)};
    struct frames f;
    frames_init(&f);
    compute(shape, r, wirebuf_data(b));
    if (msg_build_reply(&f, &m, b, bytes) == 0) {
        launch(s, link, 1, &f, work);
    }
    wirebuf_pool_destroy(bufs);
}

static void worker_request(struct sim *s, int link, struct sim_worker *w,
                           const struct msg_request *r)
{
    if (w->greeted != s->link[link].connection) {
        answer_error(s, link, r->call, WIRE_NO_HELLO);
        return;
    }
    w->batch = realloc(w->batch, (size_t)(w->n_request + 1) * sizeof(*w->batch));
    w->batch[w->n_request++] = r->batch;
    if (chance(s, s->config.not_held)) {
        w->held[r->layer * s->config.shape.n_expert + (int)r->seg_expert[0]] = 0;
        w->epoch++;
    }
    if (w->ways.hang || chance(s, s->config.hang)) {
        w->n_hung += w->ways.hang || sim_random(s, 2);
        return;
    }
    if (chance(s, s->config.fail)) {
        answer_error(s, link, r->call, WIRE_INTERNAL);
    } else if (!answer_not_held(s, link, w, r)) {
        answer_rows(s, link, r);
    }
}

static void worker_ping(struct sim *s, int link, const struct sim_worker *w,
                        const struct msg_ping *p)
{
    struct msg_ping m = {.nonce = p->nonce, .reply = 1, .epoch = w->epoch, .queued = w->n_hung};
    struct frames f;
    if (w->greeted != s->link[link].connection && sim_random(s, 2)) {
        answer_error(s, link, 0, WIRE_NO_HELLO); /* or answers a stranger's Ping as well */
        return;
    }
    frames_init(&f);
    if (!w->ways.mute_pings && msg_build_ping(&f, &m) == 0) {
        launch(s, link, 1, &f, 0);
    }
}

static void answer_assign(struct sim *s, int link, struct sim_worker *w, const struct msg_assign *a)
{
    size_t n = (size_t)s->config.shape.n_layer * (size_t)s->config.shape.n_expert;
    struct msg_assigned m = {.plan = a->plan, .state = ASSIGN_LOADING, .total = 1};
    struct frames f;
    if (w->greeted != s->link[link].connection) {
        answer_error(s, link, 0, WIRE_NO_HELLO);
        return;
    }
    if (w->ways.assign_mute) {
        return;
    }
    if (w->ways.assign_fails) {
        m.state = ASSIGN_FAILED;
        snprintf(m.text, sizeof(m.text), "no room");
    } else if (w->plan == a->plan || a->drop) {
        for (size_t i = 0; i < n; i++) {
            int want = a->held[i / 8] >> (i % 8) & 1;
            w->held[i] = (uint8_t)(want || (w->held[i] && !a->drop));
        }
        w->epoch++;
        m.state = ASSIGN_DONE;
        m.loaded = 1;
    }
    w->plan = a->plan;
    m.epoch = w->epoch;
    frames_init(&f);
    if (msg_build_assigned(&f, &m) == 0) {
        launch(s, link, 1, &f, 0);
    }
}

static void worker_receive(struct sim *s, int link, struct frames *f)
{
    struct sim_worker *w = &s->worker[s->link[link].worker];
    struct msg m;
    struct err err = {0};
    if (msg_parse(f, &s->config.shape, &m, NULL, &err)) {
        violate(s, err.text, 0);
        return;
    }
    if (m.kind == MSG_HELLO) {
        answer_hello(s, link, w, &m.u.hello);
    } else if (m.kind == MSG_REQUEST) {
        worker_request(s, link, w, &m.u.request);
    } else if (m.kind == MSG_PING && !m.u.ping.reply) {
        worker_ping(s, link, w, &m.u.ping);
    } else if (m.kind == MSG_ASSIGN) {
        answer_assign(s, link, w, &m.u.assign);
    } else {
        violate(s, "a worker is sent a message of kind", m.kind);
    }
    msg_free(&m);
}

/* ---- what the pool promises ---- */

static void note_request(struct sim *s, struct sim_link *l, uint64_t call)
{
    if (call >= CALLS_MAX || s->seen[call]) {
        violate(s, "a call id is used twice", call);
        return;
    }
    s->seen[call] = 1;
    if (l->n_out >= s->worker[l->worker].ways.credits) {
        violate(s, "more calls outstanding than credits", (uint64_t)l->n_out + 1);
        return;
    }
    l->out[l->n_out++] = l->last_call = call;
}

static void note_sent(struct sim *s, struct sim_link *l, const struct frames *f)
{
    struct msg m;
    struct err err = {0};
    if (msg_parse(f, &s->config.shape, &m, NULL, &err)) {
        violate(s, err.text, 0);
        return;
    }
    if (m.kind == MSG_REQUEST) {
        note_request(s, l, m.u.request.call);
    } else if (m.kind == MSG_PING) {
        l->ping_nonce = m.u.ping.nonce;
        l->last_call_at_ping = l->last_call;
    }
    msg_free(&m);
}

static void note_answered(struct sim_link *l, uint64_t call, int forgot)
{
    for (int i = 0; i < l->n_out; i++) {
        if (l->out[i] == call) {
            l->out[i] = l->out[--l->n_out];
            l->n_out = forgot ? 0 : l->n_out;
            return;
        }
    }
}

/* The pool may take calls as lost that were sent before a Ping which is answered with nothing
 * queued. */
static void note_pinged(struct sim_link *l, const struct msg_ping *p)
{
    for (int i = 0; p->nonce == l->ping_nonce && !p->queued && i < l->n_out;) {
        if (l->out[i] <= l->last_call_at_ping) {
            l->out[i] = l->out[--l->n_out];
        } else {
            i++;
        }
    }
}

static void note_received(struct sim *s, struct sim_link *l, const struct frames *f)
{
    struct msg m;
    if (msg_parse(f, &s->config.shape, &m, NULL, NULL)) {
        return;
    }
    if (m.kind == MSG_REPLY) {
        note_answered(l, m.u.reply.call, 0);
    } else if (m.kind == MSG_NOT_HELD) {
        note_answered(l, m.u.not_held.call, 0);
    } else if (m.kind == MSG_PING) {
        note_pinged(l, &m.u.ping);
    } else if (m.kind == MSG_ERROR && m.u.error.call) {
        note_answered(l, m.u.error.call, m.u.error.code == WIRE_NO_HELLO);
    } else if (m.kind == MSG_ERROR) {
        l->n_out = 0;
    }
    msg_free(&m);
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
    event(s);
    if (!l->open) {
        violate(s, "a send on a closed link", (uint64_t)link);
        return ERR_GONE;
    }
    if (!s->worker[l->worker].alive) {
        uint64_t how = sim_random(s, 8);
        if (how < 6) {
            return how < 1 ? ERR_GONE : ERR_AGAIN;
        }
    } else if (chance(s, s->config.again)) {
        return ERR_AGAIN;
    }
    note_sent(s, l, f);
    launch(s, link, 0, f, 0);
    return 0;
}

static void deliver(struct sim *s, int i)
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
    drop_flight(s, i);
    if (revive) {
        sim_revive(s, worker);
    } else if (!lost && to_pool && s->n_inbox < FLIGHT_MAX) {
        event(s);
        s->inbox[s->n_inbox].link = link;
        frames_init(&s->inbox[s->n_inbox].frames);
        frames_move(&s->inbox[s->n_inbox++].frames, &f);
    } else if (!lost) {
        event(s);
        if (s->worker[worker].alive) {
            worker_receive(s, link, &f);
        }
    }
    frames_close(&f);
}

static void deliver_due(struct sim *s)
{
    for (int i; (i = next_flight(s)) >= 0 && s->flight[i].at <= s->now;) {
        deliver(s, i);
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
    note_received(s, &s->link[*link], f);
    return 1;
}

static void sim_wait(void *self, int64_t until)
{
    struct sim *s = self;
    while (s->n_inbox == 0 && s->now < until) {
        int i = next_flight(s);
        if (i < 0 || s->flight[i].at > until) {
            s->now = until;
            return;
        }
        s->now = s->flight[i].at > s->now ? s->flight[i].at : s->now;
        deliver(s, i);
    }
}

static int64_t sim_now(void *self)
{
    return ((struct sim *)self)->now += LOOK_NS;
}

/* ---- life ---- */

struct sim *sim_create(const struct sim_config *config)
{
    struct sim *s = calloc(1, sizeof(*s));
    size_t n = (size_t)config->shape.n_layer * (size_t)config->shape.n_expert;
    s->config = *config;
    s->random = config->seed;
    s->now = NS_PER_S;
    s->faults = 1;
    s->flight = calloc(FLIGHT_MAX, sizeof(*s->flight));
    s->inbox = calloc(FLIGHT_MAX, sizeof(*s->inbox));
    s->seen = calloc(CALLS_MAX, 1);
    s->seen[0] = 1;
    for (int i = 0; i < config->n_worker; i++) {
        struct sim_worker *w = &s->worker[i];
        w->alive = 1;
        w->ways = (struct sim_ways){.fingerprint = config->fingerprint,
                                    .dtype = config->shape.dtype,
                                    .numerics = "sim",
                                    .credits = config->credits};
        w->held = malloc(n);
        memcpy(w->held, config->held + (size_t)i * n, n);
    }
    s->transport = (struct transport){.self = s,
                                      .open = sim_open,
                                      .close = sim_close,
                                      .send = sim_send,
                                      .recv = sim_recv,
                                      .wait = sim_wait};
    s->clock = (struct clock){sim_now, s};
    return s;
}

void sim_destroy(struct sim *s)
{
    for (int i = 0; i < s->n_flight; i++) {
        frames_close(&s->flight[i].frames);
    }
    for (int i = 0; i < s->n_inbox; i++) {
        frames_close(&s->inbox[i].frames);
    }
    for (int i = 0; i < s->config.n_worker; i++) {
        free(s->worker[i].held);
        free(s->worker[i].batch);
    }
    free(s->flight);
    free(s->inbox);
    free(s->seen);
    free(s);
}

struct transport *sim_transport(struct sim *s)
{
    return &s->transport;
}

const struct clock *sim_clock(struct sim *s)
{
    return &s->clock;
}

void sim_faults(struct sim *s, int on)
{
    s->faults = on;
}

void sim_pass(struct sim *s, int64_t ns)
{
    int64_t until = s->now + ns;
    for (int i; (i = next_flight(s)) >= 0 && s->flight[i].at <= until;) {
        s->now = s->flight[i].at > s->now ? s->flight[i].at : s->now;
        deliver(s, i);
    }
    s->now = until;
}

struct sim_config *sim_config_of(struct sim *s)
{
    return &s->config;
}

struct sim_ways *sim_ways(struct sim *s, int worker)
{
    return &s->worker[worker].ways;
}

void sim_hold(struct sim *s, int worker, int layer, int expert, int held)
{
    s->worker[worker].held[layer * s->config.shape.n_expert + expert] = (uint8_t)held;
    s->worker[worker].epoch++;
}

int64_t sim_events(const struct sim *s)
{
    return s->n_event;
}

const char *sim_violation(const struct sim *s)
{
    return s->violation[0] ? s->violation : NULL;
}

int sim_requests(const struct sim *s, int worker)
{
    return s->worker[worker].n_request;
}

const int *sim_batches(const struct sim *s, int worker)
{
    return s->worker[worker].batch;
}

const char *const *sim_endpoints(void)
{
    static const char *const endpoint[SIM_WORKERS_MAX] = {"sim:0", "sim:1", "sim:2", "sim:3",
                                                          "sim:4", "sim:5", "sim:6", "sim:7"};
    return endpoint;
}

/* sim_worker: what a simulated worker answers; its loop is sim_worker_receive. */
#include "sim_state.h"

#include "kernels/kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void sim_expert(const struct wire_shape *shape, int layer, int expert, const void *row, void *out)
{
    size_t bytes = (size_t)shape->d_wire * dtype_bytes(shape->dtype);
    uint64_t state = hash_bytes(row, bytes).lo ^ ((uint64_t)layer << 32 | (uint32_t)expert);
    /* Numbers of size 0.5 to 2, either sign: an engine can go on computing with them. The exponent
     * lies in the upper half of an f32 and in every half that is a bf16. */
    for (size_t i = 0; i < bytes / 2; i++) {
        uint16_t half = (uint16_t)sim_mix(&state);
        if (shape->dtype == DTYPE_BF16 || i % 2 == 1) {
            half = (uint16_t)((half & 0x80ffu) | 0x3f00u);
        }
        memcpy((unsigned char *)out + 2 * i, &half, sizeof(half));
    }
}

static void compute(const struct wire_shape *shape, const struct msg_request *m, void *out)
{
    const struct kernels *k = kernels_of(ISA_PORTABLE);
    size_t d = (size_t)shape->d_wire, bytes = d * dtype_bytes(shape->dtype);
    unsigned char *wide = malloc(bytes);
    int at = 0;
    for (int s = 0; s < m->n_seg; s++) {
        for (uint32_t i = 0; i < m->seg_count[s]; i++, at++) {
            const unsigned char *row = (const unsigned char *)m->rows +
                                       (size_t)m->row_index[at] * wire_row_bytes(m->dtype, d);
            if (m->dtype == DTYPE_FP8) {
                k->fp8_decode(row, d, (uint16_t *)(void *)wide);
                row = wide;
            }
            sim_expert(shape, m->layer, (int)m->seg_expert[s], row,
                       (unsigned char *)out + (size_t)at * bytes);
        }
    }
    free(wide);
}

/* The results as they are asked for. */
static struct wirebuf *narrow(const struct wire_shape *shape, struct wirebuf_pool *bufs,
                              struct wirebuf *rows, int n)
{
    size_t d = (size_t)shape->d_wire, bytes = fp8_row_bytes(d);
    struct wirebuf *b = wirebuf_get(bufs, (size_t)n * bytes);
    for (size_t i = 0; i < (size_t)n; i++) {
        kernels_of(ISA_PORTABLE)
            ->fp8_encode((const uint16_t *)wirebuf_data(rows) + i * d, d,
                         (uint8_t *)wirebuf_data(b) + i * bytes);
    }
    wirebuf_unref(rows);
    return b;
}

int sim_local(void *shape, const struct msg_request *request, void *out, struct err *err)
{
    (void)err;
    compute(shape, request, out);
    return 0;
}

/* ---- a worker ---- */

static void answer_error(struct sim *s, int link, uint64_t call, enum wire_error code)
{
    struct frames f;
    frames_init(&f);
    if (msg_build_error(&f, call, code, "the simulation wants it so") == 0) {
        sim_launch(s, link, 1, &f, 0);
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
                            .threads = s->config.seed % 4 ? 65536 : 1,
                            .held = bits,
                            .held_bytes = (n + 7) / 8,
                            .fp8 = w->ways.fp8};
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
        sim_launch(s, link, 1, &f, 0);
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
        sim_launch(s, link, 1, &f, 0);
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
                          .dtype = r->reply_dtype};
    struct frames f;
    frames_init(&f);
    compute(shape, r, wirebuf_data(b));
    if (m.dtype == DTYPE_FP8) {
        b = narrow(shape, bufs, b, r->n_assign);
        bytes = (size_t)r->n_assign * fp8_row_bytes((size_t)shape->d_wire);
    }
    if (msg_build_reply(&f, &m, b, bytes) == 0) {
        sim_launch(s, link, 1, &f, work);
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
    if (sim_chance(s, s->config.not_held)) {
        w->held[r->layer * s->config.shape.n_expert + (int)r->seg_expert[0]] = 0;
        w->epoch++;
    }
    if (w->ways.hang || sim_chance(s, s->config.hang)) {
        w->n_hung += w->ways.hang || sim_random(s, 2);
        return;
    }
    if (sim_chance(s, s->config.fail)) {
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
        sim_launch(s, link, 1, &f, 0);
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
        sim_launch(s, link, 1, &f, 0);
    }
}

void sim_worker_receive(struct sim *s, int link, struct frames *f)
{
    struct sim_worker *w = &s->worker[s->link[link].worker];
    struct msg m;
    struct err err = {0};
    struct wire_shape shape = s->config.shape;
    shape.fp8 = w->ways.fp8;
    if (msg_parse(f, &shape, &m, NULL, &err)) {
        sim_violate(s, err.text, 0);
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
        sim_violate(s, "a worker is sent a message of kind", m.kind);
    }
    msg_free(&m);
}

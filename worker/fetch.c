/* fetch: see fetch.h. Who waits stands in a ring; a timer sends the piece at its head:
 *
 *     fetch_take: held, part there, piece within the tensor, room -> ring, pages asked for
 *     on_timer:   requests wait, for less than WAIT_NS  -> a little later
 *                 else -> Chunk; the timer starts again after the piece's share of the rate
 *
 * The bytes are copied out of the mapping: a page that is not in memory yet would stop the loop for
 * as long as the disk takes, which is why its pages are asked for when the Fetch arrives. */
#include "worker/fetch.h"
#include "worker/worker_state.h"

#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RING_MAX 64 /* waiting, of all peers */
#define PEER_MAX 8  /* of one */
#define WAIT_NS  (50 * NS_PER_MS)
#define LATER_S  0.001

struct waiting {
    struct sock_peer to;
    struct msg_fetch fetch;
    const struct tensor *tensor;
    int64_t arrived_ns;
};

struct fetch {
    struct worker *w;
    int64_t bytes_s, free_ns; /* free_ns: when the rate allows the next piece */
    ev_timer timer;
    int first, n;
    struct waiting ring[RING_MAX];
};

static const enum role roles[] = {
    [FETCH_GATE] = ROLE_EXPERT_GATE,       [FETCH_UP] = ROLE_EXPERT_UP,
    [FETCH_DOWN] = ROLE_EXPERT_DOWN,       [FETCH_GATE_BIAS] = ROLE_EXPERT_GATE_BIAS,
    [FETCH_UP_BIAS] = ROLE_EXPERT_UP_BIAS, [FETCH_DOWN_BIAS] = ROLE_EXPERT_DOWN_BIAS,
};

static void chunk_send(struct worker *w, const struct waiting *at)
{
    const struct tensor *t = at->tensor;
    size_t bytes = (size_t)at->fetch.bytes;
    struct wirebuf *data = wirebuf_get(w->bufs, bytes ? bytes : 1);
    if (!data) {
        answer_error(w, &at->to, at->fetch.call, WIRE_INTERNAL, "no memory for a piece");
        return;
    }
    memcpy(wirebuf_data(data), (const char *)t->data + at->fetch.offset, bytes);
    struct msg_chunk m = {.call = at->fetch.call,
                          .offset = at->fetch.offset,
                          .dtype = t->dtype,
                          .rows = (int)t->dim[0],
                          .cols = t->n_dim > 1 ? (int)t->dim[1] : 0,
                          .bytes = bytes};
    struct frames f;
    frames_init(&f);
    msg_build_chunk(&f, &m, data);
    answer(w, &at->to, &f);
    if (bytes && at->fetch.offset + bytes == t->bytes)
        checkpoint_done(w->model->ck, t);
}

/* timer_set: again when the rate allows, and not before `after_s`; never while nobody waits. */
static void timer_set(struct fetch *f, double after_s)
{
    double rate_s = (double)(f->free_ns - clock_now(&clock_real)) / (double)NS_PER_S;
    ev_timer_stop(f->w->loop, &f->timer);
    if (f->n == 0)
        return;
    ev_timer_set(&f->timer, rate_s > after_s ? rate_s : after_s, 0.0);
    ev_timer_start(f->w->loop, &f->timer);
}

static void on_timer(struct ev_loop *loop, ev_timer *timer, int revents)
{
    (void)loop;
    (void)revents;
    struct fetch *f = timer->data;
    const struct waiting *head = &f->ring[f->first];
    int64_t now_ns = clock_now(&clock_real), waited_ns = now_ns - head->arrived_ns;
    if (queue_count(f->w->queue) && waited_ns < WAIT_NS) {
        timer_set(f, LATER_S);
        return;
    }
    double share_ns = (double)head->fetch.bytes / (double)f->bytes_s * (double)NS_PER_S;
    f->free_ns = now_ns + (int64_t)share_ns;
    chunk_send(f->w, head);
    f->first = (f->first + 1) % RING_MAX;
    f->n--;
    timer_set(f, 0.0);
}

struct fetch *fetch_create(struct worker *w, int64_t bytes_s)
{
    struct fetch *f = calloc(1, sizeof(*f));
    if (!f)
        return NULL;
    f->w = w;
    f->bytes_s = bytes_s;
    ev_timer_init(&f->timer, on_timer, 0.0, 0.0);
    f->timer.data = f;
    return f;
}

void fetch_destroy(struct fetch *f)
{
    if (f)
        ev_timer_stop(f->w->loop, &f->timer);
    free(f);
}

static int waiting_of(const struct fetch *f, const struct sock_peer *peer)
{
    int n = 0;
    for (int i = 0; i < f->n; i++) {
        const struct sock_peer *to = &f->ring[(f->first + i) % RING_MAX].to;
        n += to->bytes == peer->bytes && memcmp(to->id, peer->id, peer->bytes) == 0;
    }
    return n;
}

/* tensor_find: the tensor that is asked for; NULL with the words of an Error. */
static const struct tensor *tensor_find(const struct fetch *f, const struct msg_fetch *m,
                                        char *text, size_t size)
{
    const struct model *model = f->w->model;
    const struct tensor *t = NULL;
    int rows, cols;
    if (f->bytes_s == 0)
        snprintf(text, size, "this worker gives no weights away (--fetch-rate 0)");
    else if (!model->desc.layer[m->layer].sparse)
        snprintf(text, size, "Fetch.layer is %d, a dense layer: it has no experts", m->layer);
    else if (desc_tensor_shape(&model->desc, roles[m->part], m->layer, &rows, &cols) != 0)
        snprintf(text, size, "Fetch.part is %d: experts of this model have no such tensor",
                 (int)m->part);
    else if (checkpoint_role(model->ck, &model->desc, roles[m->part], m->layer, m->expert, &t,
                             NULL) != 0)
        snprintf(text, size, "expert %d of layer %d is not in this worker's checkpoint", m->expert,
                 m->layer);
    else if (m->offset > t->bytes || (uint64_t)m->bytes > t->bytes - m->offset) {
        snprintf(text, size, "Fetch: %d bytes from byte %llu are not within a tensor of %llu",
                 m->bytes, (unsigned long long)m->offset, (unsigned long long)t->bytes);
        t = NULL;
    }
    return t;
}

static void not_held(struct worker *w, const struct sock_peer *to, const struct msg_fetch *m)
{
    uint32_t expert = (uint32_t)m->expert;
    struct msg_not_held answer_not_held = {
        .call = m->call, .epoch = w->epoch, .layer = m->layer, .n_expert = 1, .expert = &expert};
    struct frames f;
    frames_init(&f);
    w->stats.not_held++;
    msg_build_not_held(&f, &answer_not_held);
    answer(w, to, &f);
}

void fetch_take(struct fetch *f, const struct sock_peer *from, const struct msg_fetch *m)
{
    char text[160];
    const struct tensor *t = tensor_find(f, m, text, sizeof(text));
    if (!t) {
        answer_error(f->w, from, m->call, WIRE_MALFORMED, text);
        return;
    }
    if (!expert_set_get(f->w->set, m->layer, m->expert)) {
        not_held(f->w, from, m);
        return;
    }
    if (f->n == RING_MAX || waiting_of(f, from) >= PEER_MAX) {
        answer_error(f->w, from, m->call, WIRE_BUSY, "too many pieces are waited for");
        return;
    }
    if (m->offset == 0 && m->bytes)
        checkpoint_want(f->w->model->ck, t);
    f->ring[(f->first + f->n++) % RING_MAX] = (struct waiting){
        .to = *from, .fetch = *m, .tensor = t, .arrived_ns = clock_now(&clock_real)};
    if (!ev_is_active(&f->timer))
        timer_set(f, 0.0);
}

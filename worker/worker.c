/* worker: the loop of one worker. A message is parsed where it arrives and, if it is a request,
 * waits in the queue of its layer; when the socket is drained, everything that waits for the layer
 * of the oldest request is computed as one batch and answered.
 *
 *     on_message: parse -> Hello: check, know the peer, Welcome
 *                       -> ExpertRequest: credits, experts held -> queue
 *                       -> Ping: answer
 *                       -> Assign: load and drop (assign.c), Assigned
 *                       -> Fetch: a piece of a tensor, by and by (fetch.c)
 *                       -> anything else or malformed: Error, counted, a log line a second at most
 *     on_check:   queue -> batch_run -> replies
 *
 * 1. A request is answered once: by ExpertReply, NotHeld or Error.
 * 2. A peer with requests in the queue stays in the table of peers (peers_reap spares it).
 * 3. Nothing of a request is kept when it has been answered. */
#include "worker/worker_state.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/report.h"
#include "worker/gpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CREDITS_DEFAULT   8
#define ROW_LIMIT_DEFAULT 4096
#define SPIN_US_DEFAULT   20
#define PEERS_MAX         4096
#define REAP_S            10.0
#define PEER_SILENT_NS    (120 * NS_PER_S)

/* ---- messages ---- */

/* is_guest: the caller has no experts to compare; it is here to fetch them. */
static int is_guest(const struct msg_hello *m)
{
    return m->fingerprint.lo == 0 && m->fingerprint.hi == 0;
}

/* hello_check: is this a coordinator of the same model in the same precision? */
static enum wire_error hello_check(const struct worker *w, const struct msg_hello *m, char *text,
                                   size_t size)
{
    char ours[33], theirs[33];
    hash_hex(w->model->fingerprint, ours);
    hash_hex(m->fingerprint, theirs);
    if (!is_guest(m) && !hash_equal(w->model->fingerprint, m->fingerprint)) {
        snprintf(
            text, size,
            "worker %.64s holds model %s, you run model %s; start both with the same checkpoint",
            w->name, ours, theirs);
        return WIRE_FINGERPRINT;
    }
    if (m->n_layer != w->shape.n_layer || m->n_expert != w->shape.n_expert ||
        m->d_wire != w->shape.d_wire) {
        snprintf(text, size,
                 "worker %.64s has %d layers, %d experts, rows of %d; you say %d, %d, %d", w->name,
                 w->shape.n_layer, w->shape.n_expert, w->shape.d_wire, m->n_layer, m->n_expert,
                 m->d_wire);
        return WIRE_MALFORMED;
    }
    if (!is_guest(m) && m->dtype != w->shape.dtype) {
        snprintf(text, size,
                 "worker %.64s computes in %s, you run in %s; start both with the same --precision",
                 w->name, dtype_name(w->shape.dtype), dtype_name(m->dtype));
        return WIRE_DTYPE;
    }
    char numerics[NUMERICS_BYTES];
    model_numerics(w->model, w->precision, w->kernels, numerics);
    const char *our_rows = numerics_activations(numerics);
    const char *their_rows = numerics_activations(m->numerics);
    if (!is_guest(m) && strcmp(our_rows, their_rows) != 0) {
        snprintf(
            text, size,
            "worker %.64s makes activations %s, you %s; start both with the same --activations",
            w->name, our_rows, their_rows);
        return WIRE_DTYPE;
    }
    return 0;
}

uint64_t worker_available(const struct worker *w)
{
    uint64_t has = w->gpu ? gpu_available(w->gpu) : memory_available(),
             limit = (uint64_t)w->memory_bytes;
    uint64_t used = expert_set_bytes(w->set), left = used < limit ? limit - used : 1;
    return limit > 0 && (has == 0 || left < has) ? left : has;
}

static void answer_welcome(struct worker *w, struct peer *peer)
{
    struct msg_welcome m = {.fingerprint = w->model->fingerprint,
                            .incarnation = w->incarnation,
                            .epoch = w->epoch,
                            .dtype = w->shape.dtype,
                            .credits = w->credits,
                            .row_limit = w->shape.row_limit,
                            .threads = team_size(w->team),
                            .held = w->held,
                            .held_bytes = w->held_bytes,
                            .resident = memory_resident(),
                            .available = worker_available(w),
                            .fp8 = w->shape.fp8};
    snprintf(m.name, sizeof(m.name), "%s", w->name);
    model_numerics(w->model, w->precision, w->kernels, m.numerics);
    if (!peer->guest)
        near_offer(w->near, peer, &m.offer);
    struct frames f;
    frames_init(&f);
    msg_build_welcome(&f, &m);
    answer(w, &peer->id, &f);
}

static void on_hello(struct worker *w, const struct sock_peer *from, const struct msg_hello *m)
{
    char text[sizeof(((struct msg_error *)0)->text)];
    enum wire_error fault = hello_check(w, m, text, sizeof(text));
    if (fault) {
        answer_error(w, from, 0, fault, text);
        return;
    }
    struct peer *peer = peers_add(w->peers, from);
    if (!peer) {
        answer_error(w, from, 0, WIRE_BUSY, "this worker serves as many coordinators as it can");
        return;
    }
    if (peer->incarnation != m->incarnation)
        log_info("worker", "%s: coordinator %s says Hello", w->name, m->name);
    peer->incarnation = m->incarnation;
    peer->guest = is_guest(m);
    peer->seen_ns = clock_now(&clock_real);
    snprintf(peer->name, sizeof(peer->name), "%s", m->name);
    answer_welcome(w, peer);
}

static void on_ping(struct worker *w, const struct sock_peer *from, const struct msg_ping *m)
{
    if (m->reply)
        return;
    struct msg_ping pong = {.nonce = m->nonce,
                            .epoch = w->epoch,
                            .reply = 1,
                            .queued = queue_count(w->queue),
                            .resident = memory_resident(),
                            .available = worker_available(w)};
    struct frames f;
    frames_init(&f);
    msg_build_ping(&f, &pong);
    answer(w, from, &f);
}

/* check_held answers with NotHeld when an expert asked for is not here. 1 when all are. */
static int check_held(struct worker *w, const struct peer *peer, const struct msg_request *m)
{
    int n = 0;
    for (int s = 0; s < m->n_seg; s++)
        if (!expert_set_get(w->set, m->layer, (int)m->seg_expert[s]))
            w->missing[n++] = m->seg_expert[s];
    if (n == 0)
        return 1;
    struct msg_not_held not_held = {
        .call = m->call, .epoch = w->epoch, .layer = m->layer, .n_expert = n, .expert = w->missing};
    struct frames f;
    frames_init(&f);
    w->stats.not_held++;
    msg_build_not_held(&f, &not_held);
    answer(w, &peer->id, &f);
    return 0;
}

/* on_request: 1 when the job went to the queue. */
static int on_request(struct worker *w, struct peer *peer, struct job *job)
{
    const struct msg_request *m = &job->msg.u.request;
    char text[160];
    if (!w->model->desc.layer[m->layer].sparse) {
        snprintf(text, sizeof(text), "ExpertRequest.layer is %d, a dense layer: it has no experts",
                 m->layer);
        answer_error(w, &peer->id, m->call, WIRE_MALFORMED, text);
        return 0;
    }
    if (peer->outstanding >= w->credits) {
        snprintf(text, sizeof(text), "%d requests are outstanding; the credits of Welcome are %d",
                 peer->outstanding, w->credits);
        answer_error(w, &peer->id, m->call, WIRE_BUSY, text);
        return 0;
    }
    if (!check_held(w, peer, m))
        return 0;
    if (job_rows_in(w, job)) {
        answer_error(w, &peer->id, m->call, WIRE_INTERNAL, "no memory for the rows");
        return 0;
    }
    job->peer = peer;
    peer->outstanding++;
    w->stats.requests++;
    queue_push(w->queue, job);
    return 1;
}

/* dispatch: 1 when the job was kept. */
static int dispatch(struct worker *w, const struct sock_peer *from, struct peer *peer,
                    struct job *job)
{
    enum msg_kind kind = job->msg.kind;
    if (peer && peer->guest && (kind == MSG_REQUEST || kind == MSG_ASSIGN)) {
        answer_error(w, from, kind == MSG_REQUEST ? job->msg.u.request.call : 0, WIRE_FINGERPRINT,
                     "a guest may only fetch; say Hello with the model's fingerprint");
        return 0;
    }
    switch (kind) {
    case MSG_HELLO:
        on_hello(w, from, &job->msg.u.hello);
        return 0;
    case MSG_PING:
        on_ping(w, from, &job->msg.u.ping);
        return 0;
    case MSG_REQUEST:
        return on_request(w, peer, job);
    case MSG_FETCH:
        fetch_take(w->fetch, from, &job->msg.u.fetch);
        return 0;
    case MSG_ASSIGN:
        assign_take(w->assign, from, &job->msg.u.assign);
        return 0;
    case MSG_ERROR:
        complain(w, peer_name(peer), job->msg.u.error.text);
        return 0;
    default:
        answer_error(w, from, 0, WIRE_MALFORMED,
                     "a worker takes Hello, ExpertRequest, Ping, Assign and Fetch, nothing else");
        return 0;
    }
}

/* The frames move first: ZeroMQ keeps small frames inside the struct, and the message points there.
 */
void worker_take(struct worker *w, const struct sock_peer *from, struct frames *f)
{
    struct job *job = job_new(w->queue);
    if (!job) {
        answer_error(w, from, 0, WIRE_INTERNAL, "no memory to take the message");
        return;
    }
    job->arrived_ns = clock_now(&clock_real);
    frames_move(&job->frames, f);
    struct peer *peer = peers_find(w->peers, from);
    struct err err = {0};
    uint64_t call = 0;
    int kept = 0;
    if (peer)
        peer->seen_ns = job->arrived_ns;
    if (msg_parse(&job->frames, peer ? &w->shape : NULL, &job->msg, &call, &err) == 0)
        kept = dispatch(w, from, peer, job);
    else if (job->msg.kind == MSG_ERROR) /* is never answered: two sides could go on for ever */
        complain(w, peer_name(peer), err.text);
    else
        answer_error(w, from, call, job->msg.fault, err.text);
    if (!kept)
        job_done(w->queue, job);
}

static void on_message(void *user, struct sock *sock, const struct sock_peer *from,
                       struct frames *f)
{
    (void)sock;
    struct worker *w = user;
    struct peer *peer = w->near ? peers_find(w->peers, from) : NULL;
    if (peer)
        near_drain(w->near, peer); /* what it said before */
    worker_take(w, from, f);
}

/* ---- the loop ---- */

static void on_idle(struct ev_loop *loop, ev_idle *watcher, int revents)
{
    (void)loop;
    (void)watcher;
    (void)revents;
}

/* on_check comes after the socket's own (it has the lowest priority): what arrived is in the queue.
 * While more waits the idle watcher keeps the loop from sleeping. */
static void on_check(struct ev_loop *loop, ev_check *watcher, int revents)
{
    (void)revents;
    struct worker *w = watcher->data;
    if (queue_count(w->queue))
        batch_run(w);
    if (queue_count(w->queue))
        ev_idle_start(loop, &w->idle);
    else
        ev_idle_stop(loop, &w->idle);
}

static void on_reap(struct ev_loop *loop, ev_timer *watcher, int revents)
{
    (void)loop;
    (void)revents;
    struct worker *w = watcher->data;
    peers_reap(w->peers, clock_now(&clock_real) - PEER_SILENT_NS);
}

static void watch(struct worker *w)
{
    ev_check_init(&w->check, on_check);
    ev_idle_init(&w->idle, on_idle);
    ev_timer_init(&w->reaper, on_reap, REAP_S, REAP_S);
    ev_set_priority(&w->check, EV_MINPRI);
    w->check.data = w->reaper.data = w;
    ev_check_start(w->loop, &w->check);
    ev_timer_start(w->loop, &w->reaper);
}

void worker_finish(struct worker *w)
{
    /* Once more around the loop, for what has arrived; what arrives later belongs to nobody. */
    ev_run(w->loop, EVRUN_NOWAIT);
    while (queue_count(w->queue))
        batch_run(w);
}

/* ---- life ---- */

static int listen_as(struct worker *w, const struct worker_config *c, void *zmq_context,
                     struct err *err)
{
    const struct wire_shape *s = &w->shape;
    int64_t rows_bytes = (int64_t)s->row_limit * s->d_wire * (int64_t)dtype_bytes(s->dtype);
    int64_t index_bytes = (int64_t)s->row_limit * s->top_k * 4;
    int64_t most = rows_bytes > index_bytes ? rows_bytes : index_bytes;
    struct sock_config config = {.kind = SOCK_SERVE,
                                 .endpoint = c->listen,
                                 .keys = c->keys,
                                 .insecure = c->insecure,
                                 /* ZeroMQ lets a peer on at half the mark */
                                 .hwm = 2 * (w->credits + 8),
                                 .message_bytes_max =
                                     most > LIMIT_HEADER_BYTES ? most : LIMIT_HEADER_BYTES};
    return sock_open(zmq_context, w->loop, &config, on_message, w, &w->sock, err);
}

static int settings_check(const struct worker_config *config, struct err *err)
{
    const struct model_desc *desc = &config->model->desc;
    if (desc->n_expert <= 0 || desc_n_sparse(desc) == 0)
        return err_set(err, ERR_MODEL,
                       "%s is a dense model: it has no experts for a worker to hold",
                       config->model->dir);
    if (config->credits < 0 || config->credits > LIMIT_CREDITS)
        return err_set(err, ERR_USAGE, "credits are %d; give from 1 to %d", config->credits,
                       LIMIT_CREDITS);
    if (config->row_limit < 0 || config->row_limit > LIMIT_ROWS)
        return err_set(err, ERR_USAGE, "the row limit is %d; give from 1 to %d", config->row_limit,
                       LIMIT_ROWS);
    return 0;
}

static void settings_take(struct worker *w, const struct worker_config *config,
                          struct ev_loop *loop)
{
    const struct model_desc *desc = &config->model->desc;
    w->model = config->model;
    w->kernels = config->kernels;
    w->credits = config->credits ? config->credits : CREDITS_DEFAULT;
    w->shape =
        (struct wire_shape){.n_layer = desc->n_layer,
                            .n_expert = desc->n_expert,
                            .d_wire = desc->d_model,
                            .row_limit = config->row_limit ? config->row_limit : ROW_LIMIT_DEFAULT,
                            .top_k = desc->top_k,
                            .dtype = precision_dtype(config->precision),
                            .fp8 = config->precision == PRECISION_BF16};
    w->precision = config->precision;
    w->fixed = config->fixed;
    w->memory_bytes = config->memory_bytes;
    w->gpu = config->gpu;
    w->incarnation = incarnation_new();
    w->loop = loop;
    snprintf(w->name, sizeof(w->name), "%s", config->name ? config->name : config->listen);
}

static int tables_create(struct worker *w, const struct worker_config *config, struct err *err)
{
    size_t n_expert = (size_t)w->shape.n_expert;
    w->held_bytes = ((size_t)w->shape.n_layer * n_expert + 7) / 8;
    w->held = calloc(1, w->held_bytes);
    w->missing = calloc(n_expert, sizeof(*w->missing));
    w->bufs = wirebuf_pool_create();
    w->peers = peers_create(PEERS_MAX);
    w->queue = queue_create(w->shape.n_layer);
    if (!w->held || !w->missing || !w->bufs || !w->peers || !w->queue || batch_reserve(w, 16))
        return err_set(err, ERR_NOMEM, "no memory for a worker's tables");
    if (!config->team)
        w->own_team = team_create(config->n_thread, config->spin_us);
    w->team = config->team ? config->team : w->own_team;
    if (!w->team)
        return err_set(err, ERR_NOMEM, "the system refuses %d threads; give fewer with --threads",
                       config->n_thread);
    int rc = compute_create(w->model, config->precision, w->kernels, w->team, &w->compute, err);
    if (rc == 0)
        compute_on(w->compute, w->gpu);
    return rc;
}

static void held_fill(struct worker *w)
{
    for (int layer = 0; layer < w->shape.n_layer; layer++)
        for (int e = 0; e < w->shape.n_expert; e++) {
            size_t bit = (size_t)layer * (size_t)w->shape.n_expert + (size_t)e;
            if (expert_set_get(w->set, layer, e))
                w->held[bit / 8] = (uint8_t)(w->held[bit / 8] | 1u << bit % 8);
        }
    w->epoch++;
}

/* limit_check: what it is started with is within its own limit. */
static int limit_check(const struct worker *w, const struct worker_config *config, struct err *err)
{
    const struct model_desc *desc = &w->model->desc;
    uint64_t n = 0, each = weights_expert_bytes(desc, config->precision);
    for (int i = 0; i < desc->n_layer * desc->n_expert; i++)
        n += desc->layer[i / desc->n_expert].sparse && (!config->held || config->held[i]);
    if (config->memory_bytes == 0 || n <= (uint64_t)config->memory_bytes / each)
        return 0;
    char need[32], has[32];
    return err_set(err, ERR_USAGE,
                   "%llu experts need %s, --memory is %s; hold fewer with --experts",
                   (unsigned long long)n, human_bytes((double)(n * each), need, sizeof(need)),
                   human_bytes((double)config->memory_bytes, has, sizeof(has)));
}

/* The address is bound first: an occupied port should be told before an hour of loading, and what
 * coordinators send meanwhile waits in ZeroMQ, within its mark. */
static int open_all(struct worker *w, const struct worker_config *config, void *zmq_context,
                    struct err *err)
{
    int rc = tables_create(w, config, err);
    rc = rc ? rc : listen_as(w, config, zmq_context, err);
    rc = rc ? rc : expert_set_create(w->model, config->precision, &w->set, err);
    if (!rc && w->gpu)
        expert_set_home(w->set, gpu_home(w->gpu));
    rc = rc ? rc : limit_check(w, config, err);
    rc = rc ? rc : held_load(w->set, &w->model->desc, config->held, w->team, err);
    if (rc)
        return rc;
    expert_set_beside(w->set);
    if (!config->name)
        snprintf(w->name, sizeof(w->name), "%s", sock_endpoint(w->sock));
    held_fill(w);
    w->assign = assign_create(w);
    if (!w->assign)
        return err_set(err, ERR_NOMEM, "no memory for a worker's assignments");
    int64_t bytes_s = config->fetch_bytes_s ? config->fetch_bytes_s : FETCH_BYTES_S;
    w->fetch = fetch_create(w, bytes_s > 0 ? bytes_s : 0);
    if (!w->fetch)
        return err_set(err, ERR_NOMEM, "no memory for a worker's pieces");
    if (!config->no_shm && strncmp(config->listen, "inproc://", 9) != 0)
        w->near = near_create(w, config->spin_us < 0 ? SPIN_US_DEFAULT : config->spin_us);
    watch(w);
    return 0;
}

int worker_create(const struct worker_config *config, void *zmq_context, struct ev_loop *loop,
                  struct worker **out, struct err *err)
{
    int rc = settings_check(config, err);
    if (rc)
        return rc;
    struct worker *w = calloc(1, sizeof(*w));
    if (!w)
        return err_set(err, ERR_NOMEM, "no memory for a worker");
    settings_take(w, config, loop);
    rc = open_all(w, config, zmq_context, err);
    if (rc) {
        worker_destroy(w);
        return rc;
    }
    *out = w;
    return 0;
}

void worker_destroy(struct worker *w)
{
    if (!w)
        return;
    ev_check_stop(w->loop, &w->check);
    ev_idle_stop(w->loop, &w->idle);
    ev_timer_stop(w->loop, &w->reaper);
    assign_destroy(w->assign);
    fetch_destroy(w->fetch);
    sock_close(w->sock);
    queue_destroy(w->queue);
    peers_destroy(w->peers);
    near_destroy(w->near);
    wirebuf_pool_destroy(w->bufs);
    compute_destroy(w->compute);
    expert_set_destroy(w->set);
    team_destroy(w->own_team);
    free(w->item);
    free(w->missing);
    free(w->held);
    free(w);
}

struct sock *worker_sock(const struct worker *w)
{
    return w->sock;
}

const char *worker_endpoint(const struct worker *w)
{
    return sock_endpoint(w->sock);
}

void worker_stats_get(const struct worker *w, struct worker_stats *out)
{
    struct sock_stats sock;
    struct near_stats near;
    sock_stats_get(w->sock, &sock);
    *out = w->stats;
    near_stats_get(w->near, &near);
    out->bytes_in = sock.bytes_received + near.bytes_in;
    out->bytes_out = sock.bytes_sent + near.bytes_out;
    out->peers = peers_count(w->peers);
    out->queued = queue_count(w->queue);
    out->experts = expert_set_count(w->set);
    out->experts_mapped = expert_set_mapped(w->set);
    out->expert_bytes = expert_set_bytes(w->set);
}

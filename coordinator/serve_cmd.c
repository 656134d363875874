/* serve_cmd: `sigmoe serve`. This thread answers HTTP from the first moment, with 503 until the
 * model is there; a second one reads the model and starts workers, and stays until the end, because
 * a worker process ends with the thread that started it. SIGTERM or SIGINT: no new connections,
 * running requests finish within the shutdown time; a second signal ends at once. SIGHUP: the keys
 * are read again. */
#include "coordinator/serve.h"

#include "base/log.h"
#include "coordinator/admin.h"
#include "coordinator/api.h"
#include "coordinator/page.h"
#include "coordinator/serve_options.h"
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* The thread that has the model. */
struct loader {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t ended;
    int started, end;
    ev_async done;
    int rc; /* written before `done` is sent */
    struct err err;
};

struct serve {
    struct serve_options options;
    struct host host;
    struct chat_template *chat;
    struct loader loader;
    struct ev_loop *loop;
    struct service *service;
    struct http_server *http;
    struct control *control;
    struct admin *admin;
    struct api api;
    char *key[KEYS_MAX];
    char name[256];
    int n_key, rc;
    struct err *err; /* the caller's */
    ev_signal on_term, on_int, on_hangup;
    ev_timer drain;
    int64_t drain_until_ns;
};

/* The folder's name, as people call their models. */
static void name_model(struct serve *s)
{
    char path[4096];
    const char *from = s->options.name;
    if (from == NULL) {
        from = realpath(s->options.dir, path) != NULL ? path : s->options.dir;
        const char *slash = strrchr(from, '/');
        from = slash != NULL && slash[1] != 0 ? slash + 1 : from;
    }
    snprintf(s->name, sizeof s->name, "%.255s", from);
}

/* ---- the model ------------------------------------------------------------------------------- */

/* Positions of the KV cache when nobody says how many: room for all sequences at their longest, as
 * far as a quarter of the machine's memory goes (pages are the system's until they are used), but
 * for one at least. */
static int kv_tokens_for(const struct model_desc *d, const struct host_options *o)
{
    struct kv_layout layout = {o->kv_dtype, d->n_kv_head, d->d_head};
    int64_t each = 2 * (int64_t)d->n_layer * (int64_t)(kv_page_bytes(&layout) / KV_PAGE);
    int64_t memory = (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
    int64_t want = o->seqs_max * d->max_context, fit = memory / 4 / each;
    want = want > 16384 ? want : 16384;
    want = want < fit ? want : fit;
    want = want > d->max_context ? want : d->max_context;
    return want < LIMIT_CONTEXT ? (int)want : LIMIT_CONTEXT;
}

static int load(struct serve *s, struct err *err)
{
    const struct serve_options *o = &s->options;
    int rc = host_open(&s->host, o->dir, err);
    if (rc == 0 && s->host.tok == NULL) {
        rc =
            err_set(err, ERR_MODEL,
                    "%s has no tokenizer (tokenizer.json, tokenizer.model or tok512.bin); to serve "
                    "text it needs one",
                    o->dir);
    }
    const char *source = rc == 0 ? tokenizer_chat_template(s->host.tok) : NULL;
    if (source != NULL) {
        rc = chat_template_compile(source, &s->chat, err);
    }
    if (rc == 0) {
        int kv = kv_tokens_for(&s->host.model->desc, &o->model);
        rc = host_start(&s->host, &o->model, kv, (int)o->queue, err);
    }
    return rc;
}

static void *loader_main(void *arg)
{
    struct serve *s = arg;
    struct loader *l = &s->loader;
    l->rc = load(s, &l->err);
    ev_async_send(s->loop, &l->done);
    pthread_mutex_lock(&l->lock);
    while (!l->end) {
        pthread_cond_wait(&l->ended, &l->lock);
    }
    pthread_mutex_unlock(&l->lock);
    host_close(&s->host);
    chat_template_free(s->chat);
    return NULL;
}

static void loader_end(struct loader *l)
{
    if (!l->started) {
        return;
    }
    pthread_mutex_lock(&l->lock);
    l->end = 1;
    pthread_cond_signal(&l->ended);
    pthread_mutex_unlock(&l->lock);
    pthread_join(l->thread, NULL);
    pthread_cond_destroy(&l->ended);
    pthread_mutex_destroy(&l->lock);
}

static void url_of(const struct serve *s, char *out, size_t size)
{
    const char *host = s->options.host;
    snprintf(out, size, strchr(host, ':') != NULL ? "http://[%s]:%d" : "http://%s:%d", host,
             http_server_port(s->http));
}

static void say_ready(const struct serve *s)
{
    const struct model_desc *d = &s->host.model->desc;
    struct engine_stats stats;
    char url[300];
    engine_stats_get(s->host.engine, &stats);
    url_of(s, url, sizeof url);
    fprintf(
        stderr,
        "%s: %s, %d layers, %d experts, context %d, %s; KV cache of %d positions in %s, %zu MiB\n"
        "try  curl %s/v1/completions -d '{\"prompt\": \"Once upon a time\", \"max_tokens\": 32}'\n",
        s->name, d->family, d->n_layer, d->n_expert, d->max_context, s->host.kernels->name,
        stats.kv_pages * KV_PAGE, dtype_name(stats.kv_dtype), stats.kv_bytes >> 20, url);
    printf("ready %s\n", url);
    fflush(stdout);
}

static int open_admin(struct serve *s, struct err *err)
{
    char path[512];
    admin_path_default(http_server_port(s->http), path, sizeof path);
    const char *at = s->options.admin != NULL ? s->options.admin : path;
    return strcmp(at, "none") == 0 ? 0 : admin_open(at, s->loop, s->control, &s->admin, err);
}

static int start_service(struct serve *s, struct err *err)
{
    struct pool *pool = host_pool(&s->host);
    struct control_config cc = {.pool = pool,
                                .engine = s->host.engine,
                                .desc = &s->host.model->desc,
                                .precision = s->options.model.precision,
                                .clock = &clock_real,
                                .loop = s->loop,
                                .rebalance_every_ns =
                                    (int64_t)(s->options.rebalance_s * (double)NS_PER_S)};
    int rc = control_create(&cc, &s->control, err);
    if (rc != 0) {
        return rc;
    }
    struct service_config sc = {.engine = s->host.engine,
                                .pool = pool,
                                .tick = control_tick,
                                .tick_user = s->control,
                                .tok = s->host.tok,
                                .desc = &s->host.model->desc,
                                .clock = &clock_real};
    rc = service_create(&sc, s->loop, &s->service, err);
    return rc != 0 ? rc : open_admin(s, err);
}

/* The model is there: from now on requests are taken. */
static void on_loaded(struct ev_loop *loop, ev_async *w, int revents)
{
    struct serve *s = w->data;
    (void)revents;
    s->rc = s->loader.rc;
    if (s->rc == 0) {
        s->rc = start_service(s, s->err);
    } else {
        *s->err = s->loader.err;
    }
    if (s->rc != 0) {
        ev_break(loop, EVBREAK_ALL);
        return;
    }
    struct api *api = &s->api;
    api->model = s->host.model;
    api->activations = model_activations(s->host.model, s->options.model.precision);
    api->numerics = s->host.numerics;
    api->kernels = s->host.kernels;
    api->tok = s->host.tok;
    api->chat = s->chat;
    api_open(api);
    api->service = s->service;
    api->control = s->control;
    say_ready(s);
}

static int loader_start(struct serve *s, struct err *err)
{
    struct loader *l = &s->loader;
    ev_async_init(&l->done, on_loaded);
    l->done.data = s;
    ev_async_start(s->loop, &l->done);
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->ended, NULL);
    if (pthread_create(&l->thread, NULL, loader_main, s) != 0) {
        return err_set(err, ERR_NOMEM, "cannot start a thread");
    }
    l->started = 1;
    return 0;
}

/* ---- signals --------------------------------------------------------------------------------- */

static void on_drain(struct ev_loop *loop, ev_timer *w, int revents)
{
    struct serve *s = w->data;
    (void)revents;
    if (s->api.counts.running == 0 || clock_now(&clock_real) >= s->drain_until_ns) {
        ev_break(loop, EVBREAK_ALL);
    }
}

static void on_signal(struct ev_loop *loop, ev_signal *w, int revents)
{
    struct serve *s = w->data;
    (void)revents;
    if (s->service == NULL) {
        /* Loading cannot be interrupted, but there is nothing to lose: workers go with us. */
        log_info("serve", "ending before the model was loaded");
        _exit(w->signum == SIGINT ? 130 : 0);
    }
    if (ev_is_active(&s->drain)) {
        ev_break(loop, EVBREAK_ALL);
        return;
    }
    log_info("serve", "ending: %d requests may finish within %g s", s->api.counts.running,
             s->options.shutdown_s);
    http_server_stop_accepting(s->http);
    s->drain_until_ns =
        clock_now(&clock_real) + (int64_t)(s->options.shutdown_s * (double)NS_PER_S);
    ev_timer_init(&s->drain, on_drain, 0.0, 0.05);
    s->drain.data = s;
    ev_timer_start(loop, &s->drain);
}

/* The keys are read again; requests that run have shown theirs. */
static void on_hangup(struct ev_loop *loop, ev_signal *w, int revents)
{
    struct serve *s = w->data;
    struct err err = {0};
    char *key[KEYS_MAX];
    int n = serve_keys_read(&s->options, key, &err);
    (void)loop;
    (void)revents;
    if (n < 0) {
        log_error("serve", "SIGHUP: %s; the keys stay as they are", err.text);
        return;
    }
    for (int i = 0; i < s->n_key; i++) {
        free(s->key[i]);
    }
    memcpy(s->key, key, (size_t)n * sizeof *key);
    s->n_key = s->api.n_key = n;
    log_info("serve", "SIGHUP: %d keys of the interface", n);
}

/* In a terminal SIGHUP ends the server, as always: it has no terminal any more. */
static void watch_signals(struct serve *s)
{
    signal(SIGPIPE, SIG_IGN);
    ev_signal_init(&s->on_term, on_signal, SIGTERM);
    ev_signal_init(&s->on_int, on_signal, SIGINT);
    s->on_term.data = s->on_int.data = s;
    ev_signal_start(s->loop, &s->on_term);
    ev_signal_start(s->loop, &s->on_int);
    ev_signal_init(&s->on_hangup, on_hangup, SIGHUP);
    s->on_hangup.data = s;
    if (!isatty(STDIN_FILENO)) {
        ev_signal_start(s->loop, &s->on_hangup);
    }
}

/* ---- life ------------------------------------------------------------------------------------ */

static void init_api(struct serve *s)
{
    const struct serve_options *o = &s->options;
    s->api = (struct api){.model_name = s->name,
                          .key = s->key,
                          .n_key = s->n_key,
                          .cors_origin = o->cors,
                          .host = o->allow_host.at,
                          .n_host = o->allow_host.n,
                          .check_host = serve_is_loopback(o->host),
                          .n_choice_max = (int)o->choices,
                          .prompts_max = (int)o->prompts,
                          .sequences_max = (int)o->queue,
                          .ping_s = o->ping_s,
                          .asset = page_assets,
                          .n_asset = page_n_asset,
                          .precision = o->model.precision_name,
                          .route = o->model.route,
                          .created = (int64_t)time(NULL),
                          .start_ns = clock_now(&clock_real),
                          .loop = s->loop};
    api_counts_init(&s->api.counts);
}

static int start_http(struct serve *s, struct err *err)
{
    const struct serve_options *o = &s->options;
    char url[300];
    struct http_config hc = {.host = o->host,
                             .port = (int)o->port,
                             .body_bytes_max = (size_t)o->body_bytes,
                             .conns_max = (int)o->conns,
                             .conns_per_peer_max = (int)o->conns,
                             .head_timeout_s = 10,
                             .body_timeout_s = 60,
                             .idle_timeout_s = 120,
                             .write_stall_s = 60,
                             .backlog = 256,
                             .write_buffer_max = 8 << 20};
    init_api(s);
    int rc = http_server_create(s->loop, &hc, api_handle, &s->api, &s->http, err);
    if (rc != 0) {
        return rc;
    }
    url_of(s, url, sizeof url);
    log_info("serve", "%s listens, loading %s", url, o->dir);
    if (s->n_key == 0 && !s->api.check_host) {
        log_warn("serve",
                 "%s can be reached from other machines and asks for no key; give "
                 "--api-key-file FILE",
                 url);
    }
    return 0;
}

static int serve(struct serve *s, struct err *err)
{
    int rc = serve_keys_read(&s->options, s->key, err);
    s->n_key = rc > 0 ? rc : 0;
    if (rc < 0) {
        return rc;
    }
    s->err = err;
    name_model(s);
    s->loop = ev_loop_new(EVFLAG_NOENV);
    rc = s->loop == NULL ? err_set(err, ERR_NOMEM, "no event loop") : start_http(s, err);
    if (rc == 0) {
        watch_signals(s);
        rc = loader_start(s, err);
    }
    if (rc == 0) {
        ev_run(s->loop, 0);
        rc = s->rc;
    }
    return rc;
}

static void close_serve(struct serve *s)
{
    http_server_destroy(s->http);
    service_destroy(s->service);
    control_destroy(s->control); /* answers who still waits */
    admin_close(s->admin);
    if (s->loop != NULL) {
        api_close(&s->api);
    }
    loader_end(&s->loader);
    for (int i = 0; i < s->n_key; i++) {
        free(s->key[i]);
    }
    if (s->loop != NULL) {
        ev_loop_destroy(s->loop);
    }
}

int cmd_serve(int argc, char **argv)
{
    struct serve *s = calloc(1, sizeof *s);
    struct err err = {0};
    int rc = s == NULL ? err_set(&err, ERR_NOMEM, "no memory")
                       : serve_options_parse(argc, argv, &s->options, &err);
    if (rc == 1) {
        free(s);
        return 0;
    }
    if (rc == 0) {
        rc = serve(s, &err);
    }
    if (s != NULL) {
        close_serve(s);
    }
    free(s);
    if (rc != 0) {
        fprintf(stderr, "sigmoe serve: %s\n", err.text);
    }
    return err_exit_code(rc);
}

/* serve_cmd: `sigmoe serve`. Makes the model ready, puts the engine on its thread and answers HTTP
 * on this one. SIGTERM or SIGINT: no new connections, running requests finish within the shutdown
 * time; a second signal ends at once. */
#include "coordinator/serve.h"

#include "base/log.h"
#include "coordinator/admin.h"
#include "coordinator/api.h"
#include "coordinator/host.h"
#include "coordinator/page.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct serve_options {
    const char *dir, *host, *name, *key_file, *cors, *admin;
    int64_t port, body_bytes, conns, queue, choices, prompts;
    double shutdown_s;
    struct host_options model;
};

struct serve {
    struct serve_options options;
    struct host host;
    struct ev_loop *loop;
    struct service *service;
    struct http_server *http;
    struct control *control;
    struct admin *admin;
    struct chat_template *chat;
    struct api api;
    char key[256], name[256];
    ev_signal on_term, on_int;
    ev_timer drain;
    int64_t drain_until_ns;
};

static const char about[] =
    "Serves a model over HTTP with OpenAI's interface: /v1/chat/completions, /v1/completions,\n"
    "/v1/models, /tokenize, /detokenize, /health, /ready, /metrics. Listens on loopback unless\n"
    "--host says otherwise; give a key (--api-key-file) before you do that.\n"
    "\n"
    "  sigmoe serve ./olmoe --workers 2 --transport tcp --port 8000\n"
    "  curl http://127.0.0.1:8000/v1/completions -d '{\"prompt\": \"Once upon a time\"}'";

/* ---- options --------------------------------------------------------------------------------- */

static int parse(int argc, char **argv, struct serve_options *o, struct err *err)
{
    *o = (struct serve_options){.host = "127.0.0.1",
                                .port = 8000,
                                .body_bytes = 8 << 20,
                                .conns = 1024,
                                .queue = 256,
                                .choices = 16,
                                .prompts = 256,
                                .shutdown_s = 30};
    struct opt opts[HOST_OPTIONS_MAX + 13] = {
        {"host", 0, OPT_STR, &o->host, "ADDRESS", "to listen on (127.0.0.1)", 0, 0},
        {"port", 'p', OPT_INT, &o->port, "N", "to listen on (8000); 0: a free one", 0, 65535},
        {"served-model-name", 0, OPT_STR, &o->name, "NAME",
         "the model's id in requests; default: the folder's name", 0, 0},
        {"api-key-file", 0, OPT_STR, &o->key_file, "FILE",
         "its first line is asked for as Authorization: Bearer KEY", 0, 0},
        {"cors-origin", 0, OPT_STR, &o->cors, "ORIGIN",
         "pages of this origin may call (default: none)", 0, 0},
        {"max-body", 0, OPT_SIZE, &o->body_bytes, "BYTES", "of a request (8M)", 1024, 1 << 30},
        {"max-conns", 0, OPT_INT, &o->conns, "N", "connections at once (1024)", 1, 100000},
        {"max-queue", 0, OPT_INT, &o->queue, "N", "sequences waiting; 429 beyond (256)", 1,
         1000000},
        {"max-choices", 0, OPT_INT, &o->choices, "N", "of a request's n (16)", 1, 1024},
        {"max-prompts", 0, OPT_INT, &o->prompts, "N", "prompts in one request (256)", 1, 65536},
        {"shutdown-timeout", 0, OPT_FLOAT, &o->shutdown_s, "S",
         "that running requests get after SIGTERM (30)", 0, 86400},
        {"admin", 0, OPT_STR, &o->admin, "PATH",
         "socket for sigmoe status, drain, join and rebalance; none: no socket\n"
         "(default: sigmoe-PORT.sock in /run/user/UID or /tmp/sigmoe-UID)",
         0, 0},
    };
    host_options_table(&o->model, opts + 12);
    const struct opt_command cmd = {"serve", "sigmoe serve MODEL_DIR [options]", about, opts};
    int n = 1, rc = opt_parse(&cmd, argc, argv, &o->dir, &n, err);
    if (rc != 0) {
        return rc;
    }
    if (n != 1) {
        return err_set(err, ERR_USAGE, "which model? sigmoe serve MODEL_DIR");
    }
    return host_options_check(&o->model, err);
}

static int read_key(struct serve *s, struct err *err)
{
    const char *path = s->options.key_file;
    if (path == NULL) {
        return 0;
    }
    FILE *f = fopen(path, "r");
    if (f == NULL) {
        return err_sys(err, ERR_IO, "cannot read %s", path);
    }
    int got = fgets(s->key, sizeof s->key, f) != NULL;
    fclose(f);
    s->key[strcspn(s->key, "\r\n")] = 0;
    return got && s->key[0] != 0 ? 0 : err_set(err, ERR_USAGE, "%s holds no key", path);
}

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

static void watch_signals(struct serve *s)
{
    signal(SIGPIPE, SIG_IGN);
    ev_signal_init(&s->on_term, on_signal, SIGTERM);
    ev_signal_init(&s->on_int, on_signal, SIGINT);
    s->on_term.data = s->on_int.data = s;
    ev_signal_start(s->loop, &s->on_term);
    ev_signal_start(s->loop, &s->on_int);
}

/* ---- life ------------------------------------------------------------------------------------ */

static int prepare_model(struct serve *s, struct err *err)
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
        int context = s->host.model->desc.max_context;
        int kv = 4 * context < 16384 ? 16384 : context < 16384 ? 4 * context : context;
        rc = host_start(&s->host, &o->model, kv, (int)o->queue, err);
    }
    return rc;
}

static int start_http(struct serve *s, struct err *err)
{
    const struct serve_options *o = &s->options;
    int rc = control_create(host_pool(&s->host), &clock_real, s->loop, &s->control, err);
    if (rc != 0) {
        return rc;
    }
    struct service_config sc = {.engine = s->host.engine,
                                .pool = host_pool(&s->host),
                                .tick = control_tick,
                                .tick_user = s->control,
                                .tok = s->host.tok,
                                .desc = &s->host.model->desc,
                                .clock = &clock_real};
    rc = service_create(&sc, s->loop, &s->service, err);
    if (rc != 0) {
        return rc;
    }
    s->api = (struct api){.model_name = s->name,
                          .key = s->key[0] != 0 ? s->key : NULL,
                          .cors_origin = o->cors,
                          .model = s->host.model,
                          .tok = s->host.tok,
                          .chat = s->chat,
                          .service = s->service,
                          .n_choice_max = (int)o->choices,
                          .prompts_max = (int)o->prompts,
                          .asset = page_assets,
                          .n_asset = page_n_asset,
                          .created = (int64_t)time(NULL),
                          .start_ns = clock_now(&clock_real)};
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
    return http_server_create(s->loop, &hc, api_handle, &s->api, &s->http, err);
}

static int open_admin(struct serve *s, struct err *err)
{
    char path[512];
    admin_path_default(http_server_port(s->http), path, sizeof path);
    const char *at = s->options.admin != NULL ? s->options.admin : path;
    return strcmp(at, "none") == 0 ? 0 : admin_open(at, s->loop, s->control, &s->admin, err);
}

static void say_ready(const struct serve *s)
{
    const struct model_desc *d = &s->host.model->desc;
    int v6 = strchr(s->options.host, ':') != NULL, port = http_server_port(s->http);
    char url[300];
    snprintf(url, sizeof url, v6 ? "http://[%s]:%d" : "http://%s:%d", s->options.host, port);
    fprintf(
        stderr,
        "%s: %s, %d layers, %d experts, context %d, %s\n"
        "try  curl %s/v1/completions -d '{\"prompt\": \"Once upon a time\", \"max_tokens\": 32}'\n",
        s->name, d->family, d->n_layer, d->n_expert, d->max_context, s->host.kernels->name, url);
    printf("ready %s\n", url);
    fflush(stdout);
}

static int serve(struct serve *s, struct err *err)
{
    int rc = read_key(s, err);
    if (rc == 0) {
        name_model(s);
        rc = prepare_model(s, err);
    }
    if (rc == 0) {
        s->loop = ev_loop_new(EVFLAG_NOENV);
        rc = s->loop == NULL ? err_set(err, ERR_NOMEM, "no event loop") : start_http(s, err);
    }
    if (rc == 0) {
        rc = open_admin(s, err);
    }
    if (rc == 0) {
        watch_signals(s);
        say_ready(s);
        ev_run(s->loop, 0);
    }
    return rc;
}

static void close_serve(struct serve *s)
{
    if (s->http != NULL) {
        http_server_destroy(s->http);
    }
    service_destroy(s->service);
    control_destroy(s->control); /* answers who still waits */
    admin_close(s->admin);
    host_close(&s->host);
    chat_template_free(s->chat);
    if (s->loop != NULL) {
        ev_loop_destroy(s->loop);
    }
}

int cmd_serve(int argc, char **argv)
{
    struct serve *s = calloc(1, sizeof *s);
    struct err err = {0};
    int rc =
        s == NULL ? err_set(&err, ERR_NOMEM, "no memory") : parse(argc, argv, &s->options, &err);
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

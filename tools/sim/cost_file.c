/* cost_file: a calibration as JSON. Shape and precision say what the curves were measured with; the
 * hardware block is what carries over to other shapes. */
#include "tools/sim/cost.h"

#include "base/clock.h"
#include "model/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CALIBRATION_VERSION   1
#define CALIBRATION_BYTES_MAX ((size_t)4 << 20)

/* The curves by name: one table reads and writes. */
struct named_curve {
    const char *name;
    size_t offset;
    int needed;
};
#define CURVE(field, needed)                                                                       \
    {                                                                                              \
#field, offsetof(struct cost_model, field), needed                                         \
    }
static const struct named_curve curves[] = {
    CURVE(attn, 1),    CURVE(context, 1), CURVE(gate, 1),   CURVE(dense, 0),  CURVE(shared, 0),
    CURVE(combine, 1), CURVE(head, 1),    CURVE(expert, 1), CURVE(gather, 1), CURVE(one_way, 1),
    CURVE(hop, 0),     CURVE(decode, 0),  CURVE(send, 0),   CURVE(take, 0),   CURVE(answer, 0),
};
#define N_CURVE (sizeof(curves) / sizeof(curves[0]))

static struct cost_curve *curve_at(struct cost_model *cost, size_t i)
{
    return (struct cost_curve *)(void *)((char *)cost + curves[i].offset);
}

/* What must be equal for curves to hold. */
static json_t *shape_json(const struct model_desc *d, enum precision p)
{
    char weights[128] = "";
    json_t *shape =
        json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i}", "precision",
                  p == PRECISION_F32 ? "f32" : "bf16", "d_model", d->d_model, "n_head", d->n_head,
                  "n_kv_head", d->n_kv_head, "d_head", d->d_head, "d_ff", d->d_ff, "n_expert",
                  d->n_expert, "top_k", d->top_k, "d_ff_expert", d->d_ff_expert, "d_ff_shared",
                  d->d_ff_shared, "vocab", d->vocab);
    for (int i = 0; i < d->n_quant_config; i++) {
        size_t n = strlen(weights);
        snprintf(weights + n, sizeof(weights) - n, "%s%s:%d", i > 0 ? "," : "",
                 dtype_name(d->quant_config[i].dtype), d->quant_config[i].group);
    }
    if (weights[0]) /* integers; floats are as `precision` says */
        json_object_set_new(shape, "weights", json_string(weights));
    return shape;
}

/* Of bins the part that is rounded away is one over `parts`. */
static json_t *pace_json(const struct cost_pace *p, double parts)
{
    json_t *all = json_array();
    for (int cpu = 0; cpu < p->n_cpu; cpu++) {
        json_t *bins = json_array();
        for (int i = 0; i < p->n_bin; i++)
            json_array_append_new(bins, json_real(round((double)p->bin[cpu][i] * parts) / parts));
        json_array_append_new(all, bins);
    }
    return all;
}

/* What sharing a host costs; files of before it was measured have none of it. */
static json_t *sharing_json(const struct cost_model *c)
{
    json_t *memory = json_array();
    for (int i = 0; i < c->memory.n; i++)
        json_array_append_new(memory, json_pack("[f, f]", c->memory.x[i], c->memory.y[i]));
    return json_pack("{s:f, s:o, s:f, s:f, s:o, s:{s:f, s:f}, s:{s:f, s:f}}", "wake_ns", c->wake_ns,
                     "memory_bytes_per_s", memory, "piece_ns", c->piece_ns, "other_feel",
                     c->other_feel, "pace_10_ms", pace_json(&c->pace, 1e3), "server_ns", "request",
                     c->server.request_ns, "token", c->server.token_ns, "client_ns", "request",
                     c->client.request_ns, "token", c->client.token_ns);
}

static json_t *hardware_json(const struct hardware *h)
{
    return json_pack("{s:f, s:f, s:f, s:f, s:f, s:f}", "flop_per_s", h->flop_s, "bytes_per_s",
                     h->bytes_s, "overhead_ns", h->overhead_ns, "link_bytes_per_s", h->link_s,
                     "latency_ns", h->latency_ns, "message_ns", h->message_ns);
}

int cost_save(const char *path, const struct model_desc *desc, enum precision precision,
              const struct calibration *c, struct err *err)
{
    struct cost_model cost = c->cost;
    json_t *ns = json_object();
    for (size_t i = 0; i < N_CURVE; i++) {
        const struct cost_curve *curve = curve_at(&cost, i);
        json_t *points = json_array();
        for (int k = 0; k < curve->n; k++)
            json_array_append_new(points,
                                  json_pack("[f, f, f]", curve->x[k], curve->y[k],
                                            curve->y[k] > 0 ? curve->felt[k] / curve->y[k] : 1.0));
        json_object_set_new(ns, curves[i].name, points);
    }
    json_t *root = json_pack(
        "{s:i, s:{s:s, s:s, s:i, s:i, s:i}, s:s, s:s, s:s, s:o, s:o, s:f, s:f, s:f, s:f, s:f, s:o, "
        "s:o, "
        "s:o}",
        "sigmoe_calibration", CALIBRATION_VERSION, "host", "name", c->host, "isa", c->isa, "cpus",
        c->cpus, "threads", c->threads, "worker_threads", c->worker_threads, "model", c->model,
        "transport", c->transport, "activations", c->activations, "shape",
        shape_json(desc, precision), "ns", ns, "expert_call_ns", cost.expert_call_ns, "span_ns",
        cost.span_ns, "receive_ns", cost.receive_ns, "link_bytes_per_s", cost.link_s,
        "wire_value_bytes", cost.wire_bytes, "coordinator", hardware_json(&cost.coordinator),
        "worker", hardware_json(&cost.worker), "sharing", sharing_json(&cost));
    if (!root)
        return err_set(err, ERR_NOMEM, "no memory for the calibration");
    int bad = json_dump_file(root, path, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
    json_decref(root);
    return bad ? err_sys(err, ERR_IO, "cannot write %s", path) : 0;
}

static int number(const json_t *o, const char *path, const char *key, double *out, struct err *err)
{
    const json_t *v = json_object_get(o, key);
    *out = json_number_value(v);
    if (!json_is_number(v) || !isfinite(*out) || *out < 0)
        return err_set(err, ERR_MODEL, "%s: '%s' must be a number of at least 0", path, key);
    return 0;
}

static int curve_read(const json_t *of, const char *path, const char *name, int needed,
                      struct cost_curve *curve, struct err *err)
{
    const json_t *points = json_object_get(of, name), *point;
    size_t i;
    curve->n = 0;
    if (!points && !needed)
        return 0;
    if (!json_is_array(points) || (needed && json_array_size(points) == 0))
        return err_set(err, ERR_MODEL, "%s: %s must be a list of [x, y] or [x, y, felt part]", path,
                       name);
    json_array_foreach(points, i, point)
    {
        double x = json_number_value(json_array_get(point, 0));
        double y = json_number_value(json_array_get(point, 1));
        size_t n = json_array_size(point);
        double feel = n == 3 ? json_number_value(json_array_get(point, 2)) : 1;
        if (n < 2 || n > 3 || !isfinite(x) || !isfinite(y) || !isfinite(feel) ||
            cost_curve_add_felt(curve, x, y, y * feel))
            return err_set(
                err, ERR_MODEL,
                "%s: %s point %zu: at most %d points [x, y] or [x, y, felt part], x ascending",
                path, name, i, COST_POINTS);
    }
    return 0;
}

static int hardware_read(const json_t *root, const char *path, const char *key, struct hardware *h,
                         struct err *err)
{
    const json_t *o = json_object_get(root, key);
    int rc = json_is_object(o) ? 0 : err_set(err, ERR_MODEL, "%s has no '%s'", path, key);
    rc = rc ? rc : number(o, path, "flop_per_s", &h->flop_s, err);
    rc = rc ? rc : number(o, path, "bytes_per_s", &h->bytes_s, err);
    rc = rc ? rc : number(o, path, "overhead_ns", &h->overhead_ns, err);
    rc = rc ? rc : number(o, path, "link_bytes_per_s", &h->link_s, err);
    rc = rc ? rc : number(o, path, "latency_ns", &h->latency_ns, err);
    rc = rc ? rc : number(o, path, "message_ns", &h->message_ns, err);
    if (rc == 0 && (h->flop_s <= 0 || h->bytes_s <= 0 || h->link_s <= 0))
        rc = err_set(err, ERR_MODEL, "%s: rates of '%s' must be above 0", path, key);
    return rc;
}

static int front_read(const json_t *sharing, const char *path, const char *key,
                      struct front_cost *f, struct err *err)
{
    const json_t *o = json_object_get(sharing, key);
    int rc = number(o, path, "request", &f->request_ns, err);
    return rc ? rc : number(o, path, "token", &f->token_ns, err);
}

/* Files of before these were curves have one number for all sizes. */
static int constant_read(const json_t *o, const char *path, const char *key,
                         struct cost_curve *curve, struct err *err)
{
    double ns;
    if (curve->n > 0 || !json_object_get(o, key))
        return 0;
    int rc = number(o, path, key, &ns, err);
    return rc ? rc : cost_curve_add(curve, 0, ns);
}

static int pace_read(const json_t *of, const char *path, const char *key, struct cost_pace *p,
                     struct err *err)
{
    const json_t *all = json_object_get(of, key), *bins;
    size_t cpu;
    int bad = all && !json_is_array(all);
    *p = (struct cost_pace){.n_cpu = (int)json_array_size(all),
                            .n_bin = (int)json_array_size(json_array_get(all, 0)),
                            .bin_ns = COST_PACE_NS};
    bad = bad || p->n_cpu > COST_PACE_CPUS || p->n_bin > COST_PACE_BINS ||
          (p->n_cpu > 0 && p->n_bin < 1);
    json_array_foreach(all, cpu, bins)
    {
        bad = bad || json_array_size(bins) != (size_t)p->n_bin;
        for (int i = 0; !bad && i < p->n_bin; i++) {
            double x = json_number_value(json_array_get(bins, (size_t)i));
            p->bin[cpu][i] = (float)x;
            bad = !(x >= 0 && x < 1e9);
        }
    }
    return bad ? err_set(err, ERR_MODEL,
                         "%s: %s must be at most %d lists of at most %d numbers, none negative, "
                         "equally long",
                         path, key, COST_PACE_CPUS, COST_PACE_BINS)
               : 0;
}

static int sharing_read(const json_t *o, const char *path, struct cost_model *cost, struct err *err)
{
    if (!o) /* a file of before it was measured */
        return 0;
    int rc = number(o, path, "wake_ns", &cost->wake_ns, err);
    rc = rc ? rc : constant_read(o, path, "send_ns", &cost->send, err);
    rc = rc ? rc : constant_read(o, path, "take_ns", &cost->take, err);
    rc = rc ? rc : constant_read(o, path, "answer_ns", &cost->answer, err);
    rc = rc ? rc : curve_read(o, path, "memory_bytes_per_s", 0, &cost->memory, err);
    rc = rc ? rc : pace_read(o, path, "pace_10_ms", &cost->pace, err);
    if (rc == 0 && json_object_get(o, "piece_ns")) { /* older files know only a usual pace */
        rc = number(o, path, "piece_ns", &cost->piece_ns, err);
        rc = rc ? rc : number(o, path, "other_feel", &cost->other_feel, err);
    }
    rc = rc ? rc : front_read(o, path, "server_ns", &cost->server, err);
    return rc ? rc : front_read(o, path, "client_ns", &cost->client, err);
}

static void text_read(const json_t *o, const char *key, char *out, size_t size)
{
    const char *text = json_string_value(json_object_get(o, key));
    char quoted[JSON_QUOTE];
    snprintf(out, size, "%s", json_quote(text ? text : "?", quoted));
}

static int read_root(const json_t *root, const char *path, struct calibration *c, struct err *err)
{
    const json_t *host = json_object_get(root, "host"), *ns = json_object_get(root, "ns");
    struct cost_model *cost = &c->cost;
    if (json_integer_value(json_object_get(root, "sigmoe_calibration")) != CALIBRATION_VERSION)
        return err_set(err, ERR_MODEL,
                       "%s is no calibration of version %d; make one with sigmoe calibrate", path,
                       CALIBRATION_VERSION);
    text_read(host, "name", c->host, sizeof(c->host));
    text_read(host, "isa", c->isa, sizeof(c->isa));
    text_read(root, "model", c->model, sizeof(c->model));
    text_read(root, "transport", c->transport, sizeof(c->transport));
    if (json_object_get(root, "activations"))
        text_read(root, "activations", c->activations, sizeof(c->activations));
    c->cpus = (int)json_integer_value(json_object_get(host, "cpus"));
    c->threads = (int)json_integer_value(json_object_get(host, "threads"));
    c->worker_threads = (int)json_integer_value(json_object_get(host, "worker_threads"));
    int rc = 0;
    cost->other_feel = 1;
    for (size_t i = 0; rc == 0 && i < N_CURVE; i++)
        rc = curve_read(ns, path, curves[i].name, curves[i].needed, curve_at(cost, i), err);
    rc = rc ? rc : number(root, path, "expert_call_ns", &cost->expert_call_ns, err);
    rc = rc ? rc : number(root, path, "span_ns", &cost->span_ns, err);
    rc = rc ? rc : number(root, path, "receive_ns", &cost->receive_ns, err);
    rc = rc ? rc : number(root, path, "link_bytes_per_s", &cost->link_s, err);
    rc = rc ? rc : number(root, path, "wire_value_bytes", &cost->wire_bytes, err);
    rc = rc ? rc : hardware_read(root, path, "coordinator", &cost->coordinator, err);
    rc = rc ? rc : hardware_read(root, path, "worker", &cost->worker, err);
    rc = rc ? rc : sharing_read(json_object_get(root, "sharing"), path, cost, err);
    if (rc == 0 && cost->link_s <= 0)
        rc = err_set(err, ERR_MODEL, "%s: link_bytes_per_s must be above 0", path);
    return rc;
}

/* Rows that meet integers. */
static int activations_check(const char *path, const struct model_desc *desc, enum precision p,
                             const struct calibration *c, const char *wanted, struct err *err)
{
    if (!wanted || !c->activations[0] || desc->n_quant_config == 0 || p == PRECISION_F32 ||
        strcmp(wanted, c->activations) == 0)
        return 0;
    return err_set(err, ERR_USAGE,
                   "%s was measured with activations in %s, and %s are to be simulated: calibrate "
                   "with --activations %s, or give --activations %s here",
                   path, c->activations, wanted, wanted, c->activations);
}

int cost_load(const char *path, const struct model_desc *desc, enum precision precision,
              const char *wanted, struct calibration *out, struct err *err)
{
    char *text;
    size_t bytes;
    json_t *root = NULL;
    struct calibration c = {0};
    int rc = file_read(path, CALIBRATION_BYTES_MAX, &text, &bytes, err);
    if (rc)
        return rc;
    rc = json_parse_object(text, bytes, CALIBRATION_BYTES_MAX, path, &root, err);
    free(text);
    if (rc)
        return rc;
    rc = read_root(root, path, &c, err);
    if (rc == 0) {
        json_t *shape = shape_json(desc, precision);
        int same = json_equal(shape, json_object_get(root, "shape"));
        json_decref(shape);
        rc = same ? activations_check(path, desc, precision, &c, wanted, err) : 0;
        struct hardware coordinator = c.cost.coordinator, worker = c.cost.worker;
        if (!same)
            cost_roofline(&c.cost, desc, precision, &coordinator, &worker);
        snprintf(c.cost.source, sizeof(c.cost.source),
                 same ? "measured on %.60s (%.60s)"
                      : "roofline over what was measured on %.60s with another shape (%.60s)",
                 c.host, c.model);
        *out = c;
    }
    json_decref(root);
    return rc;
}

/* ---- a host's pace over a time ---- */

#define PACE_VERSION 1

int cost_pace_save(const char *path, const struct cost_pace *ns, struct err *err)
{
    json_t *root = json_pack("{s:i, s:f, s:o}", "sigmoe_pace", PACE_VERSION, "bin_ms",
                             (double)ns->bin_ns / (double)NS_PER_MS, "piece_ns", pace_json(ns, 1));
    if (!root)
        return err_set(err, ERR_NOMEM, "no memory for the pace");
    int bad = json_dump_file(root, path, JSON_COMPACT | JSON_REAL_PRECISION(9));
    json_decref(root);
    return bad ? err_sys(err, ERR_IO, "cannot write %s", path) : 0;
}

static int pace_root_read(const json_t *root, const char *path, double piece_ns,
                          struct cost_pace *p, struct err *err)
{
    double bin_ms = 0;
    if (json_integer_value(json_object_get(root, "sigmoe_pace")) != PACE_VERSION)
        return err_set(err, ERR_MODEL,
                       "%s is no pace of version %d; make one with sigmoe loadtest pace", path,
                       PACE_VERSION);
    int rc = number(root, path, "bin_ms", &bin_ms, err);
    if (rc == 0 && !(bin_ms >= 1 && bin_ms <= 1e6))
        rc = err_set(err, ERR_MODEL, "%s: bin_ms must lie between 1 and a million", path);
    rc = rc ? rc : pace_read(root, path, "piece_ns", p, err);
    if (rc == 0 && p->n_cpu < 1)
        rc = err_set(err, ERR_MODEL, "%s: piece_ns holds no CPU", path);
    if (rc)
        return rc;
    p->bin_ns = (int64_t)(bin_ms * (double)NS_PER_MS);
    for (int i = 0; i < p->n_cpu * p->n_bin; i++) {
        float *bin = &p->bin[i / p->n_bin][i % p->n_bin];
        *bin = *bin > 0 ? (float)piece_ns / *bin : 1;
    }
    return 0;
}

int cost_pace_load(const char *path, double piece_ns, struct cost_pace *out, struct err *err)
{
    char *text;
    size_t bytes;
    json_t *root = NULL;
    if (!(piece_ns > 0))
        return err_set(
            err, ERR_USAGE,
            "the calibration does not say what an undisturbed CPU does (piece_ns), which "
            "%s is held against: make it again with sigmoe calibrate",
            path);
    int rc = file_read(path, CALIBRATION_BYTES_MAX, &text, &bytes, err);
    if (rc)
        return rc;
    rc = json_parse_object(text, bytes, CALIBRATION_BYTES_MAX, path, &root, err);
    free(text);
    rc = rc ? rc : pace_root_read(root, path, piece_ns, out, err);
    json_decref(root);
    return rc;
}

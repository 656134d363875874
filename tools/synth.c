/* synth: a checkpoint with random weights in a published shape, so that benchmarks and tests need
 * no download. Speed is that of the disk: normal numbers are drawn once into a table, and a tensor
 * is windows of it at offsets drawn from (seed, tensor name), so any tensor's bytes depend on
 * nothing else. Norm weights are 1, all other weights have one standard deviation. Routing tables
 * are drawn as docs/PANGU_SIGMA.md says. */
#include "base/clock.h"
#include "base/opt.h"
#include "base/report.h"
#include "base/rng.h"
#include "model/checkpoint.h"
#include "model/rre_table.h"
#include "tools/commands.h"
#include "tools/shapes.h"

#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define TABLE_ELEMENTS  ((uint64_t)1 << 22)
#define WINDOW_ELEMENTS ((uint64_t)1 << 18)
#define STREAM_TABLE    UINT64_C(0x73796e7468) /* no tensor's stream: those are hashes */

struct synth {
    const char *out, *dtype_text, *domains;
    int64_t seed, layers, shard_size;
    double std;
    char *config; /* config.json as it will be written */
    char *routing_seed;
    struct model_desc desc;
    enum dtype dtype;
    void *table; /* [TABLE_ELEMENTS] of dtype */
    void *ones;  /* [WINDOW_ELEMENTS] of dtype */
    struct ck_writer *writer;
    struct progress progress;
    uint64_t bytes, params;
    sigset_t stop; /* blocked, and asked for between windows: then nothing half-written stays */
    struct err *err;
};

static int is_norm(enum role role)
{
    return role == ROLE_FINAL_NORM || role == ROLE_ATTN_NORM || role == ROLE_FFN_NORM ||
           role == ROLE_Q_NORM || role == ROLE_K_NORM;
}

/* layers_cut keeps --layers layers; of a model that begins with dense ones, the last stays sparse.
 */
static void layers_cut(json_t *root, int64_t layers)
{
    json_object_set_new(root, "num_hidden_layers", json_integer(layers));
    json_t *types = json_object_get(root, "layer_types");
    while (json_is_array(types) && json_array_size(types) > (size_t)layers)
        json_array_remove(types, json_array_size(types) - 1);
    if (json_integer_value(json_object_get(root, "num_dense_layers")) >= layers)
        json_object_set_new(root, "num_dense_layers", json_integer(layers - 1));
}

/* listed: is the name one of the comma-separated list? */
static int listed(const char *list, const char *name)
{
    size_t n = strlen(name);
    for (const char *p = list; *p; p += *p == ',') {
        size_t length = strcspn(p, ",");
        if (length == n && memcmp(p, name, n) == 0)
            return 1;
        p += length;
    }
    return 0;
}

/* domains_keep drops the domains that --domains does not name. A name that is none is refused by
 * the nearest that is. */
static int domains_keep(struct synth *s, json_t *root, const char *path)
{
    int rc = desc_from_config(s->config, strlen(s->config), path, &s->desc, s->err);
    for (const char *p = s->domains; *p && rc == 0; p += *p == ',') {
        char name[32];
        size_t length = strcspn(p, ",");
        snprintf(name, sizeof(name), "%.*s", (int)(length < 31 ? length : 31), p);
        int found = desc_domain_find(&s->desc, name, s->err);
        rc = found < 0 ? found : 0;
        p += length;
    }
    json_t *list = json_object_get(root, "domains");
    for (size_t i = json_array_size(list); i-- > 0 && rc == 0;)
        if (!listed(s->domains,
                    json_string_value(json_object_get(json_array_get(list, i), "name"))))
            json_array_remove(list, i);
    return rc;
}

/* config_adjust applies --layers, --domains and --dtype to the config. */
static int config_adjust(struct synth *s, const char *path)
{
    json_error_t fault;
    json_t *root = json_loads(s->config, JSON_REJECT_DUPLICATES, &fault);
    if (!json_is_object(root)) {
        json_decref(root);
        return err_set(s->err, ERR_MODEL, "%s: not valid JSON at line %d: %s", path, fault.line,
                       fault.text);
    }
    const char *name = s->dtype == DTYPE_F32 ? "float32" : "bfloat16";
    json_object_set_new(root, json_object_get(root, "dtype") ? "dtype" : "torch_dtype",
                        json_string(name));
    if (s->layers > 0)
        layers_cut(root, s->layers);
    int rc = s->domains ? domains_keep(s, root, path) : 0;
    const char *seed = json_string_value(json_object_get(root, "routing_seed"));
    s->routing_seed = strdup(seed ? seed : "");
    char *text = json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    json_decref(root);
    if (rc) {
        free(text);
        return rc;
    }
    if (!text || !s->routing_seed)
        return err_set(s->err, ERR_NOMEM, "no memory for the config of %s", path);
    free(s->config);
    s->config = text;
    return desc_from_config(text, strlen(text), path, &s->desc, s->err);
}

static void store(void *data, enum dtype dtype, uint64_t i, float value)
{
    if (dtype == DTYPE_F32)
        ((float *)data)[i] = value;
    else
        ((uint16_t *)data)[i] = f32_to_bf16(value);
}

static int tables_create(struct synth *s)
{
    float block[1024];
    size_t width = dtype_bytes(s->dtype);
    s->table = malloc(TABLE_ELEMENTS * width);
    s->ones = malloc(WINDOW_ELEMENTS * width);
    if (!s->table || !s->ones)
        return err_set(s->err, ERR_NOMEM, "no memory for the table of random numbers");
    for (uint64_t i = 0; i < TABLE_ELEMENTS; i += 1024) {
        rng_normal_fill((uint64_t)s->seed, STREAM_TABLE, i, block, 1024);
        for (uint64_t k = 0; k < 1024; k++)
            store(s->table, s->dtype, i + k, (float)s->std * block[k]);
    }
    for (uint64_t i = 0; i < WINDOW_ELEMENTS; i++)
        store(s->ones, s->dtype, i, 1.0f);
    return 0;
}

static int declare(void *arg, enum role role, int layer, int expert)
{
    struct synth *s = arg;
    char name[LIMIT_NAME_BYTES];
    uint64_t dim[LIMIT_ST_DIMS], n = 1;
    int n_dim = desc_tensor_dims(&s->desc, role, layer, dim);
    enum dtype dtype = role_is_table(role) ? DTYPE_U16 : s->dtype;
    if (n_dim < 0 || desc_tensor_name(&s->desc, role, layer, expert, name, sizeof(name)) != 0)
        return err_set(s->err, ERR_MODEL, "%s has a tensor without a name (role %d)",
                       s->desc.family, (int)role);
    for (int i = 0; i < n_dim; i++)
        n *= dim[i];
    s->bytes += n * dtype_bytes(dtype);
    s->params += role_is_table(role) ? 0 : n;
    return ck_writer_declare(s->writer, name, dtype, n_dim, dim, s->err);
}

/* fill_table draws one layer's routing table, domain after domain. */
static int fill_table(struct synth *s, int layer)
{
    const struct model_desc *d = &s->desc;
    size_t bytes = (size_t)d->vocab * (size_t)d->top_k * sizeof(uint16_t);
    uint16_t *row = malloc(bytes);
    int rc = row ? 0 : err_set(s->err, ERR_NOMEM, "no memory for a routing table");
    for (int i = 0; i < d->n_domain && rc == 0; i++) {
        const struct rre_table t = {.seed = s->routing_seed,
                                    .domain = d->domain[i].name,
                                    .layer = layer,
                                    .vocab = d->vocab,
                                    .n_expert = d->domain[i].n_expert,
                                    .top_k = d->top_k};
        rc = rre_table_draw(&t, row, s->err);
        if (rc == 0)
            rc = ck_writer_data(s->writer, row, bytes, s->err);
        progress_add(&s->progress, bytes);
    }
    free(row);
    return rc;
}

static int interrupted(const struct synth *s)
{
    static const struct timespec now = {0, 0};
    return sigtimedwait(&s->stop, NULL, &now) > 0;
}

static int fill(void *arg, enum role role, int layer, int expert)
{
    struct synth *s = arg;
    char name[LIMIT_NAME_BYTES];
    int rows = 0, cols = 0, rc = 0;
    if (role_is_table(role))
        return fill_table(s, layer);
    desc_tensor_name(&s->desc, role, layer, expert, name, sizeof(name));
    desc_tensor_shape(&s->desc, role, layer, &rows, &cols);
    uint64_t n = (uint64_t)rows * (uint64_t)(cols ? cols : 1), width = dtype_bytes(s->dtype);
    uint64_t stream = hash_bytes(name, strlen(name)).lo;
    for (uint64_t done = 0, window = 0; done < n && rc == 0; window++) {
        uint64_t take = n - done < WINDOW_ELEMENTS ? n - done : WINDOW_ELEMENTS;
        uint32_t word[4];
        rng_block((uint64_t)s->seed, stream, window, word);
        uint64_t at = (((uint64_t)word[0] << 32) | word[1]) % (TABLE_ELEMENTS - WINDOW_ELEMENTS);
        const char *data = is_norm(role) ? s->ones : (const char *)s->table + at * width;
        rc = ck_writer_data(s->writer, data, take * width, s->err);
        progress_add(&s->progress, take * width);
        done += take;
        if (rc == 0 && interrupted(s))
            rc = err_set(s->err, ERR_IO, "interrupted; nothing was left behind");
    }
    return rc;
}

static int write_all(struct synth *s)
{
    int rc = ck_writer_open(s->out, (uint64_t)s->shard_size, &s->writer, s->err);
    if (rc)
        return rc;
    rc = desc_each_tensor(&s->desc, declare, s);
    if (rc == 0)
        rc = ck_writer_begin(s->writer, s->err);
    if (rc == 0)
        rc = tables_create(s);
    if (rc == 0) {
        progress_start(&s->progress, "writing", s->bytes);
        rc = desc_each_tensor(&s->desc, fill, s);
        progress_end(&s->progress);
    }
    if (rc == 0)
        rc = ck_writer_file(s->writer, "config.json", s->config, strlen(s->config), s->err);
    if (rc)
        ck_writer_abort(s->writer);
    else
        rc = ck_writer_commit(s->writer, s->err);
    return rc;
}

static int synth_run(struct synth *s, const char *what)
{
    if (!s->out)
        return err_set(s->err, ERR_USAGE, "-o DIR is missing: the folder to write to");
    if (strcmp(s->dtype_text, "bf16") == 0)
        s->dtype = DTYPE_BF16;
    else if (strcmp(s->dtype_text, "f32") == 0)
        s->dtype = DTYPE_F32;
    else
        return err_set(s->err, ERR_USAGE, "--dtype must be bf16 or f32, it is '%s'", s->dtype_text);
    int rc = shape_or_file(what, &s->config, s->err);
    if (rc == 0)
        rc = config_adjust(s, what);
    if (rc)
        return rc;
    sigset_t old;
    sigemptyset(&s->stop);
    sigaddset(&s->stop, SIGINT);
    sigaddset(&s->stop, SIGTERM);
    sigprocmask(SIG_BLOCK, &s->stop, &old);
    rc = write_all(s);
    sigprocmask(SIG_SETMASK, &old, NULL);
    return rc;
}

static void report(const struct synth *s, int64_t ns)
{
    char count[32], bytes[32], time[32];
    printf("%s: %s, %s parameters, %s in %s\n", s->out, s->desc.family,
           human_count((double)s->params, count, sizeof(count)),
           human_bytes((double)s->bytes, bytes, sizeof(bytes)),
           human_ns((double)ns, time, sizeof(time)));
}

int cmd_synth(int argc, char **argv)
{
    struct err err = {0};
    struct synth s = {.dtype_text = "bf16", .std = 0.02, .shard_size = 5LL << 30, .err = &err};
    const struct opt opts[] = {
        {"out", 'o', OPT_STR, &s.out, "DIR", "the folder to write; must not exist, or be empty", 0,
         0},
        {"dtype", 0, OPT_STR, &s.dtype_text, "TYPE", "bf16 (default) or f32", 0, 0},
        {"seed", 0, OPT_INT, &s.seed, "N", "seed of the weights, default 0", 0, 1e15},
        {"std", 0, OPT_FLOAT, &s.std, "X", "standard deviation of the weights, default 0.02", 0,
         100},
        {"layers", 0, OPT_INT, &s.layers, "N", "this many layers instead of the shape's", 1,
         LIMIT_LAYERS},
        {"domains", 0, OPT_STR, &s.domains, "LIST", "only these of the shape's domains, as zh,code",
         0, 0},
        {"shard-size", 0, OPT_SIZE, &s.shard_size, "BYTES", "cut files at this size, default 5G",
         1 << 10, 1e15},
        {0}};
    char about[3072] =
        "Writes a checkpoint with random weights. SHAPE is the path of a config.json\n"
        "or one of these:\n\n";
    size_t used = strlen(about);
    shape_list(about + used, sizeof(about) - used);
    used = strlen(about);
    snprintf(about + used, sizeof(about) - used,
             "\n  sigmoe synth olmoe-1b-7b -o /tmp/olmoe --layers 4\n"
             "  sigmoe inspect /tmp/olmoe");
    const struct opt_command cmd = {"synth", "sigmoe synth SHAPE -o DIR [options]", about, opts};
    const char *what[1];
    int n = 1;
    int64_t start_ns = clock_now(&clock_real);
    int rc = opt_parse(&cmd, argc, argv, what, &n, &err);
    if (rc == 1)
        return 0;
    if (rc == 0 && n == 0)
        rc = err_set(&err, ERR_USAGE, "SHAPE is missing; see sigmoe synth --help");
    if (rc == 0)
        rc = synth_run(&s, what[0]);
    if (rc == 0)
        report(&s, clock_now(&clock_real) - start_ns);
    else
        fprintf(stderr, "sigmoe synth: %s\n", err.text);
    free(s.config);
    free(s.routing_seed);
    free(s.table);
    free(s.ones);
    return err_exit_code(rc);
}

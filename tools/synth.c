/* synth: a checkpoint with random weights in a published shape, so that benchmarks and tests need
 * no download. Speed is that of the disk: normal numbers are drawn once into a table, and a tensor
 * is windows of it at offsets drawn from (seed, tensor name), so any tensor's bytes depend on
 * nothing else. Norm weights are 1, all other weights have one standard deviation. */
#include "base/clock.h"
#include "base/opt.h"
#include "base/report.h"
#include "base/rng.h"
#include "model/checkpoint.h"
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
    const char *out, *dtype_text;
    int64_t seed, layers, shard_size;
    double std;
    char *config; /* config.json as it will be written */
    struct model_desc desc;
    enum dtype dtype;
    void *table; /* [TABLE_ELEMENTS] of dtype */
    void *ones;  /* [WINDOW_ELEMENTS] of dtype */
    struct ck_writer *writer;
    struct progress progress;
    uint64_t bytes;
    sigset_t stop; /* blocked, and asked for between windows: then nothing half-written stays */
    struct err *err;
};

static int is_norm(enum role role)
{
    return role == ROLE_FINAL_NORM || role == ROLE_ATTN_NORM || role == ROLE_FFN_NORM ||
           role == ROLE_Q_NORM || role == ROLE_K_NORM;
}

/* config_adjust applies --layers and --dtype to the config. */
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
    if (s->layers > 0) {
        json_object_set_new(root, "num_hidden_layers", json_integer(s->layers));
        json_t *types = json_object_get(root, "layer_types");
        while (json_is_array(types) && json_array_size(types) > (size_t)s->layers)
            json_array_remove(types, json_array_size(types) - 1);
    }
    char *text = json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    json_decref(root);
    if (!text)
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
    int rows, cols;
    if (desc_tensor_name(&s->desc, role, layer, expert, name, sizeof(name)) != 0 ||
        desc_tensor_shape(&s->desc, role, layer, &rows, &cols) != 0)
        return err_set(s->err, ERR_MODEL, "%s has a tensor without a name (role %d)",
                       s->desc.family, (int)role);
    uint64_t dim[2] = {(uint64_t)rows, (uint64_t)cols};
    s->bytes += dim[0] * (cols ? dim[1] : 1) * dtype_bytes(s->dtype);
    return ck_writer_declare(s->writer, name, s->dtype, cols ? 2 : 1, dim, s->err);
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
    uint64_t params = s->bytes / dtype_bytes(s->dtype);
    printf("%s: %s, %s parameters, %s in %s\n", s->out, s->desc.family,
           human_count((double)params, count, sizeof(count)),
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
        {"shard-size", 0, OPT_SIZE, &s.shard_size, "BYTES", "cut files at this size, default 5G",
         1 << 10, 1e15},
        {0}};
    char about[2048] =
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
    free(s.table);
    free(s.ones);
    return err_exit_code(rc);
}

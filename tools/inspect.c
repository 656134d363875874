/* inspect: what a checkpoint is and what it would take to serve it, from its config and headers
 * alone. A config.json or a shape's name will do where there are no weights yet: then everything
 * but the lines about files is known. Memory is counted as the loaders map it (padding included),
 * so the numbers are those a worker will show. */
#include "base/opt.h"
#include "base/report.h"
#include "model/packed_cache.h"
#include "model/quant.h"
#include "model/weights.h"
#include "tools/commands.h"
#include "tools/shapes.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define N_DTYPE 32

struct view {
    const char *what;
    struct model_desc desc;
    struct model *model; /* NULL: no weights at hand */
    enum precision precision;
    int split[8], n_split;
    uint64_t dense_params, expert_params, params, active_params;
    uint64_t dense_bytes, expert_bytes, n_held; /* n_held: experts of all layers */
    uint64_t sub_params, sub_bytes;             /* the dense part with one embedding slot */
    size_t n_needed;                            /* tensors the model uses */
    struct {
        const char *name;
        size_t n;
    } dtype[N_DTYPE];
    int n_dtype;
};

static int count_tensor(void *arg, enum role role, int layer, int expert)
{
    (void)layer;
    (void)expert;
    struct view *v = arg;
    const struct quant_kind *kind = quant_kind_of(&v->desc, role);
    /* A matrix of integers is three tensors: integers, scales, shape. */
    v->n_needed += kind && kind->dtype != DTYPE_NONE ? 3 : 1;
    return 0;
}

static void dtypes_count(struct view *v)
{
    for (size_t i = 0; i < checkpoint_n_tensor(v->model->ck); i++) {
        const char *name = checkpoint_at(v->model->ck, i)->dtype_name;
        int k = 0;
        while (k < v->n_dtype && strcmp(v->dtype[k].name, name) != 0)
            k++;
        if (k == N_DTYPE)
            continue;
        v->dtype[k].name = name;
        v->dtype[k].n++;
        v->n_dtype = k == v->n_dtype ? k + 1 : v->n_dtype;
    }
}

/* sub_count: what every domain's submodel has beside its group. */
static void sub_count(struct view *v)
{
    int n_slot = v->desc.n_slot;
    v->desc.n_slot = 1;
    v->sub_params = desc_dense_params(&v->desc);
    v->sub_bytes = weights_dense_bytes(&v->desc, v->precision);
    v->desc.n_slot = n_slot;
}

static uint64_t group_experts(const struct view *v, int domain)
{
    return (uint64_t)v->desc.domain[domain].n_expert * (uint64_t)desc_n_sparse(&v->desc);
}

static int view_count(struct view *v, struct err *err)
{
    uint64_t n_sparse = (uint64_t)desc_n_sparse(&v->desc);
    v->n_held = n_sparse * (uint64_t)v->desc.n_expert;
    v->dense_params = desc_dense_params(&v->desc);
    v->expert_params = desc_expert_params(&v->desc);
    v->params = v->dense_params + v->n_held * v->expert_params;
    v->active_params = v->dense_params + n_sparse * (uint64_t)v->desc.top_k * v->expert_params;
    v->dense_bytes = weights_dense_bytes(&v->desc, v->precision);
    v->expert_bytes = n_sparse ? weights_expert_bytes(&v->desc, v->precision) : 0;
    if (v->dense_bytes == 0 || (n_sparse && v->expert_bytes == 0))
        return err_set(err, ERR_LIMIT, "%s: the weights are too large to count", v->what);
    sub_count(v);
    desc_each_tensor(&v->desc, count_tensor, v);
    if (v->model)
        dtypes_count(v);
    return 0;
}

/* view_open: a folder is a checkpoint; anything else a config.json or the name of a shape. */
static int view_open(struct view *v, struct err *err)
{
    struct stat st;
    char *text;
    if (stat(v->what, &st) == 0 && S_ISDIR(st.st_mode)) {
        int rc = model_open(v->what, &v->model, err);
        if (rc == 0)
            v->desc = v->model->desc;
        return rc ? rc : view_count(v, err);
    }
    int rc = shape_or_file(v->what, &text, err);
    if (rc)
        return rc;
    rc = desc_from_config(text, strlen(text), v->what, &v->desc, err);
    free(text);
    return rc ? rc : view_count(v, err);
}

/* Worker i of n holds experts [begin, end) of every sparse layer: equal runs, to within one. */
static int split_at(const struct view *v, int i, int n)
{
    return (int)((int64_t)v->desc.n_expert * i / n);
}

static uint64_t split_bytes(const struct view *v, int begin, int end)
{
    return (uint64_t)(end - begin) * (uint64_t)desc_n_sparse(&v->desc) * v->expert_bytes;
}

static void put(const char *name, const char *value)
{
    printf("  %-13s%s\n", name, value);
}

static void put_bytes(const char *name, uint64_t bytes)
{
    char text[32];
    put(name, human_bytes((double)bytes, text, sizeof(text)));
}

static void layers_text(const struct view *v, char *out, size_t size)
{
    const struct model_desc *d = &v->desc;
    int n_sparse = desc_n_sparse(d), n_window = 0, window = 0;
    for (int i = 0; i < d->n_layer; i++) {
        n_window += d->layer[i].window > 0;
        window = d->layer[i].window > 0 ? d->layer[i].window : window;
    }
    int n = n_sparse == 0            ? snprintf(out, size, "%d, dense", d->n_layer)
            : n_sparse == d->n_layer ? snprintf(out, size, "%d, all sparse", d->n_layer)
                                     : snprintf(out, size, "%d: %d sparse, %d dense", d->n_layer,
                                                n_sparse, d->n_layer - n_sparse);
    if (n_window && n > 0 && (size_t)n < size)
        snprintf(out + n, size - (size_t)n, "; %d with a window of %d", n_window, window);
}

static void experts_text(const struct view *v, char *out, size_t size)
{
    const struct model_desc *d = &v->desc;
    int n = snprintf(out, size, "%d a layer, %d wide, top-%d%s", d->n_expert, d->d_ff_expert,
                     d->top_k, d->gate_normalise ? ", weights normalised" : "");
    if (d->d_ff_shared && n > 0 && (size_t)n < size)
        snprintf(out + n, size - (size_t)n, "; shared expert %d wide%s", d->d_ff_shared,
                 d->shared_gated ? ", gated" : "");
}

static void print_shape(const struct view *v)
{
    const struct model_desc *d = &v->desc;
    char text[160], total[32], active[32];
    char family[96];
    snprintf(family, sizeof(family), "%s, blocks of %s%s", d->family, d->block,
             d->query_layer ? ", a query layer on top" : "");
    put("family", d->n_domain ? family : d->family);
    layers_text(v, text, sizeof(text));
    put("layers", text);
    if (v->n_held) {
        experts_text(v, text, sizeof(text));
        put("experts", text);
    }
    if (d->n_domain) {
        snprintf(text, sizeof(text), "%d, by default %s; %d embedding slot%s", d->n_domain,
                 d->domain[d->default_domain].name, d->n_slot, d->n_slot == 1 ? "" : "s");
        put("domains", text);
    }
    snprintf(text, sizeof(text), d->d_ff ? "%d, dense FFN %d wide" : "%d", d->d_model, d->d_ff);
    put("hidden", text);
    snprintf(text, sizeof(text), "%d query, %d key/value, %d wide", d->n_head, d->n_kv_head,
             d->d_head);
    put("heads", text);
    snprintf(text, sizeof(text), "%d%s", d->vocab,
             d->tied ? ", LM head tied to the embedding" : "");
    put("vocabulary", text);
    snprintf(text, sizeof(text), "%d", d->max_context);
    put("context", text);
    snprintf(text, sizeof(text), v->n_held ? "%s, %s active a token" : "%s",
             human_count((double)v->params, total, sizeof(total)),
             human_count((double)v->active_params, active, sizeof(active)));
    put("parameters", text);
}

static void print_files(const struct view *v)
{
    char text[256], bytes[32], hex[33];
    const struct checkpoint *ck = v->model->ck;
    size_t n = checkpoint_n_tensor(ck), used = 0;
    for (int i = 0; i < v->n_dtype && used < sizeof(text); i++)
        used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%s (%zu)", i ? ", " : "",
                                 v->dtype[i].name, v->dtype[i].n);
    put("stored as", text);
    if (v->desc.n_quant_config > 0) {
        char kind[3][24];
        const struct quant_kind *k[] = {&v->desc.quant_expert, &v->desc.quant_dense,
                                        &v->desc.quant_head};
        for (int i = 0; i < 3; i++)
            snprintf(kind[i], sizeof(kind[i]), k[i]->dtype == DTYPE_NONE ? "floats" : "%s:%d",
                     dtype_name(k[i]->dtype), k[i]->group);
        snprintf(text, sizeof(text), "experts %s, dense %s, LM head %s", kind[0], kind[1], kind[2]);
        put("quantised", text);
    }
    snprintf(text, sizeof(text), "%zu in %d file%s, %s", n, checkpoint_n_shard(ck),
             checkpoint_n_shard(ck) == 1 ? "" : "s",
             human_bytes((double)checkpoint_bytes(ck), bytes, sizeof(bytes)));
    put("tensors", text);
    if (n > v->n_needed) {
        snprintf(text, sizeof(text), "%zu tensors that this family does not use", n - v->n_needed);
        put("ignored", text);
    }
    hash_hex(v->model->fingerprint, hex);
    put("fingerprint", hex);
}

static void print_memory(const struct view *v)
{
    char text[96], bytes[32];
    uint64_t embed = 0;
    static const enum role in_place[] = {ROLE_EMBED, ROLE_POS_EMBED, ROLE_QUERY_EMBED};
    int rows, cols;
    for (int i = 0; i < 3; i++)
        if (desc_tensor_shape(&v->desc, in_place[i], 0, &rows, &cols) == 0)
            embed += (uint64_t)rows * (uint64_t)cols;
    size_t width = dtype_bytes(v->desc.stored);
    printf("\nmemory at %s\n", dtype_name(precision_dtype(v->precision)));
    put_bytes("dense", v->dense_bytes);
    snprintf(text, sizeof(text), "%s more, read in place from the file",
             human_bytes((double)(embed * (width ? width : 2)), bytes, sizeof(bytes)));
    put("embedding", text);
    if (v->n_held) {
        put_bytes("one expert", v->expert_bytes);
        put_bytes("all experts", v->n_held * v->expert_bytes);
    }
    put_bytes("total", v->dense_bytes + v->n_held * v->expert_bytes);
}

static void set_int(json_t *object, const char *key, uint64_t value)
{
    json_object_set_new(object, key, json_integer((json_int_t)value));
}

/* print_domains: each group, and what its submodel would have if it were cut out. */
static void print_domains(const struct view *v)
{
    const struct model_desc *d = &v->desc;
    printf("\n  domain                           experts    slot   submodel  memory\n");
    for (int i = 0; i < d->n_domain; i++) {
        const struct domain_desc *domain = &d->domain[i];
        char range[32], count[32], bytes[32];
        uint64_t n = group_experts(v, i);
        snprintf(range, sizeof(range), domain->n_expert > 1 ? "%d-%d" : "%d", domain->first,
                 domain->first + domain->n_expert - 1);
        printf("  %-31s  %-9s  %4d  %9s  %s\n", domain->name, range, domain->slot,
               human_count((double)(v->sub_params + n * v->expert_params), count, sizeof(count)),
               human_bytes((double)(v->sub_bytes + n * v->expert_bytes), bytes, sizeof(bytes)));
    }
}

static json_t *domains_json(const struct view *v)
{
    json_t *list = json_array();
    for (int i = 0; i < v->desc.n_domain; i++) {
        const struct domain_desc *domain = &v->desc.domain[i];
        json_t *entry =
            json_pack("{s:s, s:[i, i], s:i}", "name", domain->name, "experts", domain->first,
                      domain->first + domain->n_expert, "slot", domain->slot);
        set_int(entry, "submodel_parameters",
                v->sub_params + group_experts(v, i) * v->expert_params);
        set_int(entry, "submodel_bytes", v->sub_bytes + group_experts(v, i) * v->expert_bytes);
        json_array_append_new(list, entry);
    }
    return list;
}

static void print_splits(const struct view *v)
{
    printf("\n  workers  worker  experts      count   memory\n");
    for (int s = 0; s < v->n_split; s++) {
        for (int i = 0; i < v->split[s]; i++) {
            int begin = split_at(v, i, v->split[s]), end = split_at(v, i + 1, v->split[s]);
            char range[32], bytes[32];
            snprintf(range, sizeof(range), end - begin > 1 ? "%d-%d" : "%d", begin, end - 1);
            /* A zero of precision 0 prints as blanks: the number of workers stands once. */
            printf("  %7.*d  %6d  %-10s %7d  %s\n", i == 0, i == 0 ? v->split[s] : 0, i,
                   begin == end ? "none" : range, (end - begin) * desc_n_sparse(&v->desc),
                   human_bytes((double)split_bytes(v, begin, end), bytes, sizeof(bytes)));
        }
    }
}

static void view_print(const struct view *v)
{
    printf("%s\n", v->what);
    print_shape(v);
    if (v->model)
        print_files(v);
    print_memory(v);
    if (v->desc.n_domain)
        print_domains(v);
    if (v->n_held)
        print_splits(v);
}

static json_t *splits_json(const struct view *v)
{
    json_t *splits = json_array();
    for (int s = 0; s < v->n_split && v->n_held; s++) {
        json_t *workers = json_array();
        for (int i = 0; i < v->split[s]; i++) {
            int begin = split_at(v, i, v->split[s]), end = split_at(v, i + 1, v->split[s]);
            json_t *worker = json_object();
            set_int(worker, "worker", (uint64_t)i);
            json_object_set_new(worker, "experts", json_pack("[i, i]", begin, end));
            set_int(worker, "count", (uint64_t)((end - begin) * desc_n_sparse(&v->desc)));
            set_int(worker, "bytes", split_bytes(v, begin, end));
            json_array_append_new(workers, worker);
        }
        json_array_append_new(splits,
                              json_pack("{s:i, s:o}", "workers", v->split[s], "holds", workers));
    }
    return splits;
}

static void files_json(const struct view *v, json_t *root)
{
    char hex[33];
    json_t *dtypes = json_object();
    for (int i = 0; i < v->n_dtype; i++)
        set_int(dtypes, v->dtype[i].name, v->dtype[i].n);
    json_object_set_new(root, "dtypes", dtypes);
    set_int(root, "tensors", checkpoint_n_tensor(v->model->ck));
    set_int(root, "tensors_ignored", checkpoint_n_tensor(v->model->ck) - v->n_needed);
    set_int(root, "files", (uint64_t)checkpoint_n_shard(v->model->ck));
    set_int(root, "file_bytes", checkpoint_bytes(v->model->ck));
    hash_hex(v->model->fingerprint, hex);
    json_object_set_new(root, "fingerprint", json_string(hex));
}

static json_t *view_json(const struct view *v)
{
    const struct model_desc *d = &v->desc;
    const struct {
        const char *key;
        uint64_t value;
    } numbers[] = {{"layers", (uint64_t)d->n_layer},
                   {"sparse_layers", (uint64_t)desc_n_sparse(d)},
                   {"experts", (uint64_t)d->n_expert},
                   {"top_k", (uint64_t)d->top_k},
                   {"expert_width", (uint64_t)d->d_ff_expert},
                   {"shared_width", (uint64_t)d->d_ff_shared},
                   {"hidden", (uint64_t)d->d_model},
                   {"dense_width", (uint64_t)d->d_ff},
                   {"heads", (uint64_t)d->n_head},
                   {"kv_heads", (uint64_t)d->n_kv_head},
                   {"head_width", (uint64_t)d->d_head},
                   {"vocabulary", (uint64_t)d->vocab},
                   {"context", (uint64_t)d->max_context},
                   {"parameters", v->params},
                   {"parameters_active", v->active_params},
                   {"dense_bytes", v->dense_bytes},
                   {"expert_bytes", v->expert_bytes},
                   {"all_expert_bytes", v->n_held * v->expert_bytes},
                   {"total_bytes", v->dense_bytes + v->n_held * v->expert_bytes}};
    json_t *root =
        json_pack("{s:s, s:s, s:s, s:b}", "model", v->what, "family", d->family, "precision",
                  dtype_name(precision_dtype(v->precision)), "tied", d->tied);
    for (size_t i = 0; root && i < sizeof(numbers) / sizeof(numbers[0]); i++)
        set_int(root, numbers[i].key, numbers[i].value);
    if (root && v->model)
        files_json(v, root);
    if (root && d->n_domain) {
        json_object_set_new(root, "block", json_string(d->block));
        set_int(root, "embedding_slots", (uint64_t)d->n_slot);
        json_object_set_new(root, "domains", domains_json(v));
    }
    if (root)
        json_object_set_new(root, "splits", splits_json(v));
    return root;
}

static int view_json_print(const struct view *v, struct err *err)
{
    json_t *root = view_json(v);
    char *text = root ? json_dumps(root, JSON_INDENT(1)) : NULL;
    json_decref(root);
    if (!text)
        return err_set(err, ERR_NOMEM, "%s: no memory for the JSON, or its path is no UTF-8",
                       v->what);
    puts(text);
    free(text);
    return 0;
}

/* splits_choose: the number asked for, or the usual ones that leave no worker without an expert. */
static void splits_choose(struct view *v, int asked)
{
    static const int usual[] = {2, 3, 4, 8};
    if (asked > 0)
        v->split[v->n_split++] = asked;
    for (int i = 0; asked == 0 && i < 4; i++)
        if (usual[i] <= v->desc.n_expert)
            v->split[v->n_split++] = usual[i];
}

/* cache_verify: reads all of the packed cache at `where` (auto: beside the checkpoint). */
static int cache_verify(struct view *v, const char *where, struct err *err)
{
    struct packed_check check;
    char bytes[32];
    if (!v->model)
        return err_set(err, ERR_USAGE, "--verify: %s is no checkpoint, so it has no packed weights",
                       v->what);
    int rc = model_packed_cache(v->model, where, err);
    rc = rc ? rc : packed_cache_verify(v->model, &check, err);
    if (rc)
        return rc;
    printf("packed weights in %s: %d files, %s, %d of another version of the model, %d damaged\n",
           v->model->packed_dir, check.n_file,
           human_bytes((double)check.bytes, bytes, sizeof(bytes)), check.n_stale, check.n_damaged);
    return check.n_damaged == 0
               ? 0
               : err_set(err, ERR_MODEL,
                         "%d files are damaged; they are packed again when next used",
                         check.n_damaged);
}

static int inspect_run(struct view *v, const char *precision, int64_t split, int json,
                       struct err *err)
{
    if (strcmp(precision, "bf16") != 0 && strcmp(precision, "f32") != 0)
        return err_set(err, ERR_USAGE, "--precision must be bf16 or f32, it is '%s'", precision);
    v->precision = precision[0] == 'f' ? PRECISION_F32 : PRECISION_BF16;
    int rc = view_open(v, err);
    if (rc == 0)
        splits_choose(v, (int)split);
    if (rc == 0 && json)
        rc = view_json_print(v, err);
    else if (rc == 0)
        view_print(v);
    model_close(v->model);
    return rc;
}

int cmd_inspect(int argc, char **argv)
{
    struct err err = {0};
    struct view v = {0};
    int64_t split = 0;
    int json = 0, n = 1;
    const char *precision = "bf16", *verify = NULL;
    const struct opt opts[] = {{"split", 0, OPT_INT, &split, "N",
                                "show N workers only; default: 2, 3, 4 and 8", 1, LIMIT_WORKERS},
                               {"precision", 0, OPT_STR, &precision, "P",
                                "of the memory counts: bf16 (default) or f32", 0, 0},
                               {"json", 0, OPT_FLAG, &json, NULL, "print JSON", 0, 0},
                               {"verify", 0, OPT_STR, &verify, "WHERE",
                                "compare all bytes of the packed weights kept there with what was\n"
                                "written; WHERE as of --packed-cache: auto or a folder",
                                0, 0},
                               {0}};
    const struct opt_command cmd = {
        "inspect", "sigmoe inspect MODEL [options]",
        "Shows what a checkpoint is: family, layers, experts, memory, and what each worker would\n"
        "hold if its experts were split evenly. Reads the config and the headers, not the "
        "weights.\n"
        "MODEL is the folder of a checkpoint, the path of a config.json, or the name of a shape\n"
        "(sigmoe synth --help lists them).\n\n"
        "  sigmoe inspect ./OLMoE-1B-7B-0924 --split 4\n"
        "  sigmoe inspect qwen3-30b-a3b --json\n"
        "  sigmoe inspect pangu-sigma-1t --split 64",
        opts};
    int rc = opt_parse(&cmd, argc, argv, &v.what, &n, &err);
    if (rc == 1)
        return 0;
    if (rc == 0 && n == 0)
        rc = err_set(&err, ERR_USAGE, "MODEL is missing; see sigmoe inspect --help");
    if (rc == 0 && verify) {
        rc = view_open(&v, &err);
        rc = rc ? rc : cache_verify(&v, verify, &err);
        model_close(v.model);
    } else if (rc == 0) {
        rc = inspect_run(&v, precision, split, json, &err);
    }
    if (rc)
        fprintf(stderr, "sigmoe inspect: %s\n", err.text);
    return err_exit_code(rc);
}

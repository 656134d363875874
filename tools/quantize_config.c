/* quantize_config: what config.json says of a quantised checkpoint, and what the person who made it
 * is told. The config's form is that of compressed-tensors; its regular expressions are matched by
 * other engines against module names, ours by tensors. */
#include "tools/eval.h"
#include "tools/quantize.h"

#include "model/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const class_name[CLASS_COUNT] = {"experts", "dense", "head"};

/* module_of: the module of a role's tensor: its name without the ".weight" at the end, numbers as
 * "\\d+", dots escaped. */
static int module_of(const struct quantize *z, enum role role, char *out, size_t size)
{
    char name[LIMIT_NAME_BYTES];
    size_t used = 3;
    if (desc_tensor_name(&z->model->desc, role, 7, 7, name, sizeof(name)) != 0)
        return -1;
    char *end = strstr(name, ".weight");
    if (!end || end[7])
        return -1;
    *end = '\0';
    memcpy(out, "re:", 3);
    for (const char *c = name; *c; c++) {
        const char *put = *c == '7' ? "\\d+" : *c == '.' ? "\\." : NULL;
        size_t n = put ? strlen(put) : 1;
        if (used + n + 2 > size)
            return -1;
        memcpy(out + used, put ? put : c, n);
        used += n;
    }
    memcpy(out + used, "$", 2);
    return 0;
}

static int has_role(const struct quantize *z, enum role role)
{
    const struct model_desc *d = &z->model->desc;
    int rows, cols;
    for (int layer = 0; layer < d->n_layer; layer++)
        if (desc_tensor_shape(d, role, layer, &rows, &cols) == 0)
            return 1;
    return 0;
}

static json_t *targets_of(const struct quantize *z, enum quantize_class c)
{
    char pattern[2 * LIMIT_NAME_BYTES];
    json_t *list = json_array();
    for (int role = 0; role < ROLE_COUNT; role++)
        if (quantize_class_of(z, (enum role)role) == c && has_role(z, (enum role)role) &&
            module_of(z, (enum role)role, pattern, sizeof(pattern)) == 0)
            json_array_append_new(list, json_string(pattern));
    return list;
}

static json_t *ignored(const struct quantize *z)
{
    char pattern[2 * LIMIT_NAME_BYTES];
    json_t *list = json_array();
    static const enum role floats[] = {ROLE_ROUTER, ROLE_SHARED_ROUTER};
    for (size_t i = 0; i < sizeof(floats) / sizeof(*floats); i++)
        if (has_role(z, floats[i]) && module_of(z, floats[i], pattern, sizeof(pattern)) == 0)
            json_array_append_new(list, json_string(pattern));
    for (int c = 0; c < CLASS_COUNT; c++) {
        if (z->kind[c].dtype != DTYPE_NONE)
            continue;
        json_t *more =
            c == CLASS_HEAD ? json_pack("[s]", "lm_head") : targets_of(z, (enum quantize_class)c);
        json_array_extend(list, more);
        json_decref(more);
    }
    return list;
}

static json_t *group_of(const struct quantize *z, enum quantize_class c)
{
    const struct quant_kind *kind = &z->kind[c];
    return json_pack("{s:o,s:{s:i,s:s,s:b,s:s,s:i,s:b,s:s,s:{},s:n,s:n},s:n,s:n,s:s}", "targets",
                     targets_of(z, c), "weights", "num_bits", kind->dtype == DTYPE_I4 ? 4 : 8,
                     "type", "int", "symmetric", 1, "strategy", "group", "group_size", kind->group,
                     "dynamic", 0, "observer", "minmax", "observer_kwargs", "actorder",
                     "block_structure", "input_activations", "output_activations", "format",
                     "pack-quantized");
}

int quantize_config(struct quantize *z)
{
    char path[4352], *text, name[16];
    size_t bytes;
    json_t *root = NULL, *groups = json_object();
    snprintf(path, sizeof(path), "%s/config.json", z->model->dir);
    int rc = file_read(path, LIMIT_JSON_BYTES, &text, &bytes, z->err);
    if (rc == 0) {
        rc = json_parse_object(text, bytes, LIMIT_JSON_BYTES, path, &root, z->err);
        free(text);
    }
    if (rc) {
        json_decref(groups);
        return rc;
    }
    int n = 0;
    for (int c = 0; c < CLASS_COUNT; c++) {
        if (z->kind[c].dtype == DTYPE_NONE || z->loss[c].n_element == 0)
            continue;
        snprintf(name, sizeof(name), "group_%d", n++);
        json_object_set_new(groups, name, group_of(z, (enum quantize_class)c));
    }
    json_object_set_new(
        root, "quantization_config",
        json_pack("{s:s,s:s,s:s,s:n,s:n,s:o,s:o}", "quant_method", "compressed-tensors", "format",
                  "pack-quantized", "quantization_status", "compressed", "global_compression_ratio",
                  "kv_cache_scheme", "config_groups", groups, "ignore", ignored(z)));
    return copy_json(&z->copy, "config.json", root);
}

/* ---- perplexity ---- */

static int perplexity_of(const char *dir, const char *path, const char *activations, double *out,
                         struct err *err)
{
    struct host host = {0};
    struct host_options options;
    struct opt table[HOST_OPTIONS_MAX];
    struct eval_windows windows = {0, 0};
    struct eval_text text;
    struct eval_sum sum;
    int domain = 0;
    host_options_table(&options, table);
    options.activations_name = activations;
    int rc = host_options_check(&options, err);
    rc = rc ? rc : host_open(&host, dir, err);
    if (!rc && !host.tok)
        rc = err_set(err, ERR_MODEL, "%s has no tokenizer: --text needs one", dir);
    rc = rc ? rc : eval_windows_check(&windows, &host.model->desc, err);
    if (!rc && host.model->desc.n_domain > 0)
        domain = host.model->desc.default_domain;
    rc = rc ? rc : host_start(&host, &options, eval_kv_tokens(&windows, 1), 0, err);
    rc = rc ? rc : eval_text_open(&text, path, host.tok, 0, err);
    if (rc == 0) {
        rc = eval_score(&host, &text, &windows, &domain, 1, &sum, err);
        eval_text_close(&text);
    }
    host_close(&host);
    if (rc == 0)
        *out = eval_per_token(&sum);
    return rc;
}

int quantize_perplexity(struct quantize *z)
{
    int rc = perplexity_of(z->in, z->text, z->activations, &z->perplexity[0], z->err);
    return rc ? rc : perplexity_of(z->out, z->text, z->activations, &z->perplexity[1], z->err);
}

/* ---- the report ---- */

static double relative_error(const struct quantize_loss *l)
{
    return l->energy > 0 ? sqrt(l->error / l->energy) : 0.0;
}

static void kind_text(const struct quant_kind *kind, char *out, size_t size)
{
    snprintf(out, size, "%s:%d", dtype_name(kind->dtype), kind->group);
}

static void report_json(const struct quantize *z)
{
    json_t *classes = json_object();
    char kind[24];
    for (int c = 0; c < CLASS_COUNT; c++) {
        const struct quantize_loss *l = &z->loss[c];
        if (l->n_element == 0)
            continue;
        kind_text(&z->kind[c], kind, sizeof(kind));
        json_object_set_new(
            classes, class_name[c],
            json_pack("{s:s,s:I,s:I,s:I,s:f}", "kind", kind, "weights", (json_int_t)l->n_element,
                      "bytes_before", (json_int_t)l->bytes_before, "bytes_after",
                      (json_int_t)l->bytes_after, "relative_error", relative_error(l)));
    }
    json_t *root = json_pack("{s:s,s:o}", "output", z->out, "classes", classes);
    if (z->text)
        json_object_set_new(root, "perplexity",
                            json_pack("{s:f,s:f,s:s}", "before", z->perplexity[0], "after",
                                      z->perplexity[1], "activations", z->activations));
    json_dumpf(root, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(root);
}

void quantize_report(const struct quantize *z)
{
    if (z->json) {
        report_json(z);
        return;
    }
    printf("%-9s%-10s%12s%12s%12s  %s\n", "class", "kind", "weights", "before", "after",
           "error / magnitude (rms)");
    for (int c = 0; c < CLASS_COUNT; c++) {
        const struct quantize_loss *l = &z->loss[c];
        char kind[24], n[32], before[32], after[32];
        if (l->n_element == 0)
            continue;
        kind_text(&z->kind[c], kind, sizeof(kind));
        printf("%-9s%-10s%12s%12s%12s  %.4f\n", class_name[c], kind,
               human_count((double)l->n_element, n, sizeof(n)),
               human_bytes((double)l->bytes_before, before, sizeof(before)),
               human_bytes((double)l->bytes_after, after, sizeof(after)), relative_error(l));
    }
    if (z->text)
        printf("perplexity of %s: %.4f before, %.4f after with activations %s (%+.2f %%)\n",
               z->text, z->perplexity[0], z->perplexity[1], z->activations,
               100 * (z->perplexity[1] / z->perplexity[0] - 1));
}

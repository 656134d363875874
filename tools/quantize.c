/* quantize: `sigmoe quantize`, a checkpoint with its matrices as integers. Tensor by tensor, a row
 * at a time, so memory is bounded by a row; what is not quantised is copied. */
#include "tools/quantize.h"

#include "base/opt.h"
#include "tools/commands.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum quantize_class quantize_class_of(const struct quantize *z, enum role role)
{
    const struct model_desc *d = &z->model->desc;
    const struct quant_kind *kind = quant_kind_of(d, role);
    return kind == &d->quant_expert  ? CLASS_EXPERTS
           : kind == &d->quant_dense ? CLASS_DENSE
           : kind == &d->quant_head  ? CLASS_HEAD
                                     : CLASS_COUNT;
}

/* The kind that a tensor becomes; dtype NONE: it is copied. */
static struct quant_kind kind_of(const struct quantize *z, enum role role)
{
    enum quantize_class c = quantize_class_of(z, role);
    return c == CLASS_COUNT ? (struct quant_kind){DTYPE_NONE, 0} : z->kind[c];
}

/* ---- declaring ---- */

static int declare_parts(struct quantize *z, const struct quant_kind *kind, enum role role,
                         int layer, int expert, const struct tensor *t)
{
    const struct model_desc *d = &z->model->desc;
    char name[LIMIT_NAME_BYTES];
    int k = (int)t->dim[1], rc = 0;
    const uint64_t dim[3][2] = {{t->dim[0], (uint64_t)quant_words(kind->dtype, k)},
                                {t->dim[0], (uint64_t)quant_groups(k, kind->group)},
                                {2, 0}};
    static const enum dtype dtype[3] = {DTYPE_I32, DTYPE_BF16, DTYPE_I64};
    for (int part = QUANT_PACKED; part <= QUANT_SHAPE && rc == 0; part++) {
        if (quant_name(d, role, layer, expert, (enum quant_part)part, name, sizeof(name)) != 0)
            return err_set(z->err, ERR_LIMIT, "the name of tensor \"%s\" is too long", t->name);
        rc = copy_declare(&z->copy, name, dtype[part], part == QUANT_SHAPE ? 1 : 2, dim[part]);
    }
    return rc;
}

static int declare(void *arg, enum role role, int layer, int expert)
{
    struct quantize *z = arg;
    const struct tensor *t;
    struct quant_kind kind = kind_of(z, role);
    int rc = checkpoint_role(z->model->ck, &z->model->desc, role, layer, expert, &t, z->err);
    if (rc)
        return rc;
    return kind.dtype != DTYPE_NONE ? declare_parts(z, &kind, role, layer, expert, t)
                                    : copy_declare(&z->copy, t->name, t->dtype, t->n_dim, t->dim);
}

/* ---- writing ---- */

static float element(const struct tensor *t, size_t i)
{
    if (t->dtype == DTYPE_F32) {
        float f;
        memcpy(&f, (const char *)t->data + 4 * i, 4);
        return f;
    }
    uint16_t h;
    memcpy(&h, (const char *)t->data + 2 * i, 2);
    return t->dtype == DTYPE_BF16 ? bf16_to_f32(h) : f16_to_f32(h);
}

static void row_read(struct quantize *z, const struct tensor *t, size_t row)
{
    size_t k = (size_t)t->dim[1];
    for (size_t i = 0; i < k; i++)
        z->row[i] = element(t, row * k + i);
}

/* The three tensors lie one after the other in the file: all integers, then all scales, then the
 * shape. So a matrix is quantised twice, which costs less than keeping its scales. */
static int write_parts(struct quantize *z, const struct quant_kind *kind,
                       struct quantize_loss *loss, const struct tensor *t)
{
    int k = (int)t->dim[1], rc = 0;
    size_t n_row = (size_t)t->dim[0], words = (size_t)quant_words(kind->dtype, k) * 4;
    size_t scales = (size_t)quant_groups(k, kind->group) * 2;
    for (size_t r = 0; r < n_row && rc == 0; r++) {
        row_read(z, t, r);
        loss->error += quantise_row(z->row, k, kind->dtype, kind->group, z->q, z->scale);
        for (int i = 0; i < k; i++)
            loss->energy += (double)z->row[i] * (double)z->row[i];
        quant_pack_row(z->q, k, kind->dtype, z->word);
        rc = copy_data(&z->copy, z->word, words);
    }
    for (size_t r = 0; r < n_row && rc == 0; r++) {
        row_read(z, t, r);
        quantise_row(z->row, k, kind->dtype, kind->group, z->q, z->scale);
        rc = copy_data(&z->copy, z->scale, scales);
    }
    const int64_t shape[2] = {(int64_t)t->dim[0], (int64_t)t->dim[1]};
    rc = rc ? rc : copy_data(&z->copy, shape, sizeof(shape));
    loss->n_element += (uint64_t)n_row * (uint64_t)k;
    loss->bytes_before += t->bytes;
    loss->bytes_after += n_row * (words + scales) + sizeof(shape);
    return rc;
}

static int write_one(void *arg, enum role role, int layer, int expert)
{
    struct quantize *z = arg;
    const struct tensor *t;
    struct quant_kind kind = kind_of(z, role);
    int rc = checkpoint_role(z->model->ck, &z->model->desc, role, layer, expert, &t, z->err);
    if (rc)
        return rc;
    checkpoint_want(z->model->ck, t);
    rc = kind.dtype != DTYPE_NONE ? write_parts(z, &kind, &z->loss[quantize_class_of(z, role)], t)
                                  : copy_data(&z->copy, t->data, t->bytes);
    checkpoint_done(z->model->ck, t);
    return rc;
}

static int scratch_create(struct quantize *z)
{
    const struct model_desc *d = &z->model->desc;
    size_t k = (size_t)d->d_model;
    const int widths[] = {d->n_head * d->d_head, d->d_ff, d->d_ff_expert, d->d_ff_shared};
    for (size_t i = 0; i < sizeof(widths) / sizeof(*widths); i++)
        k = widths[i] > (int)k ? (size_t)widths[i] : k;
    z->row = malloc(k * sizeof(*z->row));
    z->q = malloc(k);
    z->scale = malloc((k / K_BLOCK + 1) * sizeof(*z->scale));
    z->word = malloc((k / 4 + 1) * sizeof(*z->word));
    return z->row && z->q && z->scale && z->word
               ? 0
               : err_set(z->err, ERR_NOMEM, "no memory for a row of %zu weights", k);
}

static int write_all(struct quantize *z)
{
    const struct model_desc *d = &z->model->desc;
    int rc = desc_each_tensor(d, declare, z);
    rc = rc ? rc : copy_begin(&z->copy, "quantize");
    rc = rc ? rc : desc_each_tensor(d, write_one, z);
    copy_data_end(&z->copy);
    static const char *const code[] = {"configuration_pangu_sigma.py", "modeling_pangu_sigma.py"};
    rc = rc ? rc : quantize_config(z);
    for (int i = 0; i < 2 && rc == 0; i++)
        rc = copy_file(&z->copy, z->in, code[i]);
    rc = rc ? rc : copy_companions(&z->copy, z->in, NULL);
    return rc == 0 && z->finish ? z->finish(z) : rc;
}

/* ---- the command ---- */

int quantize_kind(const char *option, const char *text, struct quant_kind *out, struct err *err)
{
    char name[8] = "";
    int group = 0, used = 0;
    if (strcmp(text, "none") == 0) {
        *out = (struct quant_kind){DTYPE_NONE, 0};
        return 0;
    }
    int n = sscanf(text, "%4[int84]%n:%d%n", name, &used, &group, &used);
    enum dtype dtype = strcmp(name, "int8") == 0   ? DTYPE_I8
                       : strcmp(name, "int4") == 0 ? DTYPE_I4
                                                   : DTYPE_NONE;
    if (n == 1)
        group = dtype == DTYPE_I8 ? 128 : 32;
    if (n < 1 || text[used] || dtype == DTYPE_NONE || packed_quant_bytes(dtype, 1, 1, group) == 0)
        return err_set(
            err, ERR_USAGE,
            "%s '%s': give int8, int4 or none, with :GROUP (a multiple of 32 up to %d) if "
            "the usual 128 and 32 will not do",
            option, text, QUANT_GROUP_MAX);
    *out = (struct quant_kind){dtype, group};
    return 0;
}

static int parse(int argc, char **argv, struct quantize *z)
{
    const struct opt opts[] = {
        {"output", 'o', OPT_STR, &z->out, "DIR", "where to write; must not exist or be empty", 0,
         0},
        {"experts", 0, OPT_STR, &z->experts, "KIND",
         "int8, int4 or none, :GROUP elements a scale (int4:32)", 0, 0},
        {"dense", 0, OPT_STR, &z->dense, "KIND",
         "the same for attention, dense FFNs and shared experts (int8:128)", 0, 0},
        {"head", 0, OPT_STR, &z->head, "KIND",
         "the same for the LM head (none: other engines keep it in floats)", 0, 0},
        {"text", 0, OPT_STR, &z->text, "FILE",
         "measure the perplexity of this text before and after", 0, 0},
        {"activations", 0, OPT_STR, &z->activations, "TYPE",
         "for that: what rows are made where they meet integers,\n"
         "int8 (default) or bf16",
         0, 0},
        {"shard-size", 0, OPT_SIZE, &z->shard_bytes, "BYTES", "of a file (4G)", 1 << 20, 1LL << 40},
        {"json", 0, OPT_FLAG, &z->json, NULL, "print the report as JSON", 0, 0},
        {NULL, 0, OPT_FLAG, NULL, NULL, NULL, 0, 0}};
    const struct opt_command command = {
        .name = "quantize",
        .usage = "sigmoe quantize MODEL -o DIR [--experts KIND] [--dense KIND] [--head KIND]",
        .about =
            "Writes a checkpoint whose matrices are 8 or 4 bit integers with a bf16 scale a group, "
            "in\n"
            "the compressed-tensors layout that vLLM and transformers read. Embedding, norms and\n"
            "gates stay as they are. sigmoe computes with the integers as they lie, against rows\n"
            "made integers too or rows in bf16 (sigmoe run --activations).\n\n"
            "  sigmoe quantize ./olmoe -o ./olmoe-int4 --experts int4:32 --dense int8",
        .opts = opts};
    enum activations activations;
    int n = 1;
    int rc = opt_parse(&command, argc, argv, &z->in, &n, z->err);
    if (rc)
        return rc;
    if (n != 1 || !z->out)
        return err_set(z->err, ERR_USAGE, "usage: %s", command.usage);
    rc = quantize_kind("--experts", z->experts, &z->kind[CLASS_EXPERTS], z->err);
    rc = rc ? rc : quantize_kind("--dense", z->dense, &z->kind[CLASS_DENSE], z->err);
    rc = rc ? rc : quantize_kind("--head", z->head, &z->kind[CLASS_HEAD], z->err);
    rc = rc ? rc : activations_parse(z->activations, &activations, z->err);
    if (!rc && z->kind[0].dtype == DTYPE_NONE && z->kind[1].dtype == DTYPE_NONE &&
        z->kind[2].dtype == DTYPE_NONE)
        rc = err_set(z->err, ERR_USAGE, "with none for every class there is nothing to do");
    return rc;
}

static int input_check(const struct quantize *z)
{
    const struct model_desc *d = &z->model->desc;
    if (d->quant_expert.dtype != DTYPE_NONE || d->quant_dense.dtype != DTYPE_NONE ||
        d->quant_head.dtype != DTYPE_NONE)
        return err_set(z->err, ERR_USAGE,
                       "%s is quantised already; quantize the float checkpoint it was made of",
                       z->in);
    if (z->kind[CLASS_HEAD].dtype != DTYPE_NONE && (d->tied || d->n_slot > 1))
        return err_set(z->err, ERR_USAGE,
                       "--head: the LM head of %s is its embedding, which is looked up in floats; "
                       "leave --head out",
                       z->in);
    return 0;
}

int quantize_run(struct quantize *z)
{
    int rc = model_open(z->in, &z->model, z->err);
    rc = rc ? rc : input_check(z);
    rc = rc ? rc : scratch_create(z);
    rc = rc ? rc : copy_open(&z->copy, z->out, z->shard_bytes, z->err);
    if (rc == 0)
        rc = copy_close(&z->copy, write_all(z));
    free(z->row);
    free(z->q);
    free(z->scale);
    free(z->word);
    return rc;
}

int cmd_quantize(int argc, char **argv)
{
    struct err err = {0};
    struct quantize z = {.experts = "int4:32",
                         .dense = "int8:128",
                         .activations = "int8",
                         .head = "none",
                         .shard_bytes = (int64_t)4 << 30,
                         .err = &err};
    int rc = parse(argc, argv, &z);
    if (rc > 0)
        return 0;
    rc = rc ? rc : quantize_run(&z);
    if (rc == 0 && z.text)
        rc = quantize_perplexity(&z);
    if (rc == 0)
        quantize_report(&z);
    model_close(z.model);
    if (rc)
        fprintf(stderr, "sigmoe quantize: %s\n", err.text);
    return err_exit_code(rc);
}

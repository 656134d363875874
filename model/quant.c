/* quant: see quant.h. A scale that is stored wider than bf16 is refused unless it is a bf16: the
 * kernels multiply by bf16 scales, and rounding one silently would be another model. */
#include "model/quant.h"

#include <stdio.h>
#include <string.h>

struct quant_kind *quant_kind_slot(struct model_desc *desc, enum role role)
{
    switch (role) {
    case ROLE_EXPERT_GATE:
    case ROLE_EXPERT_UP:
    case ROLE_EXPERT_DOWN:
        return &desc->quant_expert;
    case ROLE_Q:
    case ROLE_K:
    case ROLE_V:
    case ROLE_O:
    case ROLE_GATE_PROJ:
    case ROLE_UP_PROJ:
    case ROLE_DOWN_PROJ:
    case ROLE_SHARED_GATE:
    case ROLE_SHARED_UP:
    case ROLE_SHARED_DOWN:
        return &desc->quant_dense;
    case ROLE_LM_HEAD:
        return &desc->quant_head;
    default:
        return NULL;
    }
}

const struct quant_kind *quant_kind_of(const struct model_desc *desc, enum role role)
{
    return quant_kind_slot((struct model_desc *)(uintptr_t)desc, role);
}

struct packed quant_packed(const struct model_desc *desc, enum role role, enum dtype dtype, int n,
                           int k, size_t *bytes)
{
    const struct quant_kind *kind = quant_kind_of(desc, role);
    if (kind && kind->dtype != DTYPE_NONE && dtype == DTYPE_BF16) {
        *bytes = packed_quant_bytes(kind->dtype, n, k, kind->group);
        return (struct packed){.dtype = kind->dtype, .n = n, .k = k, .group = kind->group};
    }
    *bytes = packed_bytes(dtype, n, k);
    return (struct packed){.dtype = dtype, .n = n, .k = k};
}

/* ---- the kinds of a checkpoint ---- */

struct detect {
    const struct checkpoint *ck;
    struct model_desc *desc;
    struct seen {
        int n, n_firm; /* matrices; those with several scales a row, which fix the group */
        int k_loose;   /* widest of the others */
    } seen[3];         /* expert, dense, head */
    struct err *err;
};

static int class_of(const struct model_desc *desc, const struct quant_kind *kind)
{
    return kind == &desc->quant_expert ? 0 : kind == &desc->quant_dense ? 1 : 2;
}

static int detect_one(void *arg, enum role role, int layer, int expert)
{
    struct detect *d = arg;
    struct quant_source s;
    struct quant_kind *kind = quant_kind_slot(d->desc, role), found = {DTYPE_NONE, 0};
    if (!kind)
        return 0;
    int rc = quant_find(d->ck, d->desc, role, layer, expert, &s, d->err);
    if (rc < 0)
        return rc;
    if (rc > 0)
        found = (struct quant_kind){s.dtype, s.group};
    struct seen *seen = &d->seen[class_of(d->desc, kind)];
    /* One scale a row: any group that is wide enough means the same. */
    int loose = rc > 0 && s.scale->dim[1] == 1;
    int alike = kind->dtype == found.dtype &&
                (kind->group == found.group || (loose && kind->group >= s.k) ||
                 (seen->n_firm == 0 && found.group >= seen->k_loose));
    if (seen->n && !alike) {
        char name[LIMIT_NAME_BYTES] = "";
        desc_tensor_name(d->desc, role, layer, expert, name, sizeof(name));
        return err_set(
            d->err, ERR_MODEL,
            "tensor \"%s\" is stored as %s in groups of %d, others of its class as %s in "
            "groups of %d; all experts, and all dense matrices, must be stored alike",
            name, dtype_name(found.dtype), found.group, dtype_name(kind->dtype), kind->group);
    }
    seen->n++;
    seen->n_firm += !loose;
    seen->k_loose = loose && s.k > seen->k_loose ? s.k : seen->k_loose;
    if (seen->n == 1 || (!loose && seen->n_firm == 1) ||
        (seen->n_firm == 0 && found.group > kind->group))
        *kind = found;
    return 0;
}

int quant_detect(const struct checkpoint *ck, struct model_desc *desc, struct err *err)
{
    struct detect d = {.ck = ck, .desc = desc, .err = err};
    return desc_each_tensor(desc, detect_one, &d);
}

/* ---- the config ---- */

static int group_read(struct model_desc *desc, const struct config *quant, const json_t *group,
                      struct err *err)
{
    const json_t *w = json_object_get(group, "weights");
    int bits = (int)json_integer_value(json_object_get(w, "num_bits"));
    json_int_t size = json_integer_value(json_object_get(w, "group_size"));
    const char *type = json_string_value(json_object_get(w, "type"));
    if (!w || json_is_null(w))
        return 0;
    if ((bits != 4 && bits != 8) || !type || strcmp(type, "int") != 0 ||
        !json_is_true(json_object_get(w, "symmetric")) || size < K_BLOCK ||
        size > QUANT_GROUP_MAX || size % K_BLOCK != 0)
        return err_set(
            err, ERR_MODEL,
            "%s: \"quantization_config\" has weights that are not symmetric integers of 4 "
            "or 8 bits in groups of a multiple of %d, at most %d",
            quant->path, K_BLOCK, QUANT_GROUP_MAX);
    if (desc->n_quant_config == QUANT_CONFIG_MAX)
        return err_set(err, ERR_MODEL, "%s: \"quantization_config\" has more than %d groups",
                       quant->path, QUANT_CONFIG_MAX);
    desc->quant_config[desc->n_quant_config++] =
        (struct quant_kind){bits == 4 ? DTYPE_I4 : DTYPE_I8, (int)size};
    return 0;
}

int quant_config_read(struct model_desc *desc, const struct config *config, struct err *err)
{
    struct config quant;
    const char *method, *format, *name;
    json_t *group;
    int there = config_object(config, "quantization_config", "quantization_config.", &quant, err);
    if (there <= 0)
        return there;
    int rc = config_string_or(&quant, "quant_method", "", &method, err);
    rc = rc ? rc : config_string_or(&quant, "format", "", &format, err);
    if (!rc && (strcmp(method, "compressed-tensors") != 0 || strcmp(format, "pack-quantized") != 0))
        rc = err_set(err, ERR_MODEL,
                     "%s: \"quantization_config\" is of method \"%s\", format \"%s\"; read are "
                     "compressed-tensors' pack-quantized, and float checkpoints, which sigmoe "
                     "quantize makes such of",
                     config->path, method, format);
    json_object_foreach(json_object_get(quant.root, "config_groups"), name, group)
    {
        rc = rc ? rc : group_read(desc, &quant, group, err);
    }
    return rc;
}

/* ---- the tensors ---- */

int quant_name(const struct model_desc *desc, enum role role, int layer, int expert,
               enum quant_part part, char *out, size_t size)
{
    static const char *const suffix[] = {"_packed", "_scale", "_shape"};
    char name[LIMIT_NAME_BYTES - 16]; /* room for the suffix */
    if (desc_tensor_name(desc, role, layer, expert, name, sizeof(name)) != 0)
        return -1;
    int n = snprintf(out, size, "%s%s", name, suffix[part]);
    return n > 0 && (size_t)n < size ? 0 : -1;
}

int quant_words(enum dtype dtype, int k)
{
    int each = dtype == DTYPE_I4 ? 8 : 4;
    return (k + each - 1) / each;
}

static int refuse(const struct tensor *t, struct err *err, const char *what)
{
    return err_set(err, ERR_MODEL, "tensor \"%s\": %s", t->name, what);
}

/* The config's size of a group that explains so many scales a row. A row with one scale is
 * explained by any that is wide enough, which then all mean the same. */
static int group_of(const struct model_desc *desc, struct quant_source *s, struct err *err)
{
    s->group = 0;
    for (int i = 0; i < desc->n_quant_config; i++) {
        const struct quant_kind *kind = &desc->quant_config[i];
        if (kind->dtype != s->dtype || kind->group == s->group ||
            (uint64_t)((s->k + kind->group - 1) / kind->group) != s->scale->dim[1])
            continue;
        if (s->group && s->scale->dim[1] > 1)
            return refuse(s->scale, err, "two group sizes of config.json fit its scales");
        s->group = kind->group;
    }
    return s->group ? 0
                    : refuse(s->scale, err, "no group size that config.json names fits its scales");
}

/* What the shapes say: bits from the packed columns, the group from the scales'. */
static int shapes_read(const struct model_desc *desc, struct quant_source *s, struct err *err)
{
    const struct tensor *p = s->packed, *c = s->scale;
    if (p->n_dim != 2 || p->dim[0] != (uint64_t)s->n || p->dtype != DTYPE_I32)
        return refuse(p, err, "packed integers must be I32 with a row for each of the matrix");
    if (p->dim[1] == (uint64_t)quant_words(DTYPE_I4, s->k))
        s->dtype = DTYPE_I4;
    else if (p->dim[1] == (uint64_t)quant_words(DTYPE_I8, s->k))
        s->dtype = DTYPE_I8;
    else
        return refuse(p, err, "its width is neither that of 4 nor of 8 bits");
    if (c->n_dim != 2 || c->dim[0] != (uint64_t)s->n || c->dim[1] < 1)
        return refuse(c, err, "scales must be [rows, groups]");
    if (c->dtype != DTYPE_BF16 && c->dtype != DTYPE_F16 && c->dtype != DTYPE_F32)
        return refuse(c, err, "scales must be BF16, F16 or F32");
    return group_of(desc, s, err);
}

static uint16_t scale_bits(const struct tensor *c, size_t i, int *exact)
{
    float f;
    if (c->dtype == DTYPE_BF16)
        return ((const uint16_t *)c->data)[i];
    if (c->dtype == DTYPE_F16)
        f = f16_to_f32(((const uint16_t *)c->data)[i]);
    else
        memcpy(&f, (const char *)c->data + 4 * i, 4);
    uint16_t h = f32_to_bf16(f);
    *exact &= bf16_to_f32(h) == f;
    return h;
}

/* Wider scales are looked at one by one; bf16 ones, the usual case, cost nothing here. */
static int scales_check(const struct quant_source *s, struct err *err)
{
    size_t n = (size_t)s->scale->dim[0] * (size_t)s->scale->dim[1];
    int exact = 1;
    for (size_t i = 0; i < n && s->scale->dtype != DTYPE_BF16; i++)
        scale_bits(s->scale, i, &exact);
    return exact ? 0
                 : refuse(s->scale, err, "a scale is no bf16 value; save the scales as bfloat16");
}

int quant_find(const struct checkpoint *ck, const struct model_desc *desc, enum role role,
               int layer, int expert, struct quant_source *out, struct err *err)
{
    char name[LIMIT_NAME_BYTES];
    struct quant_source s = {.n = 0};
    if (!quant_kind_of(desc, role) || desc_tensor_shape(desc, role, layer, &s.n, &s.k) != 0 ||
        quant_name(desc, role, layer, expert, QUANT_PACKED, name, sizeof(name)) != 0 ||
        !(s.packed = checkpoint_find(ck, name)))
        return 0;
    quant_name(desc, role, layer, expert, QUANT_SCALE, name, sizeof(name));
    s.scale = checkpoint_find(ck, name);
    if (!s.scale)
        return refuse(s.packed, err, "the weight_scale beside it is missing");
    int rc = shapes_read(desc, &s, err);
    rc = rc ? rc : scales_check(&s, err);
    if (rc)
        return rc;
    const struct quant_kind *kind = quant_kind_of(desc, role);
    if (s.scale->dim[1] == 1 && kind->dtype == s.dtype && kind->group >= s.k)
        s.group = kind->group;
    *out = s;
    return 1;
}

/* ---- rows ---- */

/* Words are little-endian, as this machine is, so an integer is a byte, or half of one, in order.
 */
static void row_unpack_i8(const unsigned char *byte, int k, int8_t *q)
{
    for (int i = 0; i < k; i++)
        q[i] = (int8_t)(byte[i] ^ 0x80);
}

static void row_unpack_i4(const unsigned char *byte, int k, int8_t *q)
{
    for (int i = 0; i + 1 < k; i += 2) {
        q[i] = (int8_t)((byte[i / 2] & 15) - 8);
        q[i + 1] = (int8_t)((byte[i / 2] >> 4) - 8);
    }
    if (k % 2)
        q[k - 1] = (int8_t)((byte[k / 2] & 15) - 8);
}

void quant_row(const struct quant_source *s, int row, int8_t *q, uint16_t *scale)
{
    int exact = 1;
    const unsigned char *words =
        (const unsigned char *)s->packed->data +
        (size_t)row * (size_t)quant_words(s->dtype, s->k) * sizeof(uint32_t);
    if (s->dtype == DTYPE_I4)
        row_unpack_i4(words, s->k, q);
    else
        row_unpack_i8(words, s->k, q);
    size_t n_group = (size_t)s->scale->dim[1];
    for (size_t g = 0; g < n_group; g++)
        scale[g] = scale_bits(s->scale, (size_t)row * n_group + g, &exact);
}

void quant_pack_row(const int8_t *q, int k, enum dtype dtype, uint32_t *word)
{
    int bits = dtype == DTYPE_I4 ? 4 : 8, each = 32 / bits;
    uint32_t mask = (1u << bits) - 1;
    int offset = 1 << (bits - 1);
    for (int i = 0; i < k; i += each) {
        uint32_t w = 0;
        for (int j = 0; j < each && i + j < k; j++)
            w |= ((uint32_t)(q[i + j] + offset) & mask) << (bits * j);
        word[i / each] = w;
    }
}

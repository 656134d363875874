/* roles: which tensors a model has, what they are called and which shape they have: one table of
 * roles from which names, shape checks, parameter counts and the writer of synthetic checkpoints
 * all follow. */
#include "model/desc.h"

#include <string.h>

/* put appends text to out; -1 when it does not fit. */
static int put(char *out, size_t size, size_t *used, const char *text, size_t n)
{
    if (n >= size - *used)
        return -1;
    memcpy(out + *used, text, n);
    *used += n;
    out[*used] = '\0';
    return 0;
}

static int put_number(char *out, size_t size, size_t *used, int number)
{
    char digits[12];
    size_t n = 0;
    do {
        digits[sizeof(digits) - ++n] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    return put(out, size, used, digits + sizeof(digits) - n, n);
}

int desc_tensor_name(const struct model_desc *desc, enum role role, int layer, int expert,
                     char *out, size_t size)
{
    const struct model_family *family = desc_family(desc);
    if (!family || (int)role < 0 || role >= ROLE_COUNT || !family->name[role] || size == 0)
        return -1;
    if (layer < 0 || expert < 0)
        return -1;
    const char *rest = family->name[role];
    size_t used = 0;
    const int numbers[2] = {layer, expert};
    for (int i = 0; i < 2; i++) {
        const char *hole = strstr(rest, "%d");
        if (!hole)
            break;
        if (put(out, size, &used, rest, (size_t)(hole - rest)) ||
            put_number(out, size, &used, numbers[i]))
            return -1;
        rest = hole + 2;
    }
    return put(out, size, &used, rest, strlen(rest));
}

/* Matrices are [rows, cols]; vectors [rows], cols 0; rows 0: the model has no such tensor. */
struct shape {
    int rows, cols;
};

static struct shape shape_if(int condition, int rows, int cols)
{
    return condition ? (struct shape){rows, cols} : (struct shape){0, 0};
}

static struct shape attention_shape(const struct model_desc *d, enum role role)
{
    int d_q = d->n_head * d->d_head, d_kv = d->n_kv_head * d->d_head;
    int per_head = d->qk_norm == QK_NORM_HEAD, has_norm = d->qk_norm != QK_NORM_NONE;
    switch (role) {
    case ROLE_Q:
        return shape_if(1, d_q, d->d_model);
    case ROLE_K:
    case ROLE_V:
        return shape_if(1, d_kv, d->d_model);
    case ROLE_O:
        return shape_if(1, d->d_model, d_q);
    case ROLE_Q_BIAS:
        return shape_if(d->qkv_bias, d_q, 0);
    case ROLE_K_BIAS:
    case ROLE_V_BIAS:
        return shape_if(d->qkv_bias, d_kv, 0);
    case ROLE_O_BIAS:
        return shape_if(d->o_bias, d->d_model, 0);
    case ROLE_Q_NORM:
        return shape_if(has_norm, per_head ? d->d_head : d_q, 0);
    case ROLE_K_NORM:
        return shape_if(has_norm, per_head ? d->d_head : d_kv, 0);
    case ROLE_SINKS:
        return shape_if(d->attn_sinks, d->n_head, 0);
    default:
        return (struct shape){0, 0};
    }
}

static struct shape ffn_shape(const struct model_desc *d, enum role role, int sparse)
{
    int shared = sparse && d->d_ff_shared > 0, bias = !sparse && d->mlp_bias;
    int expert_bias = sparse && d->expert_bias, gated = !d->ffn_plain;
    switch (role) {
    case ROLE_GATE_PROJ:
        return shape_if(!sparse && gated, d->d_ff, d->d_model);
    case ROLE_UP_PROJ:
        return shape_if(!sparse, d->d_ff, d->d_model);
    case ROLE_DOWN_PROJ:
        return shape_if(!sparse, d->d_model, d->d_ff);
    case ROLE_GATE_PROJ_BIAS:
        return shape_if(bias && gated, d->d_ff, 0);
    case ROLE_UP_PROJ_BIAS:
        return shape_if(bias, d->d_ff, 0);
    case ROLE_DOWN_PROJ_BIAS:
        return shape_if(bias, d->d_model, 0);
    case ROLE_ROUTER:
        return shape_if(sparse && d->gate != GATE_TABLE, d->n_expert, d->d_model);
    case ROLE_ROUTING_TABLE:
        return shape_if(sparse && d->gate == GATE_TABLE, d->n_domain, d->vocab * d->top_k);
    case ROLE_ROUTER_BIAS:
        return shape_if(sparse && d->gate_bias, d->n_expert, 0);
    case ROLE_EXPERT_GATE:
        return shape_if(sparse && gated, d->d_ff_expert, d->d_model);
    case ROLE_EXPERT_UP:
        return shape_if(sparse, d->d_ff_expert, d->d_model);
    case ROLE_EXPERT_DOWN:
        return shape_if(sparse, d->d_model, d->d_ff_expert);
    case ROLE_EXPERT_GATE_BIAS:
        return shape_if(expert_bias && gated, d->d_ff_expert, 0);
    case ROLE_EXPERT_UP_BIAS:
        return shape_if(expert_bias, d->d_ff_expert, 0);
    case ROLE_EXPERT_DOWN_BIAS:
        return shape_if(expert_bias, d->d_model, 0);
    case ROLE_SHARED_GATE:
    case ROLE_SHARED_UP:
        return shape_if(shared, d->d_ff_shared, d->d_model);
    case ROLE_SHARED_DOWN:
        return shape_if(shared, d->d_model, d->d_ff_shared);
    case ROLE_SHARED_ROUTER:
        return shape_if(shared && d->shared_gated, 1, d->d_model);
    default:
        return (struct shape){0, 0};
    }
}

static struct shape role_shape(const struct model_desc *d, enum role role, int layer)
{
    switch (role) {
    case ROLE_EMBED:
        return shape_if(1, d->n_slot * d->vocab, d->d_model);
    case ROLE_LM_HEAD:
        return shape_if(!d->tied, d->n_slot * d->vocab, d->d_model);
    case ROLE_POS_EMBED:
        return shape_if(d->learned_pos, d->max_context, d->d_model);
    case ROLE_QUERY_EMBED:
        return shape_if(d->query_layer, d->max_context, d->d_model);
    case ROLE_FINAL_NORM:
    case ROLE_ATTN_NORM:
    case ROLE_FFN_NORM:
        return shape_if(1, d->d_model, 0);
    case ROLE_FINAL_NORM_BIAS:
    case ROLE_ATTN_NORM_BIAS:
    case ROLE_FFN_NORM_BIAS:
        return shape_if(d->norm == NORM_LAYER, d->d_model, 0);
    default:
        return role <= ROLE_SINKS ? attention_shape(d, role)
                                  : ffn_shape(d, role, d->layer[layer].sparse);
    }
}

int desc_tensor_shape(const struct model_desc *desc, enum role role, int layer, int *rows,
                      int *cols)
{
    if (layer < 0 || layer >= desc->n_layer)
        return -1;
    struct shape shape = role_shape(desc, role, layer);
    if (shape.rows == 0)
        return -1;
    *rows = shape.rows;
    *cols = shape.cols;
    return 0;
}

int desc_tensor_dims(const struct model_desc *desc, enum role role, int layer,
                     uint64_t dim[LIMIT_ST_DIMS])
{
    int rows, cols;
    if (desc_tensor_shape(desc, role, layer, &rows, &cols) != 0)
        return -1;
    dim[0] = (uint64_t)rows;
    dim[1] = (uint64_t)cols;
    if (!role_is_table(role) || desc->top_k == 1)
        return cols ? 2 : 1;
    dim[1] = (uint64_t)desc->vocab;
    dim[2] = (uint64_t)desc->top_k;
    return 3;
}

int role_is_table(enum role role)
{
    return role == ROLE_ROUTING_TABLE;
}

int role_is_global(enum role role)
{
    return role <= ROLE_LM_HEAD;
}

int role_is_expert(enum role role)
{
    return role >= ROLE_EXPERT_GATE && role <= ROLE_EXPERT_DOWN_BIAS;
}

static int each_expert(const struct model_desc *desc, int layer, desc_tensor_fn *fn, void *arg)
{
    int rows, cols, rc = 0;
    for (int expert = 0; expert < desc->n_expert && rc == 0; expert++)
        for (int r = ROLE_EXPERT_GATE; r <= ROLE_EXPERT_DOWN_BIAS && rc == 0; r++)
            if (desc_tensor_shape(desc, (enum role)r, layer, &rows, &cols) == 0)
                rc = fn(arg, (enum role)r, layer, expert);
    return rc;
}

static int each_layer(const struct model_desc *desc, int layer, desc_tensor_fn *fn, void *arg)
{
    int rows, cols, rc = 0;
    for (int r = ROLE_LM_HEAD + 1; r < ROLE_COUNT && rc == 0; r++) {
        enum role role = (enum role)r;
        if (!role_is_expert(role) && desc_tensor_shape(desc, role, layer, &rows, &cols) == 0)
            rc = fn(arg, role, layer, 0);
    }
    return rc == 0 && desc->layer[layer].sparse ? each_expert(desc, layer, fn, arg) : rc;
}

int desc_each_tensor(const struct model_desc *desc, desc_tensor_fn *fn, void *arg)
{
    static const enum role first[] = {ROLE_EMBED, ROLE_POS_EMBED, ROLE_QUERY_EMBED};
    static const enum role last[] = {ROLE_FINAL_NORM, ROLE_FINAL_NORM_BIAS, ROLE_LM_HEAD};
    int rows, cols, rc = 0;
    for (int i = 0; i < 3 && rc == 0; i++)
        if (desc_tensor_shape(desc, first[i], 0, &rows, &cols) == 0)
            rc = fn(arg, first[i], 0, 0);
    for (int layer = 0; layer < desc->n_layer && rc == 0; layer++)
        rc = each_layer(desc, layer, fn, arg);
    for (int i = 0; i < 3 && rc == 0; i++)
        if (desc_tensor_shape(desc, last[i], 0, &rows, &cols) == 0)
            rc = fn(arg, last[i], 0, 0);
    return rc;
}

/* The limits keep every sum below 2^62: 2^16 * 2^20 * 3 * 2^12 * 2^9. */
static uint64_t role_params(const struct model_desc *desc, enum role role, int layer)
{
    int rows, cols;
    if (role_is_table(role) || desc_tensor_shape(desc, role, layer, &rows, &cols) != 0)
        return 0;
    return (uint64_t)rows * (uint64_t)(cols ? cols : 1);
}

uint64_t desc_expert_params(const struct model_desc *desc)
{
    uint64_t sum = 0;
    for (int layer = 0; layer < desc->n_layer && sum == 0; layer++)
        for (int r = ROLE_EXPERT_GATE; r <= ROLE_EXPERT_DOWN_BIAS; r++)
            sum += role_params(desc, (enum role)r, layer);
    return sum;
}

uint64_t desc_dense_params(const struct model_desc *desc)
{
    uint64_t sum = 0;
    for (int r = 0; r < ROLE_COUNT; r++) {
        enum role role = (enum role)r;
        if (role_is_expert(role))
            continue;
        for (int layer = 0; layer < (role_is_global(role) ? 1 : desc->n_layer); layer++)
            sum += role_params(desc, role, layer);
    }
    return sum;
}

int desc_n_sparse(const struct model_desc *desc)
{
    int n = 0;
    for (int i = 0; i < desc->n_layer; i++)
        n += desc->layer[i].sparse != 0;
    return n;
}

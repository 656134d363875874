/* extract_write: the submodel's tensors, each taken from one of the full model: a whole tensor,
 * rows of an embedding, or rows and columns of a routing table. Streamed; --dtype converts on the
 * way. */
#include "tools/extract.h"

#include <stdlib.h>
#include <string.h>

#define BUFFER_ELEMENTS ((uint64_t)1 << 20)

/* source_role: in a collapsed model the layers that were sparse have the expert as their FFN. */
static enum role source_role(const struct extract *u, enum role role, int layer)
{
    if (!u->collapsed || !u->full->desc.layer[layer].sparse)
        return role;
    switch (role) {
    case ROLE_GATE_PROJ:
        return ROLE_EXPERT_GATE;
    case ROLE_UP_PROJ:
        return ROLE_EXPERT_UP;
    case ROLE_DOWN_PROJ:
        return ROLE_EXPERT_DOWN;
    case ROLE_GATE_PROJ_BIAS:
        return ROLE_EXPERT_GATE_BIAS;
    case ROLE_UP_PROJ_BIAS:
        return ROLE_EXPERT_UP_BIAS;
    case ROLE_DOWN_PROJ_BIAS:
        return ROLE_EXPERT_DOWN_BIAS;
    default:
        return role;
    }
}

/* source_expert: the number in the full model of the submodel's expert. */
static int source_expert(const struct extract *u, int expert)
{
    if (u->collapsed)
        return u->full->desc.domain[u->domain[0]].first;
    int i = desc_expert_domain(&u->desc, expert);
    return u->full->desc.domain[u->domain[i]].first + expert - u->desc.domain[i].first;
}

/* remote_tensor: what a worker says of an expert's tensor; with `fill`, its bytes too. */
static int remote_tensor(struct extract *u, enum role role, int layer, int expert, int fill_in)
{
    struct fetch_shape shape;
    int rows = 0, cols = 0;
    int rc = fetch_tensor_shape(u->fetch, role, layer, expert, &shape, u->err);
    if (rc)
        return rc;
    if (desc_tensor_shape(&u->full->desc, role, layer, &rows, &cols) != 0 || shape.rows != rows ||
        shape.cols != cols)
        return err_set(u->err, ERR_MODEL,
                       "the workers' experts are [%d, %d], %s says [%d, %d]: it is another model",
                       shape.rows, shape.cols, u->dir, rows, cols);
    uint64_t bytes = (uint64_t)rows * (uint64_t)(cols ? cols : 1) * dtype_bytes(shape.dtype);
    u->expert_dtype = shape.dtype;
    u->remote = (struct tensor){
        .name = "of a worker", .dtype = shape.dtype, .data = u->remote_data, .bytes = bytes};
    if (!fill_in)
        return 0;
    free(u->remote_data);
    u->remote.data = u->remote_data = malloc(bytes);
    return u->remote_data
               ? fetch_tensor(u->fetch, role, layer, expert, u->remote_data, bytes, u->err)
               : err_set(u->err, ERR_NOMEM, "no memory for an expert");
}

static int source_tensor(struct extract *u, enum role role, int layer, int expert, int fill_in,
                         const struct tensor **out)
{
    enum role from = source_role(u, role, layer);
    int number = role_is_expert(from) ? source_expert(u, expert) : 0;
    if (u->fetch && role_is_expert(from)) {
        *out = &u->remote;
        return remote_tensor(u, from, layer, number, fill_in);
    }
    return checkpoint_role(u->full->ck, &u->full->desc, from, layer, number, out, u->err);
}

static enum dtype target_dtype(const struct extract *u, const struct tensor *t)
{
    return t->dtype == DTYPE_U16 || u->dtype == DTYPE_NONE ? t->dtype : u->dtype;
}

static int declare(void *arg, enum role role, int layer, int expert)
{
    struct extract *u = arg;
    const struct tensor *t;
    char name[LIMIT_NAME_BYTES];
    uint64_t dim[LIMIT_ST_DIMS];
    int n_dim = desc_tensor_dims(&u->desc, role, layer, dim);
    if (n_dim < 0 || desc_tensor_name(&u->desc, role, layer, expert, name, sizeof(name)) != 0)
        return err_set(u->err, ERR_MODEL, "%s has a tensor without a name (role %d)",
                       u->desc.family, (int)role);
    int rc = source_tensor(u, role, layer, expert, 0, &t);
    if (rc)
        return rc;
    enum dtype dtype = target_dtype(u, t);
    u->rounded |= dtype != t->dtype && dtype != DTYPE_F32;
    return copy_declare(&u->copy, name, dtype, n_dim, dim);
}

static float element(const void *data, enum dtype dtype, uint64_t i)
{
    if (dtype == DTYPE_F32)
        return ((const float *)data)[i];
    uint16_t half = ((const uint16_t *)data)[i];
    return dtype == DTYPE_BF16 ? bf16_to_f32(half) : f16_to_f32(half);
}

/* elements_write copies elements [first, first + n) of t, converted where asked for. */
static int elements_write(struct extract *u, const struct tensor *t, uint64_t first, uint64_t n)
{
    enum dtype dtype = target_dtype(u, t);
    if (dtype == t->dtype)
        return copy_data(&u->copy, (const char *)t->data + first * dtype_bytes(dtype),
                         n * dtype_bytes(dtype));
    uint64_t room = n < BUFFER_ELEMENTS ? n : BUFFER_ELEMENTS;
    void *buffer = malloc(room * dtype_bytes(dtype));
    int rc = buffer ? 0 : err_set(u->err, ERR_NOMEM, "no memory to convert %s", t->name);
    for (uint64_t done = 0; done < n && rc == 0;) {
        uint64_t take = n - done < room ? n - done : room;
        for (uint64_t i = 0; i < take; i++) {
            float value = element(t->data, t->dtype, first + done + i);
            if (dtype == DTYPE_F32)
                ((float *)buffer)[i] = value;
            else
                ((uint16_t *)buffer)[i] = f32_to_bf16(value);
        }
        rc = copy_data(&u->copy, buffer, take * dtype_bytes(dtype));
        done += take;
    }
    free(buffer);
    return rc;
}

/* embedding_write: of each kept slot the rows of the kept tokens, in runs of neighbours. */
static int embedding_write(struct extract *u, const struct tensor *t)
{
    uint64_t vocab = (uint64_t)u->full->desc.vocab, d = (uint64_t)u->full->desc.d_model;
    int rc = 0;
    for (int i = 0; i < u->desc.n_slot && rc == 0; i++) {
        uint64_t base = (uint64_t)u->slot[i] * vocab;
        if (!u->kept) {
            rc = elements_write(u, t, base * d, vocab * d);
            continue;
        }
        for (int k = 0, end; k < u->n_kept && rc == 0; k = end) {
            for (end = k + 1; end < u->n_kept && u->kept[end] == u->kept[end - 1] + 1;)
                end++;
            rc = elements_write(u, t, (base + (uint64_t)u->kept[k]) * d, (uint64_t)(end - k) * d);
        }
    }
    return rc;
}

/* table_write: the rows of the kept domains, and of each the columns of the kept tokens. */
static int table_write(struct extract *u, const struct tensor *t)
{
    size_t vocab = (size_t)u->full->desc.vocab, k = (size_t)u->full->desc.top_k;
    size_t n = (size_t)u->desc.vocab;
    uint16_t *row = malloc(n * k * sizeof(*row));
    if (!row)
        return err_set(u->err, ERR_NOMEM, "no memory for a routing table of %zu tokens", n);
    int rc = 0;
    for (int i = 0; i < u->n_domain && rc == 0; i++) {
        const uint16_t *from = (const uint16_t *)t->data + (size_t)u->domain[i] * vocab * k;
        for (size_t c = 0; c < n; c++)
            memcpy(row + c * k, from + (u->kept ? (size_t)u->kept[c] : c) * k, k * sizeof(*row));
        rc = copy_data(&u->copy, row, n * k * sizeof(*row));
    }
    free(row);
    return rc;
}

static int fill(void *arg, enum role role, int layer, int expert)
{
    struct extract *u = arg;
    const struct tensor *t;
    int rc = source_tensor(u, role, layer, expert, 1, &t);
    if (rc)
        return rc;
    if (role == ROLE_EMBED || role == ROLE_LM_HEAD)
        rc = embedding_write(u, t);
    else if (role == ROLE_ROUTING_TABLE)
        rc = table_write(u, t);
    else
        rc = elements_write(u, t, 0, t->bytes / dtype_bytes(t->dtype));
    if (t != &u->remote)
        checkpoint_done(u->full->ck, t);
    return rc;
}

int extract_write(struct extract *u)
{
    int rc = desc_each_tensor(&u->desc, declare, u);
    if (rc == 0)
        rc = copy_begin(&u->copy, "extracting");
    if (rc == 0) {
        rc = desc_each_tensor(&u->desc, fill, u);
        copy_data_end(&u->copy);
    }
    return rc ? rc : copy_json(&u->copy, "config.json", json_incref(u->config));
}

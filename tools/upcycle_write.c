/* upcycle_write: where each tensor of the new checkpoint comes from: the dense one, a table that is
 * drawn, a gate that is drawn, or nothing (zeros). The description lists the tensors twice, once to
 * declare and once to fill, in the same order. */
#include "base/rng.h"
#include "model/rre_table.h"
#include "tools/hf_files.h"
#include "tools/upcycle.h"

#include <stdlib.h>
#include <string.h>

#define GATE_STD  0.02 /* small, so that at birth no expert is far ahead of the others */
#define GATE_SEED UINT64_C(0x67617465)

enum source { SOURCE_DENSE, SOURCE_TABLE, SOURCE_GATE, SOURCE_ZERO };

/* dense_role: the dense tensor that a role of the new model is a copy of. */
static enum role dense_role(enum role role)
{
    switch (role) {
    case ROLE_EXPERT_GATE:
        return ROLE_GATE_PROJ;
    case ROLE_EXPERT_UP:
        return ROLE_UP_PROJ;
    case ROLE_EXPERT_DOWN:
        return ROLE_DOWN_PROJ;
    case ROLE_EXPERT_GATE_BIAS:
        return ROLE_GATE_PROJ_BIAS;
    case ROLE_EXPERT_UP_BIAS:
        return ROLE_UP_PROJ_BIAS;
    case ROLE_EXPERT_DOWN_BIAS:
        return ROLE_DOWN_PROJ_BIAS;
    default:
        return role;
    }
}

static enum source source_of(enum role role)
{
    switch (role) {
    case ROLE_ROUTING_TABLE:
        return SOURCE_TABLE;
    case ROLE_ROUTER:
        return SOURCE_GATE;
    case ROLE_SHARED_GATE:
    case ROLE_SHARED_UP:
    case ROLE_SHARED_DOWN:
    case ROLE_SHARED_ROUTER:
        return SOURCE_ZERO;
    default:
        return SOURCE_DENSE;
    }
}

/* dense_tensor: the tensor of the dense checkpoint, checked; NULL where the bytes are made here. */
static int dense_tensor(struct upcycle *u, enum role role, int layer, const struct tensor **out)
{
    *out = NULL;
    if (source_of(role) != SOURCE_DENSE)
        return 0;
    return checkpoint_role(u->dense->ck, &u->dense->desc, dense_role(role), layer, 0, out, u->err);
}

/* made_dtype: a tensor that has no model in the dense checkpoint is stored as its embedding is. */
static int made_dtype(struct upcycle *u, enum role role, enum dtype *out)
{
    const struct tensor *embed;
    int rc = checkpoint_role(u->dense->ck, &u->dense->desc, ROLE_EMBED, 0, 0, &embed, u->err);
    if (rc == 0)
        *out = source_of(role) == SOURCE_TABLE ? DTYPE_U16
               : embed->dtype == DTYPE_F16     ? DTYPE_BF16
                                               : embed->dtype;
    return rc;
}

static int declare(void *arg, enum role role, int layer, int expert)
{
    struct upcycle *u = arg;
    const struct tensor *t;
    char name[LIMIT_NAME_BYTES];
    uint64_t dim[LIMIT_ST_DIMS];
    enum dtype dtype = DTYPE_NONE;
    int n_dim = desc_tensor_dims(&u->desc, role, layer, dim);
    if (n_dim < 0 || desc_tensor_name(&u->desc, role, layer, expert, name, sizeof(name)) != 0)
        return err_set(u->err, ERR_MODEL, "%s has a tensor without a name (role %d)",
                       u->desc.family, (int)role);
    int rc = dense_tensor(u, role, layer, &t);
    if (rc == 0 && t)
        dtype = t->dtype;
    else if (rc == 0)
        rc = made_dtype(u, role, &dtype);
    return rc ? rc : copy_declare(&u->copy, name, dtype, n_dim, dim);
}

/* elements_write stores n floats as the tensor's dtype, f32 or bf16; NULL: zeros. */
static int elements_write(struct upcycle *u, enum role role, const float *values, uint64_t n)
{
    enum dtype dtype = DTYPE_NONE;
    int rc = made_dtype(u, role, &dtype);
    if (rc)
        return rc;
    void *data = calloc(n, dtype_bytes(dtype));
    if (!data)
        return err_set(u->err, ERR_NOMEM, "no memory for %llu elements", (unsigned long long)n);
    for (uint64_t i = 0; values && i < n; i++) {
        if (dtype == DTYPE_F32)
            ((float *)data)[i] = values[i];
        else
            ((uint16_t *)data)[i] = f32_to_bf16(values[i]);
    }
    rc = copy_data(&u->copy, data, n * dtype_bytes(dtype));
    free(data);
    return rc;
}

static int gate_write(struct upcycle *u, int layer, uint64_t n)
{
    float *values = malloc(n * sizeof(*values));
    if (!values)
        return err_set(u->err, ERR_NOMEM, "no memory for a gate of %llu weights",
                       (unsigned long long)n);
    uint64_t seed = hash_bytes(u->seed, strlen(u->seed)).lo;
    rng_normal_fill(seed, GATE_SEED + (uint64_t)layer, 0, values, n);
    for (uint64_t i = 0; i < n; i++)
        values[i] *= (float)GATE_STD;
    int rc = elements_write(u, ROLE_ROUTER, values, n);
    free(values);
    return rc;
}

static int table_write(struct upcycle *u, int layer)
{
    const struct model_desc *d = &u->desc;
    size_t n = (size_t)d->vocab * (size_t)d->top_k;
    uint16_t *row = malloc(n * sizeof(*row));
    if (!row)
        return err_set(u->err, ERR_NOMEM, "no memory for a routing table of %d tokens", d->vocab);
    int rc = 0;
    for (int i = 0; i < d->n_domain && rc == 0; i++) {
        const struct rre_table table = {.seed = u->seed,
                                        .domain = d->domain[i].name,
                                        .layer = layer,
                                        .vocab = d->vocab,
                                        .n_expert = d->domain[i].n_expert,
                                        .top_k = d->top_k,
                                        .count = u->counts};
        rc = rre_table_draw(&table, row, u->err);
        if (rc == 0)
            rc = copy_data(&u->copy, row, n * sizeof(*row));
    }
    free(row);
    return rc;
}

/* repeats: an embedding (or LM head) stands once for every slot. */
static int repeats(const struct upcycle *u, enum role role)
{
    return role == ROLE_EMBED || role == ROLE_LM_HEAD ? u->desc.n_slot : 1;
}

static int fill(void *arg, enum role role, int layer, int expert)
{
    struct upcycle *u = arg;
    const struct tensor *t;
    uint64_t dim[LIMIT_ST_DIMS], n = 1;
    (void)expert;
    int n_dim = desc_tensor_dims(&u->desc, role, layer, dim);
    for (int i = 0; i < n_dim; i++)
        n *= dim[i];
    switch (source_of(role)) {
    case SOURCE_TABLE:
        return table_write(u, layer);
    case SOURCE_GATE:
        return gate_write(u, layer, n);
    case SOURCE_ZERO:
        return elements_write(u, role, NULL, n);
    case SOURCE_DENSE:
        break;
    }
    int rc = dense_tensor(u, role, layer, &t);
    for (int i = 0; i < repeats(u, role) && rc == 0; i++)
        rc = copy_data(&u->copy, t->data, t->bytes);
    if (rc == 0)
        checkpoint_done(u->dense->ck, t);
    return rc;
}

static int files_write(struct upcycle *u)
{
    int rc = copy_json(&u->copy, "config.json", json_incref(u->config));
    if (rc == 0 && u->desc.n_domain > 0)
        rc = hf_files_copy(&u->copy);
    return rc ? rc : copy_companions(&u->copy, u->dense->dir, NULL);
}

int upcycle_write(struct upcycle *u)
{
    int rc = copy_open(&u->copy, u->out, u->shard_size, u->err);
    if (rc)
        return rc;
    rc = desc_each_tensor(&u->desc, declare, u);
    if (rc == 0)
        rc = copy_begin(&u->copy, "upcycling");
    if (rc == 0) {
        rc = desc_each_tensor(&u->desc, fill, u);
        copy_data_end(&u->copy);
    }
    if (rc == 0)
        rc = files_write(u);
    return copy_close(&u->copy, rc);
}

/* model: a checkpoint opened and found complete, before anything is computed or loaded. */
#include "model/quant.h"
#include "model/rre_table.h"
#include "model/weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct check {
    const struct model *model;
    int n_missing; /* experts' tensors that are not there, where that is allowed; -1: it is not */
    struct err *err;
};

static int tensor_found(void *arg, enum role role, int layer, int expert)
{
    struct check *check = arg;
    const struct tensor *t;
    char name[LIMIT_NAME_BYTES];
    const struct model_desc *desc = &check->model->desc;
    struct quant_source s;
    int rc = quant_find(check->model->ck, desc, role, layer, expert, &s, check->err);
    if (rc)
        return rc > 0 ? 0 : rc;
    if (check->n_missing >= 0 && role_is_expert(role) &&
        desc_tensor_name(desc, role, layer, expert, name, sizeof(name)) == 0 &&
        !checkpoint_find(check->model->ck, name)) {
        check->n_missing++;
        return 0;
    }
    return checkpoint_role(check->model->ck, &check->model->desc, role, layer, expert, &t,
                           check->err);
}

static int open_checked(const char *dir, struct check *check, struct model **out, struct err *err)
{
    struct model *model = calloc(1, sizeof(*model));
    if (!model)
        return err_set(err, ERR_NOMEM, "no memory to open %s", dir);
    int rc = strlen(dir) < sizeof(model->dir)
                 ? desc_load(dir, &model->desc, err)
                 : err_set(err, ERR_USAGE, "the path of the model is longer than %zu bytes",
                           sizeof(model->dir) - 1);
    if (rc == 0) {
        snprintf(model->dir, sizeof(model->dir), "%s", dir);
        rc = checkpoint_open(dir, &model->ck, err);
    }
    check->model = model;
    check->err = err;
    if (rc == 0)
        rc = quant_detect(model->ck, &model->desc, err);
    if (rc == 0)
        rc = desc_each_tensor(&model->desc, tensor_found, check);
    if (rc == 0 && check->n_missing <= 0)
        rc = model_fingerprint(dir, &model->desc, model->ck, &model->fingerprint, err);
    if (rc)
        model_close(model);
    else
        *out = model;
    return rc;
}

static int table_check(void *arg, enum role role, int layer, int expert)
{
    (void)expert;
    const struct check *check = arg;
    const struct model_desc *d = &check->model->desc;
    const struct tensor *t;
    if (!role_is_table(role))
        return 0;
    int rc = checkpoint_role(check->model->ck, d, role, layer, 0, &t, check->err);
    size_t row = (size_t)d->vocab * (size_t)d->top_k;
    for (int i = 0; i < d->n_domain && rc == 0; i++)
        rc = rre_table_check((const uint16_t *)t->data + (size_t)i * row, d->vocab,
                             d->domain[i].n_expert, d->top_k, t->name, d->domain[i].name,
                             check->err);
    return rc;
}

int model_check_tables(const struct model *model, struct err *err)
{
    struct check check = {.model = model, .err = err};
    return model->desc.gate == GATE_TABLE ? desc_each_tensor(&model->desc, table_check, &check) : 0;
}

int model_open(const char *dir, struct model **out, struct err *err)
{
    struct check check = {.n_missing = -1};
    return open_checked(dir, &check, out, err);
}

int model_open_dense(const char *dir, struct model **out, struct err *err)
{
    struct check check = {.n_missing = 0};
    return open_checked(dir, &check, out, err);
}

void model_close(struct model *model)
{
    if (!model)
        return;
    checkpoint_close(model->ck);
    free(model);
}

/* model: a checkpoint opened and found complete, before anything is computed or loaded. */
#include "model/weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int role_check(const struct model *model, enum role role, int layer, struct err *err)
{
    int rows, cols, rc = 0;
    if (desc_tensor_shape(&model->desc, role, layer, &rows, &cols) != 0)
        return 0;
    int n = role_is_expert(role) ? model->desc.n_expert : 1;
    const struct tensor *t;
    for (int expert = 0; expert < n && rc == 0; expert++)
        rc = checkpoint_role(model->ck, &model->desc, role, layer, expert, &t, err);
    return rc;
}

static int tensors_check(const struct model *model, struct err *err)
{
    int rc = 0;
    for (int r = 0; r < ROLE_COUNT; r++) {
        enum role role = (enum role)r;
        int n_layer = role_is_global(role) ? 1 : model->desc.n_layer;
        for (int layer = 0; layer < n_layer && rc == 0; layer++)
            rc = role_check(model, role, layer, err);
    }
    return rc;
}

int model_open(const char *dir, struct model **out, struct err *err)
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
    if (rc == 0)
        rc = tensors_check(model, err);
    if (rc == 0)
        rc = model_fingerprint(dir, &model->desc, model->ck, &model->fingerprint, err);
    if (rc)
        model_close(model);
    else
        *out = model;
    return rc;
}

void model_close(struct model *model)
{
    if (!model)
        return;
    checkpoint_close(model->ck);
    free(model);
}

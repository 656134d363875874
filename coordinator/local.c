/* local: see local.h. */
#include "coordinator/local.h"

#include "base/log.h"
#include <stdlib.h>

struct local {
    const struct model *model;
    enum precision precision;
    struct expert_set *set;
    struct compute *compute;
    const struct kernels *kernels;
    struct team *team;
};

int local_create(const struct model *model, enum precision precision, const struct kernels *k,
                 struct team *team, struct local **out, struct err *err)
{
    struct local *l = calloc(1, sizeof *l);
    if (l == NULL) {
        return err_set(err, ERR_NOMEM, "no memory for local experts");
    }
    l->model = model;
    l->precision = precision;
    l->kernels = k;
    l->team = team;
    *out = l;
    return 0;
}

void local_destroy(struct local *l)
{
    if (l != NULL) {
        compute_destroy(l->compute);
        expert_set_destroy(l->set);
        free(l);
    }
}

static int open_lazily(struct local *l, struct err *err)
{
    int rc = 0;
    if (l->set == NULL) {
        rc = expert_set_create(l->model, l->precision, &l->set, err);
        if (rc == 0) {
            expert_set_beside(l->set);
        }
    }
    if (rc == 0 && l->compute == NULL) {
        rc = compute_create(l->model, l->precision, l->kernels, l->team, &l->compute, err);
    }
    return rc;
}

int local_compute(void *local, const struct msg_request *request, void *out, struct err *err)
{
    struct local *l = local;
    int rc = open_lazily(l, err);
    for (int i = 0; rc == 0 && i < request->n_seg; i++) {
        int expert = (int)request->seg_expert[i];
        if (expert_set_get(l->set, request->layer, expert) == NULL) {
            log_debug("local", "loading layer=%d expert=%d", request->layer, expert);
            rc = expert_set_load(l->set, request->layer, expert, err);
        }
    }
    if (rc != 0) {
        return rc;
    }
    struct compute_item item = {
        request->layer, request->n_seg, request->seg_expert, request->seg_count,
        request->rows,  request->n_row, request->row_index,  out};
    return compute_run(l->compute, l->set, &item, 1, err);
}

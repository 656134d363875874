/* eval_detect: which domain the engine finds for prompts cut from a text; see eval.h. */
#include "tools/eval.h"

#include <stdlib.h>
#include <string.h>

#define BATCH 16

struct found {
    uint64_t *count; /* [n_domain] */
    int left;
    struct err err;
};

static void on_domain(void *user, int domain, const double *score, int n_domain)
{
    struct found *f = user;
    (void)score;
    if (domain >= 0 && domain < n_domain)
        f->count[domain]++;
}

static void on_done(void *user, enum finish reason, const struct err *err)
{
    struct found *f = user;
    f->left--;
    if (reason == FINISH_ERROR && err)
        f->err = *err;
}

static int batch_run(struct host *h, const int32_t *token, int n_prompt, int n, struct found *f,
                     struct err *err)
{
    f->left = n;
    int rc = 0;
    for (int i = 0; i < n && rc == 0; i++) {
        uint64_t id;
        struct request request = {.prompt = token + (size_t)i * (size_t)n_prompt,
                                  .n_prompt = n_prompt,
                                  .domain = DOMAIN_AUTO,
                                  .sampling = SAMPLING_DEFAULT,
                                  .user = f,
                                  .on_domain = on_domain,
                                  .on_done = on_done};
        rc = engine_submit(h->engine, &request, &id, err);
    }
    while (rc == 0 && f->left > 0) {
        int moved = engine_step(h->engine, err);
        rc = moved < 0    ? moved
             : moved == 0 ? err_set(err, ERR_GONE, "%d prompts were never computed", f->left)
                          : 0;
    }
    return rc == 0 && f->err.code ? err_set(err, f->err.code, "%s", f->err.text) : rc;
}

int eval_detect(struct host *h, struct eval_text *t, int n_prompt, int n_max, uint64_t *found,
                struct err *err)
{
    struct tok_ids ids = {0};
    size_t size = (size_t)n_prompt;
    int n_done = 0, rc = 1;
    memset(found, 0, (size_t)h->model->desc.n_domain * sizeof(*found));
    while (rc == 1 && n_done < n_max) {
        while (rc == 1 && ids.n < size * BATCH)
            rc = eval_text_more(t, &ids, err);
        /* A text shorter than one prompt is one prompt. */
        if (rc == 0 && n_done == 0 && ids.n > 0 && ids.n < size)
            size = ids.n;
        int n = (int)(ids.n / size);
        n = n < BATCH ? n : BATCH;
        n = n < n_max - n_done ? n : n_max - n_done;
        struct found f = {.count = found};
        if (rc < 0 || n == 0)
            break;
        int ran = batch_run(h, ids.id, (int)size, n, &f, err);
        size_t used = (size_t)n * size;
        memmove(ids.id, ids.id + used, (ids.n - used) * sizeof(*ids.id));
        ids.n -= used;
        n_done += n;
        rc = ran ? ran : ids.n >= size ? 1 : rc;
    }
    tok_ids_fini(&ids);
    return rc < 0 ? rc : 0;
}

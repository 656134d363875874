/* eval_submodels: the matrix's texts under each domain's extracted submodel. A submodel that is not
 * there yet is extracted; one that is there must be of this model, which its proof.json tells. */
#include "model/json.h"
#include "tools/eval.h"
#include "tools/extract.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* submodel_check: the folder was extracted from the model with this fingerprint. */
static int submodel_check(const char *dir, const struct model *full, struct err *err)
{
    char path[4608], hex[33], *text;
    size_t bytes;
    json_t *root;
    snprintf(path, sizeof(path), "%s/proof.json", dir);
    int rc = file_read(path, LIMIT_JSON_BYTES, &text, &bytes, err);
    if (rc)
        return rc;
    rc = json_parse_object(text, bytes, LIMIT_JSON_BYTES, path, &root, err);
    free(text);
    if (rc)
        return rc;
    hash_hex(full->fingerprint, hex);
    const char *of = json_string_value(json_object_get(root, "full_fingerprint"));
    if (!of || strcmp(of, hex) != 0)
        rc = err_set(err, ERR_MODEL,
                     "%s was extracted from another model than %s; remove it, or give another "
                     "folder",
                     dir, full->dir);
    json_decref(root);
    return rc;
}

static int submodel_make(const struct eval_submodels *s, const char *domain, const char *dir,
                         struct err *err)
{
    if (mkdir(s->folder, 0777) != 0 && access(s->folder, F_OK) != 0)
        return err_sys(err, ERR_IO, "cannot create %s", s->folder);
    struct extract *u = calloc(1, sizeof(*u));
    if (!u)
        return err_set(err, ERR_NOMEM, "no memory to extract %s", domain);
    *u = (struct extract){.dir = s->full->dir,
                          .out = dir,
                          .domains = domain,
                          .shard_size = 5LL << 30,
                          .host = *s->options,
                          .err = err};
    u->host.precision_name = NULL; /* the proof's own choice */
    int rc = extract_run(u);
    extract_free(u);
    free(u);
    return rc;
}

static int texts_score(const struct eval_submodels *s, struct host *h, int domain, struct err *err)
{
    static const int only = 0;
    int rc = 0;
    for (int i = 0; i < s->n_text && rc == 0; i++) {
        struct eval_text text;
        rc = eval_text_open(&text, s->text[i].path, h->tok, s->bytes_max, err);
        if (rc)
            return rc;
        rc = eval_score(h, &text, s->windows, &only, 1, &s->text[i].sum[domain], err);
        eval_text_close(&text);
    }
    return rc;
}

int eval_submodels_score(const struct eval_submodels *s, struct err *err)
{
    const struct model_desc *d = &s->full->desc;
    int rc = 0;
    for (int i = 0; i < d->n_domain && rc == 0; i++) {
        char dir[4352];
        struct host h = {0};
        snprintf(dir, sizeof(dir), "%.4096s/%s", s->folder, d->domain[i].name);
        if (access(dir, F_OK) != 0)
            rc = submodel_make(s, d->domain[i].name, dir, err);
        if (rc == 0)
            rc = submodel_check(dir, s->full, err);
        if (rc == 0)
            rc = host_open(&h, dir, err);
        if (rc == 0)
            rc = host_start(&h, s->options, eval_kv_tokens(s->windows, 1), 0, err);
        if (rc == 0)
            rc = texts_score(s, &h, i, err);
        host_close(&h);
    }
    return rc;
}

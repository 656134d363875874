/* extract_proof: the full model and the submodel on the same prompts, every position's logits
 * hashed, and proof.json, which says with what arithmetic. One model is in memory at a time. The
 * submodel is run from its temporary folder: a model that fails the comparison never gets its name.
 */
#include "base/hash.h"
#include "coordinator/kv.h"
#include "tools/extract.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct side {
    struct extract *u;
    int is_part;
    float *row; /* [n_kept]: the logits of the kept tokens */
    int left;
    struct err err; /* of the engine */
};

struct job {
    struct side *side;
    struct extract_prompt *prompt;
    int32_t *token; /* ids of this side's model */
};

static void on_logits(void *user, int pos, const float *logits, int vocab)
{
    struct job *j = user;
    const struct extract *u = j->side->u;
    if (j->side->row) {
        for (int i = 0; i < u->n_kept; i++)
            j->side->row[i] = logits[u->kept[i]];
        logits = j->side->row;
        vocab = u->n_kept;
    }
    uint64_t hash = hash_bytes(logits, (size_t)vocab * sizeof(*logits)).lo;
    *(j->side->is_part ? &j->prompt->part[pos] : &j->prompt->full[pos]) = hash;
}

static void on_done(void *user, enum finish reason, const struct err *err)
{
    struct job *j = user;
    j->side->left--;
    if (reason == FINISH_ERROR && err)
        j->side->err = *err;
}

/* domain_on: the number of a prompt's domain in the model of this side. */
static int domain_on(const struct side *s, int domain)
{
    int i = 0;
    while (s->is_part && s->u->domain[i] != domain)
        i++;
    return s->is_part ? i : domain;
}

static int job_submit(struct side *s, struct job *j, struct engine *engine)
{
    struct extract_prompt *p = j->prompt;
    uint64_t id;
    j->token = malloc((size_t)p->n * sizeof(*j->token));
    if (!j->token)
        return err_set(s->u->err, ERR_NOMEM, "no memory for a prompt");
    for (int i = 0; i < p->n; i++)
        j->token[i] = s->is_part && s->u->new_id ? s->u->new_id[p->token[i]] : p->token[i];
    struct request request = {.prompt = j->token,
                              .n_prompt = p->n,
                              .domain = domain_on(s, p->domain),
                              .all_logits = 1,
                              .sampling = SAMPLING_DEFAULT,
                              .user = j,
                              .on_logits = on_logits,
                              .on_done = on_done};
    return engine_submit(engine, &request, &id, s->u->err);
}

static int jobs_run(struct side *s, struct job *job, struct engine *engine)
{
    int rc = 0;
    s->left = s->u->n_prompts;
    for (int i = 0; i < s->u->n_prompts && rc == 0; i++) {
        job[i] = (struct job){.side = s, .prompt = &s->u->prompt[i]};
        rc = job_submit(s, &job[i], engine);
    }
    while (rc == 0 && s->left > 0) {
        int moved = engine_step(engine, s->u->err);
        rc = moved < 0    ? moved
             : moved == 0 ? err_set(s->u->err, ERR_GONE, "%d prompts were never computed", s->left)
                          : copy_interrupted(&s->u->copy);
    }
    return rc == 0 && s->err.code ? err_set(s->u->err, s->err.code, "%s", s->err.text) : rc;
}

static int kv_tokens(const struct extract *u)
{
    int64_t n = 0;
    for (int i = 0; i < u->n_prompts; i++)
        n += kv_pages_for(u->prompt[i].n) * KV_PAGE;
    return n < LIMIT_CONTEXT ? (int)n : LIMIT_CONTEXT;
}

static int side_run(struct side *s, const char *dir)
{
    struct extract *u = s->u;
    struct host h = {0};
    struct job *job = calloc((size_t)u->n_prompts, sizeof(*job));
    int rc = job ? 0 : err_set(u->err, ERR_NOMEM, "no memory for %d prompts", u->n_prompts);
    if (rc == 0 && u->kept && !s->is_part) {
        s->row = malloc((size_t)u->n_kept * sizeof(*s->row));
        rc = s->row ? 0 : err_set(u->err, ERR_NOMEM, "no memory for %d logits", u->n_kept);
    }
    struct host_options options = u->host;
    if (rc == 0 && u->from && !s->is_part) {
        /* The cluster that runs is the full model. */
        options.workers_at = u->from;
        rc = model_open_dense(dir, &h.model, u->err);
        if (rc == 0)
            h.model->fingerprint = u->full->fingerprint;
    }
    if (rc == 0)
        rc = host_open(&h, dir, u->err);
    if (rc == 0)
        rc = host_start(&h, &options, kv_tokens(u), u->n_prompts, u->err);
    if (rc == 0)
        rc = jobs_run(s, job, h.engine);
    if (rc == 0)
        memcpy(u->numerics, h.numerics, sizeof(u->numerics));
    host_close(&h);
    for (int i = 0; job && i < u->n_prompts; i++)
        free(job[i].token);
    free(job);
    free(s->row);
    return rc;
}

/* compare counts equal prompts and refuses a difference, unless --dtype has made one. */
static int compare(struct extract *u)
{
    for (int i = 0; i < u->n_prompts; i++) {
        const struct extract_prompt *p = &u->prompt[i];
        int pos = 0;
        while (pos < p->n && p->full[pos] == p->part[pos])
            pos++;
        u->n_equal += pos == p->n;
        if (pos < p->n && !u->rounded)
            return err_set(u->err, ERR_MODEL,
                           "the submodel's logits differ from the full model's at position %d of "
                           "prompt %d (domain %s); nothing was written",
                           pos, i, u->full->desc.domain[p->domain].name);
    }
    return 0;
}

/* ids_json: "3,1,4", as --token-ids takes them. */
static json_t *ids_json(const struct extract *u, const struct extract_prompt *p, int renumbered)
{
    size_t room = (size_t)p->n * 12 + 1, n = 0;
    char *text = calloc(room, 1);
    for (int i = 0; text && i < p->n; i++)
        n += (size_t)snprintf(text + n, room - n, "%s%d", i ? "," : "",
                              renumbered ? u->new_id[p->token[i]] : p->token[i]);
    json_t *out = text ? json_string(text) : NULL;
    free(text);
    return out;
}

static json_t *hash_json(const uint64_t *hash, int n)
{
    char hex[33];
    hash_hex(hash_bytes(hash, (size_t)n * sizeof(*hash)), hex);
    return json_string(hex);
}

static json_t *prompt_json(const struct extract *u, const struct extract_prompt *p)
{
    json_t *out = json_pack("{s:s, s:o, s:o, s:o}", "domain", u->full->desc.domain[p->domain].name,
                            "tokens", ids_json(u, p, 0), "full_logits", hash_json(p->full, p->n),
                            "submodel_logits", hash_json(p->part, p->n));
    if (out && u->kept)
        json_object_set_new(out, "submodel_tokens", ids_json(u, p, 1));
    return out;
}

static json_t *proof_json(const struct extract *u)
{
    char full[33], part[33];
    json_t *list = json_array();
    hash_hex(u->full->fingerprint, full);
    hash_hex(u->fingerprint, part);
    for (int i = 0; i < u->n_prompts; i++)
        json_array_append_new(list, prompt_json(u, &u->prompt[i]));
    json_t *out = json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:s, s:i, s:i, s:i, s:o}", "made_by", "sigmoe " SIGMOE_VERSION,
        "what",
        "XXH3-128 over the little-endian low 64 bits of XXH3-128 of each position's f32 logits; "
        "with a smaller vocabulary, the full model's logits of the kept tokens only",
        "full_fingerprint", full, "submodel_fingerprint", part, "precision",
        u->host.precision == PRECISION_F32 ? "f32" : "bf16", "numerics", u->numerics, "workers",
        (int)u->host.workers, "prompts_compared", u->n_prompts, "prompts_equal", u->n_equal,
        "prompts", list);
    if (out && u->rounded)
        json_object_set_new(out, "differs_because",
                            json_string("--dtype rounded weights on the way"));
    return out;
}

int extract_proof(struct extract *u)
{
    struct side full = {.u = u}, part = {.u = u, .is_part = 1};
    int rc = side_run(&full, u->dir);
    if (rc == 0)
        rc = side_run(&part, ck_writer_path(u->copy.writer));
    if (rc == 0)
        rc = compare(u);
    return rc ? rc : copy_json(&u->copy, "proof.json", proof_json(u));
}

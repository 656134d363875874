/* extract_prompts: what the two models are compared on: pieces of a text spread over all of it, or
 * token ids drawn by a seed, so that a model without a tokenizer can be proved too. Only tokens
 * that both models have occur. */
#include "base/rng.h"
#include "tools/eval.h"
#include "tools/extract.h"

#include <stdlib.h>
#include <string.h>

#define TEXT_TOKENS  48 /* of a prompt from a text */
#define DRAWN_TOKENS 48 /* at most, of a drawn one */
#define TEXT_BYTES   ((uint64_t)16 << 20)

static int prompt_add(struct extract *u, const int32_t *token, int n)
{
    struct extract_prompt *p = &u->prompt[u->n_prompts];
    size_t room = (size_t)n;
    *p = (struct extract_prompt){.n = n, .domain = u->domain[u->n_prompts % u->n_domain]};
    p->token = calloc(room, sizeof(*p->token));
    p->full = calloc(room, sizeof(*p->full));
    p->part = calloc(room, sizeof(*p->part));
    u->n_prompts++;
    if (!p->token || !p->full || !p->part)
        return err_set(u->err, ERR_NOMEM, "no memory for the prompts");
    memcpy(p->token, token, room * sizeof(*token));
    return 0;
}

static int stays(const struct extract *u, const int32_t *token, int n)
{
    for (int i = 0; i < n; i++)
        if (token[i] >= u->full->desc.vocab || (u->new_id && u->new_id[token[i]] < 0))
            return 0;
    return 1;
}

static int draw(struct extract *u, int n_prompt)
{
    int32_t token[DRAWN_TOKENS];
    const struct model_desc *d = &u->full->desc;
    int n_token = u->kept ? u->n_kept : d->vocab, rc = 0;
    int longest = d->max_context < DRAWN_TOKENS ? d->max_context : DRAWN_TOKENS;
    for (int i = 0; i < n_prompt && rc == 0; i++) {
        uint64_t stream = (uint64_t)i;
        int n = 1 + (int)(rng_uniform((uint64_t)u->seed, stream, 0) * longest);
        n = n < longest ? n : longest;
        for (int k = 0; k < n; k++) {
            double x = rng_uniform((uint64_t)u->seed, stream, (uint64_t)k + 1);
            int at = (int)(x * n_token);
            token[k] = u->kept ? u->kept[at] : at;
        }
        rc = prompt_add(u, token, n);
    }
    return rc;
}

static int text_read(struct extract *u, const char *path, struct tok_ids *ids)
{
    struct eval_text text;
    int rc = eval_text_open(&text, path, u->tok, TEXT_BYTES, u->err);
    if (rc)
        return rc;
    while ((rc = eval_text_more(&text, ids, u->err)) == 1)
        ;
    eval_text_close(&text);
    return rc;
}

/* cut takes n_prompt pieces at even distances; one with a token that goes away is left out. */
static int cut(struct extract *u, const struct tok_ids *ids, int n_prompt)
{
    size_t size = ids->n < TEXT_TOKENS ? ids->n : TEXT_TOKENS;
    size = size < (size_t)u->full->desc.max_context ? size : (size_t)u->full->desc.max_context;
    size_t places = ids->n - size + 1;
    int rc = 0;
    for (int i = 0; i < n_prompt && rc == 0; i++) {
        size_t at = (size_t)((double)i / n_prompt * (double)places);
        if (stays(u, ids->id + at, (int)size))
            rc = prompt_add(u, ids->id + at, (int)size);
    }
    return rc;
}

int extract_prompts(struct extract *u)
{
    int n = u->n_prompt ? (int)u->n_prompt : u->verify ? 100 : 8;
    const char *path = u->prompts_path ? u->prompts_path : u->trim_path;
    struct tok_ids ids = {0};
    u->prompt = calloc((size_t)n, sizeof(*u->prompt));
    if (!u->prompt)
        return err_set(u->err, ERR_NOMEM, "no memory for %d prompts", n);
    if (!path)
        return draw(u, n);
    if (!u->tok)
        return err_set(u->err, ERR_USAGE, "--prompts is a text, and %s has no tokenizer", u->dir);
    int rc = text_read(u, path, &ids);
    if (rc == 0 && ids.n == 0)
        rc = err_set(u->err, ERR_USAGE, "%s is empty: it gives no prompts", path);
    if (rc == 0)
        rc = cut(u, &ids, n);
    if (rc == 0 && u->n_prompts == 0)
        rc = err_set(u->err, ERR_USAGE,
                     "%s gives no prompt of the smaller vocabulary; --prompts takes a text of the "
                     "domain",
                     path);
    tok_ids_fini(&ids);
    return rc;
}

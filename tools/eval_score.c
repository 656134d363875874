/* eval_score: windows of a text through the engine, a batch of them at a time, each under every
 * domain asked for; see eval.h. Sums are added in the order of the text, so they do not depend on
 * how the engine batches. */
#include "coordinator/kv.h"
#include "coordinator/sampler.h"
#include "tools/eval.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define WINDOW_DEFAULT 1024
#define JOBS_MAX       16 /* in the engine at once */

/* One window under one domain. */
struct job {
    struct score *score;
    const int32_t *token; /* [n], the start token included */
    int n, from;          /* positions [from, n) are predicted */
    int domain, done;
    double nll;
    struct err err;
};

struct score {
    struct host *h;
    struct eval_text *text;
    const struct eval_windows *w;
    const int *domain;
    int n_domain, n_batch;     /* windows a batch */
    int32_t start;             /* the start token, or -1 */
    struct tok_ids ids;        /* of the text from token `first` on */
    uint64_t first, predicted; /* tokens [0, predicted) are done */
    int ended;                 /* the text is all in ids */
    struct job *job;           /* [n_batch, n_domain] */
    int32_t *token;            /* [n_batch, window] */
    float *p;                  /* [vocab] scratch */
    struct eval_sum *sum;
    struct progress progress;
    struct err *err;
};

int eval_windows_check(struct eval_windows *w, const struct model_desc *desc, struct err *err)
{
    if (w->window == 0)
        w->window = desc->max_context < WINDOW_DEFAULT ? desc->max_context : WINDOW_DEFAULT;
    if (w->window > desc->max_context)
        return err_set(err, ERR_USAGE, "--window %d is past the model's context of %d", w->window,
                       desc->max_context);
    if (w->window < 2)
        return err_set(err, ERR_USAGE, "--window must be at least 2, to predict a token from one");
    if (w->stride == 0)
        w->stride = w->window / 2;
    if (w->stride >= w->window)
        return err_set(err, ERR_USAGE, "--stride %d must be below the window of %d", w->stride,
                       w->window);
    return 0;
}

static int batch_windows(int n_domain)
{
    return n_domain >= JOBS_MAX ? 1 : JOBS_MAX / n_domain;
}

int eval_kv_tokens(const struct eval_windows *w, int n_domain)
{
    int64_t n = (int64_t)batch_windows(n_domain) * n_domain * kv_pages_for(w->window) * KV_PAGE;
    return n < LIMIT_CONTEXT ? (int)n : LIMIT_CONTEXT;
}

double eval_per_token(const struct eval_sum *sum)
{
    return exp(sum->nll / (double)sum->n_token);
}

double eval_per_byte(const struct eval_sum *sum)
{
    return exp(sum->nll / (double)sum->n_byte);
}

/* logits_nll: minus log softmax of one token, by the kernels' softmax: p of the likeliest token is
 * 1 / sum, which never underflows. */
static double logits_nll(struct score *s, const float *logits, int vocab, int32_t token)
{
    int top = 0;
    for (int i = 1; i < vocab; i++)
        top = logits[i] > logits[top] ? i : top;
    memcpy(s->p, logits, (size_t)vocab * sizeof(*s->p));
    s->h->kernels->softmax(s->p, vocab);
    return (double)logits[top] - (double)logits[token] - log((double)s->p[top]);
}

static void on_logits(void *user, int pos, const float *logits, int vocab)
{
    struct job *j = user;
    if (pos + 1 >= j->from && pos + 1 < j->n)
        j->nll += logits_nll(j->score, logits, vocab, j->token[pos + 1]);
}

static void on_done(void *user, enum finish reason, const struct err *err)
{
    struct job *j = user;
    j->done = 1;
    if (reason == FINISH_ERROR || reason == FINISH_ABORT)
        j->err = err ? *err : (struct err){.code = ERR_GONE, .text = "a window was given up"};
}

/* ids_fill makes the tokens up to `end` of the text available, or all there are. */
static int ids_fill(struct score *s, uint64_t end)
{
    while (!s->ended && s->first + s->ids.n < end) {
        uint64_t before = s->text->n_byte;
        int rc = eval_text_more(s->text, &s->ids, s->err);
        if (rc < 0)
            return rc;
        s->ended = rc == 0;
        progress_add(&s->progress, s->text->n_byte - before);
    }
    return 0;
}

/* ids_drop forgets the tokens before `first`. */
static void ids_drop(struct score *s, uint64_t first)
{
    size_t n = (size_t)(first - s->first);
    n = n < s->ids.n ? n : s->ids.n;
    memmove(s->ids.id, s->ids.id + n, (s->ids.n - n) * sizeof(*s->ids.id));
    s->ids.n -= n;
    s->first += n;
}

/* window_next cuts the window that begins at token `begin` of the text: 1, 0 at the end. */
static int window_next(struct score *s, uint64_t begin, int32_t *token, struct job *out)
{
    int lead = s->start >= 0;
    uint64_t end = begin + (uint64_t)(s->w->window - lead);
    int rc = ids_fill(s, end);
    if (rc)
        return rc;
    uint64_t have = s->first + s->ids.n;
    end = end < have ? end : have;
    if (end <= s->predicted || end <= begin)
        return 0;
    int n = (int)(end - begin);
    if (lead)
        token[0] = s->start;
    memcpy(token + lead, s->ids.id + (begin - s->first), (size_t)n * sizeof(*token));
    uint64_t from = s->predicted > begin ? s->predicted - begin : 0;
    *out = (struct job){.score = s, .token = token, .n = n + lead, .from = (int)from + lead};
    if (out->from == 0)
        out->from = 1;
    s->predicted = end;
    return 1;
}

static int submit(struct score *s, struct job *j)
{
    struct request request = {.prompt = j->token,
                              .n_prompt = j->n,
                              .domain = j->domain,
                              .all_logits = 1,
                              .sampling = SAMPLING_DEFAULT,
                              .user = j,
                              .on_logits = on_logits,
                              .on_done = on_done};
    uint64_t id;
    return engine_submit(s->h->engine, &request, &id, s->err);
}

/* batch_run computes the first n jobs and adds them up in order. */
static int batch_run(struct score *s, int n)
{
    int rc = 0;
    for (int i = 0; i < n && rc == 0; i++)
        rc = submit(s, &s->job[i]);
    for (int left = n; left > 0 && rc == 0;) {
        int moved = engine_step(s->h->engine, s->err);
        rc = moved < 0 ? moved : 0;
        left = 0;
        for (int i = 0; i < n; i++)
            left += !s->job[i].done;
        if (moved == 0 && left > 0)
            rc = err_set(s->err, ERR_GONE, "%d windows were never computed", left);
    }
    for (int i = 0; i < n && rc == 0; i++) {
        const struct job *j = &s->job[i];
        if (j->err.code)
            return err_set(s->err, j->err.code, "%s", j->err.text);
        s->sum[i % s->n_domain].nll += j->nll;
        s->sum[i % s->n_domain].n_token += (uint64_t)(j->n - j->from);
    }
    return rc;
}

static int text_run(struct score *s)
{
    int rc = 1;
    for (uint64_t begin = 0; rc == 1;) {
        int n = 0;
        while (n < s->n_batch) {
            struct job job;
            int32_t *token = s->token + (size_t)n * (size_t)s->w->window;
            rc = window_next(s, begin, token, &job);
            if (rc != 1)
                break;
            for (int d = 0; d < s->n_domain; d++) {
                s->job[n * s->n_domain + d] = job;
                s->job[n * s->n_domain + d].domain = s->domain[d];
            }
            n++;
            begin += (uint64_t)s->w->stride;
            ids_drop(s, begin);
        }
        int ran = rc < 0 ? rc : batch_run(s, n * s->n_domain);
        rc = ran ? ran : rc;
    }
    return rc;
}

/* start_token: what the tokenizer puts before a text, or -1. */
static int start_token(struct score *s)
{
    struct tok_ids ids = {0};
    int rc = tokenizer_encode(s->h->tok, "", 0, TOK_ADD_SPECIAL, &ids, s->err);
    s->start = rc == 0 && ids.n > 0 && ids.id[0] == tokenizer_bos(s->h->tok) ? ids.id[0] : -1;
    tok_ids_fini(&ids);
    return rc;
}

static int score_init(struct score *s)
{
    const struct model_desc *d = &s->h->model->desc;
    if (!s->h->tok)
        return err_set(s->err, ERR_MODEL,
                       "%s has no tokenizer (tokenizer.json, tokenizer.model or tok512.bin), so it "
                       "cannot read a text",
                       s->h->model->dir);
    s->n_batch = batch_windows(s->n_domain);
    s->job = calloc((size_t)s->n_batch * (size_t)s->n_domain, sizeof(*s->job));
    s->token = calloc((size_t)s->n_batch * (size_t)s->w->window, sizeof(*s->token));
    s->p = malloc((size_t)d->vocab * sizeof(*s->p));
    if (!s->job || !s->token || !s->p)
        return err_set(s->err, ERR_NOMEM, "no memory for %d windows", s->n_batch);
    return start_token(s);
}

/* bytes_count: the whole text, less the first token where nothing predicts it. */
static void bytes_count(struct score *s, int32_t first)
{
    uint64_t n = s->text->n_byte;
    struct tok_text text = {0};
    if (s->start < 0 && tokenizer_token_bytes(s->h->tok, first, &text, NULL) == 0)
        n -= text.n < n ? text.n : n;
    tok_text_fini(&text);
    for (int d = 0; d < s->n_domain; d++)
        s->sum[d].n_byte = n;
}

int eval_score(struct host *h, struct eval_text *t, const struct eval_windows *w, const int *domain,
               int n_domain, struct eval_sum *sum, struct err *err)
{
    struct score s = {
        .h = h, .text = t, .w = w, .domain = domain, .n_domain = n_domain, .sum = sum, .err = err};
    memset(sum, 0, (size_t)n_domain * sizeof(*sum));
    int rc = score_init(&s);
    if (rc == 0) {
        progress_start(&s.progress, t->path, t->bytes_total);
        rc = ids_fill(&s, 1);
    }
    int32_t first = s.ids.n > 0 ? s.ids.id[0] : 0;
    if (rc == 0)
        rc = text_run(&s);
    progress_end(&s.progress);
    if (rc == 0 && sum[0].n_token == 0)
        rc = err_set(err, ERR_USAGE, "%s is too short: there is no token to predict", t->path);
    if (rc == 0)
        bytes_count(&s, first);
    tok_ids_fini(&s.ids);
    free(s.job);
    free(s.token);
    free(s.p);
    return rc;
}

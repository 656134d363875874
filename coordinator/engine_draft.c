/* engine_draft: guessed tokens (coordinator/lookup.h) behind the known ones of sequences that
 * decode. They lie in seq->token behind n_token; the first n_draft of them are computed with the
 * step. Each row's draw is made as it would have been, from a row that was fed the right tokens;
 * the first draw that differs from what was guessed ends it, and the rows behind are looked at by
 * nobody: their positions are computed again, over the same keys and values. So the output is the
 * same with and without. See engine_state.h. */
#include "coordinator/engine_state.h"

#include "coordinator/lookup.h"
#include <string.h>

/* Tokens that may be guessed: all but the last that may be drawn, which is never fed. */
static int room_of(const struct seq *seq)
{
    return seq->request.max_tokens - (seq->n_token - seq->n_prompt) - 1;
}

static int decodes(const struct seq *seq)
{
    return !seq->held && seq->n_token - seq->n_done == 1;
}

static void guess(struct engine *e, struct seq *seq)
{
    int room = room_of(seq), k = e->speculate.k_max;
    k = room < k ? room : k;
    seq->n_draft = 0;
    seq->n_guess =
        k > 0 ? lookup_propose(seq->token, seq->n_token, k, seq->token + seq->n_token) : 0;
}

void engine_draft(struct engine *e)
{
    struct speculate *s = &e->speculate;
    struct sched *sched = &e->sched;
    int n_row = 0, prompts = 0, n = 0;
    if (s->mode == SPECULATE_OFF) {
        return;
    }
    for (int i = 0; i < sched->n_running; i++) {
        n_row += decodes(sched->running[i]);
        prompts += !sched->running[i]->held && !decodes(sched->running[i]);
    }
    for (int i = 0; i < sched->n_running; i++) {
        struct seq *seq = sched->running[i];
        seq->n_guess = seq->n_draft = 0;
        if (decodes(seq)) {
            guess(e, seq);
        }
        if (seq->n_guess > 0) {
            e->want_seq[n] = seq;
            e->want[n++] = (struct speculate_want){&seq->hits, seq->n_guess, 0};
        }
    }
    /* Beside prompts a step is bound by arithmetic, and its time says nothing of guesses. */
    if (n_row == 0 || (prompts > 0 && s->mode == SPECULATE_AUTO)) {
        return;
    }
    speculate_choose(s, e->want, n, n_row, sched->config.rows_max - n_row);
    for (int i = 0; i < n; i++) {
        e->want_seq[i]->n_draft = e->want[i].k;
    }
}

void engine_drew(struct engine *e, struct seq *seq, int32_t token)
{
    if (seq->n_guess > 0) {
        int right = seq->token[seq->n_token] == token;
        speculate_saw(&e->speculate, &seq->hits, right);
        seq->n_guess = right ? seq->n_guess - 1 : 0;
    }
}

/* Where the slots of row `row` of the step are kept. */
static size_t kept_at(const struct engine *e, int row)
{
    const struct model_desc *d = e->forward.desc;
    return (size_t)row * (size_t)desc_n_sparse(d) * (size_t)d->top_k;
}

void engine_keep_slots(struct engine *e, const struct micro *m, int r)
{
    size_t k = (size_t)e->forward.desc->top_k;
    size_t at = kept_at(e, m->step_row[r]) + (size_t)e->sparse_index[m->layer] * k;
    memcpy(e->kept_expert + at, m->slot_expert + (size_t)r * k, k * sizeof *e->kept_expert);
    memcpy(e->kept_worker + at, m->slot_worker + (size_t)r * k, k * sizeof *e->kept_worker);
}

/* Rows [begin, end) of the step were guesses, and are right. */
static void tell_kept(const struct engine *e, const struct seq *seq, int begin, int end)
{
    const struct request *r = &seq->request;
    size_t at = kept_at(e, begin), n = kept_at(e, end) - at;
    if (r->on_computed != NULL && n > 0) {
        r->on_computed(r->user, e->kept_expert + at, e->kept_worker + at, (int)n);
    }
}

void engine_settle_drafts(struct engine *e, int n_span)
{
    for (int s = 0; s < n_span; s++) {
        const struct sched_span *span = &e->sched.span[s];
        struct seq *seq = span->seq;
        int rows = span->end - span->begin, drawn = seq->n_token - span->pos - 1;
        if (span->n_draft > 0) {
            e->stats.proposed += (uint64_t)span->n_draft;
            e->stats.accepted += (uint64_t)(drawn - 1);
            seq->n_done -= rows - drawn;
            tell_kept(e, seq, span->begin + 1, span->begin + drawn);
        }
    }
}

/* engine_logits: from the last layer to a token; see engine_state.h. */
#include "coordinator/engine_state.h"

#include "coordinator/sampler.h"

static int is_eos(const struct model_desc *d, int32_t token)
{
    for (int i = 0; i < d->n_eos; i++) {
        if (d->eos[i] == token) {
            return 1;
        }
    }
    return 0;
}

static void end(struct seq *seq, enum finish reason)
{
    seq->ended = 1;
    seq->reason = reason;
}

/* Draws the next token of seq from the logits of its last known position. */
static void draw(struct engine *e, struct seq *seq, float *logits)
{
    const struct request *r = &seq->request;
    if (seq->n_token == seq->n_prompt && r->on_cached != NULL) {
        r->on_cached(r->user, seq->n_cached);
    }
    if (r->max_tokens == 0) {
        end(seq, FINISH_LENGTH);
        return;
    }
    if (r->on_mask != NULL) {
        r->on_mask(r->user, logits, e->forward.desc->vocab);
    }
    const struct sample_history history = {seq->n_in_prompt, seq->n_in_output};
    int32_t token = sample(&r->sampling, &history, logits, e->forward.desc->vocab, r->choice,
                           (uint64_t)seq->n_token, e->candidates);
    engine_drew(e, seq, token);
    seq_append(seq, token);
    e->stats.generated_tokens++;
    if (e->domain_stats != NULL) {
        e->domain_stats[r->domain].generated_tokens++;
    }
    int stop = r->on_token != NULL ? r->on_token(r->user, token) : 0;
    if (stop || (!r->ignore_eos && is_eos(e->forward.desc, token))) {
        end(seq, FINISH_STOP);
    } else if (seq->n_token - seq->n_prompt >= r->max_tokens) {
        end(seq, FINISH_LENGTH);
    }
}

/* Rows of one slot side by side, those of a sequence in their order. */
static void sort_by_slot(const struct model_desc *d, int32_t *row, struct seq **owner, int n)
{
    if (d->n_slot == 1) {
        return;
    }
    for (int i = 1; i < n; i++) {
        int32_t r = row[i];
        struct seq *seq = owner[i];
        int at = i, slot = d->domain[seq->request.domain].slot;
        for (; at > 0 && d->domain[owner[at - 1]->request.domain].slot > slot; at--) {
            row[at] = row[at - 1];
            owner[at] = owner[at - 1];
        }
        row[at] = r;
        owner[at] = seq;
    }
}

/* Was row r of m fed the token that its sequence has there? Guesses may be wrong, and are known to
 * be right only when the draw before has been made. */
static int fed_right(const struct micro *m, const struct seq *seq, int r)
{
    int pos = m->pos[r];
    return !seq->ended && pos < seq->n_token && m->token[r] == seq->token[pos];
}

/* Logits of rows row[n] of m, of sequences owner[n]: told, and drawn from where they are the last,
 * which draws of the same sequence before may have made them. */
static void logits_of(struct engine *e, struct micro *m, int32_t *row, struct seq **owner, int n)
{
    int vocab = e->forward.desc->vocab;
    sort_by_slot(e->forward.desc, row, owner, n);
    forward_logits(&e->forward, m, row, n, e->logits);
    for (int i = 0; i < n; i++) {
        struct seq *seq = owner[i];
        float *logits = e->logits + (size_t)i * (size_t)vocab;
        int pos = m->pos[row[i]];
        if (!fed_right(m, seq, row[i])) {
            continue;
        }
        if (seq->request.on_logits != NULL) {
            seq->request.on_logits(seq->request.user, pos, logits, vocab);
        }
        if (pos == seq->n_token - 1) {
            draw(e, seq, logits);
        }
    }
}

/* The last known position of each sequence and guesses behind it, or all when asked, but those that
 * were told before the sequence gave way to others. */
int engine_wants_logits(const struct seq *seq, int pos)
{
    return pos >= seq->n_token - 1 || (seq->request.all_logits && pos >= seq->n_told);
}

void engine_take_logits(struct engine *e, struct micro *m)
{
    int32_t row[LOGIT_ROWS];
    struct seq *owner[LOGIT_ROWS];
    int n = 0;
    for (int s = 0; s < m->n_span; s++) {
        struct seq *seq = m->span_seq[s];
        if (m->pos[m->span[s].begin] >= seq->n_token) {
            continue; /* guesses behind one that the other micro-batch has found wrong */
        }
        for (int r = m->span[s].begin; r < m->span[s].end; r++) {
            if (!engine_wants_logits(seq, m->pos[r])) {
                continue;
            }
            row[n] = r;
            owner[n++] = seq;
            if (n == LOGIT_ROWS) {
                logits_of(e, m, row, owner, n);
                n = 0;
            }
        }
    }
    if (n > 0) {
        logits_of(e, m, row, owner, n);
    }
}

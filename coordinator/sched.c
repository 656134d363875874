/* sched: see sched.h. */
#include "coordinator/sched.h"

#include "coordinator/seq_pages.h"
#include <stdlib.h>
#include <string.h>

int sched_init(struct sched *s, const struct sched_config *config, struct kv *kv, struct err *err)
{
    memset(s, 0, sizeof *s);
    s->config = *config;
    s->kv = kv;
    s->waiting_tail = &s->waiting_head;
    s->running = calloc((size_t)config->seqs_max, sizeof(struct seq *));
    s->span = calloc((size_t)config->seqs_max, sizeof *s->span);
    if (s->running == NULL || s->span == NULL) {
        free(s->running);
        free(s->span);
        return err_set(err, ERR_NOMEM, "no memory for %d sequences", config->seqs_max);
    }
    return 0;
}

void sched_fini(struct sched *s)
{
    for (int i = 0; i < s->n_running; i++) {
        seq_pages_release(s->kv, s->running[i]);
        seq_destroy(s->running[i]);
    }
    while (s->waiting_head != NULL) {
        struct seq *seq = s->waiting_head;
        s->waiting_head = seq->next;
        seq_destroy(seq);
    }
    free(s->running);
    free(s->span);
    memset(s, 0, sizeof *s);
}

int sched_add(struct sched *s, struct seq *seq, struct err *err)
{
    int need = kv_pages_for(seq_positions(seq));
    if (need > s->kv->n_page) {
        return err_set(err, ERR_LIMIT,
                       "a prompt of %d tokens with up to %d more needs %d positions, the KV cache "
                       "holds %d; raise --kv-tokens or lower --max-tokens",
                       seq->n_prompt, seq->request.max_tokens, seq_positions(seq),
                       s->kv->n_page * KV_PAGE);
    }
    if (s->n_waiting >= s->config.waiting_max) {
        return err_set(err, ERR_AGAIN, "%d requests are waiting already; try again later",
                       s->n_waiting);
    }
    seq->page = malloc((size_t)need * sizeof *seq->page);
    if (seq->page == NULL) {
        return err_set(err, ERR_NOMEM, "no memory for a sequence");
    }
    seq->next = NULL;
    *s->waiting_tail = seq;
    s->waiting_tail = &seq->next;
    s->n_waiting++;
    return 0;
}

/* ---- pages ----------------------------------------------------------------------------------- */

static void adopt(struct sched *s, struct seq *seq)
{
    int n = seq_pages_adopt(s->kv, seq);
    if (seq->n_preempted == 0) {
        seq->n_cached += n;
        s->stats.cached_tokens += (uint64_t)n;
    }
}

/* Pages it will ask for before long: for the tokens it has and KV_PAGE more. */
static int wanted_soon(const struct seq *seq)
{
    int soon = seq->n_token + KV_PAGE, ever = seq_positions(seq);
    int n = kv_pages_for(soon < ever ? soon : ever) - seq->n_page;
    return n > 0 ? n : 0;
}

static int fits(const struct sched *s, const struct seq *seq)
{
    int n = wanted_soon(seq) - seq_pages_in_use(s->kv, seq);
    for (int i = 0; i < s->n_running; i++) {
        n += wanted_soon(s->running[i]);
    }
    return n <= kv_available(s->kv);
}

static void admit(struct sched *s)
{
    while (s->waiting_head != NULL && s->n_running < s->config.seqs_max) {
        struct seq *seq = s->waiting_head;
        if (!fits(s, seq)) {
            return; /* first come, first served: nobody overtakes */
        }
        s->waiting_head = seq->next;
        if (s->waiting_head == NULL) {
            s->waiting_tail = &s->waiting_head;
        }
        seq->next = NULL;
        s->n_waiting--;
        s->running[s->n_running++] = seq;
        if (seq->n_preempted == 0 && seq_pages_may_skip(s->kv, seq)) {
            s->stats.prompt_tokens += (uint64_t)seq->n_prompt;
        }
        adopt(s, seq);
        if (seq->held) {
            seq_pages_grow(s->kv, seq, kv_pages_for(seq->n_token));
        }
    }
}

/* The youngest gives way. */
static void preempt(struct sched *s)
{
    struct seq *seq = s->running[--s->n_running];
    seq->n_told = seq->n_done > seq->n_told ? seq->n_done : seq->n_told;
    seq_pages_release(s->kv, seq);
    seq->n_done = seq->n_draft = 0;
    seq->n_preempted++;
    s->stats.preemptions++;
    seq->next = s->waiting_head;
    if (s->waiting_head == NULL) {
        s->waiting_tail = &seq->next;
    }
    s->waiting_head = seq;
    s->n_waiting++;
}

/* Nobody gives way to a guess. */
static void limit_draft(struct sched *s, struct seq *seq)
{
    int rows = 1 + seq->n_draft;
    if (seq->n_draft > 0 && seq_pages_grow(s->kv, seq, kv_pages_for(seq->n_done + rows)) != 0) {
        seq->n_draft = seq->n_page * KV_PAGE - seq->n_done - 1;
    }
}

static int decodes(const struct seq *seq)
{
    return !seq->held && seq->n_token - seq->n_done == 1;
}

/* Rows of the next step: fewer where somebody waits for its next token. */
static int rows_now(const struct sched *s)
{
    int shared = s->config.rows_shared, n = s->config.rows_max;
    for (int i = 0; shared > 0 && shared < n && i < s->n_running; i++) {
        if (decodes(s->running[i])) {
            return shared;
        }
    }
    return n;
}

/* Everybody, the oldest first, gets the pages of the rows that this step may compute. */
static void find_pages(struct sched *s, int most)
{
    for (int i = 0; i < s->n_running; i++) {
        struct seq *seq = s->running[i];
        if (seq->held) {
            continue;
        }
        adopt(s, seq);
        int rows = seq->n_token - seq->n_done;
        rows = rows < s->config.prefill_chunk ? rows : s->config.prefill_chunk;
        rows = rows < most ? rows : most;
        int n_page = kv_pages_for(seq->n_done + rows);
        while (i < s->n_running && seq_pages_grow(s->kv, seq, n_page) != 0) {
            preempt(s);
        }
    }
    for (int i = 0; i < s->n_running; i++) {
        limit_draft(s, s->running[i]);
    }
}

/* ---- rows ------------------------------------------------------------------------------------ */

/* Is the page that seq needs next computed in this step, for one that had the same before it? */
static int under_way(const struct sched *s, int n_span, const struct seq *seq)
{
    int n = seq->n_shared, end = (n + 1) * KV_PAGE;
    if (!seq_pages_may_skip(s->kv, seq) || end > seq->n_token - 1) {
        return 0;
    }
    for (int i = 0; i < n_span; i++) {
        const struct sched_span *span = &s->span[i];
        int known = span->pos + span->end - span->begin - span->n_draft;
        if (known >= end && seq_pages_alike(span->seq, seq)) {
            return 1;
        }
    }
    return 0;
}

static void add_span(struct sched *s, int *n_span, int *n_row, struct seq *seq, int rows, int draft)
{
    s->span[(*n_span)++] = (struct sched_span){seq, *n_row, *n_row + rows, seq->n_done, draft};
    *n_row += rows;
}

int sched_plan(struct sched *s, int *n_row)
{
    for (int i = 0; i < s->n_running; i++) {
        seq_pages_share(s->kv, s->running[i]);
    }
    admit(s);
    int n_span = 0, most = rows_now(s); /* who gives way below does not make it more */
    find_pages(s, most);
    *n_row = 0;
    for (int i = 0; i < s->n_running && *n_row < most; i++) {
        struct seq *seq = s->running[i];
        if (decodes(seq)) {
            int room = most - *n_row - 1;
            int draft = seq->n_draft < room ? seq->n_draft : room;
            add_span(s, &n_span, n_row, seq, 1 + draft, draft);
        }
    }
    for (int i = 0; i < s->n_running && *n_row < most; i++) {
        struct seq *seq = s->running[i];
        int left = seq->n_token - seq->n_done, room = most - *n_row;
        if (!seq->held && left > 1 && !under_way(s, n_span, seq)) {
            int rows = left < s->config.prefill_chunk ? left : s->config.prefill_chunk;
            add_span(s, &n_span, n_row, seq, rows < room ? rows : room, 0);
        }
    }
    return n_span;
}

int sched_n_micro(int want, int rows_min, int n_row)
{
    if (want == 1 || n_row < 2) {
        return 1;
    }
    return want == 2 || n_row >= 2 * rows_min ? 2 : 1;
}

void sched_remove(struct sched *s, struct seq *seq)
{
    for (int i = 0; i < s->n_running; i++) {
        if (s->running[i] == seq) {
            memmove(&s->running[i], &s->running[i + 1],
                    (size_t)(s->n_running - i - 1) * sizeof(struct seq *));
            s->n_running--;
            break;
        }
    }
    seq_pages_release(s->kv, seq);
}

struct seq *sched_find(struct sched *s, uint64_t id)
{
    for (int i = 0; i < s->n_running; i++) {
        if (s->running[i]->id == id) {
            return s->running[i];
        }
    }
    for (struct seq *seq = s->waiting_head; seq != NULL; seq = seq->next) {
        if (seq->id == id) {
            return seq;
        }
    }
    return NULL;
}

int sched_unqueue(struct sched *s, struct seq *seq)
{
    for (struct seq **p = &s->waiting_head; *p != NULL; p = &(*p)->next) {
        if (*p == seq) {
            *p = seq->next;
            if (*p == NULL) {
                s->waiting_tail = p;
            }
            s->n_waiting--;
            return 1;
        }
    }
    return 0;
}

/* sched: see sched.h. */
#include "coordinator/sched.h"

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
        kv_give(s->kv, s->running[i]->n_page, s->running[i]->page);
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

static void admit(struct sched *s)
{
    while (s->waiting_head != NULL && s->n_running < s->config.seqs_max) {
        struct seq *seq = s->waiting_head;
        int need = kv_pages_for(seq_positions(seq));
        if (kv_take(s->kv, need, seq->page) != 0) {
            return; /* first come, first served: nobody overtakes */
        }
        seq->n_page = need;
        s->waiting_head = seq->next;
        if (s->waiting_head == NULL) {
            s->waiting_tail = &s->waiting_head;
        }
        seq->next = NULL;
        s->n_waiting--;
        s->running[s->n_running++] = seq;
    }
}

static void add_span(struct sched *s, int *n_span, int *n_row, struct seq *seq, int rows, int draft)
{
    s->span[(*n_span)++] = (struct sched_span){seq, *n_row, *n_row + rows, seq->n_done, draft};
    *n_row += rows;
}

int sched_plan(struct sched *s, int *n_row)
{
    admit(s);
    int n_span = 0;
    *n_row = 0;
    for (int i = 0; i < s->n_running && *n_row < s->config.rows_max; i++) {
        struct seq *seq = s->running[i];
        if (!seq->held && seq->n_token - seq->n_done == 1) {
            int room = s->config.rows_max - *n_row - 1;
            int draft = seq->n_draft < room ? seq->n_draft : room;
            add_span(s, &n_span, n_row, seq, 1 + draft, draft);
        }
    }
    for (int i = 0; i < s->n_running && *n_row < s->config.rows_max; i++) {
        struct seq *seq = s->running[i];
        int left = seq->n_token - seq->n_done, room = s->config.rows_max - *n_row;
        if (!seq->held && left > 1) {
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
    kv_give(s->kv, seq->n_page, seq->page);
    seq->n_page = 0;
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

/* The scheduler: what a step holds, who is admitted, who gives way, and that no page is lost, owned
 * twice or read with other contents than the sequence's own, whatever it took over from others. */
#include "coordinator/sched.h"

#include "base/rng.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct fixture {
    struct model_desc desc;
    struct kv kv;
    struct sched sched;
};

static void setup(struct fixture *x, int n_page, struct sched_config c)
{
    memset(x, 0, sizeof *x);
    x->desc.n_layer = 2;
    x->desc.n_kv_head = 1;
    x->desc.d_head = 4;
    x->desc.vocab = 16;
    assert_int_equal(kv_init(&x->kv, &x->desc, DTYPE_F32, n_page, NULL), 0);
    assert_int_equal(sched_init(&x->sched, &c, &x->kv, NULL), 0);
}

static void teardown(struct fixture *x)
{
    sched_fini(&x->sched);
    assert_int_equal(kv_available(&x->kv), x->kv.n_page);
    kv_fini(&x->kv);
}

static void setup_shared(struct fixture *x, int n_page, struct sched_config c)
{
    setup(x, n_page, c);
    assert_int_equal(kv_share(&x->kv, NULL), 0);
}

static int add(struct fixture *x, uint64_t id, int n_prompt, int max_tokens, struct err *err)
{
    int32_t prompt[1024] = {0};
    struct request r = {.prompt = prompt,
                        .n_prompt = n_prompt,
                        .max_tokens = max_tokens,
                        .sampling = SAMPLING_DEFAULT};
    struct seq *seq = seq_create(&r, id, x->desc.vocab);
    assert_non_null(seq);
    int rc = sched_add(&x->sched, seq, err);
    if (rc != 0) {
        seq_destroy(seq);
    }
    return rc;
}

static void a_prompt_is_cut_into_chunks_and_the_batch_is_filled(void **state)
{
    (void)state;
    struct fixture x;
    setup(&x, 64, (struct sched_config){16, 10, 8, 8, 0});
    assert_int_equal(add(&x, 1, 25, 4, NULL), 0);
    assert_int_equal(add(&x, 2, 9, 4, NULL), 0);
    int rows;
    assert_int_equal(sched_plan(&x.sched, &rows), 2);
    assert_int_equal(rows, 16);
    assert_int_equal(x.sched.span[0].end - x.sched.span[0].begin, 10);
    assert_int_equal(x.sched.span[1].end - x.sched.span[1].begin, 6);
    assert_int_equal(x.sched.span[1].begin, 10);
    x.sched.span[0].seq->n_done = 10;
    x.sched.span[1].seq->n_done = 6;
    assert_int_equal(sched_plan(&x.sched, &rows), 2);
    assert_int_equal(x.sched.span[0].pos, 10);
    assert_int_equal(x.sched.span[1].end - x.sched.span[1].begin, 3);
    teardown(&x);
}

static void a_sequence_that_decodes_goes_before_prompts(void **state)
{
    (void)state;
    struct fixture x;
    setup(&x, 64, (struct sched_config){8, 8, 8, 8, 0});
    assert_int_equal(add(&x, 1, 30, 4, NULL), 0);
    assert_int_equal(add(&x, 2, 1, 4, NULL), 0);
    int rows;
    assert_int_equal(sched_plan(&x.sched, &rows), 2);
    assert_int_equal(x.sched.span[0].seq->id, 2);
    assert_int_equal(x.sched.span[1].seq->id, 1);
    assert_int_equal(rows, 8);
    teardown(&x);
}

static void a_step_that_somebody_waits_for_is_shorter(void **state)
{
    (void)state;
    struct fixture x;
    setup(&x, 64, (struct sched_config){40, 40, 8, 8, 12});
    int rows;
    assert_int_equal(add(&x, 1, 100, 4, NULL), 0);
    assert_int_equal(sched_plan(&x.sched, &rows), 1);
    assert_int_equal(rows, 40);
    assert_int_equal(add(&x, 2, 1, 4, NULL), 0);
    assert_int_equal(sched_plan(&x.sched, &rows), 2);
    assert_int_equal(x.sched.span[0].seq->id, 2);
    assert_int_equal(rows, 12);
    teardown(&x);
}

static void finish(struct fixture *x, struct seq *seq)
{
    sched_remove(&x->sched, seq);
    seq_destroy(seq);
}

static void a_sequence_waits_for_the_pages_it_needs_soon(void **state)
{
    (void)state;
    struct fixture x;
    struct err err = {0};
    setup(&x, 5, (struct sched_config){512, 512, 8, 3, 0});
    /* Two pages for what it has and one more; it may need five one day. */
    assert_int_equal(add(&x, 1, 100, 200, NULL), 0);
    assert_int_equal(add(&x, 2, 70, 28, NULL), 0); /* two pages are all it will ever need */
    assert_int_equal(add(&x, 3, 10, 28, NULL), 0);
    assert_int_equal(add(&x, 4, 10, 1, &err), ERR_AGAIN);
    err_clear(&err);
    assert_int_equal(add(&x, 5, 300, 22, &err), ERR_LIMIT);
    int rows;
    assert_int_equal(sched_plan(&x.sched, &rows), 2);
    assert_int_equal(rows, 170);
    assert_int_equal(x.kv.n_free, 1); /* promised to the first one */
    struct seq *second = x.sched.span[1].seq;
    assert_int_equal(second->id, 2);
    finish(&x, second);
    assert_int_equal(sched_plan(&x.sched, &rows), 2);
    assert_int_equal(x.sched.span[1].seq->id, 3);
    teardown(&x);
}

/* As the engine does it: rows are computed, and who has all its tokens computed gets one more. */
static void step(struct fixture *x, int32_t token)
{
    int rows, n = sched_plan(&x->sched, &rows);
    for (int i = 0; i < n; i++) {
        struct seq *s = x->sched.span[i].seq;
        s->n_done += x->sched.span[i].end - x->sched.span[i].begin;
        if (s->n_done == s->n_token) {
            seq_append(s, token);
        }
        if (s->n_token - s->n_prompt == s->request.max_tokens) {
            finish(x, s);
        }
    }
}

static void the_youngest_gives_way_and_is_the_first_to_come_back(void **state)
{
    (void)state;
    struct fixture x;
    setup(&x, 5, (struct sched_config){512, 512, 8, 8, 0});
    assert_int_equal(add(&x, 1, 60, 200, NULL), 0);
    assert_int_equal(add(&x, 2, 60, 200, NULL), 0);
    assert_int_equal(add(&x, 3, 60, 200, NULL), 0);
    /* Two run, each with a page and the promise of a second one. */
    for (int i = 0; i < 3; i++) {
        step(&x, 1);
    }
    assert_int_equal(x.sched.n_running, 2);
    while (x.sched.n_running == 2) {
        step(&x, 1);
    }
    /* One needs its third page, when the other one has three already or needs it too. */
    struct seq *back = x.sched.waiting_head;
    assert_int_equal(x.sched.running[0]->id, 1);
    assert_int_equal(back->id, 2);
    assert_int_equal(back->n_done, 0);
    assert_int_equal(back->n_page, 0);
    assert_true(back->n_token > 128);
    assert_int_equal(back->n_told, back->n_token - 1);
    assert_int_equal(back->next->id, 3);
    assert_int_equal(x.sched.stats.preemptions, 1);
    for (int i = 0; i < 2000 && x.sched.n_running + x.sched.n_waiting > 0; i++) {
        step(&x, 1);
    }
    assert_int_equal(x.sched.n_running + x.sched.n_waiting, 0);
    teardown(&x);
}

static void what_was_computed_is_not_computed_again(void **state)
{
    (void)state;
    struct fixture x;
    int rows;
    setup_shared(&x, 16, (struct sched_config){512, 512, 8, 8, 0});
    assert_int_equal(add(&x, 1, 200, 1, NULL), 0);
    assert_int_equal(add(&x, 2, 200, 1, NULL), 0);
    /* The second one waits for what the first one is computing. */
    assert_int_equal(sched_plan(&x.sched, &rows), 1);
    assert_int_equal(rows, 200);
    struct seq *first = x.sched.running[0], *second = x.sched.running[1];
    first->n_done = 200;
    finish(&x, first);
    assert_int_equal(sched_plan(&x.sched, &rows), 1);
    assert_int_equal(rows, 8);
    assert_int_equal(x.sched.span[0].pos, 192);
    assert_int_equal(second->n_cached, 192);
    second->n_done = 200;
    finish(&x, second);
    /* At least one token is computed; its page is not another's. */
    assert_int_equal(add(&x, 3, 192, 1, NULL), 0);
    assert_int_equal(sched_plan(&x.sched, &rows), 1);
    assert_int_equal(x.sched.span[0].pos, 128);
    assert_int_equal(x.sched.stats.prompt_tokens, 592);
    assert_int_equal(x.sched.stats.cached_tokens, 320);
    teardown(&x);
}

/* ---- random lives ---------------------------------------------------------------------------- */

#define PAGES_MAX 40
#define N_LIFE    300

/* What a model would write for a position: it depends on the tokens up to it, and the domain. */
static uint32_t content_begin(const struct seq *s)
{
    return 2166136261u + (uint32_t)s->request.domain;
}

static uint32_t content_next(uint32_t before, int32_t token)
{
    return (before ^ (uint32_t)token) * 16777619u;
}

static int32_t token_after(uint32_t content)
{
    return (int32_t)(content >> 16) % 16;
}

struct lives {
    struct fixture x;
    uint32_t memory[PAGES_MAX][KV_PAGE];
    uint64_t draw;
    int n_page, n_end;
};

static int draw(struct lives *l, int n)
{
    return (int)(rng_uniform(7, 0, l->draw++) * n);
}

/* Prompts that share beginnings of any length: two alphabets, changed at a random place. */
static void add_random(struct lives *l, uint64_t id, int n_max)
{
    int32_t prompt[1024];
    int n = 1 + draw(l, n_max), m = draw(l, l->n_page * KV_PAGE - n);
    int cut = draw(l, n + 1), kind = draw(l, 3);
    m = m < 350 ? m : 350;
    for (int i = 0; i < n; i++) {
        prompt[i] = i < cut ? i % 7 : (i + kind) % 5;
    }
    struct request r = {.prompt = prompt,
                        .n_prompt = n,
                        .max_tokens = m,
                        .domain = draw(l, 2),
                        .all_logits = draw(l, 9) == 0,
                        .sampling = SAMPLING_DEFAULT};
    struct seq *seq = seq_create(&r, id, l->x.desc.vocab);
    assert_non_null(seq);
    seq->held = draw(l, 9) == 0;
    if (sched_add(&l->x.sched, seq, NULL) != 0) {
        seq_destroy(seq);
    }
}

/* Each page is free, one sequence's own, or in the tree with as many users as have it. */
static void check_pages(const struct lives *l)
{
    const struct kv *kv = &l->x.kv;
    int n_own = 0, user[PAGES_MAX] = {0}, owner[PAGES_MAX] = {0};
    for (int i = 0; i < l->x.sched.n_running; i++) {
        const struct seq *s = l->x.sched.running[i];
        assert_true(s->n_shared * KV_PAGE <= s->n_done || s->n_shared == 0);
        for (int k = 0; k < s->n_page; k++) {
            int *n = k < s->n_shared ? &user[s->page[k]] : &owner[s->page[k]];
            (*n)++;
            n_own += k >= s->n_shared;
        }
    }
    for (int p = 0; p < l->n_page; p++) {
        assert_true(owner[p] + (user[p] > 0) <= 1);
        if (kv->prefix != NULL && kv->prefix->node[p].in) {
            assert_int_equal(user[p], kv->prefix->node[p].n_user);
            assert_int_equal(owner[p], 0);
        } else {
            assert_int_equal(user[p], 0);
        }
    }
    int n_tree = kv->prefix != NULL ? kv->prefix->n_in : 0;
    assert_int_equal(n_own + n_tree + kv->n_free, l->n_page);
}

/* The span finds what it would have computed itself in all positions before it, and writes its own.
 * Returns what it wrote last. */
static uint32_t compute(struct lives *l, const struct sched_span *span)
{
    struct seq *s = span->seq;
    int end = span->pos + span->end - span->begin;
    uint32_t h = content_begin(s);
    assert_int_equal(span->pos, s->n_done);
    assert_true(end <= s->n_page * KV_PAGE && span->pos >= s->n_shared * KV_PAGE);
    for (int pos = 0; pos < end; pos++) {
        uint32_t *at = &l->memory[s->page[pos / KV_PAGE]][pos % KV_PAGE];
        h = content_next(h, s->token[pos]);
        if (pos >= span->pos) {
            *at = h;
        }
        assert_int_equal(*at, h);
    }
    s->n_done = end;
    return h;
}

/* A token follows from what is before it, so who was interrupted must end as who was not. */
static void check_tokens(const struct seq *s)
{
    uint32_t h = content_begin(s);
    for (int i = 0; i < s->n_token; i++) {
        assert_true(i < s->n_prompt || s->token[i] == token_after(h));
        h = content_next(h, s->token[i]);
    }
}

static void step_random(struct lives *l)
{
    struct sched *s = &l->x.sched;
    int rows, n = sched_plan(s, &rows), n_held = 0;
    check_pages(l);
    assert_true(rows <= s->config.rows_max);
    for (int i = 0; i < s->n_running; i++) {
        struct seq *seq = s->running[i];
        n_held += seq->held;
        assert_true(!seq->held || seq->n_page == kv_pages_for(seq->n_prompt));
        seq->held = seq->held && draw(l, 3) > 0;
    }
    assert_true(n > 0 || n_held > 0 || s->n_running + s->n_waiting == 0);
    for (int i = 0; i < n; i++) {
        struct seq *seq = s->span[i].seq;
        uint32_t last = compute(l, &s->span[i]);
        if (seq->n_done == seq->n_token && seq->request.max_tokens > 0) {
            seq_append(seq, token_after(last));
        }
        int all =
            seq->n_done >= seq->n_prompt && seq->n_token - seq->n_prompt == seq->request.max_tokens;
        if (all || draw(l, 400) == 0) {
            check_tokens(seq);
            finish(&l->x, seq);
            l->n_end++;
        }
    }
}

/* Sequences of up to 300 tokens and 350 more in n_page pages. Returns how often one gave way. */
static uint64_t live(int n_page, int shared)
{
    static struct lives l;
    memset(&l, 0, sizeof l);
    l.n_page = n_page;
    (shared ? setup_shared : setup)(&l.x, n_page, (struct sched_config){64, 48, 12, 100, 0});
    for (uint64_t id = 1; id <= N_LIFE; id++) {
        add_random(&l, id, n_page < 5 ? n_page * KV_PAGE - 1 : 300);
        for (int i = 0; i < 12; i++) {
            step_random(&l);
        }
    }
    /* All end, in a time that is bounded: who is the oldest moves in every step. */
    for (int i = 0; l.x.sched.n_running + l.x.sched.n_waiting > 0; i++) {
        assert_true(i < 100 * 1000);
        step_random(&l);
    }
    assert_true(l.n_end > N_LIFE / 3);
    uint64_t preemptions = l.x.sched.stats.preemptions;
    assert_true(!shared || l.x.sched.stats.cached_tokens > 100);
    assert_true(shared || l.x.sched.stats.cached_tokens == 0);
    teardown(&l.x);
    return preemptions;
}

static void pages_hold_what_they_should_through_random_lives(void **state)
{
    (void)state;
    for (int shared = 0; shared < 2; shared++) {
        assert_true(live(PAGES_MAX, shared) > 5);
        assert_true(live(12, shared) > 5);
        /* Barely one sequence. */
        assert_true(live(6, shared) > 5);
        live(2, shared);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_prompt_is_cut_into_chunks_and_the_batch_is_filled),
        cmocka_unit_test(a_sequence_that_decodes_goes_before_prompts),
        cmocka_unit_test(a_step_that_somebody_waits_for_is_shorter),
        cmocka_unit_test(a_sequence_waits_for_the_pages_it_needs_soon),
        cmocka_unit_test(the_youngest_gives_way_and_is_the_first_to_come_back),
        cmocka_unit_test(what_was_computed_is_not_computed_again),
        cmocka_unit_test(pages_hold_what_they_should_through_random_lives),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The scheduler: what a step holds, who is admitted, and that no page is lost or owned twice. */
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
    assert_int_equal(x->kv.n_free, x->kv.n_page);
    kv_fini(&x->kv);
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
    setup(&x, 64, (struct sched_config){16, 10, 8, 8});
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
    setup(&x, 64, (struct sched_config){8, 8, 8, 8});
    assert_int_equal(add(&x, 1, 30, 4, NULL), 0);
    assert_int_equal(add(&x, 2, 1, 4, NULL), 0);
    int rows;
    assert_int_equal(sched_plan(&x.sched, &rows), 2);
    assert_int_equal(x.sched.span[0].seq->id, 2);
    assert_int_equal(x.sched.span[1].seq->id, 1);
    assert_int_equal(rows, 8);
    teardown(&x);
}

static void a_sequence_waits_until_all_its_pages_are_free(void **state)
{
    (void)state;
    struct fixture x;
    struct err err = {0};
    setup(&x, 3, (struct sched_config){512, 512, 8, 2});
    assert_int_equal(add(&x, 1, 100, 28, NULL), 0); /* 127 positions: two pages */
    assert_int_equal(add(&x, 2, 100, 28, NULL), 0);
    assert_int_equal(add(&x, 3, 10, 1, &err), ERR_AGAIN);
    err_clear(&err);
    assert_int_equal(add(&x, 4, 190, 4, &err), ERR_LIMIT);
    int rows;
    assert_int_equal(sched_plan(&x.sched, &rows), 1);
    assert_int_equal(x.kv.n_free, 1);
    struct seq *first = x.sched.span[0].seq;
    sched_remove(&x.sched, first);
    seq_destroy(first);
    assert_int_equal(sched_plan(&x.sched, &rows), 1);
    assert_int_equal(x.sched.span[0].seq->id, 2);
    teardown(&x);
}

static void pages_have_one_owner_through_random_lives(void **state)
{
    (void)state;
    struct fixture x;
    setup(&x, 40, (struct sched_config){64, 16, 12, 100});
    uint64_t id = 1, draw = 0;
    for (int step = 0; step < 3000; step++) {
        int p = 1 + (int)(rng_uniform(7, 0, draw++) * 300),
            m = (int)(rng_uniform(7, 0, draw++) * 80);
        add(&x, id++, p, m, NULL);
        int rows, n = sched_plan(&x.sched, &rows), owned = 0;
        uint8_t owner[40] = {0};
        for (int i = 0; i < x.sched.n_running; i++) {
            struct seq *s = x.sched.running[i];
            assert_true(s->n_page * KV_PAGE >= seq_positions(s));
            for (int k = 0; k < s->n_page; k++) {
                assert_int_equal(owner[s->page[k]]++, 0);
                owned++;
            }
        }
        assert_int_equal(owned + x.kv.n_free, x.kv.n_page);
        assert_true(rows <= 64);
        for (int i = 0; i < n; i++) {
            struct seq *s = x.sched.span[i].seq;
            s->n_done += x.sched.span[i].end - x.sched.span[i].begin;
            if (s->n_done < s->n_token) {
                continue;
            }
            if (s->n_token - s->n_prompt < s->request.max_tokens) {
                seq_append(s, 1);
            }
            if (s->n_token - s->n_prompt == s->request.max_tokens) {
                sched_remove(&x.sched, s);
                seq_destroy(s);
            }
        }
    }
    teardown(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_prompt_is_cut_into_chunks_and_the_batch_is_filled),
        cmocka_unit_test(a_sequence_that_decodes_goes_before_prompts),
        cmocka_unit_test(a_sequence_waits_until_all_its_pages_are_free),
        cmocka_unit_test(pages_have_one_owner_through_random_lives),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

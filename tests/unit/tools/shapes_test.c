/* shapes: every shape of the table is a config that its family accepts, and the published ones
 * count as many parameters as their publishers say. */
#include "model/desc.h"
#include "tools/shapes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint64_t params(const struct model_desc *d)
{
    return desc_dense_params(d) +
           desc_expert_params(d) * (uint64_t)d->n_expert * (uint64_t)desc_n_sparse(d);
}

static struct model_desc desc_of(const char *name)
{
    struct model_desc desc = {0};
    struct err err = {0};
    char *text = NULL;
    if (shape_or_file(name, &text, &err) != 0 ||
        desc_from_config(text, strlen(text), name, &desc, &err) != 0)
        fail_msg("%s", err.text);
    free(text);
    return desc;
}

static void every_shape_is_accepted_by_its_family(void **state)
{
    (void)state;
    int n = 0;
    for (; shape_at((size_t)n); n++) {
        struct model_desc d = desc_of(shape_name(shape_at((size_t)n)));
        assert_true(params(&d) > 100000);
        assert_ptr_equal(shape_find(shape_name(shape_at((size_t)n))), shape_at((size_t)n));
    }
    assert_true(n >= 16);
}

static void published_shapes_have_their_published_size(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        double total, active; /* in billions, as the model cards give them */
    } cards[] = {{"olmoe-1b-7b", 6.9, 1.3},        {"mixtral-8x7b", 46.7, 12.9},
                 {"qwen3-30b-a3b", 30.5, 3.3},     {"qwen3-235b-a22b", 235, 22},
                 {"qwen1.5-moe-a2.7b", 14.3, 2.7}, {"qwen2-57b-a14b", 57.41, 14},
                 {"llama-3-8b", 8.03, 8.03},       {"qwen2.5-7b", 7.61, 7.61},
                 {"qwen3-0.6b", 0.6, 0.6},         {"qwen3-8b", 8.2, 8.2},
                 {"pangu-sigma-1t", 1085, 12.8}};
    for (size_t i = 0; i < sizeof(cards) / sizeof(cards[0]); i++) {
        struct model_desc d = desc_of(cards[i].name);
        double total = (double)params(&d) / 1e9;
        double active =
            (double)(desc_dense_params(&d) +
                     desc_expert_params(&d) * (uint64_t)d.top_k * (uint64_t)desc_n_sparse(&d)) /
            1e9;
        assert_true(total > cards[i].total * 0.99 && total < cards[i].total * 1.01);
        assert_true(active > cards[i].active * 0.97 && active < cards[i].active * 1.03);
    }
}

static void a_misspelt_shape_gets_the_nearest_name(void **state)
{
    (void)state;
    char *text = NULL;
    struct err err = {0};
    assert_int_equal(shape_or_file("olmo-1b-7b", &text, &err), ERR_USAGE);
    assert_string_equal(err.text,
                        "there is no shape or file 'olmo-1b-7b'; did you mean 'olmoe-1b-7b'?");
    err_clear(&err);
    assert_int_equal(shape_or_file("something/else", &text, &err), ERR_USAGE);
    assert_non_null(strstr(err.text, "shapes are olmoe-1b-7b, mixtral-8x7b"));
    assert_null(text);
    assert_null(shape_find("nothing"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_shape_is_accepted_by_its_family),
        cmocka_unit_test(published_shapes_have_their_published_size),
        cmocka_unit_test(a_misspelt_shape_gets_the_nearest_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

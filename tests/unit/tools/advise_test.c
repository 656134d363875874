/* Advice has a sentence and figures for each question, follows the load, the SLO, the memory and
 * the wire, and says so when nothing carries the load. */
#include "tools/advise.h"
#include "tools/shapes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct model_desc desc;

static int load_shape(void **state)
{
    (void)state;
    struct err err = {0};
    char *text;
    if (shape_or_file("olmoe-1b-7b", &text, &err) ||
        desc_from_config(text, strlen(text), "olmoe-1b-7b", &desc, &err))
        return -1;
    desc.n_layer = 2; /* these tests compare, and fewer layers are sooner simulated */
    free(text);
    return 0;
}

static struct advise_ask asked(double rate)
{
    struct advise_ask ask;
    struct opt opts[ADVISE_OPTIONS + 1];
    advise_options(&ask, opts);
    ask.rate = rate;
    ask.prompt = 64;
    ask.output = 16;
    ask.workers_max = 16;
    return ask;
}

static const json_t *sentence(const json_t *advice, const char *topic)
{
    const json_t *s;
    size_t i;
    json_array_foreach(json_object_get(advice, "sentences"), i, s)
    {
        if (strcmp(json_string_value(json_object_get(s, "topic")), topic) == 0)
            return s;
    }
    fail_msg("no sentence on %s", topic);
    return NULL;
}

static double figure(const json_t *advice, const char *topic, const char *key)
{
    const json_t *v = json_object_get(json_object_get(sentence(advice, topic), "figures"), key);
    assert_true(json_is_number(v) || json_is_boolean(v));
    return json_is_boolean(v) ? json_is_true(v) : json_number_value(v);
}

static json_t *advice_for(const struct advise_ask *ask)
{
    struct err err = {0};
    json_t *advice = NULL;
    if (advise(ask, &desc, PRECISION_BF16, NULL, &advice, &err) != 0)
        fail_msg("%s", err.text);
    return advice;
}

static void every_question_has_a_sentence_with_figures(void **state)
{
    (void)state;
    struct advise_ask ask = asked(20);
    json_t *advice = advice_for(&ask);
    static const char *const topics[] = {"workers", "ping-pong", "replicas", "disaggregation"};
    for (size_t i = 0; i < 4; i++) {
        const json_t *s = sentence(advice, topics[i]);
        assert_true(strlen(json_string_value(json_object_get(s, "says"))) > 60);
        assert_non_null(json_object_get(s, "figures"));
    }
    assert_true(figure(advice, "workers", "goodput_per_s") > 0);
    assert_true(figure(advice, "disaggregation", "wire_floor_ms") > 0);
    json_t *again = advice_for(&ask);
    assert_true(json_equal(advice, again));
    json_decref(again);
    json_decref(advice);
}

static void more_load_never_needs_less(void **state)
{
    (void)state;
    struct advise_ask little = asked(5), much = asked(400);
    little.slo_tpot_ms = much.slo_tpot_ms = 60;
    json_t *a = advice_for(&little), *b = advice_for(&much);
    double machines_a = figure(a, "workers", "workers") + figure(a, "workers", "coordinators");
    double machines_b = figure(b, "workers", "workers") + figure(b, "workers", "coordinators");
    assert_true(machines_b > machines_a);
    json_decref(a);
    json_decref(b);
}

static void memory_sets_the_least(void **state)
{
    (void)state;
    struct advise_ask ask = asked(5);
    uint64_t all = weights_expert_bytes(&desc, PRECISION_BF16) * 64 * 2;
    ask.memory_bytes = (int64_t)(all / 5);
    json_t *advice = advice_for(&ask);
    assert_true(figure(advice, "workers", "workers") >= 5);
    assert_true(figure(advice, "disaggregation", "fits") == 0);
    assert_non_null(
        strstr(json_string_value(json_object_get(sentence(advice, "disaggregation"), "says")),
               "is needed"));
    json_decref(advice);
}

static void what_cannot_be_is_said_in_one_line(void **state)
{
    (void)state;
    struct advise_ask ask = asked(5);
    struct err err = {0};
    json_t *advice = NULL;
    ask.slo_tpot_ms = 0.001;
    assert_int_equal(advise(&ask, &desc, PRECISION_BF16, NULL, &advice, &err), ERR_USAGE);
    assert_non_null(strstr(err.text, "relax the SLO"));
    assert_null(strchr(err.text, '\n'));
    ask = asked(5);
    ask.memory_bytes = 1000;
    err = (struct err){0};
    assert_int_equal(advise(&ask, &desc, PRECISION_BF16, NULL, &advice, &err), ERR_USAGE);
    assert_non_null(strstr(err.text, "do not fit"));
    ask = asked(5);
    ask.kinds = "no-such-file.json";
    err = (struct err){0};
    assert_int_equal(advise(&ask, &desc, PRECISION_BF16, NULL, &advice, &err), ERR_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_question_has_a_sentence_with_figures),
        cmocka_unit_test(more_load_never_needs_less),
        cmocka_unit_test(memory_sets_the_least),
        cmocka_unit_test(what_cannot_be_is_said_in_one_line),
    };
    return cmocka_run_group_tests(tests, load_shape, NULL);
}

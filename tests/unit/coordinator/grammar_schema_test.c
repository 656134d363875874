/* What a schema may not ask for, in the words a user reads, and schemas made to hurt: each ends in
 * an error, or in a grammar whose masks stay cheap and never leave a text without a way to end. */
#include "coordinator/grammar.h"
#include "coordinator/grammar_schema.h"

#include <malloc.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define VOCAB_MAX 1024

struct world {
    struct tokenizer *tok;
    struct grammar_vocab *vocab;
    int32_t of_byte[256];
};

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    struct err err = {0};
    if (tokenizer_open(TESTS_DIR "/fixtures/tokenizer/byte_level.json", &w->tok, &err) != 0 ||
        grammar_vocab_create(w->tok, &w->vocab, &err) != 0) {
        fail_msg("%s", err.text);
    }
    for (int32_t id = 0; id < tokenizer_vocab_size(w->tok); id++) {
        struct tok_text t = {0};
        assert_int_equal(tokenizer_token_bytes(w->tok, id, &t, NULL), 0);
        if (t.n == 1) {
            w->of_byte[(uint8_t)*t.p] = id;
        }
        tok_text_fini(&t);
    }
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    grammar_vocab_unref(w->vocab);
    tokenizer_close(w->tok);
    free(w);
    return 0;
}

static int compile(struct world *w, const char *text, struct grammar **g, struct err *err)
{
    char *copy = strdup(text);
    json_error_t why;
    for (char *p = copy; *p != 0; p++) {
        *p = *p == '\'' ? '"' : *p;
    }
    json_t *schema = json_loads(copy, JSON_DECODE_ANY, &why);
    if (schema == NULL) {
        fail_msg("%.200s: %s", copy, why.text);
    }
    *err = (struct err){0};
    *g = NULL;
    int rc = grammar_vocab_json_schema(w->vocab, schema, g, err);
    assert_int_equal(rc, err->code);
    json_decref(schema);
    free(copy);
    return rc;
}

static struct grammar *compiled(struct world *w, const char *text)
{
    struct grammar *g;
    struct err err;
    if (compile(w, text, &g, &err) != 0) {
        fail_msg("%s", err.text);
    }
    return g;
}

static void refused(struct world *w, const char *schema, int code, const char *words)
{
    struct grammar *g;
    struct err err;
    int rc = compile(w, schema, &g, &err);
    if (rc != code || strstr(err.text, words) == NULL || g != NULL) {
        fail_msg("%.200s: %d, \"%s\", not %d, \"%s\"", schema, rc, err.text, code, words);
    }
}

/* ---- refusals ---------------------------------------------------------------------------------
 */

static void what_is_not_supported_is_named_with_its_pointer(void **state)
{
    static const char *const bad[][2] = {
        {"{'type':'string','pattern':'a'}", "at #/pattern: this keyword is not supported"},
        {"{'type':'object','properties':{'a/b~':{'type':'string','format':'int32'}}}",
         "at #/properties/a~1b~0/format:"},
        {"{'type':'array','items':{'oneOf':[{}]}}", "at #/items/oneOf:"},
        {"{'anyOf':[{'type':'null'},{'not':{}}]}", "at #/anyOf/1/not:"},
        {"{'$ref':'#/$defs/x','$defs':{'x':{'type':'array','uniqueItems':true}}}",
         "at #/$defs/x/uniqueItems:"},
        {"{'type':'number','minimum':0.5}", "at #/minimum: for numbers only whole"},
        {"{'type':'number','exclusiveMinimum':1}", "at #/exclusiveMinimum:"},
        {"{'type':'integer','multipleOf':3}", "at #/multipleOf:"},
        {"{'type':'object','patternProperties':{}}", "at #/patternProperties:"},
        {"{'anyOf':[{}],'type':'object'}", "at #/type: not supported beside \"anyOf\""},
        {"{'enum':['a'],'minLength':1}", "at #/minLength: not supported beside \"enum\""},
        {"{'allOf':[{},{}]}", "at #/allOf: supported only with one"},
        {"{'type':'array','items':[{}]}", "at #/items: a list of schemas is called prefixItems"},
        {"{'type':'object','properties':{'a':{'$id':'x'}}}", "at #/properties/a/$id:"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        refused(*state, bad[i][0], ERR_USAGE, bad[i][1]);
    }
}

static void what_is_no_schema_is_refused(void **state)
{
    static const char *const bad[][2] = {
        {"7", "at #: a schema is an object or true"},
        {"false", "at #: a schema is an object or true"},
        {"{'type':'strin'}", "at #/type: must be object, array"},
        {"{'type':[]}", "at #/type: must be"},
        {"{'type':['string',1]}", "at #/type: must be"},
        {"{'enum':[]}", "at #/enum: must be a list"},
        {"{'enum':{}}", "at #/enum: must be a list"},
        {"{'type':'integer','enum':['x']}", "no value of its type"},
        {"{'anyOf':[]}", "at #/anyOf: must be a list"},
        {"{'anyOf':[1]}", "at #/anyOf/0: a schema is"},
        {"{'type':'string','minLength':-1}", "at #/minLength: must be a whole"},
        {"{'type':'string','maxLength':'1'}", "at #/maxLength: must be a whole"},
        {"{'type':'string','minLength':3,'maxLength':2}", "at #/maxLength: the least"},
        {"{'type':'array','minItems':1,'items':false}", "at #/items: the least"},
        {"{'type':'array','prefixItems':[]}", "at #/prefixItems: must be"},
        {"{'type':'integer','minimum':'a'}", "at #/minimum: must be a number"},
        {"{'type':'integer','minimum':4,'maximum':3}", "at #: no number"},
        {"{'type':'integer','minimum':1e30}", "at #: no number"},
        {"{'type':'object','properties':[]}", "at #/properties: must be an object"},
        {"{'type':'object','properties':{'a':false}}", "at #/properties/a: a schema is"},
        {"{'type':'object','required':'a'}", "at #/required: must be a list"},
        {"{'type':'object','required':['a']}", "at #/required: element 0"},
        {"{'$ref':1}", "at #/$ref: only references inside"},
        {"{'$ref':'http://x/y'}", "at #/$ref: only references inside"},
        {"{'$ref':'#/$defs/x'}", "at #/$ref: nothing is there"},
        {"{'$ref':'#/%zz'}", "at #/$ref: nothing is there"},
        {"{'$ref':'#/$defs/~2','$defs':{}}", "at #/$ref: nothing is there"},
        {"{'$ref':'#/anyOf/1x','title':'t'}", "at #/$ref: nothing is there"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        refused(*state, bad[i][0], ERR_USAGE, bad[i][1]);
    }
}

static void schemas_that_lead_nowhere_are_refused(void **state)
{
    refused(*state, "{'$ref':'#'}", ERR_USAGE, "leads back to itself");
    refused(*state,
            "{'$ref':'#/$defs/a','$defs':{'a':{'$ref':'#/$defs/b'},'b':{'$ref':'#/$defs/a'}}}",
            ERR_USAGE, "leads back to itself");
    refused(*state, "{'allOf':[{'$ref':'#'}]}", ERR_USAGE, "leads back to itself");
    refused(*state, "{'anyOf':[{'type':'null'},{'$ref':'#'}]}", ERR_USAGE,
            "at #: it refers to itself with nothing in between");
    refused(
        *state,
        "{'type':'object','properties':{'x':{'$ref':'#/$defs/a'}},'$defs':{'a':{'anyOf':[{'$ref':"
        "'#/$defs/b'},{'type':'null'}]},'b':{'anyOf':[{'$ref':'#/$defs/a'}]}}}",
        ERR_USAGE, "it refers to itself");
    refused(*state, "{'type':'object','properties':{'a':{'$ref':'#'}},'required':['a']}", ERR_LIMIT,
            "at #: no value of at most 128 levels");
    refused(*state, "{'type':'array','items':{'$ref':'#'},'minItems':1}", ERR_LIMIT, "no value");
}

/* ---- limits -----------------------------------------------------------------------------------
 */

/* head, then `body` n times, then tail. */
static char *repeated(const char *head, const char *body, size_t n, const char *tail)
{
    char *text = malloc(strlen(head) + n * strlen(body) + strlen(tail) + 1),
         *p = stpcpy(text, head);
    for (size_t i = 0; i < n; i++) {
        p = stpcpy(p, body);
    }
    stpcpy(p, tail);
    return text;
}

static void refuse_repeated(struct world *w, const char *head, const char *body, size_t n,
                            const char *tail, const char *words)
{
    char *text = repeated(head, body, n, tail);
    refused(w, text, ERR_LIMIT, words);
    free(text);
}

static void limits_are_kept(void **state)
{
    struct world *w = *state;
    refuse_repeated(w, "{'enum':['x'", ",'abcdefg'", 7000, "]}", "at most 65536 bytes");
    refuse_repeated(w, "{'anyOf':[{}", ",{'title':'x'}", 300, "]}", "at #/anyOf: at most 256");
    refused(w, "{'type':'string','minLength':1000000}", ERR_LIMIT, "counted up to");
    refused(w, "{'type':'string','maxLength':9000000000000000000}", ERR_LIMIT, "counted up to");
    refused(w, "{'type':'string','maxLength':199999}", ERR_LIMIT, "more than 200000 steps");
    refused(w, "{'type':'array','maxItems':1000000000}", ERR_LIMIT, "more than 200000 steps");
    refused(w, "{'type':'array','minItems':9000000000000000000}", ERR_LIMIT, "more than 200000");
    char *deep = repeated("", "{'type':'array','items':", 33, "{}"), *whole;
    whole = repeated(deep, "}", 33, "");
    refused(w, whole, ERR_LIMIT, "at most 32 levels deep");
    free(deep);
    free(whole);
    deep = repeated("{'const':", "[", 40, "");
    whole = repeated(deep, "]", 40, "}");
    refused(w, whole, ERR_LIMIT, "32 levels deep");
    free(deep);
    free(whole);
    whole = repeated("{'type':'object','additionalProperties':true,'properties':{'", "x", 600,
                     "':{}}}");
    refused(w, whole, ERR_LIMIT, "at most 512 bytes");
    free(whole);
}

static void too_many_properties_are_refused(void **state)
{
    char text[32768], *p = stpcpy(text, "{'type':'object','properties':{'p':{}");
    for (int i = 0; i < 1100; i++) {
        p += sprintf(p, ",'p%d':{}", i);
    }
    strcpy(p, "}}");
    refused(*state, text, ERR_LIMIT, "at #/properties: at most 1024");
}

static void a_reference_chain_of_any_length_is_one_rule(void **state)
{
    char text[65536], *p = stpcpy(text, "{'$ref':'#/$defs/d0','$defs':{");
    for (int i = 0; i < 900; i++) {
        p += sprintf(p, "'d%d':{'$ref':'#/$defs/d%d'},", i, i + 1);
    }
    strcpy(p, "'d900':{'type':'null'}}}");
    struct grammar *g = compiled(*state, text);
    struct grammar_state *s = grammar_state_create(g);
    struct world *w = *state;
    for (const char *c = "null"; *c != 0; c++) {
        assert_int_equal(grammar_accept(s, w->of_byte[(uint8_t)*c]), c[1] == 0);
    }
    grammar_state_destroy(s);
    grammar_unref(g);
}

/* ---- walks ------------------------------------------------------------------------------------
 */

static int feed(const struct world *w, struct grammar_state *s, const char *text)
{
    int rc = 0;
    for (; *text != 0 && rc == 0; text++) {
        rc = grammar_accept(s, w->of_byte[*text == '\'' ? '"' : (uint8_t)*text]);
    }
    return rc;
}

static int n_allowed(struct grammar_state *s)
{
    float logits[VOCAB_MAX] = {0};
    int n = 0;
    grammar_mask(s, logits, VOCAB_MAX);
    for (int i = 0; i < VOCAB_MAX; i++) {
        n += logits[i] > -INFINITY;
    }
    return n;
}

static void ten_thousand_values_are_one_stack_each_byte(void **state)
{
    struct world *w = *state;
    char *text = malloc(65536), *p = stpcpy(text, "{'enum':['x'");
    for (int i = 0; i < 6500; i++) {
        p += sprintf(p, ",'%05d'", i * 7);
    }
    strcpy(p, "]}");
    struct grammar *g = compiled(w, text);
    struct grammar_state *s = grammar_state_create(g);
    assert_int_equal(feed(w, s, "'0001"), 0);
    assert_int_equal(grammar_accept(s, w->of_byte['5']), ERR_PROTO);
    assert_int_equal(feed(w, s, "4'"), 1);
    assert_int_equal(n_allowed(s), 0);
    grammar_state_destroy(s);
    grammar_unref(g);
    free(text);
}

static void nesting_ends_at_the_last_level_and_can_be_closed(void **state)
{
    struct world *w = *state;
    struct grammar *g = NULL;
    assert_int_equal(grammar_vocab_json_object(w->vocab, &g, NULL), 0);
    struct grammar_state *s = grammar_state_create(g);
    int depth = 0;
    assert_int_equal(feed(w, s, "{'a':"), 0);
    while (grammar_accept(s, w->of_byte['[']) == 0) {
        depth++;
        assert_true(depth < 200);
    }
    assert_in_range(depth, 100, 128);
    assert_true(n_allowed(s) > 0);
    assert_int_equal(grammar_accept(s, w->of_byte['1']), 0);
    for (int i = 0; i < depth; i++) {
        assert_int_equal(grammar_accept(s, w->of_byte[']']), 0);
    }
    assert_int_equal(grammar_accept(s, w->of_byte['}']), 1);
    grammar_state_destroy(s);
    grammar_unref(g);
}

/* Every level has more ways to be read than stacks are kept. */
#define AMBIGUOUS                                                                                  \
    "{'$ref':'#/$defs/n','$defs':{'n':{'anyOf':[{'type':'object','properties':{'c':{'$ref':"       \
    "'#/$defs/n'},'x':{}}},{'type':'object','properties':{'c':{'$ref':'#/$defs/n'},'y':{}}},"      \
    "{'type':'object','properties':{'c':{'$ref':'#/$defs/n'},'z':{'type':'string'}}},"             \
    "{'type':'object','properties':{'c':{'$ref':'#/$defs/n'},'w':{'type':'null'}}},"               \
    "{'type':'string'}]}}}"

static void ambiguity_is_cut_and_the_text_still_ends(void **state)
{
    struct world *w = *state;
    struct grammar *g = compiled(w, AMBIGUOUS);
    struct grammar_state *s = grammar_state_create(g);
    for (int i = 0; i < 40; i++) {
        assert_int_equal(feed(w, s, "{'c':"), 0);
        assert_true(n_allowed(s) > 0);
    }
    assert_int_equal(feed(w, s, "'x'"), 0);
    for (int i = 0; i < 40; i++) {
        assert_true(n_allowed(s) > 0);
        assert_int_equal(grammar_accept(s, w->of_byte['}']), i == 39);
    }
    grammar_state_destroy(s);
    grammar_unref(g);
}

static void mask_after(struct world *w, struct grammar *g, const char *text, float *logits)
{
    struct grammar_state *s = grammar_state_create(g);
    assert_int_equal(feed(w, s, text), 0);
    memset(logits, 0, VOCAB_MAX * sizeof *logits);
    grammar_mask(s, logits, VOCAB_MAX);
    grammar_state_destroy(s);
}

static void a_mask_depends_on_the_text_alone(void **state)
{
    static const char *const text = "{'c':{'c':{'c':{'c':{'c':{'c':'so";
    struct world *w = *state;
    struct grammar *used = compiled(w, AMBIGUOUS), *fresh = compiled(w, AMBIGUOUS);
    float a[VOCAB_MAX], b[VOCAB_MAX];
    for (int i = 0; i < 200; i++) {
        char other[64];
        snprintf(other, sizeof other, "{'c':{'%s':{'c':'%d", i % 3 ? "c" : "x", i * 12345);
        mask_after(w, used, other, a);
    }
    mask_after(w, used, text, a);
    mask_after(w, fresh, text, b);
    assert_memory_equal(a, b, sizeof a);
    grammar_unref(used);
    grammar_unref(fresh);
}

/* More positions than the table holds, so that it is emptied on the way, twice. */
static void a_table_that_fills_up_is_emptied_and_the_walk_goes_on(void **state)
{
    struct world *w = *state;
    const int n = 10000;
    struct grammar *g = compiled(w, "{'type':'string','maxLength':10000}");
    struct grammar_state *s = grammar_state_create(g), *parked = grammar_state_create(g);
    assert_int_equal(feed(w, s, "'"), 0);
    assert_int_equal(feed(w, parked, "'abc"), 0);
    for (int i = 0; i < n; i++) {
        assert_int_equal(grammar_accept(s, w->of_byte['a']), 0);
        assert_true(i % 1000 != 0 || n_allowed(s) > 0);
    }
    assert_int_equal(grammar_accept(s, w->of_byte['a']), ERR_PROTO);
    assert_int_equal(feed(w, s, "'"), 1);
    assert_int_equal(feed(w, parked, "d'"), 1);
    grammar_state_destroy(s);
    grammar_state_destroy(parked);
    grammar_unref(g);
}

/* A server holds one for every request that runs. (A sanitizer's heap counts nothing.) */
static void a_small_schema_costs_little_memory(void **state)
{
    struct world *w = *state;
    struct mallinfo2 before = mallinfo2();
    struct grammar *g = compiled(w, "{'type':'array','items':{'type':'integer'}}");
    struct grammar_state *s = grammar_state_create(g);
    assert_int_equal(feed(w, s, "[1, 2"), 0);
    assert_true(n_allowed(s) > 10);
    struct mallinfo2 after = mallinfo2();
    assert_true(after.uordblks + after.hblkhd < before.uordblks + before.hblkhd + 256 * 1024);
    grammar_state_destroy(s);
    grammar_unref(g);
}

struct walker {
    struct world *w;
    struct grammar *g;
    int failed;
};

static void *walk_many(void *arg)
{
    struct walker *k = arg;
    for (int i = 0; i < 50 && !k->failed; i++) {
        struct grammar_state *s = grammar_state_create(k->g);
        k->failed |= s == NULL || feed(k->w, s, "{'a':[1,{'b':'") != 0 || n_allowed(s) < 100 ||
                     feed(k->w, s, "x'}]}") != 1;
        grammar_state_destroy(s);
    }
    grammar_unref(k->g);
    return NULL;
}

static void threads_share_a_grammar(void **state)
{
    struct walker walker[4];
    struct grammar *g = NULL;
    pthread_t thread[4];
    assert_int_equal(grammar_vocab_json_object(((struct world *)*state)->vocab, &g, NULL), 0);
    for (int i = 0; i < 4; i++) {
        walker[i] = (struct walker){*state, g, 0};
        grammar_ref(g);
        assert_int_equal(pthread_create(&thread[i], NULL, walk_many, &walker[i]), 0);
    }
    grammar_unref(g);
    for (int i = 0; i < 4; i++) {
        pthread_join(thread[i], NULL);
        assert_false(walker[i].failed);
    }
}

static void a_vocabulary_that_cannot_spell_json_is_refused(void **state)
{
    struct tokenizer *tok = NULL;
    struct grammar *g = NULL;
    struct err err = {0};
    (void)state;
    assert_int_equal(tokenizer_open(TESTS_DIR "/fixtures/tokenizer/unigram.json", &tok, &err), 0);
    assert_int_equal(grammar_json_object(tok, &g, &err), ERR_MODEL);
    assert_non_null(strstr(err.text, "cannot spell JSON"));
    assert_null(g);
    tokenizer_close(tok);
}

/* Without bytes above ASCII, what the schema spells out comes as escapes and strings have no
 * others. */
static void a_program_for_ascii_spells_the_rest_as_escapes(void **state)
{
    json_t *schema = json_pack("{s:s}", "const", "\xc3\xa9\xf0\x9f\x98\x80");
    static const char want[] = "\"\\u00e9\\ud83d\\ude00\"";
    struct grammar_prog prog;
    (void)state;
    assert_int_equal(grammar_compile_schema(schema, true, &prog, NULL), 0);
    uint32_t pc = prog.entry[prog.root];
    for (const char *p = want; *p != 0; p++, pc++) {
        assert_int_equal(prog.code[pc].op, GRAMMAR_BYTE);
        assert_int_equal(prog.code[pc].lo, (uint8_t)*p);
    }
    assert_int_equal(prog.code[pc].op, GRAMMAR_RET);
    grammar_prog_fini(&prog);
    json_decref(schema);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_not_supported_is_named_with_its_pointer),
        cmocka_unit_test(what_is_no_schema_is_refused),
        cmocka_unit_test(schemas_that_lead_nowhere_are_refused),
        cmocka_unit_test(limits_are_kept),
        cmocka_unit_test(too_many_properties_are_refused),
        cmocka_unit_test(a_reference_chain_of_any_length_is_one_rule),
        cmocka_unit_test(ten_thousand_values_are_one_stack_each_byte),
        cmocka_unit_test(nesting_ends_at_the_last_level_and_can_be_closed),
        cmocka_unit_test(ambiguity_is_cut_and_the_text_still_ends),
        cmocka_unit_test(a_mask_depends_on_the_text_alone),
        cmocka_unit_test(a_table_that_fills_up_is_emptied_and_the_walk_goes_on),
        cmocka_unit_test(a_small_schema_costs_little_memory),
        cmocka_unit_test(threads_share_a_grammar),
        cmocka_unit_test(a_vocabulary_that_cannot_spell_json_is_refused),
        cmocka_unit_test(a_program_for_ascii_spells_the_rest_as_escapes),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

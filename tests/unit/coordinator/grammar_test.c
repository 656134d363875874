/* The grammar's promise, tried from both sides: whatever is drawn from its masks parses and
 * satisfies the schema, and whatever satisfies the schema in the style of grammar.h is let through,
 * byte by byte and by the longest tokens. Random draws have fixed seeds. */
#include "base/rng.h"
#include "coordinator/grammar.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define DIR       TESTS_DIR "/fixtures/tokenizer/"
#define VOCAB_MAX 1024
#define TEXT_MAX  65536

struct world {
    struct tokenizer *tok;
    struct grammar_vocab *vocab;
    int32_t n_id, eos, of_byte[256];
    struct tok_text bytes[VOCAB_MAX];
};

static void open_world(struct world *w, const char *file, const char *eos)
{
    char dir[] = "/tmp/grammar_test.XXXXXX", path[2][128];
    struct err err = {0};
    assert_non_null(mkdtemp(dir));
    snprintf(path[0], sizeof path[0], "%s/tokenizer.json", dir);
    snprintf(path[1], sizeof path[1], "%s/tokenizer_config.json", dir);
    char from[512];
    snprintf(from, sizeof from, DIR "%s", file);
    assert_int_equal(symlink(from, path[0]), 0);
    FILE *f = fopen(path[1], "w");
    assert_non_null(f);
    fprintf(f, "{\"eos_token\": \"%s\"}", eos);
    fclose(f);
    memset(w, 0, sizeof *w);
    if (tokenizer_open(dir, &w->tok, &err) != 0 ||
        grammar_vocab_create(w->tok, &w->vocab, &err) != 0) {
        fail_msg("%s", err.text);
    }
    unlink(path[0]);
    unlink(path[1]);
    rmdir(dir);
    w->n_id = tokenizer_vocab_size(w->tok);
    assert_true(w->n_id <= VOCAB_MAX);
    w->eos = tokenizer_eos(w->tok);
    assert_true(w->eos >= 0);
    memset(w->of_byte, 0xff, sizeof w->of_byte);
    for (int32_t id = 0; id < w->n_id; id++) {
        if (!tokenizer_is_special(w->tok, id)) {
            assert_int_equal(tokenizer_token_bytes(w->tok, id, &w->bytes[id], NULL), 0);
        }
        if (w->bytes[id].n == 1) {
            w->of_byte[(uint8_t)w->bytes[id].p[0]] = id;
        }
    }
}

static void close_world(struct world *w)
{
    for (int32_t id = 0; id < w->n_id; id++) {
        tok_text_fini(&w->bytes[id]);
    }
    grammar_vocab_unref(w->vocab);
    tokenizer_close(w->tok);
}

/* JSON with ' for ", to be legible in C. */
static json_t *quoted(const char *text)
{
    char *copy = strdup(text);
    json_error_t why;
    for (char *p = copy; *p != 0; p++) {
        *p = *p == '\'' ? '"' : *p;
    }
    json_t *json = json_loads(copy, JSON_DECODE_ANY | JSON_ALLOW_NUL, &why);
    if (json == NULL) {
        fail_msg("%s: %s", copy, why.text);
    }
    free(copy);
    return json;
}

static struct grammar *compile(const struct world *w, const json_t *schema)
{
    struct grammar *g = NULL;
    struct err err = {0};
    int rc = schema == NULL ? grammar_vocab_json_object(w->vocab, &g, &err)
                            : grammar_vocab_json_schema(w->vocab, schema, &g, &err);
    if (rc != 0) {
        fail_msg("%s", err.text);
    }
    return g;
}

/* ---- what a schema means ----------------------------------------------------------------------
 */

static int satisfies(const json_t *root, const json_t *schema, const json_t *v);

static int has_type(const json_t *v, const char *type)
{
    return (!strcmp(type, "object") && json_is_object(v)) ||
           (!strcmp(type, "array") && json_is_array(v)) ||
           (!strcmp(type, "string") && json_is_string(v)) ||
           (!strcmp(type, "number") && json_is_number(v)) ||
           (!strcmp(type, "integer") && json_is_integer(v)) ||
           (!strcmp(type, "boolean") && json_is_boolean(v)) ||
           (!strcmp(type, "null") && json_is_null(v));
}

static int type_fits(const json_t *type, const json_t *v)
{
    int fits = type == NULL || (json_is_string(type) && has_type(v, json_string_value(type)));
    for (size_t i = 0; i < json_array_size(type); i++) {
        fits |= has_type(v, json_string_value(json_array_get(type, i)));
    }
    return fits;
}

static int members_fit(const json_t *root, const json_t *schema, const json_t *v)
{
    const json_t *properties = json_object_get(schema, "properties");
    const json_t *extra = json_object_get(schema, "additionalProperties");
    const json_t *required = json_object_get(schema, "required");
    const char *key;
    json_t *of;
    json_object_foreach((json_t *)(uintptr_t)v, key, of)
    {
        const json_t *own = json_object_get(properties, key);
        own = own != NULL ? own : extra;
        if (own == NULL ? properties != NULL : !satisfies(root, own, of)) {
            return 0;
        }
    }
    for (size_t i = 0; i < json_array_size(required); i++) {
        if (!json_object_get(v, json_string_value(json_array_get(required, i)))) {
            return 0;
        }
    }
    return 1;
}

static int within(const json_t *schema, const char *least, const char *most, double n)
{
    const json_t *min = json_object_get(schema, least), *max = json_object_get(schema, most);
    return (!min || n >= json_number_value(min)) && (!max || n <= json_number_value(max));
}

static int elements_fit(const json_t *root, const json_t *schema, const json_t *v)
{
    const json_t *prefix = json_object_get(schema, "prefixItems");
    const json_t *items = json_object_get(schema, "items");
    for (size_t i = 0; i < json_array_size(v); i++) {
        const json_t *own = i < json_array_size(prefix) ? json_array_get(prefix, i) : items;
        if (own != NULL && !satisfies(root, own, json_array_get(v, i))) {
            return 0;
        }
    }
    return within(schema, "minItems", "maxItems", (double)json_array_size(v));
}

static double characters(const json_t *v)
{
    double n = 0;
    for (size_t i = 0; i < json_string_length(v); i++) {
        n += (json_string_value(v)[i] & 0xc0) != 0x80;
    }
    return n;
}

static int among(const json_t *list, const json_t *v)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        if (json_equal(json_array_get(list, i), v)) {
            return 1;
        }
    }
    return list == NULL;
}

static const json_t *target(const json_t *root, const char *ref)
{
    const json_t *at = root;
    char name[64];
    for (const char *p = ref + 1; *p == '/'; p += strlen(name) + 1) {
        snprintf(name, sizeof name, "%.*s", (int)strcspn(p + 1, "/"), p + 1);
        at = json_object_get(at, name);
    }
    return at;
}

static int number_fits(const json_t *schema, const json_t *v)
{
    const json_t *above = json_object_get(schema, "exclusiveMinimum");
    const json_t *below = json_object_get(schema, "exclusiveMaximum");
    double n = json_number_value(v);
    return within(schema, "minimum", "maximum", n) && (!above || n > json_number_value(above)) &&
           (!below || n < json_number_value(below));
}

static int satisfies(const json_t *root, const json_t *schema, const json_t *v)
{
    const json_t *any = json_object_get(schema, "anyOf"), *one = json_object_get(schema, "const");
    const json_t *ref = json_object_get(schema, "$ref"), *all = json_object_get(schema, "allOf");
    int fits = any == NULL;
    if (json_is_boolean(schema)) {
        return json_is_true(schema);
    }
    for (size_t i = 0; i < json_array_size(any); i++) {
        fits |= satisfies(root, json_array_get(any, i), v);
    }
    for (size_t i = 0; i < json_array_size(all); i++) {
        fits &= satisfies(root, json_array_get(all, i), v);
    }
    if (ref != NULL) {
        fits &= satisfies(root, target(root, json_string_value(ref)), v);
    }
    fits &= type_fits(json_object_get(schema, "type"), v);
    fits &= one == NULL || json_equal(one, v);
    fits &= among(json_object_get(schema, "enum"), v);
    fits &= !json_is_object(v) || members_fit(root, schema, v);
    fits &= !json_is_array(v) || elements_fit(root, schema, v);
    fits &= !json_is_string(v) || within(schema, "minLength", "maxLength", characters(v));
    fits &= !json_is_number(v) || number_fits(schema, v);
    return fits;
}

/* ---- cases ------------------------------------------------------------------------------------
 */

/* bad: ^ stands before the first byte that must be refused. */
struct sample {
    const char *schema, *good[7], *bad[7];
};
static const struct sample sample[] = {
    {NULL,
     {"{}", "{ }", "{'a':1}", "{\n  'a': [1, -2.5e+10, 'x'],\n  'b': {}\n}", "{'':[[],[ ]]}",
      "{'k':{'k':{'k':null}}}"},
     {"^[", "^ {", "{^,", "{'a'^ :1}", "{'a':1,^}", "{'a':1}^ "}},
    {"{}",
     {"1", "'x'", "null", "[true,false]", "-0", "0.5"},
     {"^+", "0^1", "-^-", "1.^e", "^.5", "t^x"}},
    {"{'type':'string'}",
     {"''", "'\\u00e9\\ud83d\\ude00'", "'\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80'", "'a\\\"b\\\\'",
      "'\x7f'", "'\\u0001'"},
     {"'^\n", "'\\^x", "'\\ud83d^x", "'\\u^g", "'\xc3^'", "'^\xff", "'\\u000^0"}},
    {"{'type':'string'}",
     {"'\xed\x9f\xbf'", "'\xf4\x8f\xbf\xbf'", "'\xe0\xa0\x80'"},
     {"'^\xc0", "'^\xc1", "'\xe0^\x80", "'\xed^\xa0", "'\xf4^\x90", "'\\ud^c00"}},
    {"{'type':'string','minLength':2,'maxLength':4}",
     {"'ab'", "'abcd'", "'\xc3\xa9\xc3\xa9'", "'\\n\\ud83d\\ude00'"},
     {"'a^'", "'abcd^e", "'^'"}},
    {"{'type':'string','maxLength':0}", {"''"}, {"'^a"}},
    {"{'type':'string','minLength':3}", {"'abc'", "'abcdefgh'"}, {"'ab^'"}},
    {"{'type':'integer'}",
     {"0", "-7", "123456789012345678"},
     {"1^.", "1^e", "123456789012345678^9"}},
    {"{'type':'number'}", {"0.125", "1e10", "-3E-7", "12e288"}, {"1e^.", "1e29^0", "0^1"}},
    {"{'type':'integer','minimum':-3,'maximum':12}",
     {"-3", "-1", "0", "9", "10", "12"},
     {"-^4", "-^0", "1^3", "2^0", "0^1"}},
    {"{'type':'integer','minimum':95,'maximum':1203}",
     {"95", "99", "100", "999", "1000", "1199", "1203"},
     {"94^,", "120^4", "200^0", "^0"}},
    {"{'type':'integer','exclusiveMinimum':0}", {"1", "50", "999999999999999999"}, {"^0", "^-"}},
    {"{'type':'integer','minimum':2.5,'exclusiveMaximum':4}", {"3"}, {"^2", "^4", "3^0"}},
    {"{'type':'number','minimum':0,'maximum':1}",
     {"0", "0.75", "1", "1.000", "0.0"},
     {"1.0^1", "^2", "^-", "0.5^e"}},
    {"{'type':'number','maximum':-10}", {"-10", "-10.5", "-400"}, {"-9^.", "^1", "-^0"}},
    {"{'type':'number','minimum':-2,'maximum':3}",
     {"-2", "-1.5", "-0.5", "3.0", "2.9"},
     {"-2.^1", "3.0^1"}},
    {"{'enum':['red','green','grey',1,12,true,null,0.1,'\xc3\xa9\\\"']}",
     {"'red'", "'green'", "1", "12", "null", "0.1", "'\xc3\xa9\\\"'"},
     {"'re^x", "'gre^a", "^2", "0.^2", "1^3"}},
    {"{'const':{'a':[1,{'b':'c'}],'d':{}}}",
     {"{'a':[1,{'b':'c'}],'d':{}}", "{ 'a': [1, {'b': 'c'}], 'd': {}}"},
     {"{^}", "{'a':[^2"}},
    {"{'type':['string','null']}", {"'x'", "null"}, {"^1", "^t"}},
    {"{'type':'integer','enum':[1,'x',22]}", {"1", "22"}, {"^'", "2^}"}},
    {"{'type':'object','properties':{'a':{'type':'integer'},'b':{'type':'string'}},"
     "'required':['a','b'],'additionalProperties':false}",
     {"{'a':1,'b':'x'}", "{\n\t'a': 1,\n\t'b': 'x'\n}"},
     {"{^}", "{'^b", "{'a':1^}", "{'a':1,'b':'x'^,", "{'a':^'"}},
    {"{'type':'object','properties':{'a':{},'b':{'type':'null'},'c':{'type':'boolean'},'d':{'type':"
     "'integer'}},'required':['c']}",
     {"{'c':true}", "{'a':[],'c':true}", "{'b':null,'c':false,'d':1}", "{'a':1,'b':null,'c':true}",
      "{'c':true,'d':0}"},
     {"{^}", "{'^d", "{'a':{}^}", "{'c':true,'^a", "{'b':null,'^a", "{'c':true,^}"}},
    {"{'type':'object','properties':{'x':{'type':'integer'},'xy':{'type':'null'}}}",
     {"{}", "{'x':1}", "{'xy':null}", "{'x':1,'xy':null}"},
     {"{'^y", "{'x':^n", "{'xy':null^,"}},
    {"{'type':'object','additionalProperties':{'type':'integer'}}",
     {"{}", "{'a':1,'b':2}", "{'':0}"},
     {"{'a':^'", "{'a':1,^}"}},
    {"{'type':'object','properties':{'ab':{'type':'null'},'\xc3\xa9':{'type':'null'}},'required':['"
     "ab'],"
     "'additionalProperties':{'type':'integer'}}",
     {"{'ab':null}", "{'ab':null,'abc':1}", "{'ab':null,'a':1,'x':2}",
      "{'ab':null,'\xc3\xa9':null}", "{'ab':null,'':1,'a\xc3\xa9':2}"},
     {"{'ab':null,'ab^'", "{'a^c", "{'ab':null,'^\\", "{'ab':null,'\xc3^\xa8"}},
    {"{'type':'array','items':{'type':'integer'},'minItems':1,'maxItems':3}",
     {"[1]", "[1, 2,3]"},
     {"[^]", "[1,2,3^,", "[1,^]", "[^'"}},
    {"{'type':'array','items':{'type':'boolean'}}",
     {"[]", "[true,false,true]"},
     {"[^1", "[true ^,"}},
    {"{'type':'array','maxItems':0}", {"[]", "[ ]"}, {"[^1"}},
    {"{'type':'array','minItems':2,'items':{'type':'null'}}",
     {"[null,null]", "[null,null,null]"},
     {"[null^]"}},
    {"{'type':'array','prefixItems':[{'type':'string'},{'type':'integer'}],'items':false}",
     {"[]", "['a']", "['a',1]"},
     {"[^1", "['a',1^,"}},
    {"{'type':'array','prefixItems':[{'type':'string'}],'items':{'type':'integer'},'minItems':1}",
     {"['a']", "['a',1,2]"},
     {"[^]", "['a',^'"}},
    {"{'anyOf':[{'type':'integer'},{'type':'object','properties':{'v':{'type':'integer'}},'"
     "required':"
     "['v']},{'type':'object','properties':{'v':{'type':'null'},'w':{'const':2}},'required':['v']}]"
     "}",
     {"5", "{'v':5}", "{'v':null}", "{'v':null,'w':2}"},
     {"{'v':5^,", "^'", "{'v':^t"}},
    {"{'$defs':{'node':{'type':'object','properties':{'v':{'type':'integer'},'next':{'anyOf':[{'$"
     "ref':"
     "'#/$defs/node'},{'type':'null'}]}},'required':['v','next']}},'$ref':'#/$defs/node'}",
     {"{'v':1,'next':null}", "{'v':1,'next':{'v':2,'next':{'v':3,'next':null}}}"},
     {"{'v':1^}", "{'v':1,'next':{'v':2^}"}},
    {"{'type':'object','properties':{'kids':{'type':'array','items':{'$ref':'#'}}},'required':['"
     "kids']}",
     {"{'kids':[]}", "{'kids':[{'kids':[]},{'kids':[{'kids':[]}]}]}"},
     {"{'kids':[^1"}},
    {"{'title':'T','allOf':[{'$ref':'#/definitions/a~1b%20c'}],'definitions':{'a/b "
     "c':{'type':'null',"
     "'description':'d'}}}",
     {"null"},
     {"^t"}},
    {"{'type':'object','properties':{'a\\\"\\n':{'type':'string','format':'uuid','default':'x'}},"
     "'required':['a\\\"\\n'],'additionalProperties':true}",
     {"{'a\\\"\\n':'z'}", "{'a\\\"\\n':'z','q':[]}"},
     {"{'a^\n"}},
};
#define N_SAMPLE (sizeof sample / sizeof *sample)

/* ---- drawing ----------------------------------------------------------------------------------
 */

/* The likes of a model that wants to end: what closes, else anything. */
static int32_t closing(const struct world *w, const float *logits)
{
    for (const char *p = "\"]}e,:"; *p != 0; p++) {
        int32_t id = *p == 'e' ? w->eos : w->of_byte[(uint8_t)*p];
        if (logits[id] > -INFINITY) {
            return id;
        }
    }
    return -1;
}

static int32_t draw(const struct world *w, struct grammar_state *s, uint64_t seed, uint64_t step)
{
    float logits[VOCAB_MAX];
    int32_t allowed[VOCAB_MAX], n = 0;
    memset(logits, 0, sizeof logits);
    grammar_mask(s, logits, VOCAB_MAX);
    for (int32_t id = 0; id < VOCAB_MAX; id++) {
        if (logits[id] > -INFINITY) {
            allowed[n++] = id;
        } else if (rng_uniform(seed, 2 + step, (uint64_t)id) < 0.02) {
            assert_int_equal(grammar_accept(s, id), ERR_PROTO);
        }
    }
    assert_true(n > 0);
    assert_true(allowed[n - 1] < w->n_id);
    int32_t close = closing(w, logits);
    double u = rng_uniform(seed, 0, step);
    if (close >= 0 && (step > 80 || u < 0.1)) {
        return close;
    }
    return allowed[(int32_t)(rng_uniform(seed, 1, step) * n)];
}

/* A text drawn from the masks, NUL-terminated. */
static void draw_text(const struct world *w, struct grammar *g, uint64_t seed, char *text)
{
    struct grammar_state *s = grammar_state_create(g);
    size_t n = 0;
    int rc = 0;
    for (uint64_t step = 0; rc == 0; step++) {
        int32_t id = draw(w, s, seed, step);
        rc = grammar_accept(s, id);
        assert_true(step < 5000 && n + w->bytes[id].n < TEXT_MAX);
        if (id != w->eos) {
            memcpy(text + n, w->bytes[id].p, w->bytes[id].n);
            n += w->bytes[id].n;
        }
    }
    assert_int_equal(rc, 1);
    text[n] = 0;
    grammar_state_destroy(s);
}

static void texts_drawn_satisfy(struct world *w, int n_draw)
{
    static char text[TEXT_MAX];
    for (size_t i = 0; i < N_SAMPLE; i++) {
        json_t *schema = sample[i].schema != NULL ? quoted(sample[i].schema) : NULL;
        struct grammar *g = compile(w, schema);
        for (int k = 0; k < n_draw; k++) {
            json_error_t why;
            draw_text(w, g, (uint64_t)k, text);
            json_t *v = json_loads(text, JSON_DECODE_ANY, &why);
            if (v == NULL) {
                fail_msg("case %zu seed %d: %s: %s", i, k, text, why.text);
            }
            if (schema == NULL ? !json_is_object(v) : !satisfies(schema, schema, v)) {
                fail_msg("case %zu seed %d: %s is not what the schema allows", i, k, text);
            }
            json_decref(v);
        }
        grammar_unref(g);
        json_decref(schema);
    }
}

static void what_is_drawn_satisfies_the_schema(void **state)
{
    struct world *w = *state;
    texts_drawn_satisfy(w, 40);
}

static void what_is_drawn_of_a_byte_fallback_vocabulary_satisfies_the_schema(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, "byte_fallback.json", "</s>");
    texts_drawn_satisfy(&w, 15);
    close_world(&w);
}

/* ---- feeding ----------------------------------------------------------------------------------
 */

/* The token that text begins with: one byte of it, or as many as a token has. */
static int32_t token_at(const struct world *w, const char *text, size_t n, int longest)
{
    int32_t best = w->of_byte[(uint8_t)*text];
    for (int32_t id = 0; longest && id < w->n_id; id++) {
        const struct tok_text *t = &w->bytes[id];
        if (t->n > w->bytes[best].n && t->n <= n && memcmp(t->p, text, t->n) == 0) {
            best = id;
        }
    }
    return best;
}

/* How many bytes are taken. *rc: of the last accept. Each token must be in the mask before it. */
static size_t feed(const struct world *w, struct grammar_state *s, const char *text, int longest,
                   int *rc)
{
    size_t n = strlen(text), i = 0;
    *rc = 0;
    while (i < n) {
        float logits[VOCAB_MAX] = {0};
        int32_t id = token_at(w, text + i, n - i, longest);
        assert_true(id >= 0);
        grammar_mask(s, logits, VOCAB_MAX);
        *rc = grammar_accept(s, id);
        assert_int_equal(*rc >= 0, logits[id] > -INFINITY);
        if (*rc < 0) {
            return i;
        }
        i += w->bytes[id].n;
    }
    return i;
}

static char *unquoted(const char *text, size_t *mark)
{
    char *copy = strdup(text), *out = copy;
    *mark = 0;
    for (const char *p = text; *p != 0; p++) {
        if (*p == '^') {
            *mark = (size_t)(out - copy);
        } else {
            *out++ = *p == '\'' ? '"' : *p;
        }
    }
    *out = 0;
    return copy;
}

static int eos_allowed(const struct world *w, struct grammar_state *s)
{
    float logits[VOCAB_MAX] = {0};
    grammar_mask(s, logits, VOCAB_MAX);
    return logits[w->eos] > -INFINITY;
}

static void what_the_schema_allows_is_taken(void **state)
{
    struct world *w = *state;
    size_t mark;
    for (size_t i = 0; i < N_SAMPLE; i++) {
        json_t *schema = sample[i].schema != NULL ? quoted(sample[i].schema) : NULL;
        struct grammar *g = compile(w, schema);
        for (int k = 0; k < 14 && sample[i].good[k / 2] != NULL; k++) {
            char *text = unquoted(sample[i].good[k / 2], &mark);
            struct grammar_state *s = grammar_state_create(g);
            int rc;
            if (feed(w, s, text, k % 2, &rc) != strlen(text) || !eos_allowed(w, s)) {
                fail_msg("case %zu: %s was not taken whole", i, text);
            }
            if (rc == 0) {
                assert_int_equal(grammar_accept(s, w->eos), 1);
            }
            if (strchr("}]\"l", text[strlen(text) - 1]) != NULL) {
                assert_int_equal(rc, 1);
            }
            grammar_state_destroy(s);
            free(text);
        }
        grammar_unref(g);
        json_decref(schema);
    }
}

static void what_it_does_not_is_refused_at_the_byte(void **state)
{
    struct world *w = *state;
    for (size_t i = 0; i < N_SAMPLE; i++) {
        json_t *schema = sample[i].schema != NULL ? quoted(sample[i].schema) : NULL;
        struct grammar *g = compile(w, schema);
        for (int k = 0; k < 7 && sample[i].bad[k] != NULL; k++) {
            size_t mark;
            char *text = unquoted(sample[i].bad[k], &mark);
            struct grammar_state *s = grammar_state_create(g);
            int rc;
            size_t n = feed(w, s, text, 0, &rc);
            if (n != mark) {
                fail_msg("case %zu: %s was taken up to %zu, not %zu", i, text, n, mark);
            }
            grammar_state_destroy(s);
            free(text);
        }
        grammar_unref(g);
        json_decref(schema);
    }
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    open_world(w, "byte_level.json", "<|endoftext|>");
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    close_world(*state);
    free(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_drawn_satisfies_the_schema),
        cmocka_unit_test(what_is_drawn_of_a_byte_fallback_vocabulary_satisfies_the_schema),
        cmocka_unit_test(what_the_schema_allows_is_taken),
        cmocka_unit_test(what_it_does_not_is_refused_at_the_byte),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

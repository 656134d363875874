/* grammar_base: what every JSON text is made of (RFC 8259), in the style that grammar.h promises. A
 * model that only ever writes blanks or digits would not end, so both are counted; numbers stay
 * within what a double and an int64 hold, so that every reader gets the value that was written. */
#include "coordinator/grammar_prog.h"

#include <string.h>

#define SPACES_MAX 20
#define TABS_MAX   8
#define DIGITS_MAX 18 /* any 18 digits fit an int64 */

static void emit_char(struct grammar_builder *b, char c)
{
    grammar_emit_text(b, &c, 1);
}

static void emit_up_to(struct grammar_builder *b, char c, int max)
{
    struct grammar_alts a = GRAMMAR_ALTS_EMPTY;
    for (int i = 0; i < max; i++) {
        grammar_alt_exit(b, &a, grammar_emit_split(b));
        emit_char(b, c);
    }
    grammar_alt_end(b, &a);
}

static void emit_blank(struct grammar_builder *b)
{
    struct grammar_alts a, tail;
    grammar_rule_begin(b, BASE_BLANK);
    grammar_alt(b, &a, 0, 3);
    grammar_alt(b, &a, 1, 3);
    emit_char(b, ' ');
    grammar_alt(b, &a, 2, 3);
    emit_char(b, '\n');
    grammar_alt(b, &tail, 0, 2);
    emit_up_to(b, ' ', SPACES_MAX);
    grammar_alt(b, &tail, 1, 2);
    emit_char(b, '\t');
    emit_up_to(b, '\t', TABS_MAX - 1);
    grammar_alt_end(b, &tail);
    grammar_alt_end(b, &a);
    grammar_emit_ret(b);
}

/* Well-formed UTF-8 above ASCII: Unicode 15, table 3-7. */
static void emit_wide(struct grammar_builder *b)
{
    static const struct {
        uint8_t lead[2], second[2];
        int more;
    } row[] = {{{0xc2, 0xdf}, {0x80, 0xbf}, 0}, {{0xe0, 0xe0}, {0xa0, 0xbf}, 1},
               {{0xe1, 0xec}, {0x80, 0xbf}, 1}, {{0xed, 0xed}, {0x80, 0x9f}, 1},
               {{0xee, 0xef}, {0x80, 0xbf}, 1}, {{0xf0, 0xf0}, {0x90, 0xbf}, 2},
               {{0xf1, 0xf3}, {0x80, 0xbf}, 2}, {{0xf4, 0xf4}, {0x80, 0x8f}, 2}};
    const size_t n = sizeof row / sizeof *row;
    struct grammar_alts a;
    grammar_rule_begin(b, BASE_WIDE);
    for (size_t i = 0; i < n; i++) {
        grammar_alt(b, &a, i, n);
        grammar_emit_range(b, row[i].lead[0], row[i].lead[1]);
        grammar_emit_range(b, row[i].second[0], row[i].second[1]);
        for (int k = 0; k < row[i].more; k++) {
            grammar_emit_range(b, 0x80, 0xbf);
        }
    }
    grammar_alt_end(b, &a);
    grammar_emit_ret(b);
}

static void emit_set(struct grammar_builder *b, const char *bytes)
{
    struct grammar_class c = {{0}};
    for (; *bytes != 0; bytes++) {
        grammar_class_set(&c, (uint8_t)*bytes, true);
    }
    grammar_emit_class(b, &c);
}

static void emit_hex(struct grammar_builder *b, int n)
{
    for (int i = 0; i < n; i++) {
        emit_set(b, "0123456789abcdefABCDEF");
    }
}

/* Four digits that begin with 0, but not 0000: many readers refuse U+0000. */
static void emit_hex_low(struct grammar_builder *b)
{
    struct grammar_alts end = GRAMMAR_ALTS_EMPTY;
    emit_char(b, '0');
    for (int left = 2; left >= 0; left--) {
        uint32_t zero = left > 0 ? grammar_emit_split(b) : GRAMMAR_NONE;
        emit_set(b, "123456789abcdefABCDEF");
        emit_hex(b, left);
        grammar_alt_exit(b, &end, grammar_emit_jump(b));
        if (left > 0) {
            grammar_patch(b, zero, grammar_here(b));
            emit_char(b, '0');
        }
    }
    grammar_alt_end(b, &end);
}

/* Behind the backslash. A half of a surrogate pair is no character, so only whole pairs. */
static void emit_escape(struct grammar_builder *b)
{
    struct grammar_alts a, u;
    grammar_alt(b, &a, 0, 2);
    emit_set(b, "\"\\/bfnrt");
    grammar_alt(b, &a, 1, 2);
    emit_char(b, 'u');
    grammar_alt(b, &u, 0, 4);
    emit_set(b, "123456789abcefABCEF");
    emit_hex(b, 3);
    grammar_alt(b, &u, 1, 4);
    emit_hex_low(b);
    grammar_alt(b, &u, 2, 4);
    emit_set(b, "dD");
    emit_set(b, "01234567");
    emit_hex(b, 2);
    grammar_alt(b, &u, 3, 4);
    emit_set(b, "dD");
    emit_set(b, "89abAB");
    emit_hex(b, 2);
    grammar_emit_text(b, "\\u", 2);
    emit_set(b, "dD");
    emit_set(b, "cdefCDEF");
    emit_hex(b, 2);
    grammar_alt_end(b, &u);
    grammar_alt_end(b, &a);
}

static struct grammar_class ascii_of_strings(void)
{
    struct grammar_class c = {{0}};
    for (int i = 0x20; i < 0x80; i++) {
        grammar_class_set(&c, (uint8_t)i, i != '"' && i != '\\');
    }
    return c;
}

static void emit_char_rules(struct grammar_builder *b)
{
    struct grammar_class ascii = ascii_of_strings();
    size_t n = b->ascii ? 1 : 2;
    struct grammar_alts a;
    grammar_rule_begin(b, BASE_CHAR);
    for (size_t i = 0; i < n + 1; i++) {
        grammar_alt(b, &a, i, n + 1);
        if (i == 0) {
            grammar_emit_class(b, &ascii);
        } else if (i == n) {
            emit_char(b, '\\');
            emit_escape(b);
        } else {
            grammar_emit_call(b, BASE_WIDE);
        }
    }
    grammar_alt_end(b, &a);
    grammar_emit_ret(b);

    grammar_rule_begin(b, BASE_PLAIN);
    uint32_t loop = grammar_here(b);
    for (size_t i = 0; i < n + 1; i++) {
        grammar_alt(b, &a, i, n + 1);
        if (i == n) {
            break;
        }
        if (i == 0) {
            grammar_emit_class(b, &ascii);
        } else {
            grammar_emit_call(b, BASE_WIDE);
        }
        grammar_patch(b, grammar_emit_jump(b), loop);
    }
    emit_char(b, '"');
    grammar_alt_end(b, &a);
    grammar_emit_ret(b);

    grammar_rule_begin(b, BASE_STRING);
    grammar_emit_string(b, 0, -1);
    grammar_emit_ret(b);
}

void grammar_emit_digits(struct grammar_builder *b, int min, int max)
{
    struct grammar_alts a = GRAMMAR_ALTS_EMPTY;
    for (int i = 0; i < max && b->rc == 0; i++) {
        if (i >= min) {
            grammar_alt_exit(b, &a, grammar_emit_split(b));
        }
        grammar_emit_range(b, '0', '9');
    }
    grammar_alt_end(b, &a);
}

static void emit_whole(struct grammar_builder *b)
{
    struct grammar_alts sign, a;
    grammar_alt(b, &sign, 0, 2);
    grammar_alt(b, &sign, 1, 2);
    emit_char(b, '-');
    grammar_alt_end(b, &sign);
    grammar_alt(b, &a, 0, 2);
    emit_char(b, '0');
    grammar_alt(b, &a, 1, 2);
    grammar_emit_range(b, '1', '9');
    grammar_emit_digits(b, 0, DIGITS_MAX - 1);
    grammar_alt_end(b, &a);
}

/* 18 digits and an exponent of 289 make 1e307, which a double holds. */
static void emit_exponent(struct grammar_builder *b)
{
    struct grammar_alts sign, a;
    emit_set(b, "eE");
    grammar_alt(b, &sign, 0, 2);
    grammar_alt(b, &sign, 1, 2);
    emit_set(b, "+-");
    grammar_alt_end(b, &sign);
    grammar_alt(b, &a, 0, 2);
    grammar_emit_digits(b, 1, 2);
    grammar_alt(b, &a, 1, 2);
    emit_set(b, "12");
    emit_set(b, "012345678");
    grammar_emit_digits(b, 1, 1);
    grammar_alt_end(b, &a);
}

static void emit_numbers(struct grammar_builder *b)
{
    struct grammar_alts part;
    grammar_rule_begin(b, BASE_INTEGER);
    emit_whole(b);
    grammar_emit_ret(b);

    grammar_rule_begin(b, BASE_NUMBER);
    emit_whole(b);
    grammar_alt(b, &part, 0, 2);
    grammar_alt(b, &part, 1, 2);
    emit_char(b, '.');
    grammar_emit_digits(b, 1, DIGITS_MAX);
    grammar_alt_end(b, &part);
    grammar_alt(b, &part, 0, 2);
    grammar_alt(b, &part, 1, 2);
    emit_exponent(b);
    grammar_alt_end(b, &part);
    grammar_emit_ret(b);
}

/* `{` or `[`, elements with commas between, `}` or `]`. */
static void emit_list(struct grammar_builder *b, char open, char close, bool keyed)
{
    emit_char(b, open);
    grammar_emit_call(b, BASE_BLANK);
    uint32_t empty = grammar_emit_split(b), loop = grammar_here(b), more;
    if (keyed) {
        struct grammar_alts space;
        grammar_emit_call(b, BASE_STRING);
        emit_char(b, ':');
        grammar_alt(b, &space, 0, 2);
        grammar_alt(b, &space, 1, 2);
        emit_char(b, ' ');
        grammar_alt_end(b, &space);
    }
    grammar_emit_call(b, BASE_ANY);
    more = grammar_emit_split(b);
    emit_char(b, ',');
    grammar_emit_call(b, BASE_BLANK);
    grammar_patch(b, grammar_emit_jump(b), loop);
    grammar_patch(b, more, grammar_here(b));
    grammar_emit_call(b, BASE_BLANK);
    grammar_patch(b, empty, grammar_here(b));
    emit_char(b, close);
    grammar_emit_ret(b);
}

static void emit_any(struct grammar_builder *b)
{
    static const enum grammar_base rule[] = {BASE_OBJECT, BASE_ARRAY, BASE_STRING, BASE_NUMBER};
    static const char *const word[] = {"true", "false", "null"};
    struct grammar_alts a;
    grammar_rule_begin(b, BASE_ANY);
    for (size_t i = 0; i < 7; i++) {
        grammar_alt(b, &a, i, 7);
        if (i < 4) {
            grammar_emit_call(b, rule[i]);
        } else {
            grammar_emit_text(b, word[i - 4], strlen(word[i - 4]));
        }
    }
    grammar_alt_end(b, &a);
    grammar_emit_ret(b);
    grammar_rule_begin(b, BASE_OBJECT);
    emit_list(b, '{', '}', true);
    grammar_rule_begin(b, BASE_ARRAY);
    emit_list(b, '[', ']', false);
}

void grammar_emit_base(struct grammar_builder *b)
{
    for (int i = 0; i < BASE_COUNT; i++) {
        grammar_rule_new(b);
    }
    emit_blank(b);
    emit_wide(b);
    emit_char_rules(b);
    emit_numbers(b);
    emit_any(b);
}

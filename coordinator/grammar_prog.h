/* grammar_prog: a byte-level grammar as a small program, in the manner of Thompson's: rules call
 * each other, and inside a rule alternatives are splits. A position is an index of code; a stack of
 * positions says what is still owed when the innermost rule returns. Written once by the builder,
 * read only afterwards.
 *
 * Heights make dead ends impossible. height[pc] is the least number of frames that some way from pc
 * to its rule's return needs; the walk enters a split's branch or a rule only when the stack has
 * that room, so whatever it enters it can leave. */
#ifndef COORDINATOR_GRAMMAR_PROG_H
#define COORDINATOR_GRAMMAR_PROG_H

#include "base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GRAMMAR_CODE_MAX   200000
#define GRAMMAR_RULES_MAX  20000
#define GRAMMAR_FRAMES_MAX 128 /* many JSON readers give up a little deeper */
#define GRAMMAR_HEIGHT_INF UINT16_MAX
#define GRAMMAR_NONE       UINT32_MAX

enum grammar_op {
    GRAMMAR_DONE,  /* code[0]: the text is complete */
    GRAMMAR_BYTE,  /* a byte in [lo, hi] */
    GRAMMAR_CLASS, /* a byte of class[a] */
    GRAMMAR_SPLIT, /* go on at a or at b */
    GRAMMAR_JUMP,  /* go on at a */
    GRAMMAR_CALL,  /* rule a, then the next instruction */
    GRAMMAR_RET
};

struct grammar_instr {
    uint8_t op, lo, hi;
    uint32_t a, b;
};

struct grammar_class {
    uint64_t bit[4];
};

struct grammar_prog {
    struct grammar_instr *code;  /* [n_code] */
    uint16_t *height;            /* [n_code] */
    uint32_t *entry;             /* [n_rule] */
    struct grammar_class *class; /* [n_class] */
    uint32_t n_code, n_rule, n_class, root;
};

void grammar_prog_fini(struct grammar_prog *p);

static inline bool grammar_class_has(const struct grammar_class *c, uint8_t byte)
{
    return c->bit[byte >> 6] >> (byte & 63) & 1;
}
static inline void grammar_class_set(struct grammar_class *c, uint8_t byte, bool on)
{
    uint64_t bit = (uint64_t)1 << (byte & 63);
    c->bit[byte >> 6] = on ? c->bit[byte >> 6] | bit : c->bit[byte >> 6] & ~bit;
}

/* Rules that every JSON grammar has. */
enum grammar_base {
    BASE_BLANK, /* between tokens; may be empty */
    BASE_WIDE,  /* one character above ASCII, as bytes */
    BASE_CHAR,  /* one character inside a string */
    BASE_PLAIN, /* characters without escapes and the closing quote */
    BASE_STRING,
    BASE_NUMBER,
    BASE_INTEGER,
    BASE_ANY,
    BASE_OBJECT,
    BASE_ARRAY,
    BASE_COUNT
};

/* A chain is one rule for "character, n times": entered further behind it asks for fewer, so that
 * all lengths of a schema share one. */
struct grammar_chain_entry {
    uint32_t n, rule;
};
struct grammar_chain {
    struct grammar_chain_entry *at;
    size_t n, cap;
};

/* The builder. The first failure sticks: err says it, rc holds its code, and what is emitted after
 * it goes nowhere, so that only the end of a build has to look. */
struct grammar_builder {
    struct grammar_prog prog;
    size_t cap_code, cap_entry, cap_class;
    struct grammar_chain exact, most;
    bool ascii; /* the vocabulary cannot spell characters above ASCII byte by byte */
    int rc;
    struct err *err;
};

/* grammar_builder_init also emits the base rules. */
void grammar_builder_init(struct grammar_builder *b, bool ascii, struct err *err);
/* grammar_builder_finish starts the program at rule `root`, proves it (see grammar_check.c) and
 * gives it away; on failure the code, and *stuck is the rule to blame or GRAMMAR_NONE. */
int grammar_builder_finish(struct grammar_builder *b, uint32_t root, struct grammar_prog *out,
                           uint32_t *stuck);
void grammar_builder_fini(struct grammar_builder *b);
int grammar_fail(struct grammar_builder *b, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

uint32_t grammar_rule_new(struct grammar_builder *b);
void grammar_rule_begin(struct grammar_builder *b,
                        uint32_t rule); /* the next instruction is its first */
uint32_t grammar_here(const struct grammar_builder *b);
void grammar_emit_range(struct grammar_builder *b, uint8_t lo, uint8_t hi);
void grammar_emit_class(struct grammar_builder *b, const struct grammar_class *c);
void grammar_emit_text(struct grammar_builder *b, const char *text, size_t n);
void grammar_emit_call(struct grammar_builder *b, uint32_t rule);
void grammar_emit_ret(struct grammar_builder *b);
/* A split goes on behind itself, or where it is patched to; a jump only there. */
uint32_t grammar_emit_split(struct grammar_builder *b);
uint32_t grammar_emit_jump(struct grammar_builder *b);
void grammar_patch(struct grammar_builder *b, uint32_t at, uint32_t target);

/* Alternatives: grammar_alt before each of n, then grammar_alt_end, where all of them meet.
 * grammar_alt_exit: so does the split or jump at `at`. */
struct grammar_alts {
    uint32_t split, exits;
};
#define GRAMMAR_ALTS_EMPTY                                                                         \
    {                                                                                              \
        GRAMMAR_NONE, GRAMMAR_NONE                                                                 \
    }
void grammar_alt_exit(struct grammar_builder *b, struct grammar_alts *a, uint32_t at);
void grammar_alt(struct grammar_builder *b, struct grammar_alts *a, size_t i, size_t n);
void grammar_alt_end(struct grammar_builder *b, struct grammar_alts *a);

/* grammar_emit_digits: between min and max of them. */
void grammar_emit_digits(struct grammar_builder *b, int min, int max);
void grammar_emit_base(struct grammar_builder *b);
/* grammar_emit_string: a string of [min, max] characters, max < 0: any. */
void grammar_emit_string(struct grammar_builder *b, int64_t min, int64_t max);

/* grammar_check: heights. ERR_USAGE when a rule reaches itself without a byte between, ERR_LIMIT
 * when the root cannot be completed within GRAMMAR_FRAMES_MAX: *stuck is the rule then, and the
 * words are left to the caller, who knows where the schema has it. */
int grammar_check(struct grammar_prog *p, uint32_t *stuck, struct err *err);

#endif

/* grammar_prog: the builder's primitives. See grammar_prog.h; what JSON looks like is in
 * grammar_base.c. */
#include "coordinator/grammar_prog.h"

#include "base/arena.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void grammar_prog_fini(struct grammar_prog *p)
{
    free(p->code);
    free(p->height);
    free(p->entry);
    free(p->class);
    memset(p, 0, sizeof *p);
}

int grammar_fail(struct grammar_builder *b, int code, const char *format, ...)
{
    char text[800];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (b->rc == 0) {
        b->rc = err_set(b->err, code, "%s", text);
    }
    return b->rc;
}

/* Room for one more of `size` bytes in *p [n of *cap]. */
static bool room(struct grammar_builder *b, void *p, size_t n, size_t *cap, size_t size)
{
    void *old, *grown;
    size_t bytes, more = *cap < 64 ? 64 : *cap * 2;
    if (b->rc != 0) {
        return false;
    }
    if (n < *cap) {
        return true;
    }
    memcpy(&old, p, sizeof old);
    grown = mul_size(more, size, &bytes) == 0 ? realloc(old, bytes) : NULL;
    if (grown == NULL) {
        grammar_fail(b, ERR_NOMEM, "no memory for a grammar of %zu pieces", more);
        return false;
    }
    memcpy(p, &grown, sizeof grown);
    *cap = more;
    return true;
}

static uint32_t emit(struct grammar_builder *b, struct grammar_instr instr)
{
    struct grammar_prog *p = &b->prog;
    if (p->n_code >= GRAMMAR_CODE_MAX) {
        grammar_fail(b, ERR_LIMIT,
                     "the schema needs a grammar of more than %d steps; allow fewer elements, "
                     "characters or enum values",
                     GRAMMAR_CODE_MAX);
    }
    if (!room(b, &p->code, p->n_code, &b->cap_code, sizeof *p->code)) {
        return 0;
    }
    p->code[p->n_code] = instr;
    return p->n_code++;
}

uint32_t grammar_rule_new(struct grammar_builder *b)
{
    struct grammar_prog *p = &b->prog;
    if (p->n_rule >= GRAMMAR_RULES_MAX) {
        grammar_fail(b, ERR_LIMIT, "the schema needs more than %d rules; make it smaller",
                     GRAMMAR_RULES_MAX);
    }
    if (!room(b, &p->entry, p->n_rule, &b->cap_entry, sizeof *p->entry)) {
        return 0;
    }
    p->entry[p->n_rule] = GRAMMAR_NONE;
    return p->n_rule++;
}

uint32_t grammar_here(const struct grammar_builder *b)
{
    return b->prog.n_code;
}

void grammar_rule_begin(struct grammar_builder *b, uint32_t rule)
{
    if (b->rc == 0) {
        b->prog.entry[rule] = grammar_here(b);
    }
}

void grammar_emit_range(struct grammar_builder *b, uint8_t lo, uint8_t hi)
{
    emit(b, (struct grammar_instr){GRAMMAR_BYTE, lo, hi, 0, 0});
}

void grammar_emit_class(struct grammar_builder *b, const struct grammar_class *c)
{
    struct grammar_prog *p = &b->prog;
    if (room(b, &p->class, p->n_class, &b->cap_class, sizeof *p->class)) {
        p->class[p->n_class] = *c;
        emit(b, (struct grammar_instr){GRAMMAR_CLASS, 0, 0, p->n_class++, 0});
    }
}

void grammar_emit_text(struct grammar_builder *b, const char *text, size_t n)
{
    for (size_t i = 0; i < n && b->rc == 0; i++) {
        grammar_emit_range(b, (uint8_t)text[i], (uint8_t)text[i]);
    }
}

void grammar_emit_call(struct grammar_builder *b, uint32_t rule)
{
    emit(b, (struct grammar_instr){GRAMMAR_CALL, 0, 0, rule, 0});
}

void grammar_emit_ret(struct grammar_builder *b)
{
    emit(b, (struct grammar_instr){GRAMMAR_RET, 0, 0, 0, 0});
}

uint32_t grammar_emit_split(struct grammar_builder *b)
{
    return emit(b, (struct grammar_instr){GRAMMAR_SPLIT, 0, 0, grammar_here(b) + 1, GRAMMAR_NONE});
}

uint32_t grammar_emit_jump(struct grammar_builder *b)
{
    return emit(b, (struct grammar_instr){GRAMMAR_JUMP, 0, 0, GRAMMAR_NONE, 0});
}

static uint32_t *target_of(struct grammar_instr *instr)
{
    return instr->op == GRAMMAR_SPLIT ? &instr->b : &instr->a;
}

void grammar_patch(struct grammar_builder *b, uint32_t at, uint32_t target)
{
    if (b->rc == 0) {
        *target_of(&b->prog.code[at]) = target;
    }
}

/* What leaves the alternatives is a list threaded through its own targets. */
void grammar_alt_exit(struct grammar_builder *b, struct grammar_alts *a, uint32_t at)
{
    grammar_patch(b, at, a->exits);
    a->exits = at;
}

void grammar_alt(struct grammar_builder *b, struct grammar_alts *a, size_t i, size_t n)
{
    if (i == 0) {
        *a = (struct grammar_alts)GRAMMAR_ALTS_EMPTY;
    } else {
        grammar_alt_exit(b, a, grammar_emit_jump(b));
        grammar_patch(b, a->split, grammar_here(b));
    }
    if (i + 1 < n) {
        a->split = grammar_emit_split(b);
    }
}

void grammar_alt_end(struct grammar_builder *b, struct grammar_alts *a)
{
    while (b->rc == 0 && a->exits != GRAMMAR_NONE) {
        uint32_t next = *target_of(&b->prog.code[a->exits]);
        grammar_patch(b, a->exits, grammar_here(b));
        a->exits = next;
    }
}

/* ---- strings of counted length --------------------------------------------------------------- */

static uint32_t chain_rule(struct grammar_builder *b, struct grammar_chain *c, uint32_t n)
{
    for (size_t i = 0; i < c->n; i++) {
        if (c->at[i].n == n) {
            return c->at[i].rule;
        }
    }
    if (!room(b, &c->at, c->n, &c->cap, sizeof *c->at)) {
        return 0;
    }
    c->at[c->n] = (struct grammar_chain_entry){n, grammar_rule_new(b)};
    return c->at[c->n++].rule;
}

void grammar_emit_string(struct grammar_builder *b, int64_t min, int64_t max)
{
    if (min > GRAMMAR_CODE_MAX || max > GRAMMAR_CODE_MAX) {
        grammar_fail(b, ERR_LIMIT, "a string's length is counted up to %d characters",
                     GRAMMAR_CODE_MAX);
        return;
    }
    grammar_emit_text(b, "\"", 1);
    if (min > 0) {
        grammar_emit_call(b, chain_rule(b, &b->exact, (uint32_t)min));
    }
    if (max > min) {
        grammar_emit_call(b, chain_rule(b, &b->most, (uint32_t)(max - min)));
    } else if (max < 0) {
        uint32_t loop = grammar_emit_split(b);
        grammar_emit_call(b, BASE_CHAR);
        grammar_patch(b, grammar_emit_jump(b), loop);
        grammar_patch(b, loop, grammar_here(b));
    }
    grammar_emit_text(b, "\"", 1);
}

static uint32_t longest(const struct grammar_chain *c)
{
    uint32_t n = 0;
    for (size_t i = 0; i < c->n; i++) {
        n = c->at[i].n > n ? c->at[i].n : n;
    }
    return n;
}

static void emit_chain(struct grammar_builder *b, struct grammar_chain *c, bool optional)
{
    uint32_t n = longest(c), start = grammar_here(b), step = optional ? 2 : 1;
    uint32_t end = start + n * step;
    for (uint32_t i = 0; i < n && b->rc == 0; i++) {
        if (optional) {
            grammar_patch(b, grammar_emit_split(b), end);
        }
        grammar_emit_call(b, BASE_CHAR);
    }
    grammar_emit_ret(b);
    for (size_t i = 0; i < c->n && b->rc == 0; i++) {
        b->prog.entry[c->at[i].rule] = start + (n - c->at[i].n) * step;
    }
}

/* ---- life ------------------------------------------------------------------------------------ */

void grammar_builder_init(struct grammar_builder *b, bool ascii, struct err *err)
{
    *b = (struct grammar_builder){.ascii = ascii, .err = err};
    emit(b, (struct grammar_instr){GRAMMAR_DONE, 0, 0, 0, 0});
    grammar_emit_base(b);
}

void grammar_builder_fini(struct grammar_builder *b)
{
    grammar_prog_fini(&b->prog);
    free(b->exact.at);
    free(b->most.at);
}

int grammar_builder_finish(struct grammar_builder *b, uint32_t root, struct grammar_prog *out,
                           uint32_t *stuck)
{
    struct grammar_prog *p = &b->prog;
    *stuck = GRAMMAR_NONE;
    emit_chain(b, &b->exact, false);
    emit_chain(b, &b->most, true);
    if (b->rc != 0) {
        return b->rc;
    }
    p->root = root;
    p->height = calloc(p->n_code, sizeof *p->height);
    if (p->height == NULL) {
        return grammar_fail(b, ERR_NOMEM, "no memory for a grammar of %u steps", p->n_code);
    }
    int rc = grammar_check(p, stuck, b->err);
    if (rc == 0) {
        *out = *p;
        memset(p, 0, sizeof *p);
    }
    return rc;
}

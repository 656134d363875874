/* grammar_check: what must hold of a program before anything walks it: no rule reaches itself
 * without a byte in between (the walk would never come back), and the root can be completed. Both
 * come out of the heights and one search over the program. */
#include "coordinator/grammar_prog.h"

#include <stdlib.h>
#include <string.h>

static uint16_t height_of(const struct grammar_prog *p, uint32_t pc)
{
    const struct grammar_instr *i = &p->code[pc];
    const uint16_t *h = p->height;
    uint32_t inner;
    switch ((enum grammar_op)i->op) {
    case GRAMMAR_BYTE:
    case GRAMMAR_CLASS:
        return h[pc + 1];
    case GRAMMAR_SPLIT:
        return h[i->a] < h[i->b] ? h[i->a] : h[i->b];
    case GRAMMAR_JUMP:
        return h[i->a];
    case GRAMMAR_CALL:
        inner = h[p->entry[i->a]] + 1u;
        inner = inner > h[pc + 1] ? inner : h[pc + 1];
        return inner > GRAMMAR_FRAMES_MAX ? GRAMMAR_HEIGHT_INF : (uint16_t)inner;
    case GRAMMAR_DONE:
    case GRAMMAR_RET:
        break;
    }
    return 0;
}

/* From infinity down. Inside a rule a pass settles everything but what jumps back, so two passes
 * raise the heights that are final by one, and none above GRAMMAR_FRAMES_MAX is wanted. */
static void heights(struct grammar_prog *p)
{
    bool changed = true;
    memset(p->height, 0xff, p->n_code * sizeof *p->height);
    for (int pass = 0; changed && pass < 2 * (GRAMMAR_FRAMES_MAX + 2); pass++) {
        changed = false;
        for (uint32_t pc = p->n_code; pc-- > 0;) {
            uint16_t h = height_of(p, pc);
            changed |= h != p->height[pc];
            p->height[pc] = h;
        }
    }
}

/* ---- rules that reach themselves --------------------------------------------------------------
 */

enum { WHITE, GREY, BLACK };

struct search {
    const struct grammar_prog *p;
    uint8_t *colour;   /* [n_code] */
    uint8_t *nullable; /* [n_code] a way from here to the rule's return takes no byte */
    uint32_t *stack, n;
};

static bool nullable_at(const struct search *s, uint32_t pc)
{
    const struct grammar_instr *i = &s->p->code[pc];
    switch ((enum grammar_op)i->op) {
    case GRAMMAR_SPLIT:
        return s->nullable[i->a] || s->nullable[i->b];
    case GRAMMAR_JUMP:
        return s->nullable[i->a];
    case GRAMMAR_CALL:
        return s->nullable[s->p->entry[i->a]] && s->nullable[pc + 1];
    case GRAMMAR_RET:
        return true;
    default:
        return false;
    }
}

/* Only blanks and counted characters are nullable, and they call nothing that is; a few passes end.
 */
static void find_nullable(struct search *s)
{
    for (bool changed = true; changed;) {
        changed = false;
        for (uint32_t pc = s->p->n_code; pc-- > 0;) {
            uint8_t now = nullable_at(s, pc);
            changed |= now != s->nullable[pc];
            s->nullable[pc] = now;
        }
    }
}

/* The positions that may follow pc without a byte. */
static int edges(const struct search *s, uint32_t pc, uint32_t out[2])
{
    const struct grammar_instr *i = &s->p->code[pc];
    int n = 0;
    if (i->op == GRAMMAR_SPLIT) {
        out[n++] = i->a;
        out[n++] = i->b;
    } else if (i->op == GRAMMAR_JUMP) {
        out[n++] = i->a;
    } else if (i->op == GRAMMAR_CALL) {
        out[n++] = s->p->entry[i->a];
        if (s->nullable[out[0]]) {
            out[n++] = pc + 1;
        }
    }
    return n;
}

/* The position at which a circle closes, or GRAMMAR_NONE. Grey is what the path holds; a position
 * is on the stack twice, to be entered and to be left. */
static uint32_t circle_from(struct search *s, uint32_t start)
{
    s->stack[s->n++] = start;
    while (s->n > 0) {
        uint32_t pc = s->stack[s->n - 1], out[2];
        if (s->colour[pc] != WHITE) {
            s->colour[pc] = BLACK;
            s->n--;
            continue;
        }
        s->colour[pc] = GREY;
        for (int n = edges(s, pc, out); n-- > 0;) {
            if (s->colour[out[n]] == GREY) {
                return out[n];
            }
            if (s->colour[out[n]] == WHITE) {
                s->stack[s->n++] = out[n];
            }
        }
    }
    return GRAMMAR_NONE;
}

/* The rule whose code holds pc: rules do not overlap, except chains, which are never in a circle.
 */
static uint32_t rule_at(const struct grammar_prog *p, uint32_t pc)
{
    uint32_t best = 0;
    for (uint32_t r = 0; r < p->n_rule; r++) {
        if (p->entry[r] <= pc && p->entry[r] >= p->entry[best]) {
            best = r;
        }
    }
    return best;
}

static int refuse_circles(const struct grammar_prog *p, uint32_t *stuck, struct err *err)
{
    struct search s = {.p = p};
    uint32_t at = GRAMMAR_NONE;
    s.colour = calloc(p->n_code, 1);
    s.nullable = calloc(p->n_code, 1);
    s.stack = calloc(p->n_code, 3 * sizeof *s.stack);
    if (s.colour == NULL || s.nullable == NULL || s.stack == NULL) {
        at = 0;
    } else {
        find_nullable(&s);
        for (uint32_t r = 0; r < p->n_rule && at == GRAMMAR_NONE; r++) {
            at = circle_from(&s, p->entry[r]);
        }
    }
    bool memory = s.colour != NULL && s.nullable != NULL && s.stack != NULL;
    free(s.colour);
    free(s.nullable);
    free(s.stack);
    if (!memory) {
        return err_set(err, ERR_NOMEM, "no memory for a grammar of %u steps", p->n_code);
    }
    if (at != GRAMMAR_NONE) {
        *stuck = rule_at(p, at);
        return ERR_USAGE;
    }
    return 0;
}

int grammar_check(struct grammar_prog *p, uint32_t *stuck, struct err *err)
{
    int rc = refuse_circles(p, stuck, err);
    if (rc != 0) {
        return rc;
    }
    heights(p);
    if (p->height[p->entry[p->root]] > GRAMMAR_FRAMES_MAX) {
        *stuck = p->root;
        return ERR_LIMIT;
    }
    return 0;
}

/* grammar_dfa: see grammar_dfa.h. A step moves every stack whose position takes the byte, and
 * follows each to the next positions that take one (the closure). That ends: grammar_check saw to
 * it that no rule reaches itself without a byte. */
#include "coordinator/grammar_dfa.h"

#include <stdlib.h>
#include <string.h>

#define STACKS_FIRST  256
#define CONFIGS_FIRST 64 /* GRAMMAR_CONFIGS_MAX is this, doubled some times */

static uint64_t mix(uint64_t h, uint64_t x)
{
    h = (h ^ x) * 0x9e3779b97f4a7c15ULL;
    return h ^ h >> 29;
}

/* ---- stacks ---------------------------------------------------------------------------------- */

static uint32_t *stack_slot(const struct grammar_dfa *d, uint32_t pc, uint32_t below)
{
    uint32_t i = (uint32_t)(mix(mix(1, pc), below) >> 20);
    for (;; i++) {
        uint32_t *slot = &d->stacks.slot[i & d->stacks.mask];
        if (*slot == 0 || (d->stack[*slot - 1].pc == pc && d->stack[*slot - 1].below == below)) {
            return slot;
        }
    }
}

static void index_stacks(struct grammar_dfa *d)
{
    memset(d->stacks.slot, 0, ((size_t)d->stacks.mask + 1) * sizeof *d->stacks.slot);
    for (uint32_t i = 0; i < d->n_stack; i++) {
        if (d->stack[i].used) {
            *stack_slot(d, d->stack[i].pc, d->stack[i].below) = i + 1;
        }
    }
}

static bool grow_stacks(struct grammar_dfa *d)
{
    uint32_t cap = d->cap_stack == 0 ? STACKS_FIRST : d->cap_stack * 2;
    if (cap > GRAMMAR_NODES_MAX) {
        return false;
    }
    struct grammar_stack *stack = realloc(d->stack, cap * sizeof *stack);
    d->stack = stack != NULL ? stack : d->stack;
    uint32_t *todo = realloc(d->todo, cap * sizeof *todo);
    d->todo = todo != NULL ? todo : d->todo;
    uint32_t *slot = stack != NULL && todo != NULL ? malloc(2 * cap * sizeof *slot) : NULL;
    if (slot == NULL) {
        return false;
    }
    free(d->stacks.slot);
    d->stacks = (struct grammar_table){slot, 2 * cap - 1};
    d->cap_stack = cap;
    index_stacks(d);
    return true;
}

/* The stack with position pc on `below`; GRAMMAR_NONE and d->full when there is no room. */
static uint32_t intern_stack(struct grammar_dfa *d, uint32_t pc, uint32_t below)
{
    uint32_t *slot = stack_slot(d, pc, below), id = d->free_stack;
    if (*slot != 0) {
        return *slot - 1;
    }
    if (id != GRAMMAR_NONE) {
        d->free_stack = d->stack[id].below;
    } else {
        if (d->n_stack == d->cap_stack) {
            if (!grow_stacks(d)) {
                d->full = true;
                return GRAMMAR_NONE;
            }
            slot = stack_slot(d, pc, below);
        }
        id = d->n_stack++;
    }
    uint16_t depth = below == GRAMMAR_NONE ? 0 : (uint16_t)(d->stack[below].depth + 1);
    d->stack[id] = (struct grammar_stack){pc, below, 0, depth, 0, 1};
    *slot = id + 1;
    return id;
}

/* ---- the closure ----------------------------------------------------------------------------- */

static uint32_t behind_jumps(const struct grammar_dfa *d, uint32_t pc)
{
    while (d->prog->code[pc].op == GRAMMAR_JUMP) {
        pc = d->prog->code[pc].a;
    }
    return pc;
}

static void push(struct grammar_dfa *d, uint32_t pc, uint32_t below)
{
    uint32_t id = intern_stack(d, behind_jumps(d, pc), below);
    if (id != GRAMMAR_NONE && d->stack[id].stamp != d->stamp) {
        d->stack[id].stamp = d->stamp;
        d->todo[d->n_todo++] = id;
    }
}

/* A branch is entered when the frames it needs at least are still to be had. */
static void push_branch(struct grammar_dfa *d, uint32_t pc, uint32_t below, uint32_t depth)
{
    if (depth + d->prog->height[pc] <= GRAMMAR_FRAMES_MAX + 1) {
        push(d, pc, below);
    }
}

/* What comes behind a call is owed only if it is something: a call at a rule's end leaves no frame.
 */
static void push_call(struct grammar_dfa *d, uint32_t rule, uint32_t back, uint32_t below)
{
    back = behind_jumps(d, back);
    if (d->prog->code[back].op != GRAMMAR_RET) {
        below = intern_stack(d, back, below);
    }
    if (below != GRAMMAR_NONE) {
        push(d, d->prog->entry[rule], below);
    }
}

/* Depth first, the first branch first, so that found is in the schema's order. */
static void closure(struct grammar_dfa *d, uint32_t pc, uint32_t below)
{
    d->n_todo = 0;
    push(d, pc, below);
    while (d->n_todo > 0 && d->n_found < GRAMMAR_STACKS_MAX && !d->full) {
        uint32_t id = d->todo[--d->n_todo];
        struct grammar_stack s = d->stack[id];
        const struct grammar_instr *i = &d->prog->code[s.pc];
        switch ((enum grammar_op)i->op) {
        case GRAMMAR_SPLIT:
            push_branch(d, i->b, s.below, s.depth);
            push_branch(d, i->a, s.below, s.depth);
            break;
        case GRAMMAR_CALL:
            push_call(d, i->a, s.pc + 1, s.below);
            break;
        case GRAMMAR_RET:
            push(d, d->stack[s.below].pc, d->stack[s.below].below);
            break;
        case GRAMMAR_DONE:
        case GRAMMAR_BYTE:
        case GRAMMAR_CLASS:
        case GRAMMAR_JUMP: /* push went behind it */
            d->found[d->n_found++] = id;
            break;
        }
    }
}

static bool takes(const struct grammar_prog *p, uint32_t pc, uint8_t byte)
{
    const struct grammar_instr *i = &p->code[pc];
    return i->op == GRAMMAR_BYTE    ? byte >= i->lo && byte <= i->hi
           : i->op == GRAMMAR_CLASS ? grammar_class_has(&p->class[i->a], byte)
                                    : false;
}

/* ---- configs --------------------------------------------------------------------------------- */

static uint64_t hash_of(const uint32_t *member, uint32_t n)
{
    uint64_t h = n;
    for (uint32_t i = 0; i < n; i++) {
        h = mix(h, member[i]);
    }
    return h;
}

static uint32_t *config_slot(const struct grammar_dfa *d, uint64_t hash, const uint32_t *member,
                             uint32_t n)
{
    for (uint32_t i = (uint32_t)(hash >> 20);; i++) {
        uint32_t *slot = &d->configs.slot[i & d->configs.mask];
        const struct grammar_config *c = &d->config[*slot == 0 ? 0 : *slot - 1];
        if (*slot == 0 ||
            (c->hash == hash && c->n == n && memcmp(c->member, member, n * sizeof *member) == 0)) {
            return slot;
        }
    }
}

static void index_configs(struct grammar_dfa *d)
{
    memset(d->configs.slot, 0, ((size_t)d->configs.mask + 1) * sizeof *d->configs.slot);
    for (uint32_t i = 0; i < d->cap_config; i++) {
        const struct grammar_config *c = &d->config[i];
        if (c->used) {
            *config_slot(d, c->hash, c->member, c->n) = i + 1;
        }
    }
}

static bool grow_configs(struct grammar_dfa *d)
{
    uint32_t old = d->cap_config, cap = old == 0 ? CONFIGS_FIRST : old * 2;
    if (cap > GRAMMAR_CONFIGS_MAX) {
        return false;
    }
    struct grammar_config *config = realloc(d->config, cap * sizeof *config);
    d->config = config != NULL ? config : d->config;
    int32_t(*step)[256] = config != NULL ? realloc(d->step, cap * sizeof *step) : NULL;
    d->step = step != NULL ? step : d->step;
    uint32_t *slot = step != NULL ? malloc(2 * cap * sizeof *slot) : NULL;
    if (slot == NULL) {
        return false;
    }
    memset(config + old, 0, (cap - old) * sizeof *config);
    memset(step + old, 0, (cap - old) * sizeof *step);
    free(d->configs.slot);
    d->configs = (struct grammar_table){slot, 2 * cap - 1};
    d->cap_config = cap;
    index_configs(d);
    return true;
}

/* The config of d->found; GRAMMAR_DEAD and d->full when there is no room. */
static int32_t intern_config(struct grammar_dfa *d)
{
    uint64_t hash = hash_of(d->found, d->n_found);
    uint32_t *slot = config_slot(d, hash, d->found, d->n_found), id = 0;
    if (*slot != 0) {
        return (int32_t)*slot - 1;
    }
    bool room = d->n_member + d->n_found <= GRAMMAR_MEMBERS_MAX &&
                (d->live_config < d->cap_config || grow_configs(d));
    uint32_t *member = room ? malloc(d->n_found * sizeof *member) : NULL;
    if (member == NULL) {
        d->full = true;
        return GRAMMAR_DEAD;
    }
    slot = config_slot(d, hash, d->found, d->n_found);
    while (d->config[id].used) {
        id++;
    }
    memcpy(member, d->found, d->n_found * sizeof *member);
    struct grammar_config c = {.member = member, .n = d->n_found, .hash = hash, .used = true};
    for (uint32_t i = 0; i < c.n; i++) {
        c.ends |= d->prog->code[d->stack[member[i]].pc].op == GRAMMAR_DONE;
    }
    c.only_ends = c.ends && c.n == 1;
    d->config[id] = c;
    d->live_config++;
    d->n_member += c.n;
    *slot = id + 1;
    return (int32_t)id;
}

static void drop_config(struct grammar_dfa *d, uint32_t id)
{
    struct grammar_config *c = &d->config[id];
    d->n_member -= c->n;
    d->live_config--;
    free(c->member);
    *c = (struct grammar_config){0};
    memset(d->step[id], 0, sizeof d->step[id]);
}

static void mark_stacks(struct grammar_dfa *d)
{
    d->stack[0].mark = 1; /* the bottom, where every text ends */
    for (uint32_t i = 0; i < d->cap_config; i++) {
        const struct grammar_config *c = &d->config[i];
        for (uint32_t k = 0; c->used && k < c->n; k++) {
            for (uint32_t s = c->member[k]; s != GRAMMAR_NONE && !d->stack[s].mark;
                 s = d->stack[s].below) {
                d->stack[s].mark = 1;
            }
        }
    }
}

static void sweep_stacks(struct grammar_dfa *d)
{
    mark_stacks(d);
    d->free_stack = GRAMMAR_NONE;
    for (uint32_t i = d->n_stack; i-- > 0;) {
        struct grammar_stack *s = &d->stack[i];
        if (!s->mark) {
            s->used = 0;
            s->below = d->free_stack;
            d->free_stack = i;
        }
        s->mark = 0;
    }
    index_stacks(d);
}

/* Drops what neither pins nor the path hold. Ids of what stays are the same. */
static void flush(struct grammar_dfa *d, const int32_t *path, uint32_t n_path)
{
    for (uint32_t i = 0; i < n_path; i++) {
        d->config[path[i]].pins++;
    }
    for (uint32_t i = 0; i < d->cap_config; i++) {
        if (d->config[i].used && d->config[i].pins == 0) {
            drop_config(d, i);
        }
    }
    for (uint32_t i = 0; i < d->cap_config; i++) {
        for (int k = 0; d->config[i].used && k < 256; k++) {
            int32_t to = d->step[i][k];
            d->step[i][k] = to > 1 && !d->config[to - 2].used ? 0 : to;
        }
    }
    index_configs(d);
    for (uint32_t i = 0; i < n_path; i++) {
        d->config[path[i]].pins--;
    }
    sweep_stacks(d);
}

void grammar_dfa_make_room(struct grammar_dfa *d)
{
    if (d->live_config > GRAMMAR_CONFIGS_MAX / 2) {
        flush(d, NULL, 0);
    }
}

/* ---- steps ----------------------------------------------------------------------------------- */

static void begin(struct grammar_dfa *d)
{
    d->n_found = 0;
    d->full = false;
    if (++d->stamp == 0) {
        for (uint32_t i = 0; i < d->n_stack; i++) {
            d->stack[i].stamp = 0;
        }
        d->stamp = 1;
    }
}

static int32_t take(struct grammar_dfa *d, int32_t config, uint8_t byte)
{
    const struct grammar_config *c = &d->config[config];
    begin(d);
    for (uint32_t i = 0; i < c->n && !d->full; i++) {
        struct grammar_stack s = d->stack[c->member[i]];
        if (takes(d->prog, s.pc, byte)) {
            closure(d, s.pc + 1, s.below);
        }
    }
    return d->full || d->n_found == 0 ? GRAMMAR_DEAD : intern_config(d);
}

int32_t grammar_dfa_take(struct grammar_dfa *d, int32_t config, uint8_t byte, const int32_t *path,
                         uint32_t n_path)
{
    int32_t to = take(d, config, byte);
    if (d->full) {
        flush(d, path, n_path);
        to = take(d, config, byte);
    }
    if (!d->full) {
        d->step[config][byte] = to + 2;
    }
    return to;
}

int32_t grammar_dfa_start(struct grammar_dfa *d)
{
    for (int again = 0; again < 2; again++) {
        begin(d);
        closure(d, d->prog->entry[d->prog->root], 0);
        int32_t to = d->full ? GRAMMAR_DEAD : intern_config(d);
        if (!d->full) {
            return to;
        }
        flush(d, NULL, 0);
    }
    return GRAMMAR_DEAD;
}

/* ---- life ------------------------------------------------------------------------------------ */

int grammar_dfa_init(struct grammar_dfa *d, const struct grammar_prog *prog, struct err *err)
{
    memset(d, 0, sizeof *d);
    d->prog = prog;
    d->free_stack = GRAMMAR_NONE;
    d->found = malloc(GRAMMAR_STACKS_MAX * sizeof *d->found);
    if (d->found == NULL || !grow_configs(d) || !grow_stacks(d)) {
        grammar_dfa_fini(d);
        return err_set(err, ERR_NOMEM, "no memory for a grammar's states");
    }
    intern_stack(d, 0, GRAMMAR_NONE);
    return 0;
}

void grammar_dfa_fini(struct grammar_dfa *d)
{
    for (uint32_t i = 0; i < d->cap_config; i++) {
        free(d->config[i].member);
    }
    free(d->config);
    free(d->stack);
    free(d->todo);
    free(d->stacks.slot);
    free(d->configs.slot);
    free(d->step);
    free(d->found);
    memset(d, 0, sizeof *d);
}

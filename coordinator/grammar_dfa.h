/* grammar_dfa: a program's states, made as texts reach them. A state (config) is a list of stacks;
 * a stack is a node that names its position and the stack below. Equal stacks are one node and
 * equal lists one config, so a step that was taken once is a table lookup ever after: that is what
 * lets a vocabulary be walked in milliseconds.
 *
 * The tables grow with what texts reach: a small schema's are small. Pointers into them hold until
 * the next step that is new.
 *
 * Bounded: configs and nodes that nothing holds are dropped when there are too many; a list keeps
 * its first GRAMMAR_STACKS_MAX stacks. Dropping the rest loses spellings, never correctness: each
 * stack that stays can be finished. Order is the schema's and never that of memory, so the same
 * text has the same config whatever was walked before. Not thread-safe. */
#ifndef COORDINATOR_GRAMMAR_DFA_H
#define COORDINATOR_GRAMMAR_DFA_H

#include "coordinator/grammar_prog.h"

#define GRAMMAR_STACKS_MAX  4096
#define GRAMMAR_CONFIGS_MAX 4096
#define GRAMMAR_NODES_MAX   (1u << 20)
#define GRAMMAR_MEMBERS_MAX (1u << 22) /* of all configs */
#define GRAMMAR_DEAD        (-1)

struct grammar_stack {
    uint32_t pc, below; /* below: GRAMMAR_NONE at the bottom */
    uint32_t stamp;
    uint16_t depth;
    uint8_t mark, used;
};

/* Which steps of a config a walk over the vocabulary has counted; for who walks. */
struct grammar_counts {
    uint32_t walk;
    uint64_t byte[4];
};

struct grammar_config {
    uint32_t *member; /* [n] stacks, each at a byte or at GRAMMAR_DONE */
    uint32_t n, pins;
    uint64_t hash;
    bool used, ends, only_ends; /* the text may end here; can only end here */
    struct grammar_counts counts;
};

struct grammar_table {
    uint32_t *slot; /* [mask + 1] id + 1; 0: free */
    uint32_t mask;
};

struct grammar_dfa {
    const struct grammar_prog *prog;
    struct grammar_stack *stack; /* [cap_stack] */
    uint32_t n_stack, cap_stack, free_stack, stamp;
    struct grammar_config *config; /* [cap_config] */
    int32_t (*step)[256];          /* [cap_config] 0: not taken yet, 1: dead, else id + 2 */
    uint32_t cap_config, live_config, n_member;
    struct grammar_table stacks, configs;
    uint32_t *todo, *found; /* scratch of a step */
    uint32_t n_todo, n_found;
    bool full;
};

int grammar_dfa_init(struct grammar_dfa *d, const struct grammar_prog *prog, struct err *err);
void grammar_dfa_fini(struct grammar_dfa *d);
/* grammar_dfa_start: the config before the first byte, or GRAMMAR_DEAD when memory is out. */
int32_t grammar_dfa_start(struct grammar_dfa *d);
/* grammar_dfa_make_room drops what nothing pins when more than half of the table is taken. */
void grammar_dfa_make_room(struct grammar_dfa *d);
/* grammar_dfa_take is the step that is not in the table yet. path [n_path]: configs that must stay,
 * config among them, beside those with pins. */
int32_t grammar_dfa_take(struct grammar_dfa *d, int32_t config, uint8_t byte, const int32_t *path,
                         uint32_t n_path);
static inline int32_t grammar_dfa_step(struct grammar_dfa *d, int32_t config, uint8_t byte,
                                       const int32_t *path, uint32_t n_path)
{
    int32_t to = d->step[config][byte];
    return to != 0 ? to - 2 : grammar_dfa_take(d, config, byte, path, n_path);
}

#endif

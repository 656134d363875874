/* grammar: masks and walks. A mask is one pass over the vocabulary's trie with the config of each
 * depth; the masks of the configs seen last are kept. One lock a grammar: its states share what any
 * of them has worked out.
 *
 * A schema can be made so that a walk meets ever new and wide configs. A walk's work is counted, in
 * terms of the grammar and never of what happens to be in the table, and when it is too much only
 * tokens of one byte are offered further; with those every text can go on. */
#include "coordinator/grammar.h"

#include "coordinator/grammar_dfa.h"
#include "coordinator/grammar_schema.h"
#include "coordinator/grammar_vocab.h"
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define MASKS_MAX 64
/* A walk's work: the stacks it moves, and for each config it meets so much that no walk meets more
 * than the half of the table that it finds free. */
#define WORK_MAX    (1u << 20)
#define WORK_CONFIG (WORK_MAX / (GRAMMAR_CONFIGS_MAX / 2) + 1)

struct mask {
    int32_t config; /* GRAMMAR_DEAD: none yet */
    uint64_t used;  /* when */
    uint64_t *bit;  /* [n_word] of ids */
};

struct grammar {
    atomic_int refs;
    struct grammar_vocab *vocab;
    struct grammar_prog prog;
    pthread_mutex_t lock; /* of all that follows */
    struct grammar_dfa dfa;
    struct mask mask[MASKS_MAX];
    size_t n_mask, n_word; /* n_mask: made so far, one at least */
    uint64_t now;
    int32_t *path; /* [depth_max + 1] */
    uint32_t walk;
};

struct grammar_state {
    struct grammar *g;
    int32_t config;
    bool over; /* an eos token was taken */
};

/* One more mask; NULL when there are as many as may be, or no memory. */
static struct mask *add_mask(struct grammar *g)
{
    uint64_t *bit = g->n_mask < MASKS_MAX ? malloc((g->n_word + 1) * sizeof *bit) : NULL;
    if (bit == NULL) {
        return NULL;
    }
    g->mask[g->n_mask] = (struct mask){.config = GRAMMAR_DEAD, .bit = bit};
    return &g->mask[g->n_mask++];
}

/* ---- life ------------------------------------------------------------------------------------ */

static int make(struct grammar_vocab *v, struct grammar_prog *prog, struct grammar **out,
                struct err *err)
{
    struct grammar *g = calloc(1, sizeof *g);
    if (g == NULL) {
        return err_set(err, ERR_NOMEM, "no memory for a grammar");
    }
    g->n_word = ((size_t)v->n_id + 63) / 64;
    g->path = calloc((size_t)v->depth_max + 2, sizeof *g->path);
    g->prog = *prog;
    int rc = g->path == NULL || add_mask(g) == NULL
                 ? err_set(err, ERR_NOMEM, "no memory for a grammar")
                 : grammar_dfa_init(&g->dfa, &g->prog, err);
    if (rc != 0) {
        free(g->mask[0].bit);
        free(g->path);
        free(g);
        return rc;
    }
    atomic_init(&g->refs, 1);
    pthread_mutex_init(&g->lock, NULL);
    grammar_vocab_ref(v);
    g->vocab = v;
    memset(prog, 0, sizeof *prog);
    *out = g;
    return 0;
}

int grammar_vocab_json_object(struct grammar_vocab *v, struct grammar **out, struct err *err)
{
    struct grammar_prog prog = {0};
    int rc = grammar_compile_object(v->ascii, &prog, err);
    rc = rc == 0 ? make(v, &prog, out, err) : rc;
    grammar_prog_fini(&prog);
    return rc;
}

int grammar_vocab_json_schema(struct grammar_vocab *v, const json_t *schema, struct grammar **out,
                              struct err *err)
{
    struct grammar_prog prog = {0};
    int rc = grammar_compile_schema(schema, v->ascii, &prog, err);
    rc = rc == 0 ? make(v, &prog, out, err) : rc;
    grammar_prog_fini(&prog);
    return rc;
}

int grammar_json_object(const struct tokenizer *tok, struct grammar **out, struct err *err)
{
    struct grammar_vocab *v = NULL;
    int rc = grammar_vocab_create(tok, &v, err);
    rc = rc == 0 ? grammar_vocab_json_object(v, out, err) : rc;
    grammar_vocab_unref(v);
    return rc;
}

int grammar_json_schema(const struct tokenizer *tok, const json_t *schema, struct grammar **out,
                        struct err *err)
{
    struct grammar_vocab *v = NULL;
    int rc = grammar_vocab_create(tok, &v, err);
    rc = rc == 0 ? grammar_vocab_json_schema(v, schema, out, err) : rc;
    grammar_vocab_unref(v);
    return rc;
}

void grammar_ref(struct grammar *g)
{
    atomic_fetch_add_explicit(&g->refs, 1, memory_order_relaxed);
}

void grammar_unref(struct grammar *g)
{
    if (g == NULL || atomic_fetch_sub_explicit(&g->refs, 1, memory_order_acq_rel) != 1) {
        return;
    }
    grammar_dfa_fini(&g->dfa);
    grammar_prog_fini(&g->prog);
    grammar_vocab_unref(g->vocab);
    pthread_mutex_destroy(&g->lock);
    for (size_t i = 0; i < g->n_mask; i++) {
        free(g->mask[i].bit);
    }
    free(g->path);
    free(g);
}

struct grammar_state *grammar_state_create(struct grammar *g)
{
    struct grammar_state *s = calloc(1, sizeof *s);
    if (s == NULL) {
        return NULL;
    }
    pthread_mutex_lock(&g->lock);
    s->config = grammar_dfa_start(&g->dfa);
    if (s->config != GRAMMAR_DEAD) {
        g->dfa.config[s->config].pins++;
    }
    pthread_mutex_unlock(&g->lock);
    if (s->config == GRAMMAR_DEAD) {
        free(s);
        return NULL;
    }
    grammar_ref(g);
    s->g = g;
    return s;
}

void grammar_state_destroy(struct grammar_state *s)
{
    if (s == NULL) {
        return;
    }
    pthread_mutex_lock(&s->g->lock);
    s->g->dfa.config[s->config].pins--;
    pthread_mutex_unlock(&s->g->lock);
    grammar_unref(s->g);
    free(s);
}

/* ---- masks ----------------------------------------------------------------------------------- */

/* The counts of a config, from zero when this walk has not met it. */
static struct grammar_counts *meet(struct grammar *g, int32_t config, uint32_t *work)
{
    struct grammar_counts *c = &g->dfa.config[config].counts;
    if (c->walk != g->walk) {
        *c = (struct grammar_counts){.walk = g->walk};
        *work += WORK_CONFIG;
    }
    return c;
}

/* What the step from config costs a walk that has not taken it yet: the stacks on both sides. */
static uint32_t cost(struct grammar *g, int32_t config, uint8_t byte, int32_t to)
{
    uint32_t work = 0;
    struct grammar_counts *c = meet(g, config, &work);
    uint64_t bit = (uint64_t)1 << (byte & 63);
    if (c->byte[byte >> 6] & bit) {
        return 0;
    }
    c->byte[byte >> 6] |= bit;
    work += g->dfa.config[config].n;
    if (to != GRAMMAR_DEAD) {
        meet(g, to, &work);
        work += g->dfa.config[to].n;
    }
    return work;
}

static void set_tokens(const struct grammar_vocab *v, const struct grammar_node *node,
                       uint64_t *bit)
{
    for (uint32_t t = node[0].token; t < node[1].token; t++) {
        bit[v->order[t] >> 6] |= (uint64_t)1 << (v->order[t] & 63);
    }
}

static void walk(struct grammar *g, int32_t config, uint64_t *bit)
{
    const struct grammar_vocab *v = g->vocab;
    uint32_t work = 0;
    grammar_dfa_make_room(&g->dfa);
    g->walk++;
    g->path[0] = config;
    for (uint32_t i = 1; i < v->n_node;) {
        const struct grammar_node *node = &v->node[i];
        uint32_t depth = node->depth;
        if (work > WORK_MAX && depth > 1) {
            i = node->next;
            continue;
        }
        int32_t from = g->path[depth - 1];
        int32_t to = grammar_dfa_step(&g->dfa, from, node->byte, g->path, depth);
        work += cost(g, from, node->byte, to);
        if (to == GRAMMAR_DEAD) {
            i = node->next;
            continue;
        }
        g->path[depth] = to;
        set_tokens(v, node, bit);
        i++;
    }
}

/* The config's mask. A mask pins its config, so that the id goes on meaning the same. */
static const uint64_t *mask_of(struct grammar *g, int32_t config)
{
    struct mask *oldest = &g->mask[0];
    for (struct mask *m = g->mask; m < g->mask + g->n_mask; m++) {
        if (m->config == config) {
            m->used = ++g->now;
            return m->bit;
        }
        oldest = m->used < oldest->used ? m : oldest;
    }
    struct mask *fresh = oldest->config == GRAMMAR_DEAD ? NULL : add_mask(g);
    oldest = fresh != NULL ? fresh : oldest;
    if (oldest->config != GRAMMAR_DEAD) {
        g->dfa.config[oldest->config].pins--;
    }
    g->dfa.config[config].pins++;
    oldest->config = config;
    oldest->used = ++g->now;
    memset(oldest->bit, 0, g->n_word * sizeof *oldest->bit);
    walk(g, config, oldest->bit);
    for (size_t i = 0; g->dfa.config[config].ends && i < g->vocab->n_eos; i++) {
        int32_t id = g->vocab->eos[i];
        if (id >= 0 && id < g->vocab->n_id) {
            oldest->bit[id >> 6] |= (uint64_t)1 << (id & 63);
        }
    }
    return oldest->bit;
}

static void apply(const uint64_t *bit, size_t n_word, float *logits, int vocab)
{
    for (int i = 0; i < vocab; i += 64) {
        uint64_t word = (size_t)i / 64 < n_word ? bit[i / 64] : 0;
        int n = vocab - i < 64 ? vocab - i : 64;
        for (int k = 0; word != UINT64_MAX && k < n; k++) {
            logits[i + k] = word >> k & 1 ? logits[i + k] : -INFINITY;
        }
    }
}

void grammar_mask(const struct grammar_state *s, float *logits, int vocab)
{
    pthread_mutex_lock(&s->g->lock);
    apply(mask_of(s->g, s->config), s->g->n_word, logits, vocab);
    pthread_mutex_unlock(&s->g->lock);
}

/* ---- walks ----------------------------------------------------------------------------------- */

/* The config behind the token's bytes; GRAMMAR_DEAD when they do not fit. */
static int32_t config_behind(struct grammar *g, int32_t config, int32_t token)
{
    const struct grammar_vocab *v = g->vocab;
    if (token < 0 || token >= v->n_id || v->begin[token] == v->begin[token + 1]) {
        return GRAMMAR_DEAD;
    }
    for (size_t i = v->begin[token]; i < v->begin[token + 1] && config != GRAMMAR_DEAD; i++) {
        config = grammar_dfa_step(&g->dfa, config, (uint8_t)v->bytes[i], &config, 1);
    }
    return config;
}

int grammar_accept(struct grammar_state *s, int32_t token)
{
    struct grammar *g = s->g;
    int rc = ERR_PROTO;
    pthread_mutex_lock(&g->lock);
    if (!s->over && g->dfa.config[s->config].ends && grammar_vocab_is_eos(g->vocab, token)) {
        s->over = true;
        rc = 1;
    } else if (!s->over) {
        int32_t to = config_behind(g, s->config, token);
        if (to != GRAMMAR_DEAD) {
            g->dfa.config[s->config].pins--;
            g->dfa.config[to].pins++;
            s->config = to;
            rc = g->dfa.config[to].only_ends;
        }
    }
    pthread_mutex_unlock(&g->lock);
    return rc;
}

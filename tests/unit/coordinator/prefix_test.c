/* The prefix tree against a naive one: a list of (kind, tokens from the beginning) with its users
 * and the time it was last let go. Random sequences go down the tree, add to it, leave it, and
 * pages are evicted; after each operation both know the same pages, and every page is where it
 * should be. */
#include "coordinator/prefix.h"

#include "base/rng.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define N_PAGE 24
#define DEPTH  5
#define N_WALK 8
#define N_KIND 2
#define N_STEP 40000

/* A page's way from the root, a small number a page of tokens. */
struct entry {
    int depth, n_user, in;
    uint64_t kind;
    int way[DEPTH];
    uint64_t left_at;
};

/* A sequence: the way it wants to go and how far it is. */
struct walk {
    uint64_t kind;
    int way[DEPTH], n;
    int32_t page[DEPTH];
};

struct world {
    struct prefix *p;
    struct entry page[N_PAGE]; /* what the naive tree knows of each page */
    struct walk walk[N_WALK];
    int32_t free_page[N_PAGE];
    int n_free;
    uint64_t now, draw;
};

static int draw(struct world *w, int n)
{
    return (int)(rng_uniform(11, 0, w->draw++) * n);
}

/* Pages that differ in one place only, so that a comparison that stops early is found out. */
static void tokens_of(int letter, int32_t *out)
{
    for (int i = 0; i < KV_PAGE; i++) {
        out[i] = i;
    }
    out[letter == 2 ? 0 : KV_PAGE - 1] = 1000 + letter;
}

static int32_t naive_find(const struct world *w, const struct walk *k)
{
    for (int i = 0; i < N_PAGE; i++) {
        const struct entry *e = &w->page[i];
        if (e->in && e->kind == k->kind && e->depth == k->n + 1 &&
            memcmp(e->way, k->way, (size_t)e->depth * sizeof *k->way) == 0) {
            return i;
        }
    }
    return PREFIX_NONE;
}

/* Of those without a user the one that was left first. */
static int32_t naive_oldest(const struct world *w)
{
    int32_t best = PREFIX_NONE;
    for (int i = 0; i < N_PAGE; i++) {
        const struct entry *e = &w->page[i];
        if (e->in && e->n_user == 0 &&
            (best == PREFIX_NONE || e->left_at < w->page[best].left_at)) {
            best = i;
        }
    }
    return best;
}

static void compare(const struct world *w)
{
    int n_in = 0, n_idle = 0;
    for (int i = 0; i < N_PAGE; i++) {
        const struct entry *e = &w->page[i];
        assert_int_equal(w->p->node[i].in, e->in);
        n_in += e->in;
        n_idle += e->in && e->n_user == 0;
        if (e->in) {
            assert_int_equal(w->p->node[i].n_user, e->n_user);
        }
        /* Nothing hangs in the air. */
        if (e->in && e->depth > 1) {
            assert_true(w->p->node[w->p->node[i].parent].in);
        }
    }
    assert_int_equal(w->p->n_in, n_in);
    assert_int_equal(w->p->n_idle, n_idle);
}

static void evict(struct world *w)
{
    int32_t want = naive_oldest(w), got = prefix_evict(w->p);
    assert_int_equal(got, want);
    if (got != PREFIX_NONE) {
        w->page[got].in = 0;
        w->free_page[w->n_free++] = got;
    }
}

static void leave(struct world *w, struct walk *k)
{
    for (; k->n > 0; k->n--) {
        struct entry *e = &w->page[k->page[k->n - 1]];
        prefix_leave(w->p, k->page[k->n - 1]);
        e->n_user--;
        e->left_at = w->now++;
    }
}

/* One page further: over a page that is there, or over one of its own that it puts there. */
static void go(struct world *w, struct walk *k)
{
    int32_t token[KV_PAGE], parent = k->n > 0 ? k->page[k->n - 1] : PREFIX_NONE;
    tokens_of(k->way[k->n], token);
    int32_t want = naive_find(w, k);
    assert_int_equal(prefix_find(w->p, parent, k->kind, token), want);
    if (want != PREFIX_NONE && draw(w, 2)) {
        prefix_use(w->p, want);
    } else {
        if (w->n_free == 0) {
            evict(w);
        }
        if (w->n_free == 0) {
            return;
        }
        want = naive_find(w, k); /* it may be what was evicted */
        int32_t own = w->free_page[w->n_free - 1];
        int32_t got = prefix_insert(w->p, parent, k->kind, token, own);
        assert_int_equal(got, want != PREFIX_NONE ? want : own);
        if (want == PREFIX_NONE) {
            w->n_free--;
            w->page[own] = (struct entry){.depth = k->n + 1, .in = 1, .kind = k->kind};
            memcpy(w->page[own].way, k->way, sizeof k->way);
        }
        want = got;
    }
    w->page[want].n_user++;
    k->page[k->n++] = want;
}

static void begin(struct world *w, struct walk *k)
{
    leave(w, k);
    k->kind = (uint64_t)draw(w, N_KIND);
    for (int i = 0; i < DEPTH; i++) {
        k->way[i] = draw(w, 3);
    }
}

static void random_lives_agree_with_a_naive_tree(void **state)
{
    (void)state;
    static struct world w;
    assert_int_equal(prefix_create(N_PAGE, &w.p, NULL), 0);
    for (int i = 0; i < N_PAGE; i++) {
        w.free_page[w.n_free++] = i;
    }
    for (int step = 0; step < N_STEP; step++) {
        struct walk *k = &w.walk[draw(&w, N_WALK)];
        int what = draw(&w, 8);
        if (what == 0 || k->n == DEPTH) {
            begin(&w, k);
        } else if (what == 1) {
            evict(&w);
        } else {
            go(&w, k);
        }
        compare(&w);
    }
    assert_true(w.p->evictions > 1000);
    for (int i = 0; i < N_WALK; i++) {
        leave(&w, &w.walk[i]);
    }
    while (w.p->n_in > 0) {
        evict(&w);
    }
    assert_int_equal(prefix_evict(w.p), PREFIX_NONE);
    prefix_destroy(w.p);
}

static void a_page_of_another_kind_or_parent_is_another(void **state)
{
    (void)state;
    struct prefix *p;
    int32_t token[KV_PAGE];
    tokens_of(1, token);
    assert_int_equal(prefix_create(4, &p, NULL), 0);
    assert_int_equal(prefix_insert(p, PREFIX_NONE, 7, token, 0), 0);
    assert_int_equal(prefix_find(p, PREFIX_NONE, 7, token), 0);
    assert_int_equal(prefix_find(p, PREFIX_NONE, 8, token), PREFIX_NONE);
    assert_int_equal(prefix_find(p, 0, 7, token), PREFIX_NONE);
    assert_int_equal(prefix_insert(p, 0, 7, token, 3), 3);
    assert_int_equal(prefix_find(p, 0, 7, token), 3);
    /* Computed twice: the first one stays, with two users. */
    assert_int_equal(prefix_insert(p, 0, 7, token, 2), 3);
    prefix_leave(p, 3);
    assert_int_equal(prefix_evict(p), PREFIX_NONE);
    prefix_leave(p, 3);
    prefix_leave(p, 0);
    assert_int_equal(prefix_evict(p), 3); /* the leaf first */
    assert_int_equal(prefix_evict(p), 0);
    prefix_destroy(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_lives_agree_with_a_naive_tree),
        cmocka_unit_test(a_page_of_another_kind_or_parent_is_another),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* speculate: see speculate.h. */
#include "coordinator/speculate.h"

#include <string.h>

/* By default a large batch is left alone: its rows already share the weights they read. */
#define ROWS_MAX 32
/* Guessed rows of a step at most. */
#define EXTRA_MAX 64
/* What is chosen must promise so much more than doing nothing. */
#define GAIN_MIN 1.03
/* A step without guesses is made this often, to know what it costs. */
#define PLAIN_EVERY 256
/* A size of step not seen for so long may be tried anew. */
#define FORGET_AFTER 2048
/* Guesses that the running mean is over, and the weight of what all sequences know in a new one. */
#define HITS_OF 24.0f
#define PRIOR   2.0f

int speculate_parse(const char *text, enum speculate_mode *mode, int *k_max, struct err *err)
{
    *k_max = SPECULATE_MAX;
    if (strcmp(text, "off") == 0) {
        *mode = SPECULATE_OFF;
    } else if (strcmp(text, "auto") == 0) {
        *mode = SPECULATE_AUTO;
    } else if (strcmp(text, "ngram") == 0) {
        *mode = SPECULATE_ALWAYS;
    } else if (strncmp(text, "ngram:", 6) == 0 && text[6] >= '1' &&
               text[6] <= '0' + SPECULATE_MAX && text[7] == 0) {
        *mode = SPECULATE_ALWAYS;
        *k_max = text[6] - '0';
    } else {
        return err_set(err, ERR_USAGE,
                       "--speculate is auto, ngram, ngram:K with K of 1 to %d, or off, not \"%s\"",
                       SPECULATE_MAX, text);
    }
    return 0;
}

static void count(struct speculate_hits *h, int right)
{
    h->right *= 1 - 1 / HITS_OF;
    h->wrong *= 1 - 1 / HITS_OF;
    *(right ? &h->right : &h->wrong) += 1;
}

void speculate_saw(struct speculate *s, struct speculate_hits *hits, int right)
{
    count(hits, right);
    count(&s->all, right);
}

/* The chance that the next guess is right: half before anything is known. */
static double chance(const struct speculate *s, const struct speculate_hits *h)
{
    double all = (s->all.right + 1.0) / (s->all.right + s->all.wrong + 2.0);
    return (h->right + PRIOR * all) / (h->right + h->wrong + PRIOR);
}

static int take_all(const struct speculate *s, struct speculate_want *want, int n, int room)
{
    int sum = 0;
    for (int i = 0; i < n; i++) {
        int k = want[i].n_guess < s->k_max ? want[i].n_guess : s->k_max;
        want[i].k = k < room - sum ? k : room - sum;
        sum += want[i].k;
    }
    return sum;
}

/* The want whose next token is the likeliest to be of use, given those it has; -1: none is left. */
static int likeliest(const struct speculate *s, const struct speculate_want *want, int n,
                     double *value)
{
    int best = -1;
    for (int i = 0; i < n; i++) {
        if (want[i].k >= want[i].n_guess || want[i].k >= s->k_max) {
            continue;
        }
        double p = chance(s, want[i].hits), v = p;
        for (int j = 0; j < want[i].k; j++) {
            v *= p;
        }
        if (best < 0 || v > *value) {
            best = i;
            *value = v;
        }
    }
    return best;
}

int speculate_choose(const struct speculate *s, struct speculate_want *want, int n, int n_row,
                     int room)
{
    for (int i = 0; i < n; i++) {
        want[i].k = 0;
    }
    if (s->mode == SPECULATE_OFF || n == 0 || room <= 0) {
        return 0;
    }
    if (s->mode == SPECULATE_ALWAYS) {
        return take_all(s, want, n, room);
    }
    double plain = step_cost_ns(&s->cost, n_row, FORGET_AFTER);
    if (n_row > ROWS_MAX || plain <= 0 || step_cost_age(&s->cost, n_row) > PLAIN_EVERY) {
        return 0;
    }
    int taken[EXTRA_MAX], n_taken = 0, n_best = 0, at;
    double tokens = n_row, best = GAIN_MIN * tokens / plain, value = 0;
    int most = room < EXTRA_MAX ? room : EXTRA_MAX;
    while (n_taken < most && (at = likeliest(s, want, n, &value)) >= 0) {
        want[at].k++;
        taken[n_taken++] = at;
        tokens += value;
        double rate = tokens / step_cost_ns(&s->cost, n_row + n_taken, FORGET_AFTER);
        if (rate > best) {
            best = rate;
            n_best = n_taken;
        }
    }
    while (n_taken > n_best) {
        want[taken[--n_taken]].k--;
    }
    return n_best;
}

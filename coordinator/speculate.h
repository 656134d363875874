/* speculate: how many guessed tokens (coordinator/lookup.h) a step should compute beside the rows
 * it has anyway. More rows make a step longer and, where guesses are right, give more tokens; what
 * is chosen is the most tokens a second by what steps of each size have cost and how often guesses
 * were right. Guesses that are not computed are still compared with what is drawn, so that what is
 * known of a sequence stays true while nothing is spent on it. Pure; no clock. */
#ifndef COORDINATOR_SPECULATE_H
#define COORDINATOR_SPECULATE_H

#include "base/err.h"
#include "coordinator/step_cost.h"

/* Guessed tokens of one sequence in a step, at most and by default. */
#define SPECULATE_MAX 8

enum speculate_mode {
    SPECULATE_OFF,
    SPECULATE_AUTO,  /* as measurement says */
    SPECULATE_ALWAYS /* whenever there is a guess */
};

/* How often guesses were right, the last ones counting most. Zeroed: nothing known. */
struct speculate_hits {
    float right, wrong;
};

struct speculate {
    enum speculate_mode mode;
    int k_max; /* 1 to SPECULATE_MAX */
    struct step_cost cost;
    struct speculate_hits all; /* of all sequences: what a new one begins with */
};

/* speculate_parse: "off", "auto", "ngram" or "ngram:K" with K of 1 to SPECULATE_MAX. ERR_USAGE. */
int speculate_parse(const char *text, enum speculate_mode *mode, int *k_max, struct err *err);

/* speculate_saw: a guess of the sequence was compared with what was drawn. */
void speculate_saw(struct speculate *s, struct speculate_hits *hits, int right);

/* A sequence that has a guess: n_guess tokens; k: how many of them to compute. */
struct speculate_want {
    const struct speculate_hits *hits;
    int n_guess, k;
};
/* speculate_choose sets k of each want [n]; sum of k <= room. n_row: rows (one a sequence, >= n) of
 * the step without guesses. Returns the sum. */
int speculate_choose(const struct speculate *s, struct speculate_want *want, int n, int n_row,
                     int room);

#endif

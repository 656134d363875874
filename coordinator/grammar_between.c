/* grammar_between: numbers between whole bounds, digit by digit. The magnitudes of one length are a
 * walk along the digits of both bounds: as long as a bound's digits were taken it still binds,
 * after a digit strictly inside any may follow. Negative numbers are magnitudes behind a sign. */
#include "coordinator/grammar_literal.h"

#include <stdio.h>
#include <string.h>

/* The n digits from lo to hi; `low`, `high`: that bound still binds. A bound whose other digits are
 * all zeros or all nines binds no longer than its first. */
static void emit_same_length(struct grammar_builder *b, const char *lo, const char *hi, int n,
                             bool low, bool high)
{
    if (n == 0 || b->rc != 0) {
        return;
    }
    char first = low ? *lo : '0', last = high ? *hi : '9';
    bool from = low && strspn(lo + 1, "0") < (size_t)n - 1;
    bool to = high && strspn(hi + 1, "9") < (size_t)n - 1;
    if (first == last && (from || to)) {
        grammar_emit_text(b, &first, 1);
        emit_same_length(b, lo + 1, hi + 1, n - 1, low, high);
        return;
    }
    struct grammar_alts a = GRAMMAR_ALTS_EMPTY;
    size_t inner = first + from <= last - to, i = 0, of = inner + from + to;
    if (from) {
        grammar_alt(b, &a, i++, of);
        grammar_emit_text(b, &first, 1);
        emit_same_length(b, lo + 1, hi + 1, n - 1, true, false);
    }
    if (inner) {
        grammar_alt(b, &a, i++, of);
        grammar_emit_range(b, (uint8_t)(first + from), (uint8_t)(last - to));
        grammar_emit_digits(b, n - 1, n - 1);
    }
    if (to) {
        grammar_alt(b, &a, i++, of);
        grammar_emit_text(b, &last, 1);
        emit_same_length(b, lo + 1, hi + 1, n - 1, false, true);
    }
    grammar_alt_end(b, &a);
}

/* Whole magnitudes in [lo, hi]: as long as lo, as long as hi, and between them any digits. */
static void emit_magnitude(struct grammar_builder *b, int64_t lo, int64_t hi)
{
    static const char least[] = "1000000000000000000", most[] = "999999999999999999";
    char from[24], to[24];
    int n_lo = snprintf(from, sizeof from, "%lld", (long long)lo);
    int n_hi = snprintf(to, sizeof to, "%lld", (long long)hi);
    if (n_lo == n_hi) {
        emit_same_length(b, from, to, n_lo, true, true);
        return;
    }
    int n_free = strspn(to, "9") == (size_t)n_hi ? n_hi : n_hi - 1;
    size_t i = 0, of = 1u + (n_free > n_lo) + (n_free < n_hi);
    struct grammar_alts a = GRAMMAR_ALTS_EMPTY;
    grammar_alt(b, &a, i++, of);
    emit_same_length(b, from, most, n_lo, true, true);
    if (n_free > n_lo) {
        grammar_alt(b, &a, i++, of);
        grammar_emit_range(b, '1', '9');
        grammar_emit_digits(b, n_lo, n_free - 1);
    }
    if (n_free < n_hi) {
        grammar_alt(b, &a, i++, of);
        emit_same_length(b, least, to, n_hi, true, true);
    }
    grammar_alt_end(b, &a);
}

static void emit_zeros(struct grammar_builder *b)
{
    struct grammar_alts a = GRAMMAR_ALTS_EMPTY;
    for (int i = 0; i < 18; i++) {
        grammar_alt_exit(b, &a, grammar_emit_split(b));
        grammar_emit_text(b, i == 0 ? ".0" : "0", i == 0 ? 2 : 1);
    }
    grammar_alt_end(b, &a);
}

/* Magnitudes in [lo, hi] with a fraction: below hi any fraction, at hi only zeros. */
static void emit_fractional(struct grammar_builder *b, int64_t lo, int64_t hi)
{
    struct grammar_alts a;
    size_t below = lo < hi;
    if (below) {
        struct grammar_alts part;
        grammar_alt(b, &a, 0, 2);
        emit_magnitude(b, lo, hi - 1);
        grammar_alt(b, &part, 0, 2);
        grammar_alt(b, &part, 1, 2);
        grammar_emit_text(b, ".", 1);
        grammar_emit_digits(b, 1, 18);
        grammar_alt_end(b, &part);
    }
    grammar_alt(b, &a, below, below + 1);
    emit_magnitude(b, hi, hi);
    emit_zeros(b);
    grammar_alt_end(b, &a);
}

static void emit_signless(struct grammar_builder *b, int64_t lo, int64_t hi, bool fraction)
{
    if (fraction) {
        emit_fractional(b, lo, hi);
    } else {
        emit_magnitude(b, lo, hi);
    }
}

void grammar_emit_between(struct grammar_builder *b, int64_t lo, int64_t hi, bool fraction)
{
    struct grammar_alts a;
    size_t negative = lo < 0, positive = hi >= 0, i = 0;
    if (negative) {
        grammar_alt(b, &a, i++, negative + positive);
        grammar_emit_text(b, "-", 1);
        /* Up to -1 for integers; what lies between -1 and 0 needs the 0 as well. */
        emit_signless(b, hi < 0 ? -hi : fraction ? 0 : 1, -lo, fraction);
    }
    if (positive) {
        grammar_alt(b, &a, i++, negative + positive);
        emit_signless(b, lo > 0 ? lo : 0, hi, fraction);
    }
    grammar_alt_end(b, &a);
}

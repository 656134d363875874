/* lookup: see lookup.h. One look backwards over the tokens: the first place where three agree is
 * taken, or else the first one where two did. A microsecond for thousands of tokens, so there is no
 * index to keep. */
#include "coordinator/lookup.h"

/* Where the tokens behind the match begin: the last i < n with token[i - gram .. i) equal to the
 * last gram tokens; 0 when there is none. */
static int find(const int32_t *token, int n)
{
    int two = 0;
    if (n <= LOOKUP_GRAM_MIN) {
        return 0;
    }
    int32_t a = token[n - 3], b = token[n - 2], c = token[n - 1];
    for (int i = n - 1; i >= LOOKUP_GRAM_MIN; i--) {
        if (token[i - 1] != c || token[i - 2] != b) {
            continue;
        }
        if (i >= LOOKUP_GRAM_MAX && token[i - 3] == a) {
            return i;
        }
        two = two == 0 ? i : two;
    }
    return two;
}

int lookup_propose(const int32_t *token, int n, int k, int32_t *out)
{
    int from = find(token, n);
    if (from == 0) {
        return 0;
    }
    for (int i = 0; i < k; i++) {
        int at = from + i;
        out[i] = at < n ? token[at] : out[at - n];
    }
    return k;
}

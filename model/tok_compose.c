/* The normal forms of Unicode (UAX 15): decompose each character, put marks into canonical order,
 * compose. Properties and composition are utf8proc's (Unicode 15); the ordering is ours, because
 * utf8proc swaps neighbours, which takes quadratic time on a text of nothing but marks, and a text
 * comes from anyone. Here a long run is sorted by counting its combining classes. */
#include "model/tok_norm.h"
#include <stdlib.h>
#include <utf8proc.h>

#define DECOMPOSED_MAX 32 /* the longest there is has 18 */
#define INSERTION_MAX  32

struct cps {
    utf8proc_int32_t *p;
    size_t n, cap;
};

static unsigned class_of(utf8proc_int32_t cp)
{
    return (unsigned)utf8proc_get_property(cp)->combining_class & 255u;
}

static int decompose(const char *p, size_t n, utf8proc_option_t options, struct cps *out)
{
    int boundclass = 0;
    for (size_t i = 0, len; i < n; i += len) {
        utf8proc_int32_t cp = (utf8proc_int32_t)utf8_get(p + i, &len);
        if (tok_grow((void **)&out->p, &out->cap, out->n + DECOMPOSED_MAX, sizeof *out->p))
            return ERR_NOMEM;
        utf8proc_ssize_t m =
            utf8proc_decompose_char(cp, out->p + out->n, DECOMPOSED_MAX, options, &boundclass);
        if (m < 0 || m > DECOMPOSED_MAX)
            return ERR_NOMEM; /* cannot be */
        out->n += (size_t)m;
    }
    return 0;
}

static void sort_short(utf8proc_int32_t *p, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        utf8proc_int32_t cp = p[i];
        size_t k = i;
        for (; k > 0 && class_of(p[k - 1]) > class_of(cp); k--)
            p[k] = p[k - 1];
        p[k] = cp;
    }
}

static int sort_long(utf8proc_int32_t *p, size_t n)
{
    size_t at[257] = {0};
    utf8proc_int32_t *copy = malloc(n * sizeof *copy);
    if (!copy)
        return ERR_NOMEM;
    memcpy(copy, p, n * sizeof *p);
    for (size_t i = 0; i < n; i++)
        at[class_of(copy[i]) + 1]++;
    for (size_t c = 1; c < 257; c++)
        at[c] += at[c - 1];
    for (size_t i = 0; i < n; i++)
        p[at[class_of(copy[i])]++] = copy[i];
    free(copy);
    return 0;
}

/* order sorts each run of marks (class not 0) by class and leaves equals as they are. */
static int order(struct cps *cps)
{
    for (size_t i = 0, end; i < cps->n; i = end) {
        end = i + 1;
        if (class_of(cps->p[i]) == 0)
            continue;
        while (end < cps->n && class_of(cps->p[end]) != 0)
            end++;
        if (end - i <= INSERTION_MAX)
            sort_short(cps->p + i, end - i);
        else if (sort_long(cps->p + i, end - i))
            return ERR_NOMEM;
    }
    return 0;
}

int tok_compose(enum tok_norm_kind kind, const char *p, size_t n, struct tok_text *out)
{
    const bool composed = kind == NORM_NFC || kind == NORM_NFKC,
               compat = kind == NORM_NFKC || kind == NORM_NFKD;
    const utf8proc_option_t options =
        (utf8proc_option_t)(UTF8PROC_STABLE | (composed ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
                            (compat ? UTF8PROC_COMPAT : 0));
    struct cps cps = {0};
    int r = decompose(p, n, options, &cps);
    r = r ? r : order(&cps);
    if (!r && composed) {
        utf8proc_ssize_t m = utf8proc_normalize_utf32(cps.p, (utf8proc_ssize_t)cps.n, options);
        r = m < 0 ? ERR_NOMEM : 0;
        cps.n = m < 0 ? 0 : (size_t)m;
    }
    for (size_t i = 0; !r && i < cps.n; i++)
        r = tok_text_add_cp(out, (uint32_t)cps.p[i]);
    free(cps.p);
    return r;
}

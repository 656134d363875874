/* See tok_unicode.h. Questions about one code point search the runs; only the matchers, which ask
 * for every character of a text, pay for a byte a code point (1.1 MB, filled in under a ms). */
#include "model/tok_unicode.h"
#include <string.h>
#include <utf8proc.h>

bool unicode_in(uint32_t cp, const struct tok_range *range, size_t n)
{
    size_t lo = 0, hi = n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (cp >= range[mid].end)
            lo = mid + 1;
        else if (cp < range[mid].first)
            hi = mid;
        else
            return true;
    }
    return false;
}

enum tok_category unicode_category(uint32_t cp)
{
    if (cp >= UNI_COUNT)
        return CAT_CN;
    size_t lo = 0, hi = tok_category_run_n; /* the run that begins at or before cp */
    while (hi - lo > 1) {
        size_t mid = (lo + hi) / 2;
        if (tok_category_run[mid] >> 5 <= cp)
            lo = mid;
        else
            hi = mid;
    }
    return (enum tok_category)(tok_category_run[lo] & 31);
}

bool unicode_space(uint32_t cp)
{
    return (cp >= 9 && cp <= 13) || cp == 0x85 || (CATS_Z >> unicode_category(cp) & 1);
}

bool unicode_numeric(uint32_t cp)
{
    return (CATS_N >> unicode_category(cp) & 1) || (cp >= 0x11de0 && cp <= 0x11de9) ||
           (cp >= 0x16ff4 && cp <= 0x16ff6); /* Unicode 17 */
}

bool unicode_word(uint32_t cp)
{
    const uint32_t cats = CATS_L | CATS_M | 1u << CAT_ND | 1u << CAT_NL | 1u << CAT_PC;
    if (cats >> unicode_category(cp) & 1)
        return true;
    /* Join_Control, and the symbols that are Other_Alphabetic */
    return cp == 0x200c || cp == 0x200d || (cp >= 0x24b6 && cp <= 0x24e9) ||
           (cp >= 0x1f130 && cp <= 0x1f149) || (cp >= 0x1f150 && cp <= 0x1f169) ||
           (cp >= 0x1f170 && cp <= 0x1f189);
}

bool unicode_punct(uint32_t cp)
{
    if (cp < 0x80)
        return cp != 0 && strchr("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", (int)cp) != NULL;
    bool now = CATS_P >> unicode_category(cp) & 1;
    return now != unicode_in(cp, tok_punct_differs, tok_punct_differs_n);
}

int unicode_lower(uint32_t cp, uint32_t out[2])
{
    if (cp < 0x80) {
        out[0] = cp >= 'A' && cp <= 'Z' ? cp + 32 : cp;
        return 1;
    }
    if (cp == 0x130) { /* the only character whose lower case is two */
        out[0] = 'i';
        out[1] = 0x307;
        return 2;
    }
    for (size_t i = 0; i < tok_lower_since_14_n; i++)
        if (cp >= tok_lower_since_14[i].first && cp < tok_lower_since_14[i].end) {
            out[0] = cp + (uint32_t)tok_lower_since_14[i].value;
            return 1;
        }
    out[0] = (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp);
    return 1;
}

static void mark(uint8_t *flag, uint32_t first, uint32_t end, uint8_t bits)
{
    for (uint32_t cp = first; cp < end; cp++)
        flag[cp] |= bits;
}

void unicode_flags(uint8_t *flag)
{
    uint8_t bits[CAT_COUNT] = {0};
    for (int k = 0; k < CAT_COUNT; k++) {
        bool mark_or_lo = CATS_M >> k & 1 || k == CAT_LM || k == CAT_LO;
        bits[k] = (uint8_t)((CATS_L >> k & 1 ? UNI_L : 0) | (CATS_M >> k & 1 ? UNI_M : 0) |
                            (CATS_N >> k & 1 ? UNI_N : 0) | (CATS_Z >> k & 1 ? UNI_WS : 0) |
                            ((CATS_P | CATS_S) >> k & 1 ? UNI_PS : 0) |
                            (k == CAT_LU || k == CAT_LT || mark_or_lo ? UNI_UP : 0) |
                            (k == CAT_LL || mark_or_lo ? UNI_LOW : 0));
    }
    for (size_t i = 0; i < tok_category_run_n; i++) {
        size_t end = i + 1 < tok_category_run_n ? tok_category_run[i + 1] >> 5 : UNI_COUNT;
        size_t first = tok_category_run[i] >> 5;
        memset(flag + first, bits[tok_category_run[i] & 31], end - first);
    }
    mark(flag, 9, 14, UNI_WS);
    mark(flag, 0x85, 0x86, UNI_WS);
    mark(flag, 0x4e00, 0x9fa6, UNI_CJK);
    mark(flag, 0x3040, 0x3100, UNI_CJK);
}

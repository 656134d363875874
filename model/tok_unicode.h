/* tok_unicode: what the tokenizer knows about characters. The reference implementation (Hugging
 * Face tokenizers 0.22) sees Unicode 16 in regular expressions, Unicode 9 in normal forms, Unicode
 * 8 in Punctuation and Unicode 17 in Rust's own char methods; PCRE2 and utf8proc of the system are
 * at 14 and 15. Ids must be equal to the reference's, so its facts are tables here, measured from
 * it by tools/fixtures/tok_unicode.py. */
#ifndef MODEL_TOK_UNICODE_H
#define MODEL_TOK_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum tok_category { /* the order of the generated table */
                    CAT_LU,
                    CAT_LL,
                    CAT_LT,
                    CAT_LM,
                    CAT_LO,
                    CAT_MN,
                    CAT_MC,
                    CAT_ME,
                    CAT_ND,
                    CAT_NL,
                    CAT_NO,
                    CAT_PC,
                    CAT_PD,
                    CAT_PS,
                    CAT_PE,
                    CAT_PI,
                    CAT_PF,
                    CAT_PO,
                    CAT_SM,
                    CAT_SC,
                    CAT_SK,
                    CAT_SO,
                    CAT_ZS,
                    CAT_ZL,
                    CAT_ZP,
                    CAT_CC,
                    CAT_CF,
                    CAT_CS,
                    CAT_CO,
                    CAT_CN,
                    CAT_COUNT
};
/* Sets of categories are bit masks. */
#define CATS(first, last) ((2u << (last)) - (1u << (first)))
#define CATS_L            CATS(CAT_LU, CAT_LO)
#define CATS_M            CATS(CAT_MN, CAT_ME)
#define CATS_N            CATS(CAT_ND, CAT_NO)
#define CATS_P            CATS(CAT_PC, CAT_PO)
#define CATS_S            CATS(CAT_SM, CAT_SO)
#define CATS_Z            CATS(CAT_ZS, CAT_ZP)
#define CATS_C            CATS(CAT_CC, CAT_CN)

struct tok_range {
    uint32_t first, end;
    int32_t value;
};
extern const uint32_t tok_category_run[];
extern const size_t tok_category_run_n;
extern const struct tok_range tok_since_14[], tok_normal_inert[], tok_punct_differs[],
    tok_lower_since_14[];
extern const size_t tok_since_14_n, tok_normal_inert_n, tok_punct_differs_n, tok_lower_since_14_n;

/* One byte a code point, for the matchers of tok_split.c, whose speed is this look-up. */
enum {
    UNI_L = 1,
    UNI_M = 2,
    UNI_N = 4,
    UNI_WS = 8,   /* White_Space, what \s means */
    UNI_PS = 16,  /* P or S */
    UNI_UP = 32,  /* Lu Lt Lm Lo M */
    UNI_LOW = 64, /* Ll Lm Lo M */
    UNI_CJK = 128 /* DeepSeek's class: U+4E00-9FA5, kana U+3040-30FF */
};
#define UNI_COUNT 0x110000
/* unicode_flags fills flag[UNI_COUNT]. */
void unicode_flags(uint8_t *flag);

enum tok_category unicode_category(uint32_t cp);
bool unicode_in(uint32_t cp, const struct tok_range *range, size_t n);
/* unicode_space: White_Space. unicode_numeric: Rust's char::is_numeric. unicode_word: \w of the
 * Rust regex crate (Unicode TS 18). unicode_punct: the reference's Punctuation pre-tokenizer. */
bool unicode_space(uint32_t cp);
bool unicode_numeric(uint32_t cp);
bool unicode_word(uint32_t cp);
bool unicode_punct(uint32_t cp);
/* unicode_lower: the lower case of one character, at most two code points; returns how many. */
int unicode_lower(uint32_t cp, uint32_t out[2]);

#endif

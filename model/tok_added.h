/* tok_added: added tokens: strings that are found in the text before anything else happens to it
 * ("<|im_start|>"). Two sets: one searched in the text as it comes, one in the normalized text. In
 * each the leftmost match counts, and of those the longest. */
#ifndef MODEL_TOK_ADDED_H
#define MODEL_TOK_ADDED_H

#include "model/tok_trie.h"

struct tok_added_token {
    int32_t id;
    bool single_word, lstrip, rstrip, normalized, special;
};
struct tok_added_set {
    struct tok_trie trie; /* to an index into token */
    bool begins[256];     /* bytes a token begins with */
};
struct tok_added {
    struct tok_added_token *token;
    size_t n, cap;
    struct tok_added_set set[2]; /* by `normalized` */
};

/* A stretch of the text: a token, or text (id -1). */
struct tok_segment {
    size_t begin, end;
    int32_t id;
};
struct tok_segments {
    struct tok_segment *p;
    size_t n, cap;
};

/* tok_added_add: text is what is searched for (the normalized content where token.normalized). */
int tok_added_add(struct tok_added *added, struct tok_added_token token, const char *text, size_t n,
                  struct err *err);
void tok_added_fini(struct tok_added *added);
const struct tok_added_token *tok_added_find(const struct tok_added *added, int32_t id);
/* tok_added_cut cuts p[0..n) by one set; parse_special false: special tokens are left as text. */
int tok_added_cut(const struct tok_added *added, bool normalized, bool parse_special, const char *p,
                  size_t n, struct tok_segments *out, struct err *err);

#endif

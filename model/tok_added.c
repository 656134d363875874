/* See tok_added.h. */
#include "model/tok_added.h"
#include "model/tok_unicode.h"
#include <stdlib.h>

void tok_added_fini(struct tok_added *added)
{
    tok_trie_fini(&added->set[0].trie);
    tok_trie_fini(&added->set[1].trie);
    free(added->token);
    memset(added, 0, sizeof *added);
}

int tok_added_add(struct tok_added *added, struct tok_added_token token, const char *text, size_t n,
                  struct err *err)
{
    if (tok_grow((void **)&added->token, &added->cap, added->n + 1, sizeof *added->token))
        return tok_nomem(err);
    if (n > 0) {
        struct tok_added_set *set = &added->set[token.normalized];
        int r = tok_trie_add(&set->trie, text, n, (int32_t)added->n, false, err);
        if (r)
            return r;
        set->begins[(unsigned char)text[0]] = true;
    }
    added->token[added->n++] = token;
    return 0;
}

const struct tok_added_token *tok_added_find(const struct tok_added *added, int32_t id)
{
    for (size_t i = added->n; i > 0; i--)
        if (added->token[i - 1].id == id)
            return &added->token[i - 1];
    return NULL;
}

/* longest: the token that begins at p[0], or NULL; *len its bytes. */
static const struct tok_added_token *longest(const struct tok_added *added,
                                             const struct tok_trie *trie, const char *p, size_t n,
                                             size_t *len)
{
    const struct tok_added_token *best = NULL;
    uint32_t node = 0;
    for (size_t i = 0; i < n && (node = tok_trie_step(trie, node, p[i])) != 0; i++)
        if (trie->value[node] >= 0) {
            best = &added->token[trie->value[node]];
            *len = i + 1;
        }
    return best;
}

static bool touches_word(const char *p, size_t n, size_t begin, size_t end)
{
    size_t len;
    return (begin > 0 && unicode_word(utf8_get(p + utf8_before(p, begin), &len))) ||
           (end < n && unicode_word(utf8_get(p + end, &len)));
}

static int add(struct tok_segments *out, size_t begin, size_t end, int32_t id)
{
    if (tok_grow((void **)&out->p, &out->cap, out->n + 1, sizeof *out->p))
        return ERR_NOMEM;
    out->p[out->n++] = (struct tok_segment){begin, end, id};
    return 0;
}

int tok_added_cut(const struct tok_added *added, bool normalized, bool parse_special, const char *p,
                  size_t n, struct tok_segments *out, struct err *err)
{
    const struct tok_added_set *set = &added->set[normalized];
    size_t done = 0, len = 0;
    out->n = 0;
    for (size_t i = 0; set->trie.edge && i < n;) {
        if (!set->begins[(unsigned char)p[i]]) {
            i++;
            continue;
        }
        const struct tok_added_token *token = longest(added, &set->trie, p + i, n - i, &len);
        if (!token) {
            i++;
            continue;
        }
        size_t begin = i, end = i + len;
        i = end; /* the search goes on behind it even if it is then not taken */
        if ((token->special && !parse_special) ||
            (token->single_word && touches_word(p, n, begin, end)))
            continue;
        for (size_t at, w; token->lstrip && begin > done; begin = at) {
            at = utf8_before(p, begin);
            if (!unicode_space(utf8_get(p + at, &w)))
                break;
        }
        for (size_t w; token->rstrip && end < n && unicode_space(utf8_get(p + end, &w));)
            end += w;
        if ((done < begin && add(out, done, begin, -1)) || add(out, begin, end, token->id))
            return tok_nomem(err);
        done = end;
    }
    return done < n && add(out, done, n, -1) ? tok_nomem(err) : 0;
}

/* Opening a tokenizer: find the file, read it, give it to the reader of its format, then take in
 * the configuration beside it. What several formats share (added tokens, merges from scores) is
 * here. */
#include "base/limits.h"
#include "model/tok_impl.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

int tok_read_file(const char *dir, const char *name, bool optional, char **bytes, size_t *n,
                  struct err *err)
{
    char path[4096];
    int len = snprintf(path, sizeof path, "%s%s%s", dir, name ? "/" : "", name ? name : "");
    if (len < 0 || (size_t)len >= sizeof path)
        return err_set(err, ERR_IO, "tokenizer: the path '%.100s…' is longer than %zu bytes", dir,
                       sizeof path);
    *bytes = NULL;
    *n = 0;
    FILE *f = fopen(path, "rb");
    if (!f && optional && (errno == ENOENT || errno == ENOTDIR))
        return 0;
    if (!f)
        return err_sys(err, ERR_IO, "tokenizer: cannot open %s", path);
    struct stat st;
    int r = 0;
    if (fstat(fileno(f), &st) || !S_ISREG(st.st_mode))
        r = err_set(err, ERR_IO, "tokenizer: %s is not a file", path);
    else if (st.st_size > LIMIT_JSON_BYTES)
        r = err_set(err, ERR_LIMIT, "tokenizer: %s has %lld bytes, at most %d are supported", path,
                    (long long)st.st_size, LIMIT_JSON_BYTES);
    char *p = r ? NULL : malloc((size_t)st.st_size + 1);
    if (!r && !p)
        r = tok_nomem(err);
    if (!r && fread(p, 1, (size_t)st.st_size, f) != (size_t)st.st_size)
        r = err_set(err, ERR_IO, "tokenizer: cannot read %s to its end", path);
    fclose(f);
    if (r) {
        free(p);
        return r;
    }
    p[st.st_size] = 0;
    *bytes = p;
    *n = (size_t)st.st_size;
    return 0;
}

int tok_add_added(struct tokenizer *tok, struct tok_added_token token, struct err *err)
{
    struct tok_str raw = tok_vocab_raw_of(&tok->vocab, token.id), text = raw;
    bool shifted;
    int r = token.normalized ? tok_norm_run(&tok->norm, raw, &text, &shifted, err) : 0;
    r = r ? r : tok_added_add(&tok->added, token, text.p, text.n, err);
    if (r || !token.special)
        return r;
    while (tok->n_special <= (size_t)token.id) {
        size_t want = tok->vocab.n > (size_t)token.id ? tok->vocab.n : (size_t)token.id + 1;
        bool *special = realloc(tok->special, want * sizeof *special);
        if (!special)
            return tok_nomem(err);
        memset(special + tok->n_special, 0, (want - tok->n_special) * sizeof *special);
        tok->special = special;
        tok->n_special = want;
    }
    tok->special[token.id] = true;
    return 0;
}

struct scored {
    float score;
    int32_t id;
};

static int by_score(const void *a, const void *b)
{
    const struct scored *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

int tok_score_merges(struct tokenizer *tok, const float *score, const bool *usable, struct err *err)
{
    size_t n = 0;
    struct scored *order = malloc((tok->vocab.n + 1) * sizeof *order);
    if (!order)
        return tok_nomem(err);
    for (size_t i = 0; i < tok->vocab.n; i++)
        if (usable[i])
            order[n++] = (struct scored){score[i], (int32_t)i};
    qsort(order, n, sizeof *order, by_score);
    uint32_t rank = 0;
    int r = 0;
    for (size_t i = 0; !r && i < n; i++) {
        rank += i > 0 && order[i].score != order[i - 1].score;
        r = tok_bpe_merge_splits(&tok->bpe, order[i].id, rank, err);
    }
    free(order);
    return r;
}

typedef int reader_fn(struct tokenizer *, const char *, const char *, size_t, struct err *);

static int open_with(reader_fn *reader, const char *file, const char *bytes, size_t n,
                     struct tokenizer **out, struct err *err)
{
    struct tokenizer *tok = calloc(1, sizeof *tok);
    uint8_t *flag = malloc(UNI_COUNT);
    if (!tok || !flag) {
        free(tok);
        free(flag);
        return tok_nomem(err);
    }
    unicode_flags(flag);
    tok->flag = flag;
    tok->bos = tok->eos = -1;
    int r = reader(tok, file, bytes, n, err);
    if (r)
        tokenizer_close(tok);
    else
        *out = tok;
    return r;
}

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

static reader_fn *reader_of(const char *file)
{
    return ends_with(file, ".json")  ? tok_open_json
           : ends_with(file, ".bin") ? tok_open_llama2c
                                     : tok_open_sentencepiece; /* .model, .model.v1 */
}

static int open_dir(const char *dir, struct tokenizer **out, struct err *err)
{
    static const char *const names[] = {"tokenizer.json", "tokenizer.model", "tok512.bin"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *bytes;
        size_t n;
        int r = tok_read_file(dir, names[i], true, &bytes, &n, err);
        if (r)
            return r;
        if (!bytes)
            continue;
        struct tokenizer *tok = NULL;
        r = open_with(reader_of(names[i]), names[i], bytes, n, &tok, err);
        free(bytes);
        r = r ? r : tok_open_config(tok, dir, err);
        if (r)
            tokenizer_close(tok);
        else
            *out = tok;
        return r;
    }
    return err_set(err, ERR_MODEL,
                   "tokenizer: %s holds none of tokenizer.json, tokenizer.model, "
                   "tok512.bin",
                   dir);
}

int tokenizer_open(const char *path, struct tokenizer **out, struct err *err)
{
    struct stat st;
    if (stat(path, &st))
        return err_sys(err, ERR_IO, "tokenizer: %s", path);
    if (S_ISDIR(st.st_mode))
        return open_dir(path, out, err);
    char *bytes;
    size_t n;
    int r = tok_read_file(path, NULL, false, &bytes, &n, err);
    r = r ? r : open_with(reader_of(path), path, bytes, n, out, err);
    free(bytes);
    return r;
}

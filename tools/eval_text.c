/* eval_text: a file as a stream of tokens; see eval.h. */
#include "tools/eval.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int eval_text_open(struct eval_text *t, const char *path, struct tokenizer *tok, uint64_t bytes_max,
                   struct err *err)
{
    struct stat st;
    *t = (struct eval_text){.path = path, .tok = tok};
    t->file = fopen(path, "rb");
    if (!t->file || fstat(fileno(t->file), &st) != 0 || !S_ISREG(st.st_mode)) {
        int rc = t->file ? err_set(err, ERR_IO, "%s is no file", path)
                         : err_sys(err, ERR_IO, "cannot read %s", path);
        eval_text_close(t);
        return rc;
    }
    t->bytes_left = (uint64_t)st.st_size;
    if (bytes_max > 0 && bytes_max < t->bytes_left)
        t->bytes_left = bytes_max;
    t->bytes_total = t->bytes_left;
    t->piece = malloc(EVAL_PIECE_BYTES);
    if (!t->piece) {
        eval_text_close(t);
        return err_set(err, ERR_NOMEM, "no memory to read %s", path);
    }
    return 0;
}

/* cut_at: where the piece ends: behind the last line's end that is not followed by another one, in
 * its second half; else before the last character, which may be incomplete. */
static size_t cut_at(const char *p, size_t n)
{
    for (size_t i = n - 1; i > n / 2; i--)
        if (p[i - 1] == '\n' && p[i] != '\n')
            return i;
    size_t end = n;
    for (int back = 0; back < 3 && end > 1 && ((unsigned char)p[end - 1] & 0xc0) == 0x80; back++)
        end--;
    return end > 1 && ((unsigned char)p[end - 1] & 0xc0) == 0xc0 ? end - 1 : n;
}

int eval_text_more(struct eval_text *t, struct tok_ids *ids, struct err *err)
{
    size_t room = EVAL_PIECE_BYTES - t->n;
    size_t want = t->bytes_left < room ? (size_t)t->bytes_left : room;
    size_t got = fread(t->piece + t->n, 1, want, t->file);
    if (got < want && ferror(t->file))
        return err_sys(err, ERR_IO, "cannot read %s", t->path);
    t->bytes_left = got < want ? 0 : t->bytes_left - got;
    t->n += got;
    if (t->n == 0)
        return 0;
    size_t end = t->bytes_left > 0 ? cut_at(t->piece, t->n) : t->n;
    int rc = tokenizer_encode(t->tok, t->piece, end, 0, ids, err);
    if (rc)
        return rc;
    memmove(t->piece, t->piece + end, t->n - end);
    t->n -= end;
    t->n_byte += end;
    return 1;
}

void eval_text_close(struct eval_text *t)
{
    if (t->file)
        fclose(t->file);
    free(t->piece);
    *t = (struct eval_text){0};
}

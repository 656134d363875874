/* copy: see copy.h. */
#include "tools/copy.h"
#include "model/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PIECE_BYTES ((uint64_t)8 << 20)

int copy_open(struct copy *c, const char *out, int64_t shard_bytes, struct err *err)
{
    *c = (struct copy){.err = err};
    int rc = ck_writer_open(out, (uint64_t)shard_bytes, &c->writer, err);
    if (rc)
        return rc;
    sigemptyset(&c->stop);
    sigaddset(&c->stop, SIGINT);
    sigaddset(&c->stop, SIGTERM);
    sigprocmask(SIG_BLOCK, &c->stop, &c->old);
    return 0;
}

int copy_declare(struct copy *c, const char *name, enum dtype dtype, int n_dim, const uint64_t *dim)
{
    uint64_t bytes = dtype_bytes(dtype);
    for (int i = 0; i < n_dim; i++)
        bytes *= dim[i]; /* the writer refuses what overflows */
    c->bytes += bytes;
    return ck_writer_declare(c->writer, name, dtype, n_dim, dim, c->err);
}

int copy_begin(struct copy *c, const char *label)
{
    int rc = ck_writer_begin(c->writer, c->err);
    if (rc == 0)
        progress_start(&c->progress, label, c->bytes);
    return rc;
}

int copy_interrupted(struct copy *c)
{
    static const struct timespec now = {0, 0};
    return sigtimedwait(&c->stop, NULL, &now) > 0
               ? err_set(c->err, ERR_IO, "interrupted; nothing was left behind")
               : 0;
}

int copy_data(struct copy *c, const void *data, uint64_t bytes)
{
    int rc = 0;
    for (uint64_t done = 0; done < bytes && rc == 0;) {
        uint64_t n = bytes - done < PIECE_BYTES ? bytes - done : PIECE_BYTES;
        rc = ck_writer_data(c->writer, (const char *)data + done, (size_t)n, c->err);
        done += n;
        progress_add(&c->progress, n);
        if (rc == 0)
            rc = copy_interrupted(c);
    }
    return rc;
}

void copy_data_end(struct copy *c)
{
    progress_end(&c->progress);
}

int copy_text(struct copy *c, const char *name, const char *text)
{
    return ck_writer_file(c->writer, name, text, strlen(text), c->err);
}

int copy_json(struct copy *c, const char *name, json_t *root)
{
    /* 15 digits give back every number that was written with as many. */
    char *text = root ? json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(15)) : NULL;
    size_t n = text ? strlen(text) : 0;
    if (text)
        text[n] = '\n'; /* in place of the NUL, which is not written */
    int rc = text ? ck_writer_file(c->writer, name, text, n + 1, c->err)
                  : err_set(c->err, ERR_NOMEM, "no memory for %s", name);
    free(text);
    json_decref(root);
    return rc;
}

int copy_file(struct copy *c, const char *dir, const char *name)
{
    char path[4352], *text;
    size_t bytes;
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    if (access(path, F_OK) != 0)
        return 0;
    int rc = file_read(path, LIMIT_JSON_BYTES, &text, &bytes, c->err);
    if (rc)
        return rc;
    rc = ck_writer_file(c->writer, name, text, bytes, c->err);
    free(text);
    return rc;
}

static int listed(const char *const *names, const char *name)
{
    for (; names && *names; names++)
        if (strcmp(*names, name) == 0)
            return 1;
    return 0;
}

int copy_companions(struct copy *c, const char *dir, const char *const *but)
{
    static const char *const names[] = {"tokenizer.json",
                                        "tokenizer_config.json",
                                        "tokenizer.model",
                                        "tok512.bin",
                                        "special_tokens_map.json",
                                        "added_tokens.json",
                                        "vocab.json",
                                        "merges.txt",
                                        "chat_template.jinja",
                                        "generation_config.json",
                                        "LICENSE",
                                        "LICENSE.txt",
                                        NULL};
    int rc = 0;
    for (int i = 0; names[i] && rc == 0; i++)
        if (!listed(but, names[i]))
            rc = copy_file(c, dir, names[i]);
    return rc;
}

int copy_close(struct copy *c, int rc)
{
    if (rc)
        ck_writer_abort(c->writer);
    else
        rc = ck_writer_commit(c->writer, c->err);
    sigprocmask(SIG_SETMASK, &c->old, NULL);
    return rc;
}

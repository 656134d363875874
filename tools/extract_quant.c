/* extract_quant: `--quantize`. What is proven equal is the submodel in floats; so it is written and
 * proven first, beside the output, then its matrices become integers on the way to the output, and
 * the floats are removed. The card says so, and what was lost. */
#include "tools/extract.h"
#include "tools/quantize.h"

#include "model/json.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int kinds_read(const struct extract *u, struct quantize *z)
{
    char text[64];
    snprintf(text, sizeof(text), "%s", u->quantize);
    char *dense = strchr(text, ',');
    if (dense)
        *dense++ = '\0';
    int rc = quantize_kind("--quantize", text, &z->kind[CLASS_EXPERTS], u->err);
    return rc || !dense ? rc : quantize_kind("--quantize", dense, &z->kind[CLASS_DENSE], u->err);
}

/* The output must be fit to be written before an hour is spent on the floats. */
static int out_check(const struct extract *u)
{
    struct ck_writer *w;
    int rc = ck_writer_open(u->out, (uint64_t)u->shard_size, &w, u->err);
    if (rc == 0)
        ck_writer_abort(w);
    return rc;
}

static void folder_remove(const char *path)
{
    char file[4352];
    DIR *dir = opendir(path);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        snprintf(file, sizeof(file), "%s/%s", path, e->d_name);
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            unlink(file);
    }
    if (dir)
        closedir(dir);
    rmdir(path);
}

static double lost(const struct quantize_loss *l)
{
    return l->energy > 0 ? sqrt(l->error / l->energy) : 0.0;
}

/* The card of the floats with a section on the integers, and the proof as it is. */
static int card_write(struct quantize *z)
{
    char path[4352], *text, *card;
    size_t bytes;
    snprintf(path, sizeof(path), "%s/README.md", z->in);
    int rc = file_read(path, LIMIT_JSON_BYTES, &text, &bytes, z->err);
    if (rc)
        return rc;
    int n = asprintf(
        &card,
        "%s\n## Integers\n\nAfter the comparison above, which was of floats, matrices were "
        "made integers (`sigmoe quantize`, compressed-tensors pack-quantized): experts "
        "%s in groups of %d, error %.4f of their magnitude (rms); dense matrices %s in "
        "groups of %d, error %.4f.\n",
        text, dtype_name(z->kind[CLASS_EXPERTS].dtype), z->kind[CLASS_EXPERTS].group,
        lost(&z->loss[CLASS_EXPERTS]), dtype_name(z->kind[CLASS_DENSE].dtype),
        z->kind[CLASS_DENSE].group, lost(&z->loss[CLASS_DENSE]));
    free(text);
    if (n < 0)
        return err_set(z->err, ERR_NOMEM, "no memory for the model card");
    rc = copy_text(&z->copy, "README.md", card);
    free(card);
    return rc ? rc : copy_file(&z->copy, z->in, "proof.json");
}

int extract_quantised(struct extract *u)
{
    const char *out = u->out;
    char floats[4096];
    struct quantize z = {.out = out,
                         .in = floats,
                         .shard_bytes = u->shard_size,
                         .finish = card_write,
                         .err = u->err};
    if (!out)
        return extract_run(u); /* which says what is missing */
    int rc = kinds_read(u, &z);
    rc = rc ? rc : out_check(u);
    if (rc)
        return rc;
    size_t n = strlen(out);
    while (n > 1 && out[n - 1] == '/')
        n--;
    snprintf(floats, sizeof(floats), "%.*s.floats-%d", (int)n, out, (int)getpid());
    u->out = floats;
    rc = extract_run(u);
    u->out = out;
    if (rc == 0) {
        rc = quantize_run(&z);
        u->sizes.part = z.copy.bytes;
        model_close(z.model);
        folder_remove(floats);
    }
    return rc;
}

/* How fast a tokenizer opens and encodes, in CPU time of one thread: the machine this is run on is
 * often shared, and wall time would measure the neighbours. Text is given in pieces of 4 KiB, as
 * prompts are; the best of three passes counts. bench/tokenizer_vs_hf.py runs it beside
 * Hugging Face's tokenizers on the same bytes.
 *
 *   tokenizer_bench MODEL FILE... */
#include "model/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define PIECE  4096
#define PASSES 3

static double cpu_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int open_timed(const char *path, struct tokenizer **tok, struct err *err)
{
    double best = 1e9;
    for (int i = 0; i < PASSES; i++) {
        tokenizer_close(*tok);
        *tok = NULL;
        double begin = cpu_s();
        int r = tokenizer_open(path, tok, err);
        if (r)
            return r;
        double s = cpu_s() - begin;
        best = s < best ? s : best;
    }
    printf("open_ms %.1f\n", best * 1e3);
    return 0;
}

static int encode_pieces(struct tokenizer *tok, const char *text, size_t n, struct tok_ids *ids,
                         struct err *err)
{
    for (size_t at = 0, len; at < n; at += len) {
        len = n - at < PIECE ? n - at : PIECE;
        while (at + len < n && ((unsigned char)text[at + len] & 0xc0) == 0x80)
            len++;
        int r = tokenizer_encode(tok, text + at, len, 0, ids, err);
        if (r)
            return r;
    }
    return 0;
}

static int encode_timed(struct tokenizer *tok, const char *path, struct err *err)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return err_sys(err, ERR_IO, "tokenizer_bench: %s", path);
    fseek(f, 0, SEEK_END);
    size_t n = (size_t)ftell(f), n_id = 0;
    rewind(f);
    char *text = malloc(n + 1);
    int r = text && fread(text, 1, n, f) == n
                ? 0
                : err_set(err, ERR_IO, "tokenizer_bench: cannot read %s", path);
    fclose(f);
    double best = 1e9;
    for (int i = 0; !r && i < PASSES; i++) {
        struct tok_ids ids = {0};
        double begin = cpu_s();
        r = encode_pieces(tok, text, n, &ids, err);
        double s = cpu_s() - begin;
        best = s < best ? s : best;
        n_id = ids.n;
        tok_ids_fini(&ids);
    }
    free(text);
    if (!r)
        printf("encode %s mb_s %.1f tokens %zu\n", path, (double)n / best / 1e6, n_id);
    return r;
}

int main(int argc, char **argv)
{
    struct tokenizer *tok = NULL;
    struct err err = {0};
    if (argc < 2) {
        fprintf(stderr, "usage: tokenizer_bench MODEL FILE...\n");
        return 2;
    }
    int r = open_timed(argv[1], &tok, &err);
    for (int i = 2; !r && i < argc; i++)
        r = encode_timed(tok, argv[i], &err);
    if (r)
        fprintf(stderr, "%s\n", err.text);
    tokenizer_close(tok);
    return err_exit_code(r);
}

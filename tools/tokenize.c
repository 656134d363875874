/* tokenize: text to token ids and back, to look at a vocabulary and to compare it with other
 * implementations (tests/suite/tokenizer). Standard input is taken record by record: a line, a
 * NUL-terminated string or a line of JSON; each gives one record of output. */
#include "base/opt.h"
#include "model/tokenizer.h"
#include "tools/commands.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options {
    int decode, special, add, nul, json, show, skip;
};

static int encode(struct tokenizer *tok, const struct options *o, const char *p, size_t n,
                  struct err *err)
{
    struct tok_ids ids = {0};
    unsigned flags = (o->special ? TOK_PARSE_SPECIAL : 0u) | (o->add ? TOK_ADD_SPECIAL : 0u);
    int r = tokenizer_encode(tok, p, n, flags, &ids, err);
    if (!r && o->json)
        putchar('[');
    for (size_t i = 0; !r && i < ids.n; i++) {
        if (i)
            putchar(o->json ? ',' : ' ');
        printf("%d", ids.id[i]);
        size_t m;
        const char *s = o->show ? tokenizer_token(tok, ids.id[i], &m) : NULL;
        if (s)
            printf(":%.*s", (int)m, s);
    }
    if (!r)
        fputs(o->json ? "]\n" : "\n", stdout);
    tok_ids_fini(&ids);
    return r;
}

static int put_text(const struct options *o, const struct tok_text *text, struct err *err)
{
    if (!o->json) {
        fwrite(text->p ? text->p : "", 1, text->n, stdout);
        putchar(o->nul ? 0 : '\n');
        return 0;
    }
    json_t *s = json_stringn(text->p ? text->p : "", text->n);
    char *line = s ? json_dumps(s, JSON_ENCODE_ANY) : NULL;
    if (line)
        puts(line);
    free(line);
    json_decref(s);
    return line ? 0 : err_set(err, ERR_NOMEM, "tokenize: out of memory");
}

static int decode(struct tokenizer *tok, const struct options *o, const char *p, struct err *err)
{
    struct tok_ids ids = {0};
    struct tok_text text = {0};
    int r = 0;
    for (char *end; !r && (p += strspn(p, " ,[]\t\r\n"), *p); p = end) {
        long id = strtol(p, &end, 10);
        if (end == p || id < 0 || id >= tokenizer_vocab_size(tok)) {
            r = err_set(err, ERR_USAGE, "tokenize: '%.20s' is not a token id below %d", p,
                        tokenizer_vocab_size(tok));
            break;
        }
        int32_t *grown =
            ids.n < ids.cap ? ids.id : realloc(ids.id, (ids.cap * 2 + 64) * sizeof *grown);
        if (!grown) {
            r = err_set(err, ERR_NOMEM, "tokenize: out of memory");
            break;
        }
        ids.cap = ids.n < ids.cap ? ids.cap : ids.cap * 2 + 64;
        ids.id = grown;
        ids.id[ids.n++] = (int32_t)id;
    }
    r = r ? r : tokenizer_decode(tok, ids.id, ids.n, o->skip ? TOK_SKIP_SPECIAL : 0, &text, err);
    r = r ? r : put_text(o, &text, err);
    tok_ids_fini(&ids);
    tok_text_fini(&text);
    return r;
}

static int record(struct tokenizer *tok, const struct options *o, const char *p, size_t n,
                  struct err *err)
{
    if (o->decode)
        return decode(tok, o, p, err);
    if (!o->json)
        return encode(tok, o, p, n, err);
    json_error_t why;
    json_t *s = json_loadb(p, n, JSON_DECODE_ANY | JSON_ALLOW_NUL, &why);
    int r;
    if (!json_is_string(s))
        r = err_set(err, ERR_USAGE,
                    "tokenize: with --json each line is a JSON string; this is not: %.40s", p);
    else
        r = encode(tok, o, json_string_value(s), json_string_length(s), err);
    json_decref(s);
    return r;
}

static int run(const char *path, const struct options *o, struct err *err)
{
    struct tokenizer *tok;
    char *line = NULL;
    size_t cap = 0;
    int end = o->nul ? 0 : '\n', r = tokenizer_open(path, &tok, err);
    if (r)
        return r;
    for (ssize_t n; !r && (n = getdelim(&line, &cap, end, stdin)) >= 0;) {
        if (n > 0 && line[n - 1] == end)
            line[--n] = 0;
        r = record(tok, o, line, (size_t)n, err);
    }
    if (!r && (ferror(stdin) || fflush(stdout)))
        r = err_sys(err, ERR_IO, "tokenize: standard input or output");
    free(line);
    tokenizer_close(tok);
    return r;
}

int cmd_tokenize(int argc, char **argv)
{
    struct options o = {0};
    const struct opt opts[] = {
        {"decode", 'd', OPT_FLAG, &o.decode, NULL, "ids to text instead of text to ids", 0, 0},
        {"special", 's', OPT_FLAG, &o.special, NULL,
         "read \"<|im_end|>\" in the text as that token", 0, 0},
        {"add", 'a', OPT_FLAG, &o.add, NULL, "add what the model puts around a text (BOS, EOS)", 0,
         0},
        {"skip-special", 0, OPT_FLAG, &o.skip, NULL, "with --decode: leave special tokens out", 0,
         0},
        {"show", 'v', OPT_FLAG, &o.show, NULL, "write each id with the token as the file spells it",
         0, 0},
        {"json", 'j', OPT_FLAG, &o.json, NULL,
         "lines in are JSON strings, lines out JSON lists (--decode: strings)", 0, 0},
        {"null", '0', OPT_FLAG, &o.nul, NULL, "records end with NUL instead of a newline", 0, 0},
        {0},
    };
    const struct opt_command cmd = {
        "tokenize", "sigmoe tokenize MODEL [options] < TEXT",
        "Turns each line of standard input into token ids, one line each. MODEL is a folder with\n"
        "tokenizer.json, tokenizer.model or tok512.bin, or such a file.\n\n"
        "  echo 'Hello world' | sigmoe tokenize models/qwen3 --show\n"
        "  echo '9707 1879' | sigmoe tokenize models/qwen3 --decode",
        opts};
    const char *path = NULL;
    int n = 1;
    struct err err = {0};
    int r = opt_parse(&cmd, argc, argv, &path, &n, &err);
    if (r == 1)
        return 0;
    if (!r && n != 1)
        r = err_set(&err, ERR_USAGE, "tokenize: name the model; sigmoe help tokenize");
    r = r ? r : run(path, &o, &err);
    if (r)
        fprintf(stderr, "sigmoe: %s\n", err.text);
    return err_exit_code(r);
}

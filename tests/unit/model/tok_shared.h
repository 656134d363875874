/* tok_shared: the tokenizers of published models that lie in ../shared, opened for a test. */
#ifndef TESTS_UNIT_MODEL_TOK_SHARED_H
#define TESTS_UNIT_MODEL_TOK_SHARED_H

#include "model/tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#define SHARED_TOKENIZERS SHARED_DIR "/data/tokenizers"

static inline struct tokenizer *open_tok(const char *path)
{
    struct tokenizer *tok = NULL;
    struct err err = {0};
    if (tokenizer_open(path, &tok, &err))
        fail_msg("%s", err.text);
    return tok;
}

/* unpacked opens a tokenizer.json.xz by way of a scratch file. */
static inline struct tokenizer *unpacked(const char *name)
{
    char path[] = "/tmp/sigmoe_tok_XXXXXX.json", command[512];
    close(mkstemps(path, 5));
    snprintf(command, sizeof command, "xz -dc '" SHARED_TOKENIZERS "/%s.tokenizer.json.xz' > %s",
             name, path);
    if (system(command) != 0)
        fail_msg("cannot unpack with: %s", command);
    struct tokenizer *tok = open_tok(path);
    unlink(path);
    return tok;
}

#endif

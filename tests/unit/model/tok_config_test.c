/* What lies beside a tokenizer.json: BOS, EOS, the chat template, and the classes of transformers
 * that put BOS around a text whatever tokenizer.json says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/tokenizer.h"

#define FIXTURE TESTS_DIR "/fixtures/tokenizer/byte_fallback.json"
static const char *const files[] = {"tokenizer.json", "tokenizer_config.json",
                                    "generation_config.json", "config.json", "chat_template.jinja"};

struct dir {
    char path[64];
};

static void put(const struct dir *dir, const char *name, const char *text)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir->path, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static int setup(void **state)
{
    struct dir *dir = malloc(sizeof *dir);
    char copy[256];
    strcpy(dir->path, "/tmp/sigmoe-test-XXXXXX");
    *state = dir;
    if (!mkdtemp(dir->path))
        return -1;
    snprintf(copy, sizeof copy, "%s/tokenizer.json", dir->path);
    return symlink(FIXTURE, copy);
}

static int teardown(void **state)
{
    struct dir *dir = *state;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/%s", dir->path, files[i]);
        unlink(path);
    }
    rmdir(dir->path);
    free(dir);
    return 0;
}

static struct tokenizer *open_dir(const struct dir *dir)
{
    struct tokenizer *tok = NULL;
    struct err err = {0};
    if (tokenizer_open(dir->path, &tok, &err))
        fail_msg("%s", err.text);
    return tok;
}

static void bos_eos_and_template_come_from_tokenizer_config(void **state)
{
    struct dir *dir = *state;
    put(dir, "tokenizer_config.json",
        "{\"bos_token\":\"<s>\",\"eos_token\":{\"content\":\"</"
        "s>\"},\"model_max_length\":1000000000000000019884624838656,"
        "\"chat_template\":[{\"name\":\"tool_use\",\"template\":\"T\"},{\"name\":\"default\","
        "\"template\":\"D\"}]}");
    struct tokenizer *tok = open_dir(dir);
    size_t n;
    assert_int_equal(tokenizer_bos(tok), 1);
    assert_int_equal(tokenizer_eos(tok), 2);
    assert_int_equal(tokenizer_eos_ids(tok, &n)[0], 2);
    assert_int_equal(n, 1);
    assert_string_equal(tokenizer_chat_template(tok), "D");
    tokenizer_close(tok);
    put(dir, "chat_template.jinja", "{{ messages }}");
    tok = open_dir(dir);
    assert_string_equal(tokenizer_chat_template(tok), "{{ messages }}");
    tokenizer_close(tok);
}

static void generation_config_adds_ids_that_end_a_text(void **state)
{
    struct dir *dir = *state;
    put(dir, "tokenizer_config.json", "{\"eos_token\":\"</s>\"}");
    put(dir, "generation_config.json",
        "{\"bos_token_id\":1,\"eos_token_id\":[5,2,5,99999999,-3,4.5]}");
    put(dir, "config.json", "{\"eos_token_id\":7}");
    struct tokenizer *tok = open_dir(dir);
    size_t n;
    const int32_t *eos = tokenizer_eos_ids(tok, &n);
    assert_int_equal(n, 2);
    assert_int_equal(eos[0], 5);
    assert_int_equal(eos[1], 2);
    assert_int_equal(tokenizer_bos(tok), 1);
    tokenizer_close(tok);
}

static void config_json_is_asked_last(void **state)
{
    struct dir *dir = *state;
    put(dir, "config.json", "{\"bos_token_id\":1,\"eos_token_id\":7}");
    struct tokenizer *tok = open_dir(dir);
    assert_int_equal(tokenizer_eos(tok), 7);
    assert_int_equal(tokenizer_bos(tok), 1);
    assert_null(tokenizer_chat_template(tok));
    tokenizer_close(tok);
}

static size_t encoded(const struct dir *dir, int32_t *first, int32_t *last)
{
    struct tokenizer *tok = open_dir(dir);
    struct tok_ids ids = {0};
    assert_int_equal(tokenizer_encode(tok, "gate", 4, TOK_ADD_SPECIAL, &ids, NULL), 0);
    size_t n = ids.n;
    *first = ids.id[0];
    *last = ids.id[n - 1];
    tok_ids_fini(&ids);
    tokenizer_close(tok);
    return n;
}

static void llama_classes_put_bos_and_eos_by_their_own_switches(void **state)
{
    struct dir *dir = *state;
    int32_t first, last;
    size_t with = encoded(dir, &first, &last); /* the file's own template adds <s> */
    assert_int_equal(first, 1);
    put(dir, "tokenizer_config.json",
        "{\"tokenizer_class\":\"LlamaTokenizerFast\",\"bos_token\":\"<s>\",\"eos_token\":\"</"
        "s>\",\"add_bos_token\":false}");
    assert_int_equal(encoded(dir, &first, &last), with - 1);
    assert_int_not_equal(first, 1);
    put(dir, "tokenizer_config.json",
        "{\"tokenizer_class\":\"LlamaTokenizer\",\"bos_token\":\"<s>\",\"eos_token\":\"</"
        "s>\",\"add_eos_token\":true}");
    assert_int_equal(encoded(dir, &first, &last), with + 1);
    assert_int_equal(first, 1);
    assert_int_equal(last, 2);
    put(dir, "tokenizer_config.json",
        "{\"tokenizer_class\":\"PreTrainedTokenizerFast\",\"bos_token\":\"<s>\",\"add_bos_token\":"
        "false}");
    assert_int_equal(encoded(dir, &first, &last), with);
}

static void a_broken_config_is_refused(void **state)
{
    struct dir *dir = *state;
    struct tokenizer *tok = NULL;
    struct err err = {0};
    put(dir, "tokenizer_config.json", "{\"bos_token\":");
    assert_int_equal(tokenizer_open(dir->path, &tok, &err), ERR_MODEL);
    assert_non_null(strstr(err.text, "tokenizer_config.json"));
    assert_null(tok);
    put(dir, "tokenizer_config.json",
        "{\"tokenizer_class\":\"LlamaTokenizer\",\"bos_token\":\"<no such>\"}");
    err_clear(&err);
    assert_int_equal(tokenizer_open(dir->path, &tok, &err), ERR_MODEL);
    assert_null(tok);
}

static void a_folder_without_a_tokenizer_is_refused(void **state)
{
    (void)state;
    struct tokenizer *tok = NULL;
    struct err err = {0};
    assert_int_equal(tokenizer_open("/", &tok, &err), ERR_MODEL);
    assert_non_null(strstr(err.text, "tokenizer.json"));
    err_clear(&err);
    assert_int_equal(tokenizer_open("/no/such/folder", &tok, &err), ERR_IO);
    assert_null(tok);
}

#define IN_DIR(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_DIR(bos_eos_and_template_come_from_tokenizer_config),
        IN_DIR(generation_config_adds_ids_that_end_a_text),
        IN_DIR(config_json_is_asked_last),
        IN_DIR(llama_classes_put_bos_and_eos_by_their_own_switches),
        IN_DIR(a_broken_config_is_refused),
        cmocka_unit_test(a_folder_without_a_tokenizer_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

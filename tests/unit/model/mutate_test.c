/* mutate: safetensors files, index files and configs with random damage. Whatever the damage, the
 * reader answers with a model or with one line of error, and a tensor it hands out lies within the
 * file; the sanitizer builds watch the rest. The seed is fixed and printed. */
#include "base/rng.h"
#include "scratch.h"

#include <ctype.h>

#define SEED     20240611
#define N_ROUND  2000
#define MAX_FILE 65536

struct dice {
    uint64_t round, next;
};

static uint32_t roll(struct dice *d, uint32_t n)
{
    uint32_t word[4];
    rng_block(SEED, d->round, d->next++, word);
    return word[0] % n;
}

static const char *const spice[] = {"0",
                                    "-1",
                                    "18446744073709551615",
                                    "9223372036854775807",
                                    "1e308",
                                    "null",
                                    "true",
                                    "[]",
                                    "{}",
                                    "\"\"",
                                    "[[[[[[[[",
                                    "\"a\"",
                                    ",",
                                    ":",
                                    "\"F32\"",
                                    "4096",
                                    "65537",
                                    "\\u0000",
                                    "\xff",
                                    "0.5"};

/* digits_swap puts another number, of any length, in the place of one. */
static size_t digits_swap(struct dice *d, char *text, size_t n)
{
    size_t at = roll(d, (uint32_t)n), end;
    while (at < n && !isdigit((unsigned char)text[at]))
        at++;
    for (end = at; end < n && isdigit((unsigned char)text[end]);)
        end++;
    const char *number = spice[roll(d, sizeof(spice) / sizeof(spice[0]))];
    size_t len = strlen(number);
    if (at == n || n - (end - at) + len >= MAX_FILE)
        return n;
    memmove(text + at + len, text + end, n - end);
    memcpy(text + at, number, len);
    return n - (end - at) + len;
}

static size_t damage(struct dice *d, char *text, size_t n)
{
    for (uint32_t times = 1 + roll(d, 3); times > 0 && n > 1; times--) {
        size_t at = roll(d, (uint32_t)n), len = 1 + roll(d, 16);
        switch (roll(d, 5)) {
        case 0:
            text[at] = (char)roll(d, 256);
            break;
        case 1:
            text[at] = (char)(text[at] ^ 1 << roll(d, 8));
            break;
        case 2: /* a piece is lost */
            len = len < n - at ? len : n - at;
            memmove(text + at, text + at + len, n - at - len);
            n -= len;
            break;
        case 3: /* a piece comes twice */
            len = len < n - at ? len : n - at;
            if (n + len < MAX_FILE) {
                memmove(text + at + len, text + at, n - at);
                n += len;
            }
            break;
        default:
            n = digits_swap(d, text, n);
        }
    }
    return n;
}

static size_t file_get(const char *dir, const char *name, char *out)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    size_t n = fread(out, 1, MAX_FILE, f);
    fclose(f);
    assert_in_range(n, 1, MAX_FILE - 1);
    return n;
}

/* open_any opens the folder; what is accepted must be sound, what is refused one line. */
static int open_any(const char *dir, uint64_t file_bytes_max)
{
    struct model *model = NULL;
    struct err err = {0};
    int rc = model_open(dir, &model, &err);
    if (rc) {
        assert_null(model);
        assert_int_equal(err.code, rc);
        assert_in_range(strlen(err.text), 1, sizeof(err.text) - 1);
        for (const char *c = err.text; *c; c++)
            assert_true((unsigned char)*c >= 0x20);
        return 0;
    }
    /* A damaged table is found here or has no flaw; either way it is read to its end. */
    rc = model_check_tables(model, &err);
    assert_true(rc == 0 || rc == ERR_MODEL);
    unsigned sum = 0;
    assert_in_range(checkpoint_bytes(model->ck), 1, file_bytes_max);
    for (size_t i = 0; i < checkpoint_n_tensor(model->ck); i++) {
        const struct tensor *t = checkpoint_at(model->ck, i);
        assert_true(t->bytes < file_bytes_max);
        for (uint64_t k = 0; k < t->bytes; k++)
            sum += ((const unsigned char *)t->data)[k];
    }
    assert_true(sum > 0);
    model_close(model);
    return 1;
}

/* mutate_file damages `name` N_ROUND times from its sound state; some damage must be refused, and
 * some must be accepted (bytes of weights, spare keys), or the damage is of one kind only. */
static void mutate_file(const char *dir, const char *name, size_t header_only)
{
    static char sound[MAX_FILE], damaged[MAX_FILE];
    size_t n = file_get(dir, name, sound);
    int accepted = 0;
    for (uint64_t round = 0; round < N_ROUND; round++) {
        struct dice d = {round + strlen(name) * 1000000, 0};
        memcpy(damaged, sound, n);
        size_t part = header_only && roll(&d, 4) ? header_only : n;
        size_t m = damage(&d, damaged, part);
        memmove(damaged + m, sound + part, m + n - part < MAX_FILE ? n - part : 0);
        m += m + n - part < MAX_FILE ? n - part : 0;
        file_put(dir, name, damaged, m);
        accepted += open_any(dir, 4 * MAX_FILE);
    }
    print_message("%s: seed %d, %d rounds, %d accepted\n", name, SEED, N_ROUND, accepted);
    assert_in_range(accepted, 1, N_ROUND - N_ROUND / 10);
    file_put(dir, name, sound, n);
    assert_int_equal(open_any(dir, 4 * MAX_FILE), 1);
}

static void damaged_safetensors_never_crash(void **state)
{
    (void)state;
    static char text[MAX_FILE];
    char dir[64];
    scratch_make(dir);
    checkpoint_make(dir, CONFIG_OLMOE, DTYPE_BF16, 0);
    file_get(dir, "model.safetensors", text);
    size_t header = 8 + (size_t)(unsigned char)text[0] + ((size_t)(unsigned char)text[1] << 8);
    mutate_file(dir, "model.safetensors", header);
    scratch_clear(dir);
}

static void damaged_domains_never_crash(void **state)
{
    (void)state;
    char dir[64];
    scratch_make(dir);
    checkpoint_make(dir, CONFIG_PANGU, DTYPE_BF16, 0);
    mutate_file(dir, "config.json", 0);
    scratch_clear(dir);
}

static void damaged_configs_never_crash(void **state)
{
    (void)state;
    char dir[64];
    scratch_make(dir);
    checkpoint_make(dir, CONFIG_QWEN2_MOE, DTYPE_BF16, 0);
    static const char config[] =
        "{\"model_type\": \"qwen2_moe\", " CONFIG_HEAD
        "\"head_dim\": 6, \"intermediate_size\": 18, \"moe_intermediate_size\": 7, "
        "\"shared_expert_intermediate_size\": 9, \"num_experts\": 5, \"num_experts_per_tok\": 2, "
        "\"mlp_only_layers\": [1], \"eos_token_id\": [3, 4], \"rope_scaling\": {\"rope_type\": "
        "\"yarn\", \"factor\": 4.0, \"beta_fast\": 8}, \"rms_norm_eps\": 1e-6, "
        "\"sliding_window\": 9, \"use_sliding_window\": true, \"max_window_layers\": 2}";
    text_put(dir, "config.json", config);
    mutate_file(dir, "config.json", 0);
    scratch_clear(dir);
}

static void damaged_indexes_never_crash(void **state)
{
    (void)state;
    char dir[64];
    scratch_make(dir);
    checkpoint_make(dir, CONFIG_OLMOE, DTYPE_BF16, 4096);
    mutate_file(dir, "model.safetensors.index.json", 0);
    scratch_clear(dir);
}

static void a_file_cut_anywhere_is_refused(void **state)
{
    (void)state;
    static char text[MAX_FILE];
    char dir[64];
    scratch_make(dir);
    checkpoint_make(dir, CONFIG_OLMOE, DTYPE_BF16, 0);
    size_t n = file_get(dir, "model.safetensors", text);
    for (size_t cut = 0; cut < n; cut += 1 + cut / 64) {
        file_put(dir, "model.safetensors", text, cut);
        assert_int_equal(open_any(dir, MAX_FILE), 0);
    }
    scratch_clear(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(damaged_safetensors_never_crash),
        cmocka_unit_test(damaged_configs_never_crash),
        cmocka_unit_test(damaged_domains_never_crash),
        cmocka_unit_test(damaged_indexes_never_crash),
        cmocka_unit_test(a_file_cut_anywhere_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

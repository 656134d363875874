/* extract_tokenizer: the files of the tokenizer for the submodel. With the whole vocabulary they
 * are copies. With a smaller one tokenizer.json is written anew: tokens that stay under their new
 * ids, merges whose parts and result all stay, ids in added tokens and templates renumbered; files
 * that say the same in another format (vocab.json, merges.txt, tokenizer.model) are left out. */
#include "model/json.h"
#include "tools/eval.h"
#include "tools/extract.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* renumber: the new id of an id of a file, or -1. */
static int32_t renumber(const struct extract *u, const json_t *id)
{
    json_int_t old = json_integer_value(id);
    return json_is_integer(id) && old >= 0 && old < u->full->desc.vocab ? u->new_id[old] : -1;
}

/* renumber_list: a list of ids; those that went away go from the list. */
static json_t *renumber_list(const struct extract *u, const json_t *list)
{
    json_t *out = json_array(), *item;
    size_t i;
    json_array_foreach(list, i, item)
    {
        int32_t id = renumber(u, item);
        if (id >= 0)
            json_array_append_new(out, json_integer(id));
    }
    return out;
}

void extract_ids(const struct extract *u, json_t *root)
{
    const char *key;
    json_t *value;
    void *next;
    json_object_foreach_safe(root, next, key, value)
    {
        size_t n = strlen(key);
        int one = n >= 8 && strcmp(key + n - 8, "token_id") == 0;
        int many = n >= 15 && strcmp(key + n - 15, "suppress_tokens") == 0;
        if (one && json_is_integer(value)) {
            int32_t id = renumber(u, value);
            json_object_set_new(root, key, id >= 0 ? json_integer(id) : json_null());
        } else if ((one || many) && json_is_array(value)) {
            json_object_set_new(root, key, renumber_list(u, value));
        }
    }
}

/* ---- tokenizer.json ---- */

static void vocab_object(const struct extract *u, json_t *model)
{
    json_t *old = json_object_get(model, "vocab"), *out = json_object(), *id;
    const char **text = calloc((size_t)u->n_kept + 1, sizeof(*text)), *key;
    json_object_foreach(old, key, id)
    {
        int32_t new_id = renumber(u, id);
        if (text && new_id >= 0)
            text[new_id] = key;
    }
    for (int i = 0; text && i < u->n_kept; i++)
        if (text[i])
            json_object_set_new(out, text[i], json_integer(i));
    free(text);
    json_object_set_new(model, "vocab", out);
}

/* vocab_array: Unigram's list of [piece, score], whose places are the ids. */
static void vocab_array(const struct extract *u, json_t *model)
{
    json_t *old = json_object_get(model, "vocab"), *out = json_array();
    for (int i = 0; i < u->n_kept; i++) {
        json_t *piece = json_array_get(old, (size_t)u->kept[i]);
        if (piece)
            json_array_append(out, piece);
    }
    json_object_set_new(model, "vocab", out);
    const json_t *unk = json_object_get(model, "unk_id");
    if (json_is_integer(unk))
        json_object_set_new(model, "unk_id", json_integer(renumber(u, unk)));
}

static int has(const json_t *vocab, const char *text, size_t n)
{
    return json_object_getn(vocab, text, n) != NULL;
}

/* merge_stays: both parts and the whole are in the new vocabulary. */
static int merge_stays(const json_t *vocab, const json_t *merge)
{
    char whole[16384];
    const char *left, *right;
    size_t n_left, n_right;
    if (json_is_array(merge)) {
        left = json_string_value(json_array_get(merge, 0));
        right = json_string_value(json_array_get(merge, 1));
        n_left = left ? strlen(left) : 0;
    } else {
        left = json_string_value(merge);
        const char *space = left ? strchr(left, ' ') : NULL;
        right = space ? space + 1 : NULL;
        n_left = space ? (size_t)(space - left) : 0;
    }
    n_right = right ? strlen(right) : 0;
    if (n_left == 0 || n_right == 0 || n_left + n_right > sizeof(whole))
        return 0;
    memcpy(whole, left, n_left);
    memcpy(whole + n_left, right, n_right);
    return has(vocab, left, n_left) && has(vocab, right, n_right) &&
           has(vocab, whole, n_left + n_right);
}

static void merges_rewrite(json_t *model)
{
    const json_t *vocab = json_object_get(model, "vocab");
    json_t *old = json_object_get(model, "merges"), *out = json_array(), *merge;
    size_t i;
    json_array_foreach(old, i, merge)
    {
        if (merge_stays(vocab, merge))
            json_array_append(out, merge);
    }
    json_object_set_new(model, "merges", out);
}

/* stages_rewrite renumbers the ids in a post-processor, however deep: "ids" of templates, and the
 * [token, id] of "sep" and "cls". */
static void stages_rewrite(const struct extract *u, json_t *stage)
{
    const char *key;
    json_t *value;
    void *next;
    size_t i;
    json_array_foreach(stage, i, value) stages_rewrite(u, value);
    json_object_foreach_safe(stage, next, key, value)
    {
        json_t *id = json_array_get(value, 1);
        if (strcmp(key, "ids") == 0 && json_is_array(value))
            json_object_set_new(stage, key, renumber_list(u, value));
        else if ((strcmp(key, "sep") == 0 || strcmp(key, "cls") == 0) && json_is_integer(id))
            json_array_set_new(value, 1, json_integer(renumber(u, id)));
        else
            stages_rewrite(u, value);
    }
}

static void added_rewrite(const struct extract *u, json_t *root)
{
    json_t *added;
    size_t i;
    json_array_foreach(json_object_get(root, "added_tokens"), i, added)
        json_object_set_new(added, "id", json_integer(renumber(u, json_object_get(added, "id"))));
    json_t *padding = json_object_get(root, "padding"), *pad = json_object_get(padding, "pad_id");
    if (json_is_integer(pad))
        json_object_set_new(padding, "pad_id", json_integer(renumber(u, pad)));
}

static void tokenizer_rewrite(const struct extract *u, json_t *root)
{
    json_t *model = json_object_get(root, "model");
    if (json_is_array(json_object_get(model, "vocab")))
        vocab_array(u, model);
    else
        vocab_object(u, model);
    if (json_object_get(model, "merges"))
        merges_rewrite(model);
    stages_rewrite(u, json_object_get(root, "post_processor"));
    added_rewrite(u, root);
}

/* decoder_rewrite: tokenizer_config.json lists added tokens by id. */
static void decoder_rewrite(const struct extract *u, json_t *root)
{
    json_t *old = json_object_get(root, "added_tokens_decoder"), *out = json_object(), *value;
    const char *key;
    json_object_foreach(old, key, value)
    {
        json_t *id = json_integer(strtol(key, NULL, 10));
        int32_t new_id = renumber(u, id);
        char text[16];
        snprintf(text, sizeof(text), "%d", new_id);
        if (new_id >= 0)
            json_object_set(out, text, value);
        json_decref(id);
    }
    if (old)
        json_object_set_new(root, "added_tokens_decoder", out);
    else
        json_decref(out);
}

/* integers_restore: whole numbers that were read as reals are integers again, but for those that no
 * integer holds: published files say model_max_length 10^30. */
static json_t *integers_restore(json_t *value)
{
    json_t *item;
    const char *key;
    void *next;
    size_t i;
    double real = json_real_value(value);
    if (json_is_real(value) && fabs(real) < 0x1p53 && floor(real) == real)
        return json_integer((json_int_t)real);
    json_array_foreach(value, i, item) json_array_set_new(value, i, integers_restore(item));
    json_object_foreach_safe(value, next, key, item)
        json_object_set_new(value, key, integers_restore(item));
    return json_incref(value);
}

static json_t *text_parse(const char *text, size_t bytes, json_error_t *why)
{
    json_t *root = json_loadb(text, bytes, JSON_ALLOW_NUL, why);
    if (root)
        return root;
    json_t *reals = json_loadb(text, bytes, JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, why);
    root = reals ? integers_restore(reals) : NULL;
    json_decref(reals);
    return root;
}

/* file_rewrite reads DIR/name, lets `edit` change it and writes it; a file that is absent stays so.
 */
static int file_rewrite(struct extract *u, const char *name,
                        void (*edit)(const struct extract *u, json_t *root))
{
    char path[4352], *text;
    size_t bytes;
    json_error_t why;
    snprintf(path, sizeof(path), "%s/%s", u->dir, name);
    if (file_read(path, LIMIT_JSON_BYTES, &text, &bytes, NULL) != 0)
        return 0;
    json_t *root = text_parse(text, bytes, &why);
    free(text);
    if (!root)
        return err_set(u->err, ERR_MODEL, "%s: line %d: %s", path, why.line, why.text);
    edit(u, root);
    return copy_json(&u->copy, name, root);
}

int extract_tokenizer(struct extract *u)
{
    static const char *const rewritten[] = {"tokenizer.json",
                                            "tokenizer_config.json",
                                            "generation_config.json",
                                            "tokenizer.model",
                                            "tok512.bin",
                                            "added_tokens.json",
                                            "vocab.json",
                                            "merges.txt",
                                            NULL};
    if (!u->kept)
        return copy_companions(&u->copy, u->dir, NULL);
    int rc = file_rewrite(u, "tokenizer.json", tokenizer_rewrite);
    if (rc == 0)
        rc = file_rewrite(u, "tokenizer_config.json", decoder_rewrite);
    if (rc == 0)
        rc = file_rewrite(u, "generation_config.json", extract_ids);
    return rc ? rc : copy_companions(&u->copy, u->dir, rewritten);
}

/* ---- the check ---- */

static int same_ids(const struct extract *u, const struct tok_ids *old, const struct tok_ids *new)
{
    if (old->n != new->n)
        return 0;
    for (size_t i = 0; i < old->n; i++)
        if (new->id[i] < 0 || new->id[i] >= u->n_kept || u->kept[new->id[i]] != old->id[i])
            return 0;
    return 1;
}

int extract_tokenizer_check(struct extract *u)
{
    struct tokenizer *tok = NULL;
    struct eval_text a = {0}, b = {0};
    struct tok_ids old = {0}, new = {0};
    if (!u->kept)
        return 0;
    int rc = tokenizer_open(ck_writer_path(u->copy.writer), &tok, u->err);
    if (rc == 0)
        rc = eval_text_open(&a, u->trim_path, u->tok, 0, u->err);
    if (rc == 0)
        rc = eval_text_open(&b, u->trim_path, tok, 0, u->err);
    int more = rc == 0;
    while (rc == 0 && more == 1) {
        old.n = new.n = 0;
        more = eval_text_more(&a, &old, u->err);
        int other = more < 0 ? more : eval_text_more(&b, &new, u->err);
        if (other < 0)
            rc = other;
        else if (!same_ids(u, &old, &new))
            rc = err_set(u->err, ERR_MODEL,
                         "the smaller tokenizer reads %s otherwise than the whole one; leave out "
                         "--trim-vocab",
                         u->trim_path);
    }
    tok_ids_fini(&old);
    tok_ids_fini(&new);
    eval_text_close(&a);
    eval_text_close(&b);
    tokenizer_close(tok);
    return rc;
}

/* extract_vocab: which tokens a domain needs. Its text tells; besides, everything stays that
 * another text of the domain may need to be written at all (single bytes or characters) and
 * everything that has a meaning by its id (specials, added tokens, ids in the configs). */
#include "model/json.h"
#include "tools/eval.h"
#include "tools/extract.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct vocab {
    struct extract *u;
    uint8_t *keep; /* [n] */
    int n;         /* of the full model's vocabulary */
    json_t *root;  /* tokenizer.json */
};

static void mark(struct vocab *v, json_int_t id)
{
    if (id >= 0 && id < v->n)
        v->keep[id] = 1;
}

static int mark_text(struct vocab *v)
{
    struct eval_text text;
    struct tok_ids ids = {0};
    int rc = eval_text_open(&text, v->u->trim_path, v->u->tok, 0, v->u->err);
    if (rc)
        return rc;
    while ((rc = eval_text_more(&text, &ids, v->u->err)) == 1) {
        for (size_t i = 0; i < ids.n; i++)
            mark(v, ids.id[i]);
        ids.n = 0;
    }
    if (rc == 0 && text.n_byte == 0)
        rc = err_set(v->u->err, ERR_USAGE, "%s is empty: --trim-vocab needs a text of the domain",
                     v->u->trim_path);
    tok_ids_fini(&ids);
    eval_text_close(&text);
    return rc;
}

/* mark_template: the words of the chat template, such as the names of roles. */
static int mark_template(struct vocab *v)
{
    struct tok_ids ids = {0};
    const char *text = tokenizer_chat_template(v->u->tok);
    int rc =
        text ? tokenizer_encode(v->u->tok, text, strlen(text), TOK_PARSE_SPECIAL, &ids, v->u->err)
             : 0;
    for (size_t i = 0; i < ids.n; i++)
        mark(v, ids.id[i]);
    tok_ids_fini(&ids);
    return rc;
}

/* mark_config: every id that a config gives a meaning. */
static void mark_config(struct vocab *v, json_t *root)
{
    const char *key;
    json_t *value, *item;
    size_t i;
    json_object_foreach(root, key, value)
    {
        size_t n = strlen(key);
        if (n < 8 || strcmp(key + n - 8, "token_id") != 0)
            continue;
        if (json_is_integer(value))
            mark(v, json_integer_value(value));
        json_array_foreach(value, i, item) mark(v, json_integer_value(item));
    }
}

static int mark_configs(struct vocab *v)
{
    static const char *const names[] = {"config.json", "generation_config.json"};
    for (int i = 0; i < 2; i++) {
        char path[4352], *text;
        size_t bytes;
        json_t *root;
        snprintf(path, sizeof(path), "%s/%s", v->u->dir, names[i]);
        if (file_read(path, LIMIT_JSON_BYTES, &text, &bytes, NULL) != 0)
            continue; /* the second one need not be there */
        int rc = json_parse_object(text, bytes, LIMIT_JSON_BYTES, path, &root, v->u->err);
        free(text);
        if (rc)
            return rc;
        mark_config(v, root);
        json_decref(root);
    }
    return 0;
}

/* is_letter: one character, or a byte written "<0x0A>". */
static int is_letter(const char *text)
{
    size_t n = 1;
    while (((unsigned char)text[n] & 0xc0) == 0x80)
        n++;
    return text[0] && (!text[n] || (strncmp(text, "<0x", 3) == 0 && strlen(text) == 6));
}

/* letter_stays: every letter, unless bytes can stand in for it: letters that the text does not use
 * are most of a Chinese vocabulary. */
static int letter_stays(const char *text, int byte_fallback)
{
    return is_letter(text) && (!byte_fallback || text[0] == '<');
}

static void mark_letters(struct vocab *v)
{
    json_t *model = json_object_get(v->root, "model"), *list = json_object_get(model, "vocab"),
           *value;
    int bytes = json_is_true(json_object_get(model, "byte_fallback"));
    const char *text;
    size_t i;
    if (json_is_array(list)) {
        json_array_foreach(list, i, value)
        {
            text = json_string_value(json_array_get(value, 0));
            if (text && letter_stays(text, bytes))
                mark(v, (json_int_t)i);
        }
        return;
    }
    json_object_foreach(list, text, value)
    {
        if (letter_stays(text, bytes))
            mark(v, json_integer_value(value));
    }
}

static void mark_added(struct vocab *v)
{
    json_t *model = json_object_get(v->root, "model"), *added;
    const char *unk = json_string_value(json_object_get(model, "unk_token"));
    size_t i;
    json_array_foreach(json_object_get(v->root, "added_tokens"), i, added)
        mark(v, json_integer_value(json_object_get(added, "id")));
    if (unk)
        mark(v, tokenizer_id_of(v->u->tok, unk, strlen(unk)));
    if (json_is_integer(json_object_get(model, "unk_id")))
        mark(v, json_integer_value(json_object_get(model, "unk_id")));
}

static int close_merges(struct vocab *v)
{
    json_t *model = json_object_get(v->root, "model");
    return json_object_get(model, "merges") ? extract_merges(model, v->keep, v->n, v->u->err) : 0;
}

/* expert_token: a token that the table of one layer and domain gives to expert e: a kept one, or
 * the lowest (*kept 0); -1 when there is none. */
static int expert_token(const struct vocab *v, const uint16_t *row, int e, int *kept)
{
    int k = v->u->full->desc.top_k, lowest = -1;
    *kept = 0;
    for (int t = 0; t < v->n && !*kept; t++) {
        for (int j = 0; j < k; j++) {
            if (row[(size_t)t * (size_t)k + (size_t)j] != e)
                continue;
            *kept = v->keep[t];
            lowest = lowest < 0 || *kept ? t : lowest;
        }
    }
    return lowest;
}

/* mark_experts: a table must give every expert a token, in the submodel too. */
static int mark_experts(struct vocab *v)
{
    const struct model_desc *d = &v->u->full->desc;
    size_t width = (size_t)d->vocab * (size_t)d->top_k;
    for (int layer = 0; layer < d->n_layer; layer++) {
        const struct tensor *t;
        if (!d->layer[layer].sparse)
            continue;
        int rc = checkpoint_role(v->u->full->ck, d, ROLE_ROUTING_TABLE, layer, 0, &t, v->u->err);
        if (rc)
            return rc;
        for (int i = 0; i < v->u->n_domain; i++) {
            int domain = v->u->domain[i], kept;
            const uint16_t *row = (const uint16_t *)t->data + (size_t)domain * width;
            for (int e = 0; e < d->domain[domain].n_expert; e++)
                mark(v, expert_token(v, row, e, &kept));
        }
    }
    return 0;
}

static int tokenizer_load(struct vocab *v)
{
    char path[4352], *text;
    size_t bytes;
    snprintf(path, sizeof(path), "%s/tokenizer.json", v->u->dir);
    if (!v->u->tok || file_read(path, LIMIT_JSON_BYTES, &text, &bytes, NULL) != 0)
        return err_set(v->u->err, ERR_USAGE,
                       "--trim-vocab rewrites tokenizer.json, and %s has none", v->u->dir);
    int rc = json_parse_object(text, bytes, LIMIT_JSON_BYTES, path, &v->root, v->u->err);
    free(text);
    return rc;
}

/* number fills kept and new_id from the marks. Rows without a token in the tokenizer go. */
static int number(struct vocab *v)
{
    struct extract *u = v->u;
    u->kept = calloc((size_t)v->n + 1, sizeof(*u->kept));
    u->new_id = calloc((size_t)v->n + 1, sizeof(*u->new_id));
    if (!u->kept || !u->new_id)
        return err_set(u->err, ERR_NOMEM, "no memory for %d tokens", v->n);
    for (int id = 0; id < v->n; id++) {
        size_t length;
        int stays = v->keep[id] && tokenizer_token(u->tok, id, &length);
        u->new_id[id] = stays ? u->n_kept : -1;
        if (stays)
            u->kept[u->n_kept++] = id;
    }
    return 0;
}

int extract_vocab(struct extract *u)
{
    struct vocab v = {.u = u, .n = u->full->desc.vocab};
    if (!u->trim_path)
        return 0;
    int rc = tokenizer_load(&v);
    if (rc)
        return rc;
    v.keep = calloc((size_t)v.n + 1, 1);
    if (!v.keep)
        rc = err_set(u->err, ERR_NOMEM, "no memory for %d tokens", v.n);
    if (rc == 0)
        rc = mark_text(&v);
    if (rc == 0)
        rc = mark_template(&v);
    if (rc == 0)
        rc = mark_configs(&v);
    if (rc == 0) {
        mark_added(&v);
        mark_letters(&v);
        rc = mark_experts(&v);
    }
    if (rc == 0)
        rc = close_merges(&v);
    if (rc == 0)
        rc = number(&v);
    free(v.keep);
    json_decref(v.root);
    return rc;
}

/* What lies beside a tokenizer: tokenizer_config.json (BOS, EOS, chat template),
 * generation_config.json and config.json (more ids that end a text), chat_template.jinja. An id
 * that the vocabulary does not hold is left out: models are published with such ids. */
#include "model/tok_impl.h"
#include "model/tok_load.h"
#include <math.h>
#include <stdlib.h>

static int read_json(const char *dir, const char *name, json_t **out, struct err *err)
{
    char *bytes;
    size_t n;
    json_error_t why;
    *out = NULL;
    int r = tok_read_file(dir, name, true, &bytes, &n, err);
    if (r || !bytes)
        return r;
    /* as reals: published files say model_max_length 10^30 */
    *out = json_loadb(bytes, n, JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, &why);
    free(bytes);
    if (!*out)
        return err_set(err, ERR_MODEL, "%s/%s: line %d: %s; fix or remove the file", dir, name,
                       why.line, why.text);
    return 0;
}

/* A token is written as a string or as {"content": …}. */
static int32_t token_of(const struct tokenizer *tok, json_t *config, const char *key)
{
    json_t *value = json_object_get(config, key);
    if (json_is_object(value))
        value = json_object_get(value, "content");
    if (!json_is_string(value))
        return -1;
    return tok_vocab_raw(&tok->vocab, json_string_value(value), json_string_length(value));
}

/* id_of: a number that is a token's id, else -1. */
static int32_t id_of(const struct tokenizer *tok, json_t *value)
{
    double id = json_number_value(value);
    bool fits = json_is_number(value) && id >= 0 && id < (double)tok->vocab.n && id == floor(id);
    return fits && tok_vocab_has(&tok->vocab, (int32_t)id) ? (int32_t)id : -1;
}

static int add_eos(struct tokenizer *tok, int32_t id, struct err *err)
{
    for (size_t i = 0; i < tok->eos_ids.n; i++)
        if (tok->eos_ids.id[i] == id)
            return 0;
    return id >= 0 && tok_ids_add(&tok->eos_ids, id) ? tok_nomem(err) : 0;
}

/* eos_token_id is a number or a list. */
static int take_ids(struct tokenizer *tok, json_t *config, struct err *err)
{
    json_t *eos = json_object_get(config, "eos_token_id");
    int r = json_is_array(eos) ? 0 : add_eos(tok, id_of(tok, eos), err);
    if (tok->bos < 0)
        tok->bos = id_of(tok, json_object_get(config, "bos_token_id"));
    for (size_t i = 0; !r && i < json_array_size(eos); i++)
        r = add_eos(tok, id_of(tok, json_array_get(eos, i)), err);
    return r;
}

static int take_template(struct tokenizer *tok, const char *p, size_t n, struct err *err)
{
    char *copy = malloc(n + 1);
    if (!copy)
        return tok_nomem(err);
    memcpy(copy, p, n);
    copy[n] = 0;
    free(tok->chat_template);
    tok->chat_template = copy;
    return 0;
}

/* chat_template is a string, or a list of {"name", "template"} of which "default" counts. */
static int template_of(struct tokenizer *tok, json_t *config, struct err *err)
{
    json_t *value = json_object_get(config, "chat_template"), *item;
    size_t i;
    json_array_foreach(value, i, item)
    {
        const char *name = json_string_value(json_object_get(item, "name"));
        if (name && strcmp(name, "default") == 0) {
            value = json_object_get(item, "template");
            break;
        }
    }
    if (!json_is_string(value))
        return 0;
    return take_template(tok, json_string_value(value), json_string_length(value), err);
}

/* The Llama, Gemma and Cohere classes of transformers put BOS and EOS around a text by their own
 * switches, whatever tokenizer.json says; models (DeepSeek V3) rely on it. */
static int class_template(struct tokenizer *tok, json_t *config, int32_t bos, int32_t eos,
                          struct err *err)
{
    static const char *const classes[] = {"LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer",
                                          "CohereTokenizer"};
    const char *class = json_string_value(json_object_get(config, "tokenizer_class"));
    bool known = false, add_bos, add_eos_too;
    for (size_t i = 0; class && i < sizeof classes / sizeof *classes; i++) {
        size_t n = strlen(classes[i]);
        known = known || (strncmp(class, classes[i], n) == 0 &&
                          (!class[n] || strcmp(class + n, "Fast") == 0));
    }
    if (!known)
        return 0;
    int r = load_bool(config, "add_bos_token", 1, &add_bos, err);
    r = r ? r : load_bool(config, "add_eos_token", 0, &add_eos_too, err);
    if (r)
        return r;
    if ((add_bos && bos < 0) || (add_eos_too && eos < 0))
        return err_set(err, ERR_MODEL,
                       "tokenizer_config.json: add_bos_token or add_eos_token is set, but "
                       "there is no such token in the vocabulary");
    tok->before.n = tok->after.n = 0;
    if ((add_bos && tok_ids_add(&tok->before, bos)) ||
        (add_eos_too && tok_ids_add(&tok->after, eos)))
        return tok_nomem(err);
    return 0;
}

static int take_config(struct tokenizer *tok, json_t *config, struct err *err)
{
    int32_t bos = token_of(tok, config, "bos_token"), eos = token_of(tok, config, "eos_token");
    tok->bos = bos >= 0 ? bos : tok->bos;
    tok->eos = eos >= 0 ? eos : tok->eos;
    int r = class_template(tok, config, tok->bos, tok->eos, err);
    return r ? r : template_of(tok, config, err);
}

int tok_open_config(struct tokenizer *tok, const char *dir, struct err *err)
{
    json_t *config = NULL, *generation = NULL, *model = NULL;
    char *jinja = NULL;
    size_t n;
    int r = read_json(dir, "tokenizer_config.json", &config, err);
    if (!r && config)
        r = take_config(tok, config, err);
    r = r ? r : read_json(dir, "generation_config.json", &generation, err);
    r = r ? r : take_ids(tok, generation, err);
    if (!r && tok->eos >= 0)
        r = add_eos(tok, tok->eos, err);
    if (!r && tok->eos_ids.n == 0) { /* config.json is the least kept of the three */
        r = read_json(dir, "config.json", &model, err);
        r = r ? r : take_ids(tok, model, err);
    }
    if (!r && tok->eos < 0 && tok->eos_ids.n)
        tok->eos = tok->eos_ids.id[0];
    r = r ? r : tok_read_file(dir, "chat_template.jinja", true, &jinja, &n, err);
    if (!r && jinja)
        r = take_template(tok, jinja, n, err);
    free(jinja);
    json_decref(config);
    json_decref(generation);
    json_decref(model);
    return r;
}

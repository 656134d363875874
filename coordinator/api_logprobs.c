/* api_logprobs: probabilities of tokens, in the forms of completions, of chat, and of vLLM's
 * prompt_logprobs. In each the entry of the token itself is the identical number wherever it
 * occurs: evaluation harnesses compare them. */
#include "coordinator/api_job.h"

#include <stdio.h>
#include <string.h>

/* ---- tokens ---------------------------------------------------------------------------------- */

/* The token as clients print it: its text, "bytes:\xe4\xbd" where it is not whole characters, or
 * "token_id:5" when asked for. */
static json_t *token_text(const struct api_job *j, int32_t token, json_t **bytes)
{
    struct tok_text t = {0};
    char text[6 + 4 * 64 + 1] = "bytes:";
    tokenizer_token_bytes(j->api->tok, token, &t, NULL);
    if (bytes != NULL) {
        *bytes = json_array();
        for (size_t i = 0; i < t.n; i++) {
            json_array_append_new(*bytes, json_integer((unsigned char)t.p[i]));
        }
    }
    json_t *s = NULL;
    if (j->tokens_as_ids) {
        snprintf(text, sizeof text, "token_id:%d", (int)token);
        s = json_string(text);
    } else {
        s = json_stringn(t.p != NULL ? t.p : "", t.n);
    }
    for (size_t i = 0, at = 6; s == NULL && i < t.n && i < 64; i++, at += 4) {
        snprintf(text + at, 5, "\\x%02x", (unsigned char)t.p[i]);
    }
    tok_text_fini(&t);
    return s != NULL ? s : json_string(text);
}

/* ---- collecting ------------------------------------------------------------------------------ */

void logprobs_free(struct api_choice *c)
{
    json_decref(c->tokens);
    json_decref(c->token_logprobs);
    json_decref(c->top_logprobs);
    json_decref(c->text_offset);
    json_decref(c->content);
}

void logprobs_reset(struct api_choice *c)
{
    logprobs_free(c);
    c->tokens = json_array();
    c->token_logprobs = json_array();
    c->top_logprobs = json_array();
    c->text_offset = json_array();
    c->content = json_array();
}

static json_t *chat_entry(const struct api_job *j, const struct token_logprob *t)
{
    json_t *bytes, *text = token_text(j, t->token, &bytes);
    return json_pack("{s:o,s:f,s:o}", "token", text, "logprob", t->logprob, "bytes", bytes);
}

static void add_chat(struct api_choice *c, const struct position_logprob *p)
{
    const struct api_job *j = c->job;
    json_t *entry = chat_entry(j, &p->at), *top = json_array();
    for (int i = 0; i < p->n_top && i < j->n_logprobs; i++) {
        json_array_append_new(top, chat_entry(j, &p->top[i]));
    }
    json_object_set_new(entry, "top_logprobs", top);
    json_array_append_new(c->content, entry);
}

/* p NULL: the prompt's first token, which has no probability. */
static void add_text(struct api_choice *c, int32_t token, size_t offset,
                     const struct position_logprob *p)
{
    const struct api_job *j = c->job;
    json_t *text = token_text(j, token, NULL), *top = p != NULL ? json_object() : json_null();
    for (int i = 0; p != NULL && i < p->n_top && i < j->n_logprobs; i++) {
        json_t *key = token_text(j, p->top[i].token, NULL);
        json_object_set_new(top, json_string_value(key), json_real(p->top[i].logprob));
        json_decref(key);
    }
    if (p != NULL) {
        /* The chosen token is in the map even when it is not among the likeliest. */
        json_object_set_new(top, json_string_value(text), json_real(p->at.logprob));
    }
    json_array_append_new(c->tokens, text);
    json_array_append_new(c->token_logprobs, p != NULL ? json_real(p->at.logprob) : json_null());
    json_array_append_new(c->top_logprobs, top);
    json_array_append_new(c->text_offset, json_integer((json_int_t)offset));
}

void logprobs_add(struct api_choice *c, int32_t token, size_t offset,
                  const struct position_logprob *p)
{
    if (c->job->chat) {
        add_chat(c, p);
    } else {
        add_text(c, token, offset + c->job->prompt[c->prompt].n_char, p);
    }
}

void logprobs_echo(struct api_choice *c, const struct api_prompt *p,
                   const struct position_logprob *entry)
{
    struct detok *detok = NULL;
    const char *text;
    size_t offset = 0, n;
    if (detok_create(c->job->api->tok, TOK_SKIP_SPECIAL, &detok, NULL) != 0) {
        return;
    }
    for (size_t i = 0; i < p->ids.n; i++) {
        add_text(c, p->ids.id[i], offset, i > 0 ? &entry[i - 1] : NULL);
        if (detok_push(detok, p->ids.id[i], &text, &n, NULL) == 0) {
            for (size_t k = 0; k < n; k++) {
                offset += ((unsigned char)text[k] & 0xc0) != 0x80;
            }
        }
    }
    detok_destroy(detok);
}

/* ---- telling --------------------------------------------------------------------------------- */

json_t *logprobs_of(const struct api_choice *c)
{
    if (c->job->n_logprobs < 0) {
        return json_null();
    }
    if (c->job->chat) {
        return json_pack("{s:O,s:n}", "content", c->content, "refusal");
    }
    return json_pack("{s:O,s:O,s:O,s:O}", "text_offset", c->text_offset, "token_logprobs",
                     c->token_logprobs, "tokens", c->tokens, "top_logprobs", c->top_logprobs);
}

static void add_ranked(const struct api_job *j, json_t *to, const struct token_logprob *t, int rank)
{
    char key[16];
    snprintf(key, sizeof key, "%d", (int)t->token);
    json_object_set_new(to, key,
                        json_pack("{s:f,s:i,s:o}", "logprob", t->logprob, "rank", rank,
                                  "decoded_token", token_text(j, t->token, NULL)));
}

json_t *logprobs_of_prompt(const struct api_job *j, const struct api_prompt *p,
                           const struct position_logprob *entry)
{
    json_t *list = json_array();
    json_array_append_new(list, json_null());
    for (size_t i = 1; i < p->ids.n; i++) {
        json_t *at = json_object();
        add_ranked(j, at, &entry[i - 1].at, entry[i - 1].rank);
        for (int k = 0; k < entry[i - 1].n_top && k < j->prompt_logprobs; k++) {
            if (entry[i - 1].top[k].token != entry[i - 1].at.token) {
                add_ranked(j, at, &entry[i - 1].top[k], k + 1);
            }
        }
        json_array_append_new(list, at);
    }
    return list;
}

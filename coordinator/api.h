/* api: the OpenAI-compatible interface over http and service. One handler takes every request: it
 * checks the key, finds the route, and either answers at once or makes a job that lives until its
 * exchange ends. Requests are read strictly where a wrong type would change the meaning, and
 * unknown fields are let be, as clients expect. */
#ifndef COORDINATOR_API_H
#define COORDINATOR_API_H

#include "coordinator/http.h"
#include "coordinator/service.h"
#include "model/chat.h"
#include "model/tokenizer.h"
#include "model/weights.h"
#include <jansson.h>

/* A file of the web page, served from memory. */
struct api_asset {
    const char *path; /* "/ui/chat.js"; "/" is the page itself */
    const char *type; /* "text/html; charset=utf-8" */
    const void *data;
    size_t n;
};

struct api {
    const char *model_name;  /* "olmoe" */
    const char *key;         /* "Bearer KEY" is asked for; NULL: none */
    const char *cors_origin; /* Access-Control-Allow-Origin; NULL: no CORS */
    const struct model *model;
    struct tokenizer *tok;            /* encoding on the loop thread */
    const struct chat_template *chat; /* NULL: the model has none, chat is refused in words */
    struct service *service;
    int n_choice_max, prompts_max; /* a request */
    int64_t created;               /* unix seconds, of this process */
    int64_t start_ns;              /* clock_real, of this process */
    const struct api_asset *asset; /* [n_asset] */
    int n_asset;
    uint64_t next_id;
    struct api_counts {
        uint64_t requests, finished[FINISH_ERROR + 1], prompt_tokens, generated_tokens, refused;
        int running; /* jobs */
        uint64_t ttft_bucket[16], ttft_count;
        double ttft_sum_s;
    } counts;
};

/* api_handle is the http_handler; user is the struct api. */
void api_handle(void *user, struct http_exchange *x, const struct http_request *r);

/* ---- between the files of api ---- */

/* api_fail answers with OpenAI's error object. param may be NULL. */
void api_fail(struct http_exchange *x, int status, const char *param, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* api_fail_err maps an error of ours: limits and usage are the client's fault, the rest ours. */
void api_fail_err(struct http_exchange *x, const struct err *err);
/* api_json answers 200 with a body that it takes over. */
void api_json(struct http_exchange *x, json_t *body);

/* What a request may say about generation. */
struct api_params {
    struct generation_params generation;
    int stream, include_usage, echo, n_logprobs;
    const char *stop[16];
    int32_t stop_token[64];
    struct logit_bias bias[1024];
};
/* api_params_read: 0, or -1 after having answered 400. `chat` chooses the defaults and the form of
 * logprobs. Strings point into `body`. */
int api_params_read(const struct api *api, struct http_exchange *x, const json_t *body, int chat,
                    struct api_params *p);

/* api_job_start takes prompts (arrays of ids, each freed by the job) and begins. */
int api_job_start(struct api *api, struct http_exchange *x, int chat, const struct api_params *p,
                  struct tok_ids *prompt, int n_prompt);

void api_completions(struct api *api, struct http_exchange *x, const json_t *body);
void api_chat(struct api *api, struct http_exchange *x, const json_t *body);
void api_tokenize(struct api *api, struct http_exchange *x, const json_t *body);
void api_detokenize(struct api *api, struct http_exchange *x, const json_t *body);
void api_models(struct api *api, struct http_exchange *x, const char *id);
void api_health(struct api *api, struct http_exchange *x);
void api_ready(struct api *api, struct http_exchange *x);
void api_metrics(struct api *api, struct http_exchange *x);
void api_live(struct api *api, struct http_exchange *x);
/* api_asset_get: the page or file at a path; NULL: there is none. */
const struct api_asset *api_asset_get(const struct api *api, const char *path);
void api_asset_send(struct http_exchange *x, const struct api_asset *asset);

#endif

/* api: the OpenAI-compatible interface over http and service; docs/API.md is its reference. One
 * handler takes every request: it checks host, origin and key, finds the route, and either answers
 * at once or makes a job that lives until its exchange ends. Requests are read strictly where a
 * wrong type would change the meaning, and unknown fields are let be, as clients expect.
 *
 *   api.c          who may ask, routes, errors
 *   api_params.c   what a request says about generation
 *   api_prompt.c   prompts, tokenization          api_chat.c   conversations
 *   api_job.c      one request under way          api_reply.c  its response, streamed or whole
 *   api_logprobs.c probabilities of tokens        api_tools.c  calls in a model's text
 *   api_status.c   models, health, server_info    api_live.c   /sigmoe/status, the page
 *   api_metrics.c, api_metrics_vllm.c  Prometheus */
#ifndef COORDINATOR_API_H
#define COORDINATOR_API_H

#include "coordinator/api_counts.h"
#include "coordinator/control.h"
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

enum api_tool_style { TOOLS_NONE, TOOLS_TAG /* <tool_call>{..}</tool_call> */, TOOLS_OBJECT };

struct api_job;

struct api {
    /* From the start. */
    const char *model_name; /* "olmoe" */
    char *const *key;       /* [n_key] one of them is asked for; 0: none */
    int n_key;
    const char *cors_origin;       /* pages of this origin may call; NULL: none but our own */
    const char *const *host;       /* [n_host] names a Host field may have besides loopback's; */
    int n_host, check_host;        /* looked at when check_host */
    int n_choice_max, prompts_max; /* of a request */
    int sequences_max;             /* of a request: prompts times choices */
    double ping_s;                 /* a stream silent so long gets a comment */
    const char *precision;         /* "bf16" */
    const char *activations;       /* model_activations */
    const char *numerics;          /* model_numerics */
    const char *route;             /* an experiment's, coordinator/experiment.h; NULL: none */
    const struct api_asset *asset; /* [n_asset] */
    int n_asset;
    int64_t created;  /* unix seconds, of this process */
    int64_t start_ns; /* clock_real, of this process */
    struct ev_loop *loop;
    /* Set when the model is there; service NULL until then, and every route that needs it says 503.
     */
    const struct model *model;
    const struct kernels *kernels;
    struct tokenizer *tok;            /* encoding on the loop thread */
    const struct chat_template *chat; /* NULL: the model has none, chat is refused in words */
    enum api_tool_style tool_style;   /* how this model writes calls */
    size_t token_bytes_max;           /* of the longest token */
    struct service *service;
    struct control *control; /* who holds what, for the metrics */
    /* The api's own. */
    struct grammar_vocab *grammar_vocab; /* made when first asked for */
    ev_timer ping;
    struct api_job *job; /* list of those under way */
    uint64_t next_id;
    struct api_counts counts;
};

/* api_open completes what the model brings (tok, chat and the others are set); api_close stops the
 * timer and frees; jobs are gone by then. */
void api_open(struct api *api);
void api_close(struct api *api);
/* api_handle is the http_handler; user is the struct api. */
void api_handle(void *user, struct http_exchange *x, const struct http_request *r);

/* ---- between the files of api ---- */

/* What a route is given. */
struct api_request {
    struct http_exchange *x;
    const struct http_request *http;
    const json_t *body; /* an object, for routes with a body */
};

/* api_fail answers with OpenAI's error object. param and code may be NULL. */
void api_fail(struct api *api, struct http_exchange *x, int status, const char *param,
              const char *code, const char *format, ...) __attribute__((format(printf, 6, 7)));
/* api_fail_err maps an error of ours: limits and usage are the client's fault, the rest ours. */
void api_fail_err(struct api *api, struct http_exchange *x, const struct err *err);
int api_status_of(const struct err *err);
const char *api_error_type(int status);
/* api_json answers 200 with a body that it takes over. */
void api_json(struct api *api, struct http_exchange *x, json_t *body);

/* How calls are to be made. */
enum api_tool_choice { CHOICE_NONE, CHOICE_AUTO, CHOICE_REQUIRED, CHOICE_NAMED };

/* What a request may say about generation. */
struct api_params {
    struct generation_params generation; /* its grammar is a reference of ours */
    int stream, include_usage, usage_always, echo, n_logprobs;
    int prompt_logprobs; /* likeliest tokens told for each of the prompt; -1: not asked for */
    int token_ids, tokens_as_ids, truncate, add_special;
    char model[320]; /* as the client calls it: "olmoe", "olmoe:zh" */
    const char *stop[16];
    int32_t stop_token[64];
    struct logit_bias bias[1024];
    enum api_tool_choice tool_choice;
    const json_t *tools;   /* non-empty array, or NULL */
    const char *tool_name; /* of CHOICE_NAMED */
};
/* api_params_read: 0, or -1 after having answered 400 (nothing to free then). `chat` chooses the
 * defaults and the form of logprobs. Strings point into the body. */
int api_params_read(struct api *api, const struct api_request *r, int chat, struct api_params *p);
void api_params_fini(struct api_params *p);
/* api_template_read checks the fields that only a conversation has, for routes without params. 0,
 * or -1 after having answered. */
int api_template_read(struct api *api, const struct api_request *r);
/* api_model_read: which domain a request names, in its model's id, its `domain` field or its
 * X-Sigmoe-Domain field, and what it calls the model [size]. 0, or -1 after having answered. */
int api_model_read(struct api *api, const struct api_request *r, int *domain, char *name,
                   size_t size);

/* api_job_start takes prompts (arrays of ids, each freed by the job) and begins, or answers why
 * not. The params are not needed after it. */
void api_job_start(struct api *api, struct http_exchange *x, int chat, const struct api_params *p,
                   struct tok_ids *prompt, int n_prompt);
/* api_ping: comments for streams that have been silent; by the timer. */
void api_ping(struct api *api);

/* api_ids_of_text: tokenization; ERR_LIMIT when the text cannot fit the context whatever its
 * tokens. api_ids_of_json: a list of token ids. */
int api_ids_of_text(struct api *api, const char *text, size_t n, unsigned flags, int bounded,
                    struct tok_ids *out, struct err *err);
int api_ids_of_json(const json_t *list, struct tok_ids *out);
json_t *api_json_of_ids(const int32_t *id, size_t n);
/* api_truncate keeps the last n ids; 0: all. */
void api_truncate(struct tok_ids *ids, int n);
/* api_chat_ids: a conversation in the body of a request to ids by the model's template; *text, when
 * wanted, is what it renders to, and *turn the position from which it is about what it ends with
 * (api_last_turn). 0, or -1 after having answered. */
int api_chat_ids(struct api *api, const struct api_request *r, enum api_tool_choice choice,
                 struct tok_ids *ids, char **text, int *turn);
/* api_last_turn: where in ids, the tokens of text, the last question of a conversation begins: one
 * token before the last message of the user's; 0 when it is the only one, or is not found as it was
 * written. A message of a few tokens says little, so the one before counts too. */
int api_last_turn(struct api *api, const json_t *messages, const char *text, size_t n,
                  unsigned flags, const struct tok_ids *ids);

typedef void api_route(struct api *api, const struct api_request *r);
api_route api_completions, api_chat, api_render, api_tokenize, api_detokenize, api_tokenizer_info;
api_route api_models, api_health, api_ready, api_version, api_server_info, api_metrics, api_live;
/* api_asset_get: the page or file at a path; NULL: there is none. */
const struct api_asset *api_asset_get(const struct api *api, const char *path);
void api_asset_send(struct api *api, struct http_exchange *x, const struct api_asset *asset);

#endif

/* api_job: one request under way, what api_job.c (its life), api_reply.c (its response) and
 * api_logprobs.c share. Nobody else includes it.
 *
 * A job lives exactly as long as its exchange: it is freed in on_close, which the HTTP server calls
 * once whatever happens; if the client is gone by then its generations are cancelled. */
#ifndef COORDINATOR_API_JOB_H
#define COORDINATOR_API_JOB_H

#include "coordinator/api_tools.h"

/* One choice of the response. */
struct api_choice {
    struct api_job *job;
    int index, prompt;    /* place among all choices; which prompt */
    struct tok_text text; /* not sent yet: all of it when not streamed */
    struct tok_ids token; /* not sent yet, when asked for */
    struct tool_reader tools;
    int n_call; /* of the tools' calls: sent */
    int n_token, done, started;
    enum finish finish;
    const char *stop_text; /* the stop string that ended it, or NULL */
    int32_t stop_token;    /* the stop token that did, or -1 */
    char *routes;          /* base64, or NULL */
    /* Completions' logprobs, four arrays side by side; chat's, one array of objects. */
    json_t *tokens, *token_logprobs, *top_logprobs, *text_offset, *content;
    int64_t last_ns; /* of the last token */
};

struct api_prompt {
    struct api_job *job;
    int index;
    struct tok_ids ids;
    size_t n_char; /* of its text, when echoed: where the generated text begins */
    int domain;    /* -1: none, or not known yet */
    int n_cached;  /* of its tokens: not computed, but found in the prefix cache */
    json_t *scores, *logprobs;
    struct generation *generation;
};

struct api_job {
    struct api *api;
    struct api_job *prev, *next;
    struct http_exchange *x;
    int chat, stream, include_usage, usage_always, echo, n_logprobs, prompt_logprobs, n_choice,
        n_prompt, token_ids, tokens_as_ids;
    int n_open, streaming, answered, n_started;
    int named; /* every answer is the arguments of a call of tool_name */
    char tool_name[128];
    char id[48], model[320];
    long long created;
    int64_t start_ns, first_ns, wrote_ns; /* first_ns: of the first token; wrote: to a stream */
    char *stop[16];
    struct api_prompt *prompt; /* [n_prompt] */
    struct api_choice *choice; /* [n_prompt * n_choice] */
    uint64_t *rows;            /* [n_rows] as generation_end has it, summed */
    int n_rows;
    struct err err;
};

/* api_logprobs */
void logprobs_reset(struct api_choice *c); /* also the beginning */
void logprobs_free(struct api_choice *c);
/* logprobs_add: a generated token. offset: characters before it in the choice's generated text. */
void logprobs_add(struct api_choice *c, int32_t token, size_t offset,
                  const struct position_logprob *p);
/* logprobs_echo: the prompt's own, at the beginning of a choice. entry [n_prompt - 1]. */
void logprobs_echo(struct api_choice *c, const struct api_prompt *p,
                   const struct position_logprob *entry);
json_t *logprobs_of(const struct api_choice *c);
/* logprobs_of_prompt: vLLM's prompt_logprobs. */
json_t *logprobs_of_prompt(const struct api_job *j, const struct api_prompt *p,
                           const struct position_logprob *entry);

/* api_reply */
void reply_whole(struct api_job *j);
/* reply_echo sends the prompt's text, reply_text what has come since, when a stream has something
 * to send; reply_finish the choice's last chunk; reply_end the usage and the end. */
void reply_text(struct api_choice *c);
void reply_finish(struct api_choice *c);
void reply_end(struct api_job *j);
/* reply_error: as a status while that is still possible, as an event afterwards. */
void reply_error(struct api_job *j);
void reply_ping(struct api_job *j);

#endif

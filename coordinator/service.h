/* service: the engine on a thread of its own, so that a long step never keeps a socket waiting. The
 * loop thread (HTTP) submits and cancels; what happens comes back as events, in order, on the loop
 * thread. Between the two lie one inbox and one outbox, each a list behind a mutex; nothing else is
 * shared. Text is made on the engine's thread, because a stop string must end a sequence before its
 * next step. */
#ifndef COORDINATOR_SERVICE_H
#define COORDINATOR_SERVICE_H

#include "coordinator/engine.h"
#include "coordinator/grammar.h"
#include "coordinator/meter.h"
#include "model/tokenizer.h"
#include <ev.h>

/* Most likely tokens told beside the chosen one, at most (OpenAI's bound). */
#define SERVICE_TOP_MAX 20

struct token_logprob {
    int32_t token;
    double logprob;
};

/* One position: the token there, what the model gave it, and the likeliest. top[0..n_top)
 * descending. The chosen token's entry in top is the identical number. */
struct position_logprob {
    struct token_logprob at;
    int rank; /* of the token: 1 is the likeliest */
    int n_top;
    struct token_logprob top[SERVICE_TOP_MAX];
};

struct generation_params {
    const int32_t *prompt; /* [n_prompt] */
    int n_prompt, n_choice, max_tokens, min_tokens;
    int domain;               /* index or DOMAIN_AUTO; not looked at in models without domains */
    int domain_from;          /* DOMAIN_AUTO: from this position on, as in struct request */
    struct sampling sampling; /* bias is copied */
    int ignore_eos;
    const char *const *stop;   /* [n_stop] texts that end a choice; copied */
    int n_stop, include_stop;  /* include_stop: the text keeps the stop string */
    const int32_t *stop_token; /* [n_stop_token] tokens that end it; copied */
    int n_stop_token;
    int n_top;               /* logprobs of tokens, with this many of the likeliest; -1: none */
    int prompt_logprobs;     /* of the prompt's own tokens too (echo) */
    int skip_special;        /* special tokens yield no text */
    int routes;              /* which experts each position was sent to is told at the end */
    struct grammar *grammar; /* or NULL; a reference is taken */
};

/* How a choice ended. */
struct generation_end {
    enum finish reason;
    const char *text; /* what was held back; [n_text], may be empty */
    size_t n_text;
    int stop;              /* index of the stop string that ended it, or -1 */
    int32_t stop_token;    /* the stop token that did (not the model's own end token), or -1 */
    const struct err *err; /* with FINISH_ERROR, else NULL */
    /* Who computed its rows of (token, slot): the coordinator itself, and worker i at i + 1. */
    const uint64_t *rows; /* [n_rows]; NULL when no worker had any */
    int n_rows;
    /* When asked for: [n_route, n_layer, top_k] experts of positions 0.., each of route_bytes
     * bytes, little-endian; 0 in dense layers. NULL else. */
    const void *route;
    int n_route, route_bytes;
};
/* route_bytes_for: 1, 2 or 4: what holds an expert's number. */
int route_bytes_for(const struct model_desc *desc);

/* Called on the loop thread. Pointers are valid during the call. */
struct generation_handlers {
    /* on_start: a choice is being computed from now on. May be NULL. */
    void (*on_start)(void *user, int choice);
    /* on_domain: once a generation, before anything else, in models with domains. score as in
     * struct request. May be NULL. */
    void (*on_domain)(void *user, int domain, const double *score, int n_domain);
    /* on_cached: once a generation, before its first token: how many tokens of the prompt were
     * computed before, for an earlier request. May be NULL. */
    void (*on_cached)(void *user, int n_token);
    /* on_prompt: entry[i] is position i + 1's (the first token has no probability); n = n_prompt
     * - 1. */
    void (*on_prompt)(void *user, const struct position_logprob *entry, int n);
    /* on_token: text is what may be shown now; it can be empty (half a character, or what may
     * become a stop string) and is never half a character. offset: characters of the choice's text
     * before the token's own. logprob is NULL unless asked for. */
    void (*on_token)(void *user, int choice, int32_t token, const char *text, size_t n_text,
                     size_t offset, const struct position_logprob *logprob);
    /* on_done: once a choice, last. */
    void (*on_done)(void *user, int choice, const struct generation_end *end);
};

struct service_config {
    struct engine *engine;       /* not used by anybody else from now on */
    struct pool *pool;           /* polled while idle; NULL for dense models */
    const struct tokenizer *tok; /* decoding only */
    const struct model_desc *desc;
    const struct clock *clock;
    /* tick: called on the engine's thread between steps, at least ten times a second while it is
     * idle. May be NULL. */
    void (*tick)(void *user);
    void *tick_user;
};

struct service;
struct generation; /* loop thread's handle of one request, all its choices */

int service_create(const struct service_config *config, struct ev_loop *loop, struct service **out,
                   struct err *err);
/* service_destroy stops the thread; running generations get no further event. */
void service_destroy(struct service *s);

/* service_generate queues a request. What the engine refuses (context, queue full) comes as on_done
 * of each choice with FINISH_ERROR and the engine's words. `user` gets no event after
 * generation_drop. */
int service_generate(struct service *s, const struct generation_params *params,
                     const struct generation_handlers *handlers, void *user,
                     struct generation **out, struct err *err);
/* generation_drop cancels what still runs and forgets the handle. Call it exactly once. */
void generation_drop(struct generation *g);

/* A copy of the engine's figures as of its last step, and of the pool's workers. */
struct service_view {
    struct engine_stats engine;
    struct pool_stats pool;
    int n_worker, workers_alive, n_uncovered;
};
void service_view_get(struct service *s, struct service_view *out);
/* service_domains_get copies the figures of each domain [n_domain] to out; how many that are. */
int service_domains_get(struct service *s, struct domain_stats *out, int n_max);
/* service_meter: the last seconds in full (meter_read). */
struct meter *service_meter(struct service *s);

#endif

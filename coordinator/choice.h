/* choice: one sequence of a generation, as the engine's thread sees it: from logits to tokens to
 * text, with logprobs, stop strings, stop tokens and a grammar. Its callbacks are the engine's;
 * what they find out goes to the outbox. */
#ifndef COORDINATOR_CHOICE_H
#define COORDINATOR_CHOICE_H

#include "coordinator/service.h"
#include "coordinator/stops.h"

struct outbox;

/* What all choices of a generation share; owned by the generation, read only. */
struct choice_shared {
    const struct tokenizer *tok;
    const struct model_desc *desc;
    struct outbox *outbox;
    struct generation *generation;
    int32_t *prompt, *stop_token;
    int n_prompt, n_stop_token, n_choice, max_tokens, min_tokens, ignore_eos;
    int n_top, prompt_logprobs, skip_special, domain;
    struct sampling sampling;
    struct logit_bias *bias;
    struct grammar *grammar;
};

struct choice {
    struct choice_shared *shared;
    int index;
    uint64_t id; /* of the engine; 0 until submitted */
    int done;    /* engine's thread: on_done was sent */
    int n_generated, stop_hit;
    struct detok *detok;
    struct stops stops;
    struct grammar_state *state;
    float *raw; /* [vocab] logits before penalties, when logprobs are asked for */
    struct position_logprob *prompt; /* [n_prompt], choice 0, when asked for */
};

int choice_init(struct choice *c, struct choice_shared *shared, int index,
                const struct generation_params *params, struct err *err);
void choice_fini(struct choice *c);
/* choice_request: what to submit. */
struct request choice_request(struct choice *c);
/* choice_refused tells that the engine did not take it. */
void choice_refused(struct choice *c, const struct err *err);

/* The outbox: events in order, from the engine's thread to the loop's. */
enum event_kind { EVENT_DOMAIN, EVENT_PROMPT, EVENT_TOKEN, EVENT_DONE };
struct event {
    struct event *next;
    struct generation *generation;
    enum event_kind kind;
    int choice, stop, has_logprob, n_prompt;
    int32_t token;
    enum finish finish;
    struct err err;
    struct position_logprob logprob;
    struct position_logprob *prompt; /* [n_prompt], owned by the event */
    int domain, n_domain;
    double *score; /* [n_domain], owned by the event; or NULL */
    size_t n_text;
    char text[];
};
/* event_create: NULL when memory is out. */
struct event *event_create(enum event_kind kind, const struct choice *c, const char *text,
                           size_t n);
void event_destroy(struct event *e);
/* outbox_post takes the event over; NULL is ignored. */
void outbox_post(struct outbox *o, struct event *e);

#endif

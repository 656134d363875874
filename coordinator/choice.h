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
    int n_top, prompt_logprobs, skip_special, domain, domain_from, routes;
    float *raw; /* [vocab] the engine's thread's: logits of the draw at hand, before penalties */
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
    int32_t stop_token; /* that ended it, or -1 */
    size_t n_char;      /* of the text so far */
    struct detok *detok;
    struct stops stops;
    struct grammar_state *state;
    struct position_logprob *prompt; /* [n_prompt], choice 0, when asked for */
    uint64_t *rows; /* [n_rows] computed by the coordinator and by worker i at i + 1 */
    int n_rows;
    unsigned char *route; /* [n_prompt + max_tokens, n_layer, top_k] when asked for */
    int n_route;          /* positions known */
};

int choice_init(struct choice *c, struct choice_shared *shared, int index,
                const struct generation_params *params, struct err *err);
void choice_fini(struct choice *c);
/* choice_request: what to submit. */
struct request choice_request(struct choice *c);
/* choice_refused tells that the engine did not take it. */
void choice_refused(struct choice *c, const struct err *err);

/* The outbox: events in order, from the engine's thread to the loop's. */
enum event_kind { EVENT_START, EVENT_DOMAIN, EVENT_CACHED, EVENT_PROMPT, EVENT_TOKEN, EVENT_DONE };
struct event {
    struct event *next;
    struct generation *generation;
    enum event_kind kind;
    int choice, has_logprob, n_prompt, n_cached;
    int32_t token;
    size_t offset;
    struct generation_end end; /* its arrays are owned by the event */
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

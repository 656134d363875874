/* openai: a client of OpenAI-compatible servers over libcurl, for the tools that people type at:
 * JSON requests, answers that stream, and errors in the server's own words. One thread. */
#ifndef TOOLS_OPENAI_H
#define TOOLS_OPENAI_H

#include "base/err.h"
#include <jansson.h>
#include <signal.h>

struct openai;

/* openai_open takes "http://host:port", "host:port", or a URL that ends in /v1. key may be NULL; it
 * is sent as Authorization: Bearer KEY, to this address alone: redirects are not followed. Nothing
 * is sent yet. ERR_USAGE: the URL is none. */
int openai_open(const char *url, const char *key, struct openai **out, struct err *err);
void openai_close(struct openai *c);
/* openai_read_key: the first line of a file, or SIGMOE_API_KEY when file is NULL, or "". */
int openai_read_key(const char *file, char *key, size_t size, struct err *err);
/* openai_url: the base address, without /v1; lives as long as the client. */
const char *openai_url(const struct openai *c);
/* openai_stop_on: a request in progress ends within a tenth of a second once *flag is not 0. */
void openai_stop_on(struct openai *c, const volatile sig_atomic_t *flag);

/* openai_get reads a JSON document: "/v1/models", "/sigmoe/status". The caller owns *out.
 * ERR_NET: no server there; ERR_PROTO: it said no, or no JSON, in its words; ERR_AGAIN: stopped. */
int openai_get(struct openai *c, const char *path, json_t **out, struct err *err);

/* A piece of the answer as it comes; `thought` marks what a reasoning model says to itself. */
typedef void openai_piece_fn(void *user, const char *text, int thought);

struct openai_answer {
    char *text;              /* the whole answer; owned, see openai_answer_fini */
    char model[256];         /* as the server names it */
    char domain[64];         /* as the server says; "" where it names none */
    char by[512];            /* who computed, where a sigmoe server says so: "w0 60 %, w1 40 %" */
    char finish[32];         /* "stop", "length", ...; "" when it was stopped */
    int n_prompt, n_answer;  /* tokens, -1: not told */
    double first_s, total_s; /* to the first piece, and in all */
};

/* openai_chat sends `request` (its "stream" is set here) to /v1/chat/completions when it has
 * messages, to /v1/completions when it has a prompt. Errors as openai_get; on ERR_AGAIN and other
 * failures in the middle `out` holds what had come. */
int openai_chat(struct openai *c, json_t *request, openai_piece_fn *piece, void *user,
                struct openai_answer *out, struct err *err);
void openai_answer_fini(struct openai_answer *a);

#endif

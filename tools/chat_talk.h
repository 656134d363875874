/* chat_talk: a conversation and its settings, as `sigmoe chat` keeps, sends, saves and loads it. It
 * does no input or output but that of the file it is saved in. */
#ifndef TOOLS_CHAT_TALK_H
#define TOOLS_CHAT_TALK_H

#include "base/err.h"
#include <jansson.h>

struct talk {
    char *model;      /* the id to ask for; NULL: the server's first */
    char *domain;     /* NULL: the server's choice */
    char *system;     /* NULL: none */
    json_t *messages; /* [{"role", "content"}], without the system's */
    json_t *settings; /* what /set changed: temperature, top_p, max_tokens, ... */
    int plain;        /* continue the text through /v1/completions, without a chat template */
};

int talk_init(struct talk *t, struct err *err);
void talk_fini(struct talk *t);
/* talk_clear forgets the messages and keeps the settings. */
void talk_clear(struct talk *t);
/* talk_text sets one of the three texts; NULL or "" clears it. */
int talk_text(char **field, const char *value, struct err *err);
/* talk_add appends a message; role is "user" or "assistant". */
int talk_add(struct talk *t, const char *role, const char *content, struct err *err);
/* talk_drop takes the last message away if it is of that role; 1 if it was. */
int talk_drop(struct talk *t, const char *role);
/* talk_last: the content of the last message of that role, or NULL; owned by the talk. */
const char *talk_last(const struct talk *t, const char *role);
/* talk_set: a sampling setting by name, the value as typed ("0.7"); "" or NULL gives it back to the
 * server. ERR_USAGE: no such setting, or no number for it, in words. */
int talk_set(struct talk *t, const char *name, const char *value, struct err *err);
/* talk_settings_names: the names that talk_set takes, ends in NULL. */
const char *const *talk_settings_names(void);
/* talk_request: the body of a request that answers the conversation; NULL: no memory. */
json_t *talk_request(const struct talk *t);
/* talk_save writes all of it as JSON; a file that is there is replaced whole. talk_load reads such
 * a file: on failure the talk is unchanged. */
int talk_save(const struct talk *t, const char *path, struct err *err);
int talk_load(struct talk *t, const char *path, struct err *err);

#endif

/* chat: what the files of `sigmoe chat` share: the conversation, the server, and how to write to
 * the person. */
#ifndef TOOLS_CHAT_H
#define TOOLS_CHAT_H

#include "base/err.h"
#include "tools/chat_talk.h"
#include "tools/openai.h"

#define CHAT_DOMAINS_MAX 1024

struct chat {
    struct openai *client;
    struct talk talk;
    json_t *models;                            /* what /v1/models said, or NULL */
    const char *domains[CHAT_DOMAINS_MAX + 1]; /* of the model asked for; ends in NULL */
    int interactive, colour, json, quit;
};

/* The flag that Ctrl-C sets. */
extern volatile sig_atomic_t chat_interrupted;

/* chat_models_read asks the server for its models, chooses the first where none is chosen, and
 * fills `domains`. */
int chat_models_read(struct chat *c, struct err *err);
/* chat_ask sends the question, shows the answer as it comes and keeps both; on failure neither. An
 * answer that Ctrl-C stops is kept as far as it came, and is no failure. */
int chat_ask(struct chat *c, const char *question, struct err *err);
/* chat_command runs a line that begins with '/'. A mistake is told and is no failure. */
int chat_command(struct chat *c, const char *line, struct err *err);
/* chat_command_words: "/help", ... for completion; ends in NULL. */
const char *const *chat_command_words(void);
/* chat_note writes a line about the talk, dimmed where colour is on; to stderr. */
void chat_note(const struct chat *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* chat_printable copies text without control characters but newline and tab, so that an answer
 * cannot steer the terminal. Returns a text that the caller frees, or NULL. */
char *chat_printable(const char *text);

#endif

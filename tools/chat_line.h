/* chat_line: lines typed by a person: editing, history and completion through libedit, and the
 * history kept in a file between runs. */
#ifndef TOOLS_CHAT_LINE_H
#define TOOLS_CHAT_LINE_H

#include "base/err.h"
#include <signal.h>

struct line_editor;

/* words: what Tab completes at the line's begin; ends in NULL and outlives the editor. interrupted:
 * the flag that the SIGINT handler sets. path: the history's file, or NULL for none; a history that
 * cannot be read is an empty one. */
int line_editor_open(const char *path, const char *const *words,
                     const volatile sig_atomic_t *interrupted, struct line_editor **out,
                     struct err *err);
/* line_editor_read shows the prompt and returns 1 with a line, without its newline, valid until the
 * next call; 0 at the end of input (Ctrl-D); ERR_AGAIN after Ctrl-C, which drops the line. A line
 * that ends in a backslash goes on in the next. */
int line_editor_read(struct line_editor *e, const char *prompt, const char **line, struct err *err);
/* line_editor_close writes the history's file (mode 0600: what people ask is private). */
void line_editor_close(struct line_editor *e);
/* line_history_path: $XDG_STATE_HOME/sigmoe/chat_history, ~/.local/state as the default; makes the
 * folders. Returns out, or NULL where there is no home. */
const char *line_history_path(char *out, unsigned long size);

#endif

/* token_counts: how often each token occurs, as a file of lines "TOKEN_ID COUNT". */
#ifndef TOOLS_TOKEN_COUNTS_H
#define TOOLS_TOKEN_COUNTS_H

#include "base/err.h"
#include <stdint.h>

/* token_counts_read: *out [vocab] is the caller's to free; ids that the file leaves out count 0,
 * lines of one id add up. Empty lines and lines that begin with '#' are skipped. ERR_IO or
 * ERR_USAGE, with the line's number. */
int token_counts_read(const char *path, int vocab, uint64_t **out, struct err *err);

#endif

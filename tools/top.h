/* top: what `sigmoe top` shows, as text. */
#ifndef TOOLS_TOP_H
#define TOOLS_TOP_H

#include <jansson.h>
#include <stdio.h>

struct top_frame {
    const json_t *status, *before; /* /sigmoe/status now and the time before, or NULL */
    const char *url;
    int width, height; /* of the terminal, in characters */
    int colour;
};

/* top_draw writes one frame: at most height lines of at most width characters, each ended by `end`
 * ("\n", or with what clears the rest of a terminal's line). What the server sends is written
 * without control characters; what it does not send is left out. */
void top_draw(FILE *out, const struct top_frame *frame, const char *end);

#endif

/* report: what long work and results look like to a person: sizes and times in human units, and a
 * progress bar that draws only on a terminal. */
#ifndef BASE_REPORT_H
#define BASE_REPORT_H

#include <stddef.h>
#include <stdint.h>

/* human_bytes: "1.2 GiB"; human_ns: "3.4 ms"; human_count: "6.92 B". All write to out and return
 * it. */
char *human_bytes(double bytes, char *out, size_t size);
char *human_ns(double ns, char *out, size_t size);
char *human_count(double n, char *out, size_t size);

/* A progress bar on stderr: label, bar, bytes, rate, time left. Silent where stderr is no terminal,
 * NO_COLOR and CI only drop its colour. */
struct progress {
    const char *label;
    uint64_t total, done;
    int64_t start_ns, drawn_ns;
    int shown;
};
void progress_start(struct progress *p, const char *label, uint64_t total_bytes);
void progress_add(struct progress *p, uint64_t bytes);
void progress_end(struct progress *p);

#endif

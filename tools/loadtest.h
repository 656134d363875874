/* loadtest: what the three modes of `sigmoe loadtest` share: the options of arrivals and of
 * reports. Private to tools/loadtest*.c. */
#ifndef TOOLS_LOADTEST_H
#define TOOLS_LOADTEST_H

#include "base/opt.h"
#include "tools/load_report.h"
#include "tools/sim/arrivals.h"

#define RATES_MAX 32

/* The options' values. */
struct traffic {
    const char *arrivals, *rate_text, *mix_text, *shared_text;
    int64_t prompt, output, prompt_max, output_max, block_tokens, seed, seeds;
    double cv, duration_s, warmup_s, drain_s;
    struct slo slo;
    const char *json_path, *html_path;
    double rate[RATES_MAX];
    int n_rate;
    struct arrival_spec spec;
};
#define TRAFFIC_OPTIONS 19
/* traffic_options sets defaults and writes TRAFFIC_OPTIONS rows to out; traffic_check gives them
 * their meaning after parsing. traffic_arrivals: the list for one rate and seed. */
void traffic_options(struct traffic *t, struct opt *out);
int traffic_check(struct traffic *t, struct err *err);
int traffic_arrivals(const struct traffic *t, double rate, uint64_t seed, struct arrivals *out,
                     struct err *err);
/* traffic_settings adds what was asked for to a report's settings. */
void traffic_settings(const struct traffic *t, json_t *settings);
/* traffic_report writes the report where the options say, and its table to stdout unless JSON goes
 * there. */
int traffic_report(const struct traffic *t, const json_t *report, struct err *err);

/* list_split cuts "a,b,c" in place into at most max words; returns how many, or -1. */
int list_split(char *text, const char **word, int max);

/* Each mode: argv[0] is its name; the exit status of the program. */
int loadtest_simulate(int argc, char **argv);
int loadtest_live(int argc, char **argv);
int loadtest_pace(int argc, char **argv);
int loadtest_compare(int argc, char **argv);

#endif

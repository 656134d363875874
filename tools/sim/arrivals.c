/* arrivals: see arrivals.h. Gaps of a Poisson process are exponential; bursts are a process that
 * switches between two such rates at exponential times (MMPP of two states) with the mean rate
 * kept. Draws are by request (seed, stream, index), so that length, domain and time of a request do
 * not move when another part of the specification changes. */
#include "tools/sim/arrivals.h"

#include "base/clock.h"
#include "base/rng.h"
#include "tools/sim/arrival_file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ARRIVALS_MAX     20000000
#define BLOCK_TOKENS     512 /* of Mooncake's */
#define GROUPS_MAX       1000000
#define GROUP_TOKENS_MAX 1000000

enum stream {
    STREAM_GAP = 0x6172726976616c00,
    STREAM_SWITCH,
    STREAM_PROMPT,
    STREAM_PROMPT2,
    STREAM_OUTPUT,
    STREAM_OUTPUT2,
    STREAM_DOMAIN,
    STREAM_GROUP
};

static double draw(const struct arrival_spec *s, uint64_t stream, int64_t index)
{
    return rng_uniform(s->seed, stream, (uint64_t)index);
}

static double draw_exponential(const struct arrival_spec *s, uint64_t stream, int64_t index)
{
    return -log1p(-draw(s, stream, index));
}

/* Log-normal with the mean and the coefficient of variation asked for, at least 1. */
static int32_t draw_length(const struct arrival_spec *s, uint64_t stream, int64_t index, int mean,
                           int max)
{
    double x = mean;
    if (s->length_cv > 0) {
        double variance = log1p(s->length_cv * s->length_cv);
        double normal = sqrt(-2 * log1p(-draw(s, stream, index))) *
                        cos(6.283185307179586 * draw(s, stream + 1, index));
        x = mean * exp(sqrt(variance) * normal - variance / 2);
    }
    double most = max > 0 ? max : INT32_MAX / 2;
    x = floor(x + 0.5);
    return (int32_t)(x < 1 ? 1 : x > most ? most : x);
}

static double mix_weight(const struct domain_mix *m, int domain, double t)
{
    int i = 0;
    while (i + 1 < m->n_point && m->at_s[i + 1] <= t)
        i++;
    double a = m->weight[i][domain];
    if (i + 1 == m->n_point || t <= m->at_s[i])
        return a;
    double share = (t - m->at_s[i]) / (m->at_s[i + 1] - m->at_s[i]);
    return a + share * (m->weight[i + 1][domain] - a);
}

static int32_t draw_domain(const struct arrival_spec *s, int64_t index, double t)
{
    double sum = 0, weight[MIX_DOMAINS_MAX];
    for (int d = 0; d < s->mix.n_domain; d++)
        sum += weight[d] = mix_weight(&s->mix, d, t);
    double u = draw(s, STREAM_DOMAIN, index) * sum;
    for (int d = 0; d < s->mix.n_domain; d++) {
        u -= weight[d];
        if (u < 0)
            return d;
    }
    return s->mix.n_domain > 0 ? s->mix.n_domain - 1 : 0;
}

/* The two-state process: how many seconds until `mass` of mean-rate-one exponential is used up. */
struct bursts {
    const struct arrival_spec *spec;
    int on;
    int64_t n_switch;
    double left_s, rate[2]; /* until the next switch; calm, burst */
};

static void bursts_start(struct bursts *b, const struct arrival_spec *s)
{
    double calm = s->burst_part < 1 ? (1 - s->burst * s->burst_part) / (1 - s->burst_part) : 0;
    *b = (struct bursts){.spec = s, .rate = {calm > 0 ? calm * s->rate : 0, s->burst * s->rate}};
    double calm_s = s->burst_s * (1 - s->burst_part) / s->burst_part;
    b->left_s = calm_s * draw_exponential(s, STREAM_SWITCH, b->n_switch++);
}

static double bursts_gap(struct bursts *b, double mass)
{
    const struct arrival_spec *s = b->spec;
    double calm_s = s->burst_s * (1 - s->burst_part) / s->burst_part, t = 0;
    for (;;) {
        double rate = b->rate[b->on];
        if (rate > 0 && mass / rate <= b->left_s) {
            b->left_s -= mass / rate;
            return t + mass / rate;
        }
        mass -= rate * b->left_s;
        t += b->left_s;
        b->on = !b->on;
        double mean = b->on ? s->burst_s : calm_s;
        b->left_s = mean * draw_exponential(s, STREAM_SWITCH, b->n_switch++);
    }
}

static int spec_check(const struct arrival_spec *s, struct err *err)
{
    if (s->kind != ARRIVAL_FILE && !(s->rate > 0))
        return err_set(err, ERR_USAGE, "the rate is %g requests/s; give more than 0", s->rate);
    if (!(s->duration_s > 0))
        return err_set(err, ERR_USAGE, "the duration is %g s; give more than 0", s->duration_s);
    if (s->kind != ARRIVAL_FILE && (s->prompt_mean < 1 || s->output_mean < 1))
        return err_set(err, ERR_USAGE, "prompts of %d and outputs of %d tokens; give at least 1",
                       s->prompt_mean, s->output_mean);
    if (s->kind != ARRIVAL_FILE && s->rate * s->duration_s > ARRIVALS_MAX)
        return err_set(err, ERR_LIMIT, "%g requests/s for %g s are more than %d requests", s->rate,
                       s->duration_s, ARRIVALS_MAX);
    if (s->kind == ARRIVAL_BURSTS &&
        (!(s->burst_part > 0 && s->burst_part < 1) || !(s->burst_s > 0) || !(s->burst > 1) ||
         s->burst * s->burst_part > 1 + 1e-12))
        return err_set(err, ERR_USAGE,
                       "bursts of %g x the mean rate for %g of the time: the factor must be above "
                       "1 and factor x part at most 1",
                       s->burst, s->burst_part);
    return 0;
}

static int push(struct arrivals *a, int *n_max, const struct arrival *arrival, struct err *err)
{
    if (a->n == *n_max) {
        *n_max = *n_max ? *n_max * 2 : 1024;
        struct arrival *at = realloc(a->at, (size_t)*n_max * sizeof(*at));
        if (!at)
            return err_set(err, ERR_NOMEM, "no memory for %d arrivals", *n_max);
        a->at = at;
    }
    a->at[a->n++] = *arrival;
    return 0;
}

/* The blocks of drawn prompts: group g's beginning is block g. */
static int groups_make(const struct arrival_spec *s, struct arrivals *out, struct err *err)
{
    if (s->n_group < 1)
        return 0;
    out->block = malloc((size_t)s->n_group * sizeof(*out->block));
    if (!out->block)
        return err_set(err, ERR_NOMEM, "no memory for %d beginnings of prompts", s->n_group);
    for (int g = 0; g < s->n_group; g++)
        out->block[g] = g;
    out->n_block = s->n_group;
    out->block_tokens = s->group_tokens;
    return 0;
}

static void group_give(const struct arrival_spec *s, int64_t index, struct arrival *a)
{
    if (s->n_group < 1)
        return;
    a->first_block = (int32_t)(draw(s, STREAM_GROUP, index) * s->n_group);
    a->n_block = 1;
    a->n_prompt += s->group_tokens;
}

static int make_drawn(const struct arrival_spec *s, struct arrivals *out, struct err *err)
{
    struct bursts bursts = {0};
    int n_max = 0, rc = groups_make(s, out, err);
    double t = 0;
    if (s->kind == ARRIVAL_BURSTS)
        bursts_start(&bursts, s);
    for (int64_t i = 0; rc == 0; i++) {
        double mass = s->kind == ARRIVAL_UNIFORM ? 1 : draw_exponential(s, STREAM_GAP, i);
        t += s->kind == ARRIVAL_BURSTS ? bursts_gap(&bursts, mass) : mass / s->rate;
        if (t >= s->duration_s)
            break;
        struct arrival a = {
            .at_ns = (int64_t)(t * (double)NS_PER_S),
            .n_prompt = draw_length(s, STREAM_PROMPT, i, s->prompt_mean, s->prompt_max),
            .n_output = draw_length(s, STREAM_OUTPUT, i, s->output_mean, s->output_max),
            .domain = draw_domain(s, i, t)};
        group_give(s, i, &a);
        rc = push(out, &n_max, &a, err);
    }
    return rc;
}

static int bound(int32_t *value, int max)
{
    int cut = max > 0 && *value > max;
    if (cut)
        *value = max;
    *value = *value < 1 ? 1 : *value;
    return cut;
}

/* make_file: times are stretched so that the mean rate of the whole file becomes s->rate. */
static int make_file(const struct arrival_spec *s, struct arrivals *out, struct err *err)
{
    struct arrivals all = {0};
    int rc = arrival_file_read(s->path, &all, err), n_max = 0;
    out->block = all.block;
    out->n_block = all.n_block;
    out->block_tokens = s->block_tokens > 0 ? s->block_tokens : BLOCK_TOKENS;
    all.block = NULL;
    double span_s = all.n > 1 ? (double)all.at[all.n - 1].at_ns / (double)NS_PER_S : 0;
    double stretch = s->rate > 0 && span_s > 0 ? (all.n / span_s) / s->rate : 1;
    for (int i = 0; rc == 0 && i < all.n; i++) {
        struct arrival a = all.at[i];
        double t = (double)a.at_ns / (double)NS_PER_S * stretch;
        if (t >= s->duration_s)
            break;
        a.at_ns = (int64_t)(t * (double)NS_PER_S);
        out->n_cut += bound(&a.n_prompt, s->prompt_max) | bound(&a.n_output, s->output_max);
        a.domain = draw_domain(s, i, t);
        rc = push(out, &n_max, &a, err);
    }
    arrivals_free(&all);
    return rc;
}

int arrivals_make(const struct arrival_spec *s, struct arrivals *out, struct err *err)
{
    *out = (struct arrivals){0};
    int rc = spec_check(s, err);
    if (rc == 0)
        rc = s->kind == ARRIVAL_FILE ? make_file(s, out, err) : make_drawn(s, out, err);
    if (rc == 0 && out->n == 0)
        rc = err_set(err, ERR_USAGE, "no request arrives within %g s; give a longer --duration",
                     s->duration_s);
    if (rc)
        arrivals_free(out);
    return rc;
}

void arrivals_free(struct arrivals *a)
{
    free(a->at);
    free(a->block);
    *a = (struct arrivals){0};
}

int arrival_parse(const char *text, struct arrival_spec *spec, struct err *err)
{
    char behind;
    spec->burst = 4;
    spec->burst_s = 2;
    spec->burst_part = 0.1;
    if (strcmp(text, "poisson") == 0 || strcmp(text, "uniform") == 0) {
        spec->kind = text[0] == 'p' ? ARRIVAL_POISSON : ARRIVAL_UNIFORM;
        return 0;
    }
    if (strncmp(text, "bursts", 6) == 0 && (text[6] == 0 || text[6] == ':')) {
        spec->kind = ARRIVAL_BURSTS;
        if (text[6] == ':' && sscanf(text + 7, "%lf,%lf,%lf%c", &spec->burst, &spec->burst_s,
                                     &spec->burst_part, &behind) != 3)
            return err_set(err, ERR_USAGE,
                           "'%.60s' is not bursts:FACTOR,SECONDS,PART, such as bursts:4,2,0.1",
                           text);
        return 0;
    }
    spec->kind = ARRIVAL_FILE;
    spec->path = text;
    return 0;
}

int shared_parse(const char *text, struct arrival_spec *spec, struct err *err)
{
    char behind;
    if (sscanf(text, "%d,%d%c", &spec->n_group, &spec->group_tokens, &behind) != 2 ||
        spec->n_group < 1 || spec->n_group > GROUPS_MAX || spec->group_tokens < 1 ||
        spec->group_tokens > GROUP_TOKENS_MAX)
        return err_set(err, ERR_USAGE,
                       "--shared '%.60s' is not GROUPS,TOKENS (up to %d,%d), such as 4,128", text,
                       GROUPS_MAX, GROUP_TOKENS_MAX);
    if (spec->kind == ARRIVAL_FILE)
        return err_set(err, ERR_USAGE,
                       "--shared is for drawn arrivals; a file says by hash_ids "
                       "which prompts begin alike");
    return 0;
}

/* One point: weights joined by commas, up to '/' or the end. */
static int mix_point(const char **at, struct domain_mix *mix, double at_s)
{
    int n = 0, i = mix->n_point;
    if (i == MIX_POINTS_MAX || (i > 0 && at_s <= mix->at_s[i - 1]))
        return -1;
    for (;;) {
        char *end;
        double w = strtod(*at, &end);
        if (end == *at || !(w >= 0) || n == MIX_DOMAINS_MAX)
            return -1;
        mix->weight[i][n++] = w;
        *at = end;
        if (**at != ',')
            break;
        (*at)++;
    }
    double sum = 0;
    for (int d = 0; d < n; d++)
        sum += mix->weight[i][d];
    if (!(sum > 0) || !isfinite(sum) || (i > 0 && n != mix->n_domain))
        return -1;
    mix->n_domain = n;
    mix->at_s[mix->n_point++] = at_s;
    return 0;
}

int domain_mix_parse(const char *text, struct domain_mix *mix, struct err *err)
{
    *mix = (struct domain_mix){0};
    const char *at = text;
    int bad = 0;
    do {
        char *end;
        double at_s = 0;
        if (strchr(text, ':')) {
            at_s = strtod(at, &end);
            bad = end == at || *end != ':' || !(at_s >= 0);
            at = end + (*end == ':');
        }
        bad = bad || mix_point(&at, mix, at_s);
    } while (!bad && *at == '/' && at++);
    if (bad || *at)
        return err_set(err, ERR_USAGE,
                       "'%.60s' is no domain mix: weights such as 1,1,2, or points in time such as "
                       "0:1,0/60:0,1",
                       text);
    return 0;
}

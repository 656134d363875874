/* run_output: see run_output.h. */
#include "coordinator/run_output.h"

#include <stdlib.h>
#include <string.h>

/* ---- callbacks of the engine ------------------------------------------------------------------
 */

/* The likeliest domains, for a person. */
static void print_domain(const struct run_seq *s)
{
    const struct model_desc *d = s->out->desc;
    fprintf(stderr, "domain    %s", s->domain);
    if (s->score != NULL) {
        fprintf(stderr, ", found out (nats a token:");
        uint8_t told[LIMIT_DOMAINS] = {0};
        for (int n = 0; n < d->n_domain && n < 4; n++) {
            int best = -1;
            for (int i = 0; i < d->n_domain; i++) {
                if (!told[i] && (best < 0 || s->score[i] > s->score[best])) {
                    best = i;
                }
            }
            told[best] = 1;
            fprintf(stderr, "%s %s %.3f", n == 0 ? "" : ",", d->domain[best].name, s->score[best]);
        }
        fprintf(stderr, d->n_domain > 4 ? ", ...)" : ")");
    }
    fputc('\n', stderr);
}

static void on_domain(void *user, int domain, const double *score, int n_domain)
{
    struct run_seq *s = user;
    s->domain = s->out->desc->domain[domain].name;
    if (score != NULL && (s->score = malloc((size_t)n_domain * sizeof *score)) != NULL) {
        memcpy(s->score, score, (size_t)n_domain * sizeof *score);
    }
    if (s->out->n == 1 && !s->out->options->json) {
        print_domain(s);
    }
}

static void on_logits(void *user, int pos, const float *logits, int vocab)
{
    struct run_seq *s = user;
    (void)pos;
    size_t n = (size_t)vocab;
    s->last_logits = hash_bytes(logits, n * sizeof *logits);
    if (s->logits != NULL && fwrite(logits, sizeof *logits, n, s->logits) != n) {
        s->failed = 1;
    }
}

static void stream(struct run_seq *s, int32_t token)
{
    const char *bytes;
    size_t n;
    if (s->detok == NULL) {
        printf(s->n_token == 1 ? "%d" : ",%d", token);
    } else if (detok_push(s->detok, token, &bytes, &n, NULL) == 0) {
        fwrite(bytes, 1, n, stdout);
    }
    fflush(stdout);
}

static int on_token(void *user, int32_t token)
{
    struct run_seq *s = user;
    s->token[s->n_token++] = token;
    s->last_ns = clock_now(s->out->clock);
    s->out->n_token++;
    if (s->n_token == 1) {
        s->first_ns = s->last_ns;
        s->out->n_begun++;
        s->out->n_token_begun = s->out->n_token;
    }
    if (s->out->n == 1 && !s->out->options->json) {
        stream(s, token);
    }
    return 0;
}

static void on_done(void *user, enum finish reason, const struct err *err)
{
    struct run_seq *s = user;
    s->finish = reason;
    s->done = 1;
    s->out->n_done++;
    if (err != NULL) {
        s->err = *err;
    }
}

/* ---- life ------------------------------------------------------------------------------------ */

static int seq_init(struct run_output *o, int i, const struct prompts *p, struct err *err)
{
    struct run_seq *s = &o->seq[i];
    s->out = o;
    s->index = i;
    s->n_prompt = p->at[i].n;
    s->token = malloc(((size_t)o->options->max_tokens + 1) * sizeof *s->token);
    if (s->token == NULL) {
        return err_set(err, ERR_NOMEM, "no memory for %d tokens", o->options->max_tokens);
    }
    if (o->options->dump_logits != NULL && (s->logits = tmpfile()) == NULL) {
        return err_sys(err, ERR_IO, "cannot make a temporary file for logits");
    }
    if (o->tok != NULL) {
        /* The text continues the prompt, unless the prompt is nothing but the start token. */
        unsigned flags = TOK_SKIP_SPECIAL | (s->n_prompt > 1 ? TOK_CONTINUE : 0);
        return detok_create(o->tok, flags, &s->detok, err);
    }
    return 0;
}

int run_output_init(struct run_output *o, const struct run_options *options,
                    const struct model_desc *desc, const struct tokenizer *tok,
                    const struct clock *clock, const struct prompts *p, struct err *err)
{
    memset(o, 0, sizeof *o);
    o->options = options;
    o->desc = desc;
    o->tok = tok;
    o->clock = clock;
    o->n = p->n;
    o->seq = calloc((size_t)p->n, sizeof *o->seq);
    if (o->seq == NULL) {
        return err_set(err, ERR_NOMEM, "no memory for %d prompts", p->n);
    }
    int rc = 0;
    for (int i = 0; rc == 0 && i < o->n; i++) {
        rc = seq_init(o, i, p, err);
    }
    return rc;
}

void run_output_fini(struct run_output *o)
{
    for (int i = 0; o->seq != NULL && i < o->n; i++) {
        free(o->seq[i].token);
        free(o->seq[i].score);
        detok_destroy(o->seq[i].detok);
        if (o->seq[i].logits != NULL) {
            fclose(o->seq[i].logits);
        }
    }
    free(o->seq);
    o->seq = NULL;
}

void run_request(struct run_output *o, int i, const struct prompts *p, struct request *request)
{
    *request = (struct request){.prompt = p->at[i].id,
                                .n_prompt = p->at[i].n,
                                .max_tokens = o->options->max_tokens,
                                .sampling = o->options->sampling,
                                .choice = 0,
                                .domain = p->at[i].domain,
                                .ignore_eos = o->options->ignore_eos,
                                .all_logits = o->options->dump_logits != NULL,
                                .user = &o->seq[i],
                                .on_domain = on_domain,
                                .on_logits = on_logits,
                                .on_token = on_token,
                                .on_done = on_done};
}

/* ---- the end --------------------------------------------------------------------------------- */

static int write_logits(struct run_output *o, struct err *err)
{
    const char *path = o->options->dump_logits;
    FILE *to = fopen(path, "wb");
    if (to == NULL) {
        return err_sys(err, ERR_IO, "cannot write %s", path);
    }
    char buffer[65536];
    int ok = 1;
    for (int i = 0; ok && i < o->n; i++) {
        FILE *from = o->seq[i].logits;
        size_t n;
        ok = !o->seq[i].failed && fflush(from) == 0 && fseek(from, 0, SEEK_SET) == 0;
        while (ok && (n = fread(buffer, 1, sizeof buffer, from)) > 0) {
            ok = fwrite(buffer, 1, n, to) == n;
        }
    }
    ok = fclose(to) == 0 && ok;
    return ok ? 0 : err_sys(err, ERR_IO, "cannot write the logits to %s", path);
}

static void hash_of_all(const struct run_output *o, char hex[33])
{
    struct hash_stream *h = hash_stream_create();
    for (int i = 0; h != NULL && i < o->n; i++) {
        hash_stream_update(h, &o->seq[i].last_logits, sizeof o->seq[i].last_logits);
    }
    hex[0] = 0;
    if (h != NULL) {
        hash_hex(hash_stream_digest(h), hex);
    }
    hash_stream_destroy(h);
}

static int text_of(const struct run_output *o, const struct run_seq *s, struct tok_text *text,
                   struct err *err)
{
    unsigned flags = TOK_SKIP_SPECIAL | (s->n_prompt > 1 ? TOK_CONTINUE : 0);
    return tokenizer_decode(o->tok, s->token, (size_t)s->n_token, flags, text, err);
}

/* Times that people quote. */
struct rates {
    double ttft_s, prompt_per_s, decode_per_s;
    int n_prompt, n_generated;
};

static struct rates rates_of(const struct run_output *o)
{
    struct rates r = {0};
    int64_t first = o->start_ns, last = o->start_ns;
    /* Decoding is what follows the last prompt's first token. */
    int decoded = o->n_token - o->n_token_begun;
    for (int i = 0; i < o->n; i++) {
        const struct run_seq *s = &o->seq[i];
        r.n_prompt += s->n_prompt;
        r.n_generated += s->n_token;
        if (s->n_token > 0) {
            first = s->first_ns > first ? s->first_ns : first;
            last = s->last_ns > last ? s->last_ns : last;
        }
    }
    first = r.n_generated > 0 ? first : o->end_ns;
    r.ttft_s = (double)(first - o->start_ns) / 1e9;
    r.prompt_per_s = r.ttft_s > 0 ? r.n_prompt / r.ttft_s : 0;
    double decode_s = (double)(last - first) / 1e9;
    r.decode_per_s = decode_s > 0 && decoded > 0 ? decoded / decode_s : 0;
    return r;
}

static void print_json_text(const char *p, size_t n)
{
    putchar('"');
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)p[i];
        if (c == '"' || c == '\\') {
            printf("\\%c", c);
        } else if (c < 0x20 || c == 0x7f) {
            printf("\\u%04x", c);
        } else {
            putchar(c);
        }
    }
    putchar('"');
}

static int print_json_seq(const struct run_output *o, const struct run_seq *s, struct err *err)
{
    printf("{\"prompt_tokens\":%d,\"tokens\":[", s->n_prompt);
    for (int t = 0; t < s->n_token; t++) {
        printf(t == 0 ? "%d" : ",%d", s->token[t]);
    }
    printf("],\"text\":");
    int rc = 0;
    if (o->tok != NULL) {
        struct tok_text text = {0};
        rc = text_of(o, s, &text, err);
        print_json_text(text.p, text.n);
        tok_text_fini(&text);
    } else {
        printf("null");
    }
    printf(",\"finish_reason\":\"%s\"", finish_name(s->finish));
    if (s->domain != NULL) {
        printf(",\"domain\":\"%s\"", s->domain);
    }
    for (int i = 0; s->score != NULL && i < o->desc->n_domain; i++) {
        printf("%s\"%s\":%.9g", i == 0 ? ",\"domain_scores\":{" : ",", o->desc->domain[i].name,
               s->score[i]);
    }
    fputs(s->score != NULL ? "}}" : "}", stdout);
    return rc;
}

static double per(double sum, uint64_t n)
{
    return n > 0 ? sum / (double)n : 0;
}

static void print_json_stats(const struct run_output *o, const struct run_facts *f)
{
    struct rates r = rates_of(o);
    const struct engine_stats *e = &f->engine;
    uint64_t n = e->dispatches;
    printf(
        "\"stats\":{\"prompt_tokens\":%d,\"generated_tokens\":%d,\"load_s\":%.3f,\"ttft_s\":%.6f,"
        "\"prompt_tokens_per_s\":%.3f,\"decode_tokens_per_s\":%.3f,\"steps\":%llu,"
        "\"proposed\":%llu,\"accepted\":%llu,"
        "\"dispatches\":%llu,\"wait_share\":%.4f,\"bytes_sent\":%llu,\"bytes_received\":%llu,"
        "\"us_per_layer\":{\"away\":%.1f,\"serialise\":%.1f,\"wire\":%.1f,\"queue\":%.1f,"
        "\"compute\":%.1f},\"cached_tokens\":%llu,\"preemptions\":%llu,\"workers\":%d,\"replans\":%"
        "llu,\"local_slots\":%llu,"
        "\"workers_lost\":%llu,\"isa\":\"%s\",\"numerics\":\"%s\",\"precision\":\"%s\","
        "\"activations\":\"%s\"}",
        r.n_prompt, r.n_generated, (double)f->load_ns / 1e9, r.ttft_s, r.prompt_per_s,
        r.decode_per_s, (unsigned long long)e->steps, (unsigned long long)e->proposed,
        (unsigned long long)e->accepted, (unsigned long long)n,
        e->step_ns > 0 ? (double)e->wait_ns / (double)e->step_ns : 0.0,
        (unsigned long long)f->bytes_sent, (unsigned long long)f->bytes_received,
        per((double)e->away_ns / 1e3, n), per((double)e->time.serialise_ns / 1e3, n),
        per((double)e->time.wire_ns / 1e3, n), per((double)e->time.queue_ns / 1e3, n),
        per((double)e->time.compute_ns / 1e3, n), (unsigned long long)e->cache_hit_tokens,
        (unsigned long long)e->preemptions, f->n_worker, (unsigned long long)f->pool.replans,
        (unsigned long long)f->pool.local_slots, (unsigned long long)f->pool.workers_lost,
        f->kernels->name, f->numerics, o->options->host.precision == PRECISION_F32 ? "f32" : "bf16",
        model_activations(f->model, o->options->host.precision));
}

static int print_json(const struct run_output *o, const struct run_facts *f, const char *hash,
                      struct err *err)
{
    int rc = 0;
    printf("{\"sequences\":[");
    for (int i = 0; rc == 0 && i < o->n; i++) {
        fputs(i == 0 ? "" : ",", stdout);
        rc = print_json_seq(o, &o->seq[i], err);
    }
    printf("],\"logits_hash\":\"%s\",", hash);
    print_json_stats(o, f);
    printf("}\n");
    return rc;
}

static int print_batch(const struct run_output *o, struct err *err)
{
    for (int i = 0; i < o->n; i++) {
        const struct run_seq *s = &o->seq[i];
        struct tok_text text = {0};
        if (o->tok != NULL) {
            int rc = text_of(o, s, &text, err);
            if (rc != 0) {
                tok_text_fini(&text);
                return rc;
            }
            printf("%.*s\n", (int)text.n, text.p != NULL ? text.p : "");
        }
        for (int t = 0; o->tok == NULL && t < s->n_token; t++) {
            printf(t + 1 < s->n_token ? "%d," : "%d\n", s->token[t]);
        }
        tok_text_fini(&text);
    }
    return 0;
}

static void print_summary(const struct run_output *o, const struct run_facts *f, const char *hash)
{
    struct rates r = rates_of(o);
    const struct engine_stats *e = &f->engine;
    char ttft[32], load[32], sent[32], received[32];
    human_ns(r.ttft_s * 1e9, ttft, sizeof ttft);
    human_ns((double)f->load_ns, load, sizeof load);
    fprintf(stderr, "\nprompt    %d tokens, %.1f tokens/s, first token after %s\n", r.n_prompt,
            r.prompt_per_s, ttft);
    if (e->cache_hit_tokens > 0) {
        fprintf(stderr, "prefixes  %llu of these tokens were computed once for several prompts\n",
                (unsigned long long)e->cache_hit_tokens);
    }
    fprintf(stderr, "decode    %d tokens, %.1f tokens/s\n", r.n_generated, r.decode_per_s);
    if (e->proposed > 0) {
        fprintf(stderr, "guessed   %llu tokens, %llu right (%.0f %%), in %llu steps\n",
                (unsigned long long)e->proposed, (unsigned long long)e->accepted,
                100.0 * (double)e->accepted / (double)e->proposed, (unsigned long long)e->steps);
    }
    if (f->n_worker > 0) {
        fprintf(stderr,
                "experts   %d worker%s, sent %s, received %s, %.0f %% of the time waiting\n",
                f->n_worker, f->n_worker == 1 ? "" : "s",
                human_bytes((double)f->bytes_sent, sent, sizeof sent),
                human_bytes((double)f->bytes_received, received, sizeof received),
                e->step_ns > 0 ? 100.0 * (double)e->wait_ns / (double)e->step_ns : 0.0);
        fprintf(stderr,
                "a layer   %.0f us away: serialise %.0f, wire %.0f, queue %.0f, compute %.0f\n",
                per((double)e->away_ns / 1e3, e->dispatches),
                per((double)e->time.serialise_ns / 1e3, e->dispatches),
                per((double)e->time.wire_ns / 1e3, e->dispatches),
                per((double)e->time.queue_ns / 1e3, e->dispatches),
                per((double)e->time.compute_ns / 1e3, e->dispatches));
    }
    enum precision p = o->options->host.precision;
    fprintf(stderr, "logits    %s (%s, %s%s, loaded in %s)\n", hash, f->kernels->name,
            p == PRECISION_F32 ? "f32" : "bf16",
            model_int_rows(f->model, p) ? ", activations int8" : "", load);
}

int run_output_end(struct run_output *o, const struct run_facts *facts, struct err *err)
{
    int rc = o->options->dump_logits != NULL ? write_logits(o, err) : 0;
    for (int i = 0; rc == 0 && i < o->n; i++) {
        if (o->seq[i].finish == FINISH_ERROR) {
            *err = o->seq[i].err;
            rc = err->code;
        }
    }
    if (rc != 0) {
        return rc;
    }
    char hash[33];
    hash_of_all(o, hash);
    if (o->options->json) {
        rc = print_json(o, facts, hash, err);
    } else {
        if (o->n > 1) {
            rc = print_batch(o, err);
        } else {
            const char *bytes;
            size_t n;
            if (o->seq[0].detok != NULL && detok_flush(o->seq[0].detok, &bytes, &n, NULL) == 0) {
                fwrite(bytes, 1, n, stdout);
            }
            putchar('\n');
        }
        fflush(stdout);
        print_summary(o, facts, hash);
    }
    return rc == 0 && fflush(stdout) != 0 ? err_sys(err, ERR_IO, "cannot write to stdout") : rc;
}

/* arrival_file: line by line; a line that does not have what its format promises is refused with
 * its number. Requests of no tokens (the CSV has some) count as one. */
#include "tools/sim/arrival_file.h"

#include "base/clock.h"
#include "model/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINES_MAX  50000000
#define TOKENS_MAX 100000000
#define BLOCKS_MAX 500000000
#define CSV_HEADER "TIMESTAMP,ContextTokens,GeneratedTokens"

struct reader {
    const char *path;
    FILE *f;
    char *line;
    size_t line_bytes;
    int n_line, json, n_max, n_block_max;
    int64_t first_ns;
    struct arrivals *out;
    struct err *err;
};

static int refuse(struct reader *r, const char *why)
{
    return err_set(r->err, ERR_MODEL, "%s line %d: %s", r->path, r->n_line, why);
}

/* Days from the epoch of the civil calendar (Hinnant's algorithm, days_from_civil). */
static int64_t days_from_civil(int y, int m, int d)
{
    y -= m <= 2;
    int era = (y >= 0 ? y : y - 399) / 400, yoe = y - era * 400;
    int doy = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5 + d - 1;
    return (int64_t)era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;
}

static int push(struct reader *r, int64_t at_ns, long long prompt, long long output)
{
    struct arrivals *out = r->out;
    if (prompt < 0 || output < 0 || prompt > TOKENS_MAX || output > TOKENS_MAX)
        return refuse(r, "token counts out of range");
    if (out->n == 0)
        r->first_ns = at_ns;
    int64_t t = at_ns - r->first_ns;
    if (out->n > 0 && t < out->at[out->n - 1].at_ns)
        return refuse(r, "the time is earlier than the line before; sort the file by time");
    if (out->n == r->n_max) {
        r->n_max = r->n_max ? r->n_max * 2 : 4096;
        struct arrival *at = realloc(out->at, (size_t)r->n_max * sizeof(*at));
        if (!at)
            return err_set(r->err, ERR_NOMEM, "no memory for the arrivals of %s", r->path);
        out->at = at;
    }
    out->at[out->n++] = (struct arrival){.at_ns = t,
                                         .n_prompt = (int32_t)(prompt < 1 ? 1 : prompt),
                                         .n_output = (int32_t)(output < 1 ? 1 : output)};
    return 0;
}

static int csv_line(struct reader *r)
{
    int y, mo, d, h, mi, used = 0;
    double s;
    long long prompt, output;
    char behind;
    if (sscanf(r->line, "%d-%d-%d %d:%d:%lf%n", &y, &mo, &d, &h, &mi, &s, &used) != 6 ||
        sscanf(r->line + used, ",%lld,%lld%c", &prompt, &output, &behind) != 2 || mo < 1 ||
        mo > 12 || d < 1 || d > 31 || h < 0 || h > 23 || mi < 0 || mi > 59 || !(s >= 0 && s < 61) ||
        y < 1970 || y > 9999)
        return refuse(r, "not TIMESTAMP,ContextTokens,GeneratedTokens");
    int64_t whole = (days_from_civil(y, mo, d) * 24 + h) * 60 + mi;
    return push(r, whole * 60 * NS_PER_S + (int64_t)(s * (double)NS_PER_S), prompt, output);
}

/* blocks_push: the names of the blocks that the arrival pushed last begins with. */
static int blocks_push(struct reader *r, const json_t *ids)
{
    struct arrivals *out = r->out;
    struct arrival *a = &out->at[out->n - 1];
    int n = (int)json_array_size(ids);
    if (ids && !json_is_array(ids))
        return refuse(r, "hash_ids is no list of whole numbers");
    if (n > BLOCKS_MAX - out->n_block)
        return refuse(r, "more hash_ids than can be replayed");
    if (out->n_block + n > r->n_block_max) {
        r->n_block_max = (out->n_block + n) * 2;
        int64_t *block = realloc(out->block, (size_t)r->n_block_max * sizeof(*block));
        if (!block)
            return err_set(r->err, ERR_NOMEM, "no memory for the hash_ids of %s", r->path);
        out->block = block;
    }
    a->first_block = out->n_block;
    for (int i = 0; i < n; i++) {
        const json_t *id = json_array_get(ids, (size_t)i);
        if (!json_is_integer(id))
            return refuse(r, "hash_ids is no list of whole numbers");
        out->block[out->n_block++] = json_integer_value(id);
    }
    a->n_block = n;
    return 0;
}

static int json_line(struct reader *r)
{
    json_t *root;
    char name[64];
    snprintf(name, sizeof(name), "line %d", r->n_line);
    int rc = json_parse_object(r->line, strlen(r->line), 1 << 20, name, &root, NULL);
    if (rc)
        return refuse(r, "not a JSON object");
    const json_t *t = json_object_get(root, "timestamp"),
                 *in = json_object_get(root, "input_length"),
                 *out = json_object_get(root, "output_length");
    double ms = json_number_value(t);
    if (!json_is_number(t) || !json_is_integer(in) || !json_is_integer(out) ||
        !(ms >= 0 && ms < 1e15))
        rc = refuse(r, "needs timestamp (ms), input_length and output_length");
    else
        rc = push(r, (int64_t)(ms * (double)NS_PER_MS), json_integer_value(in),
                  json_integer_value(out));
    rc = rc ? rc : blocks_push(r, json_object_get(root, "hash_ids"));
    json_decref(root);
    return rc;
}

/* 1: a line, without its end; 0: the file is over; negative: an error. */
static int next_line(struct reader *r)
{
    ssize_t n = getline(&r->line, &r->line_bytes, r->f);
    if (n < 0)
        return ferror(r->f) ? err_sys(r->err, ERR_IO, "cannot read %s", r->path) : 0;
    r->n_line++;
    if (r->n_line > LINES_MAX)
        return refuse(r, "more lines than arrivals can be replayed");
    if (r->n_line == 1 && n >= 4 &&
        (memcmp(r->line,
                "\xfd"
                "7zX",
                4) == 0 ||
         memcmp(r->line, "\x1f\x8b", 2) == 0))
        return err_set(r->err, ERR_MODEL, "%s is compressed; unpack it first (xz -dk, gunzip -k)",
                       r->path);
    /* Not said of a file that ends within its last line's last number only because the publisher
     * left the end out: a cut number would be a wrong length without a word. */
    if (r->line[n - 1] != '\n')
        return refuse(r, "the file ends within this line: it is cut short (or add a line end)");
    while (n > 0 && (r->line[n - 1] == '\n' || r->line[n - 1] == '\r'))
        r->line[--n] = 0;
    if ((size_t)n != strlen(r->line))
        return refuse(r, "holds a zero byte");
    return 1;
}

static int read_lines(struct reader *r)
{
    int rc;
    while ((rc = next_line(r)) == 1) {
        if (r->n_line == 1) {
            r->json = r->line[0] == '{';
            if (!r->json && strcmp(r->line, CSV_HEADER) != 0)
                return refuse(r, "neither the header " CSV_HEADER " nor a JSON object");
            if (!r->json)
                continue;
        }
        if (r->line[0] == 0)
            continue;
        rc = r->json ? json_line(r) : csv_line(r);
        if (rc)
            return rc;
    }
    if (rc == 0 && r->out->n == 0)
        return err_set(r->err, ERR_MODEL, "%s holds no arrivals", r->path);
    return rc;
}

int arrival_file_read(const char *path, struct arrivals *out, struct err *err)
{
    *out = (struct arrivals){0};
    struct reader r = {.path = path, .out = out, .err = err};
    r.f = fopen(path, "r");
    if (!r.f)
        return err_sys(err, ERR_IO,
                       "cannot read the arrivals '%s' (poisson, uniform, bursts or a file)", path);
    int rc = read_lines(&r);
    fclose(r.f);
    free(r.line);
    return rc;
}

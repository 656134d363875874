/* loadtest_hosts: see loadtest_hosts.h. */
#include "tools/loadtest_hosts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORD_MAX 64

static int place_one(int *host, int at, const char *word, struct err *err)
{
    if (host[0] >= 0)
        return err_set(err, ERR_USAGE, "--hosts: '%s' is on host %d already, counted from 0", word,
                       host[0]);
    host[0] = at;
    return 0;
}

/* kind N or N-M of what has n, or all of them when nothing follows. */
static int place_range(int *host, int n, int at, const char *word, const char *rest,
                       struct err *err)
{
    long first = 0, last = n - 1;
    if (*rest) {
        char *end;
        first = last = strtol(rest, &end, 10);
        int bad = end == rest;
        if (!bad && *end == '-') {
            rest = end + 1;
            last = strtol(rest, &end, 10);
            bad = end == rest;
        }
        if (bad || *end || first < 0 || last < first || last >= n)
            return err_set(err, ERR_USAGE, "--hosts: '%s': there are %d, numbered from 0", word, n);
    }
    int rc = 0;
    for (long i = first; rc == 0 && i <= last; i++)
        rc = place_one(&host[i], at, word, err);
    return rc;
}

static int place_client(struct loadtest_hosts *h, int at, struct err *err)
{
    int host = h->client - 1, rc = place_one(&host, at, "client", err);
    h->client = host + 1;
    return rc;
}

static int place_word(struct loadtest_hosts *h, int n_worker, int n_coordinator, int at,
                      const char *word, struct err *err)
{
    if (strcmp(word, "all") == 0) {
        int rc = place_range(h->worker, n_worker, at, word, "", err);
        rc = rc ? rc : place_range(h->coordinator, n_coordinator, at, word, "", err);
        return rc ? rc : place_client(h, at, err);
    }
    if (strcmp(word, "client") == 0)
        return place_client(h, at, err);
    if (strcmp(word, "workers") == 0)
        return place_range(h->worker, n_worker, at, word, "", err);
    if (strcmp(word, "coordinators") == 0)
        return place_range(h->coordinator, n_coordinator, at, word, "", err);
    if (word[0] == 'w' && word[1])
        return place_range(h->worker, n_worker, at, word, word + 1, err);
    if (word[0] == 'c' && word[1])
        return place_range(h->coordinator, n_coordinator, at, word, word + 1, err);
    return err_set(
        err, ERR_USAGE,
        "--hosts: '%s' is none of all, workers, wN, wN-M, coordinators, cN, cN-M, client", word);
}

/* CPUS:WHO+WHO...; *text is moved behind it and its comma. */
static int host_read(struct loadtest_hosts *h, int n_worker, int n_coordinator, const char **text,
                     struct err *err)
{
    char *end;
    long cpus = strtol(*text, &end, 10);
    if (end == *text || *end != ':' || cpus < 1 || cpus > 4096 || h->n_host == HOSTS_MAX)
        return err_set(err, ERR_USAGE,
                       "--hosts '%.60s' is not CPUS:WHO+WHO joined by commas, such as 2:all or "
                       "16:coordinators+client,8:w0-3",
                       *text);
    int at = h->n_host++, rc = 0;
    h->cpus[at] = (int)cpus;
    const char *next = end;
    while (rc == 0 && (*next == ':' || *next == '+')) {
        char word[WORD_MAX];
        size_t n = strcspn(++next, "+,");
        snprintf(word, sizeof(word), "%.*s", (int)(n < WORD_MAX ? n : WORD_MAX - 1), next);
        rc = place_word(h, n_worker, n_coordinator, at, word, err);
        next += n;
    }
    *text = next + (*next == ',');
    return rc;
}

int loadtest_hosts_parse(const char *text, int n_worker, int n_coordinator,
                         struct loadtest_hosts *out, struct err *err)
{
    *out = (struct loadtest_hosts){0};
    if (!text)
        return 0;
    out->cpus = calloc(HOSTS_MAX, sizeof(*out->cpus));
    out->worker = malloc((size_t)n_worker * sizeof(*out->worker));
    out->coordinator = malloc((size_t)n_coordinator * sizeof(*out->coordinator));
    if (!out->cpus || !out->worker || !out->coordinator)
        return err_set(err, ERR_NOMEM, "no memory for hosts");
    for (int i = 0; i < n_worker; i++)
        out->worker[i] = -1;
    for (int i = 0; i < n_coordinator; i++)
        out->coordinator[i] = -1;
    int rc = 0;
    do
        rc = host_read(out, n_worker, n_coordinator, &text, err);
    while (rc == 0 && *text);
    return rc;
}

void loadtest_hosts_free(struct loadtest_hosts *h)
{
    free(h->cpus);
    free(h->worker);
    free(h->coordinator);
    *h = (struct loadtest_hosts){0};
}

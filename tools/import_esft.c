/* import_esft: routing of DeepSeek-V2-Lite as published with ESFT, repacked: a JSON description
 * (layers, experts, top_k, and for each domain its tokens and the lengths of its sequences) beside
 * raw files NAME_DOMAIN.ids.u8 of ids and NAME_DOMAIN.gates.u16 of weights times 10,000, both laid
 * out [layer][token][k], .xz or not. FROM is the description; NAME is its name without .json. */
#include "model/json.h"
#include "tools/import.h"

#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define TOKENS_MAX (1 << 22)
#define GATE_SCALE 10000.0f
#define DESC_BYTES ((size_t)1 << 24)

extern char **environ;

struct esft {
    struct import *import;
    char stem[PATH_MAX];
    struct routes_spec spec;
    json_t *root, *domains;
    uint64_t n_seq;
};

static int read_fd(int fd, uint8_t *out, size_t n, size_t *got)
{
    for (*got = 0; *got < n;) {
        ssize_t k = read(fd, out + *got, n - *got);
        if (k < 0)
            return -1;
        if (k == 0)
            break;
        *got += (size_t)k;
    }
    return 0;
}

/* xz_open: the other end of `xz -dc PATH`. */
static int xz_open(const char *path, pid_t *pid, struct err *err)
{
    int fd[2];
    char *argv[] = {(char *)"xz", (char *)"-dc", (char *)"--", (char *)(uintptr_t)path, NULL};
    posix_spawn_file_actions_t actions;
    if (pipe2(fd, O_CLOEXEC))
        return err_sys(err, ERR_IO, "no pipe to xz");
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, fd[1], STDOUT_FILENO);
    int failed = posix_spawnp(pid, "xz", &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(fd[1]);
    if (failed) {
        close(fd[0]);
        return err_set(err, ERR_IO, "%s: cannot start xz: %s; unpack the file, or install xz-utils",
                       path, strerror(failed));
    }
    return fd[0];
}

/* raw_read: exactly n bytes of STEM_DOMAIN.SUFFIX or the same with .xz. */
static int raw_read(const struct esft *e, const char *domain, const char *suffix, uint8_t *out,
                    size_t n, struct err *err)
{
    char path[PATH_MAX + 256];
    pid_t pid = 0;
    snprintf(path, sizeof(path), "%s_%s.%s", e->stem, domain, suffix);
    int fd = open(path, O_RDONLY | O_CLOEXEC), status = 0;
    if (fd < 0) {
        strcat(path, ".xz");
        if (access(path, R_OK))
            return err_sys(err, ERR_IO, "%s", path);
        if ((fd = xz_open(path, &pid, err)) < 0)
            return fd;
    }
    size_t got = 0, more = 0;
    uint8_t behind;
    int failed = read_fd(fd, out, n, &got) || read_fd(fd, &behind, 1, &more);
    close(fd);
    if (pid > 0 && waitpid(pid, &status, 0) < 0)
        failed = 1;
    if (failed || got != n || more || status)
        return err_set(err, ERR_MODEL, "%s: holds %s than the %zu bytes that its description says",
                       path, got < n ? "less" : "more", n);
    return 0;
}

static int whole(const json_t *object, const char *key, int64_t most, int *out)
{
    const json_t *value = json_object_get(object, key);
    json_int_t n = json_integer_value(value);
    if (!json_is_integer(value) || n < 1 || n > most)
        return -1;
    *out = (int)n;
    return 0;
}

static int describe(struct esft *e, struct err *err)
{
    int first = 0;
    const json_t *from = json_object_get(e->root, "first_moe_layer");
    const char *model = json_string_value(json_object_get(e->root, "model"));
    if (from)
        first = (int)json_integer_value(from);
    e->domains = json_object_get(e->root, "domains");
    if (whole(e->root, "moe_layers", LIMIT_LAYERS, &e->spec.n_layer) ||
        whole(e->root, "experts", 256, &e->spec.n_expert) ||
        whole(e->root, "top_k", LIMIT_TOP_K, &e->spec.top_k) || first < 0 ||
        first + e->spec.n_layer > LIMIT_LAYERS || !json_is_object(e->domains))
        return err_set(err, ERR_MODEL,
                       "%s: no description with moe_layers, experts (up to 256), top_k and domains",
                       e->import->from);
    for (int l = 0; l < e->spec.n_layer; l++)
        e->spec.layer[l] = first + l;
    e->spec.has_weight = 1;
    snprintf(e->spec.model, sizeof(e->spec.model), "%s", model ? model : "");
    return import_begin(e->import, &e->spec, err);
}

/* put_sequences: one run a sequence; what lengths do not cover is a last one. */
static int put_sequences(struct esft *e, int domain, const json_t *lengths, int n_token,
                         const int32_t *expert, const float *weight, struct err *err)
{
    size_t k = (size_t)e->spec.top_k, ld = (size_t)n_token * k;
    int rc = 0, at = 0;
    for (size_t i = 0; rc == 0 && at < n_token; i++) {
        json_int_t n = json_integer_value(json_array_get(lengths, i));
        if (n < 1 || n > n_token - at)
            n = n_token - at;
        struct routes_run run = {
            .seq = e->n_seq++, .domain = domain, .n_token = (int)n, .begins = 1, .ends = 1};
        size_t from = (size_t)at * k;
        rc = import_put(e->import, &run, NULL, expert + from, weight + from, ld, err);
        at += (int)n;
    }
    return rc;
}

static int put_domain(struct esft *e, const char *name, const json_t *value, struct err *err)
{
    int n_token, label, rc;
    if (strchr(name, '/') || whole(value, "tokens", TOKENS_MAX, &n_token))
        return err_set(err, ERR_MODEL, "%s: domain \"%.64s\" has no count of tokens",
                       e->import->from, name);
    size_t n = (size_t)e->spec.n_layer * (size_t)n_token * (size_t)e->spec.top_k;
    uint8_t *raw = malloc(2 * n);
    int32_t *expert = malloc(n * sizeof(*expert));
    float *weight = malloc(n * sizeof(*weight));
    rc = raw && expert && weight ? 0 : err_set(err, ERR_NOMEM, "no memory for %d tokens", n_token);
    if (rc == 0)
        rc = raw_read(e, name, "ids.u8", raw, n, err);
    for (size_t i = 0; rc == 0 && i < n; i++)
        expert[i] = raw[i];
    if (rc == 0)
        rc = raw_read(e, name, "gates.u16", raw, 2 * n, err);
    for (size_t i = 0; rc == 0 && i < n; i++)
        weight[i] = (float)(raw[2 * i] | raw[2 * i + 1] << 8) / GATE_SCALE;
    if (rc == 0)
        rc = import_label(e->import, name, &label, err);
    if (rc == 0)
        rc = put_sequences(e, label, json_object_get(value, "seq_lens"), n_token, expert, weight,
                           err);
    free(weight);
    free(expert);
    free(raw);
    return rc;
}

int import_esft(struct import *import, struct err *err)
{
    struct esft e = {.import = import};
    char *text = NULL;
    size_t bytes, n = strlen(import->from);
    if (n < 6 || n >= sizeof(e.stem) || strcmp(import->from + n - 5, ".json") != 0)
        return err_set(err, ERR_USAGE, "%s: give the description, NAME.json", import->from);
    memcpy(e.stem, import->from, n - 5);
    int rc = file_read(import->from, DESC_BYTES, &text, &bytes, err);
    if (rc == 0)
        rc = json_parse_object(text, bytes, DESC_BYTES, import->from, &e.root, err);
    free(text);
    if (rc == 0)
        rc = describe(&e, err);
    const char *name;
    json_t *value;
    json_object_foreach(rc == 0 ? e.domains : NULL, name, value)
    {
        if (rc == 0)
            rc = put_domain(&e, name, value, err);
    }
    json_decref(e.root);
    return rc;
}

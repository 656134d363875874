/* import: the table of formats and what the importers share; see import.h. */
#include "tools/import.h"

#include <stdio.h>
#include <string.h>

static const struct import_kind kinds[] = {
    {"routes", "a route file, to recover, to merge or to label", import_routes},
    {"csv", "lines layer,expert[,count]; a header line is allowed", import_csv},
    {"sglang", "a dump of SGLang's expert distribution recorder: stat, per_pass or per_token (.pt)",
     import_sglang},
    {"scores", "JSON of activations by layer and expert, as published for DeepSeek-V3",
     import_scores},
    {"vllm", "vLLM's JSON responses with routed_experts, one or many", import_vllm},
    {"esft", "raw [layer][token][k] ids beside a JSON description (ESFT's DeepSeek-V2-Lite)",
     import_esft},
};

const struct import_kind *import_at(int i)
{
    return i >= 0 && i < (int)(sizeof(kinds) / sizeof(*kinds)) ? &kinds[i] : NULL;
}

const struct import_kind *import_find(const char *name)
{
    const struct import_kind *kind;
    for (int i = 0; (kind = import_at(i)) != NULL; i++)
        if (strcmp(kind->name, name) == 0)
            return kind;
    return NULL;
}

static int ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), k = strlen(end);
    return n >= k && strcmp(text + n - k, end) == 0;
}

const struct import_kind *import_guess(const char *path)
{
    static const char *const guesses[][2] = {{".routes", "routes"}, {".routes.part", "routes"},
                                             {".csv", "csv"},       {".pt", "sglang"},
                                             {".jsonl", "vllm"},    {".ndjson", "vllm"}};
    if (strstr(path, "expert_scores") && ends_with(path, ".json"))
        return import_find("scores");
    for (size_t i = 0; i < sizeof(guesses) / sizeof(*guesses); i++)
        if (ends_with(path, guesses[i][0]))
            return import_find(guesses[i][1]);
    return NULL;
}

int import_begin(struct import *import, const struct routes_spec *spec, struct err *err)
{
    struct routes_spec named = *spec;
    if (import->model)
        snprintf(named.model, sizeof(named.model), "%s", import->model);
    return routes_create(import->to, &named, &import->writer, err);
}

int import_label(struct import *import, const char *label, int *out, struct err *err)
{
    *out = label ? routes_writer_domain(import->writer, label, err) : -1;
    return label && *out < 0 ? *out : 0;
}

int import_put(struct import *import, const struct routes_run *run, const int32_t *token,
               const int32_t *expert, const float *weight, size_t ld, struct err *err)
{
    import->n_token += run->n_token;
    return routes_write(import->writer, run, token, expert, weight, ld, err);
}

int import_plain(const char *path, struct err *err)
{
    static const char *const packed[][2] = {
        {".xz", "xz -dk"}, {".gz", "gunzip -k"}, {".zst", "zstd -d"}, {".bz2", "bunzip2 -k"}};
    for (size_t i = 0; i < sizeof(packed) / sizeof(*packed); i++)
        if (ends_with(path, packed[i][0]))
            return err_set(err, ERR_MODEL, "%s is compressed; unpack it first: %s %s", path,
                           packed[i][1], path);
    return 0;
}

int import_run(const struct import_kind *kind, struct import *import, struct err *err)
{
    int packed = import_plain(import->from, err);
    if (packed)
        return packed;
    import->writer = NULL;
    import->n_token = 0;
    int rc = kind->run(import, err);
    if (rc == 0 && import->n_token == 0)
        rc = err_set(err, ERR_MODEL, "%s: holds no tokens", import->from);
    if (rc) {
        routes_abandon(import->writer);
        return rc;
    }
    return routes_finish(import->writer, err);
}

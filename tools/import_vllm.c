/* import_vllm: responses of vLLM (or sigmoe serve) asked with return_routed_experts: each choice
 * carries `routed_experts`, the base64 text of a NumPy file [token, layer, k]. The file holds one
 * response, a list of them, or one a line. Each choice is a sequence; its label is the response's
 * `domain`, if it has one. All must agree in layers and k. */
#include "base/limits.h"
#include "model/json.h"
#include "tools/import.h"
#include "tools/npy_read.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_BYTES_MAX ((size_t)1 << 31)

struct reply {
    struct npy npy;
    char domain[ROUTES_NAME_MAX];
};

struct vllm {
    struct import *import;
    struct reply *reply;
    int n, room;
    int n_expert;
};

static int add(struct vllm *v, const json_t *text, const char *domain, struct err *err)
{
    char what[512];
    struct npy npy;
    int limit = v->import->n_expert > 0 ? v->import->n_expert : LIMIT_EXPERTS;
    snprintf(what, sizeof(what), "%.300s: sequence %d", v->import->from, v->n);
    int rc = npy_read(json_string_value(text), json_string_length(text), limit, what, &npy, err);
    if (rc)
        return rc;
    if (v->n == v->room) {
        int room = v->room ? v->room * 2 : 64;
        struct reply *grown = realloc(v->reply, (size_t)room * sizeof(*grown));
        if (!grown) {
            free(npy.id);
            return err_set(err, ERR_NOMEM, "no memory for %d sequences", room);
        }
        v->reply = grown;
        v->room = room;
    }
    struct reply *r = &v->reply[v->n++];
    r->npy = npy;
    snprintf(r->domain, sizeof(r->domain), "%s", domain ? domain : "");
    if (npy.n_layer != v->reply[0].npy.n_layer || npy.top_k != v->reply[0].npy.top_k)
        return err_set(err, ERR_MODEL, "%s: %d layers of top-%d, the first sequence has %d of %d",
                       what, npy.n_layer, npy.top_k, v->reply[0].npy.n_layer,
                       v->reply[0].npy.top_k);
    size_t count = (size_t)npy.n * (size_t)npy.n_layer * (size_t)npy.top_k;
    for (size_t i = 0; i < count; i++)
        v->n_expert = npy.id[i] >= v->n_expert ? npy.id[i] + 1 : v->n_expert;
    return 0;
}

static int add_response(struct vllm *v, const json_t *response, struct err *err)
{
    const char *domain = json_string_value(json_object_get(response, "domain"));
    const json_t *choices = json_object_get(response, "choices"), *choice;
    const json_t *own = json_object_get(response, "routed_experts");
    size_t i;
    int rc = json_is_string(own) ? add(v, own, domain, err) : 0;
    json_array_foreach(choices, i, choice)
    {
        const json_t *text = json_object_get(choice, "routed_experts");
        if (rc == 0 && json_is_string(text))
            rc = add(v, text, domain, err);
    }
    return rc;
}

static int read_responses(struct vllm *v, const char *text, size_t bytes, struct err *err)
{
    size_t at = 0;
    int rc = 0;
    while (rc == 0 && at < bytes) {
        json_error_t where;
        const json_t *item;
        size_t i;
        if (strspn(text + at, " \t\r\n") == bytes - at)
            break;
        json_t *root = json_loadb(text + at, bytes - at, JSON_DISABLE_EOF_CHECK, &where);
        if (!root)
            return err_set(err, ERR_MODEL, "%s: at byte %zu: %s", v->import->from, at, where.text);
        at += (size_t)where.position;
        if (json_is_object(root))
            rc = add_response(v, root, err);
        json_array_foreach(root, i, item)
        {
            if (rc == 0)
                rc = add_response(v, item, err);
        }
        json_decref(root);
    }
    return rc;
}

/* by_layer turns [token, layer, k] into [layer, token, k]. */
static void by_layer(const struct npy *npy, int32_t *out)
{
    size_t k = (size_t)npy->top_k, layers = (size_t)npy->n_layer, n = (size_t)npy->n;
    for (size_t t = 0; t < n; t++)
        for (size_t l = 0; l < layers; l++)
            memcpy(out + (l * n + t) * k, npy->id + (t * layers + l) * k, k * sizeof(*out));
}

static int put_reply(struct vllm *v, int i, struct err *err)
{
    const struct reply *r = &v->reply[i];
    size_t slots = (size_t)r->npy.n * (size_t)r->npy.top_k;
    int32_t *expert = malloc(slots * (size_t)r->npy.n_layer * sizeof(*expert));
    if (!expert)
        return err_set(err, ERR_NOMEM, "no memory for %d tokens", r->npy.n);
    by_layer(&r->npy, expert);
    struct routes_run run = {.seq = (uint64_t)i, .n_token = r->npy.n, .begins = 1, .ends = 1};
    const char *label = r->domain[0] ? r->domain : v->import->domain;
    int rc = import_label(v->import, label, &run.domain, err);
    if (rc == 0)
        rc = import_put(v->import, &run, NULL, expert, NULL, slots, err);
    free(expert);
    return rc;
}

int import_vllm(struct import *import, struct err *err)
{
    struct vllm v = {.import = import};
    char *text = NULL;
    size_t bytes = 0;
    int rc = file_read(import->from, FILE_BYTES_MAX, &text, &bytes, err);
    if (rc == 0)
        rc = read_responses(&v, text, bytes, err);
    free(text);
    if (rc == 0 && v.n == 0)
        rc = err_set(err, ERR_MODEL,
                     "%s: no response has routed_experts; ask with return_routed_experts",
                     import->from);
    if (rc == 0) {
        struct routes_spec spec = {.n_layer = v.reply[0].npy.n_layer,
                                   .top_k = v.reply[0].npy.top_k,
                                   .n_expert =
                                       import->n_expert > 0 ? import->n_expert : v.n_expert};
        if (spec.n_expert < spec.top_k)
            spec.n_expert = spec.top_k;
        for (int l = 0; l < spec.n_layer; l++)
            spec.layer[l] = l;
        rc = import_begin(import, &spec, err);
    }
    for (int i = 0; rc == 0 && i < v.n; i++)
        rc = put_reply(&v, i, err);
    for (int i = 0; i < v.n; i++)
        free(v.reply[i].npy.id);
    free(v.reply);
    return rc;
}

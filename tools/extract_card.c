/* extract_card: how large the submodel is and what it is, for people: README.md, the model card. */
#include "tools/extract.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* is_kept_expert: the expert's domain is kept. */
static int is_kept_expert(const struct extract *u, int expert)
{
    int domain = desc_expert_domain(&u->full->desc, expert);
    for (int i = 0; i < u->n_domain; i++)
        if (u->domain[i] == domain)
            return 1;
    return 0;
}

static int size_add(void *arg, enum role role, int layer, int expert)
{
    struct extract *u = arg;
    const struct model_desc *d = &u->full->desc;
    const struct tensor *t;
    if (u->fetch && role_is_expert(role)) {
        int rows = 0, cols = 0;
        desc_tensor_shape(d, role, layer, &rows, &cols);
        uint64_t bytes =
            (uint64_t)rows * (uint64_t)(cols ? cols : 1) * dtype_bytes(u->expert_dtype);
        u->sizes.full += bytes;
        u->sizes.group += is_kept_expert(u, expert) ? bytes : 0;
        return 0;
    }
    int rc = checkpoint_role(u->full->ck, d, role, layer, expert, &t, u->err);
    if (rc)
        return rc;
    u->sizes.full += t->bytes;
    if (role_is_expert(role))
        u->sizes.group += is_kept_expert(u, expert) ? t->bytes : 0;
    else if (role == ROLE_EMBED || role == ROLE_LM_HEAD)
        u->sizes.dense += t->bytes / (uint64_t)d->n_slot * (uint64_t)u->desc.n_slot;
    else if (role == ROLE_ROUTING_TABLE)
        u->sizes.dense +=
            u->collapsed ? 0 : t->bytes / (uint64_t)d->n_domain * (uint64_t)u->n_domain;
    else
        u->sizes.dense += t->bytes;
    return 0;
}

int extract_sizes_count(struct extract *u)
{
    return desc_each_tensor(&u->full->desc, size_add, u);
}

/* A text that grows; once memory is out it stays NULL. */
struct text {
    char *p;
    size_t n;
};

__attribute__((format(printf, 2, 3))) static void put(struct text *t, const char *format, ...)
{
    char line[2048];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    size_t add = n < 0 ? 0 : (size_t)n < sizeof(line) ? (size_t)n : sizeof(line) - 1;
    char *grown = t->p ? realloc(t->p, t->n + add + 1) : NULL;
    if (!grown)
        free(t->p);
    t->p = grown;
    if (grown) {
        memcpy(grown + t->n, line, add);
        t->n += add;
        grown[t->n] = '\0';
    }
}

static const char *base_name(const char *path, char *out, size_t size)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    size_t begin = n;
    while (begin > 0 && path[begin - 1] != '/')
        begin--;
    snprintf(out, size, "%.*s", (int)(n - begin), path + begin);
    return out;
}

static uint64_t params(const struct model_desc *d)
{
    return desc_dense_params(d) +
           (uint64_t)desc_n_sparse(d) * (uint64_t)d->n_expert * desc_expert_params(d);
}

static void put_names(struct text *t, const struct extract *u)
{
    for (int i = 0; i < u->n_domain; i++)
        put(t, "%s%s", i ? ", " : "", u->full->desc.domain[u->domain[i]].name);
}

static void put_kept(struct text *t, const struct extract *u)
{
    const struct model_desc *d = &u->full->desc;
    char hex[33];
    put(t, "## What was kept\n\n");
    hash_hex(u->full->fingerprint, hex);
    put(t, "- from the model with fingerprint `%s` (%s, %d domains, %d experts a sparse layer)\n",
        hex, d->family, d->n_domain, d->n_expert);
    hash_hex(u->fingerprint, hex);
    put(t, "- this model's fingerprint: `%s`\n", hex);
    for (int i = 0; i < u->n_domain; i++) {
        const struct domain_desc *domain = &d->domain[u->domain[i]];
        put(t, "- domain %s: experts %d-%d of each of %d sparse layers, embedding slot %d\n",
            domain->name, domain->first, domain->first + domain->n_expert - 1, desc_n_sparse(d),
            domain->slot);
    }
    put(t, "- all dense layers, attention and norms, unchanged%s\n",
        u->rounded              ? ", but for rounding to bf16"
        : u->dtype == DTYPE_F32 ? ", widened to f32"
                                : "");
    if (u->kept)
        put(t,
            "- %d of %d tokens: those of a text of the domain, single bytes, specials, and what "
            "merging needs; ids are new, the tokenizer is rewritten to match\n",
            u->n_kept, d->vocab);
    if (u->collapsed)
        put(t,
            "- the group has one expert, so there is nothing to route: this is a plain %s "
            "checkpoint\n",
            u->desc.family);
    else if (u->why_not)
        put(t, "- the group of one expert was kept as a group: %s\n", u->why_not);
}

static void put_sizes(struct text *t, const struct extract *u)
{
    const struct extract_sizes *s = &u->sizes;
    char a[32], b[32];
    const struct {
        const char *name;
        uint64_t bytes;
    } rows[] = {{"full model", s->full},
                {"its dense part, with this embedding and table", s->dense},
                {"its experts of the kept domains", s->group},
                {"submodel", s->part}};
    put(t, "\n## Sizes\n\n| | bytes | |\n|---|---:|---:|\n");
    for (int i = 0; i < 4; i++)
        put(t, "| %s | %llu | %s |\n", rows[i].name, (unsigned long long)rows[i].bytes,
            human_bytes((double)rows[i].bytes, a, sizeof(a)));
    put(t,
        "\nThe submodel is %.4f of dense part plus group, and %.4f of the full model; %s "
        "parameters of %s.\n",
        (double)s->part / (double)(s->dense + s->group), (double)s->part / (double)s->full,
        human_count((double)params(&u->desc), a, sizeof(a)),
        human_count((double)params(&u->full->desc), b, sizeof(b)));
}

static void put_proof(struct text *t, const struct extract *u)
{
    put(t, "\n## Proof\n\n");
    if (u->no_proof) {
        put(t, "None was made.\n");
        return;
    }
    put(t,
        "`proof.json` holds hashes of the logits of both models on %d prompts: %d are equal in "
        "every bit, at precision %s, numerics %s.",
        u->n_prompts, u->n_equal, u->host.precision == PRECISION_F32 ? "f32" : "bf16", u->numerics);
    if (u->rounded)
        put(t, " The others differ because `--dtype` rounded weights on the way.");
    if (u->collapsed)
        put(t, " Equality of a collapsed model is at f32: at bf16 the full model's expert output "
               "is rounded once more, to travel to the coordinator.");
    put(t, "\n");
}

static void put_use(struct text *t, const struct extract *u, const char *name)
{
    put(t, "\n## Use\n\n    sigmoe run %s --prompt '...'\n\nIn transformers:\n\n", name);
    put(t,
        "    from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "    model = AutoModelForCausalLM.from_pretrained(\"%s\"%s)\n"
        "    tokenizer = AutoTokenizer.from_pretrained(\"%s\")\n",
        name, u->collapsed ? "" : ", trust_remote_code=True", name);
}

int extract_card(struct extract *u)
{
    char name[256], full[256];
    struct text t = {.p = calloc(1, 1)};
    base_name(u->out, name, sizeof(name));
    base_name(u->dir, full, sizeof(full));
    put(&t,
        "---\nlibrary_name: transformers\npipeline_tag: text-generation\nbase_model: %s\n"
        "tags:\n- sigmoe\n- %s\n---\n\n",
        full, u->desc.family);
    put(&t, "# %s\n\nThe submodel of %s for ", name, full);
    put_names(&t, u);
    put(&t,
        ", extracted by sigmoe " SIGMOE_VERSION ". Tokens of a domain never meet another "
        "domain's experts, so for %s it computes what the full model computes.\n\n",
        u->n_domain == 1 ? "its domain" : "these domains");
    put_kept(&t, u);
    put_sizes(&t, u);
    put_proof(&t, u);
    put_use(&t, u, name);
    int rc = t.p ? copy_text(&u->copy, "README.md", t.p)
                 : err_set(u->err, ERR_NOMEM, "no memory for the model card");
    free(t.p);
    return rc;
}

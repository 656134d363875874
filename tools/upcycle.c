/* upcycle: `sigmoe upcycle`: the command, its options, and what it says. */
#include "tools/upcycle.h"
#include "base/clock.h"
#include "base/opt.h"
#include "tools/commands.h"
#include "tools/token_counts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int options_check(const struct upcycle *u)
{
    static const char *const forms[] = {"rre", "mixtral", "qwen2_moe", "qwen3_moe"};
    if (!u->out)
        return err_set(u->err, ERR_USAGE, "-o OUT is missing: the folder to write to");
    for (int i = 0; i < 4; i++)
        if (strcmp(forms[i], u->form) == 0)
            return 0;
    return err_set(u->err, ERR_USAGE,
                   "--form must be rre, mixtral, qwen2_moe or qwen3_moe, it is '%s'", u->form);
}

static int upcycle_run(struct upcycle *u, const char *dense)
{
    int rc = options_check(u);
    if (rc == 0)
        rc = model_open(dense, &u->dense, u->err);
    if (rc)
        return rc;
    if (desc_n_sparse(&u->dense->desc) > 0)
        return err_set(u->err, ERR_USAGE, "%s is a %s: it has experts already; give a dense model",
                       dense, u->dense->desc.family);
    rc = upcycle_config(u);
    if (rc == 0 && u->counts_path)
        rc = token_counts_read(u->counts_path, u->desc.vocab, &u->counts, u->err);
    return rc ? rc : upcycle_write(u);
}

static uint64_t params(const struct model_desc *d)
{
    uint64_t held = (uint64_t)desc_n_sparse(d) * (uint64_t)d->n_expert;
    return desc_dense_params(d) + held * desc_expert_params(d);
}

static void report(const struct upcycle *u, int64_t ns)
{
    const struct model_desc *d = &u->desc;
    char was[32], is[32], bytes[32], time[32];
    printf("%s: %s, %d of %d layers sparse, %d experts a layer", u->out, d->family,
           desc_n_sparse(d), d->n_layer, d->n_expert);
    if (d->n_domain > 0)
        printf(" in %d group%s, top-%d", d->n_domain, d->n_domain == 1 ? "" : "s", d->top_k);
    printf("\n%s parameters became %s; %s in %s\n",
           human_count((double)params(&u->dense->desc), was, sizeof(was)),
           human_count((double)params(d), is, sizeof(is)),
           human_bytes((double)u->copy.bytes, bytes, sizeof(bytes)),
           human_ns((double)ns, time, sizeof(time)));
}

static const char about[] =
    "Makes a dense model sparse without changing what it computes: in the upper layers\n"
    "every expert starts as the layer's FFN. The result is meant to be trained further.\n\n"
    "--form rre (default) gives a PanGu-Sigma model: a group of experts for each domain,\n"
    "chosen inside the group by a fixed random table (docs/PANGU_SIGMA.md). With top-k 1, 2\n"
    "or 4 its logits are the dense model's bit for bit at --precision f32. The other forms\n"
    "have a learned gate that begins random and small, with the names and config that\n"
    "standard tools load: llama becomes mixtral, qwen2 qwen2_moe, qwen3 qwen3_moe; their\n"
    "slot weights add up to 1, so the function is the dense one up to rounding.\n\n"
    "  sigmoe upcycle ./dense -o ./sparse --domains zh,en,code --experts-per-domain 4\n"
    "  sigmoe upcycle ./dense -o ./sparse --domains zh,en --domain-sizes 6,2 --sparse-layers 8\n"
    "  sigmoe upcycle ./llama -o ./mixtral --form mixtral --experts 8 --top-k 2";

int cmd_upcycle(int argc, char **argv)
{
    struct err err = {0};
    struct upcycle u = {
        .form = "rre", .seed = "sigmoe", .per_domain = 4, .shard_size = 5LL << 30, .err = &err};
    const struct opt opts[] = {
        {"out", 'o', OPT_STR, &u.out, "DIR", "the folder to write; must not exist, or be empty", 0,
         0},
        {"form", 0, OPT_STR, &u.form, "FORM", "rre (default), mixtral, qwen2_moe or qwen3_moe", 0,
         0},
        {"domains", 0, OPT_STR, &u.domains, "LIST", "names of the groups: zh,en,code", 0, 0},
        {"experts-per-domain", 0, OPT_INT, &u.per_domain, "N", "experts of each group (4)", 1,
         LIMIT_EXPERTS},
        {"domain-sizes", 0, OPT_STR, &u.sizes, "LIST",
         "experts of each group in the order of --domains: 8,4,4", 0, 0},
        {"default-domain", 0, OPT_STR, &u.default_domain, "NAME",
         "of requests that name none; default: the first", 0, 0},
        {"own-embeddings", 0, OPT_FLAG, &u.own_embeddings, NULL,
         "every domain gets an embedding table of its own", 0, 0},
        {"sparse-layers", 0, OPT_INT, &u.n_sparse, "N",
         "the N upper layers become sparse;\ndefault: half of them, at most 8 (mixtral: all)", 1,
         LIMIT_LAYERS},
        {"top-k", 0, OPT_INT, &u.top_k, "K", "experts a token: 1 in groups, 2 behind a gate", 1,
         LIMIT_TOP_K},
        {"experts", 0, OPT_INT, &u.n_expert, "N", "behind a learned gate: experts a layer (8)", 1,
         LIMIT_EXPERTS},
        {"seed", 0, OPT_STR, &u.seed, "TEXT", "of the tables or the gate (sigmoe)", 0, 0},
        {"token-counts", 0, OPT_STR, &u.counts_path, "FILE",
         "lines of \"TOKEN_ID COUNT\": balance the tables by frequency", 0, 0},
        {"shard-size", 0, OPT_SIZE, &u.shard_size, "BYTES", "cut files at this size, default 5G",
         1 << 10, 1e15},
        {0}};
    const struct opt_command cmd = {"upcycle", "sigmoe upcycle DENSE -o OUT [options]", about,
                                    opts};
    const char *dense[1];
    int n = 1;
    int64_t start_ns = clock_now(&clock_real);
    int rc = opt_parse(&cmd, argc, argv, dense, &n, &err);
    if (rc == 1)
        return 0;
    if (rc == 0 && n == 0)
        rc = err_set(&err, ERR_USAGE, "DENSE is missing; see sigmoe upcycle --help");
    if (rc == 0)
        rc = upcycle_run(&u, dense[0]);
    if (rc == 0)
        report(&u, clock_now(&clock_real) - start_ns);
    else
        fprintf(stderr, "sigmoe upcycle: %s\n", err.text);
    json_decref(u.config);
    free(u.counts);
    model_close(u.dense);
    return err_exit_code(rc);
}

/* extract: `sigmoe extract`: the command, the order of the work, and what it says. */
#include "tools/extract.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/opt.h"
#include "tools/commands.h"
#include "tools/hf_files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int options_check(struct extract *u)
{
    if (!u->out)
        return err_set(u->err, ERR_USAGE, "-o OUT is missing: the folder to write to");
    if (!u->domains)
        return err_set(u->err, ERR_USAGE, "--domain is missing: which domains to keep");
    if (u->dtype_name && strcmp(u->dtype_name, "bf16") == 0)
        u->dtype = DTYPE_BF16;
    else if (u->dtype_name && strcmp(u->dtype_name, "f32") == 0)
        u->dtype = DTYPE_F32;
    else if (u->dtype_name)
        return err_set(u->err, ERR_USAGE, "--dtype must be bf16 or f32, it is '%s'", u->dtype_name);
    if (u->verify && u->no_proof)
        return err_set(u->err, ERR_USAGE, "--verify and --no-proof contradict each other");
    return 0;
}

/* precision_choose: a collapsed model is the full one bit for bit at f32 only (extract_card.c). */
static int precision_choose(struct extract *u)
{
    if (!u->host.precision_name)
        u->host.precision_name = u->collapsed ? "f32" : "bf16";
    int rc = host_options_check(&u->host, u->err);
    if (rc == 0 && u->collapsed && u->host.precision != PRECISION_F32 && !u->no_proof)
        rc = err_set(u->err, ERR_USAGE,
                     "a group of one expert becomes a plain dense model, which is the full model "
                     "bit for bit at --precision f32 only; leave out --precision, or give "
                     "--no-collapse");
    return rc;
}

/* full_open: the model and its tokenizer, if it has one. With --from its experts may be missing. */
static int full_open(struct extract *u)
{
    struct host h = {.model = NULL};
    int rc = u->from ? model_open_dense(u->dir, &h.model, u->err) : 0;
    if (rc == 0)
        rc = host_open(&h, u->dir, u->err);
    u->full = h.model;
    u->tok = h.tok;
    return rc;
}

/* workers_find: who is named by --from must hold the model of the folder, as far as it can tell. */
static int workers_find(struct extract *u)
{
    static const struct hash128 unknown;
    char ours[33], theirs[33];
    if (!u->from)
        return 0;
    int rc = fetch_open(u->from, &u->full->desc, u->host.key, u->host.insecure, &u->fetch, u->err);
    if (rc)
        return rc;
    struct hash128 fingerprint = fetch_fingerprint(u->fetch);
    hash_hex(fingerprint, theirs);
    hash_hex(u->full->fingerprint, ours);
    if (!hash_equal(u->full->fingerprint, unknown) &&
        !hash_equal(u->full->fingerprint, fingerprint))
        return err_set(u->err, ERR_MODEL, "the workers hold model %s, %s is model %s", theirs,
                       u->dir, ours);
    u->full->fingerprint = fingerprint;
    if (!u->host.precision_name)
        u->host.precision_name = fetch_precision(u->fetch) == DTYPE_F32 ? "f32" : "bf16";
    return 0;
}

/* proved: the tensors are there, the submodel opens, both models agree. */
static int proved(struct extract *u)
{
    struct model *part = NULL;
    int rc = ck_writer_finish(u->copy.writer, u->err);
    if (rc == 0)
        rc = model_open(ck_writer_path(u->copy.writer), &part, u->err);
    if (rc)
        return rc;
    u->fingerprint = part->fingerprint;
    model_close(part);
    if (u->rounded && u->verify)
        return err_set(u->err, ERR_USAGE,
                       "--dtype bf16 rounds weights of %s, so nothing can be equal in every bit; "
                       "leave out --verify or --dtype",
                       u->dir);
    rc = extract_tokenizer_check(u);
    if (rc == 0 && !u->no_proof)
        rc = extract_prompts(u);
    return rc || u->no_proof ? rc : extract_proof(u);
}

static int files_write(struct extract *u)
{
    int rc = extract_tokenizer(u);
    if (rc == 0 && !u->collapsed)
        rc = hf_files_copy(&u->copy);
    return rc;
}

int extract_run(struct extract *u)
{
    int rc = options_check(u);
    if (rc == 0)
        rc = full_open(u);
    if (rc == 0)
        rc = extract_domains(u);
    if (rc == 0)
        rc = workers_find(u);
    if (rc == 0)
        rc = extract_vocab(u);
    if (rc == 0)
        rc = extract_plan(u);
    if (rc == 0)
        rc = precision_choose(u);
    if (rc == 0)
        rc = copy_open(&u->copy, u->out, u->shard_size, u->err);
    if (rc)
        return rc;
    rc = extract_write(u);
    u->sizes.part = u->copy.bytes;
    if (rc == 0)
        rc = extract_sizes_count(u);
    if (rc == 0)
        rc = files_write(u);
    if (rc == 0)
        rc = proved(u);
    if (rc == 0)
        rc = extract_card(u);
    return copy_close(&u->copy, rc);
}

void extract_free(struct extract *u)
{
    for (int i = 0; i < u->n_prompts; i++) {
        free(u->prompt[i].token);
        free(u->prompt[i].full);
        free(u->prompt[i].part);
    }
    free(u->prompt);
    free(u->kept);
    free(u->new_id);
    free(u->domain);
    free(u->slot);
    free(u->remote_data);
    fetch_close(u->fetch);
    json_decref(u->config);
    tokenizer_close(u->tok);
    model_close(u->full);
}

static void report(const struct extract *u, int64_t ns)
{
    const struct extract_sizes *s = &u->sizes;
    char a[32], b[32], c[32], d[32], time[32];
    printf("%s: %s", u->out, u->desc.family);
    for (int i = 0; i < u->n_domain; i++)
        printf("%s%s",
               i                 ? ", "
               : u->n_domain > 1 ? ", domains "
                                 : ", domain ",
               u->full->desc.domain[u->domain[i]].name);
    if (u->kept)
        printf(", %d of %d tokens", u->n_kept, u->full->desc.vocab);
    printf(", in %s\n", human_ns((double)ns, time, sizeof(time)));
    printf("full model %s, dense part %s, group %s; submodel %s: %.4f of dense part plus group\n",
           human_bytes((double)s->full, a, sizeof(a)), human_bytes((double)s->dense, b, sizeof(b)),
           human_bytes((double)s->group, c, sizeof(c)), human_bytes((double)s->part, d, sizeof(d)),
           (double)s->part / (double)(s->dense + s->group));
    if (!u->no_proof)
        printf("%d of %d prompts: logits equal in every bit (%s, %s)\n", u->n_equal, u->n_prompts,
               u->host.precision == PRECISION_F32 ? "f32" : "bf16", u->numerics);
}

static int report_json(const struct extract *u)
{
    const struct extract_sizes *s = &u->sizes;
    char full[33], part[33];
    json_t *domains = json_array();
    hash_hex(u->full->fingerprint, full);
    hash_hex(u->fingerprint, part);
    for (int i = 0; i < u->n_domain; i++)
        json_array_append_new(domains, json_string(u->full->desc.domain[u->domain[i]].name));
    json_t *root =
        json_pack("{s:s, s:s, s:o, s:b, s:i, s:I, s:I, s:I, s:I, s:f, s:s, s:s}", "out", u->out,
                  "family", u->desc.family, "domains", domains, "collapsed", u->collapsed,
                  "vocabulary", u->desc.vocab, "full_bytes", (json_int_t)s->full, "dense_bytes",
                  (json_int_t)s->dense, "group_bytes", (json_int_t)s->group, "submodel_bytes",
                  (json_int_t)s->part, "ratio", (double)s->part / (double)(s->dense + s->group),
                  "full_fingerprint", full, "submodel_fingerprint", part);
    if (root && !u->no_proof)
        json_object_set_new(root, "proof",
                            json_pack("{s:i, s:i, s:s, s:s}", "prompts", u->n_prompts, "equal",
                                      u->n_equal, "precision",
                                      u->host.precision == PRECISION_F32 ? "f32" : "bf16",
                                      "numerics", u->numerics));
    char *text = root ? json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(12)) : NULL;
    json_decref(root);
    if (!text)
        return err_set(u->err, ERR_NOMEM, "no memory for the JSON, or a path is no UTF-8");
    puts(text);
    free(text);
    return 0;
}

static const char about[] =
    "Cuts domains out of a PanGu-Sigma model: the dense part, the domains' experts and tables and\n"
    "the embedding slots they read become a checkpoint of its own that computes, for these\n"
    "domains, what the full model computes. Both models then run on a few prompts; hashes of\n"
    "their logits go to proof.json, and a difference is an error that leaves nothing behind.\n"
    "A group of one expert becomes a plain llama, qwen2 or qwen3.\n\n"
    "--from takes the experts from workers that go on serving; MODEL then needs the dense part "
    "only.\n\n"
    "  sigmoe extract ./sigma --domain code -o ./sigma-code --verify\n"
    "  sigmoe extract ./sigma --domain zh,en -o ./sigma-zh-en\n"
    "  sigmoe extract ./dense-part --domain code -o ./sigma-code --from tcp://a:5701,tcp://b:5701\n"
    "  sigmoe extract ./sigma --domain poetry -o ./sigma-poetry --trim-vocab poems.txt";

static int parse(struct extract *u, int argc, char **argv)
{
    struct opt opts[HOST_OPTIONS_MAX + 15] = {
        {"domain", 'd', OPT_STR, &u->domains, "LIST", "the domains to keep: code or zh,en", 0, 0},
        {"out", 'o', OPT_STR, &u->out, "DIR", "the folder to write; must not exist, or be empty", 0,
         0},
        {"from", 0, OPT_STR, &u->from, "LIST",
         "take the experts from running workers, tcp://a:1,tcp://b:1;\n"
         "MODEL may then lack their tensors",
         0, 0},
        {"trim-vocab", 0, OPT_STR, &u->trim_path, "FILE",
         "keep only the tokens that this text of the domain uses", 0, 0},
        {"no-collapse", 0, OPT_FLAG, &u->no_collapse, NULL, "keep a group of one expert a group", 0,
         0},
        {"dtype", 0, OPT_STR, &u->dtype_name, "TYPE", "bf16 or f32; default: as stored", 0, 0},
        {"quantize", 0, OPT_STR, &u->quantize, "KINDS",
         "make the proven submodel's experts, and dense matrices, integers:\n"
         "int4:32,int8:128 or the like (see sigmoe quantize)",
         0, 0},
        {"shard-size", 0, OPT_SIZE, &u->shard_size, "BYTES", "cut files at this size, default 5G",
         1 << 10, 1e15},
        {"verify", 0, OPT_FLAG, &u->verify, NULL, "compare on 100 prompts instead of 8", 0, 0},
        {"no-proof", 0, OPT_FLAG, &u->no_proof, NULL,
         "run nothing: for models that this machine cannot hold", 0, 0},
        {"prompts", 0, OPT_STR, &u->prompts_path, "FILE",
         "a text to cut prompts from; default: drawn tokens", 0, 0},
        {"n-prompts", 0, OPT_INT, &u->n_prompt, "N", "prompts to compare on", 1, 1e6},
        {"seed", 0, OPT_INT, &u->seed, "N", "of drawn prompts (0)", 0, 1e15},
        {"json", 0, OPT_FLAG, &u->json, NULL, "print JSON", 0, 0}};
    host_options_table(&u->host, opts + 14);
    u->host.precision_name = NULL;
    const struct opt_command cmd = {
        "extract", "sigmoe extract MODEL --domain LIST -o OUT [options]", about, opts};
    int n = 1, rc = opt_parse(&cmd, argc, argv, &u->dir, &n, u->err);
    if (rc == 0 && n == 0)
        rc = err_set(u->err, ERR_USAGE, "MODEL is missing; see sigmoe extract --help");
    return rc;
}

int cmd_extract(int argc, char **argv)
{
    struct err err = {0};
    int64_t start_ns = clock_now(&clock_real);
    struct extract *u = calloc(1, sizeof(*u));
    if (!u)
        return err_exit_code(ERR_NOMEM);
    /* Workers of a proof come and go; SIGMOE_LOG=debug still shows it. */
    if (log_level_get() == LOG_INFO)
        log_set_level(LOG_WARN);
    u->err = &err;
    u->shard_size = 5LL << 30;
    int rc = parse(u, argc, argv);
    if (rc == 0)
        rc = u->quantize ? extract_quantised(u) : extract_run(u);
    if (rc == 0 && u->json)
        rc = report_json(u);
    else if (rc == 0)
        report(u, clock_now(&clock_real) - start_ns);
    extract_free(u);
    free(u);
    if (rc < 0)
        fprintf(stderr, "sigmoe extract: %s\n", err.text);
    return rc == 1 ? 0 : err_exit_code(rc);
}

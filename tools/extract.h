/* extract: a domain's submodel cut out of a model with domains, with a proof that it computes the
 * same. Inside the tool only. The parts: the command (extract.c); what is kept and the new config
 * (extract_plan.c); a smaller vocabulary (extract_vocab.c what stays, extract_merges.c what merging
 * needs, extract_tokenizer.c the files); tensors (extract_write.c); prompts, both models' logits
 * and proof.json (extract_proof.c); the model card (extract_card.c); the submodel as integers
 * (extract_quant.c). */
#ifndef TOOLS_EXTRACT_H
#define TOOLS_EXTRACT_H

#include "coordinator/host.h"
#include "tools/copy.h"
#include "tools/fetch.h"

/* One prompt and what the two models made of it. */
struct extract_prompt {
    int32_t *token;        /* [n], ids of the full model */
    int n, domain;         /* domain: of the full model */
    uint64_t *full, *part; /* [n] hash of the logits of each position, of the kept tokens only */
};

struct extract {
    /* As the options give them. */
    const char *dir, *out, *from, *domains, *trim_path, *dtype_name, *prompts_path;
    int64_t shard_size, n_prompt, seed; /* n_prompt 0: 100 to verify, else 8 */
    const char *quantize; /* --quantize: KIND[,KIND] of experts and dense matrices, or NULL */
    int verify, no_collapse, no_proof, json;
    struct host_options host;

    struct model *full;
    struct tokenizer *tok;      /* of the full model, or NULL */
    struct fetch_client *fetch; /* --from: experts come from workers; else NULL */
    enum dtype expert_dtype;    /* of the experts they hold */
    json_t *config;             /* the submodel's config.json */
    struct model_desc desc;     /* and what it says */
    int *domain, n_domain;      /* kept domains, ascending numbers of the full model; [n_domain] */
    int *slot;                  /* the old number of each new embedding slot [desc.n_slot] */
    int collapsed;              /* written as a plain dense model */
    const char *why_not;        /* why a group of one expert stays a group, or NULL */
    enum dtype dtype;           /* of the weights written; DTYPE_NONE: as they are */
    int rounded;                /* --dtype takes digits from some weight */

    /* --trim-vocab: the old id of each new one, ascending, and the new id of each old one or -1.
     * Without it all tokens stay and both are NULL. */
    int32_t *kept;   /* [n_kept] */
    int32_t *new_id; /* [full vocab] */
    int n_kept;

    struct extract_prompt *prompt;
    int n_prompts, n_equal;        /* made; equal in every bit */
    char numerics[NUMERICS_BYTES]; /* class of the proof's arithmetic */
    struct hash128 fingerprint;    /* of the submodel */
    struct extract_sizes {
        uint64_t full, dense, group; /* bytes of tensors of the full model: all; all but experts, of
                                      * the kept domains and slots; the kept experts */
        uint64_t part;               /* the submodel's */
    } sizes;

    struct copy copy;
    struct tensor remote; /* the expert's tensor at hand, when it comes from a worker */
    void *remote_data;
    struct err *err;
};

/* extract_run does all of it: u holds the options and an err. On failure nothing is left of u->out.
 * extract_free is due in any case. */
int extract_run(struct extract *u);
void extract_free(struct extract *u);

/* extract_quantised: extract_run, then the proven submodel's matrices as integers (u->quantize). */
int extract_quantised(struct extract *u);

/* extract_plan fills domain, slot, collapsed, config and desc (after the vocabulary is known). */
int extract_domains(struct extract *u);
int extract_plan(struct extract *u);

/* extract_vocab decides which tokens stay: those of the text u->trim_path and of the chat template,
 * specials, single bytes, what merging them needs, and a token for every kept expert. */
int extract_vocab(struct extract *u);
/* extract_merges marks in keep [n] the tokens that appear while a kept one is merged together.
 * model: the "model" of tokenizer.json. */
int extract_merges(json_t *model, uint8_t *keep, int n, struct err *err);
/* extract_tokenizer writes the files of the tokenizer: copies, or rewritten ones; and checks that
 * the new one reads u->trim_path as the old one does. */
int extract_tokenizer(struct extract *u);
int extract_tokenizer_check(struct extract *u);
/* extract_ids renumbers the token ids of a config: "..._token_id" and their lists. */
void extract_ids(const struct extract *u, json_t *root);

/* extract_write writes the tensors and config.json. */
int extract_write(struct extract *u);

/* extract_sizes_count fills sizes, but for the submodel's; after extract_write. */
int extract_sizes_count(struct extract *u);
/* extract_prompts makes the prompts, domain after domain in turn: pieces of a text, or tokens drawn
 * from the kept vocabulary. */
int extract_prompts(struct extract *u);
/* extract_proof runs the prompts through the full model and through the submodel in its temporary
 * folder, and writes proof.json. A difference is ERR_MODEL. */
int extract_proof(struct extract *u);
/* extract_card writes README.md. */
int extract_card(struct extract *u);

#endif

/* fingerprint: what two processes compare before one trusts the other's experts. It covers the
 * hyper-parameters that change a result, the headers of all shards (names, shapes, places) and a
 * sample of every tensor's bytes; reading all bytes would take minutes on the models this is made
 * for. The sample is read with pread, not through the mapping, so that it leaves nothing resident.
 */
#include "model/checkpoint.h"
#include "model/shard.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SAMPLE_BYTES ((size_t)4096)
#define TEXT_BYTES   ((size_t)65536)

/* domains_text: what a domain's name, group and embedding decide. */
static int domains_text(const struct model_desc *d, char *out, size_t size)
{
    int n =
        snprintf(out, size, " block=%s pos=%d query=%d plain=%d eb=%d slots=%d domains:", d->block,
                 d->learned_pos, d->query_layer, d->ffn_plain, d->expert_bias, d->n_slot);
    for (int i = 0; i < d->n_domain && n > 0 && (size_t)n < size; i++)
        n += snprintf(out + n, size - (size_t)n, "%s,%d,%d;", d->domain[i].name,
                      (int)d->domain[i].n_expert, (int)d->domain[i].slot);
    return n;
}

/* desc_text writes every field that a result depends on as text, so that the hash does not depend
 * on the layout of a struct. Token ids and the name of the folder are none of them. */
static int desc_text(const struct model_desc *d, char *out, size_t size)
{
    const struct rope_params *r = &d->rope;
    int n = snprintf(
        out, size,
        "v1 %s layers=%d d=%d heads=%d/%d dh=%d vocab=%d norm=%d eps=%a qk=%d bias=%d%d%d "
        "scale=%a cap=%a sinks=%d rot=%d,%d theta=%a kind=%d f=%a bf=%a bs=%a lf=%a hf=%a af=%a "
        "ms=%a ma=%a tr=%d oc=%d mc=%d act=%d,%a,%a ff=%d experts=%d/%d ffe=%d ffs=%d,%d "
        "gate=%d,%d,%d "
        "groups=%d/%d gs=%a tied=%d layers:",
        d->family, d->n_layer, d->d_model, d->n_head, d->n_kv_head, d->d_head, d->vocab,
        (int)d->norm, (double)d->norm_eps, (int)d->qk_norm, d->qkv_bias, d->o_bias, d->mlp_bias,
        (double)d->attn_scale, (double)d->attn_softcap, d->attn_sinks, r->d_rot, r->interleaved,
        r->theta, (int)r->scaling, r->factor, r->beta_fast, r->beta_slow, r->low_freq_factor,
        r->high_freq_factor, r->attention_factor, r->mscale, r->mscale_all_dim, r->truncate,
        r->original_context, r->max_context, (int)d->act, (double)d->act_alpha,
        (double)d->act_limit, d->d_ff, d->n_expert, d->top_k, d->d_ff_expert, d->d_ff_shared,
        d->shared_gated, (int)d->gate, d->gate_normalise, d->gate_bias, d->n_group, d->topk_group,
        (double)d->gate_scale, d->tied);
    for (int i = 0; i < d->n_layer && n > 0 && (size_t)n < size; i++)
        n += snprintf(out + n, size - (size_t)n, "%d,%d;", d->layer[i].sparse, d->layer[i].window);
    /* Only of models that have them: the others' fingerprints are in people's hands. */
    if ((d->n_domain > 0 || d->learned_pos) && n > 0 && (size_t)n < size)
        n += domains_text(d, out + n, size - (size_t)n);
    return n > 0 && (size_t)n < size ? n : -1;
}

static int sample(const struct shard *shard, uint64_t offset, size_t bytes,
                  struct hash_stream *stream, struct err *err)
{
    unsigned char buffer[2 * SAMPLE_BYTES];
    size_t done = 0;
    while (done < bytes) {
        ssize_t n = pread(shard->fd, buffer + done, bytes - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return err_sys(err, ERR_IO, "cannot read %s at byte %llu", shard->name,
                           (unsigned long long)(offset + done));
        done += (size_t)n;
    }
    hash_stream_update(stream, buffer, bytes);
    return 0;
}

static int tensor_sample(const struct shard *shard, const struct tensor *t,
                         struct hash_stream *stream, struct err *err)
{
    uint64_t begin = (uint64_t)((const unsigned char *)t->data - shard->map);
    if (t->bytes <= 2 * SAMPLE_BYTES)
        return sample(shard, begin, (size_t)t->bytes, stream, err);
    int rc = sample(shard, begin, SAMPLE_BYTES, stream, err);
    return rc ? rc : sample(shard, begin + t->bytes - SAMPLE_BYTES, SAMPLE_BYTES, stream, err);
}

static int shard_hash(const struct shard *shard, struct hash_stream *stream, struct err *err)
{
    hash_stream_update(stream, shard->name, strlen(shard->name) + 1);
    hash_stream_update(stream, shard->map, shard->data_begin);
    for (size_t i = 0; i < shard->n_tensor; i++) {
        int rc = tensor_sample(shard, &shard->tensor[i], stream, err);
        if (rc)
            return rc;
    }
    return 0;
}

int model_fingerprint(const char *dir, const struct model_desc *desc, const struct checkpoint *ck,
                      struct hash128 *out, struct err *err)
{
    int rc = 0;
    char *text = malloc(TEXT_BYTES);
    struct hash_stream *stream = hash_stream_create();
    int n = text ? desc_text(desc, text, TEXT_BYTES) : -1;
    if (!stream || n < 0) {
        rc = err_set(err, ERR_NOMEM, "no memory for the fingerprint of %s", dir);
        goto out;
    }
    hash_stream_update(stream, text, (size_t)n);
    for (int i = 0; i < ck->n_shard && rc == 0; i++)
        rc = shard_hash(&ck->shard[i], stream, err);
    if (rc == 0)
        *out = hash_stream_digest(stream);
out:
    hash_stream_destroy(stream);
    free(text);
    return rc;
}

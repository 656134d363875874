/* quant: integer weights in a checkpoint, in compressed-tensors' "pack-quantized" layout (which
 * vLLM and transformers read): in place of NAME.weight lie
 *
 *   NAME.weight_packed  I32 [n, ceil(k * bits / 32)]  element i of a row in bits [bits * (i % (32 /
 *                       bits)), ...) of word i / (32 / bits), plus 2^(bits - 1)
 *   NAME.weight_scale   bf16, f16 or f32 [n, ceil(k / group)]
 *   NAME.weight_shape   I64 [2]: n, k
 *
 * Layout: vllm-project/compressed-tensors, compressors/quantized_compressors/pack_quantized.py.
 * The tensors decide what is quantised and with how many bits; config.json, which sizes of groups
 * there are, since scales alone do not always tell. */
#ifndef MODEL_QUANT_H
#define MODEL_QUANT_H

#include "model/checkpoint.h"
#include "model/config.h"

/* A matrix stored as integers. */
struct quant_source {
    const struct tensor *packed, *scale;
    enum dtype dtype; /* DTYPE_I8 or DTYPE_I4 */
    int n, k, group;
};

static inline int quant_integers(enum dtype dtype)
{
    return dtype == DTYPE_I8 || dtype == DTYPE_I4;
}

/* Which of a description's kinds a role has; NULL: always floats. */
const struct quant_kind *quant_kind_of(const struct model_desc *desc, enum role role);
struct quant_kind *quant_kind_slot(struct model_desc *desc, enum role role);

/* quant_packed: a matrix [n, k] of the role as it lies in memory in a run of `dtype` (data NULL):
 * as integers where it is stored so, as floats otherwise and in f32, the reference mode. *bytes:
 * its size, 0 when that overflows. */
struct packed quant_packed(const struct model_desc *desc, enum role role, enum dtype dtype, int n,
                           int k, size_t *bytes);

/* quant_detect fills the description's kinds from the tensors. ERR_MODEL where a class of matrices
 * is stored in more than one way. */
int quant_detect(const struct checkpoint *ck, struct model_desc *desc, struct err *err);

/* quant_config_read fills the description's quant_config from a "quantization_config", and refuses
 * one of another format. */
int quant_config_read(struct model_desc *desc, const struct config *config, struct err *err);
/* quant_find: 1 and *out when the matrix of a role is stored as integers, 0 when it is not,
 * negative when its parts do not fit together. */
int quant_find(const struct checkpoint *ck, const struct model_desc *desc, enum role role,
               int layer, int expert, struct quant_source *out, struct err *err);
/* quant_row unpacks row `row`: q [k], scale [ceil(k / group)] as bf16. */
void quant_row(const struct quant_source *s, int row, int8_t *q, uint16_t *scale);

/* quant_words: words of a packed row. quant_pack_row: the inverse of the integers' part of
 * quant_row; word [quant_words]. */
int quant_words(enum dtype dtype, int k);
void quant_pack_row(const int8_t *q, int k, enum dtype dtype, uint32_t *word);

/* The names of the three tensors: NAME.weight with _packed, _scale, _shape appended. */
enum quant_part { QUANT_PACKED, QUANT_SCALE, QUANT_SHAPE };
int quant_name(const struct model_desc *desc, enum role role, int layer, int expert,
               enum quant_part part, char *out, size_t size);

#endif

/* activations: what rows are where they meet integer weights, and what that is called: by users,
 * and in the class of bits that a coordinator and its workers must agree on. */
#include "model/quant.h"
#include "model/weights.h"

#include <stdio.h>
#include <string.h>

int activations_parse(const char *text, enum activations *out, struct err *err)
{
    if (strcmp(text, "int8") == 0)
        *out = ACTIVATIONS_INT8;
    else if (strcmp(text, "bf16") == 0)
        *out = ACTIVATIONS_BF16;
    else
        return err_set(err, ERR_USAGE, "--activations is int8 or bf16, not \"%.40s\"", text);
    return 0;
}

static int has_integers(const struct model_desc *d)
{
    return quant_integers(d->quant_expert.dtype) || quant_integers(d->quant_dense.dtype) ||
           quant_integers(d->quant_head.dtype);
}

int model_int_rows(const struct model *model, enum precision precision)
{
    return precision == PRECISION_BF16 && model->activations == ACTIVATIONS_INT8 &&
           has_integers(&model->desc);
}

const char *model_activations(const struct model *model, enum precision precision)
{
    return model_int_rows(model, precision) ? "int8" : dtype_name(precision_dtype(precision));
}

const char *model_numerics(const struct model *model, enum precision precision,
                           const struct kernels *k, char text[NUMERICS_BYTES])
{
    snprintf(text, NUMERICS_BYTES, "%s%s", k->numerics,
             model_int_rows(model, precision) ? "+int8" : "");
    return text;
}

const char *numerics_activations(const char *numerics)
{
    const char *plus = strchr(numerics, '+');
    return plus ? plus + 1 : "bf16";
}

/* rope_config: which keys each scaling needs and what the others default to follows
 * transformers 4.57.1, modeling_rope_utils.py; what would only warn there and yields no usable
 * angles is refused here. */
#include "model/rope_config.h"
#include "model/json.h"

#include <string.h>

#define FACTOR_MIN 1e-3
#define FACTOR_MAX 1e6
#define THETA_MAX  1e15

static int read_original(struct rope_params *rope, const struct config *scaling, struct err *err)
{
    return config_int_or(scaling, "original_max_position_embeddings", rope->max_context, 1,
                         LIMIT_CONTEXT, &rope->original_context, err);
}

static int read_factor(struct rope_params *rope, const struct config *scaling, struct err *err)
{
    return config_real(scaling, "factor", FACTOR_MIN, FACTOR_MAX, &rope->factor, err);
}

/* The base grows with the length seen: theta * (...)^(d / (d - 2)). The original length is the
 * model's own context; transformers reads no other key here. */
static int read_dynamic(struct rope_params *rope, const struct config *scaling, struct err *err)
{
    rope->original_context = rope->max_context;
    if (rope->d_rot <= 2)
        return err_set(err, ERR_MODEL, "%s: dynamic rope scaling needs heads wider than 2",
                       scaling->path);
    return read_factor(rope, scaling, err);
}

static int read_yarn(struct rope_params *rope, const struct config *scaling, struct err *err)
{
    int rc = read_factor(rope, scaling, err);
    if (rc == 0)
        rc = read_original(rope, scaling, err);
    if (rc == 0)
        rc = config_real_or(scaling, "beta_fast", 32, 0, FACTOR_MAX, &rope->beta_fast, err);
    if (rc == 0)
        rc = config_real_or(scaling, "beta_slow", 1, 0, FACTOR_MAX, &rope->beta_slow, err);
    if (rc == 0)
        rc = config_real_or(scaling, "attention_factor", 0, FACTOR_MIN, FACTOR_MAX,
                            &rope->attention_factor, err);
    if (rc == 0)
        rc = config_real_or(scaling, "mscale", 0, 0, FACTOR_MAX, &rope->mscale, err);
    if (rc == 0)
        rc =
            config_real_or(scaling, "mscale_all_dim", 0, 0, FACTOR_MAX, &rope->mscale_all_dim, err);
    if (rc == 0)
        rc = config_bool_or(scaling, "truncate", 1, &rope->truncate, err);
    if (rc)
        return rc;
    /* `or` in Python: a zero means the default too. */
    rope->beta_fast = rope->beta_fast > 0 ? rope->beta_fast : 32;
    rope->beta_slow = rope->beta_slow > 0 ? rope->beta_slow : 1;
    if (rope->theta <= 1)
        return err_set(err, ERR_MODEL, "%s: yarn needs \"rope_theta\" above 1, it is %g",
                       scaling->path, rope->theta);
    return 0;
}

static int read_llama3(struct rope_params *rope, const struct config *scaling, struct err *err)
{
    int rc = read_factor(rope, scaling, err);
    if (rc == 0)
        rc = config_real(scaling, "low_freq_factor", FACTOR_MIN, FACTOR_MAX, &rope->low_freq_factor,
                         err);
    if (rc == 0)
        rc = config_real(scaling, "high_freq_factor", FACTOR_MIN, FACTOR_MAX,
                         &rope->high_freq_factor, err);
    if (rc == 0)
        rc = config_int(scaling, "original_max_position_embeddings", 1, LIMIT_CONTEXT,
                        &rope->original_context, err);
    if (rc == 0 && rope->high_freq_factor <= rope->low_freq_factor)
        return err_set(err, ERR_MODEL,
                       "%s: \"high_freq_factor\" %g must be above \"low_freq_factor\" %g",
                       scaling->path, rope->high_freq_factor, rope->low_freq_factor);
    return rc;
}

static const struct rope_kind {
    const char *name;
    enum rope_scaling scaling;
    int (*read)(struct rope_params *rope, const struct config *scaling, struct err *err);
} kinds[] = {
    {"default", ROPE_NONE, NULL},
    {"linear", ROPE_LINEAR, read_factor},
    {"dynamic", ROPE_DYNAMIC, read_dynamic},
    {"yarn", ROPE_YARN, read_yarn},
    {"llama3", ROPE_LLAMA3, read_llama3},
};

/* scaling_name: "rope_type", or "type" as it was called before; two that differ are refused. */
static int scaling_name(const struct config *scaling, const char **name, struct err *err)
{
    const char *now, *before;
    int rc = config_string_or(scaling, "rope_type", NULL, &now, err);
    if (rc == 0)
        rc = config_string_or(scaling, "type", NULL, &before, err);
    if (rc)
        return rc;
    if (now && before && strcmp(now, before) != 0) {
        char a[JSON_QUOTE], b[JSON_QUOTE];
        return err_set(err, ERR_MODEL, "%s: \"%srope_type\" is \"%s\" but \"%stype\" is \"%s\"",
                       scaling->path, scaling->within, json_quote(now, a), scaling->within,
                       json_quote(before, b));
    }
    *name = now ? now : before ? before : "default";
    return 0;
}

static int scaling_read(struct rope_params *rope, const struct config *scaling, struct err *err)
{
    const char *name = "default";
    int rc = scaling_name(scaling, &name, err);
    if (rc)
        return rc;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(kinds[i].name, name) != 0)
            continue;
        rope->scaling = kinds[i].scaling;
        return kinds[i].read ? kinds[i].read(rope, scaling, err) : 0;
    }
    char quoted[JSON_QUOTE];
    return err_set(err, ERR_MODEL,
                   "%s: rope scaling \"%s\" is not computed here; known are default, linear, "
                   "dynamic, yarn and llama3",
                   scaling->path, json_quote(name, quoted));
}

/* whole_head: these families rotate a head's full width; a config that says otherwise is of
 * another. */
static int whole_head(const struct config *config, struct err *err)
{
    double part;
    int rc = config_real_or(config, "partial_rotary_factor", 1, 0, 1, &part, err);
    if (rc == 0 && part < 1)
        return err_set(err, ERR_MODEL,
                       "%s: \"%spartial_rotary_factor\" is %g; %s rotates all of a head",
                       config->path, config->within, part, config->family);
    return rc;
}

/* Positions the scaling stretches to. llama3 configs count the stretch in already; of the others
 * some do and some do not, so the larger of the two holds (vLLM derives max_model_len alike). */
static int extended_context(const struct rope_params *rope)
{
    if (rope->scaling == ROPE_NONE || rope->scaling == ROPE_LLAMA3)
        return rope->max_context;
    double stretched = (double)rope->original_context * rope->factor;
    if (stretched > LIMIT_CONTEXT)
        return LIMIT_CONTEXT;
    return stretched > rope->max_context ? (int)stretched : rope->max_context;
}

int rope_from_config(struct model_desc *desc, const struct config *config, double theta_absent,
                     struct err *err)
{
    struct rope_params rope = {.d_rot = desc->d_head,
                               .truncate = 1,
                               .factor = 1,
                               .original_context = desc->max_context,
                               .max_context = desc->max_context};
    struct config inner;
    int rc = config_real_or(config, "rope_theta", theta_absent, 1, THETA_MAX, &rope.theta, err);
    if (rc == 0)
        rc = whole_head(config, err);
    if (rc)
        return rc;
    int there = config_object(config, "rope_parameters", "rope_parameters.", &inner, err);
    if (there == 0)
        there = config_object(config, "rope_scaling", "rope_scaling.", &inner, err);
    if (there < 0)
        return there;
    if (there) {
        rc = config_real_or(&inner, "rope_theta", rope.theta, 1, THETA_MAX, &rope.theta, err);
        if (rc == 0)
            rc = whole_head(&inner, err);
        if (rc == 0)
            rc = scaling_read(&rope, &inner, err);
    }
    if (rc)
        return rc;
    desc->rope = rope;
    desc->max_context = extended_context(&rope);
    return 0;
}

/* rope: the cosines and sines of rotary position encoding (Su et al., RoFormer, 2021) and of its
 * scaled forms: linear (positions divided), dynamic NTK (the base grows with the sequence), YaRN
 * (Peng et al. 2023, section 3: extrapolation, interpolation and a ramp between them) and Llama 3.1
 * (a ramp over wavelengths).
 *
 * Checkpoints were trained, and are compared, with the roundings of transformers'
 * modeling_rope_utils.py: exponents, frequencies and angles are f32, so at position 100,000 the
 * angle is already off by 1e-3 from the real one. We round to f32 where it does. pow, cos and sin
 * are taken in double and rounded once, so that the result does not depend on whose libm it is. */
#include "kernels/kernels.h"
#include <math.h>

#define PI 3.14159265358979323846

/* The frequency before scaling is 1 / base^(2i / d_rot); this is base^(2i / d_rot). */
static float wave(double base, int i, int d_rot)
{
    float exponent = (float)(2 * i) / (float)d_rot;
    return (float)pow((double)(float)base, (double)exponent);
}

/* dynamic NTK: past the context of the training run the base grows, so that the lowest frequency
 * turns no further than it did in training. */
static double dynamic_base(const struct rope_params *p, int seq_len)
{
    if (seq_len <= p->max_context) {
        return p->theta;
    }
    float ratio = (float)p->factor * (float)seq_len / (float)p->max_context;
    float grown = ratio - (float)(p->factor - 1.0);
    double power = (double)(float)((double)p->d_rot / (double)(p->d_rot - 2));
    return (double)((float)pow((double)grown, power) * (float)p->theta);
}

struct yarn_ramp {
    double low, high; /* below low: extrapolate; above high: interpolate */
};

/* The pair index whose wave turns `rotations` times within the original context. */
static double correction_index(const struct rope_params *p, double context, double rotations)
{
    return (double)p->d_rot * log(context / (rotations * 2.0 * PI)) / (2.0 * log(p->theta));
}

static struct yarn_ramp yarn_ramp(const struct rope_params *p)
{
    double context = p->original_context > 0 ? p->original_context : p->max_context;
    struct yarn_ramp r;
    r.low = correction_index(p, context, p->beta_fast > 0 ? p->beta_fast : 32.0);
    r.high = correction_index(p, context, p->beta_slow > 0 ? p->beta_slow : 1.0);
    if (p->truncate) {
        r.low = floor(r.low);
        r.high = ceil(r.high);
    }
    r.low = fmax(r.low, 0.0);
    r.high = fmin(r.high, p->d_rot - 1);
    if (r.low == r.high) {
        r.high += 0.001;
    }
    return r;
}

static float yarn_frequency(const struct rope_params *p, const struct yarn_ramp *r, int i)
{
    float w = wave(p->theta, i, p->d_rot);
    float extrapolated = 1.0f / w, interpolated = 1.0f / ((float)p->factor * w);
    float ramp = ((float)i - (float)r->low) / (float)(r->high - r->low);
    ramp = ramp < 0.0f ? 0.0f : ramp > 1.0f ? 1.0f : ramp;
    float share = 1.0f - ramp;
    return interpolated * (1.0f - share) + extrapolated * share;
}

static double yarn_mscale(double factor, double mscale)
{
    return factor <= 1.0 ? 1.0 : 0.1 * mscale * log(factor) + 1.0;
}

/* What cos and sin are multiplied with, in place of a temperature on the logits. */
static float attention_factor(const struct rope_params *p)
{
    if (p->scaling != ROPE_YARN) {
        return 1.0f;
    }
    if (p->attention_factor != 0.0) {
        return (float)p->attention_factor;
    }
    if (p->mscale != 0.0 && p->mscale_all_dim != 0.0) {
        return (float)(yarn_mscale(p->factor, p->mscale) /
                       yarn_mscale(p->factor, p->mscale_all_dim));
    }
    return (float)yarn_mscale(p->factor, 1.0);
}

/* Llama 3.1: waves longer than original / low are slowed by `factor`, those shorter than
 * original / high are kept, and between the two the frequency goes over smoothly. */
static float llama3_frequency(const struct rope_params *p, int i)
{
    float freq = 1.0f / wave(p->theta, i, p->d_rot);
    float wavelen = (1.0f / freq) * (float)(2.0 * PI), factor = (float)p->factor;
    double context = p->original_context;
    if (wavelen > (float)(context / p->low_freq_factor)) {
        return freq / factor;
    }
    if (wavelen < (float)(context / p->high_freq_factor)) {
        return freq;
    }
    float smooth = ((1.0f / wavelen) * (float)context - (float)p->low_freq_factor) /
                   (float)(p->high_freq_factor - p->low_freq_factor);
    return (1.0f - smooth) * freq / factor + smooth * freq;
}

void rope_angles(const struct rope_params *p, int pos, int seq_len, float *cos_out, float *sin_out)
{
    float scale = attention_factor(p);
    double base = p->scaling == ROPE_DYNAMIC ? dynamic_base(p, seq_len) : p->theta;
    struct yarn_ramp ramp = {0, 1};
    if (p->scaling == ROPE_YARN) {
        ramp = yarn_ramp(p);
    }
    for (int i = 0; i < p->d_rot / 2; i++) {
        float freq = p->scaling == ROPE_YARN     ? yarn_frequency(p, &ramp, i)
                     : p->scaling == ROPE_LLAMA3 ? llama3_frequency(p, i)
                                                 : 1.0f / wave(base, i, p->d_rot);
        if (p->scaling == ROPE_LINEAR) {
            freq = freq / (float)p->factor;
        }
        double angle = (double)(freq * (float)pos);
        cos_out[i] = (float)cos(angle) * scale;
        sin_out[i] = (float)sin(angle) * scale;
    }
}

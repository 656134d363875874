"""The elementwise parts of sigma-tiny's training, fused by hand: C for AVX-512 with bf16, compiled when
first used and called through ctypes. Each reads and writes its rows once; sums are in float32.

They are here because a model this small spends most of a step on memory, not on products: one step
of 8192 tokens is 0.2 Tflop, a fraction of a second, and the same parts as separate tensor operations
take several."""
import ctypes
import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

SOURCE = r"""
#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

typedef uint16_t bf16;
typedef __m512 vec;
#define LANES 16

static inline vec load(const bf16 *p)
{
    __m256i raw = _mm256_loadu_si256((const __m256i *)p);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(raw), 16));
}

static inline void store(bf16 *p, vec v)
{
    _mm256_storeu_si256((__m256i *)p, (__m256i)_mm512_cvtneps_pbh(v));
}

/* e^x, relative error about 2e-7, for x <= 88; far below, 0. */
static inline vec vexp(vec x)
{
    x = _mm512_max_ps(x, _mm512_set1_ps(-87.0f));
    vec n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), 0);
    vec r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
    vec p = _mm512_set1_ps(1.9875691500e-4f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3981999507e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
    p = _mm512_fmadd_ps(_mm512_mul_ps(p, r), r, _mm512_add_ps(r, _mm512_set1_ps(1.0f)));
    return _mm512_scalef_ps(p, n);
}

static inline vec sigmoid(vec x)
{
    vec e = vexp(_mm512_sub_ps(_mm512_setzero_ps(), x));
    return _mm512_div_ps(_mm512_set1_ps(1.0f), _mm512_add_ps(_mm512_set1_ps(1.0f), e));
}

/* sum = x + delta (delta may be NULL); y = w * sum / rms(sum); inv[row] = 1 / rms. */
void norm_forward(const bf16 *x, const bf16 *delta, const bf16 *w, bf16 *sum, bf16 *y, float *inv,
                  long n_row, long width, float eps)
{
#pragma omp parallel for schedule(static)
    for (long row = 0; row < n_row; row++) {
        const bf16 *xr = x + row * width;
        bf16 *sr = sum + row * width, *yr = y + row * width;
        vec square = _mm512_setzero_ps();
        for (long i = 0; i < width; i += LANES) {
            vec v = load(xr + i);
            if (delta)
                v = _mm512_add_ps(v, load(delta + row * width + i));
            store(sr + i, v);
            v = load(sr + i);
            square = _mm512_fmadd_ps(v, v, square);
        }
        float scale = 1.0f / sqrtf(_mm512_reduce_add_ps(square) / (float)width + eps);
        inv[row] = scale;
        for (long i = 0; i < width; i += LANES)
            store(yr + i, _mm512_mul_ps(load(w + i), _mm512_mul_ps(load(sr + i),
                                                                  _mm512_set1_ps(scale))));
    }
}

/* grad_sum (may be NULL) is the gradient of sum from elsewhere; grad_w [width] float is added to. */
void norm_backward(const bf16 *sum, const bf16 *w, const float *inv, const bf16 *grad_y,
                   const bf16 *grad_sum, bf16 *grad_x, float *grad_w, long n_row, long width)
{
#pragma omp parallel
    {
        float own[4096] __attribute__((aligned(64)));
        memset(own, 0, sizeof(float) * (size_t)width);
#pragma omp for schedule(static)
        for (long row = 0; row < n_row; row++) {
            const bf16 *sr = sum + row * width, *gr = grad_y + row * width;
            vec scale = _mm512_set1_ps(inv[row]), dot = _mm512_setzero_ps();
            for (long i = 0; i < width; i += LANES) {
                vec hat = _mm512_mul_ps(load(sr + i), scale), g = load(gr + i);
                _mm512_store_ps(own + i, _mm512_fmadd_ps(g, hat, _mm512_load_ps(own + i)));
                dot = _mm512_fmadd_ps(_mm512_mul_ps(g, load(w + i)), hat, dot);
            }
            vec mean = _mm512_set1_ps(_mm512_reduce_add_ps(dot) / (float)width);
            for (long i = 0; i < width; i += LANES) {
                vec hat = _mm512_mul_ps(load(sr + i), scale);
                vec g = _mm512_mul_ps(load(gr + i), load(w + i));
                g = _mm512_mul_ps(scale, _mm512_fnmadd_ps(hat, mean, g));
                if (grad_sum)
                    g = _mm512_add_ps(g, load(grad_sum + row * width + i));
                store(grad_x + row * width + i, g);
            }
        }
#pragma omp critical
        for (long i = 0; i < width; i++)
            grad_w[i] += own[i];
    }
}

/* gate_up [n_row, 2 * width] -> h [n_row, width] = silu(gate) * up */
void swiglu_forward(const bf16 *gate_up, bf16 *h, long n_row, long width)
{
#pragma omp parallel for schedule(static)
    for (long row = 0; row < n_row; row++)
        for (long i = 0; i < width; i += LANES) {
            vec g = load(gate_up + row * 2 * width + i), u = load(gate_up + (row * 2 + 1) * width + i);
            store(h + row * width + i, _mm512_mul_ps(_mm512_mul_ps(g, sigmoid(g)), u));
        }
}

void swiglu_backward(const bf16 *gate_up, const bf16 *grad_h, bf16 *grad, long n_row, long width)
{
    const vec one = _mm512_set1_ps(1.0f);
#pragma omp parallel for schedule(static)
    for (long row = 0; row < n_row; row++)
        for (long i = 0; i < width; i += LANES) {
            long at = row * 2 * width + i;
            vec g = load(gate_up + at), u = load(gate_up + at + width);
            vec up = load(grad_h + row * width + i), s = sigmoid(g), silu = _mm512_mul_ps(g, s);
            vec slope = _mm512_mul_ps(s, _mm512_fmadd_ps(g, _mm512_sub_ps(one, s), one));
            store(grad + at, _mm512_mul_ps(_mm512_mul_ps(up, u), slope));
            store(grad + at + width, _mm512_mul_ps(up, silu));
        }
}

/* qkv [batch * length, (heads + 2) * dim] <-> q [batch, heads, length, dim], k, v [batch, length, dim],
 * q and k rotated by cos, sin [length, dim / 2]; back: the transposed rotation. */
void rotate(bf16 *qkv, bf16 *q, bf16 *k, bf16 *v, const float *cosine, const float *sine, long batch,
            long length, long heads, long dim, int back)
{
    long half = dim / 2, width = (heads + 2) * dim;
#pragma omp parallel for schedule(static)
    for (long at = 0; at < batch * length; at++) {
        long b = at / length, t = at % length;
        for (long head = 0; head <= heads; head++) {
            bf16 *flat = qkv + at * width + head * dim;
            bf16 *apart = head < heads ? q + ((b * heads + head) * length + t) * dim : k + at * dim;
            for (long i = 0; i < half; i += LANES) {
                vec c = _mm512_loadu_ps(cosine + t * half + i), s = _mm512_loadu_ps(sine + t * half + i);
                bf16 *from = back ? apart : flat, *to = back ? flat : apart;
                vec low = load(from + i), high = load(from + half + i);
                if (back)
                    s = _mm512_sub_ps(_mm512_setzero_ps(), s);
                store(to + i, _mm512_fnmadd_ps(high, s, _mm512_mul_ps(low, c)));
                store(to + half + i, _mm512_fmadd_ps(low, s, _mm512_mul_ps(high, c)));
            }
        }
        bf16 *flat = qkv + at * width + (heads + 1) * dim;
        memcpy(back ? flat : v + at * dim, back ? v + at * dim : flat, sizeof(bf16) * (size_t)dim);
    }
}

/* score [n_matrix, heads * rows, keys] in place: softmax of scale * score over the keys that are not
 * later than the query; the last `rows` keys are the queries' own. keys is a multiple of 16. */
void softmax_forward(bf16 *score, long n_matrix, long heads, long rows, long keys, float scale)
{
#pragma omp parallel for schedule(static)
    for (long at = 0; at < n_matrix * heads * rows; at++) {
        bf16 *row = score + at * keys;
        long seen = keys - rows + at % rows + 1;
        float wide[4096] __attribute__((aligned(64)));
        vec most = _mm512_set1_ps(-INFINITY), total = _mm512_setzero_ps();
        for (long i = 0; i < seen; i += LANES) {
            __mmask16 mask = (__mmask16)(seen - i >= LANES ? 0xFFFF : (1u << (seen - i)) - 1);
            vec v = _mm512_mask_mul_ps(_mm512_set1_ps(-INFINITY), mask, load(row + i),
                                       _mm512_set1_ps(scale));
            most = _mm512_max_ps(most, v);
            _mm512_store_ps(wide + i, v);
        }
        most = _mm512_set1_ps(_mm512_reduce_max_ps(most));
        for (long i = 0; i < seen; i += LANES) {
            __mmask16 mask = (__mmask16)(seen - i >= LANES ? 0xFFFF : (1u << (seen - i)) - 1);
            vec e = _mm512_maskz_mov_ps(mask, vexp(_mm512_sub_ps(_mm512_load_ps(wide + i), most)));
            total = _mm512_add_ps(total, e);
            _mm512_store_ps(wide + i, e);
        }
        vec inverse = _mm512_set1_ps(1.0f / _mm512_reduce_add_ps(total));
        long i = 0;
        for (; i < seen; i += LANES)
            store(row + i, _mm512_mul_ps(_mm512_load_ps(wide + i), inverse));
        if (i < keys)
            memset(row + i, 0, sizeof(bf16) * (size_t)(keys - i));
    }
}

/* grad in place: the gradient of p becomes that of the unscaled score. */
void softmax_backward(const bf16 *p, bf16 *grad, long n_matrix, long heads, long rows, long keys,
                      float scale)
{
#pragma omp parallel for schedule(static)
    for (long at = 0; at < n_matrix * heads * rows; at++) {
        const bf16 *pr = p + at * keys;
        bf16 *gr = grad + at * keys;
        long seen = keys - rows + at % rows + 1, i;
        vec dot = _mm512_setzero_ps();
        for (i = 0; i < seen; i += LANES)
            dot = _mm512_fmadd_ps(load(pr + i), load(gr + i), dot);
        vec mean = _mm512_set1_ps(_mm512_reduce_add_ps(dot)), s = _mm512_set1_ps(scale);
        for (i = 0; i < seen; i += LANES)
            store(gr + i, _mm512_mul_ps(_mm512_mul_ps(load(pr + i), s),
                                        _mm512_sub_ps(load(gr + i), mean)));
        if (i < keys)
            memset(gr + i, 0, sizeof(bf16) * (size_t)(keys - i));
    }
}

/* logits [n_row, width] in place: softmax less one at the target; loss[row] = -log p(target). */
void loss_and_grad(bf16 *logits, const int64_t *target, float *loss, long n_row, long width)
{
#pragma omp parallel for schedule(static)
    for (long row = 0; row < n_row; row++) {
        bf16 *r = logits + row * width;
        vec most = load(r), total = _mm512_setzero_ps();
        for (long i = 0; i < width; i += LANES)
            most = _mm512_max_ps(most, load(r + i));
        float top = _mm512_reduce_max_ps(most);
        for (long i = 0; i < width; i += LANES)
            total = _mm512_add_ps(total, vexp(_mm512_sub_ps(load(r + i), _mm512_set1_ps(top))));
        float log_sum = top + logf(_mm512_reduce_add_ps(total));
        uint32_t bits = (uint32_t)r[target[row]] << 16;
        float right;
        memcpy(&right, &bits, sizeof(right));
        loss[row] = log_sum - right;
        for (long i = 0; i < width; i += LANES)
            store(r + i, vexp(_mm512_sub_ps(load(r + i), _mm512_set1_ps(log_sum))));
        float less = expf(right - log_sum) - 1.0f;
        memcpy(&bits, &less, sizeof(less));
        r[target[row]] = (bf16)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
    }
}
"""


def compiled():
    name = "sigma-" + hashlib.sha256(SOURCE.encode()).hexdigest()[:16]
    path = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "sigmoe" / f"{name}.so"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "kernels.c"
            source.write_text(SOURCE)
            subprocess.run(["cc", "-O3", "-march=native", "-mprefer-vector-width=512", "-fopenmp",
                            "-shared", "-fPIC", "-o", f"{path}.new", source, "-lm"], check=True)
        os.replace(f"{path}.new", path)
    return ctypes.CDLL(str(path))


def call(function, *args):
    """Tensors as their address, whole numbers as long, others as float."""
    function(*(ctypes.c_void_p(a.data_ptr()) if hasattr(a, "data_ptr") else
               ctypes.c_void_p(None) if a is None else
               ctypes.c_long(a) if isinstance(a, int) else ctypes.c_float(a) for a in args))

/* What is done token by token: rounding to 8 bits with the task's low-rank factors, and LayerNorm. */
#include "kernels.h"
#include "simd.h"

#include <math.h>

/* Scale and lowest value of x [n]; a NaN or an infinity anywhere makes the scale NaN. */
INLINE void find_range(const float *x, int64_t n, float *scale, float *low) {
    __m512 lowest = _mm512_set1_ps(INFINITY), highest = _mm512_set1_ps(-INFINITY), poison = _mm512_setzero_ps();
    for (int64_t i = 0; i < n; i += LANES) {
        const __mmask16 lanes = lanes_before(n, i);
        const __m512 part = _mm512_maskz_loadu_ps(lanes, x + i);
        lowest = _mm512_mask_min_ps(lowest, lanes, lowest, part);
        highest = _mm512_mask_max_ps(highest, lanes, highest, part);
        poison = _mm512_fmadd_ps(part, _mm512_setzero_ps(), poison);
    }
    *low = _mm512_reduce_min_ps(lowest);
    *scale = (_mm512_reduce_max_ps(highest) - *low) / 255.0f + _mm512_reduce_add_ps(poison);
}

INLINE void round_to_bytes(const float *x, int64_t n, float scale, float low, uint8_t *codes) {
    const __m512 inverse = _mm512_set1_ps(scale > 0 ? 1.0f / scale : 0.0f), lowest = _mm512_set1_ps(low);
    for (int64_t i = 0; i < n; i += LANES) {
        const __mmask16 lanes = lanes_before(n, i);
        const __m512 steps = _mm512_mul_ps(_mm512_sub_ps(_mm512_maskz_loadu_ps(lanes, x + i), lowest), inverse);
        _mm512_mask_cvtusepi32_storeu_epi8(codes + i, lanes, _mm512_cvtps_epi32(steps));
    }
}

INLINE float dot(const float *x, const float *y, int64_t n) {
    __m512 sums[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
    for (int64_t i = 0; i < n; i += 2 * LANES) {
        UNROLL for (int j = 0; j < 2; j++) {
            const int64_t at = i + j * LANES;
            const __mmask16 lanes = lanes_before(most(n, at), at);
            sums[j] = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(lanes, x + at), _mm512_maskz_loadu_ps(lanes, y + at), sums[j]);
        }
    }
    return _mm512_reduce_add_ps(_mm512_add_ps(sums[0], sums[1]));
}

AVX512 void quantize_row(const struct linear *linear, const float *x, const struct codes *into, int64_t row) {
    const int64_t n = linear->inputs;
    uint8_t *codes = into->codes + row * into->stride;
    find_range(x, n, into->scale + row, into->low + row);
    round_to_bytes(x, n, into->scale[row], into->low[row], codes);
    for (int64_t i = n; i < rounded(n, QUAD); i++)
        codes[i] = 0;
    const int32_t task = into->tasks[row];
    const int64_t rank = task >= 0 && task < linear->tasks ? linear->terms[task].rank : 0;
    for (int64_t r = 0; r < rank; r++)
        into->factors[row * into->rank + r] = dot(x, linear->terms[task].down + r * n, n);
}

AVX512 void add_and_normalize(const struct norm *norm, const float *x, const float *y, int64_t n, float *into) {
    __m512 total = _mm512_setzero_ps(), squares = _mm512_setzero_ps();
    for (int64_t i = 0; i < n; i += LANES) {
        const __mmask16 lanes = lanes_before(n, i);
        const __m512 sum = _mm512_add_ps(_mm512_maskz_loadu_ps(lanes, x + i), _mm512_maskz_loadu_ps(lanes, y + i));
        _mm512_mask_storeu_ps(into + i, lanes, sum);
        total = _mm512_add_ps(total, sum);
    }
    const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(total) / (float)n);
    for (int64_t i = 0; i < n; i += LANES) {
        const __mmask16 lanes = lanes_before(n, i);
        const __m512 off = _mm512_maskz_sub_ps(lanes, _mm512_maskz_loadu_ps(lanes, into + i), mean);
        squares = _mm512_fmadd_ps(off, off, squares);
    }
    const __m512 inverse = _mm512_set1_ps(1.0f / sqrtf(_mm512_reduce_add_ps(squares) / (float)n + (float)norm->eps));
    for (int64_t i = 0; i < n; i += LANES) {
        const __mmask16 lanes = lanes_before(n, i);
        const __m512 unit = _mm512_mul_ps(_mm512_sub_ps(_mm512_maskz_loadu_ps(lanes, into + i), mean), inverse);
        const __m512 weight = _mm512_maskz_loadu_ps(lanes, norm->weight + i), bias = _mm512_maskz_loadu_ps(lanes, norm->bias + i);
        _mm512_mask_storeu_ps(into + i, lanes, _mm512_fmadd_ps(unit, weight, bias));
    }
}

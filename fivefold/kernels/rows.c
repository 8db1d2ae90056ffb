/* What is done token by token: rounding to 8 bits with the task's low-rank factors, and LayerNorm. */
#include "kernels.h"
#include "simd.h"

#include <math.h>

/* Scale and lowest value of x [n]; a NaN or an infinity anywhere makes the scale NaN. */
INLINE void find_range(const float *x, int64_t n, float *scale, float *low) {
    __m512 lowest = _mm512_set1_ps(INFINITY), highest = _mm512_set1_ps(-INFINITY), poison = _mm512_setzero_ps();
    for (int64_t i = 0; i < n; i += LANES) {
        const __m512 part = _mm512_loadu_ps(x + i);
        lowest = _mm512_min_ps(lowest, part);
        highest = _mm512_max_ps(highest, part);
        poison = _mm512_fmadd_ps(part, _mm512_setzero_ps(), poison);
    }
    *low = _mm512_reduce_min_ps(lowest);
    *scale = (_mm512_reduce_max_ps(highest) - *low) / 255.0f + _mm512_reduce_add_ps(poison);
}

INLINE void round_to_bytes(const float *x, int64_t n, float scale, float low, uint8_t *codes) {
    const __m512 inverse = _mm512_set1_ps(scale > 0 ? 1.0f / scale : 0.0f), lowest = _mm512_set1_ps(low);
    for (int64_t i = 0; i < n; i += LANES) {
        const __m512 steps = _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(x + i), lowest), inverse);
        _mm_storeu_si128((__m128i *)(codes + i), _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(steps)));
    }
}

INLINE float dot(const float *x, const float *y, int64_t n) {
    __m512 even = _mm512_setzero_ps(), odd = _mm512_setzero_ps();
    int64_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        even = _mm512_fmadd_ps(_mm512_loadu_ps(x + i), _mm512_loadu_ps(y + i), even);
        odd = _mm512_fmadd_ps(_mm512_loadu_ps(x + i + LANES), _mm512_loadu_ps(y + i + LANES), odd);
    }
    if (i < n)
        even = _mm512_fmadd_ps(_mm512_loadu_ps(x + i), _mm512_loadu_ps(y + i), even);
    return _mm512_reduce_add_ps(_mm512_add_ps(even, odd));
}

AVX512 void quantize_row(const struct linear *linear, const float *x, const struct codes *into, int64_t row) {
    const int64_t n = linear->inputs;
    find_range(x, n, into->scale + row, into->low + row);
    round_to_bytes(x, n, into->scale[row], into->low[row], into->codes + row * into->stride);
    const int32_t task = into->tasks[row];
    const int64_t rank = task >= 0 && task < linear->tasks ? linear->terms[task].rank : 0;
    for (int64_t r = 0; r < rank; r++)
        into->factors[row * into->rank + r] = dot(x, linear->terms[task].down + r * n, n);
}

AVX512 void add_and_normalize(const struct norm *norm, const float *x, const float *y, int64_t n, float *into) {
    __m512 total = _mm512_setzero_ps(), squares = _mm512_setzero_ps();
    for (int64_t i = 0; i < n; i += LANES) {
        const __m512 sum = _mm512_add_ps(_mm512_loadu_ps(x + i), _mm512_loadu_ps(y + i));
        _mm512_storeu_ps(into + i, sum);
        total = _mm512_add_ps(total, sum);
    }
    const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(total) / (float)n);
    for (int64_t i = 0; i < n; i += LANES) {
        const __m512 off = _mm512_sub_ps(_mm512_loadu_ps(into + i), mean);
        squares = _mm512_fmadd_ps(off, off, squares);
    }
    const __m512 inverse = _mm512_set1_ps(1.0f / sqrtf(_mm512_reduce_add_ps(squares) / (float)n + (float)norm->eps));
    for (int64_t i = 0; i < n; i += LANES) {
        const __m512 unit = _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(into + i), mean), inverse);
        _mm512_storeu_ps(into + i, _mm512_fmadd_ps(unit, _mm512_loadu_ps(norm->weight + i), _mm512_loadu_ps(norm->bias + i)));
    }
}

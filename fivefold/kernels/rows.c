/* What is done token by token: rounding to 8 bits with the task's low-rank factors, and LayerNorm. */
#include "kernels.h"
#include "simd.h"

#include <math.h>

#define TOGETHER 4 /* rows and ranks whose sums of products are in registers together */
#define AHEAD 1024 /* floats between what is read and what is fetched: most rows come from the last cache */

/* Scale and lowest value of x [n]; a NaN or an infinity anywhere makes the scale NaN. */
INLINE void find_range(const float *x, int64_t n, float *scale, float *low) {
    __m512 lowest = _mm512_set1_ps(INFINITY), highest = _mm512_set1_ps(-INFINITY), poison = _mm512_setzero_ps();
    for (int64_t i = 0; i < n; i += LANES) {
        _mm_prefetch((const char *)(x + i + AHEAD), _MM_HINT_T0);
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

/* factors [rows, ranks] = x [rows, n] times the transpose of `down` [ranks, n]. */
INLINE void project(const int rows, const int ranks, const float *x, const float *down, int64_t n, float *factors, int64_t stride) {
    __m512 sums[TOGETHER][TOGETHER];
    UNROLL for (int t = 0; t < rows; t++) {
        UNROLL for (int r = 0; r < ranks; r++) sums[t][r] = _mm512_setzero_ps();
    }
    for (int64_t i = 0; i < n; i += LANES) {
        __m512 right[TOGETHER];
        UNROLL for (int r = 0; r < ranks; r++) right[r] = _mm512_loadu_ps(down + r * n + i);
        UNROLL for (int t = 0; t < rows; t++) {
            const __m512 left = _mm512_loadu_ps(x + t * n + i);
            UNROLL for (int r = 0; r < ranks; r++) sums[t][r] = _mm512_fmadd_ps(left, right[r], sums[t][r]);
        }
    }
    UNROLL for (int t = 0; t < rows; t++) {
        UNROLL for (int r = 0; r < ranks; r++) factors[t * stride + r] = _mm512_reduce_add_ps(sums[t][r]);
    }
}

/* x A^T of so many rows of one task. */
AVX512 static void project_rows(int64_t rows, const struct term *term, const float *x, int64_t n, float *factors, int64_t stride) {
    for (int64_t r = 0; r < term->rank;) {
        const int64_t ranks = term->rank - r < TOGETHER ? 1 : TOGETHER;
        if (ranks == 1)
            for (int64_t t = 0; t < rows; t++)
                project(1, 1, x + t * n, term->down + r * n, n, factors + t * stride + r, stride);
        else if (rows == TOGETHER)
            project(TOGETHER, TOGETHER, x, term->down + r * n, n, factors + r, stride);
        else
            for (int64_t t = 0; t < rows; t++)
                project(1, TOGETHER, x + t * n, term->down + r * n, n, factors + t * stride + r, stride);
        r += ranks;
    }
}

/* How many rows from `first` on are of one task and fit together. */
INLINE int64_t of_one_task(const int32_t *tasks, int64_t first, int64_t stop) {
    int64_t rows = 1;
    while (rows < TOGETHER && first + rows < stop && tasks[first + rows] == tasks[first])
        rows++;
    return rows;
}

AVX512 void quantize_rows(const struct linear *linear, const float *x, const struct codes *into, int64_t first, int64_t stop) {
    const int64_t n = linear->inputs;
    for (int64_t row = first, rows; row < stop; row += rows) {
        rows = of_one_task(into->tasks, row, stop);
        for (int64_t t = row; t < row + rows; t++) {
            find_range(x + t * n, n, into->scale + t, into->low + t);
            round_to_bytes(x + t * n, n, into->scale[t], into->low[t], into->codes + t * into->stride);
        }
        const int32_t task = into->tasks[row];
        if (task >= 0 && task < linear->tasks)
            project_rows(rows, linear->terms + task, x + row * n, n, into->factors + row * into->rank, into->rank);
    }
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

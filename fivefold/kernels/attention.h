/* What both ways of attention share (attention.c, attention_tiles.c): rotation, the running softmax, and one head as they are given it. */
#ifndef FIVEFOLD_ATTENTION_H
#define FIVEFOLD_ATTENTION_H

#include "kernels.h"
#include "simd.h"

#include <math.h>
#include <string.h>

#define LOG2_E 1.4426950408889634

/* x [H], of which entries j and j + H / 2 turn together, times `scale`. */
INLINE void rotate(const float *x, const float *cosines, const float *sines, int64_t head_dim, float scale, float *into) {
    const int64_t half = head_dim / 2;
    const __m512 factor = _mm512_set1_ps(scale);
    for (int64_t j = 0; j < half; j += LANES) {
        const __m512 a = _mm512_loadu_ps(x + j), b = _mm512_loadu_ps(x + half + j);
        const __m512 cosine = _mm512_loadu_ps(cosines + j), sine = _mm512_loadu_ps(sines + j);
        const __m512 low = _mm512_fnmadd_ps(b, sine, _mm512_mul_ps(a, cosine));
        const __m512 high = _mm512_fmadd_ps(a, sine, _mm512_mul_ps(b, cosine));
        _mm512_storeu_ps(into + j, _mm512_mul_ps(low, factor));
        _mm512_storeu_ps(into + half + j, _mm512_mul_ps(high, factor));
    }
}

/* x [16, 16] -> its transpose, rows `stride` apart on both sides. */
INLINE void transpose(const float *x, int64_t stride, float *into, int64_t into_stride) {
    __m512 a[LANES], b[LANES];
    _Pragma("GCC unroll 16") for (int i = 0; i < LANES; i++) a[i] = _mm512_loadu_ps(x + i * stride);
    UNROLL for (int i = 0; i < LANES; i += 2) {
        b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
    }
    UNROLL for (int i = 0; i < LANES; i += 4) {
        UNROLL for (int j = 0; j < 2; j++) {
            const __m512d upper = _mm512_castps_pd(b[i + j]), lower = _mm512_castps_pd(b[i + j + 2]);
            a[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(upper, lower));
            a[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(upper, lower));
        }
    }
    UNROLL for (int c = 0; c < 4; c++) { /* a[4 i + c]: columns c, 4 + c, 8 + c, 12 + c of rows 4 i to 4 i + 3 */
        const __m512 even = _mm512_shuffle_f32x4(a[c], a[4 + c], 0x88), even2 = _mm512_shuffle_f32x4(a[8 + c], a[12 + c], 0x88);
        const __m512 odd = _mm512_shuffle_f32x4(a[c], a[4 + c], 0xdd), odd2 = _mm512_shuffle_f32x4(a[8 + c], a[12 + c], 0xdd);
        _mm512_storeu_ps(into + c * into_stride, _mm512_shuffle_f32x4(even, even2, 0x88));
        _mm512_storeu_ps(into + (4 + c) * into_stride, _mm512_shuffle_f32x4(odd, odd2, 0x88));
        _mm512_storeu_ps(into + (8 + c) * into_stride, _mm512_shuffle_f32x4(even, even2, 0xdd));
        _mm512_storeu_ps(into + (12 + c) * into_stride, _mm512_shuffle_f32x4(odd, odd2, 0xdd));
    }
}

/* Some rows of one text with their rotation, [rows, H]; those past the end are zero. */
INLINE void rotate_rows(const struct pack *pack, const float *x, int64_t first, int64_t rows, int64_t length, int64_t head_dim, float scale,
                        float *into) {
    for (int64_t at = first; at < first + rows; at++, into += head_dim) {
        const int64_t turn = at * head_dim / 2;
        if (at < length)
            rotate(x + at * PANEL, pack->cosines + turn, pack->sines + turn, head_dim, scale, into);
        else
            memset(into, 0, head_dim * sizeof *into);
    }
}

/* Scores [keys] of one query to powers of 2 above its highest score so far; sums of earlier keys are brought to the same. */
INLINE void soften(float *scores, int64_t keys, float *highest, float *total, float *mixed, int64_t head_dim) {
    const int64_t last = (keys - 1) / LANES * LANES;
    const __m512 never = _mm512_set1_ps(-INFINITY);
    _mm512_storeu_ps(scores + last, _mm512_mask_loadu_ps(never, lanes_before(keys, last), scores + last));
    const __m512 before = _mm512_set1_ps(*highest);
    __m512 top = before, sum = _mm512_setzero_ps();
    for (int64_t k = 0; k <= last; k += LANES)
        top = _mm512_max_ps(top, _mm512_loadu_ps(scores + k));
    top = _mm512_set1_ps(_mm512_reduce_max_ps(top));
    for (int64_t k = 0; k <= last; k += LANES) {
        const __m512 power = exp2_16(_mm512_sub_ps(_mm512_loadu_ps(scores + k), top));
        _mm512_storeu_ps(scores + k, power);
        sum = _mm512_add_ps(sum, power);
    }
    const __m512 shrunk = exp2_16(_mm512_sub_ps(before, top));
    *highest = _mm512_cvtss_f32(top);
    *total = *total * _mm512_cvtss_f32(shrunk) + _mm512_reduce_add_ps(sum);
    for (int64_t j = 0; j < head_dim; j += LANES)
        _mm512_storeu_ps(mixed + j, _mm512_mul_ps(_mm512_loadu_ps(mixed + j), shrunk));
}

/* What queries are multiplied with: the scale of scores, and of powers of 2 in the place of e. */
INLINE float query_scale(int64_t head_dim) { return (float)(LOG2_E / sqrt((double)head_dim)); }

/* Nothing mixed yet for some queries. */
INLINE void begin(int64_t rows, int64_t head_dim, float *mixed, float *highest, float *total) {
    for (int64_t i = 0; i < rows; i++) {
        highest[i] = -INFINITY;
        total[i] = 0;
    }
    memset(mixed, 0, rows * head_dim * sizeof *mixed);
}

/* Sums over all keys to means, written a row of the model's apart. */
INLINE void hand_over(const float *mixed, const float *total, int64_t rows, int64_t head_dim, float *into, int64_t stride) {
    for (int64_t i = 0; i < rows; i++, into += stride, mixed += head_dim) {
        const __m512 share = _mm512_set1_ps(1.0f / total[i]);
        for (int64_t j = 0; j < head_dim; j += LANES)
            _mm512_storeu_ps(into + j, _mm512_mul_ps(_mm512_loadu_ps(mixed + j), share));
    }
}

/* Queries, keys and values of one head of one text, [L, H] each, rows PANEL apart; and where the result goes. */
struct head {
    const float *queries, *keys, *values;
    int64_t length, head_dim;
    float *mixed;
    int64_t stride;
};

/* Floats of scratch for one head of one text by tiles, and the head; `parts` is of how many bfloat16 weights and values are. */
int64_t scratch_of_tiles(int64_t length, int64_t head_dim, int64_t parts);
void attend_by_tiles(const struct pack *pack, const struct head *head, int64_t parts, float *scratch);

#endif

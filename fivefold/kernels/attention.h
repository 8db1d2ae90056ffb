/* What both ways of attention share (attend.h, attention_bfloat16.c): rotation, the running softmax, and one head as they are given it. */
#ifndef FIVEFOLD_ATTENTION_H
#define FIVEFOLD_ATTENTION_H

#include "kernels.h"
#include "simd.h"

#define LOG2_E 1.4426950408889634

/* x [H], of which entries j and j + H / 2 turn together, times `scale`. */
INLINE void rotate(const float *x, const float *cosines, const float *sines, int64_t head_dim, float scale, float *into) {
    const int64_t half = head_dim / 2;
    const lanes factor = all_of(scale);
    for (int64_t j = 0; j < half; j += LANES) {
        const lanes a = load(x + j), b = load(x + half + j);
        const lanes cosine = load(cosines + j), sine = load(sines + j);
        const lanes low = times_from(b, sine, times(a, cosine));
        const lanes high = times_add(a, sine, times(b, cosine));
        store(into + j, times(low, factor));
        store(into + half + j, times(high, factor));
    }
}

/* x [16, 16] -> its transpose, rows `stride` apart on both sides. */
#if WIDE
INLINE void transpose(const float *x, int64_t stride, float *into, int64_t into_stride) {
    __m512 a[LANES], b[LANES];
    UNROLL for (int i = 0; i < LANES; i++) a[i] = _mm512_loadu_ps(x + i * stride);
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
#else
INLINE void transpose_4(const float *x, int64_t stride, float *into, int64_t into_stride) {
    __m128 a = _mm_loadu_ps(x), b = _mm_loadu_ps(x + stride), c = _mm_loadu_ps(x + 2 * stride), d = _mm_loadu_ps(x + 3 * stride);
    _MM_TRANSPOSE4_PS(a, b, c, d);
    _mm_storeu_ps(into, a);
    _mm_storeu_ps(into + into_stride, b);
    _mm_storeu_ps(into + 2 * into_stride, c);
    _mm_storeu_ps(into + 3 * into_stride, d);
}

INLINE void transpose(const float *x, int64_t stride, float *into, int64_t into_stride) {
    for (int64_t i = 0; i < LANES; i += 4)
        for (int64_t j = 0; j < LANES; j += 4)
            transpose_4(x + i * stride + j, stride, into + j * into_stride + i, into_stride);
}
#endif

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
    store(scores + last, load_before(scores + last, keys, last, -INFINITY));
    const lanes before = all_of(*highest);
    lanes top = before, sum = none();
    for (int64_t k = 0; k <= last; k += LANES)
        top = higher(top, load(scores + k));
    top = all_of(highest_of(top));
    for (int64_t k = 0; k <= last; k += LANES) {
        const lanes power = exp2_of(less(load(scores + k), top));
        store(scores + k, power);
        sum = add(sum, power);
    }
    const lanes shrunk = exp2_of(less(before, top));
    *highest = first_of(top);
    *total = *total * first_of(shrunk) + sum_of(sum);
    for (int64_t j = 0; j < head_dim; j += LANES)
        store(mixed + j, times(load(mixed + j), shrunk));
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
        const lanes share = all_of(1.0f / total[i]);
        for (int64_t j = 0; j < head_dim; j += LANES)
            store(into + j, times(load(mixed + j), share));
    }
}

#endif

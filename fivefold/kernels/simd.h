/* Sixteen floats at a time, in one vector of AVX-512 where WIDE is 1, or in two of AVX2; and transcendental functions on them. Whoever
 * includes this says which. There are no flags of the compiler: functions say themselves what they need, so that a build runs wherever
 * it was made, and who calls asks the processor first.
 */
#ifndef FIVEFOLD_SIMD_H
#define FIVEFOLD_SIMD_H

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,bmi2,fma")))
#define BFLOAT16 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,bmi2,fma")))
#define AVX2 __attribute__((target("avx2,fma,bmi2")))
#if WIDE
#define TARGET AVX512
#else
#define TARGET AVX2
#endif
#define INLINE static inline TARGET __attribute__((always_inline))
#define APART TARGET static __attribute__((noinline)) /* whose loops need all registers */
#ifdef __clang__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

#define LANES 16 /* floats at a time */

#if WIDE

typedef __m512 lanes;

INLINE lanes all_of(float x) { return _mm512_set1_ps(x); }
INLINE lanes none(void) { return _mm512_setzero_ps(); }
INLINE lanes load(const float *x) { return _mm512_loadu_ps(x); }
INLINE void store(float *into, lanes x) { _mm512_storeu_ps(into, x); }
INLINE lanes from_ints(const int32_t *x) { return _mm512_cvtepi32_ps(_mm512_loadu_si512(x)); }
INLINE lanes add(lanes x, lanes y) { return _mm512_add_ps(x, y); }
INLINE lanes less(lanes x, lanes y) { return _mm512_sub_ps(x, y); }
INLINE lanes times(lanes x, lanes y) { return _mm512_mul_ps(x, y); }
INLINE lanes lower(lanes x, lanes y) { return _mm512_min_ps(x, y); }
INLINE lanes higher(lanes x, lanes y) { return _mm512_max_ps(x, y); } /* y where one of them is NaN */
INLINE lanes times_add(lanes x, lanes y, lanes z) { return _mm512_fmadd_ps(x, y, z); }
INLINE lanes times_from(lanes x, lanes y, lanes z) { return _mm512_fnmadd_ps(x, y, z); } /* z - x y */
INLINE lanes nearest_whole(lanes x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
INLINE lanes times_power(lanes x, lanes whole) { return _mm512_scalef_ps(x, whole); } /* x 2^whole */
INLINE float first_of(lanes x) { return _mm512_cvtss_f32(x); }
INLINE float sum_of(lanes x) { return _mm512_reduce_add_ps(x); }
INLINE float lowest_of(lanes x) { return _mm512_reduce_min_ps(x); }
INLINE float highest_of(lanes x) { return _mm512_reduce_max_ps(x); }

/* 1 / x to float32: one step of Newton's from the processor's estimate. */
INLINE lanes reciprocal(lanes x) {
    const lanes estimate = _mm512_rcp14_ps(x);
    return times(estimate, times_from(x, estimate, all_of(2.0f)));
}

/* The lanes of a vector that begins at i which are before n. */
INLINE __mmask16 lanes_before(int64_t n, int64_t i) {
    return n - i >= LANES ? (__mmask16)0xffff : n > i ? (__mmask16)((1u << (n - i)) - 1) : 0;
}

/* x [n - i] of sixteen, and something else in the place of the rest; and the way back, where the rest stays as it is. */
INLINE lanes load_before(const float *x, int64_t n, int64_t i, float rest) {
    return _mm512_mask_loadu_ps(all_of(rest), lanes_before(n, i), x);
}
INLINE void store_before(float *into, int64_t n, int64_t i, lanes x) { _mm512_mask_storeu_ps(into, lanes_before(n, i), x); }

#else

typedef struct {
    __m256 low, high;
} lanes;

INLINE lanes all_of(float x) { return (lanes){_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
INLINE lanes none(void) { return all_of(0); }
INLINE lanes load(const float *x) { return (lanes){_mm256_loadu_ps(x), _mm256_loadu_ps(x + LANES / 2)}; }
INLINE void store(float *into, lanes x) {
    _mm256_storeu_ps(into, x.low);
    _mm256_storeu_ps(into + LANES / 2, x.high);
}
INLINE lanes from_ints(const int32_t *x) {
    const __m256i *halves = (const __m256i *)x;
    return (lanes){_mm256_cvtepi32_ps(_mm256_loadu_si256(halves)), _mm256_cvtepi32_ps(_mm256_loadu_si256(halves + 1))};
}
INLINE lanes add(lanes x, lanes y) { return (lanes){_mm256_add_ps(x.low, y.low), _mm256_add_ps(x.high, y.high)}; }
INLINE lanes less(lanes x, lanes y) { return (lanes){_mm256_sub_ps(x.low, y.low), _mm256_sub_ps(x.high, y.high)}; }
INLINE lanes times(lanes x, lanes y) { return (lanes){_mm256_mul_ps(x.low, y.low), _mm256_mul_ps(x.high, y.high)}; }
INLINE lanes over(lanes x, lanes y) { return (lanes){_mm256_div_ps(x.low, y.low), _mm256_div_ps(x.high, y.high)}; }
INLINE lanes lower(lanes x, lanes y) { return (lanes){_mm256_min_ps(x.low, y.low), _mm256_min_ps(x.high, y.high)}; }
INLINE lanes higher(lanes x, lanes y) { return (lanes){_mm256_max_ps(x.low, y.low), _mm256_max_ps(x.high, y.high)}; }
INLINE lanes times_add(lanes x, lanes y, lanes z) {
    return (lanes){_mm256_fmadd_ps(x.low, y.low, z.low), _mm256_fmadd_ps(x.high, y.high, z.high)};
}
INLINE lanes times_from(lanes x, lanes y, lanes z) {
    return (lanes){_mm256_fnmadd_ps(x.low, y.low, z.low), _mm256_fnmadd_ps(x.high, y.high, z.high)};
}
#define NEAREST (_MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
INLINE lanes nearest_whole(lanes x) { return (lanes){_mm256_round_ps(x.low, NEAREST), _mm256_round_ps(x.high, NEAREST)}; }
INLINE __m256 power_of_2(__m256 whole) { /* for -126 to 127 */
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(whole), _mm256_set1_epi32(127)), 23));
}
INLINE lanes times_power(lanes x, lanes whole) { return times(x, (lanes){power_of_2(whole.low), power_of_2(whole.high)}); }
INLINE float first_of(lanes x) { return _mm256_cvtss_f32(x.low); }
#define REDUCE(name, operation) \
    INLINE float name(lanes x) { \
        const __m256 eight = _mm256_##operation##_ps(x.low, x.high); \
        const __m128 four = _mm_##operation##_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1)); \
        const __m128 two = _mm_##operation##_ps(four, _mm_movehl_ps(four, four)); \
        return _mm_cvtss_f32(_mm_##operation##_ss(two, _mm_movehdup_ps(two))); \
    }
REDUCE(sum_of, add)
REDUCE(lowest_of, min)
REDUCE(highest_of, max)

INLINE lanes reciprocal(lanes x) { return over(all_of(1), x); }

INLINE __m256i before(int64_t n, int64_t i) {
    const __m256i place = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int32_t)(n - i > LANES ? LANES : n - i)), place);
}
INLINE __m256 load_half_before(const float *x, int64_t n, int64_t i, float rest) {
    const __m256i mask = before(n, i);
    return _mm256_blendv_ps(_mm256_set1_ps(rest), _mm256_maskload_ps(x, mask), _mm256_castsi256_ps(mask));
}
INLINE lanes load_before(const float *x, int64_t n, int64_t i, float rest) {
    return (lanes){load_half_before(x, n, i, rest), load_half_before(x + LANES / 2, n, i + LANES / 2, rest)};
}
INLINE void store_before(float *into, int64_t n, int64_t i, lanes x) {
    _mm256_maskstore_ps(into, before(n, i), x.low);
    _mm256_maskstore_ps(into + LANES / 2, before(n, i + LANES / 2), x.high);
}

#endif

/* 2^x, for x up to 0: within 2 units in the last place, and 2^-100 below that, since processors are slow at results that are no normal
 * numbers. Coefficients: least largest relative error on [-1/2, 1/2], fitted for this file. */
INLINE lanes exp2_of(lanes x) {
    x = higher(all_of(-100.0f), x); /* in this order NaN stays */
    const lanes whole = nearest_whole(x);
    const lanes part = less(x, whole);
    lanes sum = all_of(1.3276471781e-3f);
    sum = times_add(sum, part, all_of(9.6755413327e-3f));
    sum = times_add(sum, part, all_of(5.5507132742e-2f));
    sum = times_add(sum, part, all_of(2.4022119724e-1f));
    sum = times_add(sum, part, all_of(6.9314696708e-1f));
    sum = times_add(sum, part, all_of(1.0000000717f));
    return times_power(sum, whole);
}

/* x (1 + erf(x / sqrt 2)) / 2, off by no more than 3e-7 |x|. erf / 2 is x p(x^2) / q(x^2) up to 5.3 and 1/2 from there, fitted for this
 * file with the least largest error. */
INLINE lanes gelu_of(lanes x) {
    const lanes end = all_of(5.3f);
    const lanes near = lower(end, higher(less(none(), end), x));
    const lanes square = times(near, near);
    lanes p = all_of(2.3455707254e-8f);
    p = times_add(p, square, all_of(6.4366237048e-6f));
    p = times_add(p, square, all_of(1.6816804313e-4f));
    p = times_add(p, square, all_of(4.6749065188e-3f));
    p = times_add(p, square, all_of(3.3697506447e-2f));
    p = times_add(p, square, all_of(3.9894220265e-1f));
    lanes q = all_of(1.2242056413e-6f);
    q = times_add(q, square, all_of(7.3895484445e-5f));
    q = times_add(q, square, all_of(1.8805326653e-3f));
    q = times_add(q, square, all_of(2.8575579041e-2f));
    q = times_add(q, square, all_of(2.5113266369e-1f));
    q = times_add(q, square, all_of(1.0f));
    const lanes half_erf = times(times(near, p), reciprocal(q));
    return times(x, add(all_of(0.5f), half_erf));
}

#endif

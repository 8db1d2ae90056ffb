/* AVX-512 without flags of the compiler: functions say themselves what they need, so that a build runs wherever it was made,
 * and who calls asks the processor first. Transcendental functions on sixteen floats. */
#ifndef FIVEFOLD_SIMD_H
#define FIVEFOLD_SIMD_H

#include <immintrin.h>
#include <stdint.h>

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,bmi2,fma")))
#define BFLOAT16 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,bmi2,fma")))
#define INLINE static inline AVX512 __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif

#define LANES 16 /* floats of a vector */

/* The lanes of a vector that begins at i which are before n. */
INLINE __mmask16 lanes_before(int64_t n, int64_t i) {
    return n - i >= LANES ? (__mmask16)0xffff : n > i ? (__mmask16)((1u << (n - i)) - 1) : 0;
}

/* 2^x, for x up to 0: within 2 units in the last place, and 2^-100 below that, since processors are slow at results that are no normal
 * numbers. Coefficients: least largest relative error on [-1/2, 1/2], fitted for this file. */
INLINE __m512 exp2_16(__m512 x) {
    x = _mm512_max_ps(_mm512_set1_ps(-100.0f), x); /* in this order NaN stays */
    const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512 part = _mm512_sub_ps(x, whole);
    __m512 sum = _mm512_set1_ps(1.3276471781e-3f);
    sum = _mm512_fmadd_ps(sum, part, _mm512_set1_ps(9.6755413327e-3f));
    sum = _mm512_fmadd_ps(sum, part, _mm512_set1_ps(5.5507132742e-2f));
    sum = _mm512_fmadd_ps(sum, part, _mm512_set1_ps(2.4022119724e-1f));
    sum = _mm512_fmadd_ps(sum, part, _mm512_set1_ps(6.9314696708e-1f));
    sum = _mm512_fmadd_ps(sum, part, _mm512_set1_ps(1.0000000717f));
    return _mm512_scalef_ps(sum, whole);
}

/* 1 / x to float32: one step of Newton's from the processor's estimate. */
INLINE __m512 reciprocal_16(__m512 x) {
    const __m512 estimate = _mm512_rcp14_ps(x);
    return _mm512_mul_ps(estimate, _mm512_fnmadd_ps(x, estimate, _mm512_set1_ps(2.0f)));
}

/* x (1 + erf(x / sqrt 2)) / 2, off by no more than 3e-7 |x|. erf / 2 is x p(x^2) / q(x^2) up to 5.3 and 1/2 from there, fitted for this
 * file with the least largest error. */
INLINE __m512 gelu_16(__m512 x) {
    const __m512 end = _mm512_set1_ps(5.3f);
    const __m512 near = _mm512_min_ps(end, _mm512_max_ps(_mm512_sub_ps(_mm512_setzero_ps(), end), x));
    const __m512 square = _mm512_mul_ps(near, near);
    __m512 p = _mm512_set1_ps(2.3455707254e-8f);
    p = _mm512_fmadd_ps(p, square, _mm512_set1_ps(6.4366237048e-6f));
    p = _mm512_fmadd_ps(p, square, _mm512_set1_ps(1.6816804313e-4f));
    p = _mm512_fmadd_ps(p, square, _mm512_set1_ps(4.6749065188e-3f));
    p = _mm512_fmadd_ps(p, square, _mm512_set1_ps(3.3697506447e-2f));
    p = _mm512_fmadd_ps(p, square, _mm512_set1_ps(3.9894220265e-1f));
    __m512 q = _mm512_set1_ps(1.2242056413e-6f);
    q = _mm512_fmadd_ps(q, square, _mm512_set1_ps(7.3895484445e-5f));
    q = _mm512_fmadd_ps(q, square, _mm512_set1_ps(1.8805326653e-3f));
    q = _mm512_fmadd_ps(q, square, _mm512_set1_ps(2.8575579041e-2f));
    q = _mm512_fmadd_ps(q, square, _mm512_set1_ps(2.5113266369e-1f));
    q = _mm512_fmadd_ps(q, square, _mm512_set1_ps(1.0f));
    const __m512 half_erf = _mm512_mul_ps(_mm512_mul_ps(near, p), reciprocal_16(q));
    return _mm512_mul_ps(x, _mm512_add_ps(_mm512_set1_ps(0.5f), half_erf));
}

#endif

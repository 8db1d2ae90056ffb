/* Sums of products of bytes by `vpdpbusd`: six tokens by a panel of 64 outputs at a time, their 24 vectors of sums in registers from the
 * first input to the last.
 */
#include "kernels.h"
#include "simd.h"

#include <string.h>

#define VECTORS (PANEL / LANES)
#define HALF (VECTORS / 2)

INLINE void sum_products(const int rows, const uint8_t *codes, int64_t stride, const uint8_t *panel, int64_t steps, const uint8_t *ahead,
                         int64_t lines, int32_t *into) {
    __m512i sums[SUMMED_ROWS][VECTORS];
    const uint8_t *row[SUMMED_ROWS];
    const int64_t half = steps * HALF * TILE_BYTES;
    UNROLL for (int r = 0; r < rows; r++) {
        row[r] = codes + r * stride;
        UNROLL for (int v = 0; v < VECTORS; v++) sums[r][v] = _mm512_setzero_si512();
    }
    for (int64_t k = 0; k < steps * LINE; k += QUAD, panel += LINE) {
        if (k && k % LINE == 0)
            panel += (HALF - 1) * TILE_BYTES; /* to the next step's tiles */
        __m512i weights[VECTORS];
        UNROLL for (int v = 0; v < VECTORS; v++) weights[v] = _mm512_loadu_si512(panel + v / HALF * half + v % HALF * TILE_BYTES);
        for (int64_t line = 0; line < lines; line++, ahead += LINE)
            _mm_prefetch((const char *)ahead, _MM_HINT_T1);
        UNROLL for (int r = 0; r < rows; r++) {
            int32_t four;
            memcpy(&four, row[r] + k, QUAD);
            const __m512i inputs = _mm512_set1_epi32(four);
            UNROLL for (int v = 0; v < VECTORS; v++) sums[r][v] = _mm512_dpbusd_epi32(sums[r][v], inputs, weights[v]);
        }
    }
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int v = 0; v < VECTORS; v++) _mm512_storeu_si512(into + r * PANEL + v * LANES, sums[r][v]);
    }
}

/* For a number of rows that is known only here; its loops need all registers. */
AVX512 void sum_codes(int64_t rows, const uint8_t *codes, int64_t stride, const uint8_t *panel, int64_t steps, const uint8_t *ahead,
                     int64_t lines, int32_t *into) {
    switch (rows) {
    case 1: sum_products(1, codes, stride, panel, steps, ahead, lines, into); break;
    case 2: sum_products(2, codes, stride, panel, steps, ahead, lines, into); break;
    case 3: sum_products(3, codes, stride, panel, steps, ahead, lines, into); break;
    case 4: sum_products(4, codes, stride, panel, steps, ahead, lines, into); break;
    case 5: sum_products(5, codes, stride, panel, steps, ahead, lines, into); break;
    default: sum_products(SUMMED_ROWS, codes, stride, panel, steps, ahead, lines, into);
    }
}

/* Products of bfloat16 by vectors, on processors with AVX512-BF16 and for what is not summed in tiles: `vdpbf16ps` adds products of two
 * inputs at a time, in float32, to sixteen sums. Panels, keys, values and weights lie as they do for tiles.
 */
#define WIDE 1
#include "kernels.h"
#include "simd.h"

#define ADD_PAIRS(sums, inputs, weights) _mm512_dpbf16_ps(sums, (__m512bh)(inputs), (__m512bh)(weights))
#define SQUARE 4 /* rows, and vectors of sums of each, that are in registers together */

static bool there, wanted = true;

__attribute__((constructor)) static void ask(void) {
    __builtin_cpu_init();
    there = __builtin_cpu_supports("avx512bf16");
}

int fivefold_pairs(int want) {
    wanted = want;
    return pairs_in_use();
}

bool pairs_there(void) { return there && vectors == &avx512; }

bool pairs_in_use(void) { return pairs_there() && wanted; }

#define SUM_WORDS sum_pairs
#define WORDS_TARGET BFLOAT16
#define SUMS __m512
#define NO_SUMS _mm512_setzero_ps()
#define ADD_WORDS ADD_PAIRS
#include "words.h"

/* sums [SQUARE, 16 columns], rows `into_stride` apart, (+)= left [SQUARE, n] right [n, columns, 16], all in words, vectors of a column
 * `column` words apart. */
BFLOAT16 static inline __attribute__((always_inline)) void sum_square(const int columns, const uint32_t *left, int64_t left_stride,
                                                                      const uint32_t *right, int64_t right_stride, int64_t column,
                                                                      int64_t n, const bool more, float *into, int64_t into_stride) {
    __m512 sums[SQUARE][SQUARE];
    UNROLL for (int r = 0; r < SQUARE; r++) {
        UNROLL for (int v = 0; v < columns; v++)
            sums[r][v] = more ? _mm512_loadu_ps(into + r * into_stride + v * LANES) : _mm512_setzero_ps();
    }
    for (int64_t k = 0; k < n; k++, right += right_stride) {
        __m512i some[SQUARE];
        UNROLL for (int v = 0; v < columns; v++) some[v] = _mm512_loadu_si512(right + v * column);
        UNROLL for (int r = 0; r < SQUARE; r++) {
            const __m512i word = _mm512_set1_epi32((int32_t)left[r * left_stride + k]);
            UNROLL for (int v = 0; v < columns; v++) sums[r][v] = ADD_PAIRS(sums[r][v], word, some[v]);
        }
    }
    UNROLL for (int r = 0; r < SQUARE; r++) {
        UNROLL for (int v = 0; v < columns; v++) _mm512_storeu_ps(into + r * into_stride + v * LANES, sums[r][v]);
    }
}

BFLOAT16 void score_pairs(const uint32_t *queries, int64_t rows, const uint32_t *keys, int64_t count, int64_t head_dim, float *into,
                          int64_t into_stride) {
    const int64_t row = head_dim / 2, tile = row * TILE_SIDE;
    for (int64_t key = 0; key < count; key += SQUARE * LANES, keys += SQUARE * tile, into += SQUARE * LANES)
        for (int64_t r = 0; r < rows; r += SQUARE) {
            const uint32_t *left = queries + r * row;
            if (count - key > TILED_ROWS)
                sum_square(SQUARE, left, row, keys, TILE_SIDE, tile, row, false, into + r * into_stride, into_stride);
            else
                sum_square(SQUARE / 2, left, row, keys, TILE_SIDE, tile, row, false, into + r * into_stride, into_stride);
        }
}

BFLOAT16 void mix_pairs(const uint32_t *weights, int64_t rows, int64_t weights_stride, const uint32_t *values, int64_t keys,
                        int64_t head_dim, float *mixed) {
    for (int64_t r = 0; r < rows; r += SQUARE) {
        const uint32_t *left = weights + r * weights_stride;
        if (head_dim > TILED_ROWS)
            sum_square(SQUARE, left, weights_stride, values, head_dim, LANES, keys / 2, true, mixed + r * head_dim, head_dim);
        else
            sum_square(SQUARE / 2, left, weights_stride, values, head_dim, LANES, keys / 2, true, mixed + r * head_dim, head_dim);
    }
}

/* Sums of products where there are no tiles: some tokens by a panel of 64 outputs, sums in registers while inputs pass by.
 *
 * Bytes by `vpdpbusd`, six tokens by the whole panel; or where there is none, in 16 bits by `vpmaddwd`, which is exact where `vpmaddubsw`
 * would overflow: six tokens by 8 outputs, as wide as registers allow. Floats likewise. Inputs are cut so that what passes by stays in
 * the first cache while all tokens of a block do.
 */
#ifndef FIVEFOLD_SUMS_H
#define FIVEFOLD_SUMS_H

#include "kernels.h"
#include "simd.h"

#if WIDE

static sum_function sum_codes;
#define SUM_WORDS sum_codes
#define WORDS_TARGET TARGET
#define SUMS __m512i
#define NO_SUMS _mm512_setzero_si512()
#define ADD_WORDS _mm512_dpbusd_epi32
#include "words.h"

#else

#define HALF 2 /* vectors of half a panel */
#define CODES_CUT 8 /* lines of inputs that pass by at a time */
#define QUADS (CODES_CUT * LINE / QUAD)

/* Both sums += products of four inputs with two vectors of weights. Compilers put the sums of some rows aside for the products of others;
 * in this order all that is needed is in the registers there are. */
INLINE void add_products(const uint8_t *codes, const __m256i *weights, __m256i *sums) {
    __m256i inputs, product;
    __asm__("vpbroadcastq %[codes], %[inputs]\n\t"
            "vpmaddwd %[first], %[inputs], %[product]\n\t"
            "vpaddd %[product], %[one], %[one]\n\t"
            "vpmaddwd %[second], %[inputs], %[inputs]\n\t"
            "vpaddd %[inputs], %[other], %[other]"
            : [one] "+x"(sums[0]), [other] "+x"(sums[1]), [inputs] "=&x"(inputs), [product] "=&x"(product)
            : [codes] "m"(*(const int64_t(*)[1])codes), [first] "x"(weights[0]), [second] "x"(weights[1]));
}

/* sums [rows, 8] += codes, 16 bits each, times weights [quads, 8, 4], 16 bits too. */
INLINE void sum_eight(const int rows, const uint8_t *codes, int64_t stride, const __m256i *weights, int64_t quads, int32_t *into) {
    __m256i sums[SUMMED_ROWS][2];
    UNROLL for (int r = 0; r < rows; r++) sums[r][0] = sums[r][1] = _mm256_setzero_si256();
    for (int64_t quad = 0; quad < quads; quad++, weights += 2, codes += 2 * QUAD) {
        const __m256i both[2] = {weights[0], weights[1]};
        UNROLL for (int r = 0; r < rows; r++) add_products(codes + r * stride, both, sums[r]);
    }
    UNROLL for (int r = 0; r < rows; r++) {
        __m256i *place = (__m256i *)(into + r * PANEL);
        const __m256i pairs = _mm256_permute4x64_epi64(_mm256_hadd_epi32(sums[r][0], sums[r][1]), 0xd8);
        _mm256_storeu_si256(place, _mm256_add_epi32(_mm256_loadu_si256(place), pairs));
    }
}

APART void sum_eight_of(int64_t rows, const uint8_t *codes, int64_t stride, const __m256i *weights, int64_t quads, int32_t *into) {
    switch (rows) {
    case 1: sum_eight(1, codes, stride, weights, quads, into); break;
    case 2: sum_eight(2, codes, stride, weights, quads, into); break;
    case 3: sum_eight(3, codes, stride, weights, quads, into); break;
    case 4: sum_eight(4, codes, stride, weights, quads, into); break;
    case 5: sum_eight(5, codes, stride, weights, quads, into); break;
    default: sum_eight(SUMMED_ROWS, codes, stride, weights, quads, into);
    }
}

/* Weights of 8 outputs and some steps, from bytes to 16 bits each. */
TARGET static void widen_eight(const uint8_t *tile, int64_t steps, __m256i *into) {
    for (int64_t step = 0; step < steps; step++, tile += (HALF - 1) * TILE_BYTES)
        for (int64_t quad = 0; quad < LINE / QUAD; quad++, tile += LINE, into += 2) {
            into[0] = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)tile));
            into[1] = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)tile + 1));
        }
}

/* Sums [rows, PANEL] of a block of rows in bytes; meanwhile the weights that come after are fetched, at the end those of the next panel. */
TARGET static void sum_code_block(int64_t rows, const uint8_t *codes, int64_t stride, const uint8_t *panel, int64_t steps,
                                  const uint8_t *next, int32_t *into) {
    __m256i weights[2 * QUADS];
    memset(into, 0, rows * PANEL * sizeof *into);
    for (int64_t step = 0; step < steps; step += CODES_CUT) {
        const uint8_t *ahead = step + CODES_CUT < steps ? panel + (step + CODES_CUT) * HALF * TILE_BYTES : next;
        for (int64_t output = 0; output < PANEL; output += LANES / 2) {
            const int64_t half = output / (PANEL / 2), some = least(CODES_CUT, steps - step);
            const int64_t tile = (half * steps + step) * HALF + output % (PANEL / 2) / LANES;
            const uint8_t *fetched = ahead + half * steps * HALF * TILE_BYTES + output % (PANEL / 2) / 8 * (CODES_CUT * HALF * TILE_BYTES / 4);
            for (int64_t line = 0; line < CODES_CUT * HALF * TILE_BYTES / 4; line += LINE)
                _mm_prefetch((const char *)fetched + line, _MM_HINT_T1);
            widen_eight(panel + tile * TILE_BYTES + output % LANES * QUAD, some, weights);
            for (int64_t row = 0; row < rows; row += SUMMED_ROWS)
                sum_eight_of(least(SUMMED_ROWS, rows - row), codes + row * stride + step * 2 * LINE, stride, weights, some * LINE / QUAD,
                             into + row * PANEL + output);
        }
    }
}

#undef QUADS
#undef CODES_CUT
#undef HALF

#endif

/* Rows and vectors whose sums are in registers together, and inputs that pass by at a time. */
#if WIDE
#define FLOAT_ROWS 12
#define FLOAT_VECTORS 2
#else
#define FLOAT_ROWS 6
#define FLOAT_VECTORS 1
#endif
#define FLOATS_CUT 256

/* sums [rows, 16 vectors] += x [rows, n] times weights, [n, 16] for each vector, `column` floats apart. */
INLINE void sum_column(const int rows, const float *x, int64_t stride, const float *weights, int64_t column, int64_t n, float *into) {
    lanes sums[FLOAT_ROWS][FLOAT_VECTORS];
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int v = 0; v < FLOAT_VECTORS; v++) sums[r][v] = load(into + r * PANEL + v * LANES);
    }
    for (int64_t k = 0; k < n; k++) {
        lanes right[FLOAT_VECTORS];
        UNROLL for (int v = 0; v < FLOAT_VECTORS; v++) right[v] = load(weights + v * column + k * LANES);
        UNROLL for (int r = 0; r < rows; r++) {
            const lanes left = all_of(x[r * stride + k]);
            UNROLL for (int v = 0; v < FLOAT_VECTORS; v++) sums[r][v] = times_add(left, right[v], sums[r][v]);
        }
    }
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int v = 0; v < FLOAT_VECTORS; v++) store(into + r * PANEL + v * LANES, sums[r][v]);
    }
}

/* Of as many rows as fit at once -> how many those were. */
APART int64_t sum_column_of(int64_t rows, const float *x, int64_t stride, const float *weights, int64_t column, int64_t n, float *into) {
    if (rows >= FLOAT_ROWS) {
        sum_column(FLOAT_ROWS, x, stride, weights, column, n, into);
        return FLOAT_ROWS;
    }
    if (rows >= 4) {
        sum_column(4, x, stride, weights, column, n, into);
        return 4;
    }
    if (rows >= 2) {
        sum_column(2, x, stride, weights, column, n, into);
        return 2;
    }
    sum_column(1, x, stride, weights, column, n, into);
    return 1;
}

/* Sums [rows, PANEL] of a block of rows of n floats; a panel is [4, n, 16]. */
static void sum_float_block(int64_t rows, const float *x, int64_t stride, const float *panel, int64_t n, float *into) {
    memset(into, 0, rows * PANEL * sizeof *into);
    for (int64_t k = 0; k < n; k += FLOATS_CUT)
        for (int64_t output = 0; output < PANEL; output += FLOAT_VECTORS * LANES)
            for (int64_t row = 0; row < rows;)
                row += sum_column_of(rows - row, x + row * stride + k, stride, panel + output * n + k * LANES, n * LANES,
                                     least(FLOATS_CUT, n - k), into + row * PANEL + output);
}

#endif

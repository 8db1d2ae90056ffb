/* Products of bytes: six tokens by a panel of 64 outputs at a time, their 24 vectors of sums in registers from the first input to the last;
 * or tiles (tiles.c).
 *
 * A panel of weights stays in the second cache while all tokens of a unit pass by, and the next one is fetched meanwhile.
 */
#include "kernels.h"
#include "simd.h"

#include <string.h>

#define TILE 6 /* tokens whose sums are in registers together */
#define VECTORS (PANEL / LANES)
#define LINE 64 /* bytes of a line of a cache */

/* Sums [rows, PANEL] of products of codes, `quads` times four; and `lines` lines are fetched at `ahead` for every four inputs. */
INLINE void sum_products(const int rows, const uint8_t *codes, int64_t stride, const int8_t *panel, int64_t quads, const int8_t *ahead,
                         int64_t lines, int32_t *into) {
    __m512i sums[TILE][VECTORS];
    const uint8_t *row[TILE];
    UNROLL for (int r = 0; r < rows; r++) {
        row[r] = codes + r * stride;
        UNROLL for (int v = 0; v < VECTORS; v++) sums[r][v] = _mm512_setzero_si512();
    }
    for (int64_t k = 0; k < quads; k++, panel += PANEL * QUAD) {
        __m512i weights[VECTORS];
        UNROLL for (int v = 0; v < VECTORS; v++) weights[v] = _mm512_loadu_si512(panel + v * LINE);
        for (int64_t line = 0; line < lines; line++, ahead += LINE)
            _mm_prefetch((const char *)ahead, _MM_HINT_T1);
        UNROLL for (int r = 0; r < rows; r++) {
            int32_t four;
            memcpy(&four, row[r] + k * QUAD, QUAD);
            const __m512i inputs = _mm512_set1_epi32(four);
            UNROLL for (int v = 0; v < VECTORS; v++) sums[r][v] = _mm512_dpbusd_epi32(sums[r][v], inputs, weights[v]);
        }
    }
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int v = 0; v < VECTORS; v++) _mm512_storeu_si512(into + r * PANEL + v * LANES, sums[r][v]);
    }
}

/* The same for a number of rows that is known only here. Not inline: its loops need all registers. */
AVX512 static __attribute__((noinline)) void sum_rows(int64_t rows, const uint8_t *codes, int64_t stride, const int8_t *panel,
                                                      int64_t quads, const int8_t *ahead, int64_t lines, int32_t *into) {
    switch (rows) {
    case 1: sum_products(1, codes, stride, panel, quads, ahead, lines, into); break;
    case 2: sum_products(2, codes, stride, panel, quads, ahead, lines, into); break;
    case 3: sum_products(3, codes, stride, panel, quads, ahead, lines, into); break;
    case 4: sum_products(4, codes, stride, panel, quads, ahead, lines, into); break;
    case 5: sum_products(5, codes, stride, panel, quads, ahead, lines, into); break;
    default: sum_products(TILE, codes, stride, panel, quads, ahead, lines, into);
    }
}

/* One token's sums of a panel to floats: scales, bias, lowest value, the task's term, and GELU where asked for. */
INLINE void finish_row(const struct linear *linear, const struct codes *in, int64_t row, int64_t output, const int32_t *sums,
                       const bool gelu, float *y) {
    const int32_t task = in->tasks[row];
    const struct term *term = task >= 0 && task < linear->tasks ? linear->terms + task : NULL;
    const __m512 scale = _mm512_set1_ps(in->scale[row]), low = _mm512_set1_ps(in->low[row]);
    __m512 part[VECTORS];
    UNROLL for (int v = 0; v < VECTORS; v++) {
        const int64_t o = output + v * LANES;
        part[v] = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_loadu_si512(sums + v * LANES)), _mm512_loadu_ps(linear->scale + o));
        part[v] = _mm512_fmadd_ps(part[v], scale, _mm512_loadu_ps(linear->bias + o));
        part[v] = _mm512_fmadd_ps(low, _mm512_loadu_ps(linear->sums + o), part[v]);
    }
    const int64_t width = rounded(linear->outputs, PANEL);
    for (int64_t r = 0; term && r < term->rank; r++) {
        const __m512 factor = _mm512_set1_ps(in->factors[row * in->rank + r]);
        const float *up = term->up + r * width + output;
        UNROLL for (int v = 0; v < VECTORS; v++) part[v] = _mm512_fmadd_ps(factor, _mm512_loadu_ps(up + v * LANES), part[v]);
    }
    UNROLL for (int v = 0; v < VECTORS; v++)
        _mm512_mask_storeu_ps(y + v * LANES, lanes_before(linear->outputs, output + v * LANES), gelu ? gelu_16(part[v]) : part[v]);
}

AVX512 static void finish(const struct linear *linear, const struct codes *in, int64_t first, int64_t rows, int64_t panel,
                          const int32_t *sums, const struct products *into) {
    float *y = into->y + panel * into->panel_stride + first * into->row_stride;
    for (int64_t r = 0; r < rows; r++, sums += PANEL, y += into->row_stride) {
        if (into->gelu)
            finish_row(linear, in, first + r, panel * PANEL, sums, true, y);
        else
            finish_row(linear, in, first + r, panel * PANEL, sums, false, y);
    }
}

int64_t product_units(const struct linear *linear, int64_t tokens) {
    return parts(tokens, ROWS_TOGETHER) * parts(linear->outputs, PANEL);
}

AVX512 void multiply(const struct linear *linear, const struct codes *in, int64_t tokens, int64_t unit, const struct products *into) {
    const int64_t panels = parts(linear->outputs, PANEL), quads = linear->inputs / QUAD, size = quads * QUAD * PANEL;
    const int64_t at = unit % panels, start = unit / panels * ROWS_TOGETHER, stop = least(tokens, start + ROWS_TOGETHER);
    const int8_t *panel = linear->weight + at * size, *next = at + 1 < panels ? panel + size : linear->weight;
    const bool tiled = tiles_in_use() && linear->inputs % TILE_INPUTS == 0;
    const int64_t together = tiled ? TILED_ROWS : TILE;
    /* The first `fetching` tiles share the next panel's lines, of which there are VECTORS for every four inputs. */
    const int64_t tiles = parts(stop - start, TILE), fetching = tiles < 2 ? 1 : tiles < VECTORS ? 2 : VECTORS;
    int32_t sums[TILED_ROWS * PANEL];
    for (int64_t row = start, tile = 0; row < stop; row += together, tile++) {
        const int64_t rows = least(together, stop - row), lines = tile < fetching ? VECTORS / fetching : 0;
        const uint8_t *codes = in->codes + row * in->stride;
        if (tiled)
            sum_tiles(rows, codes, in->stride, panel, linear->inputs, sums);
        else
            sum_rows(rows, codes, in->stride, panel, quads, next + tile * lines * quads * LINE, lines, sums);
        finish(linear, in, row, rows, at, sums, into);
    }
}

/* The end of a product: sums of one token and one panel to floats, and on to where they go. */
#include "kernels.h"
#include "simd.h"

#define VECTORS (PANEL / LANES)

/* x W^T + b of the sums, without the task's term. */
INLINE void scale_sums(const struct linear *linear, const struct codes *in, int64_t row, int64_t output, const void *sums, __m512 *part) {
    if (linear->form) {
        UNROLL for (int v = 0; v < VECTORS; v++)
            part[v] = _mm512_add_ps(_mm512_loadu_ps((const float *)sums + v * LANES), _mm512_loadu_ps(linear->bias + output + v * LANES));
        return;
    }
    const __m512 scale = _mm512_set1_ps(in->scale[row]), low = _mm512_set1_ps(in->low[row]);
    UNROLL for (int v = 0; v < VECTORS; v++) {
        const int64_t o = output + v * LANES;
        const __m512 sum = _mm512_cvtepi32_ps(_mm512_loadu_si512((const int32_t *)sums + v * LANES));
        part[v] = _mm512_fmadd_ps(_mm512_mul_ps(sum, _mm512_loadu_ps(linear->scale + o)), scale, _mm512_loadu_ps(linear->bias + o));
        part[v] = _mm512_fmadd_ps(low, _mm512_loadu_ps(linear->sums + o), part[v]);
    }
}

INLINE void add_term(const struct linear *linear, const struct codes *in, int64_t row, int64_t output, __m512 *part) {
    const int32_t task = in->tasks[row];
    const int64_t width = rounded(linear->outputs, PANEL), rank = task >= 0 && task < linear->tasks ? linear->terms[task].rank : 0;
    for (int64_t r = 0; r < rank; r++) {
        const __m512 factor = _mm512_set1_ps(in->factors[row * in->rank + r]);
        const float *up = linear->terms[task].up + r * width + output;
        UNROLL for (int v = 0; v < VECTORS; v++) part[v] = _mm512_fmadd_ps(factor, _mm512_loadu_ps(up + v * LANES), part[v]);
    }
}

/* To the codes of the linear that comes next, which is of the same form; what lies past the last output is zero there. */
static void put_codes(const struct linear *linear, const struct codes *codes, int64_t row, int64_t output, const float *floats) {
    const int64_t low = rounded(linear->outputs * 2, LINE), here = least(PANEL, rounded(linear->outputs, LINE / 2) - output);
    uint8_t *into = codes->codes + row * codes->stride + output * 2;
    split(floats, here, into, parts_of(linear) == TWO_PARTS ? into + low : NULL);
}

AVX512 void finish_row(const struct linear *linear, const struct codes *in, int64_t row, int64_t panel, const void *sums,
                       const struct products *into) {
    const int64_t output = panel * PANEL;
    __m512 part[VECTORS];
    scale_sums(linear, in, row, output, sums, part);
    add_term(linear, in, row, output, part);
    if (into->gelu) {
        UNROLL for (int v = 0; v < VECTORS; v++) part[v] = gelu_16(part[v]);
    }
    if (!into->y) {
        float floats[PANEL];
        UNROLL for (int v = 0; v < VECTORS; v++) _mm512_storeu_ps(floats + v * LANES, part[v]);
        put_codes(linear, into->codes, row, output, floats);
        return;
    }
    float *y = into->y + panel * into->panel_stride + row * into->row_stride;
    UNROLL for (int v = 0; v < VECTORS; v++)
        _mm512_mask_storeu_ps(y + v * LANES, lanes_before(linear->outputs, output + v * LANES), part[v]);
}

/* The end of a product: sums of one token and one panel to floats, and on to where they go. */
#ifndef FIVEFOLD_FINISH_H
#define FIVEFOLD_FINISH_H

#include "kernels.h"
#include "rows.h"

#define VECTORS (PANEL / LANES)

/* x W^T + b of the sums, without the task's term. */
INLINE void scale_sums(const struct linear *linear, const struct codes *in, int64_t row, int64_t output, const void *sums, lanes *part) {
    if (linear->form) {
        UNROLL for (int v = 0; v < VECTORS; v++)
            part[v] = add(load((const float *)sums + v * LANES), load(linear->bias + output + v * LANES));
        return;
    }
    const lanes scale = all_of(in->scale[row]), low = all_of(in->low[row]);
    UNROLL for (int v = 0; v < VECTORS; v++) {
        const int64_t o = output + v * LANES;
        const lanes sum = from_ints((const int32_t *)sums + v * LANES);
        part[v] = times_add(times(sum, load(linear->scale + o)), scale, load(linear->bias + o));
        part[v] = times_add(low, load(linear->sums + o), part[v]);
    }
}

INLINE void add_term(const struct linear *linear, const struct codes *in, int64_t row, int64_t output, lanes *part) {
    const int32_t task = in->tasks[row];
    const int64_t width = rounded(linear->outputs, PANEL), rank = task >= 0 && task < linear->tasks ? linear->terms[task].rank : 0;
    for (int64_t r = 0; r < rank; r++) {
        const lanes factor = all_of(in->factors[row * in->rank + r]);
        const float *up = linear->terms[task].up + r * width + output;
        UNROLL for (int v = 0; v < VECTORS; v++) part[v] = times_add(factor, load(up + v * LANES), part[v]);
    }
}

/* To the codes of the linear that comes next, which is of the same form; what lies past the last output is zero there. */
TARGET static void put_codes(const struct linear *linear, const struct codes *codes, int64_t row, int64_t output, const float *floats) {
    if (linear->form == WHOLE) {
        memcpy((float *)(codes->codes + row * codes->stride) + output, floats, least(PANEL, linear->outputs - output) * sizeof *floats);
        return;
    }
#if WIDE
    const int64_t low = rounded(linear->outputs * 2, LINE), here = least(PANEL, rounded(linear->outputs, LINE / 2) - output);
    uint8_t *into = codes->codes + row * codes->stride + output * 2;
    split(floats, here, into, parts_of(linear) == TWO_PARTS ? into + low : NULL);
#endif
}

TARGET static void finish_row(const struct linear *linear, const struct codes *in, int64_t row, int64_t panel, const void *sums,
                              const struct products *into) {
    const int64_t output = panel * PANEL;
    lanes part[VECTORS];
    scale_sums(linear, in, row, output, sums, part);
    add_term(linear, in, row, output, part);
    if (into->gelu) {
        UNROLL for (int v = 0; v < VECTORS; v++) part[v] = gelu_of(part[v]);
    }
    if (!into->y) {
        float floats[PANEL];
        UNROLL for (int v = 0; v < VECTORS; v++) store(floats + v * LANES, part[v]);
        put_codes(linear, into->codes, row, output, floats);
        return;
    }
    float *y = into->y + panel * into->panel_stride + row * into->row_stride;
    UNROLL for (int v = 0; v < VECTORS; v++)
        store_before(y + v * LANES, linear->outputs, output + v * LANES, part[v]);
}

#undef VECTORS
#endif

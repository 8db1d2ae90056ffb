/* Attention within one text by vectors, one head at a time. Keys are rotated and turned once so that 64 of them lie side by side. Both
 * products are then the same: six rows by as many vectors of sums as registers hold.
 */
#ifndef FIVEFOLD_ATTEND_H
#define FIVEFOLD_ATTEND_H

#include "attention.h"

#if WIDE
#define MOST_VECTORS 4 /* of sums, for each of six rows */
#else
#define MOST_VECTORS 1
#endif
#define VECTORS (PANEL / LANES)

/* Scratch of one head of one text; Lp is L rounded up to a multiple of PANEL. */
struct desk {
    float *keys;    /* [Lp / PANEL, H, PANEL]; the last panel is as narrow as whole vectors allow */
    float *queries; /* [QUERIES, H] rotated, with the scale of the scores and of the powers of 2 */
    float *mixed;   /* [QUERIES, H] sums over the keys so far */
    float *scores;  /* [TILE, KEYS] */
    float *highest, *total; /* [QUERIES] highest score so far, sum of powers */
};

static struct desk furnish(float *scratch, int64_t length, int64_t head_dim) {
    struct desk desk;
    desk.keys = scratch;
    desk.queries = desk.keys + rounded(length, PANEL) * head_dim;
    desk.mixed = desk.queries + QUERIES * head_dim;
    desk.scores = desk.mixed + QUERIES * head_dim;
    desk.highest = desk.scores + TILE * KEYS;
    desk.total = desk.highest + QUERIES;
    return desk;
}

/* Vectors of the panel that begins with this key. */
INLINE int64_t panel_vectors(int64_t length, int64_t key) { return least(VECTORS, parts(length - key, LANES)); }

/* One text's keys with their rotation, into the desk; keys past the end are zero. */
INLINE void lay_keys(const struct pack *pack, const float *keys, int64_t length, int64_t head_dim, struct desk *desk) {
    float rows[LANES * MOST_HEAD_DIM];
    for (int64_t key = 0; key < length; key += LANES) {
        const int64_t panel = key / PANEL * PANEL, width = panel_vectors(length, panel) * LANES;
        rotate_rows(pack, keys, key, LANES, length, head_dim, 1.0f, rows);
        for (int64_t j = 0; j < head_dim; j += LANES)
            transpose(rows + j, head_dim, desk->keys + panel * head_dim + j * width + (key - panel), width);
    }
}

/* c [rows, vectors] = a [rows, n] b [n, vectors], added to what is there where asked for. */
INLINE void sum_floats(const int rows, const int vectors, const float *a, int64_t a_stride, const float *b, int64_t b_stride, int64_t n,
                       bool more, float *c, int64_t c_stride) {
    lanes sums[TILE][MOST_VECTORS];
    const float *row[TILE];
    UNROLL for (int r = 0; r < rows; r++) {
        row[r] = a + r * a_stride;
        UNROLL for (int v = 0; v < vectors; v++)
            sums[r][v] = more ? load(c + r * c_stride + v * LANES) : none();
    }
    for (int64_t k = 0; k < n; k++, b += b_stride) {
        lanes right[MOST_VECTORS];
        UNROLL for (int v = 0; v < vectors; v++) right[v] = load(b + v * LANES);
        UNROLL for (int r = 0; r < rows; r++) {
            const lanes left = all_of(row[r][k]);
            UNROLL for (int v = 0; v < vectors; v++) sums[r][v] = times_add(left, right[v], sums[r][v]);
        }
    }
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int v = 0; v < vectors; v++) store(c + r * c_stride + v * LANES, sums[r][v]);
    }
}

/* The same for a number of rows that is known only here. */
INLINE void sum_rows(int64_t rows, const int vectors, const float *a, int64_t a_stride, const float *b, int64_t b_stride, int64_t n,
                     bool more, float *c, int64_t c_stride) {
    switch (rows) {
    case 1: sum_floats(1, vectors, a, a_stride, b, b_stride, n, more, c, c_stride); break;
    case 2: sum_floats(2, vectors, a, a_stride, b, b_stride, n, more, c, c_stride); break;
    case 3: sum_floats(3, vectors, a, a_stride, b, b_stride, n, more, c, c_stride); break;
    case 4: sum_floats(4, vectors, a, a_stride, b, b_stride, n, more, c, c_stride); break;
    case 5: sum_floats(5, vectors, a, a_stride, b, b_stride, n, more, c, c_stride); break;
    default: sum_floats(TILE, vectors, a, a_stride, b, b_stride, n, more, c, c_stride);
    }
}

/* And for a number of vectors. */
#if WIDE
APART void sum_tile(int64_t rows, int64_t vectors, const float *a, int64_t a_stride, const float *b, int64_t b_stride, int64_t n, bool more,
                    float *c, int64_t c_stride) {
    switch (vectors) {
    case 1: sum_rows(rows, 1, a, a_stride, b, b_stride, n, more, c, c_stride); break;
    case 2: sum_rows(rows, 2, a, a_stride, b, b_stride, n, more, c, c_stride); break;
    case 3: sum_rows(rows, 3, a, a_stride, b, b_stride, n, more, c, c_stride); break;
    default: sum_rows(rows, MOST_VECTORS, a, a_stride, b, b_stride, n, more, c, c_stride);
    }
}
#else
APART void sum_tile(int64_t rows, int64_t vectors, const float *a, int64_t a_stride, const float *b, int64_t b_stride, int64_t n, bool more,
                    float *c, int64_t c_stride) {
    for (; vectors > 0; vectors--, b += LANES, c += LANES)
        sum_rows(rows, MOST_VECTORS, a, a_stride, b, b_stride, n, more, c, c_stride);
}
#endif

/* Some queries, from `first` of the desk on, with the keys and values from `start` to `stop`. */
INLINE void mix(struct desk *desk, const float *values, int64_t first, int64_t rows, int64_t start, int64_t stop, int64_t head_dim) {
    float *mixed = desk->mixed + first * head_dim;
    for (int64_t panel = start; panel < stop; panel += PANEL) {
        const int64_t vectors = panel_vectors(stop, panel);
        sum_tile(rows, vectors, desk->queries + first * head_dim, head_dim, desk->keys + panel * head_dim, vectors * LANES, head_dim, false,
                 desk->scores + panel - start, KEYS);
    }
    for (int64_t r = 0; r < rows; r++)
        soften(desk->scores + r * KEYS, stop - start, desk->highest + first + r, desk->total + first + r, mixed + r * head_dim, head_dim);
    sum_tile(rows, head_dim / LANES, desk->scores, KEYS, values + start * PANEL, PANEL, stop - start, true, mixed, head_dim);
}

TARGET static void attend_by_vectors(const struct pack *pack, const struct head *head, float *scratch) {
    const int64_t length = head->length, head_dim = head->head_dim;
    struct desk desk = furnish(scratch, length, head_dim);
    lay_keys(pack, head->keys, length, head_dim, &desk);
    for (int64_t first = 0; first < length; first += QUERIES) {
        const int64_t rows = least(QUERIES, length - first);
        rotate_rows(pack, head->queries, first, rows, length, head_dim, query_scale(head_dim), desk.queries);
        begin(rows, head_dim, desk.mixed, desk.highest, desk.total);
        for (int64_t key = 0; key < length; key += KEYS)
            for (int64_t r = 0; r < rows; r += TILE)
                mix(&desk, head->values, r, least(TILE, rows - r), key, least(length, key + KEYS), head_dim);
        hand_over(desk.mixed, desk.total, rows, head_dim, head->mixed + first * head->stride, head->stride);
    }
}

#undef VECTORS
#endif

/* Attention within one text, one head at a time: exact softmax, by blocks of keys with a running maximum, so that memory grows with the
 * length and not with its square.
 *
 * Keys are rotated and turned once so that 64 of them lie side by side. Both products are then the same: six rows by up to four vectors
 * of sums in registers. Where there is AMX they are sums of tiles (attention_tiles.c).
 */
#include "attention.h"

#define TILE 6      /* queries whose sums are in registers together */
#define VECTORS 4   /* vectors of sums of each */
#define QUERIES 48  /* queries that pass over a block of keys before the next block comes */
#define KEYS 256    /* keys of a block: with their values they fit the second cache */

/* Scratch of one head of one text; Lp is L rounded up to a multiple of PANEL. */
struct desk {
    float *keys;    /* [Lp / PANEL, H, PANEL]; the last panel is as narrow as whole vectors allow */
    float *queries; /* [QUERIES, H] rotated, with the scale of the scores and of the powers of 2 */
    float *mixed;   /* [QUERIES, H] sums over the keys so far */
    float *scores;  /* [TILE, KEYS] */
    float *highest, *total; /* [QUERIES] highest score so far, sum of powers */
};

static bool tiled(const struct encoder *encoder) { return encoder->layers->qkv->form || tiles_in_use(); }

int64_t attention_scratch(const struct encoder *encoder, int64_t length) {
    const int64_t head_dim = encoder->hidden / encoder->heads;
    if (tiled(encoder))
        return scratch_of_tiles(length, head_dim, parts_of(encoder->layers->qkv));
    return (rounded(length, PANEL) + 2 * QUERIES) * head_dim + TILE * KEYS + 2 * QUERIES;
}

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
                       bool add, float *c, int64_t c_stride) {
    __m512 sums[TILE][VECTORS];
    const float *row[TILE];
    UNROLL for (int r = 0; r < rows; r++) {
        row[r] = a + r * a_stride;
        UNROLL for (int v = 0; v < vectors; v++)
            sums[r][v] = add ? _mm512_loadu_ps(c + r * c_stride + v * LANES) : _mm512_setzero_ps();
    }
    for (int64_t k = 0; k < n; k++, b += b_stride) {
        __m512 right[VECTORS];
        UNROLL for (int v = 0; v < vectors; v++) right[v] = _mm512_loadu_ps(b + v * LANES);
        UNROLL for (int r = 0; r < rows; r++) {
            const __m512 left = _mm512_set1_ps(row[r][k]);
            UNROLL for (int v = 0; v < vectors; v++) sums[r][v] = _mm512_fmadd_ps(left, right[v], sums[r][v]);
        }
    }
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int v = 0; v < vectors; v++) _mm512_storeu_ps(c + r * c_stride + v * LANES, sums[r][v]);
    }
}

/* The same for a number of rows that is known only here. */
INLINE void sum_rows(int64_t rows, const int vectors, const float *a, int64_t a_stride, const float *b, int64_t b_stride, int64_t n,
                     bool add, float *c, int64_t c_stride) {
    switch (rows) {
    case 1: sum_floats(1, vectors, a, a_stride, b, b_stride, n, add, c, c_stride); break;
    case 2: sum_floats(2, vectors, a, a_stride, b, b_stride, n, add, c, c_stride); break;
    case 3: sum_floats(3, vectors, a, a_stride, b, b_stride, n, add, c, c_stride); break;
    case 4: sum_floats(4, vectors, a, a_stride, b, b_stride, n, add, c, c_stride); break;
    case 5: sum_floats(5, vectors, a, a_stride, b, b_stride, n, add, c, c_stride); break;
    default: sum_floats(TILE, vectors, a, a_stride, b, b_stride, n, add, c, c_stride);
    }
}

/* And for a number of vectors. Not inline: its loops need all registers. */
AVX512 static __attribute__((noinline)) void sum_tile(int64_t rows, int64_t vectors, const float *a, int64_t a_stride, const float *b,
                                                      int64_t b_stride, int64_t n, bool add, float *c, int64_t c_stride) {
    switch (vectors) {
    case 1: sum_rows(rows, 1, a, a_stride, b, b_stride, n, add, c, c_stride); break;
    case 2: sum_rows(rows, 2, a, a_stride, b, b_stride, n, add, c, c_stride); break;
    case 3: sum_rows(rows, 3, a, a_stride, b, b_stride, n, add, c, c_stride); break;
    default: sum_rows(rows, VECTORS, a, a_stride, b, b_stride, n, add, c, c_stride);
    }
}

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

AVX512 static void attend_by_vectors(const struct pack *pack, const struct head *head, float *scratch) {
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

void attend(const struct encoder *encoder, const struct pack *pack, int64_t text, int64_t head, const float *qkv, float *scratch,
            float *mixed) {
    const int64_t start = pack->starts[text], hidden = encoder->hidden, head_dim = hidden / encoder->heads;
    const float *part[3];
    for (int i = 0; i < 3; i++) {
        const int64_t column = i * hidden + head * head_dim;
        part[i] = qkv + (column / PANEL * pack->tokens + start) * PANEL + column % PANEL;
    }
    const struct head one = {.queries = part[0],
                             .keys = part[1],
                             .values = part[2],
                             .length = pack->starts[text + 1] - start,
                             .head_dim = head_dim,
                             .mixed = mixed + start * hidden + head * head_dim,
                             .stride = hidden};
    if (tiled(encoder))
        attend_by_tiles(pack, &one, parts_of(encoder->layers->qkv), scratch);
    else
        attend_by_vectors(pack, &one, scratch);
}

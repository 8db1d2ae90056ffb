/* Attention within one text, one head at a time: exact softmax, by blocks of keys with a running maximum, so that memory grows with the
 * length and not with its square.
 *
 * Keys are rotated and turned once so that 64 of them lie side by side. Both products are then the same: six rows by up to four vectors
 * of sums in registers. Where there is AMX they are sums of tiles: scores of numbers in two bfloat16 each, which is all but float32, then
 * weights and values in one.
 */
#include "kernels.h"
#include "simd.h"

#include <math.h>
#include <string.h>

#define TILE 6      /* queries whose sums are in registers together */
#define VECTORS 4   /* vectors of sums of each */
#define QUERIES 48  /* queries that pass over a block of keys before the next block comes */
#define KEYS 256    /* keys of a block: with their values they fit the second cache */
#define LOG2_E 1.4426950408889634

/* Scratch of one head of one text; Lp is L rounded up to a multiple of PANEL. */
struct desk {
    float *keys;    /* [Lp / PANEL, H, PANEL]; the last panel is as narrow as whole vectors allow */
    float *queries; /* [QUERIES, H] rotated, with the scale of the scores and of the powers of 2 */
    float *mixed;   /* [QUERIES, H] sums over the keys so far */
    float *scores;  /* [TILE, KEYS] */
    float *highest, *total; /* [QUERIES] highest score so far, sum of powers */
};

static int64_t scratch_of_tiles(int64_t length, int64_t head_dim);

int64_t attention_scratch(int64_t length, int64_t head_dim) {
    if (tiles_in_use())
        return scratch_of_tiles(length, head_dim);
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

/* x [H], of which entries j and j + H / 2 turn together, times `scale`. */
INLINE void rotate(const float *x, const float *cosines, const float *sines, int64_t head_dim, float scale, float *into) {
    const int64_t half = head_dim / 2;
    const __m512 factor = _mm512_set1_ps(scale);
    for (int64_t j = 0; j < half; j += LANES) {
        const __m512 a = _mm512_loadu_ps(x + j), b = _mm512_loadu_ps(x + half + j);
        const __m512 cosine = _mm512_loadu_ps(cosines + j), sine = _mm512_loadu_ps(sines + j);
        const __m512 low = _mm512_fnmadd_ps(b, sine, _mm512_mul_ps(a, cosine));
        const __m512 high = _mm512_fmadd_ps(a, sine, _mm512_mul_ps(b, cosine));
        _mm512_storeu_ps(into + j, _mm512_mul_ps(low, factor));
        _mm512_storeu_ps(into + half + j, _mm512_mul_ps(high, factor));
    }
}

/* x [16, 16] -> its transpose, rows `stride` apart on both sides. */
INLINE void transpose(const float *x, int64_t stride, float *into, int64_t into_stride) {
    __m512 a[LANES], b[LANES];
    _Pragma("GCC unroll 16") for (int i = 0; i < LANES; i++) a[i] = _mm512_loadu_ps(x + i * stride);
    UNROLL for (int i = 0; i < LANES; i += 2) {
        b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
    }
    UNROLL for (int i = 0; i < LANES; i += 4) {
        UNROLL for (int j = 0; j < 2; j++) {
            const __m512d upper = _mm512_castps_pd(b[i + j]), lower = _mm512_castps_pd(b[i + j + 2]);
            a[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(upper, lower));
            a[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(upper, lower));
        }
    }
    UNROLL for (int c = 0; c < 4; c++) { /* a[4 i + c]: columns c, 4 + c, 8 + c, 12 + c of rows 4 i to 4 i + 3 */
        const __m512 even = _mm512_shuffle_f32x4(a[c], a[4 + c], 0x88), even2 = _mm512_shuffle_f32x4(a[8 + c], a[12 + c], 0x88);
        const __m512 odd = _mm512_shuffle_f32x4(a[c], a[4 + c], 0xdd), odd2 = _mm512_shuffle_f32x4(a[8 + c], a[12 + c], 0xdd);
        _mm512_storeu_ps(into + c * into_stride, _mm512_shuffle_f32x4(even, even2, 0x88));
        _mm512_storeu_ps(into + (4 + c) * into_stride, _mm512_shuffle_f32x4(odd, odd2, 0x88));
        _mm512_storeu_ps(into + (8 + c) * into_stride, _mm512_shuffle_f32x4(even, even2, 0xdd));
        _mm512_storeu_ps(into + (12 + c) * into_stride, _mm512_shuffle_f32x4(odd, odd2, 0xdd));
    }
}

/* Vectors of the panel that begins with this key. */
INLINE int64_t panel_vectors(int64_t length, int64_t key) { return least(VECTORS, parts(length - key, LANES)); }

/* Some rows of one text with their rotation, [rows, H]; those past the end are zero. */
INLINE void rotate_rows(const struct pack *pack, const float *x, int64_t first, int64_t rows, int64_t length, int64_t head_dim, float scale,
                        float *into) {
    for (int64_t at = first; at < first + rows; at++, into += head_dim) {
        const int64_t turn = at * head_dim / 2;
        if (at < length)
            rotate(x + at * PANEL, pack->cosines + turn, pack->sines + turn, head_dim, scale, into);
        else
            memset(into, 0, head_dim * sizeof *into);
    }
}

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

/* Scores [keys] of one query to powers of 2 above its highest score so far; sums of earlier keys are brought to the same. */
INLINE void soften(float *scores, int64_t keys, float *highest, float *total, float *mixed, int64_t head_dim) {
    const int64_t last = (keys - 1) / LANES * LANES;
    const __m512 never = _mm512_set1_ps(-INFINITY);
    _mm512_storeu_ps(scores + last, _mm512_mask_loadu_ps(never, lanes_before(keys, last), scores + last));
    const __m512 before = _mm512_set1_ps(*highest);
    __m512 top = before, sum = _mm512_setzero_ps();
    for (int64_t k = 0; k <= last; k += LANES)
        top = _mm512_max_ps(top, _mm512_loadu_ps(scores + k));
    top = _mm512_set1_ps(_mm512_reduce_max_ps(top));
    for (int64_t k = 0; k <= last; k += LANES) {
        const __m512 power = exp2_16(_mm512_sub_ps(_mm512_loadu_ps(scores + k), top));
        _mm512_storeu_ps(scores + k, power);
        sum = _mm512_add_ps(sum, power);
    }
    const __m512 shrunk = exp2_16(_mm512_sub_ps(before, top));
    *highest = _mm512_cvtss_f32(top);
    *total = *total * _mm512_cvtss_f32(shrunk) + _mm512_reduce_add_ps(sum);
    for (int64_t j = 0; j < head_dim; j += LANES)
        _mm512_storeu_ps(mixed + j, _mm512_mul_ps(_mm512_loadu_ps(mixed + j), shrunk));
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

/* What queries are multiplied with: the scale of scores, and of powers of 2 in the place of e. */
INLINE float query_scale(int64_t head_dim) { return (float)(LOG2_E / sqrt((double)head_dim)); }

/* Nothing mixed yet for some queries. */
INLINE void begin(int64_t rows, int64_t head_dim, float *mixed, float *highest, float *total) {
    for (int64_t i = 0; i < rows; i++) {
        highest[i] = -INFINITY;
        total[i] = 0;
    }
    memset(mixed, 0, rows * head_dim * sizeof *mixed);
}

/* Sums over all keys to means, written a row of the model's apart. */
INLINE void hand_over(const float *mixed, const float *total, int64_t rows, int64_t head_dim, float *into, int64_t stride) {
    for (int64_t i = 0; i < rows; i++, into += stride, mixed += head_dim) {
        const __m512 share = _mm512_set1_ps(1.0f / total[i]);
        for (int64_t j = 0; j < head_dim; j += LANES)
            _mm512_storeu_ps(into + j, _mm512_mul_ps(_mm512_loadu_ps(mixed + j), share));
    }
}

/* Queries, keys and values of one head of one text, [L, H] each, rows PANEL apart; and where the result goes. */
struct head {
    const float *queries, *keys, *values;
    int64_t length, head_dim;
    float *mixed;
    int64_t stride;
};

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

/* ---- by tiles ---- */

#define TILED_KEYS 128 /* keys of a block: scores of all its queries stay in the first cache */

/* Scratch of one head of one text; Lp is L rounded up to a multiple of TILED_ROWS. Words are two bfloat16. */
struct tiled_desk {
    uint32_t *keys;       /* [Lp / 16, 2, H / 32, 16, 16] high and low parts, a row for two dimensions, a word for each key */
    uint32_t *values;     /* [Lp / 2, H] a row for two keys, a word for each dimension */
    uint32_t *high, *low; /* [TILED_ROWS, H / 2] both: queries */
    uint32_t *weights;    /* [TILED_ROWS, TILED_KEYS / 2] */
    float *mixed, *scores; /* [TILED_ROWS, H], [TILED_ROWS, TILED_KEYS] */
    float *highest, *total; /* [TILED_ROWS] */
};

static int64_t scratch_of_tiles(int64_t length, int64_t head_dim) {
    const int64_t padded = rounded(length, TILED_ROWS);
    return padded * head_dim + padded / 2 * head_dim + 2 * TILED_ROWS * head_dim + TILED_ROWS * (TILED_KEYS / 2 + TILED_KEYS + 2);
}

static struct tiled_desk furnish_tiles(float *scratch, int64_t length, int64_t head_dim) {
    const int64_t padded = rounded(length, TILED_ROWS);
    struct tiled_desk desk;
    desk.keys = (uint32_t *)scratch;
    desk.values = desk.keys + padded * head_dim;
    desk.high = desk.values + padded / 2 * head_dim;
    desk.low = desk.high + TILED_ROWS * head_dim / 2;
    desk.weights = desk.low + TILED_ROWS * head_dim / 2;
    desk.mixed = (float *)(desk.weights + TILED_ROWS * TILED_KEYS / 2);
    desk.scores = desk.mixed + TILED_ROWS * head_dim;
    desk.highest = desk.scores + TILED_ROWS * TILED_KEYS;
    desk.total = desk.highest + TILED_ROWS;
    return desk;
}

/* Numbers [n] to the bfloat16 next to them, and what is left to the one next to that. */
BFLOAT16 static void split(const float *x, int64_t n, uint32_t *high, uint32_t *low) {
    for (int64_t i = 0; i < n; i += LANES) {
        const __m512 part = _mm512_loadu_ps(x + i);
        const __m256i near = (__m256i)_mm512_cvtneps_pbh(part);
        const __m512 wide = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(near), 16));
        _mm256_storeu_si256((__m256i *)(high + i / 2), near);
        _mm256_storeu_si256((__m256i *)(low + i / 2), (__m256i)_mm512_cvtneps_pbh(_mm512_sub_ps(part, wide)));
    }
}

AVX512 static void lay_key_tiles(const struct pack *pack, const struct head *head, struct tiled_desk *desk) {
    const int64_t head_dim = head->head_dim, half = TILE_SIDE * head_dim / 2;
    float rows[TILE_SIDE * MOST_HEAD_DIM];
    uint32_t parts[TILE_SIDE * MOST_HEAD_DIM];
    for (int64_t key = 0; key < rounded(head->length, TILED_ROWS); key += TILE_SIDE) {
        rotate_rows(pack, head->keys, key, TILE_SIDE, head->length, head_dim, 1.0f, rows);
        split(rows, TILE_SIDE * head_dim, parts, parts + half);
        for (int64_t part = 0; part < 2; part++)
            for (int64_t j = 0; j < head_dim / 2; j += LANES)
                transpose((const float *)(parts + part * half + j), head_dim / 2,
                          (float *)(desk->keys + key * head_dim + part * half + j * TILE_SIDE), TILE_SIDE);
    }
}

/* Values of two keys in one word; those past the end are zero. */
BFLOAT16 static void lay_value_tiles(const struct head *head, struct tiled_desk *desk) {
    uint32_t *into = desk->values;
    for (int64_t key = 0; key < rounded(head->length, TILED_ROWS); key += 2, into += head->head_dim)
        for (int64_t j = 0; j < head->head_dim; j += LANES) {
            const float *one = head->values + key * PANEL + j;
            const __m512 first = key < head->length ? _mm512_loadu_ps(one) : _mm512_setzero_ps();
            const __m512 second = key + 1 < head->length ? _mm512_loadu_ps(one + PANEL) : _mm512_setzero_ps();
            const __m512i right = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(second));
            const __m512i left = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(first));
            _mm512_storeu_si512(into + j, _mm512_or_si512(left, _mm512_slli_epi32(right, 16)));
        }
}

/* Powers of 2 [keys] to bfloat16; those past the end are zero. */
BFLOAT16 static void round_weights(const float *powers, int64_t keys, uint32_t *weights) {
    for (int64_t k = 0; k < rounded(keys, TILED_ROWS); k += LANES) {
        const __m512 part = _mm512_maskz_loadu_ps(lanes_before(keys, k), powers + k);
        _mm256_storeu_si256((__m256i *)(weights + k / 2), (__m256i)_mm512_cvtneps_pbh(part));
    }
}

/* All queries of the desk with the keys and values from `start` to `stop`. */
AVX512 static void mix_by_tiles(struct tiled_desk *desk, int64_t rows, int64_t start, int64_t stop, int64_t head_dim) {
    const int64_t keys = stop - start;
    for (int64_t k = 0; k < keys; k += TILED_ROWS)
        score_tiles(desk->high, desk->low, desk->keys + (start + k) * head_dim, head_dim, desk->scores + k, TILED_KEYS);
    for (int64_t r = 0; r < rows; r++) {
        float *scores = desk->scores + r * TILED_KEYS;
        soften(scores, keys, desk->highest + r, desk->total + r, desk->mixed + r * head_dim, head_dim);
        round_weights(scores, keys, desk->weights + r * TILED_KEYS / 2);
    }
    mix_tiles(desk->weights, TILED_KEYS / 2, desk->values + start / 2 * head_dim, rounded(keys, TILED_ROWS), head_dim, desk->mixed);
}

AVX512 static void attend_by_tiles(const struct pack *pack, const struct head *head, float *scratch) {
    const int64_t length = head->length, head_dim = head->head_dim;
    float queries[TILED_ROWS * MOST_HEAD_DIM];
    struct tiled_desk desk = furnish_tiles(scratch, length, head_dim);
    lay_key_tiles(pack, head, &desk);
    lay_value_tiles(head, &desk);
    for (int64_t first = 0; first < length; first += TILED_ROWS) {
        const int64_t rows = least(TILED_ROWS, length - first);
        rotate_rows(pack, head->queries, first, TILED_ROWS, length, head_dim, query_scale(head_dim), queries);
        split(queries, TILED_ROWS * head_dim, desk.high, desk.low);
        begin(TILED_ROWS, head_dim, desk.mixed, desk.highest, desk.total);
        for (int64_t key = 0; key < length; key += TILED_KEYS)
            mix_by_tiles(&desk, rows, key, least(length, key + TILED_KEYS), head_dim);
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
    if (tiles_in_use())
        attend_by_tiles(pack, &one, scratch);
    else
        attend_by_vectors(pack, &one, scratch);
}

/* Attention in bfloat16, some queries of one head at a time, by tiles or by vectors. Numbers are of one bfloat16, or by tiles of two: queries,
 * keys, weights and values.
 */
#define WIDE 1
#include "attention.h"

#define TILED_KEYS 128    /* keys of a block: scores of some queries with them stay in the first cache */
#define TILED_QUERIES 128 /* queries that pass over a block of keys before the next block comes, some at a time */
#define WEIGHTS (TILED_ROWS * TILED_KEYS / 2) /* words of a block's weights in one part */

/* Scratch of one head of one text; Lp is L rounded up to a multiple of TILED_ROWS. Words are two bfloat16. */
struct tiled_desk {
    uint32_t *keys;    /* [Lp / 16, parts, H / 32, 16, 16] a row for two dimensions, a word for each key */
    uint32_t *values;  /* [parts, Lp / 2, H] a row for two keys, a word for each dimension */
    uint32_t *queries; /* [TILED_QUERIES / TILED_ROWS, parts, TILED_ROWS, H / 2] */
    uint32_t *weights; /* [parts, TILED_ROWS, TILED_KEYS / 2] */
    float *mixed, *scores;  /* [TILED_QUERIES, H], [TILED_ROWS, TILED_KEYS] */
    float *highest, *total; /* [TILED_QUERIES] */
    int64_t parts, head_dim, part_of_values; /* words of one part of the values */
    bool tiles;
};

int64_t bfloat16_scratch(int64_t length, int64_t head_dim, int64_t parts) {
    const int64_t whole = rounded(length, TILED_ROWS) * head_dim * parts;
    const int64_t queries = TILED_QUERIES * (head_dim / 2 * parts + head_dim + 2);
    return whole + queries + parts * WEIGHTS + TILED_ROWS * TILED_KEYS;
}

static struct tiled_desk furnish_tiles(float *scratch, int64_t length, int64_t head_dim, int64_t parts, bool tiles) {
    const int64_t padded = rounded(length, TILED_ROWS);
    struct tiled_desk desk = {.parts = parts, .head_dim = head_dim, .tiles = tiles, .part_of_values = padded / 2 * head_dim};
    desk.keys = (uint32_t *)scratch;
    desk.values = desk.keys + padded / 2 * head_dim * parts;
    desk.queries = desk.values + parts * desk.part_of_values;
    desk.weights = desk.queries + TILED_QUERIES * head_dim / 2 * parts;
    desk.mixed = (float *)(desk.weights + parts * WEIGHTS);
    desk.scores = desk.mixed + TILED_QUERIES * head_dim;
    desk.highest = desk.scores + TILED_ROWS * TILED_KEYS;
    desk.total = desk.highest + TILED_QUERIES;
    return desk;
}

AVX512 static void lay_key_tiles(const struct pack *pack, const struct head *head, struct tiled_desk *desk) {
    const int64_t head_dim = head->head_dim, half = TILE_SIDE * head_dim / 2;
    float rows[TILE_SIDE * MOST_HEAD_DIM];
    uint32_t parts[TILE_SIDE * MOST_HEAD_DIM], *into = desk->keys;
    for (int64_t key = 0; key < rounded(head->length, TILED_ROWS); key += TILE_SIDE) {
        rotate_rows(pack, head->keys, key, TILE_SIDE, head->length, head_dim, 1.0f, rows);
        split(rows, TILE_SIDE * head_dim, parts, desk->parts == TWO_PARTS ? parts + half : NULL);
        for (int64_t part = 0; part < desk->parts; part++, into += half)
            for (int64_t j = 0; j < head_dim / 2; j += LANES)
                transpose((const float *)(parts + part * half + j), head_dim / 2, (float *)(into + j * TILE_SIDE), TILE_SIDE);
    }
}

/* x = x less the bfloat16 next to it, which is returned. */
BFLOAT16 static inline __attribute__((always_inline)) __m256i peel(__m512 *x) {
    const __m256i near = (__m256i)_mm512_cvtneps_pbh(*x);
    *x = _mm512_sub_ps(*x, _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(near), 16)));
    return near;
}

/* Values of two keys in one word; those past the end are zero. */
BFLOAT16 static void lay_value_tiles(const struct head *head, struct tiled_desk *desk) {
    uint32_t *into = desk->values;
    for (int64_t key = 0; key < rounded(head->length, TILED_ROWS); key += 2, into += head->head_dim)
        for (int64_t j = 0; j < head->head_dim; j += LANES) {
            const float *one = head->values + key * PANEL + j;
            __m512 first = key < head->length ? _mm512_loadu_ps(one) : _mm512_setzero_ps();
            __m512 second = key + 1 < head->length ? _mm512_loadu_ps(one + PANEL) : _mm512_setzero_ps();
            for (int64_t part = 0; part < desk->parts; part++) {
                const __m512i left = _mm512_cvtepu16_epi32(peel(&first)), right = _mm512_cvtepu16_epi32(peel(&second));
                _mm512_storeu_si512(into + part * desk->part_of_values + j, _mm512_or_si512(left, _mm512_slli_epi32(right, 16)));
            }
        }
}

/* Bring what is mixed so far of one query to a new highest score. */
INLINE void shrink(float by, float *total, float *mixed, int64_t head_dim) {
    const __m512 factor = _mm512_set1_ps(by);
    *total *= by;
    for (int64_t j = 0; j < head_dim; j += LANES)
        _mm512_storeu_ps(mixed + j, _mm512_mul_ps(_mm512_loadu_ps(mixed + j), factor));
}

/* Scores [keys] of one query to powers of 2 above its highest score so far, in so many bfloat16; those past the end are zero. */
BFLOAT16 static inline __attribute__((always_inline)) void soften_row(const int64_t parts, const float *scores, int64_t keys,
                                                                      float *highest, float *total, float *mixed, int64_t head_dim,
                                                                      uint32_t *weights) {
    const __m512 never = _mm512_set1_ps(-INFINITY);
    __m512 top = never, sum = _mm512_setzero_ps();
    for (int64_t k = 0; k < keys; k += LANES)
        top = _mm512_max_ps(top, _mm512_mask_loadu_ps(never, lanes_before(keys, k), scores + k));
    const float before = *highest, found = _mm512_reduce_max_ps(top);
    if (!(found <= before)) { /* NaN too */
        *highest = found;
        shrink(_mm512_cvtss_f32(exp2_of(_mm512_set1_ps(before - found))), total, mixed, head_dim);
    }
    top = _mm512_set1_ps(*highest);
    for (int64_t k = 0; k < rounded(keys, TILED_ROWS); k += LANES) {
        __m512 power = _mm512_maskz_mov_ps(lanes_before(keys, k), exp2_of(_mm512_sub_ps(_mm512_loadu_ps(scores + k), top)));
        sum = _mm512_add_ps(sum, power);
        _mm256_storeu_si256((__m256i *)(weights + k / 2), peel(&power));
        if (parts == TWO_PARTS)
            _mm256_storeu_si256((__m256i *)(weights + WEIGHTS + k / 2), peel(&power));
    }
    *total += _mm512_reduce_add_ps(sum);
}

BFLOAT16 static void soften_rows(struct tiled_desk *desk, int64_t first, int64_t rows, int64_t keys) {
    const int64_t head_dim = desk->head_dim;
    for (int64_t r = 0; r < rows; r++) {
        const float *scores = desk->scores + r * TILED_KEYS;
        float *highest = desk->highest + first + r, *total = desk->total + first + r, *mixed = desk->mixed + (first + r) * head_dim;
        uint32_t *weights = desk->weights + r * TILED_KEYS / 2;
        if (desk->parts == TWO_PARTS)
            soften_row(TWO_PARTS, scores, keys, highest, total, mixed, head_dim, weights);
        else
            soften_row(ONE_PART, scores, keys, highest, total, mixed, head_dim, weights);
    }
}

/* Some queries of the desk, from `first` on, with the keys and values from `start` to `stop`. */
static void mix_some(struct tiled_desk *desk, int64_t first, int64_t rows, int64_t start, int64_t stop) {
    const int64_t keys = stop - start, head_dim = desk->head_dim, parts = desk->parts, padded = rounded(keys, TILED_ROWS);
    const uint32_t *queries = desk->queries + first * head_dim / 2 * parts, *weights = desk->weights;
    const uint32_t *values = desk->values + start / 2 * head_dim;
    float *mixed = desk->mixed + first * head_dim;
    if (!desk->tiles) {
        score_pairs(queries, rows, desk->keys + start * head_dim / 2, padded, head_dim, desk->scores, TILED_KEYS);
        soften_rows(desk, first, rows, keys);
        mix_pairs(weights, rows, TILED_KEYS / 2, values, padded, head_dim, mixed);
        return;
    }
    for (int64_t k = 0; k < keys; k += TILED_ROWS)
        score_tiles(parts, queries, desk->keys + (start + k) * head_dim / 2 * parts, head_dim, desk->scores + k, TILED_KEYS);
    soften_rows(desk, first, rows, keys);
    if (parts == TWO_PARTS) {
        mix_tiles(weights + WEIGHTS, TILED_KEYS / 2, values, padded, head_dim, mixed);
        mix_tiles(weights, TILED_KEYS / 2, values + desk->part_of_values, padded, head_dim, mixed);
    }
    mix_tiles(weights, TILED_KEYS / 2, values, padded, head_dim, mixed);
}

/* Queries from `start` on into the desk, whole tiles of them. */
AVX512 static void lay_queries(const struct pack *pack, const struct head *head, struct tiled_desk *desk, int64_t start, int64_t rows) {
    const int64_t head_dim = head->head_dim, half = TILED_ROWS * head_dim / 2;
    float floats[TILED_ROWS * MOST_HEAD_DIM];
    uint32_t *into = desk->queries;
    for (int64_t first = 0; first < rows; first += TILED_ROWS, into += half * desk->parts) {
        rotate_rows(pack, head->queries, start + first, TILED_ROWS, head->length, head_dim, query_scale(head_dim), floats);
        split(floats, TILED_ROWS * head_dim, into, desk->parts == TWO_PARTS ? into + half : NULL);
    }
    begin(rounded(rows, TILED_ROWS), head_dim, desk->mixed, desk->highest, desk->total);
}

AVX512 void attend_in_bfloat16(const struct pack *pack, const struct head *head, int64_t parts, bool tiles, float *scratch) {
    const int64_t length = head->length, head_dim = head->head_dim;
    struct tiled_desk desk = furnish_tiles(scratch, length, head_dim, parts, tiles);
    lay_key_tiles(pack, head, &desk);
    lay_value_tiles(head, &desk);
    for (int64_t start = 0; start < length; start += TILED_QUERIES) {
        const int64_t rows = least(TILED_QUERIES, length - start);
        lay_queries(pack, head, &desk, start, rows);
        for (int64_t key = 0; key < length; key += TILED_KEYS)
            for (int64_t first = 0; first < rows; first += TILED_ROWS)
                mix_some(&desk, first, least(TILED_ROWS, rows - first), key, least(length, key + TILED_KEYS));
        hand_over(desk.mixed, desk.total, rows, head_dim, head->mixed + start * head->stride, head->stride);
    }
}

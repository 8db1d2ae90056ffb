/* What is done token by token: rounding, to 8 bits or to bfloat16, with the task's low-rank factors; and LayerNorm. */
#ifndef FIVEFOLD_ROWS_H
#define FIVEFOLD_ROWS_H

#include "kernels.h"
#include "simd.h"

#define TOGETHER 4 /* rows and ranks whose sums of products are in registers together */
#define AHEAD 1024 /* floats between what is read and what is fetched: most rows come from the last cache */

/* Scale and lowest value of x [n]; a NaN or an infinity anywhere makes the scale NaN. */
INLINE void find_range(const float *x, int64_t n, float *scale, float *low) {
    lanes lowest = all_of(INFINITY), highest = all_of(-INFINITY), poison = none();
    for (int64_t i = 0; i < n; i += LANES) {
        _mm_prefetch((const char *)(x + i + AHEAD), _MM_HINT_T0);
        const lanes part = load(x + i);
        lowest = lower(lowest, part);
        highest = higher(highest, part);
        poison = times_add(part, none(), poison);
    }
    *low = lowest_of(lowest);
    *scale = (highest_of(highest) - *low) / 255.0f + sum_of(poison);
}

/* Sixteen whole numbers from 0 to 255 to codes from the i-th on. */
#if WIDE
INLINE void put_steps(uint8_t *codes, int64_t i, lanes steps) {
    _mm_storeu_si128((__m128i *)(codes + i), _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(steps)));
}
#else
INLINE void put_steps(uint8_t *codes, int64_t i, lanes steps) {
    const __m256i pairs = _mm256_packus_epi32(_mm256_cvtps_epi32(steps.low), _mm256_cvtps_epi32(steps.high)); /* by halves of both */
    const __m256i wide = _mm256_min_epu16(_mm256_permute4x64_epi64(pairs, 0xd8), _mm256_set1_epi16(255));
    _mm256_storeu_si256((__m256i *)((uint16_t *)codes + i), wide);
}
#endif

INLINE void round_to_bytes(const float *x, int64_t n, float scale, float low, uint8_t *codes) {
    const lanes inverse = all_of(scale > 0 ? 1.0f / scale : 0.0f), lowest = all_of(low);
    for (int64_t i = 0; i < n; i += LANES)
        put_steps(codes, i, times(less(load(x + i), lowest), inverse));
}

#if WIDE
BFLOAT16 void split(const float *x, int64_t n, void *high, void *low) {
    for (int64_t i = 0; i < n; i += LANES) {
        const __m512 part = _mm512_loadu_ps(x + i);
        const __m256i near = (__m256i)_mm512_cvtneps_pbh(part);
        _mm256_storeu_si256((__m256i *)((uint16_t *)high + i), near);
        if (!low)
            continue;
        const __m512 wide = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(near), 16));
        _mm256_storeu_si256((__m256i *)((uint16_t *)low + i), (__m256i)_mm512_cvtneps_pbh(_mm512_sub_ps(part, wide)));
    }
}

#endif

/* Rows that are float32, for BYTES and WHOLE, or so many parts of it; bytes from one to the next, and from one part to the other. */
struct source {
    const uint8_t *rows;
    int64_t stride, second;
};

#if WIDE
INLINE lanes widen(const uint8_t *x) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)x)), 16));
}

INLINE lanes read_lanes(const enum form form, const uint8_t *row, int64_t second, int64_t i) {
    if (form == BYTES)
        return load((const float *)row + i);
    return form == ONE_PART ? widen(row + 2 * i) : add(widen(row + 2 * i), widen(row + second + 2 * i));
}
#else
INLINE lanes read_lanes(const enum form form, const uint8_t *row, int64_t second, int64_t i) {
    (void)form, (void)second;
    return load((const float *)row + i);
}
#endif

/* factors [rows, ranks] = x [rows, n] times the transpose of `down` [ranks, n]. */
INLINE void project(const enum form form, const int rows, const int ranks, const struct source *x, int64_t first, const float *down,
                    int64_t n, float *factors, int64_t stride) {
    lanes sums[TOGETHER][TOGETHER];
    UNROLL for (int t = 0; t < rows; t++) {
        UNROLL for (int r = 0; r < ranks; r++) sums[t][r] = none();
    }
    for (int64_t i = 0; i < n; i += LANES) {
        lanes right[TOGETHER];
        UNROLL for (int r = 0; r < ranks; r++) right[r] = load(down + r * n + i);
        UNROLL for (int t = 0; t < rows; t++) {
            const lanes left = read_lanes(form, x->rows + (first + t) * x->stride, x->second, i);
            UNROLL for (int r = 0; r < ranks; r++) sums[t][r] = times_add(left, right[r], sums[t][r]);
        }
    }
    UNROLL for (int t = 0; t < rows; t++) {
        UNROLL for (int r = 0; r < ranks; r++) factors[t * stride + r] = sum_of(sums[t][r]);
    }
}

/* x A^T of so many rows of one task. */
INLINE void project_rows(const enum form form, int64_t rows, const struct term *term, const struct source *x, int64_t n, float *factors,
                         int64_t stride) {
    for (int64_t r = 0, ranks; r < term->rank; r += ranks) {
        ranks = term->rank - r < TOGETHER ? 1 : TOGETHER;
        if (ranks == 1)
            for (int64_t t = 0; t < rows; t++)
                project(form, 1, 1, x, t, term->down + r * n, n, factors + t * stride + r, stride);
        else if (rows == TOGETHER)
            project(form, TOGETHER, TOGETHER, x, 0, term->down + r * n, n, factors + r, stride);
        else
            for (int64_t t = 0; t < rows; t++)
                project(form, 1, TOGETHER, x, t, term->down + r * n, n, factors + t * stride + r, stride);
    }
}

/* The same for rows in any form. */
APART void project_source(enum form form, int64_t rows, const struct term *term, const struct source *x, int64_t n, float *factors,
                          int64_t stride) {
    switch (form) {
    case ONE_PART: project_rows(ONE_PART, rows, term, x, n, factors, stride); break;
    case TWO_PARTS: project_rows(TWO_PARTS, rows, term, x, n, factors, stride); break;
    default: project_rows(BYTES, rows, term, x, n, factors, stride);
    }
}

/* How many rows from `first` on are of one task and fit together. */
INLINE int64_t of_one_task(const int32_t *tasks, int64_t first, int64_t stop) {
    int64_t rows = 1;
    while (rows < TOGETHER && first + rows < stop && tasks[first + rows] == tasks[first])
        rows++;
    return rows;
}

/* Factors of some rows of one task. */
static void factor(const struct linear *linear, enum form form, const struct source *x, int64_t rows, const struct codes *into,
                   int64_t row) {
    const int32_t task = into->tasks[row];
    if (task >= 0 && task < linear->tasks)
        project_source(form, rows, linear->terms + task, x, linear->inputs, into->factors + row * into->rank, into->rank);
}

/* One row of codes; past the last input there are zeros, as what is no number would not vanish beside a weight of zero. */
TARGET static void encode_row(const struct linear *linear, const float *x, const struct codes *into, int64_t row) {
    const int64_t n = linear->inputs, part = part_bytes(linear);
    uint8_t *codes = into->codes + row * into->stride;
    if (linear->form == BYTES) {
        find_range(x, n, into->scale + row, into->low + row);
        round_to_bytes(x, n, into->scale[row], into->low[row], codes);
        return;
    }
    if (linear->form == WHOLE) {
        memcpy(codes, x, n * sizeof *x);
        return;
    }
#if WIDE
    uint8_t *low = parts_of(linear) == TWO_PARTS ? codes + part : NULL;
    split(x, n, codes, low);
    memset(codes + 2 * n, 0, part - 2 * n);
    if (low)
        memset(low + 2 * n, 0, part - 2 * n);
#else
    (void)part;
#endif
}

TARGET static void encode_rows(const struct linear *linear, const float *x, const struct codes *into, int64_t first, int64_t stop) {
    const int64_t n = linear->inputs;
    for (int64_t row = first, rows; row < stop; row += rows) {
        rows = of_one_task(into->tasks, row, stop);
        for (int64_t t = row; t < row + rows; t++)
            encode_row(linear, x + t * n, into, t);
        const struct source source = {(const uint8_t *)(x + row * n), n * sizeof *x, 0};
        factor(linear, BYTES, &source, rows, into, row);
    }
}

TARGET static void project_codes(const struct linear *linear, const struct codes *into, int64_t first, int64_t stop) {
    for (int64_t row = first, rows; row < stop; row += rows) {
        rows = of_one_task(into->tasks, row, stop);
        const struct source source = {into->codes + row * into->stride, into->stride, part_bytes(linear)};
        factor(linear, linear->form == WHOLE ? WHOLE : (enum form)parts_of(linear), &source, rows, into, row);
    }
}

TARGET static void add_and_normalize(const struct norm *norm, const float *x, const float *y, int64_t n, float *into) {
    lanes total = none(), squares = none();
    for (int64_t i = 0; i < n; i += LANES) {
        const lanes sum = add(load(x + i), load(y + i));
        store(into + i, sum);
        total = add(total, sum);
    }
    const lanes mean = all_of(sum_of(total) / (float)n);
    for (int64_t i = 0; i < n; i += LANES) {
        const lanes off = less(load(into + i), mean);
        squares = times_add(off, off, squares);
    }
    const lanes inverse = all_of(1.0f / sqrtf(sum_of(squares) / (float)n + (float)norm->eps));
    for (int64_t i = 0; i < n; i += LANES) {
        const lanes unit = times(less(load(into + i), mean), inverse);
        store(into + i, times_add(unit, load(norm->weight + i), load(norm->bias + i)));
    }
}

#endif

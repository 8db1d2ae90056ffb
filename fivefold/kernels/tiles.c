/* Products on processors with AMX, whose tiles have 16 rows of 64 bytes: 16 tokens by 64 inputs in bytes or 32 in bfloat16, times as many
 * inputs by 16 outputs as they lie in a panel. Sums of bytes are those of sums.h to the bit, for they are whole numbers. And those of attention.
 *
 * Rows past the last are read and their sums left alone.
 */
#include "kernels.h"

static bool there, wanted = true;

int fivefold_tiles(int want) {
    wanted = want;
    return tiles_in_use();
}

bool tiles_there(void) { return there && vectors == &avx512; }

bool tiles_in_use(void) { return tiles_there() && wanted; }

#if defined(__clang__) || __GNUC__ >= 11
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#define AMX __attribute__((target("amx-tile,amx-int8,amx-bf16")))
#define SIDE TILE_SIDE
#define ALWAYS static inline AMX __attribute__((always_inline))
#define SUMS_STRIDE (PANEL * sizeof(int32_t))
#define AHEAD (2 * TILE_BYTES) /* between what few tokens multiply and what is fetched: reading weights is all that takes time then */
#define PERMISSION 0x1023 /* ARCH_REQ_XCOMP_PERM: Linux gives a process the state of tiles when it asks */
#define TILE_DATA 18

/* Once, when the library is opened: bits 22, 24 and 25 are AMX-BF16, AMX-TILE and AMX-INT8; bit 5 of the next leaf is AVX512-BF16. */
__attribute__((constructor)) static void ask(void) {
    const unsigned all = 1u << 22 | 1u << 24 | 1u << 25;
    unsigned a, b, c, d, next;
    there = __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & all) == all && __get_cpuid_count(7, 1, &next, &b, &c, &d) && (next >> 5 & 1) &&
            syscall(SYS_arch_prctl, PERMISSION, TILE_DATA) == 0;
}

AMX static void load_shape(void) {
    /* What `ldtilecfg` reads: eight tiles as large as they can be. */
    static const struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } shape = {1,
               0,
               {0},
               {LINE, LINE, LINE, LINE, LINE, LINE, LINE, LINE},
               {SIDE, SIDE, SIDE, SIDE, SIDE, SIDE, SIDE, SIDE}};
    _tile_loadconfig(&shape);
}

AMX static void release(void) { _tile_release(); }

void tiles_open(void) {
    if (there)
        load_shape();
}

void tiles_close(void) {
    if (there)
        release();
}

/* sums += left right, tiles all three. */
#define ADD(form, sums, left, right) \
    do { \
        if ((form) == BYTES) \
            _tile_dpbusd(sums, left, right); \
        else \
            _tile_dpbf16ps(sums, left, right); \
    } while (0)

/* A step of 32 tokens by half a panel: each tile that is read is used twice. Of parts: second by first, first by first, first by second. */
ALWAYS void step_half(const enum form form, const uint8_t *left, int64_t stride, int64_t second, const uint8_t *right) {
    if (form >= TWO_PARTS) {
        _tile_loadd(6, right, LINE);
        _tile_loadd(4, left + second, stride);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, right + TILE_BYTES, LINE);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, left + second + SIDE * stride, stride);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
        _tile_loadd(4, left, stride);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, left + SIDE * stride, stride);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
        if (form == TWO_BY_ONE)
            return;
        _tile_loadd(6, right + 2 * TILE_BYTES, LINE);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, right + 3 * TILE_BYTES, LINE);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
        return;
    }
    _tile_loadd(4, left, stride);
    _tile_loadd(6, right, LINE);
    ADD(form, 0, 4, 6);
    _tile_loadd(7, right + TILE_BYTES, LINE);
    ADD(form, 1, 4, 7);
    _tile_loadd(5, left + SIDE * stride, stride);
    ADD(form, 2, 5, 6);
    ADD(form, 3, 5, 7);
}

/* Two tiles by two, of bfloat16. */
#define ADD_SQUARE() \
    do { \
        _tile_dpbf16ps(0, 4, 6); \
        _tile_dpbf16ps(1, 4, 7); \
        _tile_dpbf16ps(2, 5, 6); \
        _tile_dpbf16ps(3, 5, 7); \
    } while (0)

/* 16 tokens (their parts in tiles 4 and 5) by 16 outputs, in the same order. */
#define ADD_COLUMN(form, sums, right, column) \
    do { \
        _tile_loadd(6, (right) + (column) * TILE_BYTES, LINE); \
        if ((form) >= TWO_PARTS) \
            _tile_dpbf16ps(sums, 5, 6); \
        ADD(form, sums, 4, 6); \
        if ((form) == TWO_PARTS) { \
            _tile_loadd(7, (right) + (2 + (column)) * TILE_BYTES, LINE); \
            _tile_dpbf16ps(sums, 4, 7); \
        } \
    } while (0)

/* A step of 16 tokens by a whole panel. */
ALWAYS void step_few(const enum form form, const uint8_t *left, int64_t stride, int64_t second, const uint8_t *right, int64_t half) {
    _tile_loadd(4, left, stride);
    if (form >= TWO_PARTS)
        _tile_loadd(5, left + second, stride);
    ADD_COLUMN(form, 0, right, 0);
    ADD_COLUMN(form, 1, right, 1);
    ADD_COLUMN(form, 2, right + half, 0);
    ADD_COLUMN(form, 3, right + half, 1);
}

/* Four tiles of sums, `across` and `down` bytes apart. */
ALWAYS void begin_sums(const uint8_t *from, int64_t across, int64_t down) {
    if (from) {
        _tile_loadd(0, from, SUMS_STRIDE);
        _tile_loadd(1, from + across, SUMS_STRIDE);
        _tile_loadd(2, from + down, SUMS_STRIDE);
        _tile_loadd(3, from + down + across, SUMS_STRIDE);
        return;
    }
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

ALWAYS void end_sums(uint8_t *into, int64_t across, int64_t down) {
    _tile_stored(0, into, SUMS_STRIDE);
    _tile_stored(1, into + across, SUMS_STRIDE);
    _tile_stored(2, into + down, SUMS_STRIDE);
    _tile_stored(3, into + down + across, SUMS_STRIDE);
}

ALWAYS void sum_half(const enum form form, const struct tiled *t, int64_t which, struct beside *beside) {
    const int64_t portions = TILED_ROWS / 2, place = which * 2 * LINE, step = 2 * weight_parts(form) * TILE_BYTES;
    const uint8_t *left = t->left, *right = t->right + which * t->half;
    begin_sums(t->from ? t->from + place : NULL, LINE, SIDE * SUMS_STRIDE);
    for (int64_t i = 0, k = 0; i < portions; i++) {
        for (; k < t->steps * (i + 1) / portions; k++, left += LINE, right += step)
            step_half(form, left, t->stride, t->second, right);
        beside->portion(beside, which * portions + i);
    }
    end_sums(t->into + place, LINE, SIDE * SUMS_STRIDE);
}

ALWAYS void sum_few(const enum form form, const struct tiled *t, struct beside *beside) {
    const int64_t step = 2 * weight_parts(form) * TILE_BYTES;
    const uint8_t *left = t->left, *right = t->right;
    begin_sums(t->from, LINE, 2 * LINE);
    for (int64_t i = 0, k = 0; i < TILED_ROWS; i++) {
        for (; k < t->steps * (i + 1) / TILED_ROWS; k++, left += LINE, right += step) {
            for (int64_t line = AHEAD; line < AHEAD + step; line += LINE) {
                _mm_prefetch((const char *)right + line, _MM_HINT_T0);
                _mm_prefetch((const char *)right + t->half + line, _MM_HINT_T0);
            }
            step_few(form, left, t->stride, t->second, right, t->half);
        }
        beside->portion(beside, i);
    }
    end_sums(t->into, LINE, 2 * LINE);
}

ALWAYS void sum_form(const enum form form, const struct tiled *t, struct beside *beside) {
    if (t->rows <= SIDE) {
        sum_few(form, t, beside);
        return;
    }
    sum_half(form, t, 0, beside);
    sum_half(form, t, 1, beside);
}

AMX void sum_tiles(const struct tiled *tiled, struct beside *beside) {
    switch (tiled->form) {
    case BYTES: sum_form(BYTES, tiled, beside); break;
    case ONE_PART: sum_form(ONE_PART, tiled, beside); break;
    case TWO_PARTS: sum_form(TWO_PARTS, tiled, beside); break;
    default: sum_form(TWO_BY_ONE, tiled, beside);
    }
}

AMX void score_tiles(int64_t parts, const uint32_t *queries, const uint32_t *keys, int64_t head_dim, float *into, int64_t into_stride) {
    const int64_t stride = head_dim * sizeof(uint16_t), side = stride * SIDE, second = 2 * side;
    const int64_t tiles = side * parts, down = SIDE * into_stride * sizeof(float), row = into_stride * sizeof(float);
    const uint8_t *left = (const uint8_t *)queries, *right = (const uint8_t *)keys;
    uint8_t *to = (uint8_t *)into;
    begin_sums(NULL, 0, 0);
    for (int64_t step = 0; step < head_dim / TILE_PAIRED; step++, left += LINE, right += TILE_BYTES) {
        _tile_loadd(6, right, LINE);
        _tile_loadd(7, right + tiles, LINE);
        if (parts == TWO_PARTS) {
            _tile_loadd(4, left + second, stride);
            _tile_loadd(5, left + second + side, stride);
            ADD_SQUARE();
        }
        _tile_loadd(4, left, stride);
        _tile_loadd(5, left + side, stride);
        ADD_SQUARE();
        if (parts == TWO_PARTS) {
            _tile_loadd(6, right + side, LINE);
            _tile_loadd(7, right + tiles + side, LINE);
            ADD_SQUARE();
        }
    }
    _tile_stored(0, to, row);
    _tile_stored(1, to + LINE, row);
    _tile_stored(2, to + down, row);
    _tile_stored(3, to + down + LINE, row);
}

AMX void mix_tiles(const uint32_t *weights, int64_t weights_stride, const uint32_t *values, int64_t keys, int64_t head_dim, float *mixed) {
    const int64_t stride = weights_stride * sizeof(uint32_t), row = head_dim * sizeof(float);
    for (int64_t j = 0; j < head_dim; j += 2 * SIDE) {
        float *into = mixed + j;
        _tile_loadd(0, into, row);
        _tile_loadd(1, into + SIDE, row);
        _tile_loadd(2, into + SIDE * head_dim, row);
        _tile_loadd(3, into + SIDE * head_dim + SIDE, row);
        for (int64_t key = 0; key < keys; key += TILE_PAIRED) {
            const uint32_t *at = values + key / 2 * head_dim + j;
            _tile_loadd(4, weights + key / 2, stride);
            _tile_loadd(6, at, row);
            _tile_dpbf16ps(0, 4, 6);
            _tile_loadd(7, at + SIDE, row);
            _tile_dpbf16ps(1, 4, 7);
            _tile_loadd(5, weights + SIDE * weights_stride + key / 2, stride);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
        _tile_stored(0, into, row);
        _tile_stored(1, into + SIDE, row);
        _tile_stored(2, into + SIDE * head_dim, row);
        _tile_stored(3, into + SIDE * head_dim + SIDE, row);
    }
}

#else /* a compiler that does not know AMX: never called, as there are no tiles */

void tiles_open(void) {}
void tiles_close(void) {}
void sum_tiles(const struct tiled *tiled, struct beside *beside) { (void)tiled, (void)beside; }
void score_tiles(int64_t parts, const uint32_t *queries, const uint32_t *keys, int64_t head_dim, float *into, int64_t into_stride) {
    (void)parts, (void)queries, (void)keys, (void)head_dim, (void)into, (void)into_stride;
}
void mix_tiles(const uint32_t *weights, int64_t weights_stride, const uint32_t *values, int64_t keys, int64_t head_dim, float *mixed) {
    (void)weights, (void)weights_stride, (void)values, (void)keys, (void)head_dim, (void)mixed;
}

#endif

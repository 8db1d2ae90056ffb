/* Products on processors with AMX, whose tiles have 16 rows of 64 bytes. Of bytes: 16 tokens by 64 inputs, times 64 inputs by 16 outputs
 * as they lie in a panel; the sums are those of product.c to the bit, for they are whole numbers. And of bfloat16, for attention.
 *
 * Rows past the last are read and their sums left alone.
 */
#include "kernels.h"

static bool there, wanted = true;

int fivefold_tiles(int want) {
    wanted = want;
    return there && wanted;
}

bool tiles_in_use(void) { return there && wanted; }

#if defined(__clang__) || __GNUC__ >= 11
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#define AMX __attribute__((target("amx-tile,amx-int8,amx-bf16")))
#define SIDE TILE_SIDE
#define SUMS_STRIDE (PANEL * sizeof(int32_t))
#define PANEL_STRIDE (PANEL * QUAD)
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
               {TILE_INPUTS, TILE_INPUTS, TILE_INPUTS, TILE_INPUTS, TILE_INPUTS, TILE_INPUTS, TILE_INPUTS, TILE_INPUTS},
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

/* 32 tokens by half a panel: each tile that is read is used twice. */
AMX static void sum_half(const uint8_t *codes, int64_t stride, const int8_t *half, int64_t steps, int32_t *into) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t step = 0; step < steps; step++, codes += TILE_INPUTS, half += TILE_INPUTS * PANEL) {
        _tile_loadd(4, codes, stride);
        _tile_loadd(6, half, PANEL_STRIDE);
        _tile_dpbusd(0, 4, 6);
        _tile_loadd(7, half + SIDE * QUAD, PANEL_STRIDE);
        _tile_dpbusd(1, 4, 7);
        _tile_loadd(5, codes + SIDE * stride, stride);
        _tile_dpbusd(2, 5, 6);
        _tile_dpbusd(3, 5, 7);
    }
    _tile_stored(0, into, SUMS_STRIDE);
    _tile_stored(1, into + SIDE, SUMS_STRIDE);
    _tile_stored(2, into + SIDE * PANEL, SUMS_STRIDE);
    _tile_stored(3, into + SIDE * PANEL + SIDE, SUMS_STRIDE);
}

/* 16 tokens by a whole panel, whose lines are then read in their order. */
AMX static void sum_few(const uint8_t *codes, int64_t stride, const int8_t *panel, int64_t steps, int32_t *into) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t step = 0; step < steps; step++, codes += TILE_INPUTS, panel += TILE_INPUTS * PANEL) {
        _tile_loadd(4, codes, stride);
        _tile_loadd(5, panel, PANEL_STRIDE);
        _tile_dpbusd(0, 4, 5);
        _tile_loadd(6, panel + SIDE * QUAD, PANEL_STRIDE);
        _tile_dpbusd(1, 4, 6);
        _tile_loadd(7, panel + 2 * SIDE * QUAD, PANEL_STRIDE);
        _tile_dpbusd(2, 4, 7);
        _tile_loadd(5, panel + 3 * SIDE * QUAD, PANEL_STRIDE);
        _tile_dpbusd(3, 4, 5);
    }
    _tile_stored(0, into, SUMS_STRIDE);
    _tile_stored(1, into + SIDE, SUMS_STRIDE);
    _tile_stored(2, into + 2 * SIDE, SUMS_STRIDE);
    _tile_stored(3, into + 3 * SIDE, SUMS_STRIDE);
}

AMX void sum_tiles(int64_t rows, const uint8_t *codes, int64_t stride, const int8_t *panel, int64_t inputs, int32_t *into) {
    const int64_t steps = inputs / TILE_INPUTS;
    if (rows <= SIDE) {
        sum_few(codes, stride, panel, steps, into);
        return;
    }
    sum_half(codes, stride, panel, steps, into);
    sum_half(codes, stride, panel + 2 * SIDE * QUAD, steps, into + 2 * SIDE);
}

AMX void score_tiles(const uint32_t *high, const uint32_t *low, const uint32_t *keys, int64_t head_dim, float *into, int64_t into_stride) {
    const int64_t stride = head_dim * sizeof(uint16_t), half = head_dim / 2 * SIDE, block = 2 * half;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t step = 0; step < head_dim / TILE_PAIRED; step++, high += SIDE, low += SIDE, keys += SIDE * SIDE) {
        _tile_loadd(4, low, stride);
        _tile_loadd(5, low + half, stride);
        _tile_loadd(6, keys, TILE_INPUTS);
        _tile_loadd(7, keys + block, TILE_INPUTS);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
        _tile_loadd(4, high, stride);
        _tile_loadd(5, high + half, stride);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
        _tile_loadd(6, keys + half, TILE_INPUTS);
        _tile_loadd(7, keys + block + half, TILE_INPUTS);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, into, into_stride * sizeof(float));
    _tile_stored(1, into + SIDE, into_stride * sizeof(float));
    _tile_stored(2, into + SIDE * into_stride, into_stride * sizeof(float));
    _tile_stored(3, into + SIDE * into_stride + SIDE, into_stride * sizeof(float));
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
void sum_tiles(int64_t rows, const uint8_t *codes, int64_t stride, const int8_t *panel, int64_t inputs, int32_t *into) {
    (void)rows, (void)codes, (void)stride, (void)panel, (void)inputs, (void)into;
}
void score_tiles(const uint32_t *high, const uint32_t *low, const uint32_t *keys, int64_t head_dim, float *into, int64_t into_stride) {
    (void)high, (void)low, (void)keys, (void)head_dim, (void)into, (void)into_stride;
}
void mix_tiles(const uint32_t *weights, int64_t weights_stride, const uint32_t *values, int64_t keys, int64_t head_dim, float *mixed) {
    (void)weights, (void)weights_stride, (void)values, (void)keys, (void)head_dim, (void)mixed;
}

#endif

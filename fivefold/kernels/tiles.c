/* Products of bytes on processors with AMX: tiles of 16 tokens by 64 inputs, times 64 inputs by 16 outputs as they lie in a panel.
 *
 * The sums are those of product.c to the bit, for they are whole numbers. Rows past the last are read and their sums left alone.
 */
#include "kernels.h"

static bool there, wanted = true;

int fivefold_tiles(int want) {
    wanted = want;
    return there && wanted;
}

bool tiles_fit(int64_t inputs) { return there && wanted && inputs % TILE_INPUTS == 0; }

#if defined(__clang__) || __GNUC__ >= 11
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#define AMX __attribute__((target("amx-tile,amx-int8")))
#define SIDE 16 /* tokens or outputs of a tile */
#define SUMS_STRIDE (PANEL * sizeof(int32_t))
#define PANEL_STRIDE (PANEL * QUAD)
#define PERMISSION 0x1023 /* ARCH_REQ_XCOMP_PERM: Linux gives a process the state of tiles when it asks */
#define TILE_DATA 18

/* Once, when the library is opened: bits 24 and 25 are AMX-TILE and AMX-INT8. */
__attribute__((constructor)) static void ask(void) {
    unsigned a, b, c, d;
    there = __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 24 & 3) == 3 && syscall(SYS_arch_prctl, PERMISSION, TILE_DATA) == 0;
}

AMX void tiles_open(void) {
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

AMX void tiles_close(void) { _tile_release(); }

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

void sum_tiles(int64_t rows, const uint8_t *codes, int64_t stride, const int8_t *panel, int64_t inputs, int32_t *into) {
    const int64_t steps = inputs / TILE_INPUTS;
    if (rows <= SIDE) {
        sum_few(codes, stride, panel, steps, into);
        return;
    }
    sum_half(codes, stride, panel, steps, into);
    sum_half(codes, stride, panel + 2 * SIDE * QUAD, steps, into + 2 * SIDE);
}

#else /* a compiler that does not know AMX: never called, as there are no tiles */

void tiles_open(void) {}
void tiles_close(void) {}
void sum_tiles(int64_t rows, const uint8_t *codes, int64_t stride, const int8_t *panel, int64_t inputs, int32_t *into) {
    (void)rows, (void)codes, (void)stride, (void)panel, (void)inputs, (void)into;
}

#endif

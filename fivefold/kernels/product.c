/* Products, a panel of 64 outputs for some hundred tokens at a time: sums in tiles (tiles.c) or in registers (sums.h, pairs.c), each finished
 * (finish.h) as soon as it is there; by tiles while the next one is made.
 *
 * A panel of weights stays in the second cache while all tokens of a unit pass by, and the next one is fetched meanwhile: of several
 * threads each takes the next that nobody has, so a thread's own is about as many panels on as there are threads.
 */
#include "kernels.h"

#define FETCH(address) __builtin_prefetch(address, 0, 2) /* to the second cache */
#define MOST_STEPS 64            /* lines of a row, of all parts together, that a piece has */
#define CODES_TOGETHER (1 << 19) /* bytes of codes of a unit of work, unless its rows then were */
#define LEAST_ROWS 256           /* fewer */
#define MOST_ROWS 512            /* or more than these */

static int64_t steps_of(const struct linear *linear) { return weight_bytes(linear) / LINE; }

int64_t product_pieces(const struct linear *linear) {
    return in_tiles(linear) ? parts(steps_of(linear) * parts_of(linear), MOST_STEPS) : 1;
}

int64_t partial_size(const struct linear *linear, int64_t tokens) {
    return product_pieces(linear) == 1 ? 0 : parts(linear->outputs, PANEL) * rounded(tokens, TILED_ROWS) * PANEL * (int64_t)sizeof(float);
}

/* Rows of a unit: their codes leave most of the second cache to weights and sums, but fewer rows would wait for weights; as few units
 * as that gives, all of the same size. */
static int64_t rows_together(const struct linear *linear, int64_t tokens) {
    const int64_t bytes = least(row_bytes(linear), MOST_STEPS * LINE);
    const int64_t rows = least(MOST_ROWS, most(LEAST_ROWS, CODES_TOGETHER / bytes));
    return rounded(parts(tokens, parts(tokens, rows)), TILED_ROWS);
}

int64_t product_units(const struct linear *linear, int64_t tokens) {
    return parts(tokens, rows_together(linear, tokens)) * parts(linear->outputs, PANEL);
}

/* One unit: rows from `start` to `stop` by a panel, and the panel that comes next. */
struct unit {
    const struct linear *linear;
    const struct codes *in;
    const struct products *into;
    int64_t start, stop, panel;
    const uint8_t *weight, *next;
};

static void finish_rows(const struct unit *unit, int64_t first, int64_t rows, const int32_t *sums) {
    for (int64_t r = 0; r < rows; r++)
        vectors->finish_row(unit->linear, unit->in, first + r, unit->panel, sums + r * PANEL, unit->into);
}

/* A block of rows after the other. */
static void multiply_by_blocks(const struct unit *unit) {
    const struct linear *linear = unit->linear;
    _Alignas(LINE) int32_t sums[BLOCK_ROWS * PANEL]; /* or floats */
    for (int64_t row = unit->start; row < unit->stop; row += BLOCK_ROWS) {
        const int64_t rows = least(BLOCK_ROWS, unit->stop - row), stride = unit->in->stride;
        const uint8_t *codes = unit->in->codes + row * stride;
        if (linear->form == WHOLE)
            vectors->sum_float_block(rows, (const float *)codes, stride / (int64_t)sizeof(float), (const float *)unit->weight, linear->inputs,
                                     (float *)sums);
        else
            vectors->sum_code_block(rows, codes, stride, unit->weight, steps_of(linear), unit->next, sums);
        finish_rows(unit, row, rows, sums);
    }
}

/* The first groups of rows, up to four, share the next panel's lines, of which there are four for every word of inputs. */
static void multiply_by_vectors(const struct unit *unit) {
    const int64_t sharing = least(4, parts(unit->stop - unit->start, SUMMED_ROWS));
    const int64_t steps = steps_of(unit->linear), size = steps * LINE * PANEL;
    sum_function *const sum = unit->linear->form == BYTES ? vectors->sum_codes : sum_pairs;
    int32_t sums[SUMMED_ROWS * PANEL]; /* or floats */
    for (int64_t row = unit->start, group = 0; row < unit->stop; row += SUMMED_ROWS, group++) {
        const int64_t rows = least(SUMMED_ROWS, unit->stop - row), line = least(4, 4 * group / sharing);
        const int64_t lines = least(4, 4 * (group + 1) / sharing) - line;
        sum(rows, unit->in->codes + row * unit->in->stride, unit->in->stride, unit->weight, steps, unit->next + line * size / 4, lines, sums);
        finish_rows(unit, row, rows, sums);
    }
}

/* While sums are made: those before are finished, row by row, and lines of the next panel fetched. */
struct follower {
    struct beside beside;
    const struct unit *unit;
    int64_t first, rows;
    const int32_t *sums;
    const uint8_t *ahead;
    int64_t half;                /* bytes from a panel's one half to the other */
    int64_t line, lines, portion; /* which line is next, how many there are in a half, how many are for each portion */
};

static void follow(struct beside *beside, int64_t i) {
    struct follower *own = (struct follower *)beside;
    for (int64_t stop = least(2 * own->lines, own->line + own->portion); own->line < stop; own->line++)
        FETCH(own->ahead + own->line / own->lines * own->half + own->line % own->lines * LINE);
    if (i < own->rows)
        vectors->finish_row(own->unit->linear, own->unit->in, own->first + i, own->unit->panel, own->sums + i * PANEL, own->unit->into);
}

/* Steps of a piece, and where it begins. */
struct piece {
    int64_t first, steps;
    bool begins, ends;
};

static struct piece cut(const struct linear *linear, int64_t piece) {
    const int64_t steps = steps_of(linear), most_steps = MOST_STEPS / parts_of(linear), first = piece * most_steps;
    return (struct piece){first, least(most_steps, steps - first), piece == 0, first + most_steps >= steps};
}

static void multiply_by_tiles(const struct unit *unit, struct piece piece, uint8_t *partial) {
    const struct linear *linear = unit->linear;
    const int64_t step = 2 * weight_parts(linear->form) * TILE_BYTES, from = piece.first * step, half = steps_of(linear) * step;
    const int64_t block = TILED_ROWS * PANEL * sizeof(int32_t), blocks = parts(unit->stop - unit->start, TILED_ROWS);
    int32_t sums[2][TILED_ROWS * PANEL];
    struct follower follower = {.beside = {follow}, .unit = unit, .ahead = unit->next + from, .half = half};
    follower.lines = piece.steps * step / LINE;
    follower.portion = unit->stop - unit->start > TILE_SIDE ? parts(2 * follower.lines, blocks * TILED_ROWS) : 0; /* few fetch their own */
    struct tiled tiled = {.form = linear->form, .steps = piece.steps, .stride = unit->in->stride, .second = part_bytes(linear),
                          .right = unit->weight + from, .half = half};
    for (int64_t i = 0; i < blocks; i++, partial += block) {
        const int64_t row = unit->start + i * TILED_ROWS;
        tiled.rows = least(TILED_ROWS, unit->stop - row);
        tiled.left = unit->in->codes + row * tiled.stride + piece.first * LINE;
        tiled.from = piece.begins ? NULL : partial;
        tiled.into = piece.ends ? (uint8_t *)sums[i % 2] : partial;
        sum_tiles(&tiled, &follower.beside);
        if (piece.ends) {
            follower.first = row;
            follower.rows = tiled.rows;
            follower.sums = sums[i % 2];
        }
    }
    finish_rows(unit, follower.first, follower.rows, follower.sums);
}

void multiply(const struct linear *linear, const struct codes *in, int64_t tokens, int64_t piece, int64_t unit, int64_t ahead,
              uint8_t *partial, const struct products *into) {
    const int64_t panels = parts(linear->outputs, PANEL), size = weight_parts(linear->form) * weight_bytes(linear) * PANEL;
    const int64_t panel = unit % panels, rows = rows_together(linear, tokens), start = unit / panels * rows;
    const struct unit own = {.linear = linear, .in = in, .into = into, .start = start, .stop = least(tokens, start + rows),
                             .panel = panel, .weight = linear->weight + panel * size,
                             .next = linear->weight + (panel + ahead) % panels * size};
    const int64_t place = (panel * rounded(tokens, TILED_ROWS) + start) * PANEL * (int64_t)sizeof(float);
    if (in_tiles(linear))
        multiply_by_tiles(&own, cut(linear, piece), partial + place);
    else if (linear->form == WHOLE || !vectors->sum_codes)
        multiply_by_blocks(&own);
    else
        multiply_by_vectors(&own);
}

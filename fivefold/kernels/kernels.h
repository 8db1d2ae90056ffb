/* The encoder for processors with AVX2 or AVX-512 VNNI, with AVX512-BF16 and with AMX, in 8 bits and in floats: what the files of this folder
 * share, and what Python calls.
 *
 * In 8 bits the arithmetic is that of quantization.py. Each token has a scale s and a lowest value l, so that x = s q + l with q in 0..255, and
 *
 *     x W^T + b = s (q Q^T) w + b + l c + (x A^T) B^T        c [O]: the sum of each row of W; A, B: a task's low-rank term
 *
 * In floats numbers are multiplied as they are; or each number of x and W is one bfloat16, the nearest; or, by AMX, two, the second nearest to
 * what the first leaves, so that no more than 2^-17 of it is lost. Their products are added up in float32, but for that of both second
 * parts, which is smaller still:
 *
 *     x W^T + b = x1 W1^T + x1 W2^T + x2 W1^T + b + (x A^T) B^T
 *
 * Sums of codes are exact and floats are added in an order that depends on nothing but the token's own text: a text's numbers are the
 * same bits whatever else is in the pack, and for any number of threads.
 *
 * Shapes: T tokens in the pack, I inputs, O outputs, D hidden, F inner, N heads, H head dim, R rank, L tokens of one text. P is O rounded
 * up to a multiple of PANEL, S the lines of 64 bytes that a row of inputs fills; what is added to a matrix or a vector is zero. I and D
 * are multiples of 16, H is 32 or 64.
 */
#ifndef FIVEFOLD_KERNELS_H
#define FIVEFOLD_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PANEL 64 /* outputs whose sums are made together, in two halves */
#define QUAD 4   /* products of bytes that one instruction adds to one sum */
#define WORD 4   /* bytes of inputs that one does: as many bytes, or two bfloat16 */
#define LINE 64  /* bytes of a line of a cache, and of a row of a tile */

/* What numbers are multiplied as: bytes, or so many bfloat16; inputs of two with weights of one, where weights were bfloat16 before; or
 * float32. */
enum form { BYTES = 0, ONE_PART = 1, TWO_PARTS = 2, TWO_BY_ONE = 3, WHOLE = 4 };

/* A task's low-rank term on one linear. */
struct term {
    int64_t rank;
    const float *down; /* A [R, I] */
    const float *up;   /* B^T [R, P], with its scaling */
};

struct linear {
    int64_t inputs, outputs, form;
    /* [P / PANEL, 2, S, parts, 2, 16, 16, QUAD bytes]: panels, halves of them, steps of a line of inputs, parts of a weight, and tiles of 16
     * outputs, in which those inputs of an output that one instruction adds up are neighbours. Of float32 [P / PANEL, 4, I, 16]. */
    const uint8_t *weight;
    const float *scale, *bias, *sums; /* w, b, c [P] each; of floats b alone */
    const struct term *terms; /* by task id; a task without one has rank 0 */
    int64_t tasks;
};

struct norm {
    const float *weight, *bias; /* [D] both */
    double eps;
};

/* One block of the encoder, post-norm: attention and MLP, each added to its input and normalised after. */
struct layer {
    const struct linear *qkv, *out, *up, *down;
    struct norm first, second;
};

struct encoder {
    int64_t count, hidden, inner, heads;
    const struct layer *layers;
};

/* Texts end to end, in the order of the pack. */
struct pack {
    int64_t texts, tokens;
    const int32_t *starts; /* [texts + 1] */
    const int32_t *tasks;  /* [T], -1 for none */
    const float *cosines, *sines; /* [longest L, H / 2] both */
};

/* Activations as they are multiplied, and beside each token what its own task's term makes of it. A row holds one part of all its numbers,
 * then the other. */
struct codes {
    uint8_t *codes; /* [T, stride], and room for whole TILED_ROWS */
    int64_t stride;
    float *scale, *low; /* s, l [T] both, of bytes */
    float *factors;     /* x A^T [T, rank] */
    int64_t rank;
    const int32_t *tasks;
};

/* Where products go, floats from row to row and from panel to panel: [T, O] for strides of O and PANEL, or [P / PANEL, T, PANEL],
 * where a head's rows are neighbours. Or, where there is no `y`, to the codes of a linear that comes next. */
struct products {
    float *y;
    int64_t row_stride, panel_stride;
    const struct codes *codes;
    bool gelu; /* of what goes there */
};

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t parts(int64_t whole, int64_t part) { return (whole + part - 1) / part; }
static inline int64_t rounded(int64_t count, int64_t multiple) { return parts(count, multiple) * multiple; }

/* ---- what is done by vectors (avx2.c, avx512.c): rows.h, sums.h, finish.h, attend.h ---- */

#define SUMMED_ROWS 6 /* tokens whose sums of bytes are in registers together */
#define BLOCK_ROWS 48 /* tokens of a block */

/* Sums [rows, PANEL] of up to SUMMED_ROWS rows of `steps` lines; `lines` lines are fetched at `ahead` for every word of inputs. */
typedef void sum_function(int64_t rows, const uint8_t *codes, int64_t stride, const uint8_t *panel, int64_t steps, const uint8_t *ahead,
                          int64_t lines, void *into);

struct head;
struct vectors {
    /* Whether this processor has these. */
    bool (*supported)(void);
    /* A code of 8 bits takes so many. */
    int64_t code_bytes;
    /* Put some rows of x [T, I] into codes, for a linear. */
    void (*encode_rows)(const struct linear *linear, const float *x, const struct codes *into, int64_t first, int64_t stop);
    /* The factors alone, of rows that are codes of floats already. */
    void (*project_codes)(const struct linear *linear, const struct codes *into, int64_t first, int64_t stop);
    /* LayerNorm of x + y [n] each; `into` may be x. */
    void (*add_and_normalize)(const struct norm *norm, const float *x, const float *y, int64_t n, float *into);
    /* As that type says, of bytes. Or of up to BLOCK_ROWS rows. Vectors have the one or the other. */
    sum_function *sum_codes;
    void (*sum_code_block)(int64_t rows, const uint8_t *codes, int64_t stride, const uint8_t *panel, int64_t steps, const uint8_t *next,
                           int32_t *into);
    /* Sums [rows, PANEL] of up to BLOCK_ROWS rows of n floats. */
    void (*sum_float_block)(int64_t rows, const float *x, int64_t stride, const float *panel, int64_t n, float *into);
    /* One token's sums of a panel, int32 or float32 [PANEL], to floats: scales, bias, lowest value, the task's term, and GELU where asked for. */
    void (*finish_row)(const struct linear *linear, const struct codes *in, int64_t row, int64_t panel, const void *sums,
                       const struct products *into);
    void (*attend)(const struct pack *pack, const struct head *head, float *scratch);
};
extern const struct vectors avx2, avx512;
/* The best that this processor has, or NULL. */
extern const struct vectors *vectors;

/* Numbers [n] to the bfloat16 next to them, and what is left to the one next to that, unless `low` is NULL. n is a multiple of 16. */
void split(const float *x, int64_t n, void *high, void *low);

/* ---- sizes ---- */

/* Parts of an input and of a weight, bytes of one part of a row of inputs, of the whole row, and of a row of one part of the weights. */
static inline int64_t parts_of(const struct linear *linear) { return linear->form == WHOLE ? 1 : least(TWO_PARTS, most(1, linear->form)); }
static inline int64_t weight_parts(const enum form form) { return form == TWO_PARTS ? 2 : 1; }
static inline int64_t weight_bytes(const struct linear *linear) {
    return rounded(linear->inputs * (linear->form == BYTES ? 1 : linear->form == WHOLE ? 4 : 2), LINE);
}
static inline int64_t part_bytes(const struct linear *linear) { return weight_bytes(linear) * (linear->form == BYTES ? vectors->code_bytes : 1); }
static inline int64_t row_bytes(const struct linear *linear) { return parts_of(linear) * part_bytes(linear); }

/* ---- product.c ---- */

/* Pieces into which the inputs of a product are cut, one stage after the other, so that as much of the codes fits that cache. */
int64_t product_pieces(const struct linear *linear);
/* Bytes for the sums of all pieces but the last. */
int64_t partial_size(const struct linear *linear, int64_t tokens);
/* Units of work that a piece is cut into. */
int64_t product_units(const struct linear *linear, int64_t tokens);
/* One unit of one piece, while the panel is fetched that comes `ahead` panels later; at the last piece y is written where `into` says. */
void multiply(const struct linear *linear, const struct codes *in, int64_t tokens, int64_t piece, int64_t unit, int64_t ahead,
              uint8_t *partial, const struct products *into);

/* ---- pairs.c: products of bfloat16 by vectors, on processors with AVX512-BF16 ---- */

bool pairs_there(void);
/* Whether attention is of bfloat16 where linears are of bytes or of one part. */
bool pairs_in_use(void);
/* Of rows of one part. */
sum_function sum_pairs;
/* As `score_tiles` and `mix_tiles`, of one part and all keys of a block: scores [rows, count] of queries [rows, H], and of `rows` weights. Rows
 * are rounded up to a multiple of four, keys to one of TILED_ROWS. */
void score_pairs(const uint32_t *queries, int64_t rows, const uint32_t *keys, int64_t count, int64_t head_dim, float *into,
                 int64_t into_stride);
void mix_pairs(const uint32_t *weights, int64_t rows, int64_t weights_stride, const uint32_t *values, int64_t keys, int64_t head_dim,
               float *mixed);

/* ---- tiles.c: products on processors with AMX ---- */

#define TILE_SIDE 16    /* rows of a tile */
#define TILE_BYTES 1024 /* of a whole one */
#define TILE_PAIRED 32  /* numbers in bfloat16 of a row; of a right factor's, two rows of 16 numbers in pairs */
#define TILED_ROWS 32   /* rows whose sums are in tiles together */

bool tiles_there(void);
bool tiles_in_use(void);
/* Whether a linear's sums are made in tiles. Two parts are nowhere else. */
static inline bool in_tiles(const struct linear *linear) {
    return linear->form == BYTES || linear->form == ONE_PART ? tiles_in_use() : linear->form != WHOLE;
}
/* Around all that a thread does with tiles; nothing where there are none. */
void tiles_open(void);
void tiles_close(void);

/* Sums of up to TILED_ROWS rows by a panel over some steps; as many rows are read, whatever they hold. */
struct tiled {
    int64_t form, rows, steps;
    const uint8_t *left; /* rows, from their first step on */
    int64_t stride, second; /* bytes between rows, and from a row to its second part */
    const uint8_t *right; /* a panel's first half, from its first step on */
    int64_t half; /* bytes from there to the other half */
    const uint8_t *from; /* sums so far [TILED_ROWS, PANEL], or NULL */
    uint8_t *into; /* and with these */
};
/* What else is to be done, in TILED_ROWS portions: between steps, so that it hides behind the tiles. */
struct beside {
    void (*portion)(struct beside *beside, int64_t i);
};
void sum_tiles(const struct tiled *tiled, struct beside *beside);
/* Scores [32, 32 of a row's into_stride]: queries [parts, 32, H] with keys [2, parts, H / 32, 16, 16] by 16 keys, each tile a row for two
 * dimensions. The product of both second parts is left out. */
void score_tiles(int64_t parts, const uint32_t *queries, const uint32_t *keys, int64_t head_dim, float *into, int64_t into_stride);
/* mixed [32, H] += weights [32, keys of a row's 2 weights_stride] values [keys / 2, H, 2], both bfloat16; keys is a multiple of 32. */
void mix_tiles(const uint32_t *weights, int64_t weights_stride, const uint32_t *values, int64_t keys, int64_t head_dim, float *mixed);

/* ---- attention.c ---- */

#define MOST_HEAD_DIM PANEL /* a head lies within a panel */
#define TILE 6              /* queries whose sums are in registers together, by vectors */
#define QUERIES 48          /* queries that pass over a block of keys before the next block comes */
#define KEYS 256            /* keys of a block: with their values they fit the second cache */

/* Queries, keys and values of one head of one text, [L, H] each, rows PANEL apart; and where the result goes. */
struct head {
    const float *queries, *keys, *values;
    int64_t length, head_dim;
    float *mixed;
    int64_t stride;
};
/* Floats of scratch for one head of one text in bfloat16, and the head, by tiles or by vectors; `parts` is of how many bfloat16 weights and
 * values are. */
int64_t bfloat16_scratch(int64_t length, int64_t head_dim, int64_t parts);
void attend_in_bfloat16(const struct pack *pack, const struct head *head, int64_t parts, bool tiles, float *scratch);

/* Floats of scratch that `attend` needs for texts of up to `length` tokens. */
int64_t attention_scratch(const struct encoder *encoder, int64_t length);
/* One head of one text: queries, keys and values in panels [3 D / PANEL, T, PANEL] -> mixed [T, N, H]; queries and keys are rotated. Where
 * numbers are of two parts, weights and values are too. */
void attend(const struct encoder *encoder, const struct pack *pack, int64_t text, int64_t head, const float *qkv, float *scratch,
            float *mixed);

/* ---- team.c: threads that live as long as a call ---- */

struct team;
typedef void task_unit(void *job, int64_t unit, int member);

/* Run `work(job, team, member)` in so many threads, this one among them, and return when all have ended. */
void team_run(int members, void (*work)(void *job, struct team *team, int member), void *job);
/* Called by all members: units are dealt out one by one, and nobody goes on before all are done. */
void team_share(struct team *team, int member, int64_t units, task_unit *unit, void *job);
int team_members(const struct team *team);

/* ---- encoder.c: what Python calls ---- */

#define PUBLIC __attribute__((visibility("default")))

/* Whether this processor has what the kernels need. */
PUBLIC int fivefold_supported(void);
/* Use AVX-512 where the processor has it, or never; as before, whether it is in use from now on. Not while anything runs. */
PUBLIC int fivefold_wide(int wanted);
/* Of how many bfloat16 a number can be: two where there are tiles, one where vectors multiply them, or none. */
PUBLIC int fivefold_floats(void);
/* Use tiles for numbers of one byte or one bfloat16 where the processor has them, or never; whether they are in use from now on. Two need them. */
PUBLIC int fivefold_tiles(int wanted);
/* Use vectors of bfloat16 for attention between such linears where there are no tiles in use and the processor has them, or never; whether
 * they are in use from now on. Linears of one bfloat16 need them then. */
PUBLIC int fivefold_pairs(int wanted);
/* y [T, O] = linear(x [T, I]); 0, or -1 where memory is short. */
PUBLIC int fivefold_linear(const struct linear *linear, const int32_t *tasks, int64_t tokens, const float *x, float *y, int threads);
/* x [T, D] -> hidden states after the last layer, in place; 0, or -1 where memory is short. */
PUBLIC int fivefold_encode(const struct encoder *encoder, const struct pack *pack, float *x, int threads);

#endif

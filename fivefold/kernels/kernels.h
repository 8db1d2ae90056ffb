/* The encoder in 8 bits for processors with AVX-512 VNNI: what the files of this folder share, and what Python calls.
 *
 * The arithmetic is that of quantization.py. Each token has a scale s and a lowest value l, so that x = s q + l with q in 0..255, and
 *
 *     x W^T + b = s (q Q^T) w + b + l c + (x A^T) B^T        c [O]: the sum of each row of W; A, B: a task's low-rank term
 *
 * Sums of codes are exact and floats are added in an order that depends on nothing but the token's own text: a text's numbers are the
 * same bits whatever else is in the pack, and for any number of threads.
 *
 * Shapes: T tokens in the pack, I inputs, O outputs, D hidden, F inner, N heads, H head dim, R rank, L tokens of one text. P is O rounded
 * up to a multiple of PANEL; what is added to a matrix or a vector is zero. I and D are multiples of 16, H is 32 or 64.
 */
#ifndef FIVEFOLD_KERNELS_H
#define FIVEFOLD_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PANEL 64 /* outputs whose sums are in registers together */
#define QUAD 4   /* products of bytes that one instruction adds to one sum */

/* A task's low-rank term on one linear. */
struct term {
    int64_t rank;
    const float *down; /* A [R, I] */
    const float *up;   /* B^T [R, P], with its scaling */
};

struct linear {
    int64_t inputs, outputs;
    const int8_t *weight; /* codes [P / PANEL, I / QUAD, PANEL, QUAD] */
    const float *scale, *bias, *sums; /* w, b, c [P] each */
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

/* Activations in 8 bits, and beside each token what its own task's term makes of it. */
struct codes {
    uint8_t *codes; /* [T, stride], and room for whole TILED_ROWS */
    int64_t stride;
    float *scale, *low; /* s, l [T] both */
    float *factors;     /* x A^T [T, rank] */
    int64_t rank;
    const int32_t *tasks;
};

/* Where products go, floats from row to row and from panel to panel: [T, O] for strides of O and PANEL, or [P / PANEL, T, PANEL],
 * where a head's rows are neighbours. */
struct products {
    float *y;
    int64_t row_stride, panel_stride;
    bool gelu; /* of what goes there */
};

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t parts(int64_t whole, int64_t part) { return (whole + part - 1) / part; }
static inline int64_t rounded(int64_t count, int64_t multiple) { return parts(count, multiple) * multiple; }

/* ---- rows.c: what is done token by token ---- */

/* Put some rows of x [T, I] into codes, for a linear. */
void quantize_rows(const struct linear *linear, const float *x, const struct codes *into, int64_t first, int64_t stop);
/* LayerNorm of x + y [n] each; `into` may be x. */
void add_and_normalize(const struct norm *norm, const float *x, const float *y, int64_t n, float *into);

/* ---- product.c ---- */

#define ROWS_TOGETHER 384 /* tokens of one unit of work: their codes stay in the second cache while panels pass by */

/* Units of work that a product is cut into. */
int64_t product_units(const struct linear *linear, int64_t tokens);
/* One unit of y, written where `into` says. */
void multiply(const struct linear *linear, const struct codes *in, int64_t tokens, int64_t unit, const struct products *into);

/* ---- tiles.c: products on processors with AMX ---- */

#define TILE_SIDE 16   /* rows of a tile */
#define TILE_INPUTS 64 /* bytes of each */
#define TILE_PAIRED 32 /* numbers in bfloat16 of each; of a right factor's, two rows of 16 numbers in pairs */
#define TILED_ROWS 32  /* rows whose sums are in tiles together */

bool tiles_in_use(void);
/* Around all that a thread does with tiles; nothing where there are none. */
void tiles_open(void);
void tiles_close(void);
/* Sums [rows, PANEL] of up to TILED_ROWS rows; as many are read, whatever they hold. */
void sum_tiles(int64_t rows, const uint8_t *codes, int64_t stride, const int8_t *panel, int64_t inputs, int32_t *into);
/* Scores [32, 32 of a row's into_stride]: queries [32, H] in two bfloat16 whose sum they are, with keys [2, 2, H / 32, 16, 16] by 16 keys, high
 * part and low, each tile a row for two dimensions. The product of both low parts is left out. */
void score_tiles(const uint32_t *high, const uint32_t *low, const uint32_t *keys, int64_t head_dim, float *into, int64_t into_stride);
/* mixed [32, H] += weights [32, keys of a row's 2 weights_stride] values [keys / 2, H, 2], both bfloat16; keys is a multiple of 32. */
void mix_tiles(const uint32_t *weights, int64_t weights_stride, const uint32_t *values, int64_t keys, int64_t head_dim, float *mixed);

/* ---- attention.c ---- */

#define MOST_HEAD_DIM PANEL /* a head lies within a panel */

/* Floats of scratch that `attend` needs for texts of up to `length` tokens. */
int64_t attention_scratch(int64_t length, int64_t head_dim);
/* One head of one text: queries, keys and values in panels [3 D / PANEL, T, PANEL] -> mixed [T, N, H]; queries and keys are rotated. */
void attend(const struct encoder *encoder, const struct pack *pack, int64_t text, int64_t head, const float *qkv, float *scratch,
            float *mixed);

/* ---- team.c: threads that live as long as a call ---- */

struct team;
typedef void task_unit(void *job, int64_t unit, int member);

/* Run `work(job, team, member)` in so many threads, this one among them, and return when all have ended. */
void team_run(int members, void (*work)(void *job, struct team *team, int member), void *job);
/* Called by all members: units are dealt out one by one, and nobody goes on before all are done. */
void team_share(struct team *team, int member, int64_t units, task_unit *unit, void *job);

/* ---- encoder.c: what Python calls ---- */

#define PUBLIC __attribute__((visibility("default")))

/* Whether this processor has what the kernels need. */
PUBLIC int fivefold_supported(void);
/* Use tiles where the processor has them, or never; whether they are in use from now on. */
PUBLIC int fivefold_tiles(int wanted);
/* y [T, O] = linear(x [T, I]); 0, or -1 where memory is short. */
PUBLIC int fivefold_linear(const struct linear *linear, const int32_t *tasks, int64_t tokens, const float *x, float *y, int threads);
/* x [T, D] -> hidden states after the last layer, in place; 0, or -1 where memory is short. */
PUBLIC int fivefold_encode(const struct encoder *encoder, const struct pack *pack, float *x, int threads);

#endif

/* The layers one after the other, each as stages that all members of a team share; and what Python calls. */
#include "kernels.h"

#include <stdlib.h>
#include <sys/mman.h>

#define ROWS_A_UNIT 16 /* tokens of a unit of work where each is done by itself */

const struct vectors *vectors;

__attribute__((constructor)) static void open_library(void) { fivefold_wide(true); }

int fivefold_wide(int wanted) {
    __builtin_cpu_init();
    vectors = wanted && avx512.supported() ? &avx512 : avx2.supported() ? &avx2 : NULL;
    return vectors == &avx512;
}

int fivefold_supported(void) { return vectors != NULL; }

int fivefold_floats(void) { return tiles_there() ? TWO_PARTS : pairs_there() ? ONE_PART : 0; }

/* One stage: a linear, or what stands between two of them. Each member has its own. */
struct stage {
    const struct linear *linear;
    const float *in; /* rows to encode [T, I] */
    struct codes codes;
    struct products out;
    int64_t tokens, piece;
    int64_t ahead;    /* panels to the one that a member has next */
    uint8_t *partial; /* sums of the pieces so far */
};

static void encode_some(void *job, int64_t unit, int member) {
    const struct stage *stage = job;
    (void)member;
    const int64_t first = unit * ROWS_A_UNIT;
    vectors->encode_rows(stage->linear, stage->in, &stage->codes, first, least(stage->tokens, first + ROWS_A_UNIT));
}

static void project_some(void *job, int64_t unit, int member) {
    const struct stage *stage = job;
    (void)member;
    const int64_t first = unit * ROWS_A_UNIT;
    vectors->project_codes(stage->linear, &stage->codes, first, least(stage->tokens, first + ROWS_A_UNIT));
}

static void multiply_panel(void *job, int64_t unit, int member) {
    const struct stage *stage = job;
    (void)member;
    multiply(stage->linear, &stage->codes, stage->tokens, stage->piece, unit, stage->ahead, stage->partial, &stage->out);
}

/* Rows of codes begin a line apart, so that those of a tile do not fall on the same lines of the cache. */
static int64_t codes_stride(const struct linear *linear) { return row_bytes(linear) + LINE; }

/* Point a stage at a linear. */
static void turn_to(struct stage *stage, const struct linear *linear) {
    stage->linear = linear;
    stage->codes.stride = codes_stride(linear);
}

static void share_encoding(struct team *team, int member, struct stage *stage, const struct linear *linear, const float *in) {
    turn_to(stage, linear);
    stage->in = in;
    team_share(team, member, parts(stage->tokens, ROWS_A_UNIT), encode_some, stage);
}

static void share_product(struct team *team, int member, struct stage *stage, struct products out) {
    stage->out = out;
    stage->ahead = team_members(team);
    for (stage->piece = 0; stage->piece < product_pieces(stage->linear); stage->piece++)
        team_share(team, member, product_units(stage->linear, stage->tokens), multiply_panel, stage);
}

static struct products rows_of(float *y, int64_t outputs) {
    return (struct products){.y = y, .row_stride = outputs, .panel_stride = PANEL};
}

static struct products panels_of(float *y, int64_t tokens) {
    return (struct products){.y = y, .row_stride = PANEL, .panel_stride = tokens * PANEL};
}

static int64_t highest_rank(const struct linear *linear) {
    int64_t rank = 0;
    for (int64_t task = 0; task < linear->tasks; task++)
        rank = most(rank, linear->terms[task].rank);
    return rank;
}

/* Memory for all activations of a call, where it is much in large pages: the system gives it page by page as it is written to. */
static char *open_arena(int64_t size) {
    const int64_t page = 1 << 21;
    if (size < 2 * page)
        return aligned_alloc(LINE, rounded(size, LINE));
    char *arena = aligned_alloc(page, rounded(size, page));
#ifdef MADV_HUGEPAGE
    if (arena)
        madvise(arena, size, MADV_HUGEPAGE);
#endif
    return arena;
}

/* Take `bytes` of an arena, from a whole line on. */
static void *take(char **arena, int64_t bytes) {
    char *taken = *arena;
    *arena += rounded(bytes, LINE);
    return taken;
}

/* Bytes of the codes of so many tokens for any of these linears, and for their factors. */
struct need {
    int64_t tokens, codes, rank, partial;
};

static struct need need_for(int64_t tokens) { return (struct need){.tokens = tokens}; }

static void need_also(struct need *need, const struct linear *linear) {
    need->codes = most(need->codes, rounded(need->tokens, TILED_ROWS) * codes_stride(linear));
    need->rank = most(need->rank, highest_rank(linear));
    need->partial = most(need->partial, partial_size(linear, need->tokens));
}

static int64_t floats_size(int64_t count) { return rounded(count * (int64_t)sizeof(float), LINE); }

static int64_t needed_size(const struct need *need) {
    const int64_t floats = 2 * floats_size(need->tokens) + floats_size(need->tokens * need->rank);
    return rounded(need->codes, LINE) + floats + rounded(need->partial, LINE);
}

static void take_needed(char **arena, const struct need *need, const int32_t *tasks, struct stage *stage) {
    struct codes codes = {.rank = need->rank, .tasks = tasks};
    codes.codes = take(arena, need->codes);
    codes.scale = take(arena, floats_size(need->tokens));
    codes.low = take(arena, floats_size(need->tokens));
    codes.factors = take(arena, floats_size(need->tokens * need->rank));
    stage->codes = codes;
    stage->partial = take(arena, need->partial);
}

/* ---- one linear ---- */

struct single {
    struct stage stage;
    const float *x;
    float *y;
};

static void run_linear(void *job, struct team *team, int member) {
    const struct single *single = job;
    struct stage stage = single->stage;
    tiles_open();
    share_encoding(team, member, &stage, stage.linear, single->x);
    share_product(team, member, &stage, rows_of(single->y, stage.linear->outputs));
    tiles_close();
}

int fivefold_linear(const struct linear *linear, const int32_t *tasks, int64_t tokens, const float *x, float *y, int threads) {
    struct need need = need_for(tokens);
    need_also(&need, linear);
    char *arena = open_arena(needed_size(&need)), *at = arena;
    if (!arena)
        return -1;
    struct single single = {.stage = {.linear = linear, .tokens = tokens}, .x = x, .y = y};
    take_needed(&at, &need, tasks, &single.stage);
    team_run(threads, run_linear, &single);
    free(arena);
    return 0;
}

/* ---- the encoder ---- */

struct pass {
    const struct encoder *encoder;
    const struct pack *pack;
    float *x;      /* [T, D] */
    float *wide;   /* queries, keys and values in panels, or the inner activations: [T, F], of floats their codes */
    float *narrow; /* [T, D] */
    float *scratch; /* of each member */
    int64_t scratch_size;
    const struct norm *norm; /* of the stage that adds and normalises */
    struct stage stage;
};

static void attend_head(void *job, int64_t unit, int member) {
    const struct pass *pass = job;
    attend(pass->encoder, pass->pack, unit / pass->encoder->heads, unit % pass->encoder->heads, pass->wide,
           pass->scratch + member * pass->scratch_size, pass->narrow);
}

/* x = norm(x + narrow), and its codes for the linear that comes next, if any. */
static void settle_rows(void *job, int64_t unit, int member) {
    const struct pass *pass = job;
    const int64_t hidden = pass->encoder->hidden, first = unit * ROWS_A_UNIT, stop = least(pass->pack->tokens, first + ROWS_A_UNIT);
    (void)member;
    for (int64_t t = first; t < stop; t++)
        vectors->add_and_normalize(pass->norm, pass->x + t * hidden, pass->narrow + t * hidden, hidden, pass->x + t * hidden);
    if (pass->stage.linear)
        vectors->encode_rows(pass->stage.linear, pass->x, &pass->stage.codes, first, stop);
}

static void share_settling(struct team *team, int member, struct pass *pass, const struct norm *norm, const struct linear *next) {
    pass->norm = norm;
    pass->stage.linear = NULL;
    if (next)
        turn_to(&pass->stage, next);
    team_share(team, member, parts(pass->pack->tokens, ROWS_A_UNIT), settle_rows, pass);
}

/* narrow = the second linear of GELU of the first. In bytes the rows between them are whole before they are rounded; in floats they are
 * written as codes at once. */
static void share_mlp(struct team *team, int member, struct pass *pass, const struct layer *layer) {
    struct stage inner = pass->stage, *down = &pass->stage;
    if (layer->down->form == BYTES) {
        struct products out = rows_of(pass->wide, pass->encoder->inner);
        out.gelu = true;
        share_product(team, member, &pass->stage, out);
        share_encoding(team, member, down, layer->down, pass->wide);
    } else {
        down = &inner;
        inner.codes.codes = (uint8_t *)pass->wide;
        turn_to(&inner, layer->down);
        share_product(team, member, &pass->stage, (struct products){.codes = &inner.codes, .gelu = true});
        if (layer->down->tasks)
            team_share(team, member, parts(inner.tokens, ROWS_A_UNIT), project_some, &inner);
    }
    share_product(team, member, down, rows_of(pass->narrow, pass->encoder->hidden));
}

static void run_layers(void *job, struct team *team, int member) {
    struct pass pass = *(const struct pass *)job;
    const struct encoder *encoder = pass.encoder;
    tiles_open();
    share_encoding(team, member, &pass.stage, encoder->layers->qkv, pass.x);
    for (const struct layer *layer = encoder->layers, *end = layer + encoder->count; layer < end; layer++) {
        share_product(team, member, &pass.stage, panels_of(pass.wide, pass.pack->tokens));
        team_share(team, member, pass.pack->texts * encoder->heads, attend_head, &pass);
        share_encoding(team, member, &pass.stage, layer->out, pass.narrow);
        share_product(team, member, &pass.stage, rows_of(pass.narrow, encoder->hidden));
        share_settling(team, member, &pass, &layer->first, layer->up);
        share_mlp(team, member, &pass, layer);
        share_settling(team, member, &pass, &layer->second, layer + 1 < end ? layer[1].qkv : NULL);
    }
    tiles_close();
}

static int64_t longest_text(const struct pack *pack) {
    int64_t length = 0;
    for (int64_t i = 0; i < pack->texts; i++)
        length = most(length, pack->starts[i + 1] - pack->starts[i]);
    return length;
}

/* What all linears need, and bytes for what stands between them. */
static struct need encoder_need(const struct encoder *encoder, int64_t tokens, int64_t *wide) {
    struct need need = need_for(tokens);
    *wide = floats_size(tokens * most(rounded(3 * encoder->hidden, PANEL), encoder->inner));
    for (const struct layer *layer = encoder->layers; layer < encoder->layers + encoder->count; layer++) {
        const struct linear *linears[] = {layer->qkv, layer->out, layer->up, layer->down};
        for (int i = 0; i < 4; i++)
            need_also(&need, linears[i]);
        *wide = most(*wide, rounded(tokens, TILED_ROWS) * codes_stride(layer->down));
    }
    return need;
}

int fivefold_encode(const struct encoder *encoder, const struct pack *pack, float *x, int threads) {
    int64_t wide;
    const struct need need = encoder_need(encoder, pack->tokens, &wide);
    const int64_t narrow = floats_size(pack->tokens * encoder->hidden);
    struct pass pass = {.encoder = encoder, .pack = pack, .x = x, .stage = {.tokens = pack->tokens}};
    pass.scratch_size = rounded(attention_scratch(encoder, longest_text(pack)), LINE);
    const int64_t scratch = floats_size(threads * pass.scratch_size);
    char *arena = open_arena(wide + narrow + scratch + needed_size(&need)), *at = arena;
    if (!arena)
        return -1;
    pass.wide = take(&at, wide);
    pass.narrow = take(&at, narrow);
    pass.scratch = take(&at, scratch);
    take_needed(&at, &need, pack->tasks, &pass.stage);
    team_run(threads, run_layers, &pass);
    free(arena);
    return 0;
}

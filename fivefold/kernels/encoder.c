/* The layers one after the other, each as stages that all members of a team share; and what Python calls. */
#include "kernels.h"

#include <stdlib.h>

#define LINE 64         /* bytes of a line of a cache */
#define ROWS_A_UNIT 16  /* tokens of a unit of work where each is done by itself */

int fivefold_supported(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("bmi2") &&
           __builtin_cpu_supports("fma");
}

/* One stage: a linear, or what stands between two of them. Each member has its own. */
struct stage {
    const struct linear *linear;
    const float *in; /* rows to round [T, I] */
    struct codes codes;
    struct products out;
    int64_t tokens;
};

static void round_rows(void *job, int64_t unit, int member) {
    const struct stage *stage = job;
    (void)member;
    const int64_t first = unit * ROWS_A_UNIT;
    quantize_rows(stage->linear, stage->in, &stage->codes, first, least(stage->tokens, first + ROWS_A_UNIT));
}

static void multiply_panel(void *job, int64_t unit, int member) {
    const struct stage *stage = job;
    (void)member;
    multiply(stage->linear, &stage->codes, stage->tokens, unit, &stage->out);
}

/* Point a stage at a linear. Rows of codes begin a line apart, so that those of a tile do not fall on the same lines of the cache. */
static void turn_to(struct stage *stage, const struct linear *linear) {
    stage->linear = linear;
    stage->codes.stride = rounded(linear->inputs, LINE) + LINE;
}

static void share_rounding(struct team *team, int member, struct stage *stage, const struct linear *linear, const float *in) {
    turn_to(stage, linear);
    stage->in = in;
    team_share(team, member, parts(stage->tokens, ROWS_A_UNIT), round_rows, stage);
}

static void share_product(struct team *team, int member, struct stage *stage, struct products out) {
    stage->out = out;
    team_share(team, member, product_units(stage->linear, stage->tokens), multiply_panel, stage);
}

static struct products rows_of(float *y, int64_t outputs, bool gelu) { return (struct products){y, outputs, PANEL, gelu}; }

static struct products panels_of(float *y, int64_t tokens) { return (struct products){y, PANEL, tokens * PANEL, false}; }

static int64_t highest_rank(const struct linear *linear) {
    int64_t rank = 0;
    for (int64_t task = 0; task < linear->tasks; task++)
        rank = most(rank, linear->terms[task].rank);
    return rank;
}

/* Take `bytes` of an arena, from a whole line on. */
static void *take(char **arena, int64_t bytes) {
    char *taken = *arena;
    *arena += rounded(bytes, LINE);
    return taken;
}

static int64_t rows_size(int64_t tokens, int64_t inputs) { return rounded(tokens, TILED_ROWS) * (rounded(inputs, LINE) + LINE); }

static int64_t codes_size(int64_t tokens, int64_t inputs, int64_t rank) {
    return rows_size(tokens, inputs) + 2 * rounded(tokens * (int64_t)sizeof(float), LINE) +
           rounded(tokens * rank * (int64_t)sizeof(float), LINE);
}

static struct codes take_codes(char **arena, int64_t tokens, int64_t inputs, int64_t rank, const int32_t *tasks) {
    struct codes codes = {.rank = rank, .tasks = tasks};
    codes.codes = take(arena, rows_size(tokens, inputs));
    codes.scale = take(arena, tokens * sizeof(float));
    codes.low = take(arena, tokens * sizeof(float));
    codes.factors = take(arena, tokens * rank * sizeof(float));
    return codes;
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
    share_rounding(team, member, &stage, stage.linear, single->x);
    share_product(team, member, &stage, rows_of(single->y, stage.linear->outputs, false));
    tiles_close();
}

int fivefold_linear(const struct linear *linear, const int32_t *tasks, int64_t tokens, const float *x, float *y, int threads) {
    const int64_t rank = highest_rank(linear);
    char *arena = aligned_alloc(LINE, codes_size(tokens, linear->inputs, rank)), *at = arena;
    if (!arena)
        return -1;
    struct single single = {.stage = {.linear = linear, .tokens = tokens}, .x = x, .y = y};
    single.stage.codes = take_codes(&at, tokens, linear->inputs, rank, tasks);
    team_run(threads, run_linear, &single);
    free(arena);
    return 0;
}

/* ---- the encoder ---- */

struct pass {
    const struct encoder *encoder;
    const struct pack *pack;
    float *x;      /* [T, D] */
    float *wide;   /* queries, keys and values in panels, or the inner activations [T, F] */
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
        add_and_normalize(pass->norm, pass->x + t * hidden, pass->narrow + t * hidden, hidden, pass->x + t * hidden);
    if (pass->stage.linear)
        quantize_rows(pass->stage.linear, pass->x, &pass->stage.codes, first, stop);
}

static void share_settling(struct team *team, int member, struct pass *pass, const struct norm *norm, const struct linear *next) {
    pass->norm = norm;
    pass->stage.linear = NULL;
    if (next)
        turn_to(&pass->stage, next);
    team_share(team, member, parts(pass->pack->tokens, ROWS_A_UNIT), settle_rows, pass);
}

static void run_layers(void *job, struct team *team, int member) {
    struct pass pass = *(const struct pass *)job;
    const struct encoder *encoder = pass.encoder;
    tiles_open();
    share_rounding(team, member, &pass.stage, encoder->layers->qkv, pass.x);
    for (const struct layer *layer = encoder->layers, *end = layer + encoder->count; layer < end; layer++) {
        share_product(team, member, &pass.stage, panels_of(pass.wide, pass.pack->tokens));
        team_share(team, member, pass.pack->texts * encoder->heads, attend_head, &pass);
        share_rounding(team, member, &pass.stage, layer->out, pass.narrow);
        share_product(team, member, &pass.stage, rows_of(pass.narrow, encoder->hidden, false));
        share_settling(team, member, &pass, &layer->first, layer->up);
        share_product(team, member, &pass.stage, rows_of(pass.wide, encoder->inner, true));
        share_rounding(team, member, &pass.stage, layer->down, pass.wide);
        share_product(team, member, &pass.stage, rows_of(pass.narrow, encoder->hidden, false));
        share_settling(team, member, &pass, &layer->second, layer + 1 < end ? layer[1].qkv : NULL);
    }
    tiles_close();
}

static int64_t encoder_rank(const struct encoder *encoder) {
    int64_t rank = 0;
    for (const struct layer *layer = encoder->layers; layer < encoder->layers + encoder->count; layer++) {
        const struct linear *linears[] = {layer->qkv, layer->out, layer->up, layer->down};
        for (int i = 0; i < 4; i++)
            rank = most(rank, highest_rank(linears[i]));
    }
    return rank;
}

static int64_t longest_text(const struct pack *pack) {
    int64_t length = 0;
    for (int64_t i = 0; i < pack->texts; i++)
        length = most(length, pack->starts[i + 1] - pack->starts[i]);
    return length;
}

int fivefold_encode(const struct encoder *encoder, const struct pack *pack, float *x, int threads) {
    const int64_t hidden = encoder->hidden, inputs = most(hidden, encoder->inner), rank = encoder_rank(encoder), tokens = pack->tokens;
    const int64_t wide = tokens * most(rounded(3 * hidden, PANEL), encoder->inner) * (int64_t)sizeof(float);
    const int64_t narrow = tokens * hidden * (int64_t)sizeof(float);
    struct pass pass = {.encoder = encoder, .pack = pack, .x = x, .stage = {.tokens = tokens}};
    pass.scratch_size = rounded(attention_scratch(longest_text(pack), hidden / encoder->heads), LINE);
    const int64_t scratch = threads * pass.scratch_size * (int64_t)sizeof(float);
    const int64_t size = rounded(wide, LINE) + rounded(narrow, LINE) + scratch + codes_size(tokens, inputs, rank);
    char *arena = aligned_alloc(LINE, size), *at = arena;
    if (!arena)
        return -1;
    pass.wide = take(&at, wide);
    pass.narrow = take(&at, narrow);
    pass.scratch = take(&at, scratch);
    pass.stage.codes = take_codes(&at, tokens, inputs, rank, pack->tasks);
    team_run(threads, run_layers, &pass);
    free(arena);
    return 0;
}

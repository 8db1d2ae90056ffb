/* Attention within one text, one head at a time: exact softmax, by blocks of keys with a running maximum, so that memory grows with the
 * length and not with its square. In bfloat16 where the processor multiplies that (attention_bfloat16.c), else in float32 (attend.h).
 */
#include "kernels.h"

static bool in_bfloat16(const struct linear *linear) {
    return in_tiles(linear) || (linear->form != WHOLE && pairs_in_use());
}

int64_t attention_scratch(const struct encoder *encoder, int64_t length) {
    const int64_t head_dim = encoder->hidden / encoder->heads;
    if (in_bfloat16(encoder->layers->qkv))
        return bfloat16_scratch(length, head_dim, parts_of(encoder->layers->qkv));
    return (rounded(length, PANEL) + 2 * QUERIES) * head_dim + TILE * KEYS + 2 * QUERIES;
}

void attend(const struct encoder *encoder, const struct pack *pack, int64_t text, int64_t head, const float *qkv, float *scratch,
            float *mixed) {
    const int64_t start = pack->starts[text], hidden = encoder->hidden, head_dim = hidden / encoder->heads;
    const float *part[3];
    for (int i = 0; i < 3; i++) {
        const int64_t column = i * hidden + head * head_dim;
        part[i] = qkv + (column / PANEL * pack->tokens + start) * PANEL + column % PANEL;
    }
    const struct head one = {.queries = part[0],
                             .keys = part[1],
                             .values = part[2],
                             .length = pack->starts[text + 1] - start,
                             .head_dim = head_dim,
                             .mixed = mixed + start * hidden + head * head_dim,
                             .stride = hidden};
    const struct linear *linear = encoder->layers->qkv;
    if (in_bfloat16(linear))
        attend_in_bfloat16(pack, &one, parts_of(linear), in_tiles(linear), scratch);
    else
        vectors->attend(pack, &one, scratch);
}

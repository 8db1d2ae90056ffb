/* What is done by vectors of AVX2. */
#define WIDE 0
#include "attend.h"
#include "finish.h"
#include "rows.h"
#include "sums.h"

static bool supported(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
}

const struct vectors avx2 = {
    .supported = supported,
    .code_bytes = 2,
    .encode_rows = encode_rows,
    .project_codes = project_codes,
    .add_and_normalize = add_and_normalize,
    .sum_code_block = sum_code_block,
    .sum_float_block = sum_float_block,
    .finish_row = finish_row,
    .attend = attend_by_vectors,
};

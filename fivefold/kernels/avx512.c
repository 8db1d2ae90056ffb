/* What is done by vectors of AVX-512 VNNI. */
#define WIDE 1
#include "attend.h"
#include "finish.h"
#include "rows.h"
#include "sums.h"

static bool supported(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("bmi2") &&
           __builtin_cpu_supports("fma");
}

const struct vectors avx512 = {
    .supported = supported,
    .code_bytes = 1,
    .encode_rows = encode_rows,
    .project_codes = project_codes,
    .add_and_normalize = add_and_normalize,
    .sum_codes = sum_codes,
    .sum_float_block = sum_float_block,
    .finish_row = finish_row,
    .attend = attend_by_vectors,
};

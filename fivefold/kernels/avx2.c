/* What is done by vectors of AVX2. */
#define WIDE 0
#include "vectors.h"

static bool supported(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
}

const struct vectors avx2 = {OF_EITHER_WIDTH, .code_bytes = 2, .sum_code_block = sum_code_block};

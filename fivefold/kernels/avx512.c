/* What is done by vectors of AVX-512 VNNI. */
#define WIDE 1
#include "vectors.h"

static bool supported(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("bmi2") &&
           __builtin_cpu_supports("fma");
}

const struct vectors avx512 = {OF_EITHER_WIDTH, .code_bytes = 1, .sum_codes = sum_codes};

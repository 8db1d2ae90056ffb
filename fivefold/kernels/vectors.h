/* All that is done by vectors, of the width that whoever includes this says (simd.h). */
#include "attend.h"
#include "finish.h"
#include "rows.h"
#include "sums.h"

/* What vectors of both widths have. */
#define OF_EITHER_WIDTH \
    .supported = supported, .encode_rows = encode_rows, .project_codes = project_codes, .add_and_normalize = add_and_normalize, \
    .sum_float_block = sum_float_block, .finish_row = finish_row, .attend = attend_by_vectors

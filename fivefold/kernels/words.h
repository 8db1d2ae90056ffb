/* Sums of products by vectors of 512 bits: up to SUMMED_ROWS tokens by a panel, in registers, while inputs pass by a word at a time, which
 * is four bytes or two bfloat16. Whoever includes this says which: the name of a function it has declared (SUM_WORDS), what it needs of the processor
 * (WORDS_TARGET), and of the vectors of its sums their type (SUMS), one without anything (NO_SUMS) and how products are added to it
 * (ADD_WORDS).
 */
#define VECTORS (PANEL / LANES)
#define HALF 2 /* vectors of half a panel */

WORDS_TARGET static inline __attribute__((always_inline)) void sum_words(const int rows, const uint8_t *codes, int64_t stride,
                                                                         const uint8_t *panel, int64_t steps, const uint8_t *ahead,
                                                                         int64_t lines, void *into) {
    SUMS sums[SUMMED_ROWS][VECTORS];
    const uint8_t *row[SUMMED_ROWS];
    const int64_t half = steps * HALF * TILE_BYTES;
    UNROLL for (int r = 0; r < rows; r++) {
        row[r] = codes + r * stride;
        UNROLL for (int v = 0; v < VECTORS; v++) sums[r][v] = NO_SUMS;
    }
    for (int64_t k = 0; k < steps * LINE; k += WORD, panel += LINE) {
        if (k && k % LINE == 0)
            panel += (HALF - 1) * TILE_BYTES; /* to the next step's tiles */
        __m512i weights[VECTORS];
        UNROLL for (int v = 0; v < VECTORS; v++) weights[v] = _mm512_loadu_si512(panel + v / HALF * half + v % HALF * TILE_BYTES);
        for (int64_t line = 0; line < lines; line++, ahead += LINE)
            _mm_prefetch((const char *)ahead, _MM_HINT_T1);
        UNROLL for (int r = 0; r < rows; r++) {
            int32_t word;
            memcpy(&word, row[r] + k, WORD);
            const __m512i inputs = _mm512_set1_epi32(word);
            UNROLL for (int v = 0; v < VECTORS; v++) sums[r][v] = ADD_WORDS(sums[r][v], inputs, weights[v]);
        }
    }
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int v = 0; v < VECTORS; v++) memcpy((uint8_t *)into + (r * VECTORS + v) * LINE, &sums[r][v], LINE);
    }
}

/* For a number of rows that is known only here; its loops need all registers. */
WORDS_TARGET void SUM_WORDS(int64_t rows, const uint8_t *codes, int64_t stride, const uint8_t *panel, int64_t steps, const uint8_t *ahead,
                            int64_t lines, void *into) {
    switch (rows) {
    case 1: sum_words(1, codes, stride, panel, steps, ahead, lines, into); break;
    case 2: sum_words(2, codes, stride, panel, steps, ahead, lines, into); break;
    case 3: sum_words(3, codes, stride, panel, steps, ahead, lines, into); break;
    case 4: sum_words(4, codes, stride, panel, steps, ahead, lines, into); break;
    case 5: sum_words(5, codes, stride, panel, steps, ahead, lines, into); break;
    default: sum_words(SUMMED_ROWS, codes, stride, panel, steps, ahead, lines, into);
    }
}

#undef HALF
#undef VECTORS
#undef ADD_WORDS
#undef NO_SUMS
#undef SUMS
#undef WORDS_TARGET
#undef SUM_WORDS

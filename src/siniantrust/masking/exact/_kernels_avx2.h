/* The busiest passes on processors with AVX2, masking and unmasking for numbers of three limbs. Included by _kernels.c,
 * whose loops do the same elsewhere.
 *
 * Unmasking is that of the commonest form: two comparisons, scales by channel, and quantised values alone, to which steps
 * may be added. Between an answer and its steps everything stays in registers, in which 32 numbers lie as unpacking their
 * limbs leaves them: 0-3 and 16-19, 4-7 and 20-23, and so on. Packing puts them back in order. */
#include <immintrin.h>

#define AVX2 __attribute__((target("avx2")))
#define LANES 32
#define GROUPS 4
#define PAIR 2

/* Add pads to steps, as ``sinian_mask``; return how many were added, a multiple of 32. */
AVX2 static int64_t mask_most(int64_t count, const int8_t *steps, const uint8_t *pads, int64_t apart, uint8_t *sent) {
    __m256i zero = _mm256_setzero_si256(), one = _mm256_set1_epi8(1);
    int64_t at = 0;
    for (; at + LANES <= count; at += LANES) {
        __m256i step = _mm256_loadu_si256((const __m256i *)(steps + at));
        __m256i sum = _mm256_add_epi8(_mm256_loadu_si256((const __m256i *)(pads + at)), step);
        _mm256_storeu_si256((__m256i *)(sent + at), sum);
        /* What the limbs above get: 1, 0, or -1. */
        __m256i within = _mm256_cmpeq_epi8(_mm256_max_epu8(sum, step), sum);
        __m256i carry = _mm256_add_epi8(_mm256_andnot_si256(within, one), _mm256_cmpgt_epi8(zero, step));
        for (int limb = 1; limb < 3; limb++) {
            sum = _mm256_add_epi8(_mm256_loadu_si256((const __m256i *)(pads + limb * count + at)), carry);
            _mm256_storeu_si256((__m256i *)(sent + limb * apart + at), sum);
            carry = _mm256_and_si256(carry, _mm256_cmpeq_epi8(sum, _mm256_cmpgt_epi8(zero, carry)));
        }
    }
    return at;
}

/* What a lane is made with: of the layer, and of a channel. */
struct finishing {
    __m256 scale, bias, added_scale;
    __m256i low;
};

/* Take pads off the limbs of 32 numbers, and put them together. */
AVX2 INLINE void numbers(const uint8_t *from, int64_t apart, const uint8_t *pad, int64_t pads_apart,
                         __m256i results[GROUPS]) {
    __m256i ones = _mm256_set1_epi8(-1), zero = _mm256_setzero_si256();
    __m256i a = _mm256_loadu_si256((const __m256i *)from), b = _mm256_loadu_si256((const __m256i *)pad);
    __m256i lowest = _mm256_sub_epi8(a, b);
    __m256i borrowed = _mm256_xor_si256(_mm256_cmpeq_epi8(_mm256_max_epu8(a, b), a), ones);
    a = _mm256_loadu_si256((const __m256i *)(from + apart));
    b = _mm256_loadu_si256((const __m256i *)(pad + pads_apart));
    __m256i less = _mm256_sub_epi8(a, b), low = _mm256_add_epi8(less, borrowed);
    __m256i below = _mm256_xor_si256(_mm256_cmpeq_epi8(_mm256_max_epu8(a, b), a), ones);
    borrowed = _mm256_or_si256(below, _mm256_and_si256(borrowed, _mm256_cmpeq_epi8(less, zero)));
    a = _mm256_loadu_si256((const __m256i *)(from + 2 * apart));
    b = _mm256_loadu_si256((const __m256i *)(pad + 2 * pads_apart));
    __m256i high = _mm256_add_epi8(_mm256_sub_epi8(a, b), borrowed);
    __m256i sign = _mm256_cmpgt_epi8(zero, high);
    __m256i low_words = _mm256_unpacklo_epi8(lowest, low), high_words = _mm256_unpacklo_epi8(high, sign);
    results[0] = _mm256_unpacklo_epi16(low_words, high_words);
    results[1] = _mm256_unpackhi_epi16(low_words, high_words);
    low_words = _mm256_unpackhi_epi8(lowest, low);
    high_words = _mm256_unpackhi_epi8(high, sign);
    results[2] = _mm256_unpacklo_epi16(low_words, high_words);
    results[3] = _mm256_unpackhi_epi16(low_words, high_words);
}

/* Make steps of 32 numbers: those of ``step_of``, since rounding to even is what a processor does, and packing cuts off
 * what is beyond a byte. */
AVX2 INLINE __m256i finished(const __m256i results[GROUPS], const struct finishing *by, const int8_t *added_steps) {
    __m256i made[GROUPS], added[GROUPS];
    if (added_steps) {
        /* In the highest byte of a word: 2^24 times what they are. */
        __m256i steps = _mm256_loadu_si256((const __m256i *)added_steps), zero = _mm256_setzero_si256();
        __m256i first = _mm256_unpacklo_epi8(zero, steps), last = _mm256_unpackhi_epi8(zero, steps);
        added[0] = _mm256_unpacklo_epi16(zero, first);
        added[1] = _mm256_unpackhi_epi16(zero, first);
        added[2] = _mm256_unpacklo_epi16(zero, last);
        added[3] = _mm256_unpackhi_epi16(zero, last);
    }
    for (int g = 0; g < GROUPS; g++) {
        __m256 value = _mm256_add_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(results[g]), by->scale), by->bias);
        if (added_steps)
            value = _mm256_add_ps(value, _mm256_mul_ps(_mm256_cvtepi32_ps(added[g]), by->added_scale));
        made[g] = _mm256_cvtps_epi32(value);
    }
    __m256i first = _mm256_packs_epi32(made[0], made[1]), last = _mm256_packs_epi32(made[2], made[3]);
    return _mm256_max_epi8(_mm256_packs_epi16(first, last), by->low);
}

/* A number below 2^33 with the residue of one that is not beyond 2^62 - 2^31 in magnitude: 2^31 = 1. */
AVX2 INLINE __m256i folded(__m256i x) {
    __m256i prime = _mm256_set1_epi64x(PRIME);
    return _mm256_add_epi64(_mm256_and_si256(x, prime), _mm256_srli_epi64(x, 31));
}

/* As ``folded``, of what may be below zero. */
AVX2 INLINE __m256i lifted(__m256i x) {
    return folded(_mm256_add_epi64(x, _mm256_set1_epi64x(((int64_t)PRIME) << 31)));
}

/* Where the numbers of up to BLOCK positions of two channels lie. */
struct piece {
    const uint8_t *from[PAIR], *pads[PAIR];
    const int8_t *added[PAIR];
    int8_t *steps[PAIR];
    int64_t apart, pads_apart;
    const int32_t *weights[PAIR];
};

AVX2 INLINE void unmask_lanes(const struct piece *piece, int64_t at, int64_t lane, int together,
                              const struct finishing *by, __m256i sums[PAIR][PAIR]) {
    __m256i results[PAIR][GROUPS];
    for (int k = 0; k < together; k++) {
        numbers(piece->from[k] + at, piece->apart, piece->pads[k] + at, piece->pads_apart, results[k]);
        __m256i steps = finished(results[k], &by[k], piece->added[k] ? piece->added[k] + at : 0);
        _mm256_storeu_si256((__m256i *)(piece->steps[k] + at), steps);
    }
    for (int g = 0; g < GROUPS; g++)
        for (int r = 0; r < PAIR; r++) {
            __m256i weights = _mm256_loadu_si256((const __m256i *)(piece->weights[r] + lane) + g);
            __m256i odd = _mm256_srli_epi64(weights, 32);
            for (int k = 0; k < together; k++) {
                sums[k][r] = _mm256_add_epi64(sums[k][r], _mm256_mul_epi32(results[k][g], weights));
                __m256i others = _mm256_mul_epi32(_mm256_srli_epi64(results[k][g], 32), odd);
                sums[k][r] = _mm256_add_epi64(sums[k][r], others);
            }
        }
}

/* Return the block's sums, below 2^32: of the first channel with the weights of either comparison, then of the second. */
AVX2 INLINE __m256i unmask_block(const struct piece *piece, int64_t count, int together, const struct finishing *by) {
    __m256i sums[PAIR][PAIR];
    for (int k = 0; k < PAIR; k++)
        for (int r = 0; r < PAIR; r++)
            sums[k][r] = _mm256_setzero_si256();
    int64_t whole = count / LANES * LANES;
    for (int64_t at = 0; at < whole; at += LANES)
        unmask_lanes(piece, at, at, together, by, sums);
    /* Some of the last 32 numbers were there already: they get the same values again, and weigh nothing. */
    if (whole < count)
        unmask_lanes(piece, count - LANES, whole, together, by, sums);
    for (int k = 0; k < together; k++)
        for (int r = 0; r < PAIR; r++)
            sums[k][r] = lifted(sums[k][r]);
    __m256i first = _mm256_add_epi64(_mm256_unpacklo_epi64(sums[0][0], sums[0][1]),
                                     _mm256_unpackhi_epi64(sums[0][0], sums[0][1]));
    __m256i last = _mm256_add_epi64(_mm256_unpacklo_epi64(sums[1][0], sums[1][1]),
                                    _mm256_unpackhi_epi64(sums[1][0], sums[1][1]));
    return folded(_mm256_add_epi64(_mm256_permute2x128_si256(first, last, 0x20),
                                   _mm256_permute2x128_si256(first, last, 0x31)));
}

/* All channels are in one sum. */
AVX2 static void unmask_common(const struct unmasking *form, const struct items *item, int64_t channel,
                               int64_t channels, const uint8_t *words) {
    int64_t size = form->rows * form->width, lanes = (form->width + LANES - 1) / LANES * LANES;
    const int64_t *down[PAIR] = {form->down, form->down + form->rows};
    const int64_t *gather[PAIR] = {form->gather, form->gather + form->period};
    __m256i total = _mm256_setzero_si256();
    float added_scale = item->added_scale * form->inverse;
    struct finishing by[PAIR];
    for (int k = 0; k < PAIR; k++) {
        by[k].added_scale = _mm256_set1_ps(added_scale / (1 << 24));
        by[k].low = _mm256_set1_epi8(form->floor < 0.0f ? -127 : 0);
    }
    /* Two channels at a time, from two halves, so that memory is read onwards. */
    int64_t half = (channels + 1) / PAIR;
    for (int64_t first = channel; first < channel + half; first++) {
        int together = first + half < channel + channels ? PAIR : 1;
        int64_t numbers_of[PAIR] = {first % form->period, (first + half) % form->period};
        __m256i both = _mm256_setzero_si256();
        for (int k = 0; k < together; k++) {
            by[k].scale = _mm256_set1_ps(form->step_scale[numbers_of[k]]);
            by[k].bias = _mm256_set1_ps(form->step_bias[numbers_of[k]]);
        }
        for (int64_t row = 0; row < form->rows; row++) {
            __m256i weights = _mm256_setr_epi64x(down[0][row], down[1][row], down[0][row], down[1][row]);
            for (int64_t start = 0; start < form->width; start += BLOCK) {
                int64_t count = form->width - start < BLOCK ? form->width - start : BLOCK;
                struct piece piece = {.apart = item->numbers, .pads_apart = channels * size};
                for (int k = 0; k < together; k++) {
                    int64_t place = (first + k * half) * size + row * form->width + start;
                    piece.from[k] = item->answers + place;
                    piece.pads[k] = words + place - channel * size;
                    piece.added[k] = item->added_steps ? item->added_steps + place : 0;
                    piece.steps[k] = item->steps + place;
                }
                for (int r = 0; r < PAIR; r++)
                    piece.weights[r] = form->lanes + r * lanes + start;
                /* A constant lets the compiler unroll its loops. */
                __m256i sums = together == PAIR ? unmask_block(&piece, count, PAIR, by)
                                                : unmask_block(&piece, count, 1, by);
                both = _mm256_add_epi64(both, folded(_mm256_mul_epu32(sums, weights)));
            }
        }
        __m256i weights = together == PAIR ? _mm256_setr_epi64x(gather[0][numbers_of[0]], gather[1][numbers_of[0]],
                                                                gather[0][numbers_of[1]], gather[1][numbers_of[1]])
                                           : _mm256_setr_epi64x(gather[0][numbers_of[0]], gather[1][numbers_of[0]], 0, 0);
        total = _mm256_add_epi64(total, folded(_mm256_mul_epu32(folded(both), weights)));
    }
    int64_t each[GROUPS];
    _mm256_storeu_si256((__m256i *)each, total);
    for (int r = 0; r < PAIR; r++) {
        int64_t *sum = item->sums + channel / form->period * PAIR + r;
        *sum = residue(*sum + residue(each[r]) + residue(each[PAIR + r]));
    }
}

/* Totals of eight sums each, by channel, each below 2^31 in magnitude. */
AVX2 INLINE __m256i totals_of(const __m256i sums[CHANNELS]) {
    __m256i pairs = _mm256_hadd_epi32(_mm256_hadd_epi32(sums[0], sums[1]), _mm256_hadd_epi32(sums[2], sums[3]));
    return _mm256_cvtepi32_epi64(_mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1)));
}

/* As ``pieces``, but for whole multiples of the prime: numbers below 2^33, by channel. */
AVX2 INLINE __m256i weighed(int64_t count, int bits, int16_t steps[CHANNELS][WIDE_BLOCK], int64_t start,
                            const int16_t *high, const int16_t *low) {
    __m256i highs[CHANNELS], lows[CHANNELS];
    for (int k = 0; k < CHANNELS; k++)
        highs[k] = lows[k] = _mm256_setzero_si256();
    for (int64_t i = 0; i < count; i += 16) {
        __m256i above = _mm256_loadu_si256((const __m256i *)(high + i));
        __m256i below = _mm256_loadu_si256((const __m256i *)(low + i));
        for (int k = 0; k < CHANNELS; k++) {
            __m256i step = _mm256_loadu_si256((const __m256i *)(steps[k] + start + i));
            highs[k] = _mm256_add_epi32(highs[k], _mm256_madd_epi16(step, above));
            lows[k] = _mm256_add_epi32(lows[k], _mm256_madd_epi16(step, below));
        }
    }
    return lifted(_mm256_add_epi64(_mm256_slli_epi64(totals_of(highs), bits), totals_of(lows)));
}

/* As ``sinian_weigh``. */
AVX2 static void weigh_most(int64_t items, int64_t channels, int64_t rows, int64_t width, const int8_t *steps,
                            int64_t repetitions, int64_t down_taps, const int64_t *down, int64_t across_taps,
                            const int16_t *high, const int16_t *low, const int64_t *factors, int64_t *sums) {
    int16_t wide[CHANNELS][WIDE_BLOCK];
    int64_t stride = (width + 15) / 16 * 16, each = repetitions * down_taps * across_taps;
    memset(wide, 0, sizeof wide);
    memset(sums, 0, sizeof *sums * items * repetitions);
    for (int64_t begun = 0; begun < items * channels; begun += CHANNELS) {
        int64_t together = items * channels - begun < CHANNELS ? items * channels - begun : CHANNELS;
        const int64_t *factor[CHANNELS];
        for (int64_t k = 0; k < CHANNELS; k++)
            factor[k] = factors + (begun + (k < together ? k : 0)) % channels * each;
        __m256i totals[MOST_REPETITIONS];
        for (int64_t r = 0; r < repetitions; r++)
            totals[r] = _mm256_setzero_si256();
        for (int64_t row = 0; row < rows; row++)
            for (int64_t start = 0; start < width; start += WIDE_BLOCK) {
                int64_t count = width - start < WIDE_BLOCK ? width - start : WIDE_BLOCK;
                int64_t padded = (count + 15) / 16 * 16;
                widen(together, count, steps + (begun * rows + row) * width + start, rows * width, wide);
                for (int64_t r = 0; r < repetitions; r++)
                    for (int64_t tap = 0; tap < across_taps; tap++) {
                        __m256i weights = _mm256_setzero_si256();
                        for (int64_t turn = 0; turn < down_taps; turn++) {
                            int64_t at = (r * down_taps + turn) * across_taps + tap;
                            __m256i one = _mm256_setr_epi64x(factor[0][at], factor[1][at], factor[2][at], factor[3][at]);
                            __m256i of_row = _mm256_set1_epi64x(down[(r * down_taps + turn) * rows + row]);
                            weights = _mm256_add_epi64(weights, folded(_mm256_mul_epu32(one, of_row)));
                        }
                        int64_t place = (r * across_taps + tap) * stride + start;
                        __m256i lines = folded(weighed(padded, 11, wide, 0, high + place, low + place));
                        lines = _mm256_mul_epu32(lines, folded(weights));
                        totals[r] = _mm256_add_epi64(totals[r], folded(lines));
                    }
            }
        for (int64_t r = 0; r < repetitions; r++) {
            int64_t total[CHANNELS];
            _mm256_storeu_si256((__m256i *)total, totals[r]);
            for (int64_t k = 0; k < together; k++) {
                int64_t *sum = sums + (begun + k) / channels * repetitions + r;
                *sum = residue(*sum + residue(total[k]));
            }
        }
    }
}

/* As ``turn_any``. */
AVX2 static void turn_most(int64_t together, int64_t rows, int64_t width, const int8_t *steps, int64_t repetitions,
                           int64_t down_taps, const int64_t *down, int64_t heads, int64_t tails, const int16_t *high,
                           const int16_t *low, int16_t wide[CHANNELS][WIDE_BLOCK], struct turned *found) {
    int64_t padded = (width + 15) / 16 * 16;
    __m256i whole[MOST_REPETITIONS][TURNS];
    __m256i first[MOST_REPETITIONS][TURNS][EDGES], last[MOST_REPETITIONS][TURNS][EDGES];
    memset(whole, 0, sizeof whole[0] * repetitions);
    memset(first, 0, sizeof first[0] * repetitions);
    memset(last, 0, sizeof last[0] * repetitions);
    for (int64_t row = 0; row < rows; row++) {
        __m256i heading[EDGES], trailing[EDGES];
        widen(together, width, steps + row * width, rows * width, wide);
        for (int64_t i = 0; i < heads; i++)
            heading[i] = _mm256_setr_epi64x(wide[0][i], wide[1][i], wide[2][i], wide[3][i]);
        for (int64_t i = width - 1; i >= width - tails; i--)
            trailing[width - 1 - i] = _mm256_setr_epi64x(wide[0][i], wide[1][i], wide[2][i], wide[3][i]);
        for (int64_t r = 0; r < repetitions; r++) {
            __m256i lines = _mm256_setzero_si256();
            for (int64_t start = 0; start < padded; start += SHORT) {
                int64_t size = padded - start < SHORT ? padded - start : SHORT, place = r * padded + start;
                lines = _mm256_add_epi64(lines, weighed(size, 15, wide, start, high + place, low + place));
            }
            lines = folded(lines);
            for (int64_t turn = 0; turn < down_taps; turn++) {
                __m256i weight = _mm256_set1_epi64x(down[(r * down_taps + turn) * rows + row]);
                whole[r][turn] = _mm256_add_epi64(whole[r][turn], folded(_mm256_mul_epu32(lines, weight)));
                for (int64_t i = 0; i < heads; i++)
                    first[r][turn][i] = _mm256_add_epi64(first[r][turn][i], _mm256_mul_epi32(heading[i], weight));
                for (int64_t i = 0; i < tails; i++)
                    last[r][turn][i] = _mm256_add_epi64(last[r][turn][i], _mm256_mul_epi32(trailing[i], weight));
            }
        }
    }
    int64_t each[CHANNELS];
    for (int64_t r = 0; r < repetitions; r++)
        for (int64_t turn = 0; turn < down_taps; turn++) {
            _mm256_storeu_si256((__m256i *)each, whole[r][turn]);
            for (int64_t k = 0; k < together; k++)
                found->whole[r][k][turn] = residue(each[k]);
            for (int64_t i = 0; i < heads; i++) {
                _mm256_storeu_si256((__m256i *)each, first[r][turn][i]);
                for (int64_t k = 0; k < together; k++)
                    found->first[r][k][turn][i] = each[k];
            }
            for (int64_t i = 0; i < tails; i++) {
                _mm256_storeu_si256((__m256i *)each, last[r][turn][i]);
                for (int64_t k = 0; k < together; k++)
                    found->last[r][k][turn][i] = each[k];
            }
        }
}

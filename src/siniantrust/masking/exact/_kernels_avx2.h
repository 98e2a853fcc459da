/* The two busiest passes on processors with AVX2, for numbers of three limbs. Included by _kernels.c, whose loops do the
 * same elsewhere.
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

/* What stays the same for a channel. */
struct channel {
    __m256 scale, bias, added_scale, floor, inverse;
    __m256i low, lift;
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

/* Make steps of 32 numbers: those of ``step_of``, since rounding to even is what a processor does. */
AVX2 INLINE __m256i finished(const __m256i results[GROUPS], const struct channel *of, const int8_t *added_steps) {
    __m256i made[GROUPS], added[GROUPS];
    if (added_steps) {
        __m256i steps = _mm256_loadu_si256((const __m256i *)added_steps), zero = _mm256_setzero_si256();
        __m256i first = _mm256_unpacklo_epi8(zero, steps), last = _mm256_unpackhi_epi8(zero, steps);
        added[0] = _mm256_unpacklo_epi16(zero, first);
        added[1] = _mm256_unpackhi_epi16(zero, first);
        added[2] = _mm256_unpacklo_epi16(zero, last);
        added[3] = _mm256_unpackhi_epi16(zero, last);
    }
    for (int g = 0; g < GROUPS; g++) {
        __m256 value = _mm256_add_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(results[g]), of->scale), of->bias);
        if (added_steps) {
            __m256 step = _mm256_cvtepi32_ps(_mm256_srai_epi32(added[g], 24));
            value = _mm256_add_ps(value, _mm256_mul_ps(step, of->added_scale));
        }
        value = _mm256_mul_ps(_mm256_max_ps(value, of->floor), of->inverse);
        made[g] = _mm256_cvtps_epi32(_mm256_min_ps(value, _mm256_set1_ps(127.0f)));
    }
    __m256i first = _mm256_packs_epi32(made[0], made[1]), last = _mm256_packs_epi32(made[2], made[3]);
    return _mm256_max_epi8(_mm256_packs_epi16(first, last), of->low);
}

/* Weights of a group's numbers. */
AVX2 INLINE __m256i weights_of(const int32_t *across, int group) {
    __m128i first = _mm_loadu_si128((const __m128i *)(across + 4 * group));
    __m128i last = _mm_loadu_si128((const __m128i *)(across + 16 + 4 * group));
    return _mm256_inserti128_si256(_mm256_castsi128_si256(first), last, 1);
}

/* The residue of the sum of four lanes, each below 2^62 in magnitude. */
AVX2 INLINE int64_t total_of(__m256i lanes) {
    int64_t each[4], sum = 0;
    _mm256_storeu_si256((__m256i *)each, lanes);
    for (int i = 0; i < 4; i++)
        sum += (each[i] & PRIME) + (each[i] >> 31);
    return residue(sum);
}

/* One block of a row of ``together`` channels, in places of their own: up to BLOCK numbers. */
struct piece {
    const uint8_t *from[PAIR], *pads[PAIR];
    const int8_t *added[PAIR];
    int8_t *steps[PAIR];
    int64_t apart, pads_apart;
    const int32_t *across[PAIR];
};

AVX2 INLINE void unmask_lanes(const struct piece *piece, int64_t at, int together, const struct channel *channels,
                              __m256i sums[PAIR][PAIR], __m256i *largest) {
    __m256i results[PAIR][GROUPS];
    for (int k = 0; k < together; k++) {
        numbers(piece->from[k] + at, piece->apart, piece->pads[k] + at, piece->pads_apart, results[k]);
        __m256i steps = finished(results[k], &channels[k], piece->added[k] ? piece->added[k] + at : 0);
        _mm256_storeu_si256((__m256i *)(piece->steps[k] + at), steps);
        for (int g = 0; g < GROUPS; g++)
            *largest = _mm256_max_epu32(*largest, _mm256_add_epi32(results[k][g], channels[k].lift));
    }
    for (int g = 0; g < GROUPS; g++)
        for (int r = 0; r < PAIR; r++) {
            __m256i weights = weights_of(piece->across[r] + at, g), odd = _mm256_srli_epi64(weights, 32);
            for (int k = 0; k < together; k++) {
                sums[k][r] = _mm256_add_epi64(sums[k][r], _mm256_mul_epi32(results[k][g], weights));
                __m256i others = _mm256_mul_epi32(_mm256_srli_epi64(results[k][g], 32), odd);
                sums[k][r] = _mm256_add_epi64(sums[k][r], others);
            }
        }
}

AVX2 INLINE void unmask_block(const struct piece *piece, int64_t count, int together, const struct channel *channels,
                              int64_t lines[PAIR][PAIR], __m256i *largest) {
    __m256i sums[PAIR][PAIR];
    for (int k = 0; k < PAIR; k++)
        for (int r = 0; r < PAIR; r++)
            sums[k][r] = _mm256_setzero_si256();
    int64_t whole = count / LANES * LANES;
    for (int64_t at = 0; at < whole; at += LANES)
        unmask_lanes(piece, at, together, channels, sums, largest);
    if (whole < count) {
        /* Some of the last 32 numbers were there already: they get the same values again, and weigh nothing. */
        int32_t across[PAIR][LANES] = {{0}};
        struct piece rest = *piece;
        for (int r = 0; r < PAIR; r++) {
            memcpy(across[r] + LANES - (count - whole), piece->across[r] + whole, (count - whole) * sizeof across[r][0]);
            rest.across[r] = across[r] - (count - LANES);
        }
        unmask_lanes(&rest, count - LANES, together, channels, sums, largest);
    }
    for (int k = 0; k < together; k++)
        for (int r = 0; r < PAIR; r++)
            lines[k][r] = total_of(sums[k][r]);
}

AVX2 static int32_t unmask_common(const struct unmasking *form, const struct item *item, int64_t channel,
                                  int64_t channels, const uint8_t *words) {
    int64_t size = form->rows * form->width;
    __m256i largest = _mm256_setzero_si256();
    /* Two channels at a time, from two halves, so that memory is read onwards. */
    int64_t half = (channels + 1) / PAIR;
    for (int64_t first = channel; first < channel + half; first++) {
        int together = first + half < channel + channels ? PAIR : 1;
        int64_t totals[PAIR][PAIR] = {{0}};
        int64_t numbers_of[PAIR];
        struct channel of[PAIR];
        for (int k = 0; k < together; k++) {
            int64_t number = numbers_of[k] = (first + k * half) % form->period;
            of[k].scale = _mm256_set1_ps(form->scale[number]);
            of[k].bias = _mm256_set1_ps(form->bias[number]);
            of[k].added_scale = _mm256_set1_ps(item->added_scale);
            of[k].floor = _mm256_set1_ps(form->floor);
            of[k].inverse = _mm256_set1_ps(form->inverse);
            of[k].low = _mm256_set1_epi8(-127);
            of[k].lift = _mm256_set1_epi32((int32_t)form->most);
        }
        for (int64_t row = 0; row < form->rows; row++)
            for (int64_t start = 0; start < form->width; start += BLOCK) {
                int64_t count = form->width - start < BLOCK ? form->width - start : BLOCK, lines[PAIR][PAIR];
                struct piece piece = {.apart = item->apart, .pads_apart = channels * size};
                for (int k = 0; k < together; k++) {
                    int64_t place = (first + k * half) * size + row * form->width + start;
                    piece.from[k] = item->answers + place;
                    piece.pads[k] = words + place - channel * size;
                    piece.added[k] = item->added_steps ? item->added_steps + place : 0;
                    piece.steps[k] = item->steps + place;
                }
                for (int r = 0; r < PAIR; r++)
                    piece.across[r] = form->across + r * form->width + start;
                /* A constant lets the compiler unroll its loops. */
                if (together == PAIR)
                    unmask_block(&piece, count, PAIR, of, lines, &largest);
                else
                    unmask_block(&piece, count, 1, of, lines, &largest);
                for (int k = 0; k < together; k++)
                    for (int r = 0; r < PAIR; r++)
                        totals[k][r] += residue(form->down[r * form->rows + row] * lines[k][r]);
            }
        for (int k = 0; k < together; k++)
            for (int r = 0; r < PAIR; r++) {
                int64_t *sum = item->sums + (first + k * half - numbers_of[k]) / form->period * PAIR + r;
                int64_t weight = form->gather[r * form->period + numbers_of[k]];
                *sum = residue(*sum + residue(totals[k][r]) * weight);
            }
    }
    uint32_t each[8], most = 0;
    _mm256_storeu_si256((__m256i *)each, largest);
    for (int i = 0; i < 8; i++)
        most = each[i] > most ? each[i] : most;
    return most > 2 * (uint32_t)form->most ? OUT_OF_RANGE : 0;
}

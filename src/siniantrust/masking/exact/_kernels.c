/* The passes over large arrays that exact masks spend their time in: each reads and writes every number once.
 *
 * _passes.py has the same passes in numpy, and the tests hold the two together bit by bit. No header of Python is
 * needed: _native.py calls these through ctypes. Reductions are modulo the Mersenne prime 2^31 - 1.
 */
#include <stdint.h>
#include <string.h>

#define PRIME 0x7fffffff
#define HALF (PRIME / 2)
/* So many numbers at once stay in the first cache, and so many products of 51 bits stay below 2^63. */
#define BLOCK 4096
#define MOST_REPETITIONS 8

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define EVERY_PROCESSOR __attribute__((target_clones("arch=x86-64-v3", "default")))
#else
#define EVERY_PROCESSOR
#endif

/* The remainder of any signed 64-bit number: 2^31 = 1, twice. Shifts of negative numbers are arithmetic. */
static inline int64_t residue(int64_t x) {
    x = (x & PRIME) + (x >> 31);
    x = (x & PRIME) + (x >> 31);
    x += x < 0 ? PRIME : 0;
    return x >= PRIME ? x - PRIME : x;
}

/* Quantise ``values`` to +-127 steps and add pads. ``words`` are 32 random bits each, of which 31 make a pad.
 * Returns 1 if a value is not finite, 2 if a pad is no residue and must be drawn again, 3 for both. */
EVERY_PROCESSOR
int32_t sinian_mask(int64_t count, const float *restrict values, const uint32_t *restrict words, float inverse_scale,
                    uint32_t *restrict sent, int8_t *restrict steps) {
    uint32_t largest = 0, redraw = 0;
    for (int64_t i = 0; i < count; i++) {
        uint32_t magnitude;
        memcpy(&magnitude, values + i, sizeof magnitude);
        magnitude &= 0x7fffffff;
        largest = magnitude > largest ? magnitude : largest;
        float scaled = values[i] * inverse_scale;
        scaled = scaled > 127.0f ? 127.0f : scaled;
        scaled = scaled < -127.0f ? -127.0f : scaled;
        /* 1.5 * 2^23 leaves no room for a fraction: the sum is rounded to even, and its low bits are the integer. */
        float rounded = scaled + 12582912.0f;
        int32_t step;
        memcpy(&step, &rounded, sizeof step);
        step -= 0x4b400000;
        steps[i] = (int8_t)step;
        uint32_t pad = words[i] & PRIME;
        redraw |= pad == PRIME;
        uint32_t total = pad + (uint32_t)step + (step < 0 ? PRIME : 0u);
        sent[i] = total >= PRIME ? total - PRIME : total;
    }
    return (largest >= 0x7f800000) | (int32_t)(redraw << 1);
}

/* A remainder from 0 to 2^31 - 1, both included, of any unsigned 32-bit number. */
static inline int32_t folded(uint32_t x) {
    return (int32_t)((x & PRIME) + (x >> 31) - (x == UINT32_MAX ? PRIME : 0u));
}

static inline void unmask(int64_t count, const uint32_t *restrict answers, const uint32_t *restrict corrections,
                          int32_t *restrict results) {
    for (int64_t i = 0; i < count; i++) {
        int32_t result = folded(answers[i]) - folded(corrections[i]);
        result += result < -HALF ? PRIME : 0;
        result -= result > HALF ? PRIME : 0;
        results[i] = result;
    }
}

static inline int64_t weighted(int64_t count, const int32_t *restrict weights, const int32_t *restrict results) {
    int64_t total = 0;
    for (int64_t i = 0; i < count; i++)
        total += (int64_t)weights[i] * results[i];
    return residue(total);
}

static inline void finish(int64_t count, const int32_t *restrict results, const float *restrict scale,
                          const float *restrict bias, int by_column, const float *restrict addend, int relu,
                          float *restrict values) {
    if (by_column)
        for (int64_t i = 0; i < count; i++)
            values[i] = (float)results[i] * scale[i] + bias[i];
    else
        for (int64_t i = 0; i < count; i++)
            values[i] = (float)results[i] * *scale + *bias;
    if (addend)
        for (int64_t i = 0; i < count; i++)
            values[i] += addend[i];
    if (relu)
        for (int64_t i = 0; i < count; i++)
            values[i] = values[i] > 0 ? values[i] : 0;
}

/* Take corrections off answers, add up what the check of a device's work needs, and make floats of the results.
 *
 * Arrays are (channels, rows, width). ``scale`` and ``bias`` go with the column where ``by_column``, else with the
 * channel modulo ``period``. ``sums`` (repetitions, channels) gets each channel's sum over rows and columns, weighted
 * by ``down`` (repetitions, rows; residues) and ``across`` (repetitions, width; below 2^21). */
EVERY_PROCESSOR
void sinian_unmask(int64_t channels, int64_t rows, int64_t width, const uint32_t *answers, const uint32_t *corrections,
                   const float *scale, const float *bias, int64_t period, int32_t by_column, const float *addend,
                   int32_t relu, float *values, int64_t repetitions, const int32_t *across, const int64_t *down,
                   int64_t *sums) {
    int32_t results[BLOCK];
    for (int64_t channel = 0; channel < channels; channel++) {
        int64_t totals[MOST_REPETITIONS] = {0};
        for (int64_t row = 0; row < rows; row++)
            for (int64_t start = 0; start < width; start += BLOCK) {
                int64_t count = width - start < BLOCK ? width - start : BLOCK;
                int64_t place = (channel * rows + row) * width + start;
                int64_t number = by_column ? start : channel % period;
                unmask(count, answers + place, corrections + place, results);
                for (int64_t r = 0; r < repetitions; r++)
                    totals[r] += residue(down[r * rows + row] * weighted(count, across + r * width + start, results));
                finish(count, results, scale + number, bias + number, by_column, addend ? addend + place : 0, relu,
                       values + place);
            }
        for (int64_t r = 0; r < repetitions; r++)
            sums[r * channels + channel] = residue(totals[r]);
    }
}

/* Sums over one row of each of CHANNELS channels with one weight, in two pieces: reading weights costs more than
 * multiplying, so that they are read once for all. */
#define CHANNELS 4

static inline void products(int64_t count, int16_t steps[CHANNELS][BLOCK], const int16_t *restrict high,
                            const int16_t *restrict low, int64_t *lines) {
    int32_t high0 = 0, high1 = 0, high2 = 0, high3 = 0, low0 = 0, low1 = 0, low2 = 0, low3 = 0;
    for (int64_t i = 0; i < count; i++) {
        high0 += high[i] * steps[0][i];
        high1 += high[i] * steps[1][i];
        high2 += high[i] * steps[2][i];
        high3 += high[i] * steps[3][i];
        low0 += low[i] * steps[0][i];
        low1 += low[i] * steps[1][i];
        low2 += low[i] * steps[2][i];
        low3 += low[i] * steps[3][i];
    }
    lines[0] = residue(INT64_C(2048) * high0 + low0);
    lines[1] = residue(INT64_C(2048) * high1 + low1);
    lines[2] = residue(INT64_C(2048) * high2 + low2);
    lines[3] = residue(INT64_C(2048) * high3 + low3);
}

/* Weigh steps (channels, rows, width) for the check: ``sums`` (channels, repetitions, down_taps, across_taps) gets each
 * channel's sum over rows and columns, weighted by ``down`` (repetitions, down_taps, rows; residues) and by weights
 * below 2^21 in two pieces, ``high`` * 2^11 + ``low``, (repetitions, across_taps, width rounded up to 16). */
EVERY_PROCESSOR
void sinian_weigh(int64_t channels, int64_t rows, int64_t width, const int8_t *steps, int64_t repetitions,
                  int64_t down_taps, const int64_t *down, int64_t across_taps, const int16_t *high, const int16_t *low,
                  int64_t *sums) {
    int16_t wide[CHANNELS][BLOCK];
    int64_t stride = (width + 15) / 16 * 16, each = repetitions * down_taps * across_taps;
    memset(sums, 0, sizeof *sums * channels * each);
    memset(wide, 0, sizeof wide);
    for (int64_t channel = 0; channel < channels; channel += CHANNELS) {
        int64_t together = channels - channel < CHANNELS ? channels - channel : CHANNELS;
        for (int64_t row = 0; row < rows; row++)
            for (int64_t start = 0; start < width; start += BLOCK) {
                int64_t count = width - start < BLOCK ? width - start : BLOCK;
                int64_t padded = (count + 15) / 16 * 16;
                for (int64_t k = 0; k < together; k++) {
                    const int8_t *from = steps + ((channel + k) * rows + row) * width + start;
                    for (int64_t i = 0; i < count; i++)
                        wide[k][i] = from[i];
                    for (int64_t i = count; i < padded; i++)
                        wide[k][i] = 0;
                }
                for (int64_t r = 0; r < repetitions; r++)
                    for (int64_t tap = 0; tap < across_taps; tap++) {
                        int64_t lines[CHANNELS], place = (r * across_taps + tap) * stride + start;
                        products(padded, wide, high + place, low + place, lines);
                        int64_t *to = sums + channel * each + r * down_taps * across_taps + tap;
                        for (int64_t turn = 0; turn < down_taps; turn++)
                            for (int64_t k = 0; k < together; k++) {
                                int64_t *one = to + k * each + turn * across_taps;
                                *one = residue(*one + down[(r * down_taps + turn) * rows + row] * lines[k]);
                            }
                    }
            }
    }
}

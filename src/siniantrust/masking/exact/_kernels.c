/* The passes over large arrays that exact masks spend their time in.
 *
 * _passes.py has the same passes in numpy, and the tests hold the two together bit by bit. No header of Python is
 * needed: _native.py calls these through ctypes. Numbers cross as limbs of one byte (see _ring.py), one array for each
 * limb: sums and differences go limb by limb, with a carry, in vectors of bytes. The check's arithmetic is modulo the
 * Mersenne prime 2^31 - 1. Loops are written so that a compiler makes vectors of them.
 */
#include <stdint.h>
#include <string.h>

#define PRIME UINT32_C(0x7fffffff)
/* So many numbers at once stay in the first cache, and so many products of 52 bits stay below 2^63. */
#define BLOCK 1024
#define MOST_REPETITIONS 8
/* Inputs are weighed so many channels at a time, and so many of their columns. */
#define CHANNELS 4
#define WIDE_BLOCK 4096
#define NOT_FINITE 1
#define OUT_OF_RANGE 2
/* So many steps are an integer of 32 bits, however they were rounded before. */
#define MOST_REACH 1073741824.0f

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define EVERY_PROCESSOR __attribute__((target_clones("arch=x86-64-v3", "default")))
#else
#define EVERY_PROCESSOR
#endif
/* Where what is called has to be compiled for the processor that calls. */
#if defined(__GNUC__)
#define INLINE __attribute__((always_inline)) static inline
#else
#define INLINE static inline
#endif

/* The remainder of any signed 64-bit number: 2^31 = 1, twice. Shifts of negative numbers are arithmetic. */
INLINE int64_t residue(int64_t x) {
    x = (x & PRIME) + (x >> 31);
    x = (x & PRIME) + (x >> 31);
    x += x < 0 ? (int64_t)PRIME : 0;
    return x >= (int64_t)PRIME ? x - (int64_t)PRIME : x;
}

/* A step of 127 each way from what ``scaled`` is of them, as the low byte of a word. 1.5 * 2^23 leaves no room for a
 * fraction: the sum is rounded to even, and its low bits are the integer. */
INLINE int8_t step_of(float scaled, float low) {
    uint32_t bits;
    scaled = scaled < 127.0f ? scaled : 127.0f;
    scaled = scaled > low ? scaled : low;
    scaled += 12582912.0f;
    memcpy(&bits, &scaled, sizeof bits);
    return (int8_t)bits;
}

/* The highest bit is set where a value is infinite or not a number. */
INLINE uint32_t told(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (bits & 0x7fffffff) + 0x00800000;
}

/* Quantise ``values`` to +-127 steps. */
EVERY_PROCESSOR
int32_t sinian_quantise(int64_t count, const float *restrict values, float inverse, int8_t *restrict steps) {
    uint32_t bad = 0;
    for (int64_t i = 0; i < count; i++) {
        bad |= told(values[i]);
        steps[i] = step_of(values[i] * inverse, -127.0f);
    }
    return bad >> 31 ? NOT_FINITE : 0;
}

/* Add numbers of ``limbs`` bytes, whose limbs lie ``count`` bytes apart. */
EVERY_PROCESSOR
void sinian_add(int64_t count, int64_t limbs, const uint8_t *first, const uint8_t *second, uint8_t *sum) {
    uint8_t carries[BLOCK];
    for (int64_t start = 0; start < count; start += BLOCK) {
        int64_t size = count - start < BLOCK ? count - start : BLOCK;
        memset(carries, 0, size);
        for (int64_t limb = 0; limb < limbs; limb++) {
            const uint8_t *restrict a = first + limb * count + start, *restrict b = second + limb * count + start;
            uint8_t *restrict to = sum + limb * count + start;
            for (int64_t i = 0; i < size; i++) {
                uint8_t both = a[i] + b[i], whole = both + carries[i];
                carries[i] = (both < a[i]) | (whole < both);
                to[i] = whole;
            }
        }
    }
}

/* Add pads to steps from number ``first`` on. Limbs of pads lie ``count`` bytes apart, those that are sent ``apart``. */
EVERY_PROCESSOR
static void mask_from(int64_t first, int64_t count, int64_t limbs, const int8_t *steps, const uint8_t *pads,
                      int64_t apart, uint8_t *sent) {
    uint8_t carries[BLOCK];
    for (int64_t start = first; start < count; start += BLOCK) {
        int64_t size = count - start < BLOCK ? count - start : BLOCK;
        const int8_t *restrict from = steps + start;
        const uint8_t *restrict pad = pads + start;
        uint8_t *restrict to = sent + start;
        for (int64_t i = 0; i < size; i++) {
            uint8_t step = (uint8_t)from[i], sum = pad[i] + step;
            to[i] = sum;
            /* What the limbs above get: 1, 0, or, as a byte, -1. */
            carries[i] = (sum < step) - (step >> 7);
        }
        for (int64_t limb = 1; limb < limbs; limb++) {
            pad += count;
            to += apart;
            for (int64_t i = 0; i < size; i++) {
                uint8_t carry = carries[i], sum = pad[i] + carry;
                to[i] = sum;
                carries[i] = sum == (uint8_t)-(carry >> 7) ? carry : 0;
            }
        }
    }
}

/* The largest of each window of steps (channels, high, wide); windows hang over the edges by ``top`` and ``left``. */
EVERY_PROCESSOR
void sinian_pool(int64_t channels, int64_t high, int64_t wide, int64_t kernel_high, int64_t kernel_wide,
                 int64_t stride_high, int64_t stride_wide, int64_t top, int64_t left, int64_t out_high,
                 int64_t out_wide, const int8_t *steps, int8_t *pooled) {
    int8_t columns[BLOCK];
    for (int64_t line = 0; line < channels * out_high; line++) {
        const int8_t *image = steps + line / out_high * high * wide;
        int8_t *out = pooled + line * out_wide;
        int64_t first = line % out_high * stride_high - top, last = first + kernel_high;
        first = first < 0 ? 0 : first;
        last = last > high ? high : last;
        memset(out, -128, out_wide);
        for (int64_t start = 0; start < wide; start += BLOCK) {
            int64_t count = wide - start < BLOCK ? wide - start : BLOCK;
            memcpy(columns, image + first * wide + start, count);
            for (int64_t row = first + 1; row < last; row++) {
                const int8_t *restrict from = image + row * wide + start;
                for (int64_t i = 0; i < count; i++)
                    columns[i] = from[i] > columns[i] ? from[i] : columns[i];
            }
            for (int64_t tap = 0; tap < kernel_wide; tap++) {
                int64_t shift = tap - left - start, from = 0, to = out_wide;
                while (from < to && from * stride_wide + shift < 0)
                    from++;
                while (from < to && (to - 1) * stride_wide + shift >= count)
                    to--;
                if (stride_wide == 2)
                    for (int64_t i = from; i < to; i++)
                        out[i] = columns[2 * i + shift] > out[i] ? columns[2 * i + shift] : out[i];
                else
                    for (int64_t i = from; i < to; i++) {
                        int8_t step = columns[i * stride_wide + shift];
                        out[i] = step > out[i] ? step : out[i];
                    }
            }
        }
    }
}

/* What unmasking does in one layer. ``scale`` and ``bias`` go with the column where ``by_column``, else with the
 * channel modulo ``period``; ``step_scale`` and ``step_bias`` are the same in steps of 1 / ``inverse``, and nothing is
 * more than ``reach`` of them. ``across`` (repetitions, width; below 2^21, for three limbs 2^30 in magnitude), ``down``
 * (repetitions, rows; residues) and ``gather`` (repetitions, period; residues) are the check's weights, ``lanes`` those
 * across as _kernels_avx2.h wants them. No right result is beyond ``most``, which is looked at where there are four
 * limbs. */
struct unmasking {
    int64_t rows, width, period, by_column, repetitions, limbs, most;
    const float *scale, *bias, *step_scale, *step_bias;
    const int32_t *across, *lanes;
    const int64_t *down, *gather;
    float floor, inverse, reach;
};

/* Take one limb of pads off, with what the limb below borrowed. */
INLINE void take(int64_t count, const uint8_t *restrict from, const uint8_t *restrict pad, uint8_t *restrict borrowed,
                 uint8_t *restrict limb) {
    for (int64_t i = 0; i < count; i++) {
        uint8_t a = from[i], b = pad[i], apart = a - b, whole = apart - borrowed[i];
        borrowed[i] = (a < b) | (apart < whole);
        limb[i] = whole;
    }
}

/* Make numbers of limbs, and return the largest, each lifted by ``most``. */
INLINE uint32_t joined(int64_t count, int wide, const uint8_t *restrict lowest, const uint8_t *restrict low,
                       const uint8_t *restrict high, const int8_t *restrict highest, uint32_t most,
                       int32_t *restrict results) {
    uint32_t largest = 0;
    for (int64_t i = 0; i < count; i++) {
        int32_t word = (wide ? high[i] : (int8_t)high[i]) * (1 << 16) + low[i] * (1 << 8) + lowest[i];
        if (wide)
            word = (int32_t)((uint32_t)word + ((uint32_t)(int32_t)highest[i] << 24));
        results[i] = word;
        uint32_t lifted = (uint32_t)word + most;
        largest = lifted > largest ? lifted : largest;
    }
    return largest;
}

/* Take pads off numbers whose limbs lie so far apart; return as ``joined``. */
INLINE uint32_t unmask(int64_t count, int wide, const uint8_t *answers, int64_t answers_apart, const uint8_t *pads,
                       int64_t pads_apart, uint32_t most, int32_t *results) {
    uint8_t lowest[BLOCK], low[BLOCK], high[BLOCK], highest[BLOCK], borrowed[BLOCK];
    memset(borrowed, 0, count);
    take(count, answers, pads, borrowed, lowest);
    take(count, answers + answers_apart, pads + pads_apart, borrowed, low);
    take(count, answers + 2 * answers_apart, pads + 2 * pads_apart, borrowed, high);
    if (wide)
        take(count, answers + 3 * answers_apart, pads + 3 * pads_apart, borrowed, highest);
    return joined(count, wide, lowest, low, high, (const int8_t *)highest, most, results);
}

/* Sums of two channels' results with the weights of two comparisons at once: making vectors of them costs more than
 * multiplying. */
INLINE void weigh_pair(int64_t count, const int32_t *restrict first, const int32_t *restrict second,
                       const int32_t *restrict one, const int32_t *restrict other, int64_t lines[2][2]) {
    int64_t a = 0, b = 0, c = 0, d = 0;
    for (int64_t i = 0; i < count; i++) {
        a += (int64_t)first[i] * one[i];
        b += (int64_t)second[i] * one[i];
        c += (int64_t)first[i] * other[i];
        d += (int64_t)second[i] * other[i];
    }
    lines[0][0] = residue(a);
    lines[0][1] = residue(b);
    lines[1][0] = residue(c);
    lines[1][1] = residue(d);
}

enum addend { NO_ADDEND, FLOATS, STEPS };

/* Values that nothing keeps are worked out in steps. */
INLINE uint32_t finish(int64_t count, const int32_t *restrict results, const float *restrict scale,
                       const float *restrict bias, int by_column, const struct unmasking *form, enum addend kind,
                       const float *restrict added, const int8_t *restrict added_steps, float added_scale, int keep,
                       float *restrict values, int quantise, int8_t *restrict steps) {
    float floor = form->floor, inverse = keep ? form->inverse : 1.0f, low = floor < 0.0f ? -127.0f : 0.0f;
    added_scale *= keep ? 1.0f : form->inverse;
    uint32_t bad = 0;
    for (int64_t i = 0; i < count; i++) {
        float value = (float)results[i] * scale[by_column ? i : 0] + bias[by_column ? i : 0];
        if (kind == FLOATS) {
            value += added[i] * added_scale;
            bad |= told(value);
        }
        if (kind == STEPS)
            value += (float)added_steps[i] * added_scale;
        value = value > floor ? value : floor;
        if (keep)
            values[i] = value;
        if (quantise)
            steps[i] = step_of(value * inverse, low);
    }
    return bad;
}

/* Choosing here what ``finish`` does leaves no choice in its loop. */
INLINE uint32_t finish_as(int64_t count, const int32_t *results, const float *scale, const float *bias, int by_column,
                          const struct unmasking *form, const float *added, const int8_t *added_steps,
                          float added_scale, float *values, int8_t *steps) {
#define FINISH(kind, keep, quantise)                                                                                   \
    finish(count, results, scale, bias, by_column, form, kind, added, added_steps, added_scale, keep, values,          \
           quantise, steps)
    if (added)
        return values && steps ? FINISH(FLOATS, 1, 1) : values ? FINISH(FLOATS, 1, 0) : FINISH(FLOATS, 0, 1);
    if (added_steps)
        return values && steps ? FINISH(STEPS, 1, 1) : values ? FINISH(STEPS, 1, 0) : FINISH(STEPS, 0, 1);
    return values && steps ? FINISH(NO_ADDEND, 1, 1) : values ? FINISH(NO_ADDEND, 1, 0) : FINISH(NO_ADDEND, 0, 1);
#undef FINISH
}

/* The arrays of items of so many numbers each, which is how many bytes limbs of answers lie apart. Of values and steps one
 * may be none, of what is added both. ``sums`` (items, channels / period, repetitions) are added to. */
struct items {
    int64_t numbers;
    const uint8_t *answers;
    const float *added;
    const int8_t *added_steps;
    float *values;
    int8_t *steps;
    int64_t *sums;
    float added_scale;
};

/* As ``sinian_unmask``, in every form. */
EVERY_PROCESSOR
static int32_t unmask_any(const struct unmasking *form, const struct items *item, int64_t channel, int64_t channels,
                          const uint8_t *words) {
    int32_t results[2][BLOCK];
    int64_t size = form->rows * form->width;
    uint32_t largest = 0, bad = 0, most = (uint32_t)form->most;
    memset(results, 0, sizeof results);
    for (int64_t begun = channel; begun < channel + channels; begun += 2) {
        int64_t together = channel + channels - begun < 2 ? 1 : 2;
        int64_t totals[2][MOST_REPETITIONS + 1] = {{0}};
        for (int64_t row = 0; row < form->rows; row++)
            for (int64_t start = 0; start < form->width; start += BLOCK) {
                int64_t count = form->width - start < BLOCK ? form->width - start : BLOCK;
                for (int64_t k = 0; k < together; k++) {
                    int64_t place = (begun + k) * size + row * form->width + start;
                    int64_t number = form->by_column ? start : (begun + k) % form->period;
                    const uint8_t *from = item->answers + place, *pads = words + place - channel * size;
                    uint32_t found =
                        form->limbs == 3 ? unmask(count, 0, from, item->numbers, pads, channels * size, most, results[k])
                                         : unmask(count, 1, from, item->numbers, pads, channels * size, most, results[k]);
                    largest = found > largest ? found : largest;
                    const float *scale = (item->values ? form->scale : form->step_scale) + number;
                    const float *bias = (item->values ? form->bias : form->step_bias) + number;
                    const float *added = item->added ? item->added + place : 0;
                    const int8_t *added_steps = item->added_steps ? item->added_steps + place : 0;
                    float *values = item->values ? item->values + place : 0;
                    int8_t *steps = item->steps ? item->steps + place : 0;
                    bad |= form->by_column ? finish_as(count, results[k], scale, bias, 1, form, added, added_steps,
                                                       item->added_scale, values, steps)
                                           : finish_as(count, results[k], scale, bias, 0, form, added, added_steps,
                                                       item->added_scale, values, steps);
                }
                for (int64_t r = 0; r < form->repetitions; r += 2) {
                    int64_t lines[2][2], second = r + 1 < form->repetitions ? r + 1 : r;
                    weigh_pair(count, form->across + r * form->width + start,
                               form->across + second * form->width + start, results[0], results[1], lines);
                    for (int64_t k = 0; k < together; k++) {
                        totals[k][r] += residue(form->down[r * form->rows + row] * lines[k][0]);
                        totals[k][r + 1] += residue(form->down[second * form->rows + row] * lines[k][1]);
                    }
                }
            }
        for (int64_t k = 0; k < together; k++)
            for (int64_t r = 0; r < form->repetitions; r++) {
                int64_t *sum = item->sums + (begun + k) / form->period * form->repetitions + r;
                int64_t weight = form->gather[r * form->period + (begun + k) % form->period];
                *sum = residue(*sum + residue(totals[k][r]) * weight);
            }
    }
    return (bad >> 31 ? NOT_FINITE : 0) | (form->limbs > 3 && largest > 2 * most ? OUT_OF_RANGE : 0);
}

/* Of weights that are the powers of one number, those of another tap of a kernel are the same times a number, but for
 * what lies beyond the edges. */
#define TURNS 8
#define EDGES 8
#define SHORT 256

struct moving {
    int64_t taps;
    const int32_t *across;
    const int64_t *head, *tail, *moves;
};

/* Sums over the rows of CHANNELS channels, by the turns of a kernel's rows: of whole rows, residues, and of single columns
 * at either edge. */
struct turned {
    int64_t whole[MOST_REPETITIONS][CHANNELS][TURNS];
    int64_t first[MOST_REPETITIONS][CHANNELS][TURNS][EDGES], last[MOST_REPETITIONS][CHANNELS][TURNS][EDGES];
};

/* Make words of columns of so many channels, which lie so far apart; behind them come zeros up to a whole vector. */
INLINE void widen(int64_t together, int64_t count, const int8_t *steps, int64_t apart,
                  int16_t wide[CHANNELS][WIDE_BLOCK]) {
    for (int64_t k = 0; k < together; k++) {
        const int8_t *from = steps + k * apart;
        for (int64_t i = 0; i < count; i++)
            wide[k][i] = from[i];
        for (int64_t i = count; i % 16; i++)
            wide[k][i] = 0;
    }
}

/* PORTABLE is for tests of the loops that other processors run. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(PORTABLE)
#include "_kernels_avx2.h"
#define HAS_AVX2 __builtin_cpu_supports("avx2")
#else
#define HAS_AVX2 0
#define LANES 32
#define mask_most(...) 0
#define unmask_common(...)
#define weigh_most(...)
#define turn_most(...)
#endif

/* Add pads to steps. Limbs of pads lie ``count`` bytes apart, those that are sent ``apart``. */
void sinian_mask(int64_t count, int64_t limbs, const int8_t *steps, const uint8_t *pads, int64_t apart,
                 uint8_t *sent) {
    int64_t first = HAS_AVX2 && limbs == 3 ? mask_most(count, steps, pads, apart, sent) : 0;
    mask_from(first, count, limbs, steps, pads, apart, sent);
}

/* The arrays of one of them. */
static struct items one_of(const struct unmasking *form, const struct items *items, int64_t item) {
    struct items one = *items;
    int64_t before = item * items->numbers;
    one.answers += before * form->limbs;
    if (one.added)
        one.added += before;
    if (one.added_steps)
        one.added_steps += before;
    if (one.values)
        one.values += before;
    if (one.steps)
        one.steps += before;
    one.sums += item * (items->numbers / (form->rows * form->width) / form->period) * form->repetitions;
    return one;
}

/* Take pads off ``channels`` channels of (rows, width) of an item from ``channel`` on, add up what the check of a device's
 * work needs, and make floats, steps, or both of the results. ``words`` are of these channels alone. */
int32_t sinian_unmask(const struct unmasking *form, const struct items *items, int64_t item, int64_t channel,
                      int64_t channels, const uint8_t *words) {
    struct items one = one_of(form, items, item);
    float reach = form->reach + 127.0f * one.added_scale * form->inverse;
    int is_common = HAS_AVX2 && form->limbs == 3 && form->repetitions == 2 && !form->by_column &&
                    form->width >= LANES && one.steps && !one.values && !one.added && reach < MOST_REACH &&
                    channel % form->period + channels <= form->period;
    if (!is_common)
        return unmask_any(form, &one, channel, channels, words);
    unmask_common(form, &one, channel, channels, words);
    return 0;
}

/* Sums over one row of each of CHANNELS channels with one weight, in two pieces: reading weights costs more than
 * multiplying, so that they are read once for all. */
INLINE void pieces(int64_t count, int bits, int16_t steps[CHANNELS][WIDE_BLOCK], int64_t start,
                   const int16_t *restrict high, const int16_t *restrict low, int64_t *lines) {
    int32_t high0 = 0, high1 = 0, high2 = 0, high3 = 0, low0 = 0, low1 = 0, low2 = 0, low3 = 0;
    const int16_t *restrict steps0 = steps[0] + start, *restrict steps1 = steps[1] + start;
    const int16_t *restrict steps2 = steps[2] + start, *restrict steps3 = steps[3] + start;
    for (int64_t i = 0; i < count; i++) {
        high0 += high[i] * steps0[i];
        high1 += high[i] * steps1[i];
        high2 += high[i] * steps2[i];
        high3 += high[i] * steps3[i];
        low0 += low[i] * steps0[i];
        low1 += low[i] * steps1[i];
        low2 += low[i] * steps2[i];
        low3 += low[i] * steps3[i];
    }
    int64_t worth = INT64_C(1) << bits;
    lines[0] = residue(worth * high0 + low0);
    lines[1] = residue(worth * high1 + low1);
    lines[2] = residue(worth * high2 + low2);
    lines[3] = residue(worth * high3 + low3);
}

/* As ``sinian_weigh``, on every processor. */
EVERY_PROCESSOR
static void weigh_any(int64_t items, int64_t channels, int64_t rows, int64_t width, const int8_t *steps,
                      int64_t repetitions, int64_t down_taps, const int64_t *down, int64_t across_taps,
                      const int16_t *high, const int16_t *low, const int64_t *factors, int64_t *sums) {
    int16_t wide[CHANNELS][WIDE_BLOCK];
    int64_t stride = (width + 15) / 16 * 16;
    memset(wide, 0, sizeof wide);
    memset(sums, 0, sizeof *sums * items * repetitions);
    for (int64_t begun = 0; begun < items * channels; begun += CHANNELS) {
        int64_t together = items * channels - begun < CHANNELS ? items * channels - begun : CHANNELS;
        for (int64_t row = 0; row < rows; row++)
            for (int64_t start = 0; start < width; start += WIDE_BLOCK) {
                int64_t count = width - start < WIDE_BLOCK ? width - start : WIDE_BLOCK;
                int64_t padded = (count + 15) / 16 * 16;
                widen(together, count, steps + (begun * rows + row) * width + start, rows * width, wide);
                for (int64_t r = 0; r < repetitions; r++)
                    for (int64_t tap = 0; tap < across_taps; tap++) {
                        int64_t lines[CHANNELS], place = (r * across_taps + tap) * stride + start;
                        pieces(padded, 11, wide, 0, high + place, low + place, lines);
                        for (int64_t k = 0; k < together; k++) {
                            int64_t item = (begun + k) / channels, channel = (begun + k) % channels;
                            const int64_t *factor = factors + (channel * repetitions + r) * down_taps * across_taps;
                            int64_t total = 0;
                            for (int64_t turn = 0; turn < down_taps; turn++)
                                total += residue(down[(r * down_taps + turn) * rows + row] *
                                                 factor[turn * across_taps + tap]);
                            int64_t *sum = sums + item * repetitions + r;
                            *sum = residue(*sum + residue(total) * lines[k]);
                        }
                    }
            }
    }
}

/* Weigh steps (items, channels, rows, width) for the check: ``sums`` (items, repetitions) gets what each item's results
 * must sum up to. A row counts with weights below 2^21 in two pieces, ``high`` * 2^11 + ``low`` (repetitions,
 * across_taps, width rounded up to 16), its sums with ``down`` (repetitions, down_taps, rows; residues), and a
 * channel's with ``factors`` (channels, repetitions, down_taps, across_taps; residues). */
void sinian_weigh(int64_t items, int64_t channels, int64_t rows, int64_t width, const int8_t *steps,
                  int64_t repetitions, int64_t down_taps, const int64_t *down, int64_t across_taps,
                  const int16_t *high, const int16_t *low, const int64_t *factors, int64_t *sums) {
    if (HAS_AVX2 && repetitions <= MOST_REPETITIONS)
        weigh_most(items, channels, rows, width, steps, repetitions, down_taps, down, across_taps, high, low, factors,
                   sums);
    else
        weigh_any(items, channels, rows, width, steps, repetitions, down_taps, down, across_taps, high, low, factors,
                  sums);
}

/* Work out ``found`` of ``together`` channels (rows, width). ``wide`` is room for them. */
EVERY_PROCESSOR
static void turn_any(int64_t together, int64_t rows, int64_t width, const int8_t *steps, int64_t repetitions,
                     int64_t down_taps, const int64_t *down, int64_t heads, int64_t tails, const int16_t *high,
                     const int16_t *low, int16_t wide[CHANNELS][WIDE_BLOCK], struct turned *found) {
    int64_t padded = (width + 15) / 16 * 16;
    for (int64_t row = 0; row < rows; row++) {
        widen(together, width, steps + row * width, rows * width, wide);
        for (int64_t r = 0; r < repetitions; r++) {
            int64_t lines[CHANNELS] = {0};
            for (int64_t start = 0; start < padded; start += SHORT) {
                int64_t size = padded - start < SHORT ? padded - start : SHORT, part[CHANNELS];
                pieces(size, 15, wide, start, high + r * padded + start, low + r * padded + start, part);
                for (int64_t k = 0; k < CHANNELS; k++)
                    lines[k] += part[k];
            }
            for (int64_t k = 0; k < together; k++) {
                int64_t line = residue(lines[k]);
                for (int64_t turn = 0; turn < down_taps; turn++) {
                    int64_t weight = down[(r * down_taps + turn) * rows + row];
                    found->whole[r][k][turn] = residue(found->whole[r][k][turn] + residue(weight * line));
                    for (int64_t i = 0; i < heads; i++)
                        found->first[r][k][turn][i] += weight * wide[k][i];
                    for (int64_t i = 0; i < tails; i++)
                        found->last[r][k][turn][i] += weight * wide[k][width - 1 - i];
                }
            }
        }
    }
}

/* Weigh steps as ``sinian_weigh`` does, where a tap's weights are ``moves`` (repetitions, taps; residues) times those of
 * one row, ``across`` (repetitions, width; below 2^30 in magnitude; in two pieces: ``high`` * 2^15 + ``low``), without
 * the first ``head`` and the last ``tail`` columns. */
EVERY_PROCESSOR
void sinian_weigh_moved(int64_t items, int64_t channels, int64_t rows, int64_t width, const int8_t *steps,
                        int64_t repetitions, int64_t down_taps, const int64_t *down, const struct moving *moving,
                        const int16_t *high, const int16_t *low, const int64_t *factors, int64_t *sums) {
    int16_t wide[CHANNELS][WIDE_BLOCK];
    int64_t taps = moving->taps, heads = 0, tails = 0;
    struct turned found;
    for (int64_t tap = 0; tap < taps; tap++) {
        heads = moving->head[tap] > heads ? moving->head[tap] : heads;
        tails = moving->tail[tap] > tails ? moving->tail[tap] : tails;
    }
    memset(wide, 0, sizeof wide);
    memset(sums, 0, sizeof *sums * items * repetitions);
    for (int64_t begun = 0; begun < items * channels; begun += CHANNELS) {
        int64_t together = items * channels - begun < CHANNELS ? items * channels - begun : CHANNELS;
        const int8_t *from = steps + begun * rows * width;
        memset(&found, 0, sizeof found);
        if (HAS_AVX2)
            turn_most(together, rows, width, from, repetitions, down_taps, down, heads, tails, high, low, wide, &found);
        else
            turn_any(together, rows, width, from, repetitions, down_taps, down, heads, tails, high, low, wide, &found);
        for (int64_t r = 0; r < repetitions; r++)
            for (int64_t k = 0; k < together; k++) {
                const int32_t *across = moving->across + r * width;
                int64_t item = (begun + k) / channels, channel = (begun + k) % channels, total = 0;
                const int64_t *factor = factors + (channel * repetitions + r) * down_taps * taps;
                for (int64_t turn = 0; turn < down_taps; turn++)
                    for (int64_t tap = 0; tap < taps; tap++) {
                        int64_t inside = found.whole[r][k][turn];
                        for (int64_t i = 0; i < moving->head[tap]; i++)
                            inside -= residue(residue(found.first[r][k][turn][i]) * across[i]);
                        for (int64_t i = 0; i < moving->tail[tap]; i++)
                            inside -= residue(residue(found.last[r][k][turn][i]) * across[width - 1 - i]);
                        inside = residue(residue(inside) * moving->moves[r * taps + tap]);
                        total += residue(inside * factor[turn * taps + tap]);
                    }
                int64_t *sum = sums + item * repetitions + r;
                *sum = residue(*sum + residue(total));
            }
    }
}

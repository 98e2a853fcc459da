/* The operators of a lowered part, in C99 that needs no library but memcpy.
 *
 * Tensors are dense and row-major. The compiler must keep to IEEE arithmetic and to aliasing as written:
 * -ffp-contract=off -fno-fast-math -fno-math-errno -fno-strict-aliasing.
 */
#ifndef SINIANTRUST_KERNELS_H
#define SINIANTRUST_KERNELS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Where a window (of a convolution or a pooling) moves over planes. */
struct window {
    int32_t batch, channels, height, width, out_height, out_width;
    int32_t kernel_height, kernel_width, stride_y, stride_x, pad_top, pad_left, dilation_y, dilation_x;
};

/* A row of positions, those of a window's tap that lie inside the plane: from `first` up to, not including, `end`. */
struct range {
    int32_t first, end;
};

static inline struct range inside(int32_t size, int32_t out_size, int32_t stride, int32_t shift)
{
    struct range found = {0, out_size};
    if (shift < 0)
        found.first = (-shift + stride - 1) / stride;
    if (size - shift <= 0)
        found.end = 0;
    else if ((size - shift - 1) / stride + 1 < out_size)
        found.end = (size - shift - 1) / stride + 1;
    return found;
}

/* ---- broadcasting ---- */

/* Results have MAX_RANK axes, leading ones of size 1. Operands have a step for each: one of 0 repeats them along it. */
#define MAX_RANK 6
#define ROW (MAX_RANK - 2)
#define COLUMN (MAX_RANK - 1)

/* The axes before the last two are a batch of matrices: how many there are, and where one lies in an operand. */
static inline int32_t matrices(const int32_t *shape)
{
    int32_t count = 1;
    for (int axis = 0; axis < ROW; axis++)
        count *= shape[axis];
    return count;
}

static inline size_t matrix_at(int32_t item, const int32_t *shape, const int32_t *steps)
{
    size_t offset = 0;
    for (int axis = ROW - 1; axis >= 0; axis--) {
        offset += (size_t)(item % shape[axis]) * steps[axis];
        item /= shape[axis];
    }
    return offset;
}

/* ---- float32 ---- */

static inline void conv_f32(const struct window *s, int32_t filters, int32_t groups, const float *x, const float *w,
                            const float *bias, float *y)
{
    const int32_t depth = s->channels / groups, per_group = filters / groups;
    const int32_t plane = s->height * s->width, out_plane = s->out_height * s->out_width;
    for (int32_t item = 0; item < s->batch; item++)
        for (int32_t filter = 0; filter < filters; filter++) {
            float *to = y + ((size_t)item * filters + filter) * out_plane;
            const float *taps = w + (size_t)filter * depth * s->kernel_height * s->kernel_width;
            for (int32_t i = 0; i < out_plane; i++)
                to[i] = bias ? bias[filter] : 0.0f;
            for (int32_t channel = 0; channel < depth; channel++) {
                const float *from = x + ((size_t)item * s->channels + (filter / per_group) * depth + channel) * plane;
                for (int32_t ky = 0; ky < s->kernel_height; ky++)
                    for (int32_t kx = 0; kx < s->kernel_width; kx++) {
                        const float tap = *taps++;
                        const int32_t dy = ky * s->dilation_y - s->pad_top, dx = kx * s->dilation_x - s->pad_left;
                        const struct range rows = inside(s->height, s->out_height, s->stride_y, dy);
                        const struct range columns = inside(s->width, s->out_width, s->stride_x, dx);
                        for (int32_t row = rows.first; row < rows.end; row++) {
                            const float *line = from + (row * s->stride_y + dy) * s->width + dx;
                            float *target = to + row * s->out_width;
                            for (int32_t column = columns.first; column < columns.end; column++)
                                target[column] += tap * line[column * s->stride_x];
                        }
                    }
            }
        }
}

/* y = alpha * a b + beta * c, for each matrix of a batch; `k` is what a's rows and b's columns have in common. */
static inline void gemm_f32(const int32_t *shape, int32_t k, float alpha, float beta, const int32_t *a_steps,
                            const int32_t *b_steps, const int32_t *c_steps, const float *a, const float *b,
                            const float *c, float *y)
{
    const int32_t a_row = a_steps[ROW], a_column = a_steps[COLUMN], b_row = b_steps[ROW], b_column = b_steps[COLUMN];
    const int32_t batch = matrices(shape), m = shape[ROW], n = shape[COLUMN];
    for (int32_t item = 0; item < batch; item++) {
        const float *left = a + matrix_at(item, shape, a_steps), *right = b + matrix_at(item, shape, b_steps);
        for (int32_t i = 0; i < m; i++)
            for (int32_t j = 0; j < n; j++) {
                float sum = 0.0f;
                for (int32_t l = 0; l < k; l++)
                    sum += left[i * a_row + l * a_column] * right[l * b_row + j * b_column];
                *y++ = alpha * sum + (c ? beta * c[i * c_steps[ROW] + j * c_steps[COLUMN]] : 0.0f);
            }
    }
}

static inline void average_pool_f32(const struct window *s, int32_t count_padding, const float *x, float *y)
{
    for (int32_t plane = 0; plane < s->batch * s->channels; plane++, x += s->height * s->width)
        for (int32_t row = 0; row < s->out_height; row++)
            for (int32_t column = 0; column < s->out_width; column++) {
                float sum = 0.0f;
                int32_t count = 0;
                for (int32_t ky = 0; ky < s->kernel_height; ky++)
                    for (int32_t kx = 0; kx < s->kernel_width; kx++) {
                        const int32_t iy = row * s->stride_y + ky * s->dilation_y - s->pad_top;
                        const int32_t ix = column * s->stride_x + kx * s->dilation_x - s->pad_left;
                        if (iy < 0 || iy >= s->height || ix < 0 || ix >= s->width)
                            continue;
                        sum += x[iy * s->width + ix];
                        count++;
                    }
                *y++ = sum / (float)(count_padding ? s->kernel_height * s->kernel_width : count);
            }
}

static inline void max_pool_f32(const struct window *s, const float *x, float *y)
{
    for (int32_t plane = 0; plane < s->batch * s->channels; plane++, x += s->height * s->width)
        for (int32_t row = 0; row < s->out_height; row++)
            for (int32_t column = 0; column < s->out_width; column++) {
                float most = -__builtin_inff();
                for (int32_t ky = 0; ky < s->kernel_height; ky++)
                    for (int32_t kx = 0; kx < s->kernel_width; kx++) {
                        const int32_t iy = row * s->stride_y + ky * s->dilation_y - s->pad_top;
                        const int32_t ix = column * s->stride_x + kx * s->dilation_x - s->pad_left;
                        if (iy >= 0 && iy < s->height && ix >= 0 && ix < s->width && x[iy * s->width + ix] > most)
                            most = x[iy * s->width + ix];
                    }
                *y++ = most;
            }
}

static inline void global_average_f32(int32_t planes, int32_t size, const float *x, float *y)
{
    for (int32_t plane = 0; plane < planes; plane++) {
        float sum = 0.0f;
        for (int32_t i = 0; i < size; i++)
            sum += *x++;
        y[plane] = sum / (float)size;
    }
}

static inline void global_max_f32(int32_t planes, int32_t size, const float *x, float *y)
{
    for (int32_t plane = 0; plane < planes; plane++) {
        float most = *x;
        for (int32_t i = 0; i < size; i++, x++)
            most = *x > most ? *x : most;
        y[plane] = most;
    }
}

static inline void l2_f32(int32_t count, int32_t size, const float *x, float *y)
{
    for (int32_t line = 0; line < count; line++) {
        double sum = 0.0;
        for (int32_t i = 0; i < size; i++, x++)
            sum += (double)*x * (double)*x;
        y[line] = (float)__builtin_sqrt(sum);
    }
}

static inline void batch_norm_f32(int32_t batch, int32_t channels, int32_t size, float epsilon, const float *x,
                                  const float *scale, const float *bias, const float *mean, const float *variance,
                                  float *y)
{
    for (int32_t plane = 0; plane < batch * channels; plane++) {
        const int32_t channel = plane % channels;
        const float factor = scale[channel] / __builtin_sqrtf(variance[channel] + epsilon);
        for (int32_t i = 0; i < size; i++)
            *y++ = (*x++ - mean[channel]) * factor + bias[channel];
    }
}

/* A comparison that is false for NaN lets NaN pass. */
static inline void relu_f32(int32_t size, const float *x, float *y)
{
    for (int32_t i = 0; i < size; i++)
        y[i] = x[i] < 0.0f ? 0.0f : x[i];
}

static inline void leaky_relu_f32(int32_t size, float alpha, const float *x, float *y)
{
    for (int32_t i = 0; i < size; i++)
        y[i] = x[i] < 0.0f ? alpha * x[i] : x[i];
}

static inline void clip_f32(int32_t size, const float *low, const float *high, const float *x, float *y)
{
    for (int32_t i = 0; i < size; i++) {
        float value = x[i];
        if (low && value < *low)
            value = *low;
        if (high && value > *high)
            value = *high;
        y[i] = value;
    }
}

static inline void abs_f32(int32_t size, const float *x, float *y)
{
    for (int32_t i = 0; i < size; i++)
        y[i] = __builtin_fabsf(x[i]);
}

/* From 2^23 on a float has no fraction. What is whole already stays as it is, -0.0, infinities and NaN too. */
static inline void floor_f32(int32_t size, const float *x, float *y)
{
    for (int32_t i = 0; i < size; i++) {
        const int inside = x[i] > -8388608.0f && x[i] < 8388608.0f;
        const float whole = inside ? (float)(int32_t)x[i] : x[i];
        y[i] = whole > x[i] ? whole - 1.0f : whole < x[i] ? whole : x[i];
    }
}

static inline float hard_sigmoid(float alpha, float beta, float value)
{
    value = alpha * value + beta;
    return value < 0.0f ? 0.0f : value > 1.0f ? 1.0f : value;
}

static inline void hard_sigmoid_f32(int32_t size, float alpha, float beta, const float *x, float *y)
{
    for (int32_t i = 0; i < size; i++)
        y[i] = hard_sigmoid(alpha, beta, x[i]);
}

static inline void hard_swish_f32(int32_t size, const float *x, float *y)
{
    for (int32_t i = 0; i < size; i++)
        y[i] = x[i] * hard_sigmoid(1.0f / 6.0f, 0.5f, x[i]);
}

enum binary { ADD, SUB, MUL, DIV, MAX, MIN, PRELU };

static inline float combine(enum binary operation, float a, float b)
{
    switch (operation) {
    case ADD: return a + b;
    case SUB: return a - b;
    case MUL: return a * b;
    case DIV: return a / b;
    case MAX: return a < b ? b : a;
    case MIN: return b < a ? b : a;
    default: return a < 0.0f ? a * b : a;
    }
}

static inline void binary_f32(enum binary operation, const int32_t *shape, const int32_t *a_steps,
                              const int32_t *b_steps, const float *a, const float *b, float *y)
{
    int32_t at[MAX_RANK] = {0}, left = 0, right = 0;
    for (;;) {
        for (int32_t i = 0; i < shape[MAX_RANK - 1]; i++)
            *y++ = combine(operation, a[left + i * a_steps[MAX_RANK - 1]], b[right + i * b_steps[MAX_RANK - 1]]);
        int axis = MAX_RANK - 2;
        for (; axis >= 0; axis--) {
            left += a_steps[axis];
            right += b_steps[axis];
            if (++at[axis] < shape[axis])
                break;
            left -= at[axis] * a_steps[axis];
            right -= at[axis] * b_steps[axis];
            at[axis] = 0;
        }
        if (axis < 0)
            return;
    }
}

/* ---- integers ---- */

enum integer { U8, S8, S32, S64 };

static inline int32_t load(const void *from, enum integer kind, size_t at)
{
    switch (kind) {
    case U8: return ((const uint8_t *)from)[at];
    case S8: return ((const int8_t *)from)[at];
    default: return ((const int32_t *)from)[at];
    }
}

/* In weights, inputs and outputs, 64 bits lie at multiples of 4 bytes: hence memcpy. */
static inline int64_t load_wide(const void *from, enum integer kind, size_t at)
{
    int64_t value;
    if (kind != S64)
        return load(from, kind, at);
    memcpy(&value, (const uint8_t *)from + at * sizeof value, sizeof value);
    return value;
}

/* Into 32 bits: the lower ones, as ONNX casts integers. */
static inline void store_wide(void *to, enum integer kind, size_t at, int64_t value)
{
    const uint32_t lower = (uint32_t)value;
    if (kind == S64)
        memcpy((uint8_t *)to + at * sizeof value, &value, sizeof value);
    else
        memcpy((uint8_t *)to + at * sizeof lower, &lower, sizeof lower);
}

static inline void cast_integers(int32_t size, enum integer from, enum integer to, const void *x, void *y)
{
    for (int32_t i = 0; i < size; i++)
        store_wide(y, to, (size_t)i, load_wide(x, from, (size_t)i));
}

static inline void cast_to_f32(int32_t size, enum integer from, const void *x, float *y)
{
    for (int32_t i = 0; i < size; i++)
        y[i] = (float)load_wide(x, from, (size_t)i);
}

/* Towards zero. ONNX leaves open what becomes of a number without a place: here it is the nearest one, NaN is 0. */
static inline void cast_from_f32(int32_t size, enum integer to, const float *x, void *y)
{
    const int64_t most = to == S64 ? INT64_MAX : INT32_MAX;
    const float limit = to == S64 ? 9223372036854775808.0f : 2147483648.0f;
    for (int32_t i = 0; i < size; i++) {
        const float value = x[i];
        int64_t whole = 0;
        if (value >= limit)
            whole = most;
        else if (value <= -limit)
            whole = -most - 1;
        else if (value > -limit)
            whole = (int64_t)value;
        store_wide(y, to, (size_t)i, whole);
    }
}

/* A quantised operand: `scale` and `zero` (may be absent: 0) hold one number, or with a step of 1 one per channel. */
struct quantised {
    const void *data;
    enum integer kind;
    const float *scale;
    const void *zero;
    int32_t step;
};

static inline int32_t zero_of(const struct quantised *q, int32_t channel)
{
    return q->zero ? load(q->zero, q->kind, (size_t)channel * q->step) : 0;
}

/* Clamp, round half to even, shift by the zero point: what ONNX calls saturate(round(value) + zero). */
static inline uint8_t to_8_bits(float value, enum integer kind, int32_t zero)
{
    const float low = (float)((kind == S8 ? -128 : 0) - zero), high = (float)((kind == S8 ? 127 : 255) - zero);
    const float nearest = 12582912.0f; /* 1.5 * 2^23: adding it leaves no room for a fraction */
    value = value > low ? value : low;
    value = value < high ? value : high;
    return (uint8_t)((int32_t)((value + nearest) - nearest) + zero);
}

static inline int32_t convolve(const struct window *s, const struct quantised *x, const struct quantised *w,
                               int32_t depth, size_t from, size_t taps, int32_t row, int32_t column, int32_t w_zero)
{
    const int32_t x_zero = zero_of(x, 0);
    int32_t sum = 0;
    for (int32_t channel = 0; channel < depth; channel++, from += (size_t)s->height * s->width)
        for (int32_t ky = 0; ky < s->kernel_height; ky++)
            for (int32_t kx = 0; kx < s->kernel_width; kx++, taps++) {
                const int32_t iy = row * s->stride_y + ky * s->dilation_y - s->pad_top;
                const int32_t ix = column * s->stride_x + kx * s->dilation_x - s->pad_left;
                if (iy >= 0 && iy < s->height && ix >= 0 && ix < s->width)
                    sum += (load(x->data, x->kind, from + (size_t)iy * s->width + ix) - x_zero) *
                           (load(w->data, w->kind, taps) - w_zero);
            }
    return sum;
}

/* Into 8 bits where `y` has a scale (QLinearConv), else into 32 (ConvInteger). */
static inline void conv_integer(const struct window *s, int32_t filters, int32_t groups, const struct quantised *x,
                                const struct quantised *w, const struct quantised *y, const int32_t *bias, void *out)
{
    const int32_t depth = s->channels / groups, per_group = filters / groups;
    size_t at = 0;
    for (int32_t item = 0; item < s->batch; item++)
        for (int32_t filter = 0; filter < filters; filter++) {
            const size_t from = ((size_t)item * s->channels + (filter / per_group) * depth) * s->height * s->width;
            const size_t taps = (size_t)filter * depth * s->kernel_height * s->kernel_width;
            for (int32_t row = 0; row < s->out_height; row++)
                for (int32_t column = 0; column < s->out_width; column++, at++) {
                    int32_t sum = convolve(s, x, w, depth, from, taps, row, column, zero_of(w, filter));
                    if (!y) {
                        ((int32_t *)out)[at] = sum;
                        continue;
                    }
                    sum += bias ? bias[filter] : 0;
                    const float scale = *x->scale * w->scale[(size_t)filter * w->step] / *y->scale;
                    ((uint8_t *)out)[at] = to_8_bits((float)sum * scale, y->kind, zero_of(y, 0));
                }
        }
}

/* Into 8 bits where `y` has a scale (QLinearMatMul), else into 32 (MatMulInteger). */
static inline void matmul_integer(const int32_t *shape, int32_t k, const int32_t *a_steps, const int32_t *b_steps,
                                  const struct quantised *a, const struct quantised *b, const struct quantised *y,
                                  void *out)
{
    const int32_t batch = matrices(shape), m = shape[ROW], n = shape[COLUMN];
    size_t at = 0;
    for (int32_t item = 0; item < batch; item++) {
        const size_t left = matrix_at(item, shape, a_steps), right = matrix_at(item, shape, b_steps);
        for (int32_t i = 0; i < m; i++)
            for (int32_t j = 0; j < n; j++, at++) {
                int32_t sum = 0;
                for (int32_t l = 0; l < k; l++) {
                    const size_t a_at = left + (size_t)i * a_steps[ROW] + (size_t)l * a_steps[COLUMN];
                    const size_t b_at = right + (size_t)l * b_steps[ROW] + (size_t)j * b_steps[COLUMN];
                    sum += (load(a->data, a->kind, a_at) - zero_of(a, 0)) *
                           (load(b->data, b->kind, b_at) - zero_of(b, j));
                }
                if (!y) {
                    ((int32_t *)out)[at] = sum;
                    continue;
                }
                const float scale = *a->scale * b->scale[(size_t)j * b->step] / *y->scale;
                ((uint8_t *)out)[at] = to_8_bits((float)sum * scale, y->kind, zero_of(y, 0));
            }
    }
}

static inline void quantise(int32_t outer, int32_t channels, int32_t inner, const struct quantised *y, const float *x,
                            void *out)
{
    uint8_t *to = out;
    for (int32_t plane = 0; plane < outer * channels; plane++)
        for (int32_t i = 0; i < inner; i++) {
            const int32_t channel = plane % channels;
            *to++ = to_8_bits(*x++ / y->scale[(size_t)channel * y->step], y->kind, zero_of(y, channel));
        }
}

static inline void dequantise(int32_t outer, int32_t channels, int32_t inner, const struct quantised *x, float *y)
{
    size_t at = 0;
    for (int32_t plane = 0; plane < outer * channels; plane++)
        for (int32_t i = 0; i < inner; i++, at++) {
            const int32_t channel = plane % channels;
            y[at] = (float)(load(x->data, x->kind, at) - zero_of(x, channel)) * x->scale[(size_t)channel * x->step];
        }
}

static inline void max_pool_integer(const struct window *s, enum integer kind, const void *x, void *y)
{
    uint8_t *to = y;
    size_t from = 0;
    for (int32_t plane = 0; plane < s->batch * s->channels; plane++, from += (size_t)s->height * s->width)
        for (int32_t row = 0; row < s->out_height; row++)
            for (int32_t column = 0; column < s->out_width; column++) {
                int32_t most = kind == S8 ? -128 : 0;
                for (int32_t ky = 0; ky < s->kernel_height; ky++)
                    for (int32_t kx = 0; kx < s->kernel_width; kx++) {
                        const int32_t iy = row * s->stride_y + ky * s->dilation_y - s->pad_top;
                        const int32_t ix = column * s->stride_x + kx * s->dilation_x - s->pad_left;
                        if (iy < 0 || iy >= s->height || ix < 0 || ix >= s->width)
                            continue;
                        const int32_t value = load(x, kind, from + (size_t)iy * s->width + ix);
                        most = value > most ? value : most;
                    }
                *to++ = (uint8_t)most;
            }
}

/* ---- bytes ---- */

/* Copy `count` blocks of `size` bytes, in the target `step` bytes apart and shifted by `offset`. */
static inline void copy_blocks(int32_t count, int32_t size, int32_t step, int32_t offset, const void *from, void *to)
{
    for (int32_t i = 0; i < count; i++)
        memcpy((uint8_t *)to + offset + (size_t)i * step, (const uint8_t *)from + (size_t)i * size, (size_t)size);
}

/* From each of `outer` rows of `length` blocks of `size` bytes, pick `count`. Negative indices count from the end; one
 * that is out of range picks the nearest block, so that nothing outside the row is read. */
static inline void gather(int32_t outer, int32_t length, int32_t size, int32_t count, enum integer kind,
                          const void *from, const void *indices, void *to)
{
    const uint8_t *row = from;
    uint8_t *target = to;
    for (int32_t i = 0; i < outer; i++, row += (size_t)length * size)
        for (int32_t j = 0; j < count; j++, target += size) {
            int64_t index = load_wide(indices, kind, (size_t)j);
            index = index < 0 ? index + length : index;
            index = index < 0 ? 0 : index >= length ? length - 1 : index;
            memcpy(target, row + (size_t)index * size, (size_t)size);
        }
}

#endif

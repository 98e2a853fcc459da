/* Random numbers of a law, from even words of 64 bits. An application has no mathematical library: exponential numbers
 * come by von Neumann's comparisons (1951) and normal ones by Karney's algorithm N (ACM TOMS 42, 2016), which need no
 * more than sums and products. Both are exact but for the 53 bits of the even numbers that they compare.
 *
 * Whoever includes this defines ``uint64_t random_word(void)`` before. */
#ifndef SINIANTRUST_LAWS_H
#define SINIANTRUST_LAWS_H

#include <stdbool.h>
#include <stdint.h>

enum law { NORMAL = 0, UNIFORM = 1, LAPLACE = 2, BERNOULLI = 3 };

/* A whole multiple of 2^-53 on [0, 1). */
static double even_number(void)
{
    return (double)(random_word() >> 11) * 0x1p-53;
}

/* A whole multiple of 2^-24 on [0, 1): single precision holds all of them. */
static float even_single(void)
{
    return (float)(random_word() >> 40) * 0x1p-24f;
}

/* True with probability exp(-x), for x on [0, 1]: the first number that is not below the one before it, x at first, has
 * an odd place. */
static bool happens_exp(double x)
{
    bool odd = true;

    for (double last = x, next = even_number(); next < last; next = even_number()) {
        last = next;
        odd = !odd;
    }
    return odd;
}

/* Exponential with mean 1: of runs that fall, the first with an odd length begins with the fraction. */
static double exponential(void)
{
    for (double whole = 0;; whole++) {
        const double first = even_number();

        if (happens_exp(first))
            return whole + first;
    }
}

static bool all_happen_exp(double x, uint32_t times)
{
    for (uint32_t time = 0; time < times; time++)
        if (!happens_exp(x))
            return false;
    return true;
}

/* Either sign alike. */
static double signed_number(double magnitude)
{
    return random_word() >> 63 ? -magnitude : magnitude;
}

/* Normal with mean 0 and variance 1. */
static double normal(void)
{
    for (;;) {
        uint32_t whole = 0;

        while (happens_exp(0.5))
            whole++;
        if (whole > 1 && !all_happen_exp(0.5, whole * (whole - 1)))
            continue;
        const double part = even_number();

        if (all_happen_exp(part * (2 * whole + part) / (2 * whole + 2), whole + 1))
            return signed_number(whole + part);
    }
}

/* Fill numbers of a law, times ``factor``, plus ``shift``, which of Bernoulli numbers is the probability of a 1 instead. */
static void fill(float *numbers, uint32_t count, enum law law, double shift, double factor)
{
    for (uint32_t i = 0; i < count; i++) {
        double number = 0;

        switch (law) {
        case NORMAL:
            number = normal();
            break;
        case UNIFORM:
            number = even_single();
            break;
        case LAPLACE:
            number = signed_number(exponential());
            break;
        case BERNOULLI:
            numbers[i] = (float)(even_single() >= 1 - shift ? factor : 0);
            continue;
        }
        numbers[i] = (float)(number * factor + shift);
    }
}

#endif

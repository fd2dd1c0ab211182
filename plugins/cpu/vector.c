/* vector.c -- loops over many values, built for several instruction sets and chosen when the plugin
 * is loaded.
 *
 * Every value is computed by the same operations in the same order on all of them (no contraction,
 * sums in LANES fixed lanes), so the choice changes the speed and not the bits.
 */
#include <math.h>

#include "cpu.h"

enum { LANES = 16 };

typedef union bits {
    float f;
    uint32_t u;
} bits;

/* e^x within 2 ulp: x = n ln 2 + r, |r| <= ln 2 / 2, a polynomial of degree 6 for e^r, n into the
 * exponent. Below -87 the result is 0, above 88 it is that of 88. */
static inline float exp_one(float x) {
    const float top = x > 88.0f ? 88.0f : x;
    const float low = top < -87.0f ? -87.0f : top;
    const float shifted = low * 1.44269504f + 12582912.0f; /* the sum drops the fraction: nearest */
    const float n = shifted - 12582912.0f;
    const float r = (low - n * 0.693359375f) - n * -2.12194440e-4f;
    float p = 1.3981999507e-3f + 1.9875691500e-4f * r;
    p = 8.3334519073e-3f + p * r;
    p = 4.1665795894e-2f + p * r;
    p = 1.6666665459e-1f + p * r;
    p = 5.0000001201e-1f + p * r;
    p = p * (r * r) + r + 1.0f;
    /* n from the last bits of `shifted`: a conversion would not be defined where x is a NaN. */
    const bits whole = {.f = shifted}, one_and_half = {.f = 12582912.0f};
    const bits scale = {.u = (whole.u - one_and_half.u + 127) << 23};
    const float y = p * scale.f;
    return x < -87.0f ? 0.0f : y;
}

MANY_ISAS static void exp_row(const float *x, float shift, float *y, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] = exp_one(x[i] - shift);
}

MANY_ISAS static float max_row(const float *x, int64_t n) {
    float top[LANES];
    int64_t i = 0;
    for (int l = 0; l < LANES; l++) top[l] = -INFINITY;
    for (; i + LANES <= n; i += LANES)
        for (int l = 0; l < LANES; l++) top[l] = x[i + l] > top[l] ? x[i + l] : top[l];
    for (; i < n; i++) top[0] = x[i] > top[0] ? x[i] : top[0];
    for (int l = 1; l < LANES; l++) top[0] = top[l] > top[0] ? top[l] : top[0];
    return top[0];
}

MANY_ISAS static double sum_row(const float *x, int64_t n) {
    double sum[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int l = 0; l < LANES; l++) sum[l] += (double)x[i + l];
    for (; i < n; i++) sum[0] += (double)x[i];
    for (int l = 1; l < LANES; l++) sum[0] += sum[l];
    return sum[0];
}

MANY_ISAS static double dot_row(const float *x, const float *y, int64_t n) {
    double sum[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int l = 0; l < LANES; l++) sum[l] += (double)x[i + l] * (double)y[i + l];
    for (; i < n; i++) sum[0] += (double)x[i] * (double)y[i];
    for (int l = 1; l < LANES; l++) sum[0] += sum[l];
    return sum[0];
}

MANY_ISAS static void swiglu_row(const float *gate, const float *up, float *mid, int64_t n) {
    for (int64_t i = 0; i < n; i++) mid[i] = up[i] * (gate[i] / (1.0f + exp_one(-gate[i])));
}

/* d(up) = d * silu(gate);  d(gate) = d * up * s * (1 + gate * (1 - s)), s = sigmoid(gate). */
MANY_ISAS static void swiglu_bwd_row(
    const float *d, const float *gate, const float *up, float *dgate, float *dup, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        const float g = gate[i], u = up[i], s = 1.0f / (1.0f + exp_one(-g));
        dup[i] = d[i] * g * s;
        dgate[i] = d[i] * u * s * (1.0f + g * (1.0f - s));
    }
}

/* Clones are reached through these: gcc would export the clones' own names. */
void cpu_exp_row(const float *x, float shift, float *y, int64_t n) { exp_row(x, shift, y, n); }
float cpu_max_row(const float *x, int64_t n) { return max_row(x, n); }
double cpu_sum_row(const float *x, int64_t n) { return sum_row(x, n); }
double cpu_dot_row(const float *x, const float *y, int64_t n) { return dot_row(x, y, n); }
void cpu_swiglu_row(const float *gate, const float *up, float *mid, int64_t n) {
    swiglu_row(gate, up, mid, n);
}
void cpu_swiglu_bwd_row(
    const float *d, const float *gate, const float *up, float *dgate, float *dup, int64_t n) {
    swiglu_bwd_row(d, gate, up, dgate, dup, n);
}

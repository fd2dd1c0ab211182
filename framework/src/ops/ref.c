/* ref.c -- reads and writes tensors of any float dtype as doubles, for the reference kernels.
 *
 * Narrow dtypes are rounded from the double in one step: a double first rounded to odd at fp32 keeps
 * every bit that rounding to nearest at fewer bits can ask for.
 */
#include "ops/ref.h"

#include "ops/quant4.h"

#include <math.h>
#include <string.h>

static float float_of_bits(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* The fp32 bits of v rounded to odd: of the two neighbours of an inexact v, the one whose last bit is 1. */
static uint32_t bits_rounded_to_odd(double v) {
    const float f = (float)v;
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if (isnan(v) || (double)f == v || (bits & 1)) return bits;
    return fabs((double)f) < fabs(v) ? bits + 1 : bits - 1;
}

static uint16_t bf16_of(double v) {
    const uint32_t bits = bits_rounded_to_odd(v);
    if (isnan(v)) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static double double_of_f16(uint16_t h) {
    const int exponent = h >> 10 & 31, mantissa = h & 1023;
    double v;
    if (exponent == 31)
        v = mantissa ? (double)NAN : (double)INFINITY;
    else if (exponent == 0)
        v = ldexp(mantissa, -24);
    else
        v = ldexp(mantissa + 1024, exponent - 25);
    return h & 0x8000 ? -v : v;
}

static uint16_t f16_of(double v) {
    const uint32_t bits = bits_rounded_to_odd(v), sign = bits >> 16 & 0x8000,
                   size = bits & 0x7fffffff;
    if (isnan(v)) return (uint16_t)(sign | 0x7e00);
    if (size >= 0x477ff000) return (uint16_t)(sign | 0x7c00); /* 65520 and more */
    /* Below 2^-14 the step is 2^-24 throughout; above, ten bits of the mantissa stay. */
    const uint32_t exponent = size >> 23, drop = exponent >= 113 ? 13 : 126 - exponent;
    if (drop > 24) return (uint16_t)sign; /* under half of the smallest subnormal, 2^-25 */
    uint32_t keep = exponent >= 113 ? size - (112u << 23) : (size & 0x7fffff) | 0x800000;
    const uint32_t odd = keep >> drop & 1;
    keep = (keep + (1u << (drop - 1)) - 1 + odd) >> drop;
    return (uint16_t)(sign | keep);
}

static void read_values(const qfw_tensor *t, int64_t first, int64_t step, int64_t n, double *out) {
    const char *const data = ref_data(t);
#define READ(type, widen)                                                                          \
    for (int64_t i = 0; i < n; i++) {                                                              \
        const type v = ((const type *)(const void *)data)[first + i * step];                       \
        out[i] = (widen);                                                                          \
    }                                                                                              \
    break
    switch (t->dtype) {
    case QFW_F32: READ(float, (double)v);
    case QFW_F64: READ(double, v);
    case QFW_BF16: READ(uint16_t, (double)float_of_bits((uint32_t)v << 16));
    case QFW_F16: READ(uint16_t, double_of_f16(v));
    case QFW_I32: READ(int32_t, (double)v);
    case QFW_U8: READ(uint8_t, (double)v);
    default: break;
    }
#undef READ
}

static void write_values(
    const qfw_tensor *t, int64_t first, int64_t step, int64_t n, const double *in) {
    char *const data = ref_data(t);
#define WRITE(type, narrow)                                                                        \
    for (int64_t i = 0; i < n; i++) {                                                              \
        const double v = in[i];                                                                    \
        ((type *)(void *)data)[first + i * step] = (narrow);                                       \
    }                                                                                              \
    break
    switch (t->dtype) {
    case QFW_F32: WRITE(float, (float)v);
    case QFW_F64: WRITE(double, v);
    case QFW_BF16: WRITE(uint16_t, bf16_of(v));
    case QFW_F16: WRITE(uint16_t, f16_of(v));
    case QFW_I32: WRITE(int32_t, (int32_t)v);
    case QFW_U8: WRITE(uint8_t, (uint8_t)v);
    default: break;
    }
#undef WRITE
}

double ref_load(const qfw_tensor *t, int64_t at) {
    double v = 0;
    read_values(t, at, 1, 1, &v);
    return v;
}

void ref_store(const qfw_tensor *t, int64_t at, double v) { write_values(t, at, 1, 1, &v); }

int32_t ref_i32(const qfw_tensor *t, int64_t at) {
    return ((const int32_t *)(const void *)ref_data(t))[at];
}

static int64_t row_width(const qfw_tensor *t) { return t->rank ? t->dim[t->rank - 1] : 1; }
static int64_t row_step(const qfw_tensor *t) { return t->rank ? t->stride[t->rank - 1] : 1; }

void ref_row(const qfw_tensor *t, int64_t r, double *out) {
    const int64_t width = row_width(t);
    if (width > 0) read_values(t, ref_at(t, r * width), row_step(t), width, out);
}

void ref_set_row(const qfw_tensor *t, int64_t r, const double *v) {
    const int64_t width = row_width(t);
    if (width > 0) write_values(t, ref_at(t, r * width), row_step(t), width, v);
}

void ref_packed_row(const qfw_tensor *w, int64_t r, double *out) {
    enum { PIECE = 256 };
    float piece[PIECE];
    const int64_t width = w->dim[1];
    for (int64_t c = 0; c < width; c += PIECE) {
        const int64_t n = width - c < PIECE ? width - c : PIECE;
        quant4_decode(w, r * width + c, n, piece);
        for (int64_t i = 0; i < n; i++) out[c + i] = (double)piece[i];
    }
}

int64_t ref_at(const qfw_tensor *t, int64_t i) {
    int64_t at = 0;
    for (uint32_t d = t->rank; d-- > 0;) {
        at += i % t->dim[d] * t->stride[d];
        i /= t->dim[d];
    }
    return at;
}

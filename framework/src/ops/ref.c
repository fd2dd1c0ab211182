/* ref.c -- reads and writes tensors of any float dtype as doubles, for the reference kernels.
 *
 * Narrow dtypes are rounded from the double in one step: a double first rounded to odd at fp32
 * keeps every bit that rounding to nearest at fewer bits can ask for.
 */
#include "ops/ref.h"

#include "base/error.h"
#include "base/mem.h"
#include "base/parallel.h"
#include "base/rng.h"
#include "ops/quant4.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

static float float_of_bits(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* The fp32 bits of v rounded to odd: of the two neighbours of an inexact v, the one whose last bit
 * is 1. */
static uint32_t bits_rounded_to_odd(double v) {
    const float f = (float)v;
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if (isnan(v) || (double)f == v || (bits & 1)) return bits;
    return fabs((double)f) < fabs(v) ? bits + 1 : bits - 1;
}

uint16_t ref_bf16(double v) {
    const uint32_t bits = bits_rounded_to_odd(v);
    if (isnan(v)) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

double ref_of_f16(uint16_t h) {
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

uint16_t ref_f16(double v) {
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

double ref_round(double v, uint32_t dtype) {
    if (dtype == QFW_BF16) return (double)float_of_bits((uint32_t)ref_bf16(v) << 16);
    return dtype == QFW_F16 ? ref_of_f16(ref_f16(v)) : v;
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
    case QFW_F16: READ(uint16_t, ref_of_f16(v));
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
    case QFW_BF16: WRITE(uint16_t, ref_bf16(v));
    case QFW_F16: WRITE(uint16_t, ref_f16(v));
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

void ref_packed(const qfw_tensor *w, int64_t first, int64_t n, double *out) {
    enum { PIECE = 256 };
    float piece[PIECE];
    for (int64_t at = 0; at < n; at += PIECE) {
        const int64_t count = n - at < PIECE ? n - at : PIECE;
        quant4_decode(w, first + at, count, piece);
        for (int64_t i = 0; i < count; i++) out[at + i] = (double)piece[i];
    }
}

void ref_packed_row(const qfw_tensor *w, int64_t r, double *out) {
    ref_packed(w, r * w->dim[1], w->dim[1], out);
}

int64_t ref_at(const qfw_tensor *t, int64_t i) {
    int64_t at = 0;
    for (uint32_t d = t->rank; d-- > 0;) {
        at += i % t->dim[d] * t->stride[d];
        i /= t->dim[d];
    }
    return at;
}

double *ref_matrix(const qfw_tensor *t) {
    const int64_t n = qfw_tensor_count(t), width = row_width(t);
    double *const out = mem_alloc((size_t)n, sizeof *out);
    if (!out) return NULL;
    for (int64_t r = 0; n > 0 && r < n / width; r++) {
        if (t->quant)
            ref_packed_row(t, r, out + r * width);
        else
            ref_row(t, r, out + r * width);
    }
    return out;
}

qfw_tensor ref_columns(const qfw_tensor *t, int64_t first, int64_t count) {
    qfw_tensor part = *t;
    part.dim[1] = count;
    part.offset += (uint64_t)(first * t->stride[1]) * qfw_dtype_bytes(t->dtype);
    return part;
}

qfw_tensor ref_as_matrix(const qfw_tensor *t) {
    qfw_tensor m = *t;
    if (t->rank != 1) return m;
    m.rank = 2;
    m.dim[1] = m.stride[1] = 1;
    return m;
}

qfw_status ref_check_index(const char *op, const qfw_tensor *index, int64_t count) {
    for (int64_t n = 0; n < index->dim[0]; n++) {
        const int32_t i = ref_i32(index, ref_at(index, n));
        if (i < -1 || i >= count)
            return err_fail("E_OP_VALUE", QFW_E_DATA,
                "%s: index %" PRId32 " at %" PRId64 ", wanted -1 to %" PRId64, op, i, n, count - 1);
    }
    return QFW_OK;
}

double ref_dot(const double *a, const double *b, int64_t n) {
    enum { LANES = 8 }; /* independent sums: one alone would wait for each addition */
    double sum[LANES] = {0}, whole = 0;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int k = 0; k < LANES; k++) sum[k] += a[i + k] * b[i + k];
    for (; i < n; i++) whole += a[i] * b[i];
    for (int k = 0; k < LANES; k++) whole += sum[k];
    return whole;
}

/* An item of the pool is a span of rows: one row alone can be less work than handing it out. */
typedef struct row_loop {
    int64_t n, span, n_scratch;
    ref_row_fn fn;
    void *arg;
    double *scratch;
} row_loop;

static void run_span(void *arg, uint32_t item, uint32_t worker) {
    const row_loop *const l = arg;
    const int64_t first = (int64_t)item * l->span;
    const int64_t end = first + l->span < l->n ? first + l->span : l->n;
    for (int64_t r = first; r < end; r++) l->fn(l->arg, r, l->scratch + worker * l->n_scratch);
}

qfw_status ref_each_row(int64_t n, int64_t n_scratch, ref_row_fn fn, void *arg) {
    enum { SPANS = 1024 };
    row_loop l = {n, (n + SPANS - 1) / SPANS, n_scratch, fn, arg, NULL};
    if (n <= 0) return QFW_OK;
    l.scratch = mem_alloc(parallel_workers() * (size_t)n_scratch, sizeof *l.scratch);
    if (!l.scratch) return QFW_E_NOMEM;
    parallel_for((uint32_t)((n + l.span - 1) / l.span), run_span, &l);
    mem_free(l.scratch);
    return QFW_OK;
}

void ref_dropout(
    const qfw_dropout_params *p, const qfw_tensor *row_key, int64_t r, double *x, int64_t n) {
    const uint32_t key[2] = {p->seed, p->module_hash};
    if (p->p == 0.0f) return;
    uint32_t counter[4] = {0}, word[4] = {0};
    counter[0] = (uint32_t)ref_i32(row_key, ref_at(row_key, 2 * r));
    counter[1] = (uint32_t)ref_i32(row_key, ref_at(row_key, 2 * r + 1));
    for (int64_t c = 0; c < n; c++) {
        counter[2] = (uint32_t)(c / 4);
        if (c % 4 == 0) philox4x32(counter, key, word);
        x[c] = word[c % 4] / 4294967296.0 >= (double)p->p ? x[c] / (1 - (double)p->p) : 0;
    }
}

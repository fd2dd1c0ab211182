/* wide.c -- operands of 16 bits: kernels compute in fp32 on widened copies in the workspace, and
 * what they give is rounded once.
 *
 * Weights that a kernel reads a few values at a time (matrix.c) stay as they are; activations are
 * widened whole.
 */
#include <string.h>

#include "cpu.h"

enum { ALIGN = 64, ROWS = 64 };

/* --- one value --- */

static inline float float_of(uint32_t bits) {
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

static inline uint32_t bits_of(float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}

static inline uint16_t to_bf16(float v) {
    const uint32_t bits = bits_of(v), magnitude = bits & 0x7fffffffu;
    const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
    return (uint16_t)(magnitude > 0x7f800000u ? (bits >> 16 | 0x40) : rounded);
}

/* Exponents move by adding, so that subnormal numbers round and infinities stay as they should. */
static inline uint16_t to_f16(float v) {
    const uint32_t sign = bits_of(v) >> 16 & 0x8000u, magnitude = bits_of(v) & 0x7fffffffu;
    const uint32_t normal = (magnitude + 0xfffu + (magnitude >> 13 & 1) - 0x38000000u) >> 13;
    const uint32_t tiny = bits_of(float_of(magnitude) + 0.5f) - 0x3f000000u;
    const uint32_t finite = magnitude < 0x38800000u   ? tiny
                            : magnitude < 0x477ff000u ? normal
                                                      : 0x7c00u;
    return (uint16_t)(sign | (magnitude > 0x7f800000u ? 0x7e00u : finite));
}

static inline float from_f16(uint16_t h) {
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16, magnitude = (uint32_t)(h & 0x7fffu) << 13;
    const uint32_t tiny = bits_of(float_of(magnitude + 0x38800000u) - float_of(0x38800000u));
    const uint32_t whole = magnitude + (magnitude < 0x0f800000u ? 0x38000000u : 0x70000000u);
    return float_of(sign | (magnitude < 0x00800000u ? tiny : whole));
}

float cpu_round(float v, uint32_t dtype) {
    if (dtype == QFW_BF16) return float_of((uint32_t)to_bf16(v) << 16);
    return dtype == QFW_F16 ? from_f16(to_f16(v)) : v;
}

/* --- rows --- */

MANY_ISAS static void widen_bf16(const uint16_t *from, float *to, int64_t n) {
    for (int64_t i = 0; i < n; i++) to[i] = float_of((uint32_t)from[i] << 16);
}
MANY_ISAS static void widen_f16(const uint16_t *from, float *to, int64_t n) {
    for (int64_t i = 0; i < n; i++) to[i] = from_f16(from[i]);
}
MANY_ISAS static void narrow_bf16(const float *from, uint16_t *to, int64_t n) {
    for (int64_t i = 0; i < n; i++) to[i] = to_bf16(from[i]);
}
MANY_ISAS static void narrow_f16(const float *from, uint16_t *to, int64_t n) {
    for (int64_t i = 0; i < n; i++) to[i] = to_f16(from[i]);
}

int cpu_is_half(const qfw_tensor *t) { return t && (t->dtype == QFW_BF16 || t->dtype == QFW_F16); }

void cpu_widen(const uint16_t *from, uint32_t dtype, float *to, int64_t n) {
    if (dtype == QFW_BF16)
        widen_bf16(from, to, n);
    else
        widen_f16(from, to, n);
}

/* --- whole tensors --- */

/* Between a tensor of 16 bits and its copy, whose rows are dense. */
typedef struct conversion {
    const qfw_tensor *half;
    float *wide;
    int64_t rows, cols;
    int narrows;
} conversion;

static uint16_t *row_of(const qfw_tensor *t, int64_t row) {
    int64_t at = 0;
    for (uint32_t d = t->rank > 0 ? t->rank - 1 : 0; d-- > 0; row /= t->dim[d])
        at += row % t->dim[d] * t->stride[d];
    return (uint16_t *)(void *)((char *)t->mem->data + t->offset) + at;
}

static void convert_item(void *arg, uint32_t item, uint32_t worker) {
    const conversion *v = (const conversion *)arg;
    const qfw_tensor *t = v->half;
    const int64_t past = cpu_min(v->rows, ((int64_t)item + 1) * ROWS);
    const int64_t step = t->rank ? t->stride[t->rank - 1] : 1;
    (void)worker;
    for (int64_t r = (int64_t)item * ROWS; r < past; r++) {
        uint16_t *half = row_of(t, r);
        float *wide = v->wide + r * v->cols;
        const int dense = step == 1 || v->cols == 1;
        const int64_t n = dense ? v->cols : 1;
        for (int64_t i = 0; i < v->cols; i += n, half += step) {
            if (!v->narrows)
                cpu_widen(half, t->dtype, wide + i, n);
            else if (t->dtype == QFW_BF16)
                narrow_bf16(wide + i, half, n);
            else
                narrow_f16(wide + i, half, n);
        }
    }
}

static void convert(const cpu_call *c, const qfw_tensor *t, float *wide, int narrows) {
    const int64_t n = qfw_tensor_count(t), cols = t->rank ? t->dim[t->rank - 1] : 1;
    conversion v = {t, wide, cols ? n / cols : 0, cols, narrows};
    cpu_parallel(c, cpu_panels(v.rows, ROWS), convert_item, &v);
}

/* --- an op --- */

/* An op whose tensors of 16 bits have copies in fp32. */
typedef struct wide_op {
    qfw_op op;
    qfw_tensor copy[QFW_MAX_IN + QFW_MAX_OUT];
    const qfw_tensor *half[QFW_MAX_IN + QFW_MAX_OUT]; /* whose copy that is; NULL: no copy */
    uint64_t bytes;                                   /* of all copies */
} wide_op;

/* Operand i in the order of inputs, then outputs. */
static const qfw_tensor *operand(const qfw_op *op, uint32_t i) {
    return i < op->n_in ? op->in[i] : op->out[i - op->n_in];
}

static void make_copy(wide_op *w, uint32_t i, const qfw_tensor *t, qfw_mem *mem) {
    int64_t step = 1;
    qfw_tensor *copy = &w->copy[i];
    *copy = *t;
    copy->dtype = QFW_F32;
    for (uint32_t d = t->rank; d-- > 0; step *= t->dim[d]) copy->stride[d] = step;
    copy->mem = mem;
    copy->offset = w->bytes;
    w->half[i] = t;
    w->bytes += ((uint64_t)step * sizeof(float) + ALIGN - 1) / ALIGN * ALIGN;
    if (i < w->op.n_in)
        w->op.in[i] = copy;
    else
        w->op.out[i - w->op.n_in] = copy;
}

/* `kept` has a bit for each input that the kernel reads as it is, if its rows are dense. */
static void make_wide(const qfw_op *op, uint32_t kept, qfw_mem *mem, wide_op *w) {
    w->op = *op;
    w->bytes = 0;
    memset(w->half, 0, sizeof w->half);
    for (uint32_t i = 0; i < op->n_in + op->n_out; i++) {
        const qfw_tensor *t = operand(op, i);
        if (!cpu_is_half(t)) continue;
        if (i < op->n_in && kept >> i & 1 && t->rank == 2 && t->stride[1] == 1) continue;
        make_copy(w, i, t, mem);
    }
}

int cpu_has_half(const qfw_op *op) {
    for (uint32_t i = 0; i < op->n_in + op->n_out; i++)
        if (cpu_is_half(operand(op, i))) return 1;
    return 0;
}

uint32_t cpu_wide_supports(const qfw_op *op, const cpu_kernel *k) {
    wide_op w;
    make_wide(op, 0, NULL, &w);
    return k->supports(&w.op);
}

uint64_t cpu_wide_workspace(const qfw_inst *be, const qfw_op *op, const cpu_kernel *k) {
    wide_op w;
    make_wide(op, k->kept, NULL, &w);
    return w.bytes + k->workspace(be, &w.op);
}

qfw_status cpu_wide_run(const cpu_call *c, const cpu_kernel *k) {
    wide_op w;
    qfw_mem mem = {c->workspace, 0};
    make_wide(c->op, k->kept, &mem, &w);
    const cpu_call inner = {c->be, &w.op, c->workspace + w.bytes};
    for (uint32_t i = 0; i < w.op.n_in; i++)
        if (w.half[i]) convert(c, w.half[i], cpu_f32(&w.copy[i]), 0);
    QFW_TRY(k->run(&inner));
    for (uint32_t i = w.op.n_in; i < w.op.n_in + w.op.n_out; i++)
        if (w.half[i]) convert(c, w.half[i], cpu_f32(&w.copy[i]), 1);
    return QFW_OK;
}

/* elementwise.c -- COPY, FILL, SCALE, SELECT, UNARY, BINARY and REDUCE where they are simple; the
 * rest (broadcasts over inner dimensions, partial reductions) is left to the reference kernels.
 */
#include <math.h>
#include <string.h>

#include "cpu.h"

enum { VALUES = 16384 };

/* Values [first, past) of an item of n values. */
static int64_t span(const qfw_tensor *t, uint32_t item, int64_t *first) {
    *first = (int64_t)item * VALUES;
    return cpu_min(qfw_tensor_count(t), *first + VALUES);
}

static uint32_t all_dense(const qfw_op *op) {
    for (uint32_t i = 0; i < op->n_in + op->n_out; i++) {
        const qfw_tensor *t = i < op->n_in ? op->in[i] : op->out[i - op->n_in];
        if (t && (t->dtype != QFW_F32 || !qfw_tensor_is_dense(t))) return QFW_SUPPORT_NO;
    }
    return QFW_SUPPORT_NATIVE;
}

static qfw_status over_values(const cpu_call *c, const qfw_tensor *t, qfw_parallel_fn fn) {
    cpu_parallel(c, cpu_panels(qfw_tensor_count(t), VALUES), fn, (void *)c);
    return QFW_OK;
}

/* --- COPY: dense rows of at most two dimensions; I32 becomes F32 --- */

uint32_t cpu_copy_supports(const qfw_op *op) {
    const qfw_tensor *x = op->in[0], *y = op->out[0];
    if (y->dtype != QFW_F32 || (x->dtype != QFW_F32 && x->dtype != QFW_I32)) return QFW_SUPPORT_NO;
    if (x->rank > 2) return qfw_tensor_is_dense(x) ? QFW_SUPPORT_NATIVE : QFW_SUPPORT_NO;
    return QFW_SUPPORT_NATIVE;
}

static void copy_row(const qfw_tensor *x, int64_t at, int64_t stride, int64_t n, float *to) {
    if (x->dtype == QFW_I32)
        for (int64_t i = 0; i < n; i++) to[i] = (float)cpu_i32(x)[at + i * stride];
    else if (stride == 1)
        memcpy(to, cpu_f32(x) + at, (size_t)n * sizeof(float));
    else
        for (int64_t i = 0; i < n; i++) to[i] = cpu_f32(x)[at + i * stride];
}

qfw_status cpu_copy(const cpu_call *c) {
    const qfw_tensor *x = c->op->in[0], *y = c->op->out[0];
    if (x->rank != 2) {
        copy_row(x, 0, x->rank == 1 ? x->stride[0] : 1, qfw_tensor_count(x), cpu_f32(y));
        return QFW_OK;
    }
    for (int64_t r = 0; r < x->dim[0]; r++)
        copy_row(x, r * x->stride[0], x->stride[1], x->dim[1], cpu_f32(y) + r * y->dim[1]);
    return QFW_OK;
}

/* --- FILL, SCALE, SELECT --- */

uint32_t cpu_fill_supports(const qfw_op *op) { return all_dense(op); }

qfw_status cpu_fill(const cpu_call *c) {
    const float value = (float)((const qfw_fill_params *)c->op->params)->value;
    float *y = cpu_f32(c->op->out[0]);
    const int64_t n = qfw_tensor_count(c->op->out[0]);
    for (int64_t i = 0; i < n; i++) y[i] = value;
    return QFW_OK;
}

uint32_t cpu_scale_supports(const qfw_op *op) { return all_dense(op); }

static void scale_item(void *arg, uint32_t item, uint32_t worker) {
    const qfw_op *op = ((const cpu_call *)arg)->op;
    const qfw_scale_params *p = (const qfw_scale_params *)op->params;
    const float *x = cpu_f32(op->in[0]);
    float *y = cpu_f32(op->out[0]);
    int64_t i, past = span(op->out[0], item, &i);
    (void)worker;
    for (; i < past; i++) y[i] = p->alpha * x[i] + p->beta;
}

qfw_status cpu_scale(const cpu_call *c) { return over_values(c, c->op->out[0], scale_item); }

uint32_t cpu_select_supports(const qfw_op *op) { return all_dense(op); }

static void select_item(void *arg, uint32_t item, uint32_t worker) {
    const qfw_op *op = ((const cpu_call *)arg)->op;
    const float *cond = cpu_f32(op->in[0]), *a = cpu_f32(op->in[1]), *b = cpu_f32(op->in[2]);
    float *y = cpu_f32(op->out[0]);
    int64_t i, past = span(op->out[0], item, &i);
    (void)worker;
    for (; i < past; i++) y[i] = cond[i] != 0.0f ? a[i] : b[i];
}

qfw_status cpu_select(const cpu_call *c) { return over_values(c, c->op->out[0], select_item); }

/* --- UNARY --- */

uint32_t cpu_unary_supports(const qfw_op *op) { return all_dense(op); }

static float apply_unary(uint32_t kind, float x) {
    switch (kind) {
    case QFW_NEG: return -x;
    case QFW_EXP: return expf(x);
    case QFW_LOG: return logf(x);
    case QFW_LOG1P: return log1pf(x);
    case QFW_EXPM1: return expm1f(x);
    case QFW_SQRT: return sqrtf(x);
    case QFW_RSQRT: return 1.0f / sqrtf(x);
    case QFW_ABS: return fabsf(x);
    case QFW_SIGN: return x > 0 ? 1.0f : x < 0 ? -1.0f : x;
    case QFW_SIGMOID: return x >= 0 ? 1.0f / (1.0f + expf(-x)) : expf(x) / (1.0f + expf(x));
    case QFW_LOGSIGMOID: return x >= 0 ? -log1pf(expf(-x)) : x - log1pf(expf(x));
    default: return x > 0 || x != x ? x : 0.0f; /* QFW_RELU */
    }
}

static void unary_item(void *arg, uint32_t item, uint32_t worker) {
    const qfw_op *op = ((const cpu_call *)arg)->op;
    const uint32_t kind = ((const qfw_kind_params *)op->params)->kind;
    const float *x = cpu_f32(op->in[0]);
    float *y = cpu_f32(op->out[0]);
    int64_t i, past = span(op->out[0], item, &i);
    (void)worker;
    for (; i < past; i++) y[i] = apply_unary(kind, x[i]);
}

qfw_status cpu_unary(const cpu_call *c) { return over_values(c, c->op->out[0], unary_item); }

/* --- BINARY: operands of one size, or one of them a single value --- */

uint32_t cpu_binary_supports(const qfw_op *op) {
    const int64_t n = qfw_tensor_count(op->out[0]);
    for (int i = 0; i < 2; i++) {
        const int64_t m = qfw_tensor_count(op->in[i]);
        if (m != n && m != 1) return QFW_SUPPORT_NO;
    }
    return all_dense(op);
}

static float apply_binary(uint32_t kind, float a, float b) {
    switch (kind) {
    case QFW_ADD: return a + b;
    case QFW_SUB: return a - b;
    case QFW_MUL: return a * b;
    case QFW_DIV: return a / b;
    case QFW_MIN: return a <= b || a != a ? a : b;
    case QFW_MAX: return a >= b || a != a ? a : b;
    default: return a > b ? 1.0f : 0.0f; /* QFW_GT */
    }
}

static void binary_item(void *arg, uint32_t item, uint32_t worker) {
    const qfw_op *op = ((const cpu_call *)arg)->op;
    const uint32_t kind = ((const qfw_kind_params *)op->params)->kind;
    const float *a = cpu_f32(op->in[0]), *b = cpu_f32(op->in[1]);
    const int64_t n = qfw_tensor_count(op->out[0]);
    const int64_t sa = qfw_tensor_count(op->in[0]) == n, sb = qfw_tensor_count(op->in[1]) == n;
    float *y = cpu_f32(op->out[0]);
    int64_t i, past = span(op->out[0], item, &i);
    (void)worker;
    if (kind == QFW_ADD && sa && sb)
        for (; i < past; i++) y[i] = a[i] + b[i];
    else
        for (; i < past; i++) y[i] = apply_binary(kind, a[i * sa], b[i * sb]);
}

qfw_status cpu_binary(const cpu_call *c) { return over_values(c, c->op->out[0], binary_item); }

/* --- REDUCE: everything to one value; items' shares are added in order --- */

uint32_t cpu_reduce_supports(const qfw_op *op) {
    return qfw_tensor_count(op->out[0]) == 1 ? all_dense(op) : QFW_SUPPORT_NO;
}

uint64_t cpu_reduce_workspace(const qfw_inst *be, const qfw_op *op) {
    (void)be;
    return sizeof(double) * (uint64_t)cpu_panels(qfw_tensor_count(op->in[0]), VALUES);
}

static void reduce_item(void *arg, uint32_t item, uint32_t worker) {
    const cpu_call *c = (const cpu_call *)arg;
    const uint32_t kind = ((const qfw_reduce_params *)c->op->params)->kind;
    const float *x = cpu_f32(c->op->in[0]);
    int64_t i, past = span(c->op->in[0], item, &i);
    double share = kind == QFW_MAXIMUM ? (double)x[i] : 0;
    (void)worker;
    for (; i < past; i++) {
        const double v = (double)x[i];
        if (kind == QFW_MAXIMUM)
            share = v > share || v != v ? v : share;
        else
            share += kind == QFW_SUMSQ ? v * v : v;
    }
    ((double *)(void *)c->workspace)[item] = share;
}

qfw_status cpu_reduce(const cpu_call *c) {
    const uint32_t kind = ((const qfw_reduce_params *)c->op->params)->kind;
    const double *shares = (const double *)(const void *)c->workspace;
    const int64_t items = cpu_panels(qfw_tensor_count(c->op->in[0]), VALUES);
    QFW_TRY(over_values(c, c->op->in[0], reduce_item));
    double total = items && kind == QFW_MAXIMUM ? shares[0] : 0;
    for (int64_t i = 0; i < items; i++) {
        if (kind == QFW_MAXIMUM)
            total = shares[i] > total || shares[i] != shares[i] ? shares[i] : total;
        else
            total += shares[i];
    }
    *cpu_f32(c->op->out[0]) = (float)total;
    return QFW_OK;
}

/* binary.c -- functions of two values, under numpy's broadcasting. */
#include "ops/check.h"
#include "ops/elementwise.h"
#include "ops/emit.h"

#include <math.h>

/* Dimension `back` places before the last; 1 where there is none. */
static int64_t dim_from_last(const op_shape *s, uint32_t back) {
    return back < s->rank ? s->dim[s->rank - 1 - back] : 1;
}

static qfw_status binary_infer(op_infer *i) {
    const op_shape *const a = i->in[0], *const b = i->in[1];
    const qfw_kind_params *const p = i->params;
    op_shape wanted = *b;
    op_shape *const y = &i->out[0];
    QFW_TRY(check_param(p->kind >= QFW_ADD && p->kind < QFW_BINARY_END, "binary", "kind", p->kind,
        "one of qfw/ops_prim.h"));
    QFW_TRY(check_dtype("binary", "a", a, DTYPES_FLOAT));
    QFW_TRY(check_dtype("binary", "b", b, DTYPES_FLOAT));
    *y = (op_shape){shape_wider_dtype(a->dtype, b->dtype), a->rank, {1, 1, 1, 1}};
    if (b->rank > y->rank) y->rank = b->rank;
    for (uint32_t back = 0; back < y->rank; back++) {
        const int64_t m = dim_from_last(a, back), n = dim_from_last(b, back);
        y->dim[y->rank - 1 - back] = n == 1 ? m : n;
        if (m != n && m != 1 && n != 1) wanted.dim[b->rank - 1 - back] = m;
    }
    return check_like("binary", "b", b, DTYPES_FLOAT, &wanted);
}

/* What of d, which has the shape of the output, belongs to input i: summed where that repeats. */
static qfw_status reduce_to_input(op_vjp *v, qfw_val d, uint32_t i) {
    int64_t stride[QFW_MAX_DIMS], one[QFW_MAX_DIMS] = {1, 1, 1, 1}, dim[QFW_MAX_DIMS];
    uint32_t dtype, rank, x_rank;
    int64_t whole[QFW_MAX_DIMS], step = 1;
    int repeats = 0;
    QFW_TRY(v->g->api->shape(v->g, d, &dtype, &rank, whole));
    QFW_TRY(v->g->api->shape(v->g, v->in[i], &dtype, &x_rank, dim));
    for (uint32_t k = x_rank; k-- > 0;) {
        stride[k] = step;
        step *= dim[k];
        one[rank - x_rank + k] = dim[k];
    }
    for (uint32_t k = 0; k < rank; k++) repeats |= one[k] != whole[k];
    if (repeats) QFW_TRY(qfw_reduce(v->g, QFW_SUM, d, one, &d));
    v->din[i] = d;
    if (rank == x_rank) return QFW_OK;
    return v->g->api->view(v->g, d, x_rank, dim, stride, 0, &v->din[i]);
}

/* d[0] and d[1], as wanted, in the shape of the output. dy goes whole to the input that was taken;
 * b is taken only where it is truly the lesser or greater. */
static qfw_status choice_gradients(op_vjp *v, int min, qfw_val *d) {
    const qfw_val dy = v->dout[0], a = v->in[0], b = v->in[1];
    qfw_val to_b, zeros;
    QFW_TRY(qfw_binary(v->g, QFW_GT, min ? a : b, min ? b : a, &to_b));
    QFW_TRY(emit_zeros_like(v->g, dy, &zeros));
    if (v->need[0]) QFW_TRY(qfw_select(v->g, to_b, zeros, dy, &d[0]));
    if (v->need[1]) QFW_TRY(qfw_select(v->g, to_b, dy, zeros, &d[1]));
    return QFW_OK;
}

/* da = dy / b, db = -y * dy / b */
static qfw_status quotient_gradients(op_vjp *v, qfw_val *d) {
    qfw_val t;
    QFW_TRY(qfw_binary(v->g, QFW_DIV, v->dout[0], v->in[1], &d[0]));
    if (!v->need[1]) return QFW_OK;
    QFW_TRY(qfw_binary(v->g, QFW_MUL, d[0], v->out[0], &t));
    return qfw_unary(v->g, QFW_NEG, t, &d[1]);
}

static qfw_status binary_vjp(op_vjp *v) {
    const uint32_t kind = ((const qfw_kind_params *)v->params)->kind;
    const qfw_val dy = v->dout[0];
    qfw_val d[2] = {dy, dy};
    if (!dy || kind == QFW_GT) return QFW_OK;
    if (kind == QFW_SUB && v->need[1]) QFW_TRY(qfw_unary(v->g, QFW_NEG, dy, &d[1]));
    if (kind == QFW_MUL && v->need[0]) QFW_TRY(qfw_binary(v->g, QFW_MUL, dy, v->in[1], &d[0]));
    if (kind == QFW_MUL && v->need[1]) QFW_TRY(qfw_binary(v->g, QFW_MUL, dy, v->in[0], &d[1]));
    if (kind == QFW_DIV) QFW_TRY(quotient_gradients(v, d));
    if (kind == QFW_MIN || kind == QFW_MAX) QFW_TRY(choice_gradients(v, kind == QFW_MIN, d));
    for (uint32_t i = 0; i < 2; i++)
        if (v->need[i]) QFW_TRY(reduce_to_input(v, d[i], i));
    return QFW_OK;
}

static double apply(uint32_t kind, double a, double b) {
    switch (kind) {
    case QFW_ADD: return a + b;
    case QFW_SUB: return a - b;
    case QFW_MUL: return a * b;
    case QFW_DIV: return a / b;
    case QFW_MIN: return a <= b || isnan(a) ? a : b;
    case QFW_MAX: return a >= b || isnan(a) ? a : b;
    default: return a > b; /* QFW_GT */
    }
}

static void binary_values(const void *params, double *const *x, int64_t n) {
    const qfw_kind_params *const p = params;
    for (int64_t k = 0; k < n; k++) x[0][k] = apply(p->kind, x[0][k], x[1][k]);
}

static qfw_status binary_ref(const qfw_op *op) { return ref_elementwise(op, binary_values); }

const op_def op_binary = {
    .name = "binary",
    .code = QFW_OP_BINARY,
    .param_bytes = sizeof(qfw_kind_params),
    .n_in = 2,
    .n_in_min = 2,
    .n_out = 1,
    .inplace = {{1, 2}},
    .infer = binary_infer,
    .vjp = binary_vjp,
    .ref = binary_ref,
};

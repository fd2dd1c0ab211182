/* unary.c -- functions of one value. */
#include "ops/check.h"
#include "ops/elementwise.h"
#include "ops/emit.h"

#include <math.h>

static qfw_status unary_infer(op_infer *i) {
    const qfw_kind_params *const p = i->params;
    QFW_TRY(check_param(p->kind >= QFW_NEG && p->kind < QFW_UNARY_END, "unary", "kind", p->kind,
        "one of qfw/ops_prim.h"));
    QFW_TRY(check_dtype("unary", "x", i->in[0], DTYPES_FLOAT));
    i->out[0] = *i->in[0];
    return QFW_OK;
}

/* dx = alpha * dy / v */
static qfw_status quotient(qfw_graph *g, float alpha, qfw_val dy, qfw_val v, qfw_val *dx) {
    qfw_val t = dy;
    if (alpha != 1.0f) QFW_TRY(qfw_scale(g, dy, alpha, 0, &t));
    return qfw_binary(g, QFW_DIV, t, v, dx);
}

/* dx = dy * y * (1 - y) */
static qfw_status sigmoid_gradient(qfw_graph *g, qfw_val dy, qfw_val y, qfw_val *dx) {
    qfw_val t, rest;
    QFW_TRY(qfw_binary(g, QFW_MUL, dy, y, &t));
    QFW_TRY(qfw_scale(g, y, -1, 1, &rest));
    return qfw_binary(g, QFW_MUL, t, rest, dx);
}

/* dx = dy * -y^3 / 2 */
static qfw_status rsqrt_gradient(qfw_graph *g, qfw_val dy, qfw_val y, qfw_val *dx) {
    qfw_val t;
    QFW_TRY(qfw_binary(g, QFW_MUL, y, y, &t));
    QFW_TRY(qfw_binary(g, QFW_MUL, t, y, &t));
    QFW_TRY(qfw_scale(g, t, -0.5f, 0, &t));
    return qfw_binary(g, QFW_MUL, dy, t, dx);
}

static qfw_status unary_vjp(op_vjp *v) {
    qfw_graph *const g = v->g;
    const qfw_val dy = v->dout[0], x = v->in[0], y = v->out[0];
    qfw_val *const dx = &v->din[0], t = 0;
    if (!dy || !v->need[0]) return QFW_OK;
    switch (((const qfw_kind_params *)v->params)->kind) {
    case QFW_NEG: return qfw_unary(g, QFW_NEG, dy, dx);
    case QFW_EXP: return qfw_binary(g, QFW_MUL, dy, y, dx);
    case QFW_LOG: return quotient(g, 1, dy, x, dx);
    case QFW_LOG1P: QFW_TRY(qfw_scale(g, x, 1, 1, &t)); return quotient(g, 1, dy, t, dx);
    case QFW_EXPM1: QFW_TRY(qfw_unary(g, QFW_EXP, x, &t)); break;
    case QFW_SQRT: return quotient(g, 0.5f, dy, y, dx);
    case QFW_RSQRT: return rsqrt_gradient(g, dy, y, dx);
    case QFW_ABS: QFW_TRY(qfw_unary(g, QFW_SIGN, x, &t)); break;
    case QFW_SIGN: return QFW_OK; /* its slope is 0 wherever it has one */
    case QFW_SIGMOID: return sigmoid_gradient(g, dy, y, dx);
    case QFW_LOGSIGMOID: /* slope: sigmoid(-x) */
        QFW_TRY(qfw_unary(g, QFW_NEG, x, &t));
        QFW_TRY(qfw_unary(g, QFW_SIGMOID, t, &t));
        break;
    default: /* QFW_RELU */ QFW_TRY(emit_zeros_like(g, dy, &t)); return qfw_select(g, y, dy, t, dx);
    }
    return qfw_binary(g, QFW_MUL, dy, t, dx);
}

static double sigmoid(double x) { return x >= 0 ? 1 / (1 + exp(-x)) : exp(x) / (1 + exp(x)); }

static double apply(uint32_t kind, double x) {
    switch (kind) {
    case QFW_NEG: return -x;
    case QFW_EXP: return exp(x);
    case QFW_LOG: return log(x);
    case QFW_LOG1P: return log1p(x);
    case QFW_EXPM1: return expm1(x);
    case QFW_SQRT: return sqrt(x);
    case QFW_RSQRT: return 1 / sqrt(x);
    case QFW_ABS: return fabs(x);
    case QFW_SIGN: return x > 0 ? 1 : x < 0 ? -1 : x;
    case QFW_SIGMOID: return sigmoid(x);
    case QFW_LOGSIGMOID: return x >= 0 ? -log1p(exp(-x)) : x - log1p(exp(x));
    default: return x > 0 || isnan(x) ? x : 0; /* QFW_RELU */
    }
}

static void unary_values(const void *params, double *const *x, int64_t n) {
    const qfw_kind_params *const p = params;
    for (int64_t k = 0; k < n; k++) x[0][k] = apply(p->kind, x[0][k]);
}

static qfw_status unary_ref(const qfw_op *op) { return ref_elementwise(op, unary_values); }

const op_def op_unary = {
    .name = "unary",
    .code = QFW_OP_UNARY,
    .param_bytes = sizeof(qfw_kind_params),
    .n_in = 1,
    .n_in_min = 1,
    .n_out = 1,
    .inplace = {{1}},
    .infer = unary_infer,
    .vjp = unary_vjp,
    .ref = unary_ref,
};

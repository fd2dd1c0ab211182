/* softmax.c -- exp(x) over its sum along the last dimension, and its gradient. */
#include "ops/check.h"
#include "ops/ref.h"

#include <math.h>

static const op_shape one_or_more = {0, 1, {ANY_DIM, 1, 1, 1}};

static qfw_status softmax_infer(op_infer *i) {
    const op_shape *const x = i->in[0];
    QFW_TRY(check_dtype("softmax", "x", x, DTYPES_FLOAT));
    if (x->rank == 0) return check_like("softmax", "x", x, DTYPES_FLOAT, &one_or_more);
    i->out[0] = *x;
    return QFW_OK;
}

static qfw_status softmax_bwd_infer(op_infer *i) {
    const op_shape *const y = i->in[1];
    QFW_TRY(check_dtype("softmax_bwd", "y", y, DTYPES_FLOAT));
    if (y->rank == 0) return check_like("softmax_bwd", "y", y, DTYPES_FLOAT, &one_or_more);
    QFW_TRY(check_like("softmax_bwd", "dy", i->in[0], DTYPES_FLOAT, y));
    i->out[0] = *i->in[0];
    return QFW_OK;
}

static qfw_status softmax_vjp(op_vjp *v) {
    const qfw_val in[2] = {v->dout[0], v->out[0]};
    if (!v->dout[0] || !v->need[0]) return QFW_OK;
    return v->g->api->op(v->g, QFW_OP_SOFTMAX_BWD, in, 2, NULL, 0, NULL, &v->din[0], 1);
}

static int64_t width_of(const qfw_op *op) { return op->out[0]->dim[op->out[0]->rank - 1]; }

static void softmax_row(void *arg, int64_t r, double *x) {
    const qfw_op *const op = arg;
    const int64_t n = width_of(op);
    double most = -(double)INFINITY, sum = 0;
    ref_row(op->in[0], r, x);
    for (int64_t c = 0; c < n; c++) most = fmax(most, x[c]);
    for (int64_t c = 0; c < n; c++) sum += x[c] = exp(x[c] - most);
    for (int64_t c = 0; c < n; c++) x[c] /= sum;
    ref_set_row(op->out[0], r, x);
}

static void softmax_bwd_row(void *arg, int64_t r, double *dy) {
    const qfw_op *const op = arg;
    const int64_t n = width_of(op);
    double *const y = dy + n;
    ref_row(op->in[0], r, dy);
    ref_row(op->in[1], r, y);
    const double mean = ref_dot(dy, y, n);
    for (int64_t c = 0; c < n; c++) dy[c] = y[c] * (dy[c] - mean);
    ref_set_row(op->out[0], r, dy);
}

static qfw_status each_row(const qfw_op *op, ref_row_fn fn) {
    const int64_t n = qfw_tensor_count(op->out[0]), width = width_of(op);
    if (n == 0) return QFW_OK;
    return ref_each_row(n / width, 2 * width, fn, (void *)(uintptr_t)op);
}

static qfw_status softmax_ref(const qfw_op *op) { return each_row(op, softmax_row); }
static qfw_status softmax_bwd_ref(const qfw_op *op) { return each_row(op, softmax_bwd_row); }

const op_def op_softmax = {
    .name = "softmax",
    .code = QFW_OP_SOFTMAX,
    .n_in = 1,
    .n_in_min = 1,
    .n_out = 1,
    .inplace = {{1}},
    .infer = softmax_infer,
    .vjp = softmax_vjp,
    .ref = softmax_ref,
};

const op_def op_softmax_bwd = {
    .name = "softmax_bwd",
    .code = QFW_OP_SOFTMAX_BWD,
    .n_in = 2,
    .n_in_min = 2,
    .n_out = 1,
    .inplace = {{1}},
    .infer = softmax_bwd_infer,
    .ref = softmax_bwd_ref,
};

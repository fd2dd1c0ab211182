/* dropout.c -- features of rows left out at random; what is kept grows by 1 / (1 - p). The mask
 * belongs to the row's key, so the gradient draws it again. */
#include "ops/check.h"
#include "ops/ref.h"

static qfw_status dropout_infer(op_infer *i) {
    const op_shape *const x = i->in[0];
    const qfw_dropout_params *const p = i->params;
    QFW_TRY(check_param(p->p >= 0 && p->p < 1, "dropout", "p", (double)p->p, "in [0, 1)"));
    QFW_TRY(check_operand("dropout", "x", x, DTYPES_FLOAT, 2, ANY_DIM, ANY_DIM));
    QFW_TRY(check_operand("dropout", "row_key", i->in[1], DTYPE_BIT(QFW_I32), 2, x->dim[0], 2));
    i->out[0] = *x;
    return QFW_OK;
}

static qfw_status dropout_vjp(op_vjp *v) {
    const qfw_val in[2] = {v->dout[0], v->in[1]};
    if (!v->dout[0] || !v->need[0]) return QFW_OK;
    return v->g->api->op(
        v->g, QFW_OP_DROPOUT, in, 2, v->params, sizeof(qfw_dropout_params), NULL, &v->din[0], 1);
}

static void dropout_row(void *arg, int64_t n, double *x) {
    const qfw_op *const op = arg;
    ref_row(op->in[0], n, x);
    ref_dropout(op->params, op->in[1], n, x, op->in[0]->dim[1]);
    ref_set_row(op->out[0], n, x);
}

static qfw_status dropout_ref(const qfw_op *op) {
    const qfw_tensor *const x = op->in[0];
    return ref_each_row(x->dim[0], x->dim[1], dropout_row, (void *)(uintptr_t)op);
}

const op_def op_dropout = {
    .name = "dropout",
    .code = QFW_OP_DROPOUT,
    .param_bytes = sizeof(qfw_dropout_params),
    .n_in = 2,
    .n_in_min = 2,
    .n_out = 1,
    .inplace = {{1}},
    .infer = dropout_infer,
    .vjp = dropout_vjp,
    .ref = dropout_ref,
};

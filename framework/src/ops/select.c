/* select.c -- each value from one of two tensors, as a third says. */
#include "ops/check.h"
#include "ops/elementwise.h"
#include "ops/emit.h"

static qfw_status select_infer(op_infer *i) {
    const op_shape *const a = i->in[1], *const b = i->in[2];
    QFW_TRY(check_dtype("select", "a", a, DTYPES_FLOAT));
    QFW_TRY(check_like("select", "cond", i->in[0], DTYPES_PLAIN, a));
    QFW_TRY(check_like("select", "b", b, DTYPES_FLOAT, a));
    i->out[0] = *a;
    i->out[0].dtype = shape_wider_dtype(a->dtype, b->dtype);
    return QFW_OK;
}

static qfw_status select_vjp(op_vjp *v) {
    const qfw_val cond = v->in[0], dy = v->dout[0];
    qfw_val zeros;
    if (!dy || (!v->need[1] && !v->need[2])) return QFW_OK;
    QFW_TRY(emit_zeros_like(v->g, dy, &zeros));
    if (v->need[1]) QFW_TRY(qfw_select(v->g, cond, dy, zeros, &v->din[1]));
    if (v->need[2]) QFW_TRY(qfw_select(v->g, cond, zeros, dy, &v->din[2]));
    return QFW_OK;
}

static void select_values(const void *params, double *const *x, int64_t n) {
    (void)params;
    for (int64_t k = 0; k < n; k++) x[0][k] = x[0][k] != 0 ? x[1][k] : x[2][k];
}

static qfw_status select_ref(const qfw_op *op) { return ref_elementwise(op, select_values); }

const op_def op_select = {
    .name = "select",
    .code = QFW_OP_SELECT,
    .n_in = 3,
    .n_in_min = 3,
    .n_out = 1,
    .inplace = {{2, 3}},
    .infer = select_infer,
    .vjp = select_vjp,
    .ref = select_ref,
};

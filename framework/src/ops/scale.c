/* scale.c -- a factor and a summand for all values. */
#include "ops/check.h"
#include "ops/elementwise.h"

static qfw_status scale_infer(op_infer *i) {
    QFW_TRY(check_dtype("scale", "x", i->in[0], DTYPES_FLOAT));
    i->out[0] = *i->in[0];
    return QFW_OK;
}

static qfw_status scale_vjp(op_vjp *v) {
    const qfw_scale_params *const p = v->params;
    if (!v->dout[0] || !v->need[0]) return QFW_OK;
    return qfw_scale(v->g, v->dout[0], p->alpha, 0, &v->din[0]);
}

static void scale_values(const void *params, double *const *x, int64_t n) {
    const qfw_scale_params *const p = params;
    for (int64_t k = 0; k < n; k++) x[0][k] = (double)p->alpha * x[0][k] + (double)p->beta;
}

static qfw_status scale_ref(const qfw_op *op) { return ref_elementwise(op, scale_values); }

const op_def op_scale = {
    .name = "scale",
    .code = QFW_OP_SCALE,
    .param_bytes = sizeof(qfw_scale_params),
    .n_in = 1,
    .n_in_min = 1,
    .n_out = 1,
    .inplace = {{1}},
    .infer = scale_infer,
    .vjp = scale_vjp,
    .ref = scale_ref,
};

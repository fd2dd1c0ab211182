/* copy.c -- the same values, dense, in a dtype that may be another. */
#include "ops/check.h"
#include "ops/elementwise.h"

#include <math.h>

static qfw_status copy_infer(op_infer *i) {
    const qfw_copy_params *const p = i->params;
    QFW_TRY(check_dtype("copy", "x", i->in[0], DTYPES_PLAIN));
    QFW_TRY(check_param(p->dtype < QFW_DTYPE_COUNT && (DTYPES_PLAIN & DTYPE_BIT(p->dtype)), "copy",
        "dtype", p->dtype, "f32, bf16, f16, i32, u8 or f64 by number"));
    i->out[0] = *i->in[0];
    i->out[0].dtype = p->dtype;
    return QFW_OK;
}

static qfw_status copy_vjp(op_vjp *v) {
    qfw_copy_params p = {sizeof p, 0};
    uint32_t rank;
    int64_t dim[QFW_MAX_DIMS];
    const uint32_t whole = DTYPES_PLAIN & ~DTYPES_FLOAT;
    if (!v->dout[0] || !v->need[0]) return QFW_OK;
    QFW_TRY(v->g->api->shape(v->g, v->in[0], &p.dtype, &rank, dim));
    if (whole & (DTYPE_BIT(p.dtype) | DTYPE_BIT(((const qfw_copy_params *)v->params)->dtype)))
        return QFW_OK;
    return v->g->api->op(v->g, QFW_OP_COPY, &v->dout[0], 1, &p, sizeof p, NULL, &v->din[0], 1);
}

/* What an integer dtype can hold: the nearest whole number in its range, 0 for NaN. */
static void copy_values(const void *params, double *const *x, int64_t n) {
    const uint32_t dtype = ((const qfw_copy_params *)params)->dtype;
    if (dtype != QFW_I32 && dtype != QFW_U8) return;
    const double low = dtype == QFW_I32 ? INT32_MIN : 0, high = dtype == QFW_I32 ? INT32_MAX : 255;
    for (int64_t k = 0; k < n; k++)
        x[0][k] = isnan(x[0][k]) ? 0 : fmin(fmax(rint(x[0][k]), low), high);
}

static qfw_status copy_ref(const qfw_op *op) { return ref_elementwise(op, copy_values); }

const op_def op_copy = {
    .name = "copy",
    .code = QFW_OP_COPY,
    .param_bytes = sizeof(qfw_copy_params),
    .n_in = 1,
    .n_in_min = 1,
    .n_out = 1,
    .infer = copy_infer,
    .vjp = copy_vjp,
    .ref = copy_ref,
};

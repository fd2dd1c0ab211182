/* fill.c -- a tensor of one value. */
#include "ops/check.h"
#include "ops/ref.h"

#include <math.h>

/* An integer dtype holds whole numbers of its range only. */
static int can_hold(uint32_t dtype, double value) {
    if (dtype == QFW_I32) return value >= INT32_MIN && value <= INT32_MAX && rint(value) == value;
    if (dtype == QFW_U8) return value >= 0 && value <= 255 && rint(value) == value;
    return 1;
}

static qfw_status fill_infer(op_infer *i) {
    const qfw_fill_params *const p = i->params;
    QFW_TRY(check_param(p->dtype < QFW_DTYPE_COUNT && (DTYPES_PLAIN & DTYPE_BIT(p->dtype)), "fill",
        "dtype", p->dtype, "f32, bf16, f16, i32, u8 or f64 by number"));
    QFW_TRY(check_param(can_hold(p->dtype, p->value), "fill", "value", p->value,
        "a value that the dtype can hold"));
    QFW_TRY(check_dims("fill", p->rank, p->dim, &i->out[0]));
    i->out[0].dtype = p->dtype;
    return QFW_OK;
}

static qfw_status fill_ref(const qfw_op *op) {
    const qfw_tensor *const y = op->out[0];
    const int64_t n = qfw_tensor_count(y);
    for (int64_t i = 0; i < n; i++)
        ref_store(y, ref_at(y, i), ((const qfw_fill_params *)op->params)->value);
    return QFW_OK;
}

const op_def op_fill = {
    .name = "fill",
    .code = QFW_OP_FILL,
    .param_bytes = sizeof(qfw_fill_params),
    .n_out = 1,
    .infer = fill_infer,
    .ref = fill_ref,
};

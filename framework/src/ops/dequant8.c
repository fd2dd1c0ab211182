/* dequant8.c -- 8-bit codes and scales as values again. */
#include "ops/check.h"
#include "ops/ref.h"

static qfw_status dequant8_infer(op_infer *i) {
    const op_shape *const code = i->in[0], *const map = i->in[2];
    const qfw_block8_params *const p = i->params;
    QFW_TRY(check_param(p->block > 0, "dequant8", "block", p->block, "1 or more"));
    QFW_TRY(check_operand("dequant8", "code", code, DTYPE_BIT(QFW_U8), 1, ANY_DIM, 0));
    QFW_TRY(check_operand("dequant8", "absmax", i->in[1], DTYPES_FLOAT, 1,
        (code->dim[0] + p->block - 1) / p->block, 0));
    QFW_TRY(check_operand("dequant8", "map", map, DTYPES_FLOAT, 1, 256, 0));
    i->out[0] = shape_1d(shape_stat_dtype(i->in[1]->dtype), code->dim[0]);
    return QFW_OK;
}

static qfw_status dequant8_ref(const qfw_op *op) {
    const int64_t block = ((const qfw_block8_params *)op->params)->block;
    const qfw_tensor *const code = op->in[0], *const absmax = op->in[1], *const x = op->out[0];
    double map[256];
    ref_row(op->in[2], 0, map);
    for (int64_t i = 0; i < code->dim[0]; i++) {
        const int c = (int)ref_load(code, ref_at(code, i));
        ref_store(x, ref_at(x, i), map[c] * ref_load(absmax, ref_at(absmax, i / block)));
    }
    return QFW_OK;
}

const op_def op_dequant8 = {
    .name = "dequant8",
    .code = QFW_OP_DEQUANT8,
    .param_bytes = sizeof(qfw_block8_params),
    .n_in = 3,
    .n_in_min = 3,
    .n_out = 1,
    .infer = dequant8_infer,
    .ref = dequant8_ref,
};

/* dequant4.c -- rows of a packed weight as floats: what a backend without packed products
 * multiplies by. */
#include "ops/check.h"
#include "ops/ref.h"

static qfw_status dequant4_infer(op_infer *i) {
    const op_shape *const w = i->in[0];
    const qfw_dequant4_params *const p = i->params;
    QFW_TRY(check_operand("dequant4", "w", w, DTYPES_PACKED, 2, ANY_DIM, ANY_DIM));
    const int64_t M = w->dim[0];
    QFW_TRY(check_param(
        p->row0 >= 0 && p->row0 <= M, "dequant4", "row0", (double)p->row0, "a row of w"));
    QFW_TRY(check_param(p->rows >= 0 && p->rows <= M - p->row0, "dequant4", "rows", (double)p->rows,
        "at most the rows of w from row0 on"));
    i->out[0] = shape_2d(QFW_F32, p->rows, w->dim[1]);
    return QFW_OK;
}

static void dequant4_row(void *arg, int64_t r, double *row) {
    const qfw_op *const op = arg;
    const qfw_dequant4_params *const p = op->params;
    ref_packed_row(op->in[0], p->row0 + r, row);
    ref_set_row(op->out[0], r, row);
}

static qfw_status dequant4_ref(const qfw_op *op) {
    const qfw_tensor *const y = op->out[0];
    return ref_each_row(y->dim[0], y->dim[1], dequant4_row, (void *)(uintptr_t)op);
}

const op_def op_dequant4 = {
    .name = "dequant4",
    .code = QFW_OP_DEQUANT4,
    .param_bytes = sizeof(qfw_dequant4_params),
    .n_in = 1,
    .n_in_min = 1,
    .n_out = 1,
    .infer = dequant4_infer,
    .ref = dequant4_ref,
};

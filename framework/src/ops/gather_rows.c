/* gather_rows.c -- rows of a tensor by number. */
#include "ops/check.h"
#include "ops/emit.h"
#include "ops/ref.h"

static qfw_status gather_rows_infer(op_infer *i) {
    const op_shape *const x = i->in[0], *const index = i->in[1];
    QFW_TRY(check_rows("gather_rows", "x", x, DTYPES_FLOAT | DTYPE_BIT(QFW_I32)));
    QFW_TRY(check_operand("gather_rows", "index", index, DTYPE_BIT(QFW_I32), 1, ANY_DIM, 0));
    i->out[0] = *x;
    i->out[0].dim[0] = index->dim[0];
    return QFW_OK;
}

static qfw_status gather_rows_vjp(op_vjp *v) {
    if (!v->dout[0] || !v->need[0]) return QFW_OK;
    return qfw_segment_sum(v->g, v->dout[0], v->in[1], emit_dim(v->g, v->in[0], 0), &v->din[0]);
}

/* Row n of [N], which for ref_row is one row, or of [N,C]. */
static void gather_row(void *arg, int64_t n, double *row) {
    const qfw_op *const op = arg;
    const qfw_tensor x = ref_as_matrix(op->in[0]), y = ref_as_matrix(op->out[0]);
    const int32_t from = ref_i32(op->in[1], ref_at(op->in[1], n));
    for (int64_t c = 0; from < 0 && c < x.dim[1]; c++) row[c] = 0;
    if (from >= 0) ref_row(&x, from, row);
    ref_set_row(&y, n, row);
}

static qfw_status gather_rows_ref(const qfw_op *op) {
    const qfw_tensor *const x = op->in[0], *const index = op->in[1];
    QFW_TRY(ref_check_index("gather_rows", index, x->dim[0]));
    return ref_each_row(index->dim[0], ref_as_matrix(x).dim[1], gather_row, (void *)(uintptr_t)op);
}

const op_def op_gather_rows = {
    .name = "gather_rows",
    .code = QFW_OP_GATHER_ROWS,
    .n_in = 2,
    .n_in_min = 2,
    .n_out = 1,
    .infer = gather_rows_infer,
    .vjp = gather_rows_vjp,
    .ref = gather_rows_ref,
};

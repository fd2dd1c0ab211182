/* scatter_rows.c -- rows put into a tensor by number: how a cache of keys and values grows. */
#include "base/error.h"
#include "base/mem.h"
#include "ops/check.h"
#include "ops/emit.h"
#include "ops/ref.h"

static qfw_status scatter_rows_infer(op_infer *i) {
    const char *const op = "scatter_rows";
    const op_shape *const x = i->in[0], *const index = i->in[2];
    QFW_TRY(check_operand(op, "x", x, DTYPES_FLOAT, 2, ANY_DIM, ANY_DIM));
    QFW_TRY(check_operand(op, "index", index, DTYPE_BIT(QFW_I32), 1, ANY_DIM, 0));
    QFW_TRY(check_operand(op, "rows", i->in[1], DTYPE_BIT(x->dtype), 2, index->dim[0], x->dim[1]));
    i->out[0] = *x;
    return QFW_OK;
}

/* dx: dy with the rows that were put there set to zero. drows: those rows of dy. */
static qfw_status scatter_rows_vjp(op_vjp *v) {
    if (!v->dout[0]) return QFW_OK;
    if (v->need[0]) {
        qfw_val zero;
        QFW_TRY(emit_zeros_like(v->g, v->in[1], &zero));
        QFW_TRY(qfw_scatter_rows(v->g, v->dout[0], zero, v->in[2], &v->din[0]));
    }
    if (v->need[1]) QFW_TRY(qfw_gather_rows(v->g, v->dout[0], v->in[2], &v->din[1]));
    return QFW_OK;
}

static qfw_status check_once(const qfw_tensor *index, int64_t n_rows) {
    uint8_t *const seen = mem_alloc((size_t)n_rows + 1, 1);
    qfw_status status = seen ? QFW_OK : QFW_E_NOMEM;
    for (int64_t n = 0; n < index->dim[0] && status == QFW_OK; n++) {
        const int32_t to = ref_i32(index, ref_at(index, n));
        if (to < 0) continue;
        if (seen[to])
            status =
                err_fail("E_OP_VALUE", QFW_E_DATA, "scatter_rows: index %d stands twice", (int)to);
        seen[to] = 1;
    }
    mem_free(seen);
    return status;
}

static qfw_status scatter_rows_ref(const qfw_op *op) {
    const qfw_tensor *const x = op->in[0], *const rows = op->in[1], *const index = op->in[2];
    const qfw_tensor *const y = op->out[0];
    const int64_t width = x->dim[1];
    QFW_TRY(ref_check_index("scatter_rows", index, x->dim[0]));
    QFW_TRY(check_once(index, x->dim[0]));
    double *const row = mem_alloc((size_t)width + 1, sizeof *row);
    if (!row) return QFW_E_NOMEM;
    for (int64_t m = 0; m < x->dim[0] && ref_data(y) != ref_data(x); m++) {
        ref_row(x, m, row);
        ref_set_row(y, m, row);
    }
    for (int64_t n = 0; n < index->dim[0]; n++) {
        const int32_t to = ref_i32(index, ref_at(index, n));
        if (to < 0) continue;
        ref_row(rows, n, row);
        ref_set_row(y, to, row);
    }
    mem_free(row);
    return QFW_OK;
}

const op_def op_scatter_rows = {
    .name = "scatter_rows",
    .code = QFW_OP_SCATTER_ROWS,
    .n_in = 3,
    .n_in_min = 3,
    .n_out = 1,
    .inplace = {{1}},
    .infer = scatter_rows_infer,
    .vjp = scatter_rows_vjp,
    .ref = scatter_rows_ref,
};

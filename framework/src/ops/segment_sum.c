/* segment_sum.c -- sums of rows that share a number. */
#include "base/mem.h"
#include "ops/check.h"
#include "ops/ref.h"

static qfw_status segment_sum_infer(op_infer *i) {
    const char *const op = "segment_sum";
    const op_shape *const x = i->in[0];
    const qfw_segment_sum_params *const p = i->params;
    QFW_TRY(check_param(p->count >= 0, op, "count", (double)p->count, "0 or more"));
    QFW_TRY(check_rows(op, "x", x, DTYPES_FLOAT));
    QFW_TRY(check_operand(op, "index", i->in[1], DTYPE_BIT(QFW_I32), 1, x->dim[0], 0));
    i->out[0] = *x;
    i->out[0].dtype = shape_stat_dtype(x->dtype);
    i->out[0].dim[0] = p->count;
    return QFW_OK;
}

static qfw_status segment_sum_vjp(op_vjp *v) {
    if (!v->dout[0] || !v->need[0]) return QFW_OK;
    return qfw_gather_rows(v->g, v->dout[0], v->in[1], &v->din[0]);
}

static qfw_status segment_sum_ref(const qfw_op *op) {
    const qfw_tensor x = ref_as_matrix(op->in[0]), y = ref_as_matrix(op->out[0]);
    const qfw_tensor *const index = op->in[1];
    const int64_t C = x.dim[1], count = y.dim[0];
    QFW_TRY(ref_check_index("segment_sum", index, count));
    double *const sum = mem_alloc(((size_t)count + 1) * (size_t)C, sizeof *sum);
    double *const row = sum + count * C;
    if (!sum) return QFW_E_NOMEM;
    for (int64_t n = 0; n < x.dim[0]; n++) {
        const int32_t s = ref_i32(index, ref_at(index, n));
        if (s < 0) continue;
        ref_row(&x, n, row);
        for (int64_t c = 0; c < C; c++) sum[s * C + c] += row[c];
    }
    for (int64_t s = 0; s < count; s++) ref_set_row(&y, s, sum + s * C);
    mem_free(sum);
    return QFW_OK;
}

const op_def op_segment_sum = {
    .name = "segment_sum",
    .code = QFW_OP_SEGMENT_SUM,
    .param_bytes = sizeof(qfw_segment_sum_params),
    .n_in = 2,
    .n_in_min = 2,
    .n_out = 1,
    .infer = segment_sum_infer,
    .vjp = segment_sum_vjp,
    .ref = segment_sum_ref,
};

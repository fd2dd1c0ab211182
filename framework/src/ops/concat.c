/* concat.c -- tensors one after another along one dimension. */
#include "base/mem.h"
#include "ops/check.h"
#include "ops/emit.h"
#include "ops/ref.h"

static qfw_status concat_infer(op_infer *i) {
    const op_shape *const x0 = i->in[0];
    const qfw_concat_params *const p = i->params;
    char name[] = "x0";
    int ended = 0;
    QFW_TRY(check_dtype("concat", name, x0, DTYPES_PLAIN));
    QFW_TRY(check_param(p->axis < x0->rank, "concat", "axis", p->axis, "a dimension of x0"));
    op_shape like = *x0;
    like.dim[p->axis] = ANY_DIM;
    i->out[0] = *x0;
    for (uint32_t k = 1; k < QFW_MAX_IN; k++) {
        ended |= !i->in[k];
        if (!i->in[k]) continue;
        name[1] = (char)('0' + k);
        QFW_TRY(check_param(!ended, "concat", name, k, "no input after one that is absent"));
        QFW_TRY(check_like("concat", name, i->in[k], DTYPE_BIT(x0->dtype), &like));
        i->out[0].dim[p->axis] += i->in[k]->dim[p->axis];
    }
    return QFW_OK;
}

static qfw_status concat_vjp(op_vjp *v) {
    const uint32_t axis = ((const qfw_concat_params *)v->params)->axis;
    int64_t first = 0;
    if (!v->dout[0]) return QFW_OK;
    for (uint32_t k = 0; k < QFW_MAX_IN && v->in[k]; k++) {
        const int64_t count = emit_dim(v->g, v->in[k], axis);
        if (v->need[k]) QFW_TRY(emit_window(v->g, v->dout[0], axis, first, count, &v->din[k]));
        first += count;
    }
    return QFW_OK;
}

/* Copy x to where its part of y begins. */
static qfw_status copy_part(
    const qfw_tensor *x, const qfw_tensor *y, uint32_t axis, int64_t first) {
    const int64_t count = qfw_tensor_count(x), width = x->dim[x->rank - 1];
    double *const row = mem_alloc((size_t)width, sizeof *row);
    qfw_tensor part = *y;
    if (!row) return QFW_E_NOMEM;
    part.dim[axis] = x->dim[axis];
    part.offset += (uint64_t)(first * y->stride[axis]) * qfw_dtype_bytes(y->dtype);
    for (int64_t r = 0; count > 0 && r < count / width; r++) {
        ref_row(x, r, row);
        ref_set_row(&part, r, row);
    }
    mem_free(row);
    return QFW_OK;
}

static qfw_status concat_ref(const qfw_op *op) {
    const uint32_t axis = ((const qfw_concat_params *)op->params)->axis;
    int64_t first = 0;
    for (uint32_t k = 0; k < op->n_in && op->in[k]; k++) {
        QFW_TRY(copy_part(op->in[k], op->out[0], axis, first));
        first += op->in[k]->dim[axis];
    }
    return QFW_OK;
}

const op_def op_concat = {
    .name = "concat",
    .code = QFW_OP_CONCAT,
    .param_bytes = sizeof(qfw_concat_params),
    .n_in = QFW_MAX_IN,
    .n_in_min = 1,
    .n_out = 1,
    .infer = concat_infer,
    .vjp = concat_vjp,
    .ref = concat_ref,
};

/* unview.c -- the gradient of a view: what arrives at the window, in the shape of what it is on. */
#include "base/mem.h"
#include "ops/check.h"
#include "ops/ref.h"

/* Every value of the window {x's shape, stride, offset} lies among y's `count`. */
static int window_fits(const op_shape *x, const qfw_unview_params *p, int64_t count) {
    int64_t last = p->offset;
    for (uint32_t d = 0; d < x->rank; d++)
        if (x->dim[d] == 0) return p->offset >= 0 && p->offset <= count;
    if (last < 0 || last >= count) return 0;
    for (uint32_t d = 0; d < x->rank; d++) {
        if (p->stride[d] < 0) return 0;
        if (p->stride[d] && x->dim[d] - 1 > (count - 1 - last) / p->stride[d]) return 0;
        last += (x->dim[d] - 1) * p->stride[d];
    }
    return 1;
}

static qfw_status unview_infer(op_infer *i) {
    const op_shape *const x = i->in[0];
    const qfw_unview_params *const p = i->params;
    int64_t count = 1;
    QFW_TRY(check_dtype("unview", "x", x, DTYPES_FLOAT));
    QFW_TRY(check_dims("unview", p->rank, p->dim, &i->out[0]));
    i->out[0].dtype = shape_stat_dtype(x->dtype);
    for (uint32_t d = 0; d < p->rank; d++) count *= p->dim[d];
    return check_param(window_fits(x, p, count), "unview", "offset", (double)p->offset,
        "a window of x's shape inside y");
}

static qfw_status unview_vjp(op_vjp *v) {
    const qfw_unview_params *const p = v->params;
    uint32_t dtype, rank;
    int64_t dim[QFW_MAX_DIMS];
    if (!v->dout[0] || !v->need[0]) return QFW_OK;
    QFW_TRY(v->g->api->shape(v->g, v->in[0], &dtype, &rank, dim));
    return v->g->api->view(v->g, v->dout[0], rank, dim, p->stride, p->offset, &v->din[0]);
}

static qfw_status unview_ref(const qfw_op *op) {
    const qfw_unview_params *const p = op->params;
    const qfw_tensor *const x = op->in[0], *const y = op->out[0];
    const int64_t count = qfw_tensor_count(y), n = qfw_tensor_count(x);
    double *const sum = mem_alloc((size_t)count, sizeof *sum);
    if (!sum) return QFW_E_NOMEM;
    qfw_tensor window = *x; /* where x's values go */
    for (uint32_t d = 0; d < x->rank; d++) window.stride[d] = p->stride[d];
    for (int64_t i = 0; i < n; i++)
        sum[p->offset + ref_at(&window, i)] += ref_load(x, ref_at(x, i));
    for (int64_t i = 0; i < count; i++) ref_store(y, ref_at(y, i), sum[i]);
    mem_free(sum);
    return QFW_OK;
}

const op_def op_unview = {
    .name = "unview",
    .code = QFW_OP_UNVIEW,
    .param_bytes = sizeof(qfw_unview_params),
    .n_in = 1,
    .n_in_min = 1,
    .n_out = 1,
    .infer = unview_infer,
    .vjp = unview_vjp,
    .ref = unview_ref,
};

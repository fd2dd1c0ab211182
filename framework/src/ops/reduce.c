/* reduce.c -- sums, sums of squares and maxima along some dimensions. */
#include "ops/check.h"
#include "ops/emit.h"
#include "ops/ref.h"

#include <math.h>

static qfw_status reduce_infer(op_infer *i) {
    const op_shape *const x = i->in[0];
    const qfw_reduce_params *const p = i->params;
    QFW_TRY(check_param(p->kind >= QFW_SUM && p->kind < QFW_REDUCE_END, "reduce", "kind", p->kind,
        "1 (sum), 2 (sum of squares) or 3 (maximum)"));
    QFW_TRY(check_dtype("reduce", "x", x, DTYPES_FLOAT));
    i->out[0] = (op_shape){shape_stat_dtype(x->dtype), x->rank, {1, 1, 1, 1}};
    for (uint32_t d = 0; d < x->rank; d++) {
        QFW_TRY(check_param(p->dim[d] == 1 || p->dim[d] == x->dim[d], "reduce", "dim",
            (double)p->dim[d], "x's dimension or 1"));
        i->out[0].dim[d] = p->dim[d];
    }
    return QFW_OK;
}

/* dx = dy, repeated to x's shape: a window with stride 0, made dense. */
static qfw_status sum_gradient(op_vjp *v) {
    const qfw_reduce_params *const p = v->params;
    qfw_copy_params copy = {sizeof copy, 0};
    int64_t dim[QFW_MAX_DIMS], stride[QFW_MAX_DIMS] = {0}, step = 1;
    uint32_t dtype, rank;
    qfw_val wide;
    QFW_TRY(v->g->api->shape(v->g, v->in[0], &dtype, &rank, dim));
    int repeats = 0;
    for (uint32_t d = rank; d-- > 0;) {
        stride[d] = p->dim[d] == dim[d] ? step : 0;
        repeats |= p->dim[d] != dim[d];
        step *= p->dim[d];
    }
    v->din[0] = v->dout[0];
    if (!repeats) return QFW_OK;
    copy.dtype = dtype;
    QFW_TRY(v->g->api->view(v->g, v->dout[0], rank, dim, stride, 0, &wide));
    return v->g->api->op(v->g, QFW_OP_COPY, &wide, 1, &copy, sizeof copy, NULL, &v->din[0], 1);
}

/* dx = 2 * x * dy */
static qfw_status sumsq_gradient(op_vjp *v) {
    qfw_val t;
    QFW_TRY(qfw_scale(v->g, v->dout[0], 2, 0, &t));
    return qfw_binary(v->g, QFW_MUL, v->in[0], t, &v->din[0]);
}

/* dx = (x == y) * dy / how many are equal to y */
static qfw_status maximum_gradient(op_vjp *v) {
    const qfw_reduce_params *const p = v->params;
    qfw_graph *const g = v->g;
    qfw_val equal, count, share;
    QFW_TRY(qfw_binary(g, QFW_GT, v->out[0], v->in[0], &equal));
    QFW_TRY(qfw_scale(g, equal, -1, 1, &equal));
    QFW_TRY(qfw_reduce(g, QFW_SUM, equal, p->dim, &count));
    QFW_TRY(qfw_binary(g, QFW_DIV, v->dout[0], count, &share));
    return qfw_binary(g, QFW_MUL, equal, share, &v->din[0]);
}

static qfw_status reduce_vjp(op_vjp *v) {
    if (!v->dout[0] || !v->need[0]) return QFW_OK;
    switch (((const qfw_reduce_params *)v->params)->kind) {
    case QFW_SUM: return sum_gradient(v);
    case QFW_SUMSQ: return sumsq_gradient(v);
    default: return maximum_gradient(v);
    }
}

typedef struct reduce_job {
    const qfw_tensor *x, *y;
    uint32_t kind;
    int64_t n_rows; /* of x that fall together in one row of y */
} reduce_job;

static int64_t last_dim(const qfw_tensor *t) { return t->rank ? t->dim[t->rank - 1] : 1; }

/* The k-th of the rows of x that fall together in row r of y. */
static int64_t source_row(const reduce_job *j, int64_t r, int64_t k) {
    int64_t row = 0, step = 1;
    for (uint32_t d = j->x->rank > 1 ? j->x->rank - 1 : 0; d-- > 0;) {
        const int64_t n = j->x->dim[d];
        int64_t *const from = j->y->dim[d] == n ? &r : &k;
        row += *from % n * step;
        *from /= n;
        step *= n;
    }
    return row;
}

static double combine(uint32_t kind, double sum, double x) {
    switch (kind) {
    case QFW_SUM: return sum + x;
    case QFW_SUMSQ: return sum + x * x;
    default: return x > sum || isnan(x) ? x : sum; /* QFW_MAXIMUM */
    }
}

static void reduce_row(void *arg, int64_t r, double *scratch) {
    const reduce_job *const j = arg;
    const int64_t wide = last_dim(j->x), narrow = last_dim(j->y);
    double *const sum = scratch, *const x = sum + narrow;
    const int64_t step = narrow == wide;
    for (int64_t c = 0; c < narrow; c++) sum[c] = j->kind == QFW_MAXIMUM ? -(double)INFINITY : 0;
    for (int64_t k = 0; k < j->n_rows; k++) {
        ref_row(j->x, source_row(j, r, k), x);
        for (int64_t c = 0; c < wide; c++) sum[c * step] = combine(j->kind, sum[c * step], x[c]);
    }
    ref_set_row(j->y, r, sum);
}

static qfw_status reduce_ref(const qfw_op *op) {
    const qfw_tensor *const x = op->in[0], *const y = op->out[0];
    reduce_job j = {x, y, ((const qfw_reduce_params *)op->params)->kind, 1};
    int64_t rows = 1;
    for (uint32_t d = 0; d + 1 < x->rank; d++) {
        rows *= y->dim[d];
        if (x->dim[d] != y->dim[d]) j.n_rows *= x->dim[d];
    }
    return ref_each_row(rows, last_dim(x) + last_dim(y), reduce_row, &j);
}

const op_def op_reduce = {
    .name = "reduce",
    .code = QFW_OP_REDUCE,
    .param_bytes = sizeof(qfw_reduce_params),
    .n_in = 1,
    .n_in_min = 1,
    .n_out = 1,
    .infer = reduce_infer,
    .vjp = reduce_vjp,
    .ref = reduce_ref,
};

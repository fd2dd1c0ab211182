/* rmsnorm.c -- root mean square normalisation of rows, and its gradients. */
#include "base/mem.h"
#include "ops/check.h"
#include "ops/ref.h"

#include <math.h>

static qfw_status rmsnorm_infer(op_infer *i) {
    const op_shape *const x = i->in[0];
    const qfw_rmsnorm_params *const p = i->params;
    QFW_TRY(check_operand("rmsnorm", "x", x, DTYPES_FLOAT, 2, ANY_DIM, ANY_DIM));
    QFW_TRY(check_operand("rmsnorm", "w", i->in[1], DTYPES_FLOAT, 1, x->dim[1], 0));
    QFW_TRY(check_param(
        p->eps > 0 && isfinite(p->eps), "rmsnorm", "eps", (double)p->eps, "a number above 0"));
    i->out[0] = *x;
    i->out[1] = shape_1d(shape_stat_dtype(x->dtype), x->dim[0]);
    return QFW_OK;
}

static qfw_status rmsnorm_bwd_infer(op_infer *i) {
    const char *const op = "rmsnorm_bwd";
    const op_shape *const dy = i->in[0], *const x = i->in[1];
    QFW_TRY(check_operand(op, "x", x, DTYPES_FLOAT, 2, ANY_DIM, ANY_DIM));
    const int64_t N = x->dim[0], C = x->dim[1];
    QFW_TRY(check_operand(op, "dy", dy, DTYPES_FLOAT, 2, N, C));
    QFW_TRY(check_operand(op, "w", i->in[2], DTYPES_FLOAT, 1, C, 0));
    QFW_TRY(check_operand(op, "rstd", i->in[3], DTYPES_FLOAT, 1, N, 0));
    QFW_TRY(check_operand(op, "acc", i->in[4], DTYPES_FLOAT, 2, N, C));
    i->out[0] = *dy;
    i->out[1] = shape_1d(shape_stat_dtype(dy->dtype), C);
    return QFW_OK;
}

static qfw_status rmsnorm_vjp(op_vjp *v) {
    const qfw_val in[5] = {v->dout[0], v->in[0], v->in[1], v->out[1], v->need[0] ? v->acc[0] : 0};
    const uint8_t want[2] = {1, v->need[1]};
    qfw_val out[2] = {0, 0};
    if (!v->dout[0]) return QFW_OK;
    QFW_TRY(v->g->api->op(v->g, QFW_OP_RMSNORM_BWD, in, 5, NULL, 0, want, out, 2));
    if (v->need[0]) {
        v->din[0] = out[0];
        v->acc[0] = 0;
    }
    v->din[1] = out[1];
    return QFW_OK;
}

typedef struct norm_job {
    const qfw_op *op;
    const double *w;
    int64_t C;
} norm_job;

static void rmsnorm_row(void *arg, int64_t n, double *x) {
    const norm_job *const j = arg;
    const qfw_rmsnorm_params *const p = j->op->params;
    double sum = 0;
    ref_row(j->op->in[0], n, x);
    for (int64_t c = 0; c < j->C; c++) sum += x[c] * x[c];
    const double rstd = 1 / sqrt(sum / (double)j->C + (double)p->eps);
    for (int64_t c = 0; c < j->C; c++) x[c] = x[c] * rstd * j->w[c];
    ref_set_row(j->op->out[0], n, x);
    ref_store(j->op->out[1], ref_at(j->op->out[1], n), rstd);
}

static void rmsnorm_dx_row(void *arg, int64_t n, double *scratch) {
    const norm_job *const j = arg;
    const qfw_tensor *const acc = j->op->in[4];
    const int64_t C = j->C;
    double *const g = scratch, *const xh = g + C, *const sum = xh + C;
    const double rstd = ref_load(j->op->in[3], ref_at(j->op->in[3], n));
    double mean = 0;
    ref_row(j->op->in[0], n, g);
    ref_row(j->op->in[1], n, xh);
    for (int64_t c = 0; c < C; c++) {
        g[c] *= j->w[c];
        xh[c] *= rstd;
        mean += g[c] * xh[c] / (double)C;
    }
    if (acc) ref_row(acc, n, sum);
    for (int64_t c = 0; c < C; c++) {
        const double dx = rstd * (g[c] - xh[c] * mean);
        g[c] = acc ? sum[c] + dx : dx;
    }
    ref_set_row(j->op->out[0], n, g);
}

/* dw, before dx may overwrite dy. */
static qfw_status rmsnorm_dw(const qfw_op *op, int64_t N, int64_t C) {
    double *const dw = mem_alloc((size_t)C * 3, sizeof *dw), *const dy = dw + C, *const x = dy + C;
    if (!dw) return QFW_E_NOMEM;
    for (int64_t n = 0; n < N; n++) {
        const double rstd = ref_load(op->in[3], ref_at(op->in[3], n));
        ref_row(op->in[0], n, dy);
        ref_row(op->in[1], n, x);
        for (int64_t c = 0; c < C; c++) dw[c] += dy[c] * x[c] * rstd;
    }
    ref_set_row(op->out[1], 0, dw);
    mem_free(dw);
    return QFW_OK;
}

static qfw_status rmsnorm_ref(const qfw_op *op) {
    norm_job j = {op, NULL, op->in[0]->dim[1]};
    double *const w = ref_matrix(op->in[1]);
    if (!w) return QFW_E_NOMEM;
    j.w = w;
    const qfw_status s = ref_each_row(op->in[0]->dim[0], j.C, rmsnorm_row, &j);
    mem_free(w);
    return s;
}

static qfw_status rmsnorm_bwd_ref(const qfw_op *op) {
    const int64_t N = op->in[1]->dim[0];
    norm_job j = {op, NULL, op->in[1]->dim[1]};
    if (op->out[1]) QFW_TRY(rmsnorm_dw(op, N, j.C));
    double *const w = ref_matrix(op->in[2]);
    if (!w) return QFW_E_NOMEM;
    j.w = w;
    const qfw_status s = ref_each_row(N, 3 * j.C, rmsnorm_dx_row, &j);
    mem_free(w);
    return s;
}

const op_def op_rmsnorm = {
    .name = "rmsnorm",
    .code = QFW_OP_RMSNORM,
    .param_bytes = sizeof(qfw_rmsnorm_params),
    .n_in = 2,
    .n_in_min = 2,
    .n_out = 2,
    .infer = rmsnorm_infer,
    .vjp = rmsnorm_vjp,
    .ref = rmsnorm_ref,
};

const op_def op_rmsnorm_bwd = {
    .name = "rmsnorm_bwd",
    .code = QFW_OP_RMSNORM_BWD,
    .n_in = 5,
    .n_in_min = 4,
    .n_out = 2,
    .out_optional = {0, 1},
    .inplace = {{1, 5}},
    .infer = rmsnorm_bwd_infer,
    .ref = rmsnorm_bwd_ref,
};

/* gemm.c -- products of two matrices of floats, added to some columns of a third. */
#include "ops/check.h"
#include "ops/emit.h"
#include "ops/ref.h"

#include <math.h>

static qfw_status gemm_infer(op_infer *i) {
    const char *const op = "gemm";
    const op_shape *const a = i->in[0], *const b = i->in[1], *const c = i->in[2];
    const qfw_gemm_params *const p = i->params;
    QFW_TRY(check_param(p->trans_a <= 1, op, "trans_a", p->trans_a, "0 or 1"));
    QFW_TRY(check_param(p->trans_b <= 1, op, "trans_b", p->trans_b, "0 or 1"));
    QFW_TRY(check_param(isfinite(p->alpha), op, "alpha", (double)p->alpha, "a finite number"));
    QFW_TRY(check_operand(op, "a", a, DTYPES_FLOAT, 2, ANY_DIM, ANY_DIM));
    const int64_t M = a->dim[p->trans_a], K = a->dim[!p->trans_a];
    QFW_TRY(check_operand(
        op, "b", b, DTYPES_FLOAT, 2, p->trans_b ? ANY_DIM : K, p->trans_b ? K : ANY_DIM));
    const int64_t n = b->dim[!p->trans_b];
    QFW_TRY(check_operand(op, "c", c, DTYPES_FLOAT, 2, M, ANY_DIM));
    QFW_TRY(check_param(p->col0 >= 0 && (c ? p->col0 <= c->dim[1] - n : p->col0 == 0), op, "col0",
        (double)p->col0, c ? "the columns of the product inside c" : "0 where c is absent"));
    i->out[0] = c ? *c : shape_2d(a->dtype, M, n);
    return QFW_OK;
}

/* With dp = the columns of dy that the product went to:
 * d op(a) = alpha * dp * op(b)^T,  d op(b) = alpha * op(a)^T * dp; transposed where a or b is. */
static qfw_status gemm_vjp(op_vjp *v) {
    const qfw_gemm_params *const p = v->params;
    const qfw_val a = v->in[0], b = v->in[1];
    qfw_val dp;
    if (!v->dout[0]) return QFW_OK;
    if (v->in[2] && v->need[2]) v->din[2] = v->dout[0];
    if (!v->need[0] && !v->need[1]) return QFW_OK;
    QFW_TRY(emit_columns(v->g, v->dout[0], p->col0, emit_dim(v->g, b, !p->trans_b), &dp));
    if (v->need[0]) {
        const emit_product plain = {dp, b, v->acc[0], 0, !p->trans_b, p->alpha, 0};
        const emit_product turned = {b, dp, v->acc[0], p->trans_b, 1, p->alpha, 0};
        QFW_TRY(emit_gemm(v->g, p->trans_a ? &turned : &plain, &v->din[0]));
        v->acc[0] = 0;
    }
    if (v->need[1]) {
        const emit_product plain = {a, dp, v->acc[1], !p->trans_a, 0, p->alpha, 0};
        const emit_product turned = {dp, a, v->acc[1], 1, p->trans_a, p->alpha, 0};
        QFW_TRY(emit_gemm(v->g, p->trans_b ? &turned : &plain, &v->din[1]));
        v->acc[1] = 0;
    }
    return QFW_OK;
}

/* Rows of y are taken in groups, so that a row of b is widened once for all of them. */
enum { GROUP = 16 };

typedef struct gemm_job {
    const qfw_op *op;
    qfw_tensor a; /* op(a) */
    int64_t M, n, K;
    double alpha;
} gemm_job;

static qfw_tensor transposed(const qfw_tensor *t) {
    qfw_tensor turned = *t;
    turned.dim[0] = t->dim[1];
    turned.dim[1] = t->dim[0];
    turned.stride[0] = t->stride[1];
    turned.stride[1] = t->stride[0];
    return turned;
}

/* sum[i, j] = op(a)[i] . op(b)[:, j] for `count` rows; a row of op(b)^T is a row of b. */
static void sum_dots(const gemm_job *j, int64_t count, const double *a, double *b, double *sum) {
    for (int64_t col = 0; col < j->n; col++) {
        ref_row(j->op->in[1], col, b);
        for (int64_t i = 0; i < count; i++) sum[i * j->n + col] = ref_dot(a + i * j->K, b, j->K);
    }
}

/* The same where a row of op(b) is a row of b. */
static void sum_rows(const gemm_job *j, int64_t count, const double *a, double *b, double *sum) {
    for (int64_t i = 0; i < count * j->n; i++) sum[i] = 0;
    for (int64_t k = 0; k < j->K; k++) {
        ref_row(j->op->in[1], k, b);
        for (int64_t i = 0; i < count; i++)
            for (int64_t col = 0; col < j->n; col++)
                sum[i * j->n + col] += a[i * j->K + k] * b[col];
    }
}

static void gemm_group(void *arg, int64_t group, double *scratch) {
    const gemm_job *const j = arg;
    const qfw_gemm_params *const p = j->op->params;
    const qfw_tensor *const c = j->op->in[2], *const y = j->op->out[0];
    const int64_t first = group * GROUP, count = j->M - first < GROUP ? j->M - first : GROUP;
    double *const a = scratch, *const sum = a + GROUP * j->K, *const b = sum + GROUP * j->n;
    double *const row = b + (p->trans_b ? j->K : j->n);
    for (int64_t i = 0; i < count; i++) ref_row(&j->a, first + i, a + i * j->K);
    if (p->trans_b)
        sum_dots(j, count, a, b, sum);
    else
        sum_rows(j, count, a, b, sum);
    for (int64_t i = 0; i < count; i++) {
        for (int64_t col = 0; !c && col < j->n; col++) row[col] = 0;
        if (c) ref_row(c, first + i, row);
        for (int64_t col = 0; col < j->n; col++)
            row[p->col0 + col] += j->alpha * sum[i * j->n + col];
        ref_set_row(y, first + i, row);
    }
}

static qfw_status gemm_ref(const qfw_op *op) {
    const qfw_gemm_params *const p = op->params;
    gemm_job j = {.op = op, .alpha = (double)p->alpha};
    j.a = p->trans_a ? transposed(op->in[0]) : *op->in[0];
    j.M = j.a.dim[0];
    j.K = j.a.dim[1];
    j.n = op->in[1]->dim[!p->trans_b];
    const int64_t scratch = GROUP * (j.K + j.n) + (p->trans_b ? j.K : j.n) + op->out[0]->dim[1];
    return ref_each_row((j.M + GROUP - 1) / GROUP, scratch, gemm_group, &j);
}

const op_def op_gemm = {
    .name = "gemm",
    .code = QFW_OP_GEMM,
    .param_bytes = sizeof(qfw_gemm_params),
    .n_in = 3,
    .n_in_min = 2,
    .n_out = 1,
    .inplace = {{3}},
    .infer = gemm_infer,
    .vjp = gemm_vjp,
    .ref = gemm_ref,
};

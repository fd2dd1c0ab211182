/* qmatmul.c -- products with a frozen 4-bit weight: forward, and the gradient of the input. The
 * weight itself has none. */
#include "base/mem.h"
#include "ops/check.h"
#include "ops/emit.h"
#include "ops/ref.h"

/* x is in[0], [N,K] forward and dy [N,M] backward; w [M,K]. */
static qfw_status infer(op_infer *i, const char *op, const char *name, uint32_t from, uint32_t to) {
    const op_shape *const x = i->in[0], *const w = i->in[1];
    QFW_TRY(check_operand(op, "w", w, DTYPES_PACKED, 2, ANY_DIM, ANY_DIM));
    QFW_TRY(check_operand(op, name, x, DTYPES_FLOAT, 2, ANY_DIM, w->dim[from]));
    QFW_TRY(check_operand(op, "acc", i->in[2], DTYPES_FLOAT, 2, x->dim[0], w->dim[to]));
    i->out[0] = shape_2d(x->dtype, x->dim[0], w->dim[to]);
    return QFW_OK;
}

static qfw_status qmatmul_infer(op_infer *i) { return infer(i, "qmatmul", "x", 1, 0); }
static qfw_status qmatmul_dx_infer(op_infer *i) { return infer(i, "qmatmul_dx", "dy", 0, 1); }

static qfw_status qmatmul_vjp(op_vjp *v) {
    if (!v->dout[0]) return QFW_OK;
    if (v->need[0]) {
        const qfw_val in[3] = {v->dout[0], v->in[1], v->acc[0]};
        QFW_TRY(v->g->api->op(v->g, QFW_OP_QMATMUL_DX, in, 3, NULL, 0, NULL, &v->din[0], 1));
        v->acc[0] = 0;
    }
    if (v->in[2] && v->need[2]) v->din[2] = v->dout[0];
    return QFW_OK;
}

/* Rows of w per slab: 32 MiB as fp32. */
static int64_t slab_rows(int64_t K) {
    enum { SLAB_VALUES = 8 << 20 };
    const int64_t rows = SLAB_VALUES / (K > 0 ? K : 1);
    return rows > 16 ? rows : 16;
}

static qfw_status dequant(qfw_graph *g, qfw_val w, int64_t row0, int64_t rows, qfw_val *out) {
    const qfw_dequant4_params p = {sizeof p, 0, row0, rows};
    return g->api->op(g, QFW_OP_DEQUANT4, &w, 1, &p, sizeof p, NULL, out, 1);
}

/* y starts as acc or zeros; each slab of w gives some of its columns. */
static qfw_status qmatmul_decompose(op_decompose *d) {
    qfw_graph *const g = d->g;
    const int64_t N = emit_dim(g, d->in[0], 0), M = emit_dim(g, d->in[1], 0);
    const int64_t slab = slab_rows(emit_dim(g, d->in[1], 1));
    const uint32_t dtype = emit_dtype(g, d->in[0]);
    qfw_val y;
    QFW_TRY(emit_as(g, dtype, d->in[2], &y));
    if (!y && M > slab) QFW_TRY(emit_zeros(g, dtype, N, M, &y));
    for (int64_t row0 = 0; row0 < M || row0 == 0; row0 += slab) {
        emit_product p = {.a = d->in[0], .c = y, .trans_b = 1, .alpha = 1, .col0 = row0};
        QFW_TRY(dequant(g, d->in[1], row0, M - row0 < slab ? M - row0 : slab, &p.b));
        QFW_TRY(emit_gemm(g, &p, &y));
    }
    d->result[0] = y;
    return QFW_OK;
}

/* dx sums what each slab of w gives for its columns of dy. */
static qfw_status qmatmul_dx_decompose(op_decompose *d) {
    qfw_graph *const g = d->g;
    const int64_t M = emit_dim(g, d->in[1], 0), slab = slab_rows(emit_dim(g, d->in[1], 1));
    qfw_val dx;
    QFW_TRY(emit_as(g, emit_dtype(g, d->in[0]), d->in[2], &dx));
    for (int64_t row0 = 0; row0 < M || row0 == 0; row0 += slab) {
        const int64_t rows = M - row0 < slab ? M - row0 : slab;
        emit_product p = {.c = dx, .alpha = 1};
        QFW_TRY(emit_columns(g, d->in[0], row0, rows, &p.a));
        QFW_TRY(dequant(g, d->in[1], row0, rows, &p.b));
        QFW_TRY(emit_gemm(g, &p, &dx));
    }
    d->result[0] = dx;
    return QFW_OK;
}

typedef struct product_job {
    const qfw_op *op;
    const double *x; /* in[0], whole */
    int64_t N, M, K;
} product_job;

/* Column m of y: row m of w with every row of x. */
static void qmatmul_column(void *arg, int64_t m, double *w) {
    const product_job *const j = arg;
    const qfw_tensor *const acc = j->op->in[2], *const y = j->op->out[0];
    ref_packed_row(j->op->in[1], m, w);
    for (int64_t n = 0; n < j->N; n++) {
        const double before = acc ? ref_load(acc, ref_at(acc, n * j->M + m)) : 0;
        ref_store(y, ref_at(y, n * j->M + m), before + ref_dot(j->x + n * j->K, w, j->K));
    }
}

enum { TILE = 64 };

/* Columns TILE * t .. of dx: those columns of w, decoded once for all rows of dy. */
static void qmatmul_dx_tile(void *arg, int64_t t, double *sum) {
    const product_job *const j = arg;
    const qfw_tensor *const acc = j->op->in[2], *const dx = j->op->out[0];
    const int64_t k0 = t * TILE, n_k = j->K - k0 < TILE ? j->K - k0 : TILE;
    double *const w = sum + j->N * TILE;
    for (int64_t n = 0; n < j->N; n++)
        for (int64_t k = 0; k < n_k; k++)
            sum[n * TILE + k] = acc ? ref_load(acc, ref_at(acc, n * j->K + k0 + k)) : 0;
    for (int64_t m = 0; m < j->M; m++) {
        ref_packed(j->op->in[1], m * j->K + k0, n_k, w);
        for (int64_t n = 0; n < j->N; n++)
            for (int64_t k = 0; k < n_k; k++) sum[n * TILE + k] += j->x[n * j->M + m] * w[k];
    }
    for (int64_t n = 0; n < j->N; n++)
        for (int64_t k = 0; k < n_k; k++)
            ref_store(dx, ref_at(dx, n * j->K + k0 + k), sum[n * TILE + k]);
}

static qfw_status qmatmul_ref(const qfw_op *op) {
    const qfw_tensor *const w = op->in[1];
    product_job j = {op, NULL, op->in[0]->dim[0], w->dim[0], w->dim[1]};
    double *const x = ref_matrix(op->in[0]);
    if (!x) return QFW_E_NOMEM;
    j.x = x;
    const qfw_status s = ref_each_row(j.M, j.K, qmatmul_column, &j);
    mem_free(x);
    return s;
}

static qfw_status qmatmul_dx_ref(const qfw_op *op) {
    const qfw_tensor *const w = op->in[1];
    product_job j = {op, NULL, op->in[0]->dim[0], w->dim[0], w->dim[1]};
    double *const dy = ref_matrix(op->in[0]);
    if (!dy) return QFW_E_NOMEM;
    j.x = dy;
    const qfw_status s =
        ref_each_row((j.K + TILE - 1) / TILE, (j.N + 1) * TILE, qmatmul_dx_tile, &j);
    mem_free(dy);
    return s;
}

const op_def op_qmatmul = {
    .name = "qmatmul",
    .code = QFW_OP_QMATMUL,
    .n_in = 3,
    .n_in_min = 2,
    .n_out = 1,
    .inplace = {{3}},
    .infer = qmatmul_infer,
    .vjp = qmatmul_vjp,
    .decompose = qmatmul_decompose,
    .ref = qmatmul_ref,
};

const op_def op_qmatmul_dx = {
    .name = "qmatmul_dx",
    .code = QFW_OP_QMATMUL_DX,
    .n_in = 3,
    .n_in_min = 2,
    .n_out = 1,
    .inplace = {{3}},
    .infer = qmatmul_dx_infer,
    .decompose = qmatmul_dx_decompose,
    .ref = qmatmul_dx_ref,
};

/* lora.c -- a low-rank adapter added to some columns of a product, with dropout on its input, and
 * its gradients. */
#include "base/mem.h"
#include "ops/check.h"
#include "ops/emit.h"
#include "ops/ref.h"

#include <math.h>

/* x[N,K], a[R,K], b[M',R], where M' columns from col0 on lie inside y's M. */
static qfw_status check_adapter(const char *op, const op_shape *y, const op_shape *x,
    const op_shape *a, const op_shape *b, const op_shape *row_key, const qfw_lora_params *p) {
    QFW_TRY(check_operand(op, "x", x, DTYPES_FLOAT, 2, ANY_DIM, ANY_DIM));
    QFW_TRY(check_operand(op, "a", a, DTYPES_FLOAT, 2, ANY_DIM, x->dim[1]));
    QFW_TRY(check_operand(op, "b", b, DTYPES_FLOAT, 2, ANY_DIM, a->dim[0]));
    QFW_TRY(check_operand(op, "row_key", row_key, DTYPE_BIT(QFW_I32), 2, x->dim[0], 2));
    QFW_TRY(check_param(p->col0 >= 0 && p->col0 <= y->dim[1] - b->dim[0], op, "col0",
        (double)p->col0, "the rows of b inside the columns of y"));
    QFW_TRY(check_param(isfinite(p->scale), op, "scale", (double)p->scale, "a finite number"));
    QFW_TRY(check_param(p->p >= 0 && p->p < 1, op, "p", (double)p->p, "in [0, 1)"));
    return check_param(p->p == 0.0f || row_key, op, "p", (double)p->p, "0 where row_key is absent");
}

static qfw_status lora_infer(op_infer *i) {
    const op_shape *const y = i->in[0], *const x = i->in[1];
    QFW_TRY(check_operand("lora", "y", y, DTYPES_FLOAT, 2, ANY_DIM, ANY_DIM));
    QFW_TRY(check_operand("lora", "x", x, DTYPES_FLOAT, 2, y->dim[0], ANY_DIM));
    QFW_TRY(check_adapter("lora", y, x, i->in[2], i->in[3], i->in[4], i->params));
    i->out[0] = *y;
    i->out[1] = shape_2d(x->dtype, x->dim[0], i->in[2]->dim[0]);
    return QFW_OK;
}

static qfw_status lora_bwd_infer(op_infer *i) {
    const char *const op = "lora_bwd";
    const op_shape *const dy = i->in[0], *const x = i->in[1], *const a = i->in[2];
    QFW_TRY(check_operand(op, "dy", dy, DTYPES_FLOAT, 2, ANY_DIM, ANY_DIM));
    QFW_TRY(check_operand(op, "x", x, DTYPES_FLOAT, 2, dy->dim[0], ANY_DIM));
    QFW_TRY(check_adapter(op, dy, x, a, i->in[3], i->in[5], i->params));
    QFW_TRY(check_operand(op, "xa", i->in[4], DTYPES_FLOAT, 2, dy->dim[0], a->dim[0]));
    QFW_TRY(check_operand(op, "acc", i->in[6], DTYPES_FLOAT, 2, dy->dim[0], x->dim[1]));
    const uint32_t stat = shape_stat_dtype(dy->dtype);
    i->out[0] = shape_2d(dy->dtype, x->dim[0], x->dim[1]);
    i->out[1] = shape_2d(stat, a->dim[0], a->dim[1]);
    i->out[2] = shape_2d(stat, i->in[3]->dim[0], i->in[3]->dim[1]);
    return QFW_OK;
}

static qfw_status lora_vjp(op_vjp *v) {
    const qfw_val dy = v->dout[0];
    if (!dy) return QFW_OK;
    if (v->need[0]) v->din[0] = dy;
    if (!v->need[1] && !v->need[2] && !v->need[3]) return QFW_OK;
    const qfw_val in[7] = {
        dy, v->in[1], v->in[2], v->in[3], v->out[1], v->in[4], v->need[1] ? v->acc[1] : 0};
    const uint8_t want[3] = {v->need[1], 1, 1};
    qfw_val out[3] = {0, 0, 0};
    QFW_TRY(v->g->api->op(
        v->g, QFW_OP_LORA_BWD, in, 7, v->params, sizeof(qfw_lora_params), want, out, 3));
    for (int k = 0; k < 3; k++)
        if (v->need[k + 1]) v->din[k + 1] = out[k];
    if (v->need[1]) v->acc[1] = 0;
    return QFW_OK;
}

static qfw_status dropped(
    qfw_graph *g, const qfw_lora_params *p, qfw_val x, qfw_val row_key, qfw_val *out) {
    const qfw_dropout_params params = {sizeof params, p->p, p->seed, p->module_hash};
    const qfw_val in[2] = {x, row_key};
    *out = x;
    if (p->p == 0.0f) return QFW_OK;
    return g->api->op(g, QFW_OP_DROPOUT, in, 2, &params, sizeof params, NULL, out, 1);
}

static qfw_status lora_decompose(op_decompose *d) {
    const qfw_lora_params *const p = d->params;
    emit_product xa = {.b = d->in[2], .trans_b = 1, .alpha = 1};
    QFW_TRY(dropped(d->g, p, d->in[1], d->in[4], &xa.a));
    QFW_TRY(emit_gemm(d->g, &xa, &d->result[1]));
    const emit_product y = {.a = d->result[1],
        .b = d->in[3],
        .c = d->in[0],
        .trans_b = 1,
        .alpha = p->scale,
        .col0 = p->col0};
    return emit_gemm(d->g, &y, &d->result[0]);
}

static qfw_status lora_bwd_decompose(op_decompose *d) {
    qfw_graph *const g = d->g;
    const qfw_lora_params *const p = d->params;
    const uint32_t stat = shape_stat_dtype(emit_dtype(g, d->in[0]));
    qfw_val dys, xd, t;
    QFW_TRY(emit_columns(g, d->in[0], p->col0, emit_dim(g, d->in[3], 0), &dys));
    QFW_TRY(dropped(g, p, d->in[1], d->in[5], &xd));
    const emit_product back = {.a = dys, .b = d->in[3], .alpha = p->scale};
    QFW_TRY(emit_gemm(g, &back, &t));
    const emit_product da = {.a = t, .b = xd, .trans_a = 1, .alpha = 1};
    QFW_TRY(emit_gemm_as(g, stat, &da, &d->result[1]));
    const emit_product db = {.a = dys, .b = d->in[4], .trans_a = 1, .alpha = p->scale};
    QFW_TRY(emit_gemm_as(g, stat, &db, &d->result[2]));
    if (!d->want[0]) return QFW_OK;
    const int drop = p->p != 0.0f;
    qfw_val acc, dx;
    QFW_TRY(emit_as(g, emit_dtype(g, d->in[0]), d->in[6], &acc));
    const emit_product through = {.a = t, .b = d->in[2], .c = drop ? 0 : acc, .alpha = 1};
    QFW_TRY(emit_gemm(g, &through, &dx));
    if (drop) QFW_TRY(dropped(g, p, dx, d->in[5], &dx));
    if (drop && acc) QFW_TRY(qfw_binary(g, QFW_ADD, acc, dx, &dx));
    d->result[0] = dx;
    return QFW_OK;
}

typedef struct adapter_job {
    const qfw_op *op;
    const qfw_tensor *row_key;
    qfw_dropout_params drop;
    double scale;
    int64_t N, K, R, M, col0;        /* M: rows of b */
    double *a, *b, *x, *dy, *xa, *t; /* whole; x after dropout, dy its columns only */
} adapter_job;

static adapter_job new_job(const qfw_op *op, const qfw_tensor *x, const qfw_tensor *a,
    const qfw_tensor *b, const qfw_tensor *row_key) {
    const qfw_lora_params *const p = op->params;
    adapter_job j = {.op = op, .row_key = row_key, .scale = (double)p->scale, .col0 = p->col0};
    j.drop = (qfw_dropout_params){sizeof j.drop, p->p, p->seed, p->module_hash};
    j.N = x->dim[0];
    j.K = x->dim[1];
    j.R = a->dim[0];
    j.M = b->dim[0];
    j.a = ref_matrix(a);
    j.b = ref_matrix(b);
    return j;
}

static void free_job(adapter_job *j) {
    double *const all[6] = {j->a, j->b, j->x, j->dy, j->xa, j->t};
    for (int i = 0; i < 6; i++) mem_free(all[i]);
}

static void lora_row(void *arg, int64_t n, double *scratch) {
    const adapter_job *const j = arg;
    double *const x = scratch, *const xa = x + j->K, *const y = xa + j->R;
    ref_row(j->op->in[1], n, x);
    ref_dropout(&j->drop, j->row_key, n, x, j->K);
    for (int64_t r = 0; r < j->R; r++) xa[r] = ref_dot(x, j->a + r * j->K, j->K);
    ref_row(j->op->in[0], n, y);
    for (int64_t m = 0; m < j->M; m++)
        y[j->col0 + m] += j->scale * ref_dot(xa, j->b + m * j->R, j->R);
    ref_set_row(j->op->out[0], n, y);
    ref_set_row(j->op->out[1], n, xa);
}

static qfw_status lora_ref(const qfw_op *op) {
    adapter_job j = new_job(op, op->in[1], op->in[2], op->in[3], op->in[4]);
    qfw_status s = QFW_E_NOMEM;
    if (j.a && j.b) s = ref_each_row(j.N, j.K + j.R + op->in[0]->dim[1], lora_row, &j);
    free_job(&j);
    return s;
}

/* Row n of drop(x), t and dx. */
static void back_row(void *arg, int64_t n, double *dx) {
    const adapter_job *const j = arg;
    const qfw_tensor *const acc = j->op->in[6];
    double *const t = j->t + n * j->R, *const sum = dx + j->K;
    ref_dropout(&j->drop, j->row_key, n, j->x + n * j->K, j->K);
    for (int64_t m = 0; m < j->M; m++)
        for (int64_t r = 0; r < j->R; r++)
            t[r] += j->scale * j->dy[n * j->M + m] * j->b[m * j->R + r];
    if (!j->op->out[0]) return;
    for (int64_t k = 0; k < j->K; k++) dx[k] = 0;
    for (int64_t r = 0; r < j->R; r++)
        for (int64_t k = 0; k < j->K; k++) dx[k] += t[r] * j->a[r * j->K + k];
    ref_dropout(&j->drop, j->row_key, n, dx, j->K);
    if (acc) ref_row(acc, n, sum);
    for (int64_t k = 0; acc && k < j->K; k++) dx[k] += sum[k];
    ref_set_row(j->op->out[0], n, dx);
}

static void da_row(void *arg, int64_t r, double *da) {
    const adapter_job *const j = arg;
    for (int64_t k = 0; k < j->K; k++) da[k] = 0;
    for (int64_t n = 0; n < j->N; n++)
        for (int64_t k = 0; k < j->K; k++) da[k] += j->t[n * j->R + r] * j->x[n * j->K + k];
    ref_set_row(j->op->out[1], r, da);
}

static void db_row(void *arg, int64_t m, double *db) {
    const adapter_job *const j = arg;
    for (int64_t r = 0; r < j->R; r++) db[r] = 0;
    for (int64_t n = 0; n < j->N; n++)
        for (int64_t r = 0; r < j->R; r++)
            db[r] += j->scale * j->dy[n * j->M + m] * j->xa[n * j->R + r];
    ref_set_row(j->op->out[2], m, db);
}

static qfw_status lora_bwd_ref(const qfw_op *op) {
    adapter_job j = new_job(op, op->in[1], op->in[2], op->in[3], op->in[5]);
    const qfw_tensor dy = ref_columns(op->in[0], j.col0, j.M);
    qfw_status s = QFW_E_NOMEM;
    j.x = ref_matrix(op->in[1]);
    j.dy = ref_matrix(&dy);
    j.xa = ref_matrix(op->in[4]);
    j.t = mem_alloc((size_t)j.N * (size_t)j.R, sizeof *j.t);
    if (j.a && j.b && j.x && j.dy && j.xa && j.t) s = ref_each_row(j.N, 2 * j.K, back_row, &j);
    if (s == QFW_OK) s = ref_each_row(j.R, j.K, da_row, &j);
    if (s == QFW_OK) s = ref_each_row(j.M, j.R, db_row, &j);
    free_job(&j);
    return s;
}

const op_def op_lora = {
    .name = "lora",
    .code = QFW_OP_LORA,
    .param_bytes = sizeof(qfw_lora_params),
    .n_in = 5,
    .n_in_min = 4,
    .n_out = 2,
    .inplace = {{1}},
    .infer = lora_infer,
    .vjp = lora_vjp,
    .decompose = lora_decompose,
    .ref = lora_ref,
};

const op_def op_lora_bwd = {
    .name = "lora_bwd",
    .code = QFW_OP_LORA_BWD,
    .param_bytes = sizeof(qfw_lora_params),
    .n_in = 7,
    .n_in_min = 5,
    .n_out = 3,
    .optional = {0, 0, 0, 0, 0, 1},
    .out_optional = {1},
    .inplace = {{7}},
    .infer = lora_bwd_infer,
    .decompose = lora_bwd_decompose,
    .ref = lora_bwd_ref,
};

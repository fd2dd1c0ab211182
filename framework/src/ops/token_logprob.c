/* token_logprob.c -- log-probabilities of labels straight from hidden states and lm_head: the
 * logits of a batch are never stored whole. */
#include "base/mem.h"
#include "ops/check.h"
#include "ops/emit.h"
#include "ops/logprob.h"
#include "ops/ref.h"

#include <math.h>

static qfw_status check_head(
    const char *op, const op_shape *hidden, const op_shape *w, const op_shape *labels) {
    QFW_TRY(check_operand(op, "hidden", hidden, DTYPES_FLOAT, 2, ANY_DIM, ANY_DIM));
    QFW_TRY(check_operand(op, "w", w, DTYPES_FLOAT, 2, ANY_DIM, hidden->dim[1]));
    return check_operand(op, "labels", labels, DTYPE_BIT(QFW_I32), 1, hidden->dim[0], 0);
}

static qfw_status token_logprob_infer(op_infer *i) {
    QFW_TRY(check_head("token_logprob", i->in[0], i->in[1], i->in[2]));
    logprob_shapes(i, i->in[0]->dtype, i->in[0]->dim[0]);
    return QFW_OK;
}

static qfw_status token_logprob_bwd_infer(op_infer *i) {
    const char *const op = "token_logprob_bwd";
    const op_shape *const hidden = i->in[1], *const w = i->in[2];
    QFW_TRY(check_head(op, hidden, w, i->in[3]));
    QFW_TRY(check_operand(op, "coef", i->in[0], DTYPES_FLOAT, 1, hidden->dim[0], 0));
    QFW_TRY(check_operand(op, "lse", i->in[4], DTYPES_FLOAT, 1, hidden->dim[0], 0));
    QFW_TRY(check_operand(op, "acc", i->in[5], DTYPES_FLOAT, 2, w->dim[0], w->dim[1]));
    i->out[0] = *hidden;
    i->out[1] = shape_2d(shape_stat_dtype(hidden->dtype), w->dim[0], w->dim[1]);
    return QFW_OK;
}

static qfw_status token_logprob_vjp(op_vjp *v) {
    const qfw_val in[6] = {
        v->dout[LOGP], v->in[0], v->in[1], v->in[2], v->out[LSE], v->need[1] ? v->acc[1] : 0};
    const uint8_t want[2] = {1, v->need[1]};
    qfw_val out[2] = {0, 0};
    if (!v->dout[LOGP] || (!v->need[0] && !v->need[1])) return QFW_OK;
    QFW_TRY(v->g->api->op(v->g, QFW_OP_TOKEN_LOGPROB_BWD, in, 6, NULL, 0, want, out, 2));
    if (v->need[0]) v->din[0] = out[0];
    if (v->need[1]) {
        v->din[1] = out[1];
        v->acc[1] = 0;
    }
    return QFW_OK;
}

/* --- decompositions --- */

/* Rows per chunk: 64 MiB of fp32 logits. */
static int64_t chunk_rows(int64_t V) {
    enum { CHUNK_VALUES = 16 << 20 };
    const int64_t rows = CHUNK_VALUES / (V > 0 ? V : 1);
    return rows > 16 ? rows : 16;
}

static qfw_status token_logprob_decompose(op_decompose *d) {
    qfw_graph *const g = d->g;
    const int64_t N = emit_dim(g, d->in[0], 0), chunk = chunk_rows(emit_dim(g, d->in[1], 0));
    emit_list whole[N_LOGPROB] = {{0}};
    for (int64_t n = 0; n < N || n == 0; n += chunk) {
        const int64_t rows = N - n < chunk ? N - n : chunk;
        emit_product logits = {.b = d->in[1], .trans_b = 1, .alpha = 1};
        qfw_val in[2], out[N_LOGPROB] = {0};
        QFW_TRY(emit_rows(g, d->in[0], n, rows, &logits.a));
        QFW_TRY(emit_rows(g, d->in[2], n, rows, &in[1]));
        QFW_TRY(emit_gemm(g, &logits, &in[0]));
        QFW_TRY(g->api->op(g, QFW_OP_XENT, in, 2, NULL, 0, d->want, out, N_LOGPROB));
        for (int o = 0; o < N_LOGPROB; o++)
            if (d->want[o]) QFW_TRY(emit_concat(g, &whole[o], out[o]));
    }
    for (int o = 0; o < N_LOGPROB; o++)
        if (d->want[o]) QFW_TRY(emit_concat_end(g, &whole[o], &d->result[o]));
    return QFW_OK;
}

/* Rows n .. n+rows-1 of the backward: their dhidden, and dw with their part added. */
static qfw_status chunk_backward(
    op_decompose *d, int64_t n, int64_t rows, qfw_val *dhidden, qfw_val *dw) {
    qfw_graph *const g = d->g;
    emit_product logits = {.b = d->in[2], .trans_b = 1, .alpha = 1};
    qfw_val in[4]; /* coef, logits, labels, lse */
    emit_product out = {.b = d->in[2], .alpha = 1};
    QFW_TRY(emit_rows(g, d->in[1], n, rows, &logits.a));
    QFW_TRY(emit_rows(g, d->in[0], n, rows, &in[0]));
    QFW_TRY(emit_gemm(g, &logits, &in[1]));
    QFW_TRY(emit_rows(g, d->in[3], n, rows, &in[2]));
    QFW_TRY(emit_rows(g, d->in[4], n, rows, &in[3]));
    QFW_TRY(g->api->op(g, QFW_OP_XENT_BWD, in, 4, NULL, 0, NULL, &out.a, 1));
    QFW_TRY(emit_gemm(g, &out, dhidden));
    if (!d->want[1]) return QFW_OK;
    const emit_product add = {.a = out.a, .b = logits.a, .c = *dw, .trans_a = 1, .alpha = 1};
    return emit_gemm_as(g, shape_stat_dtype(emit_dtype(g, d->in[1])), &add, dw);
}

static qfw_status token_logprob_bwd_decompose(op_decompose *d) {
    qfw_graph *const g = d->g;
    const int64_t N = emit_dim(g, d->in[1], 0), chunk = chunk_rows(emit_dim(g, d->in[2], 0));
    emit_list whole = {0};
    qfw_val dw = d->in[5];
    for (int64_t n = 0; n < N || n == 0; n += chunk) {
        qfw_val dhidden;
        QFW_TRY(chunk_backward(d, n, N - n < chunk ? N - n : chunk, &dhidden, &dw));
        QFW_TRY(emit_concat(g, &whole, dhidden));
    }
    d->result[1] = d->want[1] ? dw : 0;
    return emit_concat_end(g, &whole, &d->result[0]);
}

/* --- reference --- */

/* Rows are taken in groups, so that a row of w is widened once for all of them. */
enum { GROUP = 16 };

typedef struct head_job {
    const qfw_op *op;
    const qfw_tensor *hidden, *w, *labels;
    const double *h; /* hidden, whole: for dw */
    int64_t N, V, C;
} head_job;

static int32_t label_of(const head_job *j, int64_t n) {
    return ref_i32(j->labels, ref_at(j->labels, n));
}

/* z[i * V ..]: the logits of row first + i, for those rows of the group that have a label. */
static void group_logits(
    const head_job *j, int64_t first, int64_t count, double *h, double *w, double *z) {
    for (int64_t i = 0; i < count; i++) ref_row(j->hidden, first + i, h + i * j->C);
    for (int64_t v = 0; v < j->V; v++) {
        ref_row(j->w, v, w);
        for (int64_t i = 0; i < count; i++)
            if (label_of(j, first + i) != QFW_IGNORE_LABEL)
                z[i * j->V + v] = ref_dot(h + i * j->C, w, j->C);
    }
}

static void forward_group(void *arg, int64_t group, double *scratch) {
    const head_job *const j = arg;
    const int64_t first = group * GROUP, count = j->N - first < GROUP ? j->N - first : GROUP;
    double *const w = scratch, *const h = w + j->C, *const z = h + GROUP * j->C;
    group_logits(j, first, count, h, w, z);
    for (int64_t i = 0; i < count; i++) {
        const int32_t label = label_of(j, first + i);
        logprob_store(
            j->op, first + i, label == QFW_IGNORE_LABEL ? NULL : z + i * j->V, j->V, label);
    }
}

static void backward_group(void *arg, int64_t group, double *scratch) {
    const head_job *const j = arg;
    const int64_t first = group * GROUP, count = j->N - first < GROUP ? j->N - first : GROUP;
    double *const w = scratch, *const h = w + j->C, *const z = h + GROUP * j->C;
    group_logits(j, first, count, h, w, z);
    for (int64_t i = 0; i < count; i++) {
        const int64_t n = first + i;
        if (label_of(j, n) != QFW_IGNORE_LABEL)
            logprob_gradient(z + i * j->V, j->V, label_of(j, n),
                ref_load(j->op->in[0], ref_at(j->op->in[0], n)),
                ref_load(j->op->in[4], ref_at(j->op->in[4], n)));
    }
    for (int64_t c = 0; c < count * j->C; c++) h[c] = 0;
    for (int64_t v = 0; v < j->V; v++) {
        ref_row(j->w, v, w);
        for (int64_t i = 0; i < count; i++)
            if (label_of(j, first + i) != QFW_IGNORE_LABEL)
                for (int64_t c = 0; c < j->C; c++) h[i * j->C + c] += z[i * j->V + v] * w[c];
    }
    for (int64_t i = 0; i < count; i++) ref_set_row(j->op->out[0], first + i, h + i * j->C);
}

static void dw_row(void *arg, int64_t v, double *scratch) {
    const head_job *const j = arg;
    const qfw_tensor *const coef = j->op->in[0], *const lse = j->op->in[4];
    double *const w = scratch, *const dw = w + j->C;
    ref_row(j->w, v, w);
    if (j->op->in[5]) ref_row(j->op->in[5], v, dw);
    for (int64_t c = 0; !j->op->in[5] && c < j->C; c++) dw[c] = 0;
    for (int64_t n = 0; n < j->N; n++) {
        const int32_t label = label_of(j, n);
        const double *const h = j->h + n * j->C;
        if (label == QFW_IGNORE_LABEL) continue;
        const double p = exp(ref_dot(h, w, j->C) - ref_load(lse, ref_at(lse, n)));
        const double dz = ref_load(coef, ref_at(coef, n)) * ((v == label) - p);
        for (int64_t c = 0; c < j->C; c++) dw[c] += dz * h[c];
    }
    ref_set_row(j->op->out[1], v, dw);
}

static head_job new_job(const qfw_op *op, uint32_t hidden) {
    head_job j = {.op = op, .hidden = op->in[hidden], .w = op->in[hidden + 1]};
    j.labels = op->in[hidden + 2];
    j.N = j.hidden->dim[0];
    j.C = j.hidden->dim[1];
    j.V = j.w->dim[0];
    return j;
}

static qfw_status run_groups(head_job *j, ref_row_fn fn) {
    const int64_t groups = (j->N + GROUP - 1) / GROUP;
    return ref_each_row(groups, j->C + GROUP * (j->C + j->V), fn, j);
}

static qfw_status token_logprob_ref(const qfw_op *op) {
    head_job j = new_job(op, 0);
    QFW_TRY(logprob_check_labels("token_logprob", j.labels, j.V));
    return run_groups(&j, forward_group);
}

static qfw_status token_logprob_bwd_ref(const qfw_op *op) {
    head_job j = new_job(op, 1);
    QFW_TRY(logprob_check_labels("token_logprob_bwd", j.labels, j.V));
    QFW_TRY(run_groups(&j, backward_group));
    if (!op->out[1]) return QFW_OK;
    double *const h = ref_matrix(j.hidden);
    if (!h) return QFW_E_NOMEM;
    j.h = h;
    const qfw_status s = ref_each_row(j.V, 2 * j.C, dw_row, &j);
    mem_free(h);
    return s;
}

const op_def op_token_logprob = {
    .name = "token_logprob",
    .code = QFW_OP_TOKEN_LOGPROB,
    .n_in = 3,
    .n_in_min = 3,
    .n_out = N_LOGPROB,
    .out_optional = {0, 0, 1, 1, 1, 1},
    .infer = token_logprob_infer,
    .vjp = token_logprob_vjp,
    .decompose = token_logprob_decompose,
    .ref = token_logprob_ref,
};

const op_def op_token_logprob_bwd = {
    .name = "token_logprob_bwd",
    .code = QFW_OP_TOKEN_LOGPROB_BWD,
    .n_in = 6,
    .n_in_min = 5,
    .n_out = 2,
    .out_optional = {0, 1},
    .inplace = {{0}, {6}},
    .infer = token_logprob_bwd_infer,
    .decompose = token_logprob_bwd_decompose,
    .ref = token_logprob_bwd_ref,
};

/* xent.c -- log-probabilities of labels under logits that exist, and the gradient of the logits. */
#include "base/error.h"
#include "ops/check.h"
#include "ops/logprob.h"
#include "ops/ref.h"

#include <inttypes.h>
#include <math.h>

void logprob_shapes(op_infer *i, uint32_t dtype, int64_t N) {
    for (int o = 0; o < N_LOGPROB; o++) i->out[o] = shape_1d(shape_stat_dtype(dtype), N);
    i->out[ARGMAX].dtype = QFW_I32;
}

qfw_status logprob_check_labels(const char *op, const qfw_tensor *labels, int64_t V) {
    for (int64_t n = 0; n < labels->dim[0]; n++) {
        const int32_t label = ref_i32(labels, ref_at(labels, n));
        if (label != QFW_IGNORE_LABEL && (label < 0 || label >= V))
            return err_fail("E_OP_VALUE", QFW_E_DATA,
                "%s: label %" PRId32 " in row %" PRId64 ", wanted 0 to %" PRId64 " or %d", op,
                label, n, V - 1, QFW_IGNORE_LABEL);
    }
    return QFW_OK;
}

typedef struct row_stats {
    double value[N_LOGPROB];
} row_stats;

static row_stats stats_of(const double *z, int64_t V, int32_t label) {
    row_stats s = {{0}};
    double sum = 0, sum2 = 0, weighted = 0, total = 0;
    int64_t top = 0;
    for (int64_t v = 1; v < V; v++)
        if (z[v] > z[top]) top = v;
    for (int64_t v = 0; v < V; v++) {
        const double e = exp(z[v] - z[top]);
        sum += e;
        sum2 += e * e;
        if (e != 0) weighted += e * z[v];
        total += z[v];
    }
    s.value[LSE] = z[top] + log(sum);
    s.value[LOGP] = z[label] - s.value[LSE];
    s.value[ARGMAX] = (double)top;
    s.value[ENTROPY] = s.value[LSE] - weighted / sum;
    s.value[MEAN] = total / (double)V;
    s.value[LSE2] = 2 * z[top] + log(sum2);
    return s;
}

void logprob_store(const qfw_op *op, int64_t n, const double *z, int64_t V, int32_t label) {
    row_stats s = {{0}};
    s.value[ARGMAX] = -1;
    if (z) s = stats_of(z, V, label);
    for (uint32_t o = 0; o < op->n_out; o++)
        if (op->out[o]) ref_store(op->out[o], ref_at(op->out[o], n), s.value[o]);
}

void logprob_gradient(double *z, int64_t V, int32_t label, double coef, double lse) {
    for (int64_t v = 0; v < V; v++) z[v] = -coef * exp(z[v] - lse);
    z[label] += coef;
}

static qfw_status xent_infer(op_infer *i) {
    const op_shape *const logits = i->in[0];
    QFW_TRY(check_operand("xent", "logits", logits, DTYPES_FLOAT, 2, ANY_DIM, ANY_DIM));
    QFW_TRY(check_operand("xent", "labels", i->in[1], DTYPE_BIT(QFW_I32), 1, logits->dim[0], 0));
    logprob_shapes(i, logits->dtype, logits->dim[0]);
    return QFW_OK;
}

static qfw_status xent_bwd_infer(op_infer *i) {
    const char *const op = "xent_bwd";
    const op_shape *const logits = i->in[1];
    QFW_TRY(check_operand(op, "logits", logits, DTYPES_FLOAT, 2, ANY_DIM, ANY_DIM));
    const int64_t N = logits->dim[0];
    QFW_TRY(check_operand(op, "coef", i->in[0], DTYPES_FLOAT, 1, N, 0));
    QFW_TRY(check_operand(op, "labels", i->in[2], DTYPE_BIT(QFW_I32), 1, N, 0));
    QFW_TRY(check_operand(op, "lse", i->in[3], DTYPES_FLOAT, 1, N, 0));
    i->out[0] = *logits;
    return QFW_OK;
}

static qfw_status xent_vjp(op_vjp *v) {
    const qfw_val in[4] = {v->dout[LOGP], v->in[0], v->in[1], v->out[LSE]};
    if (!v->dout[LOGP] || !v->need[0]) return QFW_OK;
    return v->g->api->op(v->g, QFW_OP_XENT_BWD, in, 4, NULL, 0, NULL, &v->din[0], 1);
}

static void xent_row(void *arg, int64_t n, double *z) {
    const qfw_op *const op = arg;
    const int32_t label = ref_i32(op->in[1], ref_at(op->in[1], n));
    ref_row(op->in[0], n, z);
    logprob_store(op, n, label == QFW_IGNORE_LABEL ? NULL : z, op->in[0]->dim[1], label);
}

static void xent_bwd_row(void *arg, int64_t n, double *z) {
    const qfw_op *const op = arg;
    const int64_t V = op->in[1]->dim[1];
    const int32_t label = ref_i32(op->in[2], ref_at(op->in[2], n));
    if (label == QFW_IGNORE_LABEL) {
        for (int64_t v = 0; v < V; v++) z[v] = 0;
    } else {
        ref_row(op->in[1], n, z);
        logprob_gradient(z, V, label, ref_load(op->in[0], ref_at(op->in[0], n)),
            ref_load(op->in[3], ref_at(op->in[3], n)));
    }
    ref_set_row(op->out[0], n, z);
}

static qfw_status xent_ref(const qfw_op *op) {
    const qfw_tensor *const logits = op->in[0];
    QFW_TRY(logprob_check_labels("xent", op->in[1], logits->dim[1]));
    return ref_each_row(logits->dim[0], logits->dim[1], xent_row, (void *)(uintptr_t)op);
}

static qfw_status xent_bwd_ref(const qfw_op *op) {
    const qfw_tensor *const logits = op->in[1];
    QFW_TRY(logprob_check_labels("xent_bwd", op->in[2], logits->dim[1]));
    return ref_each_row(logits->dim[0], logits->dim[1], xent_bwd_row, (void *)(uintptr_t)op);
}

const op_def op_xent = {
    .name = "xent",
    .code = QFW_OP_XENT,
    .n_in = 2,
    .n_in_min = 2,
    .n_out = N_LOGPROB,
    .out_optional = {0, 0, 1, 1, 1, 1},
    .infer = xent_infer,
    .vjp = xent_vjp,
    .ref = xent_ref,
};

const op_def op_xent_bwd = {
    .name = "xent_bwd",
    .code = QFW_OP_XENT_BWD,
    .n_in = 4,
    .n_in_min = 4,
    .n_out = 1,
    .inplace = {{2}},
    .infer = xent_bwd_infer,
    .ref = xent_bwd_ref,
};

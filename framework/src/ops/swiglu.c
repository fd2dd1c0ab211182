/* swiglu.c -- the gate of the feed-forward layer: up * gate * sigmoid(gate), from one packed
 * gate_up or from two tensors. */
#include "ops/check.h"
#include "ops/emit.h"
#include "ops/ref.h"

#include <math.h>

static qfw_status check_gates(
    const char *op, const op_shape *gate, const op_shape *up, int64_t *N, int64_t *F) {
    QFW_TRY(check_operand(op, up ? "gate" : "gate_up", gate, DTYPES_FLOAT, 2, ANY_DIM, ANY_DIM));
    *N = gate->dim[0];
    *F = up ? gate->dim[1] : gate->dim[1] / 2;
    if (!up) return check_operand(op, "gate_up", gate, DTYPES_FLOAT, 2, *N, *F * 2);
    return check_operand(op, "up", up, DTYPES_FLOAT, 2, *N, *F);
}

static qfw_status swiglu_infer(op_infer *i) {
    int64_t N, F;
    QFW_TRY(check_gates("swiglu", i->in[0], i->in[1], &N, &F));
    i->out[0] = shape_2d(i->in[0]->dtype, N, F);
    return QFW_OK;
}

static qfw_status swiglu_bwd_infer(op_infer *i) {
    int64_t N, F;
    QFW_TRY(check_gates("swiglu_bwd", i->in[1], i->in[2], &N, &F));
    QFW_TRY(check_operand("swiglu_bwd", "dmid", i->in[0], DTYPES_FLOAT, 2, N, F));
    const uint32_t dtype = i->in[0]->dtype;
    i->out[0] = shape_2d(dtype, N, i->in[2] ? F : 2 * F);
    if (i->in[2]) i->out[1] = shape_2d(dtype, N, F);
    QFW_TRY(check_param(i->in[2] || !i->want[1], "swiglu_bwd", "outputs", 2,
        "dgate_up alone where gate_up is packed"));
    return QFW_OK;
}

static qfw_status swiglu_vjp(op_vjp *v) {
    const qfw_val in[3] = {v->dout[0], v->in[0], v->in[1]};
    const uint8_t want[2] = {1, v->in[1] && v->need[1]};
    if (!v->dout[0]) return QFW_OK;
    qfw_val out[2] = {0, 0};
    QFW_TRY(v->g->api->op(v->g, QFW_OP_SWIGLU_BWD, in, 3, NULL, 0, want, out, 2));
    if (v->need[0]) v->din[0] = out[0];
    v->din[1] = out[1];
    return QFW_OK;
}

/* gate and up as two values, whichever form they came in. */
static qfw_status split(qfw_graph *g, qfw_val gate_up, qfw_val up_in, qfw_val *gate, qfw_val *up) {
    const int64_t F = emit_dim(g, gate_up, 1) / 2;
    *gate = gate_up;
    *up = up_in;
    if (up_in) return QFW_OK;
    QFW_TRY(emit_columns(g, gate_up, 0, F, gate));
    return emit_columns(g, gate_up, F, F, up);
}

static qfw_status swiglu_decompose(op_decompose *d) {
    qfw_val gate, up, s, silu;
    QFW_TRY(split(d->g, d->in[0], d->in[1], &gate, &up));
    QFW_TRY(qfw_unary(d->g, QFW_SIGMOID, gate, &s));
    QFW_TRY(qfw_binary(d->g, QFW_MUL, gate, s, &silu));
    return qfw_binary(d->g, QFW_MUL, up, silu, &d->result[0]);
}

/* With s = sigmoid(gate): silu = gate * s, silu' = s + silu - silu * s. */
static qfw_status swiglu_bwd_decompose(op_decompose *d) {
    qfw_graph *const g = d->g;
    qfw_val gate, up, s, silu, slope, t, dgate, dup;
    QFW_TRY(split(g, d->in[1], d->in[2], &gate, &up));
    QFW_TRY(qfw_unary(g, QFW_SIGMOID, gate, &s));
    QFW_TRY(qfw_binary(g, QFW_MUL, gate, s, &silu));
    QFW_TRY(qfw_binary(g, QFW_MUL, silu, s, &t));
    QFW_TRY(qfw_binary(g, QFW_SUB, silu, t, &slope));
    QFW_TRY(qfw_binary(g, QFW_ADD, s, slope, &slope));
    QFW_TRY(qfw_binary(g, QFW_MUL, d->in[0], up, &t));
    QFW_TRY(qfw_binary(g, QFW_MUL, t, slope, &dgate));
    QFW_TRY(qfw_binary(g, QFW_MUL, d->in[0], silu, &dup));
    if (d->in[2]) {
        d->result[0] = dgate;
        d->result[1] = dup;
        return QFW_OK;
    }
    emit_list both = {.axis = 1};
    QFW_TRY(emit_concat(g, &both, dgate));
    QFW_TRY(emit_concat(g, &both, dup));
    return emit_concat_end(g, &both, &d->result[0]);
}

/* Row n of gate and up; `up` NULL: gate is packed, and up = gate + F already holds its half. */
static void read_gates(
    const qfw_tensor *gate_in, const qfw_tensor *up_in, int64_t n, double *gate, double *up) {
    ref_row(gate_in, n, gate);
    if (up_in) ref_row(up_in, n, up);
}

static void swiglu_row(void *arg, int64_t n, double *gate) {
    const qfw_op *const op = arg;
    const int64_t F = op->out[0]->dim[1];
    double *const up = gate + F;
    read_gates(op->in[0], op->in[1], n, gate, up);
    for (int64_t c = 0; c < F; c++) gate[c] = up[c] * gate[c] / (1 + exp(-gate[c]));
    ref_set_row(op->out[0], n, gate);
}

static void swiglu_bwd_row(void *arg, int64_t n, double *gate) {
    const qfw_op *const op = arg;
    const int64_t F = op->in[0]->dim[1];
    double *const up = gate + F, *const dmid = up + F;
    read_gates(op->in[1], op->in[2], n, gate, up);
    ref_row(op->in[0], n, dmid);
    for (int64_t c = 0; c < F; c++) {
        const double s = 1 / (1 + exp(-gate[c])), silu = gate[c] * s;
        gate[c] = dmid[c] * up[c] * (s + silu * (1 - s));
        up[c] = dmid[c] * silu;
    }
    ref_set_row(op->out[0], n, gate);
    if (op->out[1]) ref_set_row(op->out[1], n, up);
}

static qfw_status swiglu_ref(const qfw_op *op) {
    const qfw_tensor *const mid = op->out[0];
    return ref_each_row(mid->dim[0], 2 * mid->dim[1], swiglu_row, (void *)(uintptr_t)op);
}

static qfw_status swiglu_bwd_ref(const qfw_op *op) {
    const qfw_tensor *const dmid = op->in[0];
    return ref_each_row(dmid->dim[0], 3 * dmid->dim[1], swiglu_bwd_row, (void *)(uintptr_t)op);
}

const op_def op_swiglu = {
    .name = "swiglu",
    .code = QFW_OP_SWIGLU,
    .n_in = 2,
    .n_in_min = 1,
    .n_out = 1,
    .infer = swiglu_infer,
    .vjp = swiglu_vjp,
    .decompose = swiglu_decompose,
    .ref = swiglu_ref,
};

const op_def op_swiglu_bwd = {
    .name = "swiglu_bwd",
    .code = QFW_OP_SWIGLU_BWD,
    .n_in = 3,
    .n_in_min = 2,
    .n_out = 2,
    .out_optional = {0, 1},
    .inplace = {{2}, {3}},
    .infer = swiglu_bwd_infer,
    .decompose = swiglu_bwd_decompose,
    .ref = swiglu_bwd_ref,
};

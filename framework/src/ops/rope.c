/* rope.c -- rotary position embedding: pairs of features of each head turned by the row's
 * angles. */
#include "ops/check.h"
#include "ops/ref.h"

static qfw_status rope_infer(op_infer *i) {
    const op_shape *const x = i->in[0];
    const qfw_rope_params *const p = i->params;
    const int64_t D = p->head_dim, half = p->rotary_dim / 2;
    QFW_TRY(check_operand("rope", "x", x, DTYPES_FLOAT, 2, ANY_DIM, ANY_DIM));
    const int64_t N = x->dim[0], C = x->dim[1];
    QFW_TRY(
        check_param(D > 0 && C % D == 0, "rope", "head_dim", (double)D, "a divisor of x's width"));
    QFW_TRY(check_param(p->rotary_dim >= 0 && p->rotary_dim <= D && p->rotary_dim % 2 == 0, "rope",
        "rotary_dim", (double)p->rotary_dim, "an even number up to head_dim"));
    QFW_TRY(check_param(p->n_rot >= 0 && p->n_rot <= C / D, "rope", "n_rot", (double)p->n_rot,
        "at most the heads of x"));
    QFW_TRY(check_param(p->inverse <= 1, "rope", "inverse", p->inverse, "0 or 1"));
    QFW_TRY(check_operand("rope", "cos", i->in[1], DTYPES_FLOAT, 2, N, half));
    QFW_TRY(check_operand("rope", "sin", i->in[2], DTYPES_FLOAT, 2, N, half));
    i->out[0] = *x;
    return QFW_OK;
}

/* A rotation's transpose is the rotation back. */
static qfw_status rope_vjp(op_vjp *v) {
    qfw_rope_params p = *(const qfw_rope_params *)v->params;
    const qfw_val in[3] = {v->dout[0], v->in[1], v->in[2]};
    if (!v->dout[0] || !v->need[0]) return QFW_OK;
    p.inverse = !p.inverse;
    return v->g->api->op(v->g, QFW_OP_ROPE, in, 3, &p, sizeof p, NULL, &v->din[0], 1);
}

static void rope_row(void *arg, int64_t n, double *scratch) {
    const qfw_op *const op = arg;
    const qfw_rope_params *const p = op->params;
    const int64_t half = p->rotary_dim / 2;
    double *const x = scratch, *const cos = x + op->in[0]->dim[1], *const sin = cos + half;
    const double sign = p->inverse ? -1 : 1;
    ref_row(op->in[0], n, x);
    ref_row(op->in[1], n, cos);
    ref_row(op->in[2], n, sin);
    for (int64_t h = 0; h < p->n_rot; h++) {
        double *const a = x + h * p->head_dim, *const b = a + half;
        for (int64_t j = 0; j < half; j++) {
            const double turned = a[j] * cos[j] - b[j] * sign * sin[j];
            b[j] = b[j] * cos[j] + a[j] * sign * sin[j];
            a[j] = turned;
        }
    }
    ref_set_row(op->out[0], n, x);
}

static qfw_status rope_ref(const qfw_op *op) {
    const qfw_rope_params *const p = op->params;
    const int64_t width = op->in[0]->dim[1] + p->rotary_dim;
    return ref_each_row(op->in[0]->dim[0], width, rope_row, (void *)(uintptr_t)op);
}

const op_def op_rope = {
    .name = "rope",
    .code = QFW_OP_ROPE,
    .param_bytes = sizeof(qfw_rope_params),
    .n_in = 3,
    .n_in_min = 3,
    .n_out = 1,
    .inplace = {{1}},
    .infer = rope_infer,
    .vjp = rope_vjp,
    .ref = rope_ref,
};

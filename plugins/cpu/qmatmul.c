/* qmatmul.c -- products with a weight of 4 bits, forward and by its transpose: gemm.c decodes it
 * a panel at a time. */
#include "cpu.h"

static qfw_status product(const cpu_call *c, int trans_b) {
    const qfw_tensor *x = c->op->in[0], *w = c->op->in[1], *acc = c->op->in[2], *y = c->op->out[0];
    const cpu_gemm_args p = {.m = x->dim[0],
        .n = w->dim[trans_b ? 0 : 1],
        .k = w->dim[trans_b ? 1 : 0],
        .a = cpu_f32(x),
        .row = x->stride[0],
        .step = 1,
        .b = cpu_matrix_of(w),
        .trans_b = trans_b,
        .from = acc ? cpu_f32(acc) : NULL,
        .ldfrom = acc ? acc->stride[0] : 0,
        .y = cpu_f32(y),
        .ldy = y->stride[0],
        .alpha = 1};
    cpu_gemm(c, &p, c->workspace);
    return QFW_OK;
}

/* Blocks are powers of two, as bitsandbytes' are. */
static uint32_t supports(const qfw_op *op) {
    const qfw_quant *q = op->in[1]->quant;
    const int odd = (q->block & (q->block - 1)) || (q->nested_block & (q->nested_block - 1));
    return odd ? QFW_SUPPORT_NO : cpu_support(op);
}

uint32_t cpu_qmatmul_supports(const qfw_op *op) { return supports(op); }
uint32_t cpu_qmatmul_dx_supports(const qfw_op *op) { return supports(op); }

uint64_t cpu_qmatmul_workspace(const qfw_inst *be, const qfw_op *op) {
    (void)op;
    return cpu_gemm_workspace(be);
}

uint64_t cpu_qmatmul_dx_workspace(const qfw_inst *be, const qfw_op *op) {
    (void)op;
    return cpu_gemm_workspace(be);
}

qfw_status cpu_qmatmul(const cpu_call *c) { return product(c, 1); }
qfw_status cpu_qmatmul_dx(const cpu_call *c) { return product(c, 0); }

/* swiglu.c -- SWIGLU and its gradient; gate and up packed in one tensor or apart; in place or
 * not. */
#include "cpu.h"

enum { ROWS = 16 };

/* The row r of gate and up, of an op whose operands start at in[first]. */
static void rows_of(const qfw_op *op, uint32_t first, int64_t r, int64_t width, const float **gate,
    const float **up) {
    const qfw_tensor *g = op->in[first], *u = op->in[first + 1];
    *gate = cpu_f32(g) + r * g->stride[0];
    *up = u ? cpu_f32(u) + r * u->stride[0] : *gate + width;
}

static void swiglu_item(void *arg, uint32_t item, uint32_t worker) {
    const qfw_op *op = ((const cpu_call *)arg)->op;
    const qfw_tensor *mid = op->out[0];
    const int64_t width = mid->dim[1], past = cpu_min(mid->dim[0], ((int64_t)item + 1) * ROWS);
    (void)worker;
    for (int64_t r = (int64_t)item * ROWS; r < past; r++) {
        const float *gate, *up;
        float *to = cpu_f32(mid) + r * mid->stride[0];
        rows_of(op, 0, r, width, &gate, &up);
        cpu_swiglu_row(gate, up, to, width);
    }
}

uint32_t cpu_swiglu_supports(const qfw_op *op) { return cpu_support(op); }

qfw_status cpu_swiglu(const cpu_call *c) {
    cpu_parallel(c, cpu_panels(c->op->out[0]->dim[0], ROWS), swiglu_item, (void *)c);
    return QFW_OK;
}

static void swiglu_bwd_item(void *arg, uint32_t item, uint32_t worker) {
    const qfw_op *op = ((const cpu_call *)arg)->op;
    const qfw_tensor *dmid = op->in[0], *dg = op->out[0], *du = op->out[1];
    const int64_t width = dmid->dim[1], past = cpu_min(dmid->dim[0], ((int64_t)item + 1) * ROWS);
    (void)worker;
    for (int64_t r = (int64_t)item * ROWS; r < past; r++) {
        const float *gate, *up, *d = cpu_f32(dmid) + r * dmid->stride[0];
        float *dgate = cpu_f32(dg) + r * dg->stride[0];
        float *dup = du ? cpu_f32(du) + r * du->stride[0] : dgate + width;
        rows_of(op, 1, r, width, &gate, &up);
        cpu_swiglu_bwd_row(d, gate, up, dgate, dup, width);
    }
}

uint32_t cpu_swiglu_bwd_supports(const qfw_op *op) { return cpu_support(op); }

qfw_status cpu_swiglu_bwd(const cpu_call *c) {
    cpu_parallel(c, cpu_panels(c->op->in[0]->dim[0], ROWS), swiglu_bwd_item, (void *)c);
    return QFW_OK;
}

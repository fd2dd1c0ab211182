/* rmsnorm.c -- RMSNORM and its gradient, a row at a time. The weight's gradient sums blocks of rows
 * in order. */
#include <math.h>
#include <string.h>

#include "cpu.h"

enum { ROWS = 32 };

static void rmsnorm_item(void *arg, uint32_t item, uint32_t worker) {
    const qfw_op *op = ((const cpu_call *)arg)->op;
    const qfw_tensor *x = op->in[0], *y = op->out[0];
    const float *w = cpu_f32(op->in[1]);
    const float eps = ((const qfw_rmsnorm_params *)op->params)->eps;
    float *rstd = op->out[1] ? cpu_f32(op->out[1]) : NULL;
    const int64_t cols = x->dim[1], past = cpu_min(x->dim[0], ((int64_t)item + 1) * ROWS);
    (void)worker;
    for (int64_t r = (int64_t)item * ROWS; r < past; r++) {
        const float *from = cpu_f32(x) + r * x->stride[0];
        float *to = cpu_f32(y) + r * y->stride[0];
        double sum = 0;
        for (int64_t i = 0; i < cols; i++) sum += (double)from[i] * (double)from[i];
        const float scale = 1.0f / sqrtf((float)(sum / (double)cols) + eps);
        for (int64_t i = 0; i < cols; i++) to[i] = from[i] * scale * w[i];
        if (rstd) rstd[r] = scale;
    }
}

uint32_t cpu_rmsnorm_supports(const qfw_op *op) { return cpu_support(op); }

qfw_status cpu_rmsnorm(const cpu_call *c) {
    cpu_parallel(c, cpu_panels(c->op->in[0]->dim[0], ROWS), rmsnorm_item, (void *)c);
    return QFW_OK;
}

/* dx of the block's rows, and the block's share of dw. */
static void rmsnorm_bwd_item(void *arg, uint32_t item, uint32_t worker) {
    const cpu_call *c = (const cpu_call *)arg;
    const qfw_op *op = c->op;
    const qfw_tensor *dy = op->in[0], *x = op->in[1], *acc = op->in[4], *dx = op->out[0];
    const float *w = cpu_f32(op->in[2]), *rstd = cpu_f32(op->in[3]);
    const int64_t cols = x->dim[1], past = cpu_min(x->dim[0], ((int64_t)item + 1) * ROWS);
    float *dw = op->out[1] ? (float *)(void *)c->workspace + (int64_t)item * cols : NULL;
    (void)worker;
    if (dw) memset(dw, 0, (size_t)cols * sizeof(float));
    for (int64_t r = (int64_t)item * ROWS; r < past; r++) {
        const float *g = cpu_f32(dy) + r * dy->stride[0], *v = cpu_f32(x) + r * x->stride[0];
        const float *more = acc ? cpu_f32(acc) + r * acc->stride[0] : NULL;
        float *to = cpu_f32(dx) + r * dx->stride[0];
        const float s = rstd[r];
        double dot = 0;
        for (int64_t i = 0; i < cols; i++) dot += (double)(g[i] * w[i]) * (double)(v[i] * s);
        const float mean = (float)(dot / (double)cols);
        for (int64_t i = 0; i < cols; i++) {
            const float xh = v[i] * s, dyi = g[i];
            if (dw) dw[i] += dyi * xh;
            to[i] = s * (dyi * w[i] - xh * mean) + (more ? more[i] : 0.0f);
        }
    }
}

uint32_t cpu_rmsnorm_bwd_supports(const qfw_op *op) { return cpu_support(op); }

uint64_t cpu_rmsnorm_bwd_workspace(const qfw_inst *be, const qfw_op *op) {
    (void)be;
    if (!op->out[1]) return 0;
    return sizeof(float) * (uint64_t)(cpu_panels(op->in[1]->dim[0], ROWS) * op->in[1]->dim[1]);
}

qfw_status cpu_rmsnorm_bwd(const cpu_call *c) {
    const int64_t blocks = cpu_panels(c->op->in[1]->dim[0], ROWS), cols = c->op->in[1]->dim[1];
    cpu_parallel(c, blocks, rmsnorm_bwd_item, (void *)c);
    if (!c->op->out[1]) return QFW_OK;
    float *dw = cpu_f32(c->op->out[1]);
    const float *share = (const float *)(const void *)c->workspace;
    memset(dw, 0, (size_t)cols * sizeof(float));
    for (int64_t b = 0; b < blocks; b++)
        for (int64_t i = 0; i < cols; i++) dw[i] += share[b * cols + i];
    return QFW_OK;
}

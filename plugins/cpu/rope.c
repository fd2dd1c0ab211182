/* rope.c -- ROPE: the leading heads of each row rotate, the rest is copied; in place or not. */
#include <string.h>

#include "cpu.h"

enum { ROWS = 32 };

static void rotate_head(
    const float *x, float *y, const float *cos, const float *sin, float sign, int64_t half) {
    for (int64_t j = 0; j < half; j++) {
        const float a = x[j], b = x[j + half], s = sign * sin[j];
        y[j] = a * cos[j] - b * s;
        y[j + half] = b * cos[j] + a * s;
    }
}

static void rope_item(void *arg, uint32_t item, uint32_t worker) {
    const qfw_op *op = ((const cpu_call *)arg)->op;
    const qfw_rope_params *p = (const qfw_rope_params *)op->params;
    const qfw_tensor *x = op->in[0], *cos = op->in[1], *sin = op->in[2], *y = op->out[0];
    const float sign = p->inverse ? -1.0f : 1.0f;
    const int64_t past = cpu_min(x->dim[0], ((int64_t)item + 1) * ROWS);
    (void)worker;
    for (int64_t r = (int64_t)item * ROWS; r < past; r++) {
        const float *from = cpu_f32(x) + r * x->stride[0];
        float *to = cpu_f32(y) + r * y->stride[0];
        if (to != from) memcpy(to, from, (size_t)x->dim[1] * sizeof(float));
        for (int64_t h = 0; h < p->n_rot; h++)
            rotate_head(to + h * p->head_dim, to + h * p->head_dim,
                cpu_f32(cos) + r * cos->stride[0], cpu_f32(sin) + r * sin->stride[0], sign,
                p->rotary_dim / 2);
    }
}

uint32_t cpu_rope_supports(const qfw_op *op) { return cpu_support(op); }

qfw_status cpu_rope(const cpu_call *c) {
    cpu_parallel(c, cpu_panels(c->op->in[0]->dim[0], ROWS), rope_item, (void *)c);
    return QFW_OK;
}

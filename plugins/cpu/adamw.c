/* adamw.c -- ADAMW on one tensor, in place or not; every value stands alone. */
#include <math.h>

#include "cpu.h"

enum { VALUES = 16384 };

static void adamw_item(void *arg, uint32_t item, uint32_t worker) {
    const qfw_op *op = ((const cpu_call *)arg)->op;
    const qfw_adamw_params *p = (const qfw_adamw_params *)op->params;
    const float *w = cpu_f32(op->in[0]), *g = cpu_f32(op->in[1]), *m = cpu_f32(op->in[2]);
    const float *v = cpu_f32(op->in[3]), *s = cpu_f32(op->in[4]);
    const float coef = op->in[5] ? *cpu_f32(op->in[5]) : 1.0f;
    float *w1 = cpu_f32(op->out[0]), *m1 = cpu_f32(op->out[1]), *v1 = cpu_f32(op->out[2]);
    const float b2 = (float)p->beta2, rest1 = (float)(1 - p->beta1), rest2 = (float)(1 - p->beta2);
    const float eps = (float)p->eps;
    const int64_t past = cpu_min(qfw_tensor_count(op->in[0]), ((int64_t)item + 1) * VALUES);
    (void)worker;
    for (int64_t i = (int64_t)item * VALUES; i < past; i++) {
        const float gi = g[i] * coef;
        const float mi = m[i] + (gi - m[i]) * rest1;
        const float vi = b2 * v[i] + rest2 * gi * gi;
        w1[i] = w[i] * s[0] - s[1] * mi / (sqrtf(vi) / s[2] + eps);
        m1[i] = mi;
        v1[i] = vi;
    }
}

uint32_t cpu_adamw_supports(const qfw_op *op) {
    for (uint32_t i = 0; i < op->n_in; i++)
        if (op->in[i] && (op->in[i]->dtype != QFW_F32 || !qfw_tensor_is_dense(op->in[i])))
            return QFW_SUPPORT_NO;
    return QFW_SUPPORT_NATIVE;
}

qfw_status cpu_adamw(const cpu_call *c) {
    cpu_parallel(c, cpu_panels(qfw_tensor_count(c->op->in[0]), VALUES), adamw_item, (void *)c);
    return QFW_OK;
}

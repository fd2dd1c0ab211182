/* embed.c -- EMBED, and its gradient: rows of dy added up by token in row order, columns shared
 * out. */
#include <string.h>

#include "cpu.h"

enum { ROWS = 64, COLS = 64 };

static void embed_item(void *arg, uint32_t item, uint32_t worker) {
    const qfw_op *op = ((const cpu_call *)arg)->op;
    const qfw_tensor *table = op->in[0], *y = op->out[0];
    const int32_t *tokens = cpu_i32(op->in[1]);
    const int64_t past = cpu_min(y->dim[0], ((int64_t)item + 1) * ROWS);
    (void)worker;
    for (int64_t r = (int64_t)item * ROWS; r < past; r++) {
        float *to = cpu_f32(y) + r * y->stride[0];
        const int64_t at = tokens[r] * table->stride[0];
        if (cpu_is_half(table))
            cpu_widen(
                (const uint16_t *)(const void *)cpu_u8(table) + at, table->dtype, to, y->dim[1]);
        else
            memcpy(to, cpu_f32(table) + at, (size_t)y->dim[1] * sizeof(float));
    }
}

uint32_t cpu_embed_supports(const qfw_op *op) { return cpu_support(op); }

qfw_status cpu_embed(const cpu_call *c) {
    cpu_parallel(c, cpu_panels(c->op->out[0]->dim[0], ROWS), embed_item, (void *)c);
    return QFW_OK;
}

static void embed_bwd_item(void *arg, uint32_t item, uint32_t worker) {
    const qfw_op *op = ((const cpu_call *)arg)->op;
    const qfw_tensor *dy = op->in[0], *acc = op->in[2], *out = op->out[0];
    const int32_t *tokens = cpu_i32(op->in[1]);
    const int64_t col = (int64_t)item * COLS, cols = cpu_min(COLS, out->dim[1] - col);
    (void)worker;
    for (int64_t v = 0; v < out->dim[0]; v++) {
        float *to = cpu_f32(out) + v * out->stride[0] + col;
        const float *from = acc ? cpu_f32(acc) + v * acc->stride[0] + col : NULL;
        if (!from)
            memset(to, 0, (size_t)cols * sizeof(float));
        else if (from != to)
            memcpy(to, from, (size_t)cols * sizeof(float));
    }
    for (int64_t r = 0; r < dy->dim[0]; r++) {
        float *to = cpu_f32(out) + tokens[r] * out->stride[0] + col;
        const float *from = cpu_f32(dy) + r * dy->stride[0] + col;
        for (int64_t i = 0; i < cols; i++) to[i] += from[i];
    }
}

uint32_t cpu_embed_bwd_supports(const qfw_op *op) { return cpu_support(op); }

qfw_status cpu_embed_bwd(const cpu_call *c) {
    cpu_parallel(c, cpu_panels(c->op->out[0]->dim[1], COLS), embed_bwd_item, (void *)c);
    return QFW_OK;
}

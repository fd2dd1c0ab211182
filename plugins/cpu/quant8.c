/* quant8.c -- QUANT8 and DEQUANT8, a block at a time: optimizer state. */
#include <math.h>

#include "cpu.h"

enum { MAP = 256, BLOCKS = 64 };

/* The nearest entry, the upper one at the same distance; 0 for NaN. */
static uint8_t nearest(const float *map, float x) {
    uint32_t low = 0; /* map[low] <= x, where any is */
    for (uint32_t half = MAP / 2; half; half /= 2) low += map[low + half] <= x ? half : 0;
    if (low == MAP - 1 || !(x > map[0])) return (uint8_t)low;
    return (uint8_t)(low + !((double)x - (double)map[low] < (double)map[low + 1] - (double)x));
}

/* A NaN or an infinity is the block's scale, so that it is not lost. */
static float largest(const float *x, int64_t n) {
    float most = 0;
    for (int64_t i = 0; i < n; i++) {
        const float size = fabsf(x[i]);
        if (isnan(size)) return size;
        most = size > most ? size : most;
    }
    return most;
}

static void quant8_item(void *arg, uint32_t item, uint32_t worker) {
    const qfw_op *op = ((const cpu_call *)arg)->op;
    const int64_t block = ((const qfw_block8_params *)op->params)->block, n = op->in[0]->dim[0];
    const float *x = cpu_f32(op->in[0]), *map = cpu_f32(op->in[1]);
    uint8_t *code = cpu_u8(op->out[0]);
    float *absmax = cpu_f32(op->out[1]);
    const int64_t past = cpu_min(op->out[1]->dim[0], ((int64_t)item + 1) * BLOCKS);
    (void)worker;
    for (int64_t b = (int64_t)item * BLOCKS; b < past; b++) {
        const int64_t first = b * block, end = cpu_min(n, first + block);
        const float most = absmax[b] = largest(x + first, end - first);
        for (int64_t i = first; i < end; i++) code[i] = nearest(map, most > 0 ? x[i] / most : most);
    }
}

static void dequant8_item(void *arg, uint32_t item, uint32_t worker) {
    const qfw_op *op = ((const cpu_call *)arg)->op;
    const int64_t block = ((const qfw_block8_params *)op->params)->block, n = op->in[0]->dim[0];
    const uint8_t *code = cpu_u8(op->in[0]);
    const float *absmax = cpu_f32(op->in[1]), *map = cpu_f32(op->in[2]);
    float *x = cpu_f32(op->out[0]);
    const int64_t past = cpu_min(op->in[1]->dim[0], ((int64_t)item + 1) * BLOCKS);
    (void)worker;
    for (int64_t b = (int64_t)item * BLOCKS; b < past; b++)
        for (int64_t i = b * block; i < cpu_min(n, (b + 1) * block); i++)
            x[i] = map[code[i]] * absmax[b];
}

static uint32_t supports(const qfw_op *op) {
    for (uint32_t i = 0; i < op->n_in; i++)
        if (!qfw_tensor_is_dense(op->in[i])) return QFW_SUPPORT_NO;
    return QFW_SUPPORT_NATIVE;
}

uint32_t cpu_quant8_supports(const qfw_op *op) {
    const int is_f32 = op->in[0]->dtype == QFW_F32 && op->in[1]->dtype == QFW_F32;
    return is_f32 ? supports(op) : QFW_SUPPORT_NO;
}

uint32_t cpu_dequant8_supports(const qfw_op *op) {
    const int is_f32 = op->in[1]->dtype == QFW_F32 && op->in[2]->dtype == QFW_F32;
    return is_f32 ? supports(op) : QFW_SUPPORT_NO;
}

qfw_status cpu_quant8(const cpu_call *c) {
    cpu_parallel(c, cpu_panels(c->op->out[1]->dim[0], BLOCKS), quant8_item, (void *)c);
    return QFW_OK;
}

qfw_status cpu_dequant8(const cpu_call *c) {
    cpu_parallel(c, cpu_panels(c->op->in[1]->dim[0], BLOCKS), dequant8_item, (void *)c);
    return QFW_OK;
}

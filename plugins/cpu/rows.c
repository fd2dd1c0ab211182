/* rows.c -- GATHER_ROWS, SCATTER_ROWS and SEGMENT_SUM: rows picked, placed and added up by number.
 *
 * [N] counts as [N,1]. Sums run in row order on one thread a span of columns, in double, as the
 * reference kernel adds them.
 */
#include <string.h>

#include "cpu.h"

enum { ROWS = 64, COLS = 64 };

/* Rows and columns of a tensor of rank 1 or 2. */
typedef struct matrix {
    float *data;
    int64_t rows, cols, stride;
} matrix;

static matrix matrix_of(const qfw_tensor *t) {
    return (matrix){cpu_f32(t), t->dim[0], t->rank == 2 ? t->dim[1] : 1, t->stride[0]};
}

static uint32_t supports(const qfw_op *op) {
    for (uint32_t i = 0; i < op->n_in; i++)
        if (op->in[i]->rank > 2) return QFW_SUPPORT_NO;
    return op->out[0]->dtype == QFW_F32 ? cpu_support(op) : QFW_SUPPORT_NO;
}

uint32_t cpu_gather_rows_supports(const qfw_op *op) { return supports(op); }
uint32_t cpu_scatter_rows_supports(const qfw_op *op) { return supports(op); }
uint32_t cpu_segment_sum_supports(const qfw_op *op) { return supports(op); }

static void gather_item(void *arg, uint32_t item, uint32_t worker) {
    const qfw_op *op = ((const cpu_call *)arg)->op;
    const matrix x = matrix_of(op->in[0]), y = matrix_of(op->out[0]);
    const int32_t *index = cpu_i32(op->in[1]);
    const int64_t past = cpu_min(y.rows, ((int64_t)item + 1) * ROWS);
    (void)worker;
    for (int64_t r = (int64_t)item * ROWS; r < past; r++) {
        float *to = y.data + r * y.stride;
        if (index[r] < 0)
            memset(to, 0, (size_t)y.cols * sizeof *to);
        else
            memcpy(to, x.data + index[r] * x.stride, (size_t)y.cols * sizeof *to);
    }
}

qfw_status cpu_gather_rows(const cpu_call *c) {
    cpu_parallel(c, cpu_panels(c->op->out[0]->dim[0], ROWS), gather_item, (void *)c);
    return QFW_OK;
}

static void scatter_item(void *arg, uint32_t item, uint32_t worker) {
    const qfw_op *op = ((const cpu_call *)arg)->op;
    const matrix rows = matrix_of(op->in[1]), y = matrix_of(op->out[0]);
    const int32_t *index = cpu_i32(op->in[2]);
    const int64_t past = cpu_min(rows.rows, ((int64_t)item + 1) * ROWS);
    (void)worker;
    for (int64_t r = (int64_t)item * ROWS; r < past; r++)
        if (index[r] >= 0)
            memcpy(y.data + index[r] * y.stride, rows.data + r * rows.stride,
                (size_t)y.cols * sizeof(float));
}

qfw_status cpu_scatter_rows(const cpu_call *c) {
    const matrix x = matrix_of(c->op->in[0]), y = matrix_of(c->op->out[0]);
    for (int64_t r = 0; r < x.rows && x.data != y.data; r++)
        memcpy(y.data + r * y.stride, x.data + r * x.stride, (size_t)y.cols * sizeof(float));
    cpu_parallel(c, cpu_panels(c->op->in[1]->dim[0], ROWS), scatter_item, (void *)c);
    return QFW_OK;
}

/* Doubles for the sums of one worker's columns. */
uint64_t cpu_segment_sum_workspace(const qfw_inst *be, const qfw_op *op) {
    return (uint64_t)be->n_workers * (uint64_t)op->out[0]->dim[0] * COLS * sizeof(double);
}

static void segment_sum_item(void *arg, uint32_t item, uint32_t worker) {
    const cpu_call *c = (const cpu_call *)arg;
    const matrix x = matrix_of(c->op->in[0]), y = matrix_of(c->op->out[0]);
    const int32_t *index = cpu_i32(c->op->in[1]);
    const int64_t col = (int64_t)item * COLS, n = cpu_min(COLS, x.cols - col);
    double *sum = (double *)(void *)c->workspace + (int64_t)worker * y.rows * COLS;
    memset(sum, 0, (size_t)(y.rows * COLS) * sizeof *sum);
    for (int64_t r = 0; r < x.rows; r++) {
        if (index[r] < 0) continue;
        const float *from = x.data + r * x.stride + col;
        for (int64_t i = 0; i < n; i++) sum[index[r] * COLS + i] += (double)from[i];
    }
    for (int64_t r = 0; r < y.rows; r++)
        for (int64_t i = 0; i < n; i++) y.data[r * y.stride + col + i] = (float)sum[r * COLS + i];
}

qfw_status cpu_segment_sum(const cpu_call *c) {
    cpu_parallel(c, cpu_panels(matrix_of(c->op->in[0]).cols, COLS), segment_sum_item, (void *)c);
    return QFW_OK;
}

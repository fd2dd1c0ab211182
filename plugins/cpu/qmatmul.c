/* qmatmul.c -- products with a packed weight: a slab is decoded into fp32 and multiplied while it
 * is in cache.
 *
 * Forward: an item takes SLAB_ROWS rows of W, decodes them once and runs all row panels of x
 * against them. Input gradient: an item takes SLAB_COLS columns of W and walks its rows, DEPTH at a
 * time, adding up; the sum has one order whatever the threads. The decoded values are bitsandbytes'
 * own.
 */
#include <string.h>

#include "cpu.h"

enum { SLAB_ROWS = 128, SLAB_COLS = 256, DEPTH = 512 };

static const float nf4_code[16] = {-1.0f, -0.6961928009986877f, -0.5250730514526367f,
    -0.39491748809814453f, -0.28444138169288635f, -0.18477343022823334f, -0.09105003625154495f,
    0.0f, 0.07958029955625534f, 0.16093020141124725f, 0.24611230194568634f, 0.33791524171829224f,
    0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f, 1.0f};
static const float fp4_code[16] = {0.0f, 0.0052083334885537624f, 0.6666666865348816f, 1.0f,
    0.3333333432674408f, 0.5f, 0.1666666716337204f, 0.25f, -0.0f, -0.0052083334885537624f,
    -0.6666666865348816f, -1.0f, -0.3333333432674408f, -0.5f, -0.1666666716337204f, -0.25f};

/* A packed weight with its pointers resolved. */
typedef struct packed {
    const uint8_t *codes;
    const void *absmax;
    const float *nested, *map, *code;
    float offset;
    uint32_t block, nested_block, compute;
    int64_t cols;
} packed;

static packed unpack(const qfw_tensor *w) {
    const qfw_quant *q = w->quant;
    packed p = {.codes = (const uint8_t *)w->mem->data + w->offset,
        .absmax = (const char *)q->absmax_mem->data + q->absmax_offset,
        .code = w->dtype == QFW_NF4 ? nf4_code : fp4_code,
        .offset = (float)q->offset,
        .block = q->block,
        .nested_block = q->nested_block,
        .compute = q->compute,
        .cols = w->dim[1]};
    if (q->nested_block) {
        p.nested =
            (const float *)(const void *)((const char *)q->nested_mem->data + q->nested_offset);
        p.map = (const float *)(const void *)((const char *)q->map_mem->data + q->map_offset);
    }
    return p;
}

static float scale_of(const packed *w, int64_t block) {
    if (!w->nested_block) return ((const float *)w->absmax)[block];
    const float product =
        w->map[((const uint8_t *)w->absmax)[block]] * w->nested[block / (int64_t)w->nested_block];
    return product + w->offset; /* two roundings, never one */
}

/* `count` values of one block from flat place `at` on. */
static void decode_run(const packed *w, int64_t at, int64_t count, float scale, float *out) {
    float table[16];
    for (int i = 0; i < 16; i++) table[i] = cpu_round(w->code[i] * scale, w->compute);
    int64_t i = 0;
    if (at & 1 && count) out[i++] = table[w->codes[at / 2] & 15];
    const uint8_t *codes = w->codes + (at + i) / 2;
    for (; i + 2 <= count; i += 2, codes++) {
        out[i] = table[*codes >> 4];
        out[i + 1] = table[*codes & 15];
    }
    if (i < count) out[i] = table[*codes >> 4];
}

/* out[rows, cols] = W[row0 .., col0 ..]. */
static void decode(
    const packed *w, int64_t row0, int64_t rows, int64_t col0, int64_t cols, float *out) {
    for (int64_t r = 0; r < rows; r++) {
        int64_t at = (row0 + r) * w->cols + col0;
        const int64_t past = at + cols;
        while (at < past) {
            const int64_t block = at / (int64_t)w->block;
            const int64_t n = cpu_min(past, (block + 1) * (int64_t)w->block) - at;
            decode_run(w, at, n, scale_of(w, block), out);
            out += n;
            at += n;
        }
    }
}

/* A product of row panels with slabs of W; `x` rows are x_cols wide. */
typedef struct slab_job {
    packed w;
    const float *x, *tail, *acc; /* tail: the last panel of x, padded; acc NULL: none */
    float *y, *slabs, *results;
    int64_t n, ldx, ldy, ldacc, x_cols, w_rows;
    uint64_t slab_size;
} slab_job;

/* The input panel that starts at `row`, whole or padded. */
static const float *panel_of(const slab_job *j, int64_t row, int64_t *ldx) {
    const int is_tail = j->n - row < PANEL_ROWS;
    *ldx = is_tail ? j->x_cols : j->ldx;
    return is_tail ? j->tail : j->x + row * j->ldx;
}

/* Rows of a result panel to their place in y, plus acc. */
static void put_panel(
    const slab_job *j, int64_t row, int64_t col, int64_t cols, const float *from) {
    const int64_t rows = cpu_min(PANEL_ROWS, j->n - row);
    for (int64_t r = 0; r < rows; r++) {
        float *y = j->y + (row + r) * j->ldy + col;
        const float *v = from + r * cols;
        if (!j->acc) {
            memcpy(y, v, (size_t)cols * sizeof(float));
            continue;
        }
        const float *a = j->acc + (row + r) * j->ldacc + col;
        for (int64_t i = 0; i < cols; i++) y[i] = a[i] + v[i];
    }
}

static void forward_item(void *arg, uint32_t item, uint32_t worker) {
    const slab_job *j = (const slab_job *)arg;
    const int64_t row0 = (int64_t)item * SLAB_ROWS;
    const int64_t cols = cpu_min(SLAB_ROWS, j->w_rows - row0);
    float *slab = j->slabs + worker * j->slab_size;
    float *result = j->results + (int64_t)worker * PANEL_ROWS * SLAB_COLS;
    decode(&j->w, row0, cols, 0, j->w.cols, slab);
    for (int64_t row = 0; row < j->n; row += PANEL_ROWS) {
        int64_t ldx;
        const float *x = panel_of(j, row, &ldx);
        const cpu_matmul p = {.trans_b = 1,
            .m = PANEL_ROWS,
            .n = cols,
            .k = j->w.cols,
            .lda = ldx,
            .ldb = j->w.cols,
            .ldy = cols,
            .alpha = 1,
            .a = x,
            .b = slab,
            .y = result};
        cpu_sgemm(&p);
        put_panel(j, row, row0, cols, result);
    }
}

static void gradient_item(void *arg, uint32_t item, uint32_t worker) {
    const slab_job *j = (const slab_job *)arg;
    const int64_t col0 = (int64_t)item * SLAB_COLS;
    const int64_t cols = cpu_min(SLAB_COLS, j->w.cols - col0);
    float *slab = j->slabs + worker * j->slab_size;
    float *results = j->results + (int64_t)worker * cpu_padded(j->n, PANEL_ROWS) * SLAB_COLS;
    for (int64_t row0 = 0; row0 < j->w_rows; row0 += DEPTH) {
        const int64_t depth = cpu_min(DEPTH, j->w_rows - row0);
        decode(&j->w, row0, depth, col0, cols, slab);
        for (int64_t row = 0; row < j->n; row += PANEL_ROWS) {
            int64_t ldx;
            const float *dy = panel_of(j, row, &ldx);
            const cpu_matmul p = {.accumulate = row0 > 0,
                .m = PANEL_ROWS,
                .n = cols,
                .k = depth,
                .lda = ldx,
                .ldb = cols,
                .ldy = cols,
                .alpha = 1,
                .a = dy + row0,
                .b = slab,
                .y = results + row * cols};
            cpu_sgemm(&p);
        }
    }
    for (int64_t row = 0; row < j->n; row += PANEL_ROWS)
        put_panel(j, row, col0, cols, results + row * cols);
}

/* Workspace: the padded last panel, then a slab and results for each worker. */
static uint64_t workspace_floats(const qfw_inst *be, int64_t tail, int64_t slab, int64_t results) {
    return (uint64_t)(tail + (int64_t)be->n_workers * (slab + results));
}

static void lay_out(const cpu_call *c, slab_job *j, int64_t slab) {
    float *at = (float *)(void *)c->workspace;
    const int64_t whole = j->n / PANEL_ROWS * PANEL_ROWS;
    j->tail = at;
    for (int64_t r = whole; r < j->n; r++)
        memcpy(at + (r - whole) * j->x_cols, j->x + r * j->ldx, (size_t)j->x_cols * sizeof(float));
    if (whole < j->n)
        memset(at + (j->n - whole) * j->x_cols, 0,
            (size_t)((PANEL_ROWS - (j->n - whole)) * j->x_cols) * sizeof(float));
    j->slabs = at + PANEL_ROWS * j->x_cols;
    j->slab_size = (uint64_t)slab;
    j->results = j->slabs + (int64_t)c->be->n_workers * slab;
}

static slab_job make_job(const qfw_op *op) {
    const qfw_tensor *x = op->in[0], *w = op->in[1], *acc = op->in[2], *y = op->out[0];
    return (slab_job){.w = unpack(w),
        .x = cpu_f32(x),
        .acc = acc ? cpu_f32(acc) : NULL,
        .y = cpu_f32(y),
        .n = x->dim[0],
        .ldx = x->stride[0],
        .ldy = y->stride[0],
        .ldacc = acc ? acc->stride[0] : 0,
        .x_cols = x->dim[1],
        .w_rows = w->dim[0]};
}

uint32_t cpu_qmatmul_supports(const qfw_op *op) { return cpu_support(op); }
uint32_t cpu_qmatmul_dx_supports(const qfw_op *op) { return cpu_support(op); }

uint64_t cpu_qmatmul_workspace(const qfw_inst *be, const qfw_op *op) {
    const int64_t k = op->in[1]->dim[1];
    return sizeof(float) *
           workspace_floats(be, PANEL_ROWS * k, SLAB_ROWS * k, PANEL_ROWS * SLAB_COLS);
}

uint64_t cpu_qmatmul_dx_workspace(const qfw_inst *be, const qfw_op *op) {
    return sizeof(float) * workspace_floats(be, PANEL_ROWS * op->in[0]->dim[1], DEPTH * SLAB_COLS,
                               cpu_padded(op->in[0]->dim[0], PANEL_ROWS) * SLAB_COLS);
}

qfw_status cpu_qmatmul(const cpu_call *c) {
    slab_job job = make_job(c->op);
    lay_out(c, &job, SLAB_ROWS * job.w.cols);
    cpu_parallel(c, cpu_panels(job.w_rows, SLAB_ROWS), forward_item, &job);
    return QFW_OK;
}

qfw_status cpu_qmatmul_dx(const cpu_call *c) {
    slab_job job = make_job(c->op);
    lay_out(c, &job, DEPTH * SLAB_COLS);
    cpu_parallel(c, cpu_panels(job.w.cols, SLAB_COLS), gradient_item, &job);
    return QFW_OK;
}

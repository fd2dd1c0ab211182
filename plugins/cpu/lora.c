/* lora.c -- LORA and its gradient. Dropped inputs are made panel by panel and never stored whole.
 *
 * Forward: an item is a panel of rows: xa = drop(x) * a^T, then y += scale * xa * b^T on the
 * adapted columns.
 * Backward: t = scale * dys * b by row panels; then da and db by columns, their sums over rows in
 * order; then dx by row panels again.
 */
#include <string.h>

#include "cpu.h"

/* Width of a column item of da. A multiple of 4: where dropout's words begin. */
enum { COLS = 256, SHARE_ROWS = 32 };

typedef struct lora_job {
    const qfw_lora_params *p;
    const qfw_tensor *x, *a, *b, *key, *dy, *xa, *y, *acc;
    const qfw_tensor *out_y, *out_xa, *dx, *da, *db;
    float *t, *scratch; /* t[padded N, R]; PANEL_ROWS x (K + R + COLS) a worker */
    int64_t n, k, r, rows, scratch_size;
} lora_job;

/* A panel of drop(x), columns col0 .. col0+cols-1, rows past N zero. */
static void drop_panel(const lora_job *j, int64_t row0, int64_t col0, int64_t cols, float *out) {
    for (int64_t i = 0; i < PANEL_ROWS; i++, out += cols) {
        const int64_t row = row0 + i;
        if (row >= j->n) {
            memset(out, 0, (size_t)cols * sizeof(float));
            continue;
        }
        const float *x = cpu_f32(j->x) + row * j->x->stride[0] + col0;
        if (j->p->p > 0)
            cpu_drop_row(x, out, col0, cols, cpu_i32(j->key) + 2 * row, j->p->p, j->p->seed,
                j->p->module_hash);
        else
            memcpy(out, x, (size_t)cols * sizeof(float));
    }
}

static void lora_item(void *arg, uint32_t item, uint32_t worker) {
    const lora_job *j = (const lora_job *)arg;
    const int64_t row = (int64_t)item * PANEL_ROWS, rows = cpu_min(PANEL_ROWS, j->n - row);
    float *xd = j->scratch + worker * j->scratch_size, *xa = xd + PANEL_ROWS * j->k;
    float *delta = xa + PANEL_ROWS * j->r;
    drop_panel(j, row, 0, j->k, xd);
    cpu_sgemm(&(cpu_matmul){.trans_b = 1,
        .m = PANEL_ROWS,
        .n = j->r,
        .k = j->k,
        .lda = j->k,
        .ldb = j->a->stride[0],
        .ldy = j->r,
        .alpha = 1,
        .a = xd,
        .b = cpu_f32(j->a),
        .y = xa});
    for (int64_t i = 0; i < rows && j->out_xa; i++)
        memcpy(cpu_f32(j->out_xa) + (row + i) * j->out_xa->stride[0], xa + i * j->r,
            (size_t)j->r * sizeof(float));
    for (int64_t i = 0; i < rows; i++) {
        const float *from = cpu_f32(j->y) + (row + i) * j->y->stride[0];
        float *to = cpu_f32(j->out_y) + (row + i) * j->out_y->stride[0];
        if (to != from) memcpy(to, from, (size_t)j->y->dim[1] * sizeof(float));
    }
    for (int64_t col = 0; col < j->rows; col += COLS) {
        const int64_t cols = cpu_min(COLS, j->rows - col);
        cpu_sgemm(&(cpu_matmul){.trans_b = 1,
            .m = PANEL_ROWS,
            .n = cols,
            .k = j->r,
            .lda = j->r,
            .ldb = j->b->stride[0],
            .ldy = cols,
            .alpha = j->p->scale,
            .a = xa,
            .b = cpu_f32(j->b) + col * j->b->stride[0],
            .y = delta});
        for (int64_t i = 0; i < rows; i++) {
            float *to = cpu_f32(j->out_y) + (row + i) * j->out_y->stride[0] + j->p->col0 + col;
            for (int64_t v = 0; v < cols; v++) to[v] += delta[i * cols + v];
        }
    }
}

/* Floats of scratch that one worker needs forward, and backward; even, so that doubles are
 * aligned. */
static int64_t scratch_floats(int64_t k, int64_t r) { return PANEL_ROWS * (k + r + COLS); }

static int64_t backward_floats(int64_t k, int64_t r, int64_t rows) {
    const int64_t panels = PANEL_ROWS * (k > rows ? k : rows);
    const int64_t sums = 3 * r * COLS + PANEL_ROWS * COLS;
    return panels > sums ? panels : sums;
}

uint32_t cpu_lora_supports(const qfw_op *op) { return cpu_support(op); }

uint64_t cpu_lora_workspace(const qfw_inst *be, const qfw_op *op) {
    return sizeof(float) * be->n_workers *
           (uint64_t)scratch_floats(op->in[1]->dim[1], op->in[2]->dim[0]);
}

qfw_status cpu_lora(const cpu_call *c) {
    const qfw_op *op = c->op;
    lora_job job = {.p = (const qfw_lora_params *)op->params,
        .y = op->in[0],
        .x = op->in[1],
        .a = op->in[2],
        .b = op->in[3],
        .key = op->in[4],
        .out_y = op->out[0],
        .out_xa = op->out[1],
        .scratch = (float *)(void *)c->workspace,
        .n = op->in[1]->dim[0],
        .k = op->in[1]->dim[1],
        .r = op->in[2]->dim[0],
        .rows = op->in[3]->dim[0]};
    job.scratch_size = scratch_floats(job.k, job.r);
    cpu_parallel(c, cpu_panels(job.n, PANEL_ROWS), lora_item, &job);
    return QFW_OK;
}

/* t = scale * dys * b for one panel of rows; dys padded, so that no row of t knows its
 * neighbours. */
static void t_item(void *arg, uint32_t item, uint32_t worker) {
    const lora_job *j = (const lora_job *)arg;
    const int64_t row = (int64_t)item * PANEL_ROWS, rows = cpu_min(PANEL_ROWS, j->n - row);
    const int64_t width = j->rows;
    cpu_matmul p = {.m = PANEL_ROWS,
        .n = j->r,
        .k = width,
        .lda = j->dy->stride[0],
        .ldb = j->b->stride[0],
        .ldy = j->r,
        .alpha = j->p->scale,
        .a = cpu_f32(j->dy) + row * j->dy->stride[0] + j->p->col0,
        .b = cpu_f32(j->b),
        .y = j->t + row * j->r};
    if (rows < PANEL_ROWS) {
        float *padded = j->scratch + worker * j->scratch_size;
        for (int64_t i = 0; i < rows; i++)
            memcpy(padded + i * width, p.a + i * p.lda, (size_t)width * sizeof(float));
        memset(padded + rows * width, 0, (size_t)((PANEL_ROWS - rows) * width) * sizeof(float));
        p.a = padded;
        p.lda = width;
    }
    cpu_sgemm(&p);
}

/* sums[m,n] += a[rows,m]^T * b[rows,n], a few rows at a time in fp32, their shares added in double:
 * how a window is cut into batches then hardly shows. */
static void add_product(double *sums, float *tile, const float *a, int64_t lda, int64_t m,
    const float *b, int64_t ldb, int64_t n, int64_t rows) {
    for (int64_t row = 0; row < rows; row += SHARE_ROWS) {
        cpu_sgemm(&(cpu_matmul){.trans_a = 1,
            .m = m,
            .n = n,
            .k = cpu_min(SHARE_ROWS, rows - row),
            .lda = lda,
            .ldb = ldb,
            .ldy = n,
            .alpha = 1,
            .a = a + row * lda,
            .b = b + row * ldb,
            .y = tile});
        for (int64_t i = 0; i < m * n; i++) sums[i] += (double)tile[i];
    }
}

static void put_sums(const qfw_tensor *to, int64_t row, int64_t col, const double *sums, int64_t m,
    int64_t n, float scale) {
    for (int64_t i = 0; i < m; i++)
        for (int64_t v = 0; v < n; v++)
            cpu_f32(to)[(row + i) * to->stride[0] + col + v] = scale * (float)sums[i * n + v];
}

/* da[:, cols] = sum over rows of t^T * drop(x)[:, cols]. */
static void da_item(void *arg, uint32_t item, uint32_t worker) {
    const lora_job *j = (const lora_job *)arg;
    const int64_t col = (int64_t)item * COLS, cols = cpu_min(COLS, j->k - col);
    double *sums = (double *)(void *)(j->scratch + worker * j->scratch_size);
    float *tile = (float *)(void *)(sums + j->r * COLS), *xd = tile + j->r * COLS;
    memset(sums, 0, (size_t)(j->r * cols) * sizeof *sums);
    for (int64_t row = 0; row < j->n; row += PANEL_ROWS) {
        drop_panel(j, row, col, cols, xd);
        add_product(sums, tile, j->t + row * j->r, j->r, j->r, xd, cols, cols,
            cpu_min(PANEL_ROWS, j->n - row));
    }
    put_sums(j->da, 0, col, sums, j->r, cols, 1);
}

/* db[rows, :] = scale * sum over rows of dys^T * xa. */
static void db_item(void *arg, uint32_t item, uint32_t worker) {
    const lora_job *j = (const lora_job *)arg;
    const int64_t first = (int64_t)item * COLS, m = cpu_min(COLS, j->rows - first);
    double *sums = (double *)(void *)(j->scratch + worker * j->scratch_size);
    float *tile = (float *)(void *)(sums + j->r * COLS);
    memset(sums, 0, (size_t)(m * j->r) * sizeof *sums);
    add_product(sums, tile, cpu_f32(j->dy) + j->p->col0 + first, j->dy->stride[0], m,
        cpu_f32(j->xa), j->xa->stride[0], j->r, j->n);
    put_sums(j->db, first, 0, sums, m, j->r, j->p->scale);
}

/* dx = drop'(t * a) + acc for one panel of rows. */
static void dx_item(void *arg, uint32_t item, uint32_t worker) {
    const lora_job *j = (const lora_job *)arg;
    const int64_t row = (int64_t)item * PANEL_ROWS, rows = cpu_min(PANEL_ROWS, j->n - row);
    float *product = j->scratch + worker * j->scratch_size;
    cpu_sgemm(&(cpu_matmul){.m = PANEL_ROWS,
        .n = j->k,
        .k = j->r,
        .lda = j->r,
        .ldb = j->a->stride[0],
        .ldy = j->k,
        .alpha = 1,
        .a = j->t + row * j->r,
        .b = cpu_f32(j->a),
        .y = product});
    for (int64_t i = 0; i < rows; i++) {
        float *from = product + i * j->k, *to = cpu_f32(j->dx) + (row + i) * j->dx->stride[0];
        if (j->p->p > 0)
            cpu_drop_row(from, from, 0, j->k, cpu_i32(j->key) + 2 * (row + i), j->p->p, j->p->seed,
                j->p->module_hash);
        const float *more = j->acc ? cpu_f32(j->acc) + (row + i) * j->acc->stride[0] : NULL;
        for (int64_t v = 0; v < j->k; v++) to[v] = from[v] + (more ? more[v] : 0.0f);
    }
}

uint32_t cpu_lora_bwd_supports(const qfw_op *op) { return cpu_support(op); }

uint64_t cpu_lora_bwd_workspace(const qfw_inst *be, const qfw_op *op) {
    const int64_t n = op->in[1]->dim[0], k = op->in[1]->dim[1], r = op->in[2]->dim[0];
    return sizeof(float) * (uint64_t)(cpu_padded(n, PANEL_ROWS) * r +
                                      (int64_t)be->n_workers * scratch_floats(k, r));
}

qfw_status cpu_lora_bwd(const cpu_call *c) {
    const qfw_op *op = c->op;
    lora_job job = {.p = (const qfw_lora_params *)op->params,
        .dy = op->in[0],
        .x = op->in[1],
        .a = op->in[2],
        .b = op->in[3],
        .xa = op->in[4],
        .key = op->in[5],
        .acc = op->in[6],
        .dx = op->out[0],
        .da = op->out[1],
        .db = op->out[2],
        .t = (float *)(void *)c->workspace,
        .n = op->in[1]->dim[0],
        .k = op->in[1]->dim[1],
        .r = op->in[2]->dim[0],
        .rows = op->in[3]->dim[0]};
    job.scratch = job.t + cpu_padded(job.n, PANEL_ROWS) * job.r;
    job.scratch_size = backward_floats(job.k, job.r, job.rows);
    cpu_parallel(c, cpu_panels(job.n, PANEL_ROWS), t_item, &job);
    cpu_parallel(c, cpu_panels(job.k, COLS), da_item, &job);
    cpu_parallel(c, cpu_panels(job.rows, COLS), db_item, &job);
    if (job.dx) cpu_parallel(c, cpu_panels(job.n, PANEL_ROWS), dx_item, &job);
    return QFW_OK;
}

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
enum { PANEL_ROWS = 128, COLS = 256, SHARE_ROWS = 32, TURNED = 16 };

typedef struct lora_job {
    const qfw_lora_params *p;
    const cpu_isa *isa;
    const qfw_tensor *x, *a, *b, *key, *dy, *xa, *y, *acc;
    const qfw_tensor *out_y, *out_xa, *dx, *da, *db;
    float *at, *bt, *t; /* a^T [K,R] and b^T [R,M'] forward; t[N,R] backward */
    float *scratch;     /* scratch_size a worker */
    int64_t n, k, r, rows, scratch_size;
} lora_job;

static int64_t panel_rows(const lora_job *j, uint32_t item) {
    return cpu_min(PANEL_ROWS, j->n - (int64_t)item * PANEL_ROWS);
}

/* to[C,R] = the transpose of a matrix [R,C]. */
static void turn_all(const cpu_isa *isa, const qfw_tensor *m, float *to) {
    for (int64_t row = 0; row < m->dim[0]; row += TURNED) {
        const float *rows[TURNED];
        const int64_t n = cpu_min(TURNED, m->dim[0] - row);
        for (int64_t i = 0; i < n; i++) rows[i] = cpu_f32(m) + (row + i) * m->stride[0];
        isa->turn(rows, n, m->dim[1], to + row, m->dim[0]);
    }
}

/* `n` rows of drop(x) from row0 on, columns col0 .. col0+cols-1: where they are, or in `out`. */
static const float *drop_panel(const lora_job *j, int64_t row0, int64_t n, int64_t col0,
    int64_t cols, float *out, int64_t *ld) {
    const float *x = cpu_f32(j->x) + row0 * j->x->stride[0] + col0;
    *ld = j->x->stride[0];
    if (!(j->p->p > 0)) return x;
    for (int64_t i = 0; i < n; i++)
        cpu_drop_row(x + i * *ld, out + i * cols, col0, cols, cpu_i32(j->key) + 2 * (row0 + i),
            j->p->p, j->p->seed, j->p->module_hash);
    *ld = cols;
    return out;
}

static void lora_item(void *arg, uint32_t item, uint32_t worker) {
    const lora_job *j = (const lora_job *)arg;
    const int64_t row = (int64_t)item * PANEL_ROWS, rows = panel_rows(j, item);
    const int64_t ldy = j->out_y->stride[0], ldfrom = j->y->stride[0];
    float *xa = j->scratch + worker * j->scratch_size, *y = cpu_f32(j->out_y) + row * ldy;
    const float *from = cpu_f32(j->y) + row * ldfrom;
    int64_t ld;
    const float *x = drop_panel(j, row, rows, 0, j->k, xa + PANEL_ROWS * j->r, &ld);
    cpu_sum_product(j->isa, &(cpu_product){.m = rows,
                                .n = j->r,
                                .k = j->k,
                                .row = ld,
                                .step = 1,
                                .ldb = j->r,
                                .ldy = j->r,
                                .a = x,
                                .b = j->at,
                                .y = xa,
                                .alpha = 1});
    for (int64_t i = 0; i < rows && j->out_xa; i++)
        memcpy(cpu_f32(j->out_xa) + (row + i) * j->out_xa->stride[0], xa + i * j->r,
            (size_t)j->r * sizeof(float));
    for (int64_t i = 0; i < rows && y != from; i++)
        memcpy(y + i * ldy, from + i * ldfrom, (size_t)j->y->dim[1] * sizeof(float));
    cpu_sum_product(j->isa, &(cpu_product){.m = rows,
                                .n = j->rows,
                                .k = j->r,
                                .row = j->r,
                                .step = 1,
                                .ldb = j->rows,
                                .ldfrom = ldy,
                                .ldy = ldy,
                                .a = xa,
                                .b = j->bt,
                                .from = y + j->p->col0,
                                .y = y + j->p->col0,
                                .alpha = j->p->scale});
}

/* Floats of scratch that one worker needs forward, and backward; even, so that doubles are
 * aligned. */
static int64_t scratch_floats(int64_t k, int64_t r, float p) {
    return PANEL_ROWS * (r + (p > 0 ? k : 0));
}

static int64_t backward_floats(int64_t k, int64_t r, float p) {
    const int64_t product = p > 0 ? PANEL_ROWS * k : 0, sums = 3 * r * COLS + PANEL_ROWS * COLS;
    return product > sums ? product : sums;
}

uint32_t cpu_lora_supports(const qfw_op *op) { return cpu_support(op); }

uint64_t cpu_lora_workspace(const qfw_inst *be, const qfw_op *op) {
    const qfw_lora_params *p = (const qfw_lora_params *)op->params;
    const int64_t k = op->in[1]->dim[1], r = op->in[2]->dim[0], rows = op->in[3]->dim[0];
    return sizeof(float) *
           (uint64_t)(r * (k + rows) + (int64_t)be->n_workers * scratch_floats(k, r, p->p));
}

qfw_status cpu_lora(const cpu_call *c) {
    const qfw_op *op = c->op;
    lora_job job = {.p = (const qfw_lora_params *)op->params,
        .isa = c->be->isa,
        .y = op->in[0],
        .x = op->in[1],
        .a = op->in[2],
        .b = op->in[3],
        .key = op->in[4],
        .out_y = op->out[0],
        .out_xa = op->out[1],
        .at = (float *)(void *)c->workspace,
        .n = op->in[1]->dim[0],
        .k = op->in[1]->dim[1],
        .r = op->in[2]->dim[0],
        .rows = op->in[3]->dim[0]};
    job.bt = job.at + job.k * job.r;
    job.scratch = job.bt + job.rows * job.r;
    job.scratch_size = scratch_floats(job.k, job.r, job.p->p);
    turn_all(job.isa, job.a, job.at);
    turn_all(job.isa, job.b, job.bt);
    cpu_parallel(c, cpu_panels(job.n, PANEL_ROWS), lora_item, &job);
    return QFW_OK;
}

/* t = scale * dys * b for one panel of rows. */
static void t_item(void *arg, uint32_t item, uint32_t worker) {
    const lora_job *j = (const lora_job *)arg;
    const int64_t row = (int64_t)item * PANEL_ROWS;
    (void)worker;
    cpu_sum_product(j->isa, &(cpu_product){.m = panel_rows(j, item),
                                .n = j->r,
                                .k = j->rows,
                                .row = j->dy->stride[0],
                                .step = 1,
                                .ldb = j->b->stride[0],
                                .ldy = j->r,
                                .a = cpu_f32(j->dy) + row * j->dy->stride[0] + j->p->col0,
                                .b = cpu_f32(j->b),
                                .y = j->t + row * j->r,
                                .alpha = j->p->scale});
}

/* sums[m,n] += a[rows,m]^T * b[rows,n], a few rows at a time in fp32, their shares added in double:
 * how a window is cut into batches then hardly shows. */
static void add_product(const cpu_isa *isa, double *sums, float *tile, const float *a, int64_t lda,
    int64_t m, const float *b, int64_t ldb, int64_t n, int64_t rows) {
    for (int64_t row = 0; row < rows; row += SHARE_ROWS) {
        isa->product(&(cpu_product){.m = m,
            .n = n,
            .k = cpu_min(SHARE_ROWS, rows - row),
            .row = 1,
            .step = lda,
            .ldb = ldb,
            .ldy = n,
            .a = a + row * lda,
            .b = b + row * ldb,
            .y = tile,
            .alpha = 1});
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
        int64_t ld;
        const int64_t rows = cpu_min(PANEL_ROWS, j->n - row);
        const float *x = drop_panel(j, row, rows, col, cols, xd, &ld);
        add_product(j->isa, sums, tile, j->t + row * j->r, j->r, j->r, x, ld, cols, rows);
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
    add_product(j->isa, sums, tile, cpu_f32(j->dy) + j->p->col0 + first, j->dy->stride[0], m,
        cpu_f32(j->xa), j->xa->stride[0], j->r, j->n);
    put_sums(j->db, first, 0, sums, m, j->r, j->p->scale);
}

/* dx = drop'(t * a) + acc for one panel of rows; without dropout in one go. */
static void dx_item(void *arg, uint32_t item, uint32_t worker) {
    const lora_job *j = (const lora_job *)arg;
    const int64_t row = (int64_t)item * PANEL_ROWS, rows = panel_rows(j, item);
    const int64_t ldy = j->dx->stride[0], ldacc = j->acc ? j->acc->stride[0] : 0;
    const int drops = j->p->p > 0;
    float *product = j->scratch + worker * j->scratch_size, *dx = cpu_f32(j->dx) + row * ldy;
    const float *acc = j->acc ? cpu_f32(j->acc) + row * ldacc : NULL;
    cpu_sum_product(j->isa, &(cpu_product){.m = rows,
                                .n = j->k,
                                .k = j->r,
                                .row = j->r,
                                .step = 1,
                                .ldb = j->a->stride[0],
                                .ldfrom = ldacc,
                                .ldy = drops ? j->k : ldy,
                                .a = j->t + row * j->r,
                                .b = cpu_f32(j->a),
                                .from = drops ? NULL : acc,
                                .y = drops ? product : dx,
                                .alpha = 1});
    for (int64_t i = 0; drops && i < rows; i++) {
        float *from = product + i * j->k, *to = dx + i * ldy;
        cpu_drop_row(from, from, 0, j->k, cpu_i32(j->key) + 2 * (row + i), j->p->p, j->p->seed,
            j->p->module_hash);
        for (int64_t v = 0; v < j->k; v++) to[v] = from[v] + (acc ? acc[i * ldacc + v] : 0.0f);
    }
}

uint32_t cpu_lora_bwd_supports(const qfw_op *op) { return cpu_support(op); }

uint64_t cpu_lora_bwd_workspace(const qfw_inst *be, const qfw_op *op) {
    const qfw_lora_params *p = (const qfw_lora_params *)op->params;
    const int64_t n = op->in[1]->dim[0], k = op->in[1]->dim[1], r = op->in[2]->dim[0];
    return sizeof(float) *
           (uint64_t)(cpu_padded(n * r, 2) + (int64_t)be->n_workers * backward_floats(k, r, p->p));
}

qfw_status cpu_lora_bwd(const cpu_call *c) {
    const qfw_op *op = c->op;
    lora_job job = {.p = (const qfw_lora_params *)op->params,
        .isa = c->be->isa,
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
    job.scratch = job.t + cpu_padded(job.n * job.r, 2);
    job.scratch_size = backward_floats(job.k, job.r, job.p->p);
    cpu_parallel(c, cpu_panels(job.n, PANEL_ROWS), t_item, &job);
    cpu_parallel(c, cpu_panels(job.k, COLS), da_item, &job);
    cpu_parallel(c, cpu_panels(job.rows, COLS), db_item, &job);
    if (job.dx) cpu_parallel(c, cpu_panels(job.n, PANEL_ROWS), dx_item, &job);
    return QFW_OK;
}

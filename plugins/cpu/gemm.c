/* gemm.c -- matrix products in panels of fixed size, so that no row knows its neighbours.
 *
 * OpenBLAS picks its path by the shape it is given. Every row panel of op(a) = a is given with
 * PANEL_ROWS rows, the last one padded with zeros in the workspace; column cuts depend on n alone.
 * So a row of y has the same bits alone and in any batch, on one thread and on many. Where a is
 * transposed the sum runs over the rows of the batch, and only the independence of threads is left
 * to keep.
 */
#include <cblas.h>
#include <string.h>

#include "cpu.h"

/* Rows of op(a) = a that one OpenBLAS call gets, so that all are treated alike. */
static int64_t rows_a_call = PANEL_ROWS;

static void call_sgemm(const cpu_matmul *p) {
    cblas_sgemm(CblasRowMajor, p->trans_a ? CblasTrans : CblasNoTrans,
        p->trans_b ? CblasTrans : CblasNoTrans, (blasint)p->m, (blasint)p->n, (blasint)p->k,
        p->alpha, p->a, (blasint)p->lda, p->b, (blasint)p->ldb, p->accumulate ? 1.0f : 0.0f, p->y,
        (blasint)p->ldy);
}

void cpu_sgemm(const cpu_matmul *p) {
    cpu_matmul q = *p;
    if (!p->m || !p->n) return;
    if (p->trans_a || p->m <= rows_a_call) {
        call_sgemm(p);
        return;
    }
    for (int64_t row = 0; row < p->m; row += rows_a_call) {
        q.m = cpu_min(rows_a_call, p->m - row);
        q.a = p->a + row * p->lda;
        q.y = p->y + row * p->ldy;
        call_sgemm(&q);
    }
}

/* Whether PANEL_ROWS equal rows against b[n,k] give PANEL_ROWS equal results. */
static int rows_are_equal(float *a, float *b, float *y, int64_t n, int64_t k, int trans_b) {
    uint32_t word = 1;
    for (int64_t i = 0; i < k; i++)
        a[i] = (float)((word = word * 1664525u + 1013904223u) >> 8) - 8e6f;
    for (int64_t i = 0; i < n * k; i++)
        b[i] = (float)((word = word * 1664525u + 1013904223u) >> 8) - 8e6f;
    for (int64_t r = 1; r < PANEL_ROWS; r++) memcpy(a + r * k, a, (size_t)k * sizeof *a);
    call_sgemm(&(cpu_matmul){.trans_b = trans_b,
        .m = PANEL_ROWS,
        .n = n,
        .k = k,
        .lda = k,
        .ldb = trans_b ? k : n,
        .ldy = n,
        .alpha = 1,
        .a = a,
        .b = b,
        .y = y});
    for (int64_t r = 1; r < PANEL_ROWS; r++)
        if (memcmp(y, y + r * n, (size_t)n * sizeof *y)) return 0;
    return 1;
}

qfw_status cpu_probe_sgemm(const qfw_host *h) {
    enum { COLS = 128, DEPTH = 192, SAFE_ROWS = 8 };
    float *a = (float *)h->heap_alloc(
        h, sizeof(float) * (PANEL_ROWS * DEPTH + COLS * DEPTH + PANEL_ROWS * COLS), 64);
    if (!a) return qfw_fail(h, QFW_E_NOMEM, "cpu: no memory");
    float *b = a + PANEL_ROWS * DEPTH, *y = b + COLS * DEPTH;
    const int equal =
        rows_are_equal(a, b, y, COLS, DEPTH, 1) && rows_are_equal(a, b, y, 100, 96, 0);
    rows_a_call = equal ? PANEL_ROWS : SAFE_ROWS;
    h->heap_free(h, a);
    return QFW_OK;
}

typedef struct gemm_job {
    const cpu_matmul *p;
    int64_t col_panels;
    const float *tail; /* the last row panel of a, padded; NULL where it is whole */
    float *results;    /* PANEL_ROWS x PANEL_COLS a worker, for the padded panel */
} gemm_job;

static void gemm_tail(const gemm_job *j, cpu_matmul q, int64_t rows, uint32_t worker) {
    float *y = j->results + (int64_t)worker * PANEL_ROWS * PANEL_COLS, *to = q.y;
    const int64_t ldy = q.ldy;
    if (q.accumulate) {
        memset(y, 0, sizeof(float) * PANEL_ROWS * PANEL_COLS);
        for (int64_t r = 0; r < rows; r++)
            memcpy(y + r * PANEL_COLS, to + r * ldy, (size_t)q.n * sizeof(float));
    }
    q.a = j->tail;
    q.lda = q.k;
    q.m = PANEL_ROWS;
    q.y = y;
    q.ldy = PANEL_COLS;
    cpu_sgemm(&q);
    for (int64_t r = 0; r < rows; r++)
        memcpy(to + r * ldy, y + r * PANEL_COLS, (size_t)q.n * sizeof(float));
}

static void gemm_item(void *arg, uint32_t item, uint32_t worker) {
    const gemm_job *j = (const gemm_job *)arg;
    cpu_matmul q = *j->p;
    const int64_t row = item / j->col_panels * PANEL_ROWS, col = item % j->col_panels * PANEL_COLS;
    const int64_t rows = cpu_min(PANEL_ROWS, q.m - row);
    q.n = cpu_min(PANEL_COLS, q.n - col);
    q.b += q.trans_b ? col * q.ldb : col;
    q.y += row * q.ldy + col;
    if (rows < PANEL_ROWS && j->tail) {
        gemm_tail(j, q, rows, worker);
        return;
    }
    q.a += q.trans_a ? row : row * q.lda;
    q.m = rows;
    cpu_sgemm(&q);
}

uint64_t cpu_gemm_workspace(const qfw_inst *be, int trans_a, int64_t m, int64_t k) {
    if (trans_a || m % PANEL_ROWS == 0) return 0;
    return sizeof(float) *
           (uint64_t)(PANEL_ROWS * k + (int64_t)be->n_workers * PANEL_ROWS * PANEL_COLS);
}

void cpu_gemm(const cpu_call *c, const cpu_matmul *p, char *workspace) {
    gemm_job job = {p, cpu_panels(p->n, PANEL_COLS), NULL, NULL};
    const int64_t whole = p->m / PANEL_ROWS * PANEL_ROWS;
    if (!p->m || !p->n) return;
    if (!p->trans_a && whole < p->m) {
        float *tail = (float *)(void *)workspace;
        for (int64_t r = whole; r < p->m; r++)
            memcpy(tail + (r - whole) * p->k, p->a + r * p->lda, (size_t)p->k * sizeof(float));
        memset(tail + (p->m - whole) * p->k, 0,
            (size_t)((PANEL_ROWS - (p->m - whole)) * p->k) * sizeof(float));
        job.tail = tail;
        job.results = tail + PANEL_ROWS * p->k;
    }
    cpu_parallel(c, cpu_panels(p->m, PANEL_ROWS) * job.col_panels, gemm_item, &job);
}

void cpu_gemm_rows(
    const cpu_call *c, const cpu_matmul *p, const qfw_tensor *w, char *workspace, float *slab) {
    const int64_t step = cpu_is_half(w) ? cpu_slab_rows(w) : w->dim[0];
    int64_t row = 0;
    do {
        cpu_matmul q = *p;
        const int64_t rows = cpu_min(step, w->dim[0] - row);
        q.b = cpu_widen_rows(c, w, row, rows, slab, &q.ldb);
        if (p->trans_b) {
            q.n = rows;
            q.y += row;
        } else {
            q.k = rows;
            q.a += p->trans_a ? row * p->lda : row;
            q.accumulate = p->accumulate || row > 0;
        }
        cpu_gemm(c, &q, workspace);
        row += rows;
    } while (row < w->dim[0]);
}

/* --- the op --- */

uint32_t cpu_gemm_op_supports(const qfw_op *op) { return cpu_support(op); }

static uint64_t panel_workspace(const qfw_inst *be, const qfw_op *op) {
    const qfw_gemm_params *p = (const qfw_gemm_params *)op->params;
    return cpu_gemm_workspace(
        be, (int)p->trans_a, op->out[0]->dim[0], op->in[0]->dim[p->trans_a ? 0 : 1]);
}

uint64_t cpu_gemm_op_workspace(const qfw_inst *be, const qfw_op *op) {
    return panel_workspace(be, op) + cpu_slab_bytes(op->in[1]);
}

qfw_status cpu_gemm_op(const cpu_call *c) {
    const qfw_op *op = c->op;
    const qfw_gemm_params *g = (const qfw_gemm_params *)op->params;
    const qfw_tensor *a = op->in[0], *b = op->in[1], *acc = op->in[2], *y = op->out[0];
    const cpu_matmul p = {.trans_a = (int)g->trans_a,
        .trans_b = (int)g->trans_b,
        .accumulate = acc != NULL,
        .m = y->dim[0],
        .n = b->dim[g->trans_b ? 0 : 1],
        .k = a->dim[g->trans_a ? 0 : 1],
        .lda = a->stride[0],
        .ldy = y->stride[0],
        .alpha = g->alpha,
        .a = cpu_f32(a),
        .y = cpu_f32(y) + g->col0};
    if (acc && cpu_f32(acc) != cpu_f32(y))
        for (int64_t r = 0; r < y->dim[0]; r++)
            memcpy(cpu_f32(y) + r * y->stride[0], cpu_f32(acc) + r * acc->stride[0],
                (size_t)y->dim[1] * sizeof(float));
    float *slab = (float *)(void *)(c->workspace + panel_workspace(c->be, op));
    cpu_gemm_rows(c, &p, b, c->workspace, slab);
    return QFW_OK;
}

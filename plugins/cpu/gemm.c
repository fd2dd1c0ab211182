/* gemm.c -- matrix products: a panel of b is brought into cache as fp32, whatever it is stored as,
 * and all rows of a run against it.
 *
 * A panel is up to PANEL_COLS columns and PANEL_STEPS steps of k; a value of y is the sum of its
 * panels' chains (tile.c) in their order. Neither the rows beside it nor the threads have a part in
 * that, so a row of y has the same bits alone and in any batch.
 */
#include <string.h>

#include "cpu.h"

enum {
    PANEL_COLS = 64,
    PANEL_STEPS = 1024,
    TURNED = 16,
    ITEM_ROWS = 2048,
    FEW_ROWS = 24,
    AHEAD = 16
};
enum { PANEL = PANEL_COLS * PANEL_STEPS, SCRATCH = PANEL + TURNED * PANEL_COLS };

typedef struct gemm_job {
    const cpu_call *c;
    const cpu_gemm_args *p;
    float *scratch;                 /* SCRATCH a worker */
    int64_t col_panels, block_rows; /* an item: one panel of columns, one block of rows */
} gemm_job;

/* panel[s, :] = b[step0 + s, col0 ..]: rows of b as they are. */
static void pack_rows(
    const gemm_job *j, int64_t step0, int64_t steps, int64_t col0, int64_t cols, float *panel) {
    for (int64_t s = 0; s < steps; s++) {
        float *to = panel + s * PANEL_COLS;
        if (s + AHEAD < steps) cpu_prefetch(&j->p->b, step0 + s + AHEAD, col0);
        const float *v = cpu_values(j->c->be->isa, &j->p->b, step0 + s, col0, cols, to);
        if (v != to) memcpy(to, v, (size_t)cols * sizeof *to);
    }
}

/* panel[s, c] = b[col0 + c, step0 + s]: rows of b become columns, TURNED at a time. */
static void pack_columns(const gemm_job *j, int64_t step0, int64_t steps, int64_t col0,
    int64_t cols, float *panel, float *scratch) {
    for (int64_t c = 0; c < cols; c += TURNED)
        for (int64_t s = 0; s < steps; s += PANEL_COLS) {
            const int64_t n = cpu_min(TURNED, cols - c), deep = cpu_min(PANEL_COLS, steps - s);
            const float *rows[TURNED];
            for (int64_t i = 0; i < n; i++)
                rows[i] = cpu_values(j->c->be->isa, &j->p->b, col0 + c + i, step0 + s, deep,
                    scratch + i * PANEL_COLS);
            j->c->be->isa->turn(rows, n, deep, panel + s * PANEL_COLS + c, PANEL_COLS);
        }
}

static void gemm_item(void *arg, uint32_t item, uint32_t worker) {
    const gemm_job *j = (const gemm_job *)arg;
    const cpu_gemm_args *p = j->p;
    float *panel = j->scratch + (int64_t)worker * SCRATCH;
    const int64_t col = item % j->col_panels * PANEL_COLS,
                  row = item / j->col_panels * j->block_rows;
    cpu_product q = {.m = cpu_min(j->block_rows, p->m - row),
        .n = cpu_min(PANEL_COLS, p->n - col),
        .row = p->row,
        .step = p->step,
        .from = p->from ? p->from + row * p->ldfrom + col : NULL,
        .ldfrom = p->ldfrom,
        .y = p->y + row * p->ldy + col,
        .ldy = p->ldy,
        .alpha = p->alpha};
    int64_t at = 0;
    do {
        q.k = cpu_min(PANEL_STEPS, p->k - at);
        q.a = p->a + row * p->row + at * p->step;
        q.b = panel;
        q.ldb = PANEL_COLS;
        if (p->trans_b) {
            pack_columns(j, at, q.k, col, q.n, panel, panel + PANEL);
        } else if (p->b.dtype == QFW_F32 && q.m <= FEW_ROWS) {
            q.b = cpu_values(j->c->be->isa, &p->b, at, col, q.n, NULL);
            q.ldb = p->b.ld;
        } else {
            pack_rows(j, at, q.k, col, q.n, panel);
        }
        j->c->be->isa->product(&q);
        q.from = q.y;
        q.ldfrom = q.ldy;
        at += PANEL_STEPS;
    } while (at < p->k);
}

void cpu_sum_product(const cpu_isa *isa, const cpu_product *p) {
    cpu_product q = *p;
    int64_t at = 0;
    do {
        q.k = cpu_min(PANEL_STEPS, p->k - at);
        q.a = p->a + at * p->step;
        q.b = p->b + at * p->ldb;
        isa->product(&q);
        q.from = q.y;
        q.ldfrom = q.ldy;
        at += PANEL_STEPS;
    } while (at < p->k);
}

uint64_t cpu_gemm_workspace(const qfw_inst *be) {
    return sizeof(float) * SCRATCH * (uint64_t)be->n_workers;
}

void cpu_gemm(const cpu_call *c, const cpu_gemm_args *p, void *workspace) {
    gemm_job job = {c, p, (float *)workspace, cpu_panels(p->n, PANEL_COLS), 0};
    if (!p->m || !p->n) return;
    /* Where there are few panels of columns, rows are shared out as well. */
    const int64_t wanted = cpu_panels(4 * (int64_t)c->be->n_workers, job.col_panels);
    const int64_t even = cpu_panels(p->m, wanted > 1 ? wanted : 1);
    job.block_rows = cpu_min(ITEM_ROWS, even > FEW_ROWS ? even : FEW_ROWS);
    cpu_parallel(c, job.col_panels * cpu_panels(p->m, job.block_rows), gemm_item, &job);
}

/* --- the op --- */

uint32_t cpu_gemm_op_supports(const qfw_op *op) { return cpu_support(op); }

uint64_t cpu_gemm_op_workspace(const qfw_inst *be, const qfw_op *op) {
    (void)op;
    return cpu_gemm_workspace(be);
}

qfw_status cpu_gemm_op(const cpu_call *c) {
    const qfw_op *op = c->op;
    const qfw_gemm_params *g = (const qfw_gemm_params *)op->params;
    const qfw_tensor *a = op->in[0], *b = op->in[1], *acc = op->in[2], *y = op->out[0];
    const cpu_gemm_args p = {.m = y->dim[0],
        .n = b->dim[g->trans_b ? 0 : 1],
        .k = a->dim[g->trans_a ? 0 : 1],
        .a = cpu_f32(a),
        .row = g->trans_a ? 1 : a->stride[0],
        .step = g->trans_a ? a->stride[0] : 1,
        .b = cpu_matrix_of(b),
        .trans_b = (int)g->trans_b,
        .from = acc ? cpu_f32(y) + g->col0 : NULL,
        .ldfrom = y->stride[0],
        .y = cpu_f32(y) + g->col0,
        .ldy = y->stride[0],
        .alpha = g->alpha};
    if (acc && cpu_f32(acc) != cpu_f32(y))
        for (int64_t r = 0; r < y->dim[0]; r++)
            memcpy(cpu_f32(y) + r * y->stride[0], cpu_f32(acc) + r * acc->stride[0],
                (size_t)y->dim[1] * sizeof(float));
    cpu_gemm(c, &p, c->workspace);
    return QFW_OK;
}

/* token_logprob.c -- lm_head and log-softmax in one op: trained rows are gathered into panels of
 * fixed height, a panel's logits live in the workspace, and no batch of logits ever exists.
 */
#include <math.h>
#include <string.h>

#include "cpu.h"

enum { PANEL_ROWS = 512, ROWS_PER_ITEM = 8 };

typedef struct panel {
    const qfw_op *op;
    const qfw_tensor *hidden, *w;
    const int32_t *labels;
    int64_t rows, cols, vocab; /* rows: at most */
    float *x, *logits, *dx;    /* [rows,C], [rows,V], then [rows,C] or, forward, [rows,V] or none */
    void *workspace;           /* of the products */
    int64_t row[PANEL_ROWS], n; /* the batch rows gathered here */
} panel;

static int64_t rows_at_most(const qfw_tensor *hidden) {
    return cpu_min(PANEL_ROWS, hidden->dim[0]);
}

/* dx_cols: how wide the panel's dx is. */
static panel make_panel(const cpu_call *c, const qfw_tensor *hidden, const qfw_tensor *w,
    const qfw_tensor *labels, int64_t dx_cols) {
    panel p = {.op = c->op,
        .hidden = hidden,
        .w = w,
        .labels = cpu_i32(labels),
        .rows = rows_at_most(hidden),
        .cols = hidden->dim[1],
        .vocab = w->dim[0]};
    p.x = (float *)(void *)c->workspace;
    p.logits = p.x + p.rows * p.cols;
    p.dx = p.logits + p.rows * p.vocab;
    p.workspace = p.dx + p.rows * dx_cols;
    return p;
}

static uint64_t panel_bytes(
    const qfw_inst *be, const qfw_tensor *hidden, const qfw_tensor *w, int64_t dx_cols) {
    const int64_t cols = hidden->dim[1] + w->dim[0] + dx_cols;
    return sizeof(float) * (uint64_t)(rows_at_most(hidden) * cols) + cpu_gemm_workspace(be);
}

/* The next rows that have a label, from *at on; 0 when there are none. */
static int gather(panel *p, int64_t *at) {
    const int64_t n = p->hidden->dim[0];
    for (p->n = 0; *at < n && p->n < p->rows; ++*at) {
        if (p->labels[*at] == QFW_IGNORE_LABEL) continue;
        memcpy(p->x + p->n * p->cols, cpu_f32(p->hidden) + *at * p->hidden->stride[0],
            (size_t)p->cols * sizeof(float));
        p->row[p->n++] = *at;
    }
    return p->n > 0;
}

static void make_logits(const cpu_call *c, const panel *p) {
    const cpu_gemm_args product = {.m = p->n,
        .n = p->vocab,
        .k = p->cols,
        .a = p->x,
        .row = p->cols,
        .step = 1,
        .b = cpu_matrix_of(p->w),
        .trans_b = 1,
        .y = p->logits,
        .ldy = p->vocab,
        .alpha = 1};
    cpu_gemm(c, &product, p->workspace);
}

static void put(const qfw_tensor *t, int64_t row, double value) {
    if (t) cpu_f32(t)[row * t->stride[0]] = (float)value;
}

/* The log-probabilities of one row; its logits are used up. */
static void logprob_row(const panel *p, int64_t i) {
    float *z = p->logits + i * p->vocab;
    const int64_t row = p->row[i];
    const qfw_op *op = p->op;
    const float top = cpu_max_row(z, p->vocab), label = z[p->labels[row]];
    int64_t best = 0;
    while (op->out[2] && best + 1 < p->vocab && z[best] < top) best++;
    const double mean = op->out[4] ? cpu_sum_row(z, p->vocab) / (double)p->vocab : 0;
    float *shifted = p->dx; /* [rows,V]: z - top, for the entropy */
    shifted += i * p->vocab;
    for (int64_t v = 0; op->out[3] && v < p->vocab; v++) shifted[v] = z[v] - top;
    cpu_exp_row(z, top, z, p->vocab);
    const double sum = cpu_sum_row(z, p->vocab), lse = (double)top + log(sum);
    put(op->out[0], row, (double)label - lse);
    put(op->out[1], row, lse);
    if (op->out[2]) ((int32_t *)(void *)cpu_f32(op->out[2]))[row] = (int32_t)best;
    if (op->out[3]) put(op->out[3], row, log(sum) - cpu_dot_row(z, shifted, p->vocab) / sum);
    put(op->out[4], row, mean);
    if (op->out[5]) put(op->out[5], row, 2.0 * (double)top + log(cpu_dot_row(z, z, p->vocab)));
}

static void logprob_item(void *arg, uint32_t item, uint32_t worker) {
    const panel *p = (const panel *)arg;
    const int64_t past = cpu_min(p->n, ((int64_t)item + 1) * ROWS_PER_ITEM);
    (void)worker;
    for (int64_t i = (int64_t)item * ROWS_PER_ITEM; i < past; i++) logprob_row(p, i);
}

/* What rows without a label get. */
static void clear_outputs(const qfw_op *op, int64_t n) {
    for (int o = 0; o < 6; o++) {
        const qfw_tensor *t = op->out[o];
        if (!t) continue;
        memset(cpu_f32(t), o == 2 ? 0xff : 0, (size_t)n * sizeof(float));
    }
}

uint32_t cpu_token_logprob_supports(const qfw_op *op) { return cpu_support(op); }

uint64_t cpu_token_logprob_workspace(const qfw_inst *be, const qfw_op *op) {
    return panel_bytes(be, op->in[0], op->in[1], op->out[3] ? op->in[1]->dim[0] : 0);
}

qfw_status cpu_token_logprob(const cpu_call *c) {
    const qfw_op *op = c->op;
    panel p = make_panel(c, op->in[0], op->in[1], op->in[2], op->out[3] ? op->in[1]->dim[0] : 0);
    clear_outputs(op, op->in[0]->dim[0]);
    for (int64_t at = 0; gather(&p, &at);) {
        make_logits(c, &p);
        cpu_parallel(c, cpu_panels(p.n, ROWS_PER_ITEM), logprob_item, &p);
    }
    return QFW_OK;
}

/* logits := coef * (onehot(label) - softmax). */
static void dlogits_item(void *arg, uint32_t item, uint32_t worker) {
    const panel *p = (const panel *)arg;
    const float *coef = cpu_f32(p->op->in[0]), *lse = cpu_f32(p->op->in[4]);
    const int64_t past = cpu_min(p->n, ((int64_t)item + 1) * ROWS_PER_ITEM);
    (void)worker;
    for (int64_t i = (int64_t)item * ROWS_PER_ITEM; i < past; i++) {
        float *z = p->logits + i * p->vocab;
        const int64_t row = p->row[i];
        const float k = coef[row * p->op->in[0]->stride[0]];
        cpu_exp_row(z, lse[row], z, p->vocab);
        for (int64_t v = 0; v < p->vocab; v++) z[v] *= -k;
        z[p->labels[row]] += k;
    }
}

uint32_t cpu_token_logprob_bwd_supports(const qfw_op *op) { return cpu_support(op); }

uint64_t cpu_token_logprob_bwd_workspace(const qfw_inst *be, const qfw_op *op) {
    return panel_bytes(be, op->in[1], op->in[2], op->in[1]->dim[1]);
}

/* dw += dz^T * x over this panel. */
static void add_dw(const cpu_call *c, const panel *p, const qfw_tensor *dw) {
    const cpu_gemm_args product = {.m = p->vocab,
        .n = p->cols,
        .k = p->n,
        .a = p->logits,
        .row = 1,
        .step = p->vocab,
        .b = {.dtype = QFW_F32, .data = (const char *)p->x, .ld = p->cols},
        .from = cpu_f32(dw),
        .ldfrom = dw->stride[0],
        .y = cpu_f32(dw),
        .ldy = dw->stride[0],
        .alpha = 1};
    cpu_gemm(c, &product, p->workspace);
}

qfw_status cpu_token_logprob_bwd(const cpu_call *c) {
    const qfw_op *op = c->op;
    const qfw_tensor *dh = op->out[0], *dw = op->out[1], *acc = op->in[5];
    panel p = make_panel(c, op->in[1], op->in[2], op->in[3], op->in[1]->dim[1]);
    for (int64_t r = 0; r < dh->dim[0]; r++)
        memset(cpu_f32(dh) + r * dh->stride[0], 0, (size_t)p.cols * sizeof(float));
    if (dw) {
        for (int64_t v = 0; v < p.vocab; v++) {
            float *to = cpu_f32(dw) + v * dw->stride[0];
            const float *from = acc ? cpu_f32(acc) + v * acc->stride[0] : NULL;
            if (!from)
                memset(to, 0, (size_t)p.cols * sizeof(float));
            else if (from != to)
                memcpy(to, from, (size_t)p.cols * sizeof(float));
        }
    }
    for (int64_t at = 0; gather(&p, &at);) {
        make_logits(c, &p);
        cpu_parallel(c, cpu_panels(p.n, ROWS_PER_ITEM), dlogits_item, &p);
        const cpu_gemm_args product = {.m = p.n,
            .n = p.cols,
            .k = p.vocab,
            .a = p.logits,
            .row = p.vocab,
            .step = 1,
            .b = cpu_matrix_of(p.w),
            .y = p.dx,
            .ldy = p.cols,
            .alpha = 1};
        cpu_gemm(c, &product, p.workspace);
        for (int64_t i = 0; i < p.n; i++)
            memcpy(cpu_f32(dh) + p.row[i] * dh->stride[0], p.dx + i * p.cols,
                (size_t)p.cols * sizeof(float));
        if (dw) add_dw(c, &p, dw);
    }
    return QFW_OK;
}

/* elementwise.c -- pieces of rows as doubles: in, through a function, out. */
#include "ops/elementwise.h"

enum { PIECE = 4096, MAX_OPERANDS = 3 };

typedef struct element_job {
    const qfw_op *op;
    element_fn fn;
    qfw_tensor in[MAX_OPERANDS]; /* in the output's shape, with stride 0 where they repeat */
    int64_t width, pieces;       /* of a row of the output */
} element_job;

/* t seen in the shape of y. */
static qfw_tensor broadcast(const qfw_tensor *t, const qfw_tensor *y) {
    qfw_tensor wide = *t;
    const uint32_t missing = y->rank - t->rank;
    wide.rank = y->rank;
    for (uint32_t d = 0; d < y->rank; d++) {
        const int there = d >= missing && t->dim[d - missing] == y->dim[d];
        wide.dim[d] = y->dim[d];
        wide.stride[d] = there ? t->stride[d - missing] : 0;
    }
    return wide;
}

/* Values first .. first+n-1 of row r, as a tensor of one row. */
static qfw_tensor piece_of(
    const qfw_tensor *t, int64_t r, int64_t width, int64_t first, int64_t n) {
    qfw_tensor piece = *t;
    const int64_t step = t->rank ? t->stride[t->rank - 1] : 1;
    piece.offset += (uint64_t)(ref_at(t, r * width) + first * step) * qfw_dtype_bytes(t->dtype);
    piece.rank = 1;
    piece.dim[0] = n;
    piece.stride[0] = step;
    return piece;
}

static void run_piece(void *arg, int64_t item, double *scratch) {
    const element_job *const j = arg;
    const int64_t r = item / j->pieces, first = item % j->pieces * PIECE;
    const int64_t n = j->width - first < PIECE ? j->width - first : PIECE;
    double *const x[MAX_OPERANDS] = {scratch, scratch + PIECE, scratch + 2 * PIECE};
    for (uint32_t i = 0; i < j->op->n_in; i++) {
        const qfw_tensor from = piece_of(&j->in[i], r, j->width, first, n);
        ref_row(&from, 0, x[i]);
    }
    j->fn(j->op->params, x, n);
    const qfw_tensor to = piece_of(j->op->out[0], r, j->width, first, n);
    ref_set_row(&to, 0, x[0]);
}

qfw_status ref_elementwise(const qfw_op *op, element_fn fn) {
    const qfw_tensor *const y = op->out[0];
    const int64_t count = qfw_tensor_count(y);
    element_job j = {.op = op, .fn = fn};
    if (count == 0) return QFW_OK;
    for (uint32_t i = 0; i < op->n_in; i++) j.in[i] = broadcast(op->in[i], y);
    j.width = y->rank ? y->dim[y->rank - 1] : 1;
    j.pieces = (j.width + PIECE - 1) / PIECE;
    return ref_each_row(count / j.width * j.pieces, MAX_OPERANDS * PIECE, run_piece, &j);
}

/* sort.c -- values in ascending order, and where each stood. NaN comes last. */
#include "base/mem.h"
#include "ops/check.h"
#include "ops/emit.h"
#include "ops/ref.h"

#include <math.h>
#include <stdlib.h>

static qfw_status sort_infer(op_infer *i) {
    const op_shape *const x = i->in[0];
    QFW_TRY(check_operand("sort", "x", x, DTYPES_FLOAT, 1, ANY_DIM, 0));
    QFW_TRY(check_param(x->dim[0] <= INT32_MAX, "sort", "x's length", (double)x->dim[0],
        "at most 2147483647: perm is i32"));
    i->out[0] = *x;
    i->out[1] = shape_1d(QFW_I32, x->dim[0]);
    return QFW_OK;
}

/* dx[perm[i]] = dy[i]: each of perm occurs once. */
static qfw_status sort_vjp(op_vjp *v) {
    if (!v->dout[0] || !v->need[0]) return QFW_OK;
    return qfw_segment_sum(v->g, v->dout[0], v->out[1], emit_dim(v->g, v->in[0], 0), &v->din[0]);
}

typedef struct place {
    double value;
    int32_t at;
} place;

/* Of equal values the one that stood first comes first: no two places are equal. */
static int compare(const void *left, const void *right) {
    const place *const a = left, *const b = right;
    if (a->value < b->value) return -1;
    if (a->value > b->value) return 1;
    if (isnan(a->value) != isnan(b->value)) return isnan(a->value) ? 1 : -1;
    return a->at < b->at ? -1 : 1;
}

static qfw_status sort_ref(const qfw_op *op) {
    const qfw_tensor *const x = op->in[0], *const y = op->out[0], *const perm = op->out[1];
    const int32_t n = (int32_t)x->dim[0];
    place *const places = mem_alloc((size_t)n, sizeof *places);
    if (!places) return QFW_E_NOMEM;
    for (int32_t i = 0; i < n; i++) places[i] = (place){ref_load(x, ref_at(x, i)), i};
    qsort(places, (size_t)n, sizeof *places, compare);
    for (int32_t i = 0; i < n; i++) {
        ref_store(y, ref_at(y, i), places[i].value);
        ref_store(perm, ref_at(perm, i), places[i].at);
    }
    mem_free(places);
    return QFW_OK;
}

const op_def op_sort = {
    .name = "sort",
    .code = QFW_OP_SORT,
    .n_in = 1,
    .n_in_min = 1,
    .n_out = 2,
    .infer = sort_infer,
    .vjp = sort_vjp,
    .ref = sort_ref,
};

/* ops_prim.h -- the primitive ops: what losses, optimizers and decompositions are made of.
 *
 * One kernel per code and backend; a `kind` chooses the function. The wrappers are for authors;
 * letters and rules are those of ops.h.
 */
#ifndef QFW_OPS_PRIM_H
#define QFW_OPS_PRIM_H

#include "qfw/ops.h"

/* GEMM: y = c, with y[:, col0 .. col0+n-1] += alpha * op(a)[M,K] * op(b)[K,n]; without c, y[M,n] is
 * the product (col0 is then 0). op(a) = a, or its transpose where trans_a is 1.
 *   in a, b, c?[M, >= col0+n]   out y (in place with c) */
typedef struct qfw_gemm_params {
    uint32_t size;
    uint32_t trans_a, trans_b;
    float alpha;
    int64_t col0;
} qfw_gemm_params;
QFW_SEALED(qfw_gemm_params, col0);

static inline QFW_CHECKED qfw_status qfw_gemm(qfw_graph *g, qfw_val a, uint32_t trans_a, qfw_val b,
    uint32_t trans_b, float alpha, qfw_val *y) {
    const qfw_gemm_params p = {sizeof p, trans_a, trans_b, alpha, 0};
    const qfw_val in[3] = {a, b, 0};
    return g->api->op(g, QFW_OP_GEMM, in, 3, &p, sizeof p, NULL, y, 1);
}

/* DEQUANT4: rows row0 .. row0+rows-1 of a packed weight as floats.   in w[M,K]   out y
 * F32[rows,K] */
typedef struct qfw_dequant4_params {
    uint32_t size, rsv;
    int64_t row0, rows;
} qfw_dequant4_params;
QFW_SEALED(qfw_dequant4_params, rows);

/* COPY: x with any strides to a dense y of dtype `dtype` (round to nearest even).   in x   out y */
typedef struct qfw_copy_params {
    uint32_t size, dtype;
} qfw_copy_params;
QFW_SEALED(qfw_copy_params, dtype);

/* UNVIEW: the gradient of a view: y is zeros of shape dim[rank], with x added through the window
 * {x's shape, stride, offset} that the view was; where it overlaps itself, in row-major order of x.
 *   in x   out y F32[dim] */
typedef struct qfw_unview_params {
    uint32_t size, rank; /* of y */
    int64_t dim[QFW_MAX_DIMS], stride[QFW_MAX_DIMS], offset;
} qfw_unview_params;
QFW_SEALED(qfw_unview_params, offset);

/* CONCAT: the inputs one after another along dimension `axis`.   in x0 .. x7 (absent from some
 * index on)
 *   out y */
typedef struct qfw_concat_params {
    uint32_t size, axis;
} qfw_concat_params;
QFW_SEALED(qfw_concat_params, axis);

/* FILL: a tensor of one value.   out y */
typedef struct qfw_fill_params {
    uint32_t size, dtype, rank, rsv;
    int64_t dim[QFW_MAX_DIMS];
    double value;
} qfw_fill_params;
QFW_SEALED(qfw_fill_params, value);

static inline QFW_CHECKED qfw_status qfw_fill(
    qfw_graph *g, double value, uint32_t rank, const int64_t *dim, qfw_val *y) {
    qfw_fill_params p = {sizeof p, QFW_F32, rank, 0, {1, 1, 1, 1}, value};
    for (uint32_t i = 0; i < rank && i < QFW_MAX_DIMS; i++) p.dim[i] = dim[i];
    return g->api->op(g, QFW_OP_FILL, NULL, 0, &p, sizeof p, NULL, y, 1);
}

/* SCALE: y = alpha * x + beta.   in x   out y (in place with x) */
typedef struct qfw_scale_params {
    uint32_t size;
    float alpha, beta;
} qfw_scale_params;
QFW_SEALED(qfw_scale_params, beta);

static inline QFW_CHECKED qfw_status qfw_scale(
    qfw_graph *g, qfw_val x, float alpha, float beta, qfw_val *y) {
    const qfw_scale_params p = {sizeof p, alpha, beta};
    return g->api->op(g, QFW_OP_SCALE, &x, 1, &p, sizeof p, NULL, y, 1);
}

/* UNARY: y = f(x).   in x   out y (in place with x). logsigmoid(x) = -softplus(-x), stable. */
enum {
    QFW_NEG = 1,
    QFW_EXP = 2,
    QFW_LOG = 3,
    QFW_LOG1P = 4,
    QFW_EXPM1 = 5,
    QFW_SQRT = 6,
    QFW_RSQRT = 7,
    QFW_ABS = 8,
    QFW_SIGN = 9,
    QFW_SIGMOID = 10,
    QFW_LOGSIGMOID = 11,
    QFW_RELU = 12,
    QFW_UNARY_END = 13,
};
/* BINARY: y = f(a, b) under numpy's broadcasting (shapes aligned at the last dimension; a dimension
 * of 1 repeats). gt: 1 where a > b, else 0; no gradient.   in a, b   out y (in place with an input
 * of the same shape) */
enum {
    QFW_ADD = 1,
    QFW_SUB = 2,
    QFW_MUL = 3,
    QFW_DIV = 4,
    QFW_MIN = 5, /* where a == b the gradient goes to a */
    QFW_MAX = 6,
    QFW_GT = 7,
    QFW_BINARY_END = 8,
};
/* REDUCE: y has x's rank; each dimension is x's or 1, and what falls together is combined. max has
 * its gradient shared by all that attain it equally.   in x   out y[dim] */
enum { QFW_SUM = 1, QFW_SUMSQ = 2, QFW_MAXIMUM = 3, QFW_REDUCE_END = 4 };

typedef struct qfw_kind_params { /* UNARY, BINARY */
    uint32_t size, kind;
} qfw_kind_params;
QFW_SEALED(qfw_kind_params, kind);

typedef struct qfw_reduce_params {
    uint32_t size, kind;
    int64_t dim[QFW_MAX_DIMS]; /* of y */
} qfw_reduce_params;
QFW_SEALED(qfw_reduce_params, dim);

static inline QFW_CHECKED qfw_status qfw_unary(qfw_graph *g, uint32_t kind, qfw_val x, qfw_val *y) {
    const qfw_kind_params p = {sizeof p, kind};
    return g->api->op(g, QFW_OP_UNARY, &x, 1, &p, sizeof p, NULL, y, 1);
}

static inline QFW_CHECKED qfw_status qfw_binary(
    qfw_graph *g, uint32_t kind, qfw_val a, qfw_val b, qfw_val *y) {
    const qfw_kind_params p = {sizeof p, kind};
    const qfw_val in[2] = {a, b};
    return g->api->op(g, QFW_OP_BINARY, in, 2, &p, sizeof p, NULL, y, 1);
}

static inline QFW_CHECKED qfw_status qfw_reduce(
    qfw_graph *g, uint32_t kind, qfw_val x, const int64_t dim[QFW_MAX_DIMS], qfw_val *y) {
    const qfw_reduce_params p = {sizeof p, kind, {dim[0], dim[1], dim[2], dim[3]}};
    return g->api->op(g, QFW_OP_REDUCE, &x, 1, &p, sizeof p, NULL, y, 1);
}

/* All of x in one value, as F32 of x's rank with every dimension 1. */
static inline QFW_CHECKED qfw_status qfw_reduce_all(
    qfw_graph *g, uint32_t kind, qfw_val x, qfw_val *y) {
    const int64_t one[QFW_MAX_DIMS] = {1, 1, 1, 1};
    return qfw_reduce(g, kind, x, one, y);
}

/* SELECT: y = cond != 0 ? a : b, all of one shape.   in cond, a, b   out y (in place with a or
 * b) */
static inline QFW_CHECKED qfw_status qfw_select(
    qfw_graph *g, qfw_val cond, qfw_val a, qfw_val b, qfw_val *y) {
    const qfw_val in[3] = {cond, a, b};
    return g->api->op(g, QFW_OP_SELECT, in, 3, NULL, 0, NULL, y, 1);
}

/* SEGMENT_SUM: y[s] = sum, in row order, of the rows n of x with index[n] == s; index -1: in none.
 *   in x[N] or [N,C], index I32[N]   out y[count] or [count,C]
 * GATHER_ROWS: y[n] = x[index[n]]; index -1: zeros.   in x[M] or [M,C], index I32[N]   out y
 * SCATTER_ROWS: y = x, but y[index[n]] = rows[n]; index -1: that row goes nowhere. No other number
 * stands in index twice.   in x[M,C], rows[N,C], index I32[N]   out y (in place with x) */
typedef struct qfw_segment_sum_params {
    uint32_t size, rsv;
    int64_t count;
} qfw_segment_sum_params;
QFW_SEALED(qfw_segment_sum_params, count);

static inline QFW_CHECKED qfw_status qfw_segment_sum(
    qfw_graph *g, qfw_val x, qfw_val index, int64_t count, qfw_val *y) {
    const qfw_segment_sum_params p = {sizeof p, 0, count};
    const qfw_val in[2] = {x, index};
    return g->api->op(g, QFW_OP_SEGMENT_SUM, in, 2, &p, sizeof p, NULL, y, 1);
}

static inline QFW_CHECKED qfw_status qfw_gather_rows(
    qfw_graph *g, qfw_val x, qfw_val index, qfw_val *y) {
    const qfw_val in[2] = {x, index};
    return g->api->op(g, QFW_OP_GATHER_ROWS, in, 2, NULL, 0, NULL, y, 1);
}

static inline QFW_CHECKED qfw_status qfw_scatter_rows(
    qfw_graph *g, qfw_val x, qfw_val rows, qfw_val index, qfw_val *y) {
    const qfw_val in[3] = {x, rows, index};
    return g->api->op(g, QFW_OP_SCATTER_ROWS, in, 3, NULL, 0, NULL, y, 1);
}

/* SORT: y ascending, stable; perm[i] is where y[i] stood.   in x[n]   out y, perm I32[n] */
static inline QFW_CHECKED qfw_status qfw_sort(qfw_graph *g, qfw_val x, qfw_val *y, qfw_val *perm) {
    qfw_val out[2] = {0, 0};
    const qfw_status s = g->api->op(g, QFW_OP_SORT, &x, 1, NULL, 0, NULL, out, 2);
    *y = out[0];
    *perm = out[1];
    return s;
}

/* SOFTMAX over the last dimension, and SOFTMAX_BWD: dx = y * (dy - sum(dy * y)).
 *   in x   out y (in place)      in dy, y   out dx (in place with dy) */
static inline QFW_CHECKED qfw_status qfw_softmax(qfw_graph *g, qfw_val x, qfw_val *y) {
    return g->api->op(g, QFW_OP_SOFTMAX, &x, 1, NULL, 0, NULL, y, 1);
}

/* DROPOUT: y = x / (1-p) where kept, else 0. The gradient is the same op. Feature c of row n is
 * kept iff word c%4 of Philox4x32-10(counter {row_key[n].0, row_key[n].1, c/4, 0}, key {seed,
 * module_hash}), as word / 2^32, is >= p. row_key = {ordinal of the row in the epoch's order, token
 * position}, so the mask depends on neither the batch nor the packing.   in x[N,C], row_key
 * I32[N,2]   out y (in place) */
typedef struct qfw_dropout_params {
    uint32_t size;
    float p;
    uint32_t seed, module_hash; /* FNV-1a 32 of the adapted module's name */
} qfw_dropout_params;
QFW_SEALED(qfw_dropout_params, module_hash);

/* QUANT8: per block of `block` values, absmax = max|x|, code = index of the nearest map entry to
 * x / absmax (map ascending; an exact tie takes the upper).   in x[n], map[256]
 *   out code U8[n], absmax[ceil(n/block)]
 * DEQUANT8: x = map[code] * absmax.   in code, absmax, map   out x[n] */
typedef struct qfw_block8_params {
    uint32_t size, block;
} qfw_block8_params;
QFW_SEALED(qfw_block8_params, block);

static inline QFW_CHECKED qfw_status qfw_quant8(
    qfw_graph *g, qfw_val x, qfw_val map, uint32_t block, qfw_val *code, qfw_val *absmax) {
    const qfw_block8_params p = {sizeof p, block};
    const qfw_val in[2] = {x, map};
    qfw_val out[2] = {0, 0};
    const qfw_status s = g->api->op(g, QFW_OP_QUANT8, in, 2, &p, sizeof p, NULL, out, 2);
    *code = out[0];
    *absmax = out[1];
    return s;
}

static inline QFW_CHECKED qfw_status qfw_dequant8(
    qfw_graph *g, qfw_val code, qfw_val absmax, qfw_val map, uint32_t block, qfw_val *x) {
    const qfw_block8_params p = {sizeof p, block};
    const qfw_val in[3] = {code, absmax, map};
    return g->api->op(g, QFW_OP_DEQUANT8, in, 3, &p, sizeof p, NULL, x, 1);
}

#endif

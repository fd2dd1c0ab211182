/* emit.h -- what VJPs and decompositions are written with: windows onto values, and a few
 * primitives whose wrappers in the SDK are narrower than the op.
 */
#ifndef OPS_EMIT_H
#define OPS_EMIT_H

#include "ops/op.h"

/* Dimension d of a value of this graph, and its dtype. */
int64_t emit_dim(qfw_graph *g, qfw_val v, uint32_t d);
uint32_t emit_dtype(qfw_graph *g, qfw_val v);
/* v, or a copy of it, with this dtype; 0 for v 0. */
qfw_status emit_as(qfw_graph *g, uint32_t dtype, qfw_val v, qfw_val *out);
/* A new [dim0,dim1] of zeros. */
qfw_status emit_zeros(qfw_graph *g, uint32_t dtype, int64_t dim0, int64_t dim1, qfw_val *out);
/* A window of v that starts at `first` of dimension d and has `count` there. */
qfw_status emit_window(
    qfw_graph *g, qfw_val v, uint32_t d, int64_t first, int64_t count, qfw_val *out);
/* Columns first .. first+count-1 of v[N,C], or rows of v[N,C] or v[N], as a view. */
qfw_status emit_columns(qfw_graph *g, qfw_val v, int64_t first, int64_t count, qfw_val *out);
qfw_status emit_rows(qfw_graph *g, qfw_val v, int64_t first, int64_t count, qfw_val *out);

/* Zeros of v's shape and dtype. */
qfw_status emit_zeros_like(qfw_graph *g, qfw_val v, qfw_val *out);

typedef struct emit_product { /* operands and params of a GEMM; c 0: none */
    qfw_val a, b, c;
    uint32_t trans_a, trans_b;
    float alpha;
    int64_t col0;
} emit_product;
qfw_status emit_gemm(qfw_graph *g, const emit_product *p, qfw_val *out);
/* The same with a result of this dtype, whatever the operands are. */
qfw_status emit_gemm_as(qfw_graph *g, uint32_t dtype, const emit_product *p, qfw_val *out);

/* Add v to the end of a list that is being concatenated along `axis`: at most QFW_MAX_IN values
 * wait in it, a full list becomes one value first. emit_concat_end gives the whole. */
typedef struct emit_list {
    uint32_t axis, n;
    qfw_val v[QFW_MAX_IN];
} emit_list;
qfw_status emit_concat(qfw_graph *g, emit_list *list, qfw_val v);
qfw_status emit_concat_end(qfw_graph *g, emit_list *list, qfw_val *out);

#endif

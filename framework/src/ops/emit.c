/* emit.c -- the small vocabulary of VJPs and decompositions. */
#include "ops/emit.h"

#include "graph/graph.h"

int64_t emit_dim(qfw_graph *g, qfw_val v, uint32_t d) {
    return graph_get((const graph *)(const void *)g, v)->shape.dim[d];
}

uint32_t emit_dtype(qfw_graph *g, qfw_val v) {
    return graph_get((const graph *)(const void *)g, v)->shape.dtype;
}

qfw_status emit_as(qfw_graph *g, uint32_t dtype, qfw_val v, qfw_val *out) {
    const qfw_copy_params p = {sizeof p, dtype};
    *out = v;
    if (!v || emit_dtype(g, v) == dtype) return QFW_OK;
    return g->api->op(g, QFW_OP_COPY, &v, 1, &p, sizeof p, NULL, out, 1);
}

qfw_status emit_zeros(qfw_graph *g, uint32_t dtype, int64_t dim0, int64_t dim1, qfw_val *out) {
    const qfw_fill_params p = {sizeof p, dtype, 2, 0, {dim0, dim1, 1, 1}, 0};
    return g->api->op(g, QFW_OP_FILL, NULL, 0, &p, sizeof p, NULL, out, 1);
}

qfw_status emit_window(
    qfw_graph *g, qfw_val v, uint32_t d, int64_t first, int64_t count, qfw_val *out) {
    const graph_value *const from = graph_get((const graph *)(const void *)g, v);
    int64_t dim[QFW_MAX_DIMS], stride[QFW_MAX_DIMS];
    if (first == 0 && count == from->shape.dim[d]) {
        *out = v;
        return QFW_OK;
    }
    for (uint32_t i = 0; i < QFW_MAX_DIMS; i++) {
        dim[i] = from->shape.dim[i];
        stride[i] = from->stride[i];
    }
    dim[d] = count;
    return g->api->view(g, v, from->shape.rank, dim, stride, first * stride[d], out);
}

qfw_status emit_columns(qfw_graph *g, qfw_val v, int64_t first, int64_t count, qfw_val *out) {
    return emit_window(g, v, 1, first, count, out);
}

qfw_status emit_rows(qfw_graph *g, qfw_val v, int64_t first, int64_t count, qfw_val *out) {
    return emit_window(g, v, 0, first, count, out);
}

qfw_status emit_zeros_like(qfw_graph *g, qfw_val v, qfw_val *out) {
    qfw_fill_params p = {.size = sizeof p};
    QFW_TRY(g->api->shape(g, v, &p.dtype, &p.rank, p.dim));
    return g->api->op(g, QFW_OP_FILL, NULL, 0, &p, sizeof p, NULL, out, 1);
}

qfw_status emit_gemm(qfw_graph *g, const emit_product *p, qfw_val *out) {
    const qfw_gemm_params params = {
        sizeof params, p->trans_a, p->trans_b, p->alpha, p->c ? p->col0 : 0};
    const qfw_val in[3] = {p->a, p->b, p->c};
    return g->api->op(g, QFW_OP_GEMM, in, 3, &params, sizeof params, NULL, out, 1);
}

qfw_status emit_gemm_as(qfw_graph *g, uint32_t dtype, const emit_product *p, qfw_val *out) {
    emit_product added = *p;
    QFW_TRY(emit_as(g, dtype, p->c, &added.c));
    if (!p->c && emit_dtype(g, p->a) != dtype)
        QFW_TRY(emit_zeros(
            g, dtype, emit_dim(g, p->a, p->trans_a), emit_dim(g, p->b, !p->trans_b), &added.c));
    return emit_gemm(g, &added, out);
}

static qfw_status fold(qfw_graph *g, emit_list *list) {
    const qfw_concat_params params = {sizeof params, list->axis};
    qfw_val whole = 0;
    if (list->n < 2) return QFW_OK;
    QFW_TRY(
        g->api->op(g, QFW_OP_CONCAT, list->v, list->n, &params, sizeof params, NULL, &whole, 1));
    list->v[0] = whole;
    list->n = 1;
    return QFW_OK;
}

qfw_status emit_concat(qfw_graph *g, emit_list *list, qfw_val v) {
    if (list->n == QFW_MAX_IN) QFW_TRY(fold(g, list));
    list->v[list->n++] = v;
    return QFW_OK;
}

qfw_status emit_concat_end(qfw_graph *g, emit_list *list, qfw_val *out) {
    *out = 0;
    QFW_TRY(fold(g, list));
    *out = list->v[0];
    return QFW_OK;
}

/* attention.c -- one ATTN, and where a graph generates, the cache that it reads. */
#include "graph/attention.h"

#include <stdio.h>

#include "base/error.h"
#include "qfw/ops_prim.h"

static qfw_status emit_attn(graph *g, qfw_val q, qfw_val k, qfw_val v, qfw_val segments,
    const qfw_attn_params *p, qfw_val *o) {
    const qfw_val in[4] = {q, k, v, segments};
    qfw_val out[2] = {0, 0}; /* o, lse */
    const qfw_status status =
        g->pub.api->op(&g->pub, QFW_OP_ATTN, in, 4, p, sizeof *p, NULL, out, 2);
    *o = out[0];
    return status;
}

/* Columns first .. first + heads * D - 1 of the packed qkv. */
static qfw_status take_heads(
    graph *g, qfw_val qkv, const qfw_attn_params *p, int64_t first, int64_t heads, qfw_val *out) {
    const op_shape *s = &graph_get(g, qkv)->shape;
    const int64_t dim[2] = {s->dim[0], heads * p->head_dim}, stride[2] = {s->dim[1], 1};
    return g->pub.api->view(&g->pub, qkv, 2, dim, stride, first * p->head_dim, out);
}

static qfw_status check_packed(const graph *g, qfw_val qkv, const qfw_attn_params *p) {
    const int64_t wanted = (p->n_heads + 2 * p->n_kv_heads) * p->head_dim;
    const op_shape *s = &graph_get(g, qkv)->shape;
    if (s->rank == 2 && s->dim[1] == wanted) return QFW_OK;
    return err_fail("E_GRAPH_SHAPE", QFW_E_SHAPE,
        "attention: qkv is no [N, %lld], which %lld + 2 * %lld heads of %lld are",
        (long long)wanted, (long long)p->n_heads, (long long)p->n_kv_heads, (long long)p->head_dim);
}

static void name_cache(uint32_t n, const char *which, char name[32]) {
    snprintf(name, 32, "cache.%u.%s", n, which);
}

store_entry *attention_cache(const store *s, uint32_t n, const char *which) {
    char name[32];
    name_cache(n, which, name);
    return store_find(s, name);
}

/* The cache after this batch's rows have been put into it. */
static qfw_status grow_cache(
    graph *g, const char *which, qfw_val rows, qfw_val index, qfw_val *out) {
    const op_shape *s = &graph_get(g, rows)->shape;
    const int64_t dim[2] = {g->env->cache_rows, s->dim[1]};
    char name[32];
    qfw_val state;
    name_cache(g->n_caches, which, name);
    QFW_TRY(g->pub.api->state(&g->pub, name, s->dtype, 2, dim, &state));
    QFW_TRY(qfw_scatter_rows(&g->pub, state, rows, index, out));
    return g->pub.api->assign(&g->pub, state, *out);
}

qfw_status attention_emit(graph *g, qfw_val q, qfw_val k, qfw_val v, qfw_val segments,
    const qfw_attn_params *p, qfw_val *o) {
    qfw_val index;
    *o = 0;
    if (!g->env->cache_rows) return emit_attn(g, q, k, v, segments, p, o);
    if (!k) {
        const qfw_val qkv = q;
        QFW_TRY(check_packed(g, qkv, p));
        QFW_TRY(take_heads(g, qkv, p, 0, p->n_heads, &q));
        QFW_TRY(take_heads(g, qkv, p, p->n_heads, p->n_kv_heads, &k));
        QFW_TRY(take_heads(g, qkv, p, p->n_heads + p->n_kv_heads, p->n_kv_heads, &v));
    }
    const int64_t n[1] = {graph_get(g, q)->shape.dim[0]};
    QFW_TRY(g->pub.api->input(&g->pub, "cache_rows", QFW_I32, 1, n, &index));
    QFW_TRY(grow_cache(g, "k", k, index, &k));
    QFW_TRY(grow_cache(g, "v", v, index, &v));
    g->n_caches++;
    return emit_attn(g, q, k, v, segments, p, o);
}

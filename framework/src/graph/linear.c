/* linear.c -- a product with a stored weight, then one LORA for each row slice that the current
 * adapter has. Models never see adapters: they call `linear`.
 */
#include "graph/linear.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/rng.h"
#include "qfw/ops_nn.h"
#include "qfw/ops_prim.h"

/* "model.layers.3.self_attn.qkv_proj.weight" -> "qkv_proj", after the label of the segment. */
static const char *make_label(graph *g, const char *param) {
    char label[256];
    const char *end = param + strlen(param);
    if (end - param > 7 && !strcmp(end - 7, ".weight")) end -= 7;
    const char *first = end;
    while (first > param && first[-1] != '.') first--;
    const int n = snprintf(label, sizeof label, "%s%s%.*s", g->label ? g->label : "",
        g->label ? "/" : "", (int)(end - first), first);
    return graph_keep(g, label, (size_t)n < sizeof label ? (size_t)n + 1 : sizeof label);
}

/* x in the run's 16 bits, where it has some and x is of more. */
static qfw_status to_compute(graph *g, qfw_val x, qfw_val *out) {
    const qfw_copy_params p = {sizeof p, g->env->compute};
    const uint32_t dtype = graph_get(g, x)->shape.dtype;
    const int half = p.dtype == QFW_BF16 || p.dtype == QFW_F16;
    *out = x;
    if (!half || dtype != QFW_F32) return QFW_OK;
    return g->pub.api->op(&g->pub, QFW_OP_COPY, &x, 1, &p, sizeof p, NULL, out, 1);
}

static qfw_status emit_product(graph *g, qfw_val x, qfw_val w, qfw_val *y) {
    const uint32_t dtype = graph_get(g, w)->shape.dtype;
    const qfw_val in[2] = {x, w};
    if (dtype != QFW_NF4 && dtype != QFW_FP4) return qfw_gemm(&g->pub, x, 0, w, 1, 1.0f, y);
    return g->pub.api->op(&g->pub, QFW_OP_QMATMUL, in, 2, NULL, 0, NULL, y, 1);
}

/* The adapter's slice of this weight that starts after row `after`; NULL: none. */
static const lora *next_lora(const graph *g, const char *param, int64_t after) {
    const lora *next = NULL;
    for (uint32_t i = 0; i < g->env->n_loras; i++) {
        const lora *l = &g->env->loras[i];
        if (l->which != g->adapter || l->row0 <= after || strcmp(l->param, param)) continue;
        if (!next || l->row0 < next->row0) next = l;
    }
    return next;
}

static qfw_status emit_lora(graph *g, const lora *l, qfw_val x, qfw_val *y) {
    const int64_t dim[2] = {graph_get(g, x)->shape.dim[0], 2};
    const qfw_lora_params p = {.size = sizeof p,
        .col0 = l->row0,
        .scale = l->scale,
        .p = g->env->training ? l->dropout : 0.0f,
        .seed = (uint32_t)(g->env->seed ^ g->env->seed >> 32),
        .module_hash = fnv1a32(l->module)};
    qfw_val in[5] = {*y, x, 0, 0, 0}, out[2] = {0, 0};
    QFW_TRY(graph_store_value(g, l->a, &in[2]));
    QFW_TRY(graph_store_value(g, l->b, &in[3]));
    if (p.p > 0.0f) QFW_TRY(g->pub.api->input(&g->pub, "row_key", QFW_I32, 2, dim, &in[4]));
    QFW_TRY(
        g->pub.api->op(&g->pub, QFW_OP_LORA, in, p.p > 0.0f ? 5 : 4, &p, sizeof p, NULL, out, 2));
    *y = out[0];
    return QFW_OK;
}

qfw_status linear_emit(graph *g, qfw_val x, qfw_val w, qfw_val *out) {
    const graph_value *weight = graph_get(g, w);
    const char *prefix = g->label, *param = weight->name;
    qfw_val y = 0;
    if (weight->kind != VALUE_STORE || weight->shape.rank != 2)
        return err_fail("E_GRAPH_VALUE", QFW_E_INVALID,
            "linear: w is value %u, wanted a matrix that `param` gave", w);
    g->label = make_label(g, param);
    qfw_status status = g->label ? to_compute(g, x, &x) : QFW_E_NOMEM;
    if (status == QFW_OK) status = emit_product(g, x, w, &y);
    for (const lora *l = next_lora(g, param, -1); l && status == QFW_OK;
         l = next_lora(g, param, l->row0))
        status = emit_lora(g, l, x, &y);
    g->label = prefix;
    *out = status == QFW_OK ? y : 0;
    return status;
}

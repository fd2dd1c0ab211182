/* vjp.c -- the backward of a graph: one VJP per node, in reverse, gradients summed as they arrive.
 *
 * Gradients are kept per value of the forward. Under recomputation the forward nodes of a segment
 * are emitted a second time in front of its backward, and the VJPs read the clones; every op gives
 * the same bits for the same inputs (dropout is keyed by row, not drawn), so the gradients have the
 * same bits as without. Clones that no VJP reads are dropped with all other dead nodes by the plan.
 */
#include "graph/graph.h"

#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "qfw/ops_prim.h"

/* What is known of one value of the forward while the backward is built. */
typedef struct trail {
    uint8_t need;    /* a gradient through it reaches something asked for */
    uint8_t crosses; /* it is kept: something outside of its segment reads it, or it was chosen */
    qfw_val grad;    /* the sum of what has arrived so far; 0: nothing */
    qfw_val clone;   /* what stands for it in the backward; 0: itself */
    qfw_val views;   /* the first view of it, and of a view the next one of its base */
} trail;

typedef struct backward {
    graph *g;
    trail *of;       /* by value */
    size_t n_values; /* of the forward */
    size_t n_nodes;
} backward;

static qfw_val base_of(const graph *g, qfw_val v) {
    return g->values[v].kind == VALUE_VIEW ? g->values[v].base : v;
}

static int needed(const backward *b, qfw_val v) {
    return v && (b->of[v].need || b->of[base_of(b->g, v)].need);
}

/* A value is needed when it was asked for or when an op makes it from one that is. */
static void mark_needed(backward *b, const qfw_val *wrt, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) b->of[wrt[i]].need = 1;
    for (size_t k = 0; k < b->n_nodes; k++) {
        const graph_node *node = &b->g->nodes[k];
        int any = 0;
        for (uint32_t i = 0; i < QFW_MAX_IN; i++) any |= needed(b, node->in[i]);
        if (!any || !node->def->vjp) continue;
        for (uint32_t o = 0; o < QFW_MAX_OUT; o++)
            if (node->out[o] && !b->g->values[node->out[o]].no_grad) b->of[node->out[o]].need = 1;
    }
}

static void link_views(backward *b) {
    for (qfw_val v = (qfw_val)b->n_values; v > 0; v--) {
        if (b->g->values[v].kind != VALUE_VIEW) continue;
        trail *base = &b->of[b->g->values[v].base];
        b->of[v].views = base->views;
        base->views = v;
    }
}

static void mark_crossing(backward *b, qfw_val v, uint32_t segment) {
    const qfw_val base = v ? base_of(b->g, v) : 0;
    const graph_value *value = &b->g->values[base];
    if (!base || value->kind != VALUE_OP || b->g->nodes[value->node].segment == segment) return;
    b->of[base].crosses = 1;
}

/* Kept are the values that another segment reads, and those that are read after the run. */
static void mark_all_crossing(backward *b, qfw_val loss) {
    const graph *g = b->g;
    for (size_t k = 0; k < b->n_nodes; k++)
        for (uint32_t i = 0; i < QFW_MAX_IN; i++)
            mark_crossing(b, g->nodes[k].in[i], g->nodes[k].segment);
    mark_crossing(b, loss, UINT32_MAX);
    for (size_t k = 0; k < g->n_metrics; k++) {
        mark_crossing(b, g->metrics[k].value, UINT32_MAX);
        mark_crossing(b, g->metrics[k].weight, UINT32_MAX);
    }
    for (size_t k = 0; k < g->n_assigns; k++) mark_crossing(b, g->assigns[k].value, UINT32_MAX);
}

/* --- what a selective recomputation keeps --- */

static int is_product(const graph_node *node) {
    const uint32_t code = node->def->code;
    return code == QFW_OP_GEMM || code == QFW_OP_QMATMUL || code == QFW_OP_ATTN;
}

/* The only node of the segment that reads v; 0: none or several. Node 0 reads no node's output. */
static size_t only_reader(const backward *b, qfw_val v, size_t past) {
    size_t reader = 0;
    for (size_t k = b->g->values[v].node + 1; k < past; k++)
        for (uint32_t i = 0; i < QFW_MAX_IN; i++) {
            if (base_of(b->g, b->g->nodes[k].in[i]) != v) continue;
            if (reader) return 0;
            reader = k;
        }
    return reader;
}

/* The node that works on in the memory of v (an adapter's product, a rotation, a sum), so that to
 * keep what it makes is to keep v as well; 0: none. */
static size_t next_in_place(const backward *b, qfw_val v, size_t past) {
    const size_t k = only_reader(b, v, past);
    const graph_node *node = &b->g->nodes[k];
    for (uint32_t i = 0; k && i < 2; i++)
        if (node->def->inplace[0][i] && node->in[node->def->inplace[0][i] - 1] == v &&
            !memcmp(&b->g->values[v].shape, &b->g->values[node->out[0]].shape, sizeof(op_shape)))
            return k;
    return 0;
}

static uint64_t bytes_of(const graph *g, qfw_val v) {
    uint64_t n = qfw_dtype_bytes(g->values[v].shape.dtype);
    for (uint32_t i = 0; i < g->values[v].shape.rank; i++) n *= (uint64_t)g->values[v].shape.dim[i];
    return n;
}

/* What the product of node k becomes in place, in bytes; 0 where a border keeps it anyway. */
static uint64_t product_bytes(const backward *b, size_t k, size_t past) {
    qfw_val v = b->g->nodes[k].out[0];
    for (; k; k = next_in_place(b, v, past)) v = b->g->nodes[k].out[0];
    return b->of[v].crosses ? 0 : bytes_of(b->g, v);
}

/* The last value of the chain is kept, and what its nodes make beside it: none runs again. */
static void keep_product(backward *b, size_t k, size_t past) {
    qfw_val v = 0;
    for (; k; k = next_in_place(b, v, past)) {
        for (uint32_t o = 1; o < QFW_MAX_OUT; o++)
            if (b->g->nodes[k].out[o]) b->of[b->g->nodes[k].out[o]].crosses = 1;
        v = b->g->nodes[k].out[0];
    }
    b->of[v].crosses = 1;
}

/* Of a segment's products and attention all are kept but the largest, which frees the most memory
 * for its work: in a transformer that of gate and up. What is elementwise is made again. */
static void keep_products(backward *b) {
    for (size_t first = 0, past; first < b->n_nodes; first = past) {
        const uint32_t segment = b->g->nodes[first].segment;
        uint64_t most = 0;
        for (past = first; past < b->n_nodes && b->g->nodes[past].segment == segment; past++) {
        }
        for (size_t k = first; k < past; k++) {
            const uint64_t bytes = is_product(&b->g->nodes[k]) ? product_bytes(b, k, past) : 0;
            if (bytes > most) most = bytes;
        }
        for (size_t k = first; k < past; k++) {
            const uint64_t bytes = is_product(&b->g->nodes[k]) ? product_bytes(b, k, past) : 0;
            if (bytes && bytes < most) keep_product(b, k, past);
        }
    }
}

/* --- recomputation --- */

/* What the backward reads in place of v. */
static qfw_status stand_in(backward *b, qfw_val v, qfw_val *out) {
    *out = v;
    if (!v) return QFW_OK;
    if (b->of[v].clone) {
        *out = b->of[v].clone;
        return QFW_OK;
    }
    const graph_value window = b->g->values[v];
    if (window.kind != VALUE_VIEW || !b->of[window.base].clone) return QFW_OK;
    QFW_TRY(b->g->pub.api->view(&b->g->pub, b->of[window.base].clone, window.shape.rank,
        window.shape.dim, window.stride, window.offset, out));
    b->of[v].clone = *out;
    return QFW_OK;
}

static void enter(backward *b, const graph_node *node, uint32_t phase) {
    b->g->label = node->label;
    b->g->segment = node->segment;
    b->g->phase = phase;
}

static qfw_status replay_node(backward *b, size_t k) {
    const graph_node node = b->g->nodes[k];
    qfw_val in[QFW_MAX_IN] = {0}, out[QFW_MAX_OUT] = {0};
    uint8_t want[QFW_MAX_OUT] = {0};
    int lost = 0; /* an output that was not kept */
    for (uint32_t o = 0; o < node.def->n_out; o++) {
        want[o] = node.out[o] != 0;
        lost |= node.out[o] && !b->of[node.out[o]].crosses;
    }
    if (!lost) return QFW_OK;
    enter(b, &node, PHASE_RECOMPUTE);
    for (uint32_t i = 0; i < node.def->n_in; i++) QFW_TRY(stand_in(b, node.in[i], &in[i]));
    QFW_TRY(b->g->pub.api->op(&b->g->pub, node.def->code, in, node.def->n_in, node.params,
        node.def->param_bytes, want, out, node.def->n_out));
    for (uint32_t o = 0; o < node.def->n_out; o++)
        if (out[o] && !b->of[node.out[o]].crosses) b->of[node.out[o]].clone = out[o];
    return QFW_OK;
}

/* Emit the segment that ends with node `last` once more. */
static qfw_status replay(backward *b, size_t last) {
    const uint32_t segment = b->g->nodes[last].segment;
    size_t first = last;
    while (first > 0 && b->g->nodes[first - 1].segment == segment) first--;
    for (size_t k = first; k <= last; k++) QFW_TRY(replay_node(b, k));
    return QFW_OK;
}

/* --- gradients --- */

static qfw_status add_gradient(backward *b, qfw_val v, qfw_val d) {
    trail *t = &b->of[v];
    if (t->grad) return qfw_binary(&b->g->pub, QFW_ADD, t->grad, d, &t->grad);
    t->grad = d;
    return QFW_OK;
}

/* The gradient of view v, in the shape of its base. */
static qfw_status unview(backward *b, qfw_val v, qfw_val *out) {
    const graph_value window = b->g->values[v];
    const op_shape whole = b->g->values[window.base].shape;
    qfw_unview_params p = {.size = sizeof p, .rank = whole.rank, .offset = window.offset};
    memcpy(p.dim, whole.dim, sizeof p.dim);
    memcpy(p.stride, window.stride, sizeof p.stride);
    return b->g->pub.api->op(
        &b->g->pub, QFW_OP_UNVIEW, &b->of[v].grad, 1, &p, sizeof p, NULL, out, 1);
}

/* The whole gradient of v, once all who read it or a view of it have been visited. */
static qfw_status total_gradient(backward *b, qfw_val v, qfw_val *out) {
    if (b->g->values[v].kind != VALUE_VIEW) {
        for (qfw_val w = b->of[v].views; w; w = b->of[w].views) {
            qfw_val d = 0;
            if (!b->of[w].grad) continue;
            QFW_TRY(unview(b, w, &d));
            QFW_TRY(add_gradient(b, v, d));
        }
        b->of[v].views = 0;
    }
    *out = b->of[v].grad;
    return QFW_OK;
}

/* The VJP's operands as the node has them, and what has arrived at each input. A value that is read
 * twice hands over its sum once. */
static qfw_status call_vjp(backward *b, const graph_node *node, const qfw_val *dout, qfw_val *din) {
    qfw_val in[QFW_MAX_IN] = {0}, out[QFW_MAX_OUT] = {0}, acc[QFW_MAX_IN] = {0};
    uint8_t need[QFW_MAX_IN] = {0};
    for (uint32_t i = 0; i < node->def->n_in; i++) {
        const qfw_val v = node->in[i];
        int again = 0;
        QFW_TRY(stand_in(b, v, &in[i]));
        need[i] = (uint8_t)needed(b, v);
        for (uint32_t k = 0; k < i; k++) again |= need[k] && node->in[k] == v;
        if (need[i] && !again) acc[i] = b->of[v].grad;
    }
    for (uint32_t o = 0; o < node->def->n_out; o++) QFW_TRY(stand_in(b, node->out[o], &out[o]));
    qfw_val given[QFW_MAX_IN];
    memcpy(given, acc, sizeof given);
    op_vjp call = {&b->g->pub, node->params, in, out, dout, need, din, acc};
    QFW_TRY(node->def->vjp(&call));
    for (uint32_t i = 0; i < node->def->n_in; i++)
        if (need[i] && given[i] && !acc[i]) b->of[node->in[i]].grad = 0; /* it is inside din[i] */
    return QFW_OK;
}

/* The gradient of a value of 16 bits has 16 bits, whatever what reads the value computes in. */
static qfw_status in_its_dtype(backward *b, qfw_val v, qfw_val *d) {
    const uint32_t dtype = b->g->values[v].shape.dtype;
    const qfw_copy_params p = {sizeof p, dtype};
    const qfw_val wide = *d;
    if ((dtype != QFW_BF16 && dtype != QFW_F16) || b->g->values[wide].shape.dtype != QFW_F32 ||
        b->g->values[v].kind == VALUE_STORE)
        return QFW_OK;
    return b->g->pub.api->op(&b->g->pub, QFW_OP_COPY, &wide, 1, &p, sizeof p, NULL, d, 1);
}

static qfw_status visit(backward *b, size_t k) {
    const graph_node node = b->g->nodes[k];
    qfw_val dout[QFW_MAX_OUT] = {0}, din[QFW_MAX_IN] = {0};
    int arrives = 0;
    if (!node.def->vjp) return QFW_OK;
    enter(b, &node, PHASE_BACKWARD);
    for (uint32_t o = 0; o < node.def->n_out; o++) {
        if (!node.out[o] || !b->of[node.out[o]].need) continue;
        QFW_TRY(total_gradient(b, node.out[o], &dout[o]));
        arrives |= dout[o] != 0;
    }
    if (!arrives) return QFW_OK;
    QFW_TRY(call_vjp(b, &node, dout, din));
    for (uint32_t i = 0; i < node.def->n_in; i++) {
        if (!din[i] || !needed(b, node.in[i])) continue;
        QFW_TRY(in_its_dtype(b, node.in[i], &din[i]));
        QFW_TRY(add_gradient(b, node.in[i], din[i]));
    }
    return QFW_OK;
}

static qfw_status seed_loss(backward *b, qfw_val loss) {
    const op_shape *s = &b->g->values[loss].shape;
    qfw_fill_params p = {
        .size = sizeof p, .dtype = s->dtype, .rank = s->rank, .dim = {1, 1, 1, 1}, .value = 1};
    if (!b->of[loss].need) return QFW_OK;
    return b->g->pub.api->op(
        &b->g->pub, QFW_OP_FILL, NULL, 0, &p, sizeof p, NULL, &b->of[loss].grad, 1);
}

static qfw_status walk(backward *b, qfw_val loss, uint32_t recompute) {
    const uint32_t last = b->n_nodes ? b->g->nodes[b->n_nodes - 1].segment : 0;
    uint32_t segment = last;
    if (b->n_nodes) enter(b, &b->g->nodes[b->n_nodes - 1], PHASE_BACKWARD);
    QFW_TRY(seed_loss(b, loss));
    for (size_t k = b->n_nodes; k-- > 0;) {
        const uint32_t now = b->g->nodes[k].segment;
        if (recompute && now != segment) QFW_TRY(replay(b, k));
        segment = now;
        QFW_TRY(visit(b, k));
    }
    return QFW_OK;
}

static qfw_status check_arguments(const graph *g, qfw_val loss, const qfw_val *wrt, uint32_t n) {
    int64_t count = 1;
    for (uint32_t i = 0; i < n; i++)
        if (!wrt[i] || wrt[i] > g->n_values)
            return err_fail("E_INTERNAL", QFW_E_INVALID, "backward: there is no value %u", wrt[i]);
    if (!loss || loss > g->n_values)
        return err_fail("E_INTERNAL", QFW_E_INVALID, "backward: there is no loss %u", loss);
    const op_shape *s = &g->values[loss].shape;
    for (uint32_t i = 0; i < s->rank; i++) count *= s->dim[i];
    if (count == 1 && (s->dtype == QFW_F32 || s->dtype == QFW_F64)) return QFW_OK;
    return err_fail("E_GRAPH_SHAPE", QFW_E_SHAPE,
        "backward: the loss is %s of %lld values, "
        "wanted one f32",
        qfw_dtype_name(s->dtype), (long long)count);
}

qfw_status graph_backward(
    graph *g, qfw_val loss, const qfw_val *wrt, uint32_t n, uint32_t recompute, qfw_val *grads) {
    memset(grads, 0, n * sizeof *grads);
    QFW_TRY(check_arguments(g, loss, wrt, n));
    backward b = {.g = g, .n_values = g->n_values, .n_nodes = g->n_nodes};
    const uint32_t segment = g->segment;
    b.of = mem_alloc(b.n_values + 1, sizeof *b.of);
    if (!b.of) return QFW_E_NOMEM;
    mark_needed(&b, wrt, n);
    link_views(&b);
    mark_all_crossing(&b, loss);
    if (recompute == RECOMPUTE_SELECTIVE) keep_products(&b);
    qfw_status status = walk(&b, loss, recompute);
    for (uint32_t i = 0; i < n && status == QFW_OK; i++)
        status = total_gradient(&b, wrt[i], &grads[i]);
    if (status != QFW_OK) memset(grads, 0, n * sizeof *grads);
    mem_free(b.of);
    g->segment = segment;
    g->label = NULL;
    g->phase = PHASE_UPDATE;
    return status;
}

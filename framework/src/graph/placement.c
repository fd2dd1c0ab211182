/* placement.c -- the caller's graph rewritten for one device.
 *
 * Nodes are copied in order: as they are where the device takes them (behind a COPY of each operand
 * whose rows it wants dense), else as the ops that they decompose into if it takes all of those,
 * else for the reference kernel. The caller's values keep their numbers: what a decomposition makes
 * is renamed to the value it stands for.
 */
#include "graph/program.h"

#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "qfw/ops_prim.h"

typedef struct rewrite {
    const graph *from;
    plan *p;
    plan_steps *s;
    graph *to; /* s->g */
    const device *dev;
    uint32_t *seen; /* per value: the last search that reached it */
    size_t cap_seen;
    uint32_t search;
} rewrite;

typedef struct mark { /* a point to go back to */
    size_t n_nodes, n_values;
} mark;

static mark here(const rewrite *r) { return (mark){r->to->n_nodes, r->to->n_values}; }

static void go_back(rewrite *r, mark m) {
    r->to->n_nodes = m.n_nodes;
    r->to->n_values = m.n_values;
}

/* --- what is alive --- */

static qfw_status begin_search(rewrite *r) {
    if (mem_grow(&r->seen, &r->cap_seen, r->to->n_values + 1, sizeof *r->seen)) return QFW_E_NOMEM;
    r->search++;
    return QFW_OK;
}

static void reach(rewrite *r, const graph *g, qfw_val v) {
    if (v) r->seen[plan_base(g, v)] = r->search;
}

static int reached(const rewrite *r, qfw_val v) { return v && r->seen[v] == r->search; }

/* Whether anything that the node makes was reached; then what it reads is, too. */
static int visit(rewrite *r, const graph *g, const graph_node *node) {
    int alive = 0;
    for (uint32_t o = 0; o < node->def->n_out; o++) alive |= reached(r, node->out[o]);
    for (uint32_t i = 0; alive && i < node->def->n_in; i++) reach(r, g, node->in[i]);
    return alive;
}

/* Drop the nodes from `first` on that nothing reached needs. */
static void sweep(rewrite *r, size_t first) {
    graph *g = r->to;
    size_t kept = first;
    for (size_t k = g->n_nodes; k-- > first;)
        if (!visit(r, g, &g->nodes[k])) g->nodes[k].def = NULL;
    for (size_t k = first; k < g->n_nodes; k++) {
        if (!g->nodes[k].def) continue;
        g->nodes[kept] = g->nodes[k];
        if (k < r->s->cap_placement) r->s->placement[kept] = r->s->placement[k];
        for (uint32_t o = 0; o < QFW_MAX_OUT; o++)
            if (g->nodes[kept].out[o]) g->values[g->nodes[kept].out[o]].node = (uint32_t)kept;
        kept++;
    }
    g->n_nodes = kept;
}

/* --- asking the device --- */

qfw_tensor plan_tensor(const graph *g, qfw_val v) {
    const graph_value *value = &g->values[v];
    qfw_tensor t = {
        .size = sizeof t, .dtype = value->shape.dtype, .rank = value->shape.rank, .id = v};
    memcpy(t.dim, value->shape.dim, sizeof t.dim);
    memcpy(t.stride, value->stride, sizeof t.stride);
    if (value->kind == VALUE_STORE && value->entry->t.quant) t.quant = &value->entry->quant;
    return t;
}

qfw_op plan_op(const graph *g, const graph_node *node, qfw_tensor *tensor) {
    qfw_op op = {.size = sizeof op,
        .code = node->def->code,
        .n_in = node->def->n_in,
        .n_out = node->def->n_out,
        .param_bytes = node->def->param_bytes,
        .params = node->params,
        .label = node->label ? node->label : ""};
    for (uint32_t i = 0; i < op.n_in; i++) {
        if (!node->in[i]) continue;
        tensor[i] = plan_tensor(g, node->in[i]);
        op.in[i] = &tensor[i];
    }
    for (uint32_t o = 0; o < op.n_out; o++) {
        if (!node->out[o]) continue;
        tensor[QFW_MAX_IN + o] = plan_tensor(g, node->out[o]);
        op.out[o] = &tensor[QFW_MAX_IN + o];
    }
    return op;
}

static uint32_t support(const rewrite *r, const graph_node *node) {
    qfw_tensor tensor[QFW_MAX_IN + QFW_MAX_OUT];
    if (!QFW_HAS(r->dev->be, qfw_backend, supports) || !QFW_HAS(r->dev->be, qfw_backend, run))
        return QFW_SUPPORT_NO;
    const qfw_op op = plan_op(r->to, node, tensor);
    const uint32_t answer = r->dev->be->supports(r->dev->inst, &op);
    return (answer & QFW_SUPPORT_LEVEL) == QFW_SUPPORT_NATIVE ? answer : QFW_SUPPORT_NO;
}

static qfw_status push(rewrite *r, const graph_node *node, uint32_t place) {
    graph *g = r->to;
    if (mem_grow(&g->nodes, &g->cap_nodes, g->n_nodes + 1, sizeof *g->nodes)) return QFW_E_NOMEM;
    if (mem_grow(&r->s->placement, &r->s->cap_placement, g->n_nodes + 1, 1)) return QFW_E_NOMEM;
    for (uint32_t o = 0; o < QFW_MAX_OUT; o++)
        if (node->out[o]) g->values[node->out[o]].node = (uint32_t)g->n_nodes;
    r->s->placement[g->n_nodes] = (uint8_t)place;
    g->nodes[g->n_nodes++] = *node;
    return QFW_OK;
}

static void enter(rewrite *r, const graph_node *node) {
    r->to->label = node->label;
    r->to->segment = node->segment;
    r->to->phase = node->phase;
}

/* y = a dense copy of v, right here; the caller says where it runs. */
static qfw_status emit_copy(rewrite *r, qfw_val v, qfw_val *y) {
    const qfw_copy_params p = {sizeof p, r->to->values[v].shape.dtype};
    return r->to->pub.api->op(&r->to->pub, QFW_OP_COPY, &v, 1, &p, sizeof p, NULL, y, 1);
}

/* The node just emitted is the graph's last: push it again, placed. */
static qfw_status place_last(rewrite *r, uint32_t place) {
    const graph_node node = r->to->nodes[--r->to->n_nodes];
    return push(r, &node, place);
}

static int has_dense_rows(const graph_value *v) {
    const uint32_t last = v->shape.rank - 1;
    return v->shape.rank == 0 || v->shape.dim[last] == 1 || v->stride[last] == 1;
}

/* Push the node if the device takes it; *done = 0 and nothing changed if it does not. */
static qfw_status try_native(rewrite *r, const graph_node *wanted, uint32_t place, int *done) {
    graph_node node = *wanted;
    const mark before = here(r);
    uint32_t answer = support(r, &node);
    *done = 0;
    if (answer & QFW_SUPPORT_DENSE_ROWS) {
        enter(r, &node);
        for (uint32_t i = 0; i < node.def->n_in; i++) {
            if (!node.in[i] || has_dense_rows(&r->to->values[node.in[i]])) continue;
            QFW_TRY(emit_copy(r, node.in[i], &node.in[i]));
            QFW_TRY(place_last(r, place));
            if (support(r, &r->to->nodes[r->to->n_nodes - 1]) != QFW_SUPPORT_NATIVE) {
                go_back(r, before);
                return QFW_OK;
            }
        }
        answer = support(r, &node);
    }
    if ((answer & QFW_SUPPORT_LEVEL) != QFW_SUPPORT_NATIVE) {
        go_back(r, before);
        return QFW_OK;
    }
    *done = 1;
    return push(r, &node, place);
}

/* --- decompositions --- */

/* `now` stands for `before` in the nodes from `first` on and in the views made since. */
static void rename_value(rewrite *r, mark since, qfw_val before, qfw_val now) {
    graph *g = r->to;
    for (size_t k = since.n_nodes; k < g->n_nodes; k++) {
        graph_node *node = &g->nodes[k];
        for (uint32_t i = 0; i < QFW_MAX_IN; i++)
            if (node->in[i] == before) node->in[i] = now;
        for (uint32_t o = 0; o < QFW_MAX_OUT; o++) {
            if (node->out[o] != before) continue;
            node->out[o] = now;
            g->values[now].node = (uint32_t)k;
        }
    }
    for (size_t v = since.n_values + 1; v <= g->n_values; v++)
        if (g->values[v].kind == VALUE_VIEW && g->values[v].base == before) g->values[v].base = now;
    g->values[before].kind = 0;
}

static qfw_status check_result(const rewrite *r, uint32_t o, qfw_val made, qfw_val wanted) {
    const graph_value *const values = r->to->values;
    if (made && values[made].shape.dtype == values[wanted].shape.dtype &&
        plan_bytes(&values[made]) == plan_bytes(&values[wanted]))
        return QFW_OK;
    return err_fail(
        "E_INTERNAL", QFW_E_INTERNAL, "output %u is %s", o, made ? "of another shape" : "not made");
}

/* Make result[o] something that can be renamed: made here, by an op, for this output alone. */
static qfw_status own_result(rewrite *r, mark since, uint32_t o, qfw_val *result) {
    int shared = result[o] <= since.n_values || r->to->values[result[o]].kind != VALUE_OP;
    for (uint32_t k = 0; k < o; k++) shared |= result[k] == result[o];
    return shared ? emit_copy(r, result[o], &result[o]) : QFW_OK;
}

/* Take the emitted nodes out again and push those that are needed, all native or none. */
static qfw_status push_emitted(rewrite *r, mark since, const qfw_val *result, int *done) {
    QFW_TRY(begin_search(r));
    for (uint32_t o = 0; o < QFW_MAX_OUT; o++) reach(r, r->to, result[o]);
    sweep(r, since.n_nodes);
    const size_t n = r->to->n_nodes - since.n_nodes;
    graph_node *emitted = mem_alloc(n, sizeof *emitted);
    if (!emitted) return QFW_E_NOMEM;
    memcpy(emitted, r->to->nodes + since.n_nodes, n * sizeof *emitted);
    r->to->n_nodes = since.n_nodes;
    qfw_status status = QFW_OK;
    *done = 1;
    for (size_t k = 0; k < n && *done && status == QFW_OK; k++)
        status = try_native(r, &emitted[k], PLACE_DECOMPOSED, done);
    mem_free(emitted);
    return status;
}

static qfw_status try_decompose(rewrite *r, const graph_node *node, int *done) {
    qfw_val in[QFW_MAX_IN], result[QFW_MAX_OUT] = {0};
    uint8_t want[QFW_MAX_OUT] = {0};
    const mark before = here(r);
    *done = 0;
    if (!node->def->decompose || !QFW_HAS(r->dev->be, qfw_backend, supports)) return QFW_OK;
    memcpy(in, node->in, sizeof in);
    for (uint32_t o = 0; o < node->def->n_out; o++) want[o] = node->out[o] != 0;
    enter(r, node);
    op_decompose d = {&r->to->pub, node->params, in, want, result};
    qfw_status status = node->def->decompose(&d);
    for (uint32_t o = 0; o < node->def->n_out && status == QFW_OK; o++) {
        if (!want[o]) result[o] = 0;
        if (want[o]) status = check_result(r, o, result[o], node->out[o]);
        if (want[o] && status == QFW_OK) status = own_result(r, before, o, result);
    }
    if (status == QFW_OK) status = push_emitted(r, before, result, done);
    if (status != QFW_OK) {
        err_prefix("%s: decomposition of %s", node->label ? node->label : "graph", node->def->name);
        return status;
    }
    if (!*done) go_back(r, before);
    for (uint32_t o = 0; *done && o < node->def->n_out; o++)
        if (want[o]) rename_value(r, before, result[o], node->out[o]);
    return QFW_OK;
}

/* --- the whole graph --- */

static qfw_status place_node(rewrite *r, const graph_node *node) {
    plan_placement *count = &r->p->placement[node->def->code];
    int done;
    count->op = node->def->name;
    QFW_TRY(try_native(r, node, PLACE_NATIVE, &done));
    if (done) {
        count->native++;
        r->p->n_native++;
        return QFW_OK;
    }
    QFW_TRY(try_decompose(r, node, &done));
    if (done) {
        count->decomposed++;
        r->p->n_decomposed++;
        return QFW_OK;
    }
    if (!node->def->ref)
        return err_fail("E_UNSUPPORTED", QFW_E_UNSUPPORTED,
            "%s: %s cannot run %s, and there is no reference kernel",
            node->label ? node->label : "graph", r->dev->name, node->def->name);
    count->reference++;
    r->p->n_reference++;
    return push(r, node, PLACE_REFERENCE);
}

/* Optional outputs that nobody reads are not asked for, where the op can do without. */
static void drop_outputs(rewrite *r, graph_node *node) {
    const op_shape *in[QFW_MAX_IN] = {NULL};
    op_shape out[QFW_MAX_OUT];
    uint8_t want[QFW_MAX_OUT] = {0};
    int fewer = 0;
    for (uint32_t i = 0; i < node->def->n_in; i++)
        if (node->in[i]) in[i] = &r->from->values[node->in[i]].shape;
    for (uint32_t o = 0; o < node->def->n_out; o++) {
        want[o] = node->out[o] && (reached(r, node->out[o]) || !node->def->out_optional[o]);
        fewer |= node->out[o] && !want[o];
    }
    if (!fewer) return;
    if (op_infer_shapes(node->def->code, in, node->def->n_in, node->params, node->def->param_bytes,
            want, out, node->def->n_out) != QFW_OK) {
        err_clear();
        return;
    }
    for (uint32_t o = 0; o < node->def->n_out; o++)
        if (!want[o]) node->out[o] = 0;
}

/* The nodes that lead to something read, in their order, without outputs that nobody reads. */
static qfw_status live_nodes(
    rewrite *r, const qfw_val *keep, uint32_t n_keep, graph_node **out, size_t *n) {
    const graph *g = r->from;
    QFW_TRY(begin_search(r));
    for (uint32_t i = 0; i < n_keep; i++) reach(r, g, keep[i]);
    for (size_t i = 0; i < g->n_metrics; i++) {
        reach(r, g, g->metrics[i].value);
        reach(r, g, g->metrics[i].weight);
    }
    for (size_t i = 0; i < g->n_assigns; i++) reach(r, g, g->assigns[i].value);
    graph_node *nodes = *out = mem_alloc(g->n_nodes, sizeof *nodes);
    if (!nodes) return QFW_E_NOMEM;
    for (size_t k = g->n_nodes; k-- > 0;) {
        if (!visit(r, g, &g->nodes[k])) continue;
        nodes[g->n_nodes - ++*n] = g->nodes[k];
        drop_outputs(r, &nodes[g->n_nodes - *n]);
    }
    memmove(nodes, nodes + g->n_nodes - *n, *n * sizeof *nodes);
    return QFW_OK;
}

static int is_assigned(const graph *g, const graph_node *node) {
    for (size_t i = 0; i < g->n_assigns; i++)
        for (uint32_t o = 0; o < node->def->n_out; o++)
            if (node->out[o] && node->out[o] == g->assigns[i].value) return 1;
    return 0;
}

/* Where node k goes: to its own place, or behind the last node that makes something it reads. */
static size_t place_of(const graph *g, const graph_node *nodes, size_t k, const size_t *maker) {
    size_t last = 0;
    if (nodes[k].phase != PHASE_UPDATE || !is_assigned(g, &nodes[k])) return k;
    for (uint32_t i = 0; i < nodes[k].def->n_in; i++) {
        const size_t made = nodes[k].in[i] ? maker[plan_base(g, nodes[k].in[i])] : 0;
        if (last < made) last = made;
    }
    return last ? last - 1 : k;
}

/* What follows the backward and gives a state its value moves up to where it can run: a gradient
 * that is added to its sum at once needs no memory until the end. A counting sort by the new place,
 * which keeps the order of those that share one. */
static qfw_status hoist_updates(const graph *g, graph_node *nodes, size_t n) {
    size_t *maker = mem_alloc(g->n_values + 1, sizeof *maker); /* of a value: 1 + its node */
    size_t *place = mem_alloc(n, sizeof *place), *start = mem_alloc(n + 1, sizeof *start);
    graph_node *old = mem_alloc(n, sizeof *old);
    const qfw_status status = maker && place && start && old ? QFW_OK : QFW_E_NOMEM;
    for (size_t k = 0; k < n && status == QFW_OK; k++) {
        old[k] = nodes[k];
        place[k] = place_of(g, nodes, k, maker);
        start[place[k] + 1]++;
        for (uint32_t o = 0; o < nodes[k].def->n_out; o++) maker[nodes[k].out[o]] = k + 1;
        maker[0] = 0;
    }
    for (size_t k = 0; k < n && status == QFW_OK; k++) start[k + 1] += start[k];
    for (size_t k = 0; k < n && status == QFW_OK; k++) nodes[start[place[k]]++] = old[k];
    mem_free(maker);
    mem_free(place);
    mem_free(start);
    mem_free(old);
    return status;
}

static qfw_status copy_values(rewrite *r) {
    graph *to = r->to;
    const size_t n = r->from->n_values;
    if (mem_grow(&to->values, &to->cap_values, n + 1, sizeof *to->values)) return QFW_E_NOMEM;
    memcpy(to->values, r->from->values, (n + 1) * sizeof *to->values);
    to->n_values = n;
    return QFW_OK;
}

/* y = a dense copy of v after everything else. */
static qfw_status copy_at_end(rewrite *r, qfw_val v, qfw_val *y) {
    r->to->phase = PHASE_UPDATE;
    r->to->label = "end";
    QFW_TRY(emit_copy(r, v, y));
    const graph_node node = r->to->nodes[--r->to->n_nodes];
    return place_node(r, &node);
}

static qfw_status add_root(rewrite *r, qfw_val v) {
    plan_steps *s = r->s;
    if (!v) return QFW_OK;
    if (mem_grow(&s->roots, &s->cap_roots, s->n_roots + 1, sizeof *s->roots)) return QFW_E_NOMEM;
    plan_root *root = &s->roots[s->n_roots++];
    *root = (plan_root){v, v};
    return r->to->values[v].kind == VALUE_VIEW ? copy_at_end(r, v, &root->value) : QFW_OK;
}

static qfw_status add_roots(rewrite *r, const qfw_val *keep, uint32_t n_keep) {
    for (uint32_t i = 0; i < n_keep; i++) QFW_TRY(add_root(r, keep[i]));
    for (size_t i = 0; i < r->from->n_metrics; i++) {
        QFW_TRY(add_root(r, r->from->metrics[i].value));
        QFW_TRY(add_root(r, r->from->metrics[i].weight));
    }
    return QFW_OK;
}

/* --- assignments --- */

/* Whether `value` may be made in the memory of `state`: all who read the old state have run before,
 * or the op that makes it may do so in place. */
static int can_land(const rewrite *r, qfw_val state, qfw_val value) {
    const graph *g = r->to;
    const graph_value *v = &g->values[value];
    if (r->s->values[value].lands) return 0;
    for (size_t k = v->node; k < g->n_nodes; k++) {
        const graph_node *node = &g->nodes[k];
        for (uint32_t i = 0; i < node->def->n_in; i++) {
            if (!node->in[i] || plan_base(g, node->in[i]) != state) continue;
            const uint8_t *may = node->def->inplace[v->out];
            if (k != v->node || node->in[i] != state || (may[0] != i + 1 && may[1] != i + 1))
                return 0;
        }
    }
    return 1;
}

static qfw_status grow_values(rewrite *r) {
    return mem_grow(&r->s->values, &r->s->cap_values, r->to->n_values + 1, sizeof *r->s->values)
               ? QFW_E_NOMEM
               : QFW_OK;
}

/* Make every assigned value in its state's memory; where that would be too early, a copy of it at
 * the end. */
static qfw_status land_all(rewrite *r, qfw_val *value) {
    for (size_t i = 0; i < r->from->n_assigns; i++) {
        const qfw_val state = r->from->assigns[i].state;
        QFW_TRY(grow_values(r));
        if (!can_land(r, state, value[i])) QFW_TRY(copy_at_end(r, value[i], &value[i]));
        QFW_TRY(grow_values(r));
        r->s->values[value[i]].lands = r->to->values[state].entry;
    }
    return QFW_OK;
}

/* What no op makes (a state, an input, a window) is copied first, before any state is written. */
static qfw_status own_assigned(rewrite *r, qfw_val *value) {
    for (size_t i = 0; i < r->from->n_assigns; i++) {
        value[i] = r->from->assigns[i].value;
        if (r->to->values[value[i]].kind != VALUE_OP) QFW_TRY(copy_at_end(r, value[i], &value[i]));
    }
    return QFW_OK;
}

/* Decompositions may have left without a reader what was made for the op that they replace. */
static qfw_status sweep_all(rewrite *r, const qfw_val *assigned) {
    QFW_TRY(begin_search(r));
    for (size_t i = 0; i < r->s->n_roots; i++) reach(r, r->to, r->s->roots[i].value);
    for (size_t i = 0; i < r->from->n_assigns; i++) reach(r, r->to, assigned[i]);
    sweep(r, 0);
    return QFW_OK;
}

static qfw_status place_assigns(rewrite *r) {
    qfw_val *value = mem_alloc(r->from->n_assigns, sizeof *value);
    if (!value) return QFW_E_NOMEM;
    qfw_status status = own_assigned(r, value);
    if (status == QFW_OK) status = sweep_all(r, value);
    if (status == QFW_OK) status = land_all(r, value);
    if (status == QFW_OK) status = grow_values(r);
    mem_free(value);
    return status;
}

static qfw_status place_nodes(rewrite *r, const qfw_val *keep, uint32_t n_keep) {
    graph_node *nodes = NULL;
    size_t n = 0;
    QFW_TRY(copy_values(r));
    qfw_status status = live_nodes(r, keep, n_keep, &nodes, &n);
    if (status == QFW_OK) status = hoist_updates(r->from, nodes, n);
    for (size_t k = 0; k < n && status == QFW_OK; k++) status = place_node(r, &nodes[k]);
    mem_free(nodes);
    return status;
}

qfw_status plan_rewrite(plan *p, const device *dev, const qfw_val *keep, uint32_t n_keep) {
    rewrite r = {.from = p->g, .p = p, .s = p->steps, .dev = dev};
    QFW_TRY(graph_create(p->g->env, &r.s->g));
    r.to = r.s->g;
    qfw_status status = place_nodes(&r, keep, n_keep);
    if (status == QFW_OK) status = add_roots(&r, keep, n_keep);
    if (status == QFW_OK) status = place_assigns(&r);
    mem_free(r.seen);
    return status;
}

/* graph.c -- values and nodes as they are emitted, and the service through which plugins emit them.
 *
 * Every shape is inferred and checked here, once for all backends; what a refused call had begun is
 * not in the graph.
 */
#include "graph/graph.h"

#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "graph/attention.h"
#include "graph/linear.h"
#include "ops/check.h"

static graph *graph_of(qfw_graph *g) { return (graph *)(void *)g; }

/* --- what lives as long as the graph --- */

typedef struct keep_block {
    struct keep_block *next;
    size_t used, cap;
    _Alignas(16) char data[];
} keep_block;
enum { KEEP_BYTES = 16 << 10 };

void *graph_keep(graph *g, const void *data, size_t n) {
    keep_block *b = g->strings;
    const size_t room = (n + 15) / 16 * 16;
    if (!b || room > b->cap - b->used) {
        const size_t cap = room > KEEP_BYTES ? room : KEEP_BYTES;
        b = mem_alloc(1, sizeof *b + cap);
        if (!b) return NULL;
        b->next = g->strings;
        b->cap = cap;
        g->strings = b;
    }
    void *copy = b->data + b->used;
    b->used += room;
    if (n) memcpy(copy, data, n);
    return copy;
}

static const char *keep_text(graph *g, const char *text) {
    return graph_keep(g, text, strlen(text) + 1);
}

/* --- values --- */

static qfw_status new_value(graph *g, const graph_value *v, qfw_val *out) {
    if (mem_grow(&g->values, &g->cap_values, g->n_values + 2, sizeof *g->values))
        return QFW_E_NOMEM;
    *out = (qfw_val)++g->n_values;
    g->values[*out] = *v;
    return QFW_OK;
}

static void dense_strides(const op_shape *s, int64_t *stride) {
    int64_t step = 1;
    for (uint32_t i = QFW_MAX_DIMS; i-- > 0;) {
        stride[i] = step;
        if (i < s->rank) step *= s->dim[i];
    }
}

static qfw_status make_shape(const char *call, const char *name, uint32_t dtype, uint32_t rank,
    const int64_t *dim, op_shape *out) {
    int64_t n = 1;
    if (rank > QFW_MAX_DIMS)
        return err_fail("E_GRAPH_SHAPE", QFW_E_SHAPE, "%s: '%s' has rank %u, at most %d is allowed",
            call, name, rank, QFW_MAX_DIMS);
    *out = (op_shape){dtype, rank, {1, 1, 1, 1}};
    for (uint32_t i = 0; i < rank; i++) {
        out->dim[i] = dim[i];
        if (dim[i] < 0 || (dim[i] && n > INT64_MAX / 64 / dim[i]))
            return err_fail("E_GRAPH_SHAPE", QFW_E_SHAPE, "%s: dimension %u of '%s' is %lld", call,
                i, name, (long long)dim[i]);
        n *= dim[i];
    }
    return QFW_OK;
}

static qfw_status check_value(
    const graph *g, const char *call, const char *what, qfw_val v, int may_be_absent) {
    if (v <= g->n_values && (v || may_be_absent)) return QFW_OK;
    return err_fail("E_GRAPH_VALUE", QFW_E_INVALID, "%s: %s is value %u, the graph has 1 .. %zu",
        call, what, v, g->n_values);
}

/* The value of this kind and name; 0: none. */
static qfw_val find_named(const graph *g, uint32_t kind, const char *name) {
    for (qfw_val v = 1; v <= g->n_values; v++)
        if (g->values[v].kind == kind && !strcmp(g->values[v].name, name)) return v;
    return 0;
}

static int same_shape(const op_shape *a, const op_shape *b) {
    return a->dtype == b->dtype && a->rank == b->rank && !memcmp(a->dim, b->dim, sizeof a->dim);
}

static qfw_status shape_conflict(
    const char *call, const char *name, const op_shape *now, const op_shape *before) {
    char found[SHAPE_TEXT], wanted[SHAPE_TEXT];
    return err_fail("E_GRAPH_SHAPE", QFW_E_SHAPE, "%s: '%s' is %s %s, but was %s %s before", call,
        name, qfw_dtype_name(now->dtype), shape_text(now->rank, now->dim, found),
        qfw_dtype_name(before->dtype), shape_text(before->rank, before->dim, wanted));
}

static qfw_status api_input(qfw_graph *pub, const char *name, uint32_t dtype, uint32_t rank,
    const int64_t *dim, qfw_val *out) {
    graph *g = graph_of(pub);
    graph_value v = {.kind = VALUE_INPUT, .no_grad = 1};
    *out = 0;
    QFW_TRY(make_shape("input", name, dtype, rank, dim, &v.shape));
    if (!qfw_dtype_bytes(dtype))
        return err_fail("E_GRAPH_SHAPE", QFW_E_DTYPE, "input: '%s' is %s, which no input can be",
            name, qfw_dtype_name(dtype));
    const qfw_val before = find_named(g, VALUE_INPUT, name);
    if (before) {
        if (!same_shape(&v.shape, &g->values[before].shape))
            return shape_conflict("input", name, &v.shape, &g->values[before].shape);
        *out = before;
        return QFW_OK;
    }
    dense_strides(&v.shape, v.stride);
    v.name = keep_text(g, name);
    return v.name ? new_value(g, &v, out) : QFW_E_NOMEM;
}

qfw_status graph_store_value(graph *g, store_entry *e, qfw_val *out) {
    graph_value v = {.kind = VALUE_STORE, .entry = e, .name = e->name};
    for (*out = 1; *out <= g->n_values; ++*out)
        if (g->values[*out].entry == e) return QFW_OK;
    v.shape = (op_shape){e->t.dtype, e->t.rank, {1, 1, 1, 1}};
    memcpy(v.shape.dim, e->t.dim, sizeof v.shape.dim);
    dense_strides(&v.shape, v.stride);
    v.no_grad = e->t.quant != NULL;
    *out = 0;
    return new_value(g, &v, out);
}

static qfw_status api_param(qfw_graph *pub, const char *name, qfw_val *out) {
    graph *g = graph_of(pub);
    *out = 0;
    store_entry *e = g->env->param ? g->env->param(g->env->arg, name) : NULL;
    if (e) return graph_store_value(g, e, out);
    return err_fail("E_GRAPH_PARAM", QFW_E_INVALID,
        "param: '%s' is not a parameter that the model describes", name);
}

static qfw_status api_state(qfw_graph *pub, const char *name, uint32_t dtype, uint32_t rank,
    const int64_t *dim, qfw_val *out) {
    graph *g = graph_of(pub);
    op_shape shape;
    *out = 0;
    QFW_TRY(make_shape("state", name, dtype, rank, dim, &shape));
    store_entry *e = store_find(g->env->store, name);
    if (!e) QFW_TRY(store_add(g->env->store, name, QFW_MEM_RUN, dtype, rank, dim, 0, 0, &e));
    op_shape before = {e->t.dtype, e->t.rank, {1, 1, 1, 1}};
    memcpy(before.dim, e->t.dim, sizeof before.dim);
    if (!same_shape(&shape, &before)) return shape_conflict("state", name, &shape, &before);
    return graph_store_value(g, e, out);
}

static qfw_status api_assign(qfw_graph *pub, qfw_val state, qfw_val value) {
    graph *g = graph_of(pub);
    QFW_TRY(check_value(g, "assign", "the state", state, 0));
    QFW_TRY(check_value(g, "assign", "the value", value, 0));
    const graph_value *s = &g->values[state];
    if (s->kind != VALUE_STORE || s->entry->usage != QFW_MEM_RUN)
        return err_fail("E_GRAPH_VALUE", QFW_E_INVALID, "assign: value %u%s%s is not a state",
            state, s->name ? ", " : "", s->name ? s->name : "");
    if (!same_shape(&g->values[value].shape, &s->shape))
        return shape_conflict("assign", s->name, &g->values[value].shape, &s->shape);
    for (size_t i = 0; i < g->n_assigns; i++)
        if (g->assigns[i].state == state)
            return err_fail(
                "E_GRAPH_VALUE", QFW_E_INVALID, "assign: '%s' is assigned twice", s->name);
    if (mem_grow(&g->assigns, &g->cap_assigns, g->n_assigns + 1, sizeof *g->assigns))
        return QFW_E_NOMEM;
    g->assigns[g->n_assigns++] = (graph_assign){state, value};
    return QFW_OK;
}

static qfw_status check_scalar(const graph *g, const char *name, const char *what, qfw_val v) {
    char found[SHAPE_TEXT];
    const op_shape *s = &g->values[v].shape;
    int64_t n = 1;
    for (uint32_t i = 0; i < s->rank; i++) n *= s->dim[i];
    if (s->dtype == QFW_F32 && n == 1) return QFW_OK;
    return err_fail("E_GRAPH_SHAPE", QFW_E_SHAPE, "metric: the %s of '%s' is %s %s, wanted f32 [1]",
        what, name, qfw_dtype_name(s->dtype), shape_text(s->rank, s->dim, found));
}

static qfw_status api_metric(qfw_graph *pub, const char *name, qfw_val value, qfw_val weight) {
    graph *g = graph_of(pub);
    QFW_TRY(check_value(g, "metric", "the value", value, 0));
    QFW_TRY(check_value(g, "metric", "the weight", weight, 1));
    QFW_TRY(check_scalar(g, name, "value", value));
    if (weight) QFW_TRY(check_scalar(g, name, "weight", weight));
    if (mem_grow(&g->metrics, &g->cap_metrics, g->n_metrics + 1, sizeof *g->metrics))
        return QFW_E_NOMEM;
    const char *kept = keep_text(g, name);
    if (!kept) return QFW_E_NOMEM;
    g->metrics[g->n_metrics++] = (graph_metric){kept, value, weight};
    return QFW_OK;
}

static qfw_status api_shape(
    qfw_graph *pub, qfw_val v, uint32_t *dtype, uint32_t *rank, int64_t *dim) {
    const graph *g = graph_of(pub);
    QFW_TRY(check_value(g, "shape", "the argument", v, 0));
    const op_shape *s = &g->values[v].shape;
    *dtype = s->dtype;
    *rank = s->rank;
    memcpy(dim, s->dim, sizeof s->dim);
    return QFW_OK;
}

/* --- views --- */

/* Every value of the window lies among the base's `count`. */
static int window_fits(
    uint32_t rank, const int64_t *dim, const int64_t *stride, int64_t offset, int64_t count) {
    int64_t last = offset, n = 1;
    for (uint32_t i = 0; i < rank; i++) n *= dim[i];
    if (n == 0) return offset >= 0 && offset <= count;
    if (offset < 0 || offset >= count) return 0;
    for (uint32_t i = 0; i < rank; i++) {
        if (stride[i] < 0) return 0;
        if (stride[i] && dim[i] - 1 > (count - 1 - last) / stride[i]) return 0;
        last += (dim[i] - 1) * stride[i];
    }
    return 1;
}

static qfw_status api_view(qfw_graph *pub, qfw_val from, uint32_t rank, const int64_t *dim,
    const int64_t *stride, int64_t offset, qfw_val *out) {
    graph *g = graph_of(pub);
    char window[SHAPE_TEXT], whole[SHAPE_TEXT], steps[SHAPE_TEXT];
    graph_value v = {.kind = VALUE_VIEW, .stride = {1, 1, 1, 1}};
    *out = 0;
    QFW_TRY(check_value(g, "view", "the base", from, 0));
    const graph_value *f = &g->values[from];
    QFW_TRY(make_shape("view", f->name ? f->name : "base", f->shape.dtype, rank, dim, &v.shape));
    memcpy(v.stride, stride, rank * sizeof *stride);
    v.base = f->kind == VALUE_VIEW ? f->base : from;
    const op_shape *base = &g->values[v.base].shape;
    int64_t count = 1;
    for (uint32_t i = 0; i < base->rank; i++) count *= base->dim[i];
    if (!qfw_dtype_bytes(base->dtype))
        return err_fail("E_GRAPH_SHAPE", QFW_E_DTYPE, "view: the base is %s, which has no windows",
            qfw_dtype_name(base->dtype));
    if (offset < 0 || offset > count || !window_fits(rank, dim, stride, f->offset + offset, count))
        return err_fail("E_GRAPH_SHAPE", QFW_E_SHAPE,
            "view: %s with strides %s from value %lld reaches outside of %s",
            shape_text(rank, dim, window), shape_text(rank, stride, steps),
            (long long)(f->offset + offset), shape_text(base->rank, base->dim, whole));
    v.offset = f->offset + offset;
    v.no_grad = g->values[v.base].no_grad;
    return new_value(g, &v, out);
}

/* --- ops --- */

/* `label: ` in front of the refusal, so that it can be found in a model of many layers. */
static qfw_status refused(const graph *g, qfw_status status) {
    if (g->label) err_prefix("%s", g->label);
    return status;
}

static qfw_status new_node(
    graph *g, const graph_node *node, const op_shape *shapes, const uint8_t *want, qfw_val *out) {
    const size_t before = g->n_values;
    if (mem_grow(&g->nodes, &g->cap_nodes, g->n_nodes + 1, sizeof *g->nodes)) return QFW_E_NOMEM;
    graph_node *n = &g->nodes[g->n_nodes];
    *n = *node;
    for (uint32_t o = 0; o < node->def->n_out; o++) {
        graph_value v = {.shape = shapes[o], .kind = VALUE_OP, .node = (uint32_t)g->n_nodes};
        if (want && !want[o]) continue;
        v.out = o;
        v.no_grad = shapes[o].dtype == QFW_I32 || shapes[o].dtype == QFW_U8;
        dense_strides(&v.shape, v.stride);
        if (new_value(g, &v, &n->out[o]) != QFW_OK) {
            g->n_values = before;
            return QFW_E_NOMEM;
        }
    }
    memcpy(out, n->out, node->def->n_out * sizeof *out);
    g->n_nodes++;
    return QFW_OK;
}

static qfw_status emit_op(qfw_graph *pub, uint32_t code, const qfw_val *in, uint32_t n_in,
    const void *params, uint32_t param_bytes, const uint8_t *want, qfw_val *out, uint32_t n_out) {
    graph *g = graph_of(pub);
    op_shape in_shape[QFW_MAX_IN], out_shape[QFW_MAX_OUT];
    const op_shape *shapes[QFW_MAX_IN] = {NULL};
    graph_node node = {.segment = g->segment, .phase = g->phase, .label = g->label};
    qfw_val made[QFW_MAX_OUT] = {0};
    node.def = op_find(code);
    for (uint32_t i = 0; i < n_in && i < QFW_MAX_IN; i++) {
        const char *name = node.def ? node.def->name : "op";
        char what[16] = "operand 0";
        what[8] = (char)('0' + i);
        const qfw_status status = check_value(g, name, what, in[i], 1);
        if (status != QFW_OK) {
            memset(out, 0, n_out * sizeof *out);
            return refused(g, status);
        }
        node.in[i] = in[i];
        if (!in[i]) continue;
        in_shape[i] = g->values[in[i]].shape;
        shapes[i] = &in_shape[i];
    }
    memset(out, 0, n_out * sizeof *out);
    const qfw_status status =
        op_infer_shapes(code, shapes, n_in, params, param_bytes, want, out_shape, n_out);
    if (status != QFW_OK) return refused(g, status);
    if (param_bytes) node.params = graph_keep(g, params, param_bytes);
    if (param_bytes && !node.params) return QFW_E_NOMEM;
    QFW_TRY(new_node(g, &node, out_shape, want, made));
    memcpy(out, made, n_out * sizeof *out);
    return QFW_OK;
}

/* An op as it is asked for; embeddings with the noise that training wants on them. */
static qfw_status api_op(qfw_graph *pub, uint32_t code, const qfw_val *in, uint32_t n_in,
    const void *params, uint32_t param_bytes, const uint8_t *want, qfw_val *out, uint32_t n_out) {
    const graph *g = graph_of(pub);
    qfw_val noise;
    QFW_TRY(emit_op(pub, code, in, n_in, params, param_bytes, want, out, n_out));
    if (code != QFW_OP_EMBED || !g->env->embed_noise || g->adapter == QFW_ADAPTER_REFERENCE)
        return QFW_OK;
    const op_shape shape = g->values[out[0]].shape;
    QFW_TRY(api_input(pub, "embed_noise", QFW_F32, shape.rank, shape.dim, &noise));
    return qfw_binary(pub, QFW_ADD, out[0], noise, &out[0]);
}

static qfw_status api_segment(qfw_graph *pub, const char *name) {
    graph *g = graph_of(pub);
    const char *kept = keep_text(g, name);
    if (!kept) return QFW_E_NOMEM;
    g->label = kept;
    g->segment = (uint32_t)++g->n_segments;
    return QFW_OK;
}

static qfw_status api_adapter(qfw_graph *pub, uint32_t which) {
    if (which > QFW_ADAPTER_REFERENCE)
        return err_fail("E_GRAPH_VALUE", QFW_E_INVALID,
            "adapter: %u, wanted 0 (none), 1 (policy) "
            "or 2 (reference)",
            which);
    graph_of(pub)->adapter = which;
    return QFW_OK;
}

static qfw_status api_linear(qfw_graph *pub, qfw_val x, qfw_val w, qfw_val *out) {
    graph *g = graph_of(pub);
    *out = 0;
    QFW_TRY(check_value(g, "linear", "x", x, 0));
    QFW_TRY(check_value(g, "linear", "w", w, 0));
    return linear_emit(g, x, w, out);
}

static qfw_status api_attention(qfw_graph *pub, qfw_val q, qfw_val k, qfw_val v, qfw_val segments,
    const qfw_attn_params *p, qfw_val *o) {
    const graph *g = graph_of(pub);
    *o = 0;
    QFW_TRY(check_value(g, "attention", "q", q, 0));
    QFW_TRY(check_value(g, "attention", "k", k, 1));
    QFW_TRY(check_value(g, "attention", "v", v, !k));
    return attention_emit(graph_of(pub), q, k, v, segments, p, o);
}

static const qfw_host *api_host(qfw_graph *pub) { return graph_of(pub)->env->host; }

static const qfw_graph_api graph_api = {
    .size = sizeof graph_api,
    .input = api_input,
    .param = api_param,
    .linear = api_linear,
    .op = api_op,
    .view = api_view,
    .segment = api_segment,
    .state = api_state,
    .assign = api_assign,
    .metric = api_metric,
    .shape = api_shape,
    .adapter = api_adapter,
    .host = api_host,
    .attention = api_attention,
};

qfw_status graph_create(const graph_env *env, graph **out) {
    graph *g = *out = mem_alloc(1, sizeof *g);
    if (!g) return QFW_E_NOMEM;
    g->pub.api = &graph_api;
    g->env = env;
    g->adapter = QFW_ADAPTER_POLICY;
    if (mem_grow(&g->values, &g->cap_values, 1, sizeof *g->values)) { /* value 0 stays empty */
        mem_free(g);
        *out = NULL;
        return QFW_E_NOMEM;
    }
    return QFW_OK;
}

void graph_destroy(graph *g) {
    if (!g) return;
    for (keep_block *b = g->strings, *next; b; b = next) {
        next = b->next;
        mem_free(b);
    }
    mem_free(g->values);
    mem_free(g->nodes);
    mem_free(g->assigns);
    mem_free(g->metrics);
    mem_free(g);
}

/* graph.h -- the graph under construction: values, nodes, views, and the service that plugins see.
 *
 * A graph is a list of nodes in the order in which they were emitted, which is an order in which
 * they can run. Plugins emit through qfw_graph_api; the core also uses what stands here.
 */
#ifndef GRAPH_GRAPH_H
#define GRAPH_GRAPH_H

#include "graph/store.h"
#include "ops/op.h"

/* One LoRA on one row slice of one weight. */
typedef struct lora {
    const char *param; /* the weight's name */
    /* full module name, the dropout key: "model.layers.0.self_attn.q_proj" */
    const char *module;
    int64_t row0, rows;
    store_entry *a, *b; /* [R,in], [rows,R] */
    float scale, dropout;
    uint32_t which; /* QFW_ADAPTER_POLICY or QFW_ADAPTER_REFERENCE */
} lora;

/* What names mean in a graph. Borrowed; must outlive it. */
typedef struct graph_env {
    const qfw_host *host;
    store *store;
    /* The entry of a parameter (tied names resolved); NULL: unknown. */
    store_entry *(*param)(const void *arg, const char *name);
    const void *arg;
    const lora *loras;
    uint32_t n_loras;
    uint32_t training;  /* 0: dropout is left out */
    uint64_t seed;      /* of dropout */
    int64_t cache_rows; /* > 0: attention keeps keys and values (attention.h) */
    /* 1: the input "embed_noise" is added to what EMBED gives the policy (train/neftune.h) */
    uint32_t embed_noise;
    uint32_t compute; /* QFW_BF16, QFW_F16: linears take and give that; else as x is */
} graph_env;

enum { VALUE_OP = 1, VALUE_INPUT = 2, VALUE_STORE = 3, VALUE_VIEW = 4 };

typedef struct graph_value {
    op_shape shape;
    int64_t stride[QFW_MAX_DIMS]; /* dense, but for views */
    int64_t offset;               /* of a view, in values from its base's first */
    uint32_t kind;
    uint32_t node, out; /* VALUE_OP: who makes it */
    qfw_val base;       /* VALUE_VIEW: never itself a view */
    store_entry *entry; /* VALUE_STORE */
    const char *name;   /* input or store name, else NULL */
    /* 1: labels, metrics' inputs, frozen weights' gradients are not asked */
    uint32_t no_grad;
} graph_value;

typedef struct graph_node {
    const op_def *def;
    const void *params;
    qfw_val in[QFW_MAX_IN], out[QFW_MAX_OUT];
    uint32_t segment; /* index of its segment, 0 before the first boundary */
    uint32_t phase;   /* PHASE_* */
    const char *label;
} graph_node;
enum { PHASE_FORWARD = 0, PHASE_RECOMPUTE = 1, PHASE_BACKWARD = 2, PHASE_UPDATE = 3 };

typedef struct graph_assign {
    qfw_val state, value;
} graph_assign;
typedef struct graph_metric {
    const char *name;
    qfw_val value, weight;
} graph_metric;

typedef struct graph {
    qfw_graph pub; /* first: a qfw_graph * is a graph * */
    const graph_env *env;
    graph_value *values; /* [1 .. n_values]; 0 stays empty */
    graph_node *nodes;
    graph_assign *assigns;
    graph_metric *metrics;
    size_t n_values, n_nodes, n_assigns, n_metrics, n_segments;
    size_t cap_values, cap_nodes, cap_assigns, cap_metrics;
    uint32_t segment, phase, adapter, n_caches;
    const char *label; /* given to the nodes that follow */
    void *strings;     /* names, labels and params, freed with the graph */
} graph;

qfw_status graph_create(const graph_env *env, graph **out);
void graph_destroy(graph *g);
/* A store entry as a value; the same entry gives the same value. */
qfw_status graph_store_value(graph *g, store_entry *e, qfw_val *out);
static inline graph_value *graph_get(const graph *g, qfw_val v) { return &g->values[v]; }
/* A copy of n bytes that lives as long as the graph; NULL without memory. */
void *graph_keep(graph *g, const void *data, size_t n);

/* What of the forward is run again in the backward instead of being kept: nothing; what is
 * elementwise and the largest product of each segment (SELECTIVE); all that does not cross a
 * segment's border (FULL). */
enum { RECOMPUTE_NONE = 0, RECOMPUTE_FULL = 1, RECOMPUTE_SELECTIVE = 2 };
/* vjp.c: append the backward of `loss` (F32, one value). Under recomputation the nodes of each
 * segment but the last are run again, as far as the backward reads what they make and `recompute`
 * (RECOMPUTE_*) does not keep it; the gradients have the same bits either way.
 * grads[i] is the gradient of wrt[i], 0 where none flows. */
qfw_status graph_backward(
    graph *g, qfw_val loss, const qfw_val *wrt, uint32_t n, uint32_t recompute, qfw_val *grads);

#endif

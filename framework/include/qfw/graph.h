/* graph.h -- the graph service: how a model, a trainer or an optimizer says what is to be computed.
 *
 * Authors emit forward ops only, through the typed wrappers of ops_nn.h and ops_prim.h. The core
 * derives the backward, cuts the graph at segments for recomputation, plans every byte and places
 * every op on a backend. A graph is built once per batch shape and run many times; nothing is
 * computed while it is built. Values are written once: no op writes through a view.
 *
 * Every function is [inst]: one thread at a time per graph. On failure every out is 0 and the
 * message names the op, what was found and what was wanted; what is already in the graph stays
 * valid.
 */
#ifndef QFW_GRAPH_H
#define QFW_GRAPH_H

#include "qfw/host.h"

typedef uint32_t qfw_val; /* a value's id inside one graph; 0 = none */

struct qfw_attn_params;
typedef struct qfw_graph_api qfw_graph_api;
typedef struct qfw_graph {
    const qfw_graph_api *api; /* the host's own fields follow, unseen */
} qfw_graph;

/* Which adapter `linear` adds from now on. */
enum { QFW_ADAPTER_NONE = 0, QFW_ADAPTER_POLICY = 1, QFW_ADAPTER_REFERENCE = 2 };

struct qfw_graph_api {
    uint32_t size, rsv;
    /* A value that the host writes before every run. The same name again gives the same value. The
     * core fills its own names (data.h: qfw_batch); any other is asked of the plugin's `fill`. */
    qfw_status (*input)(qfw_graph *g, const char *name, uint32_t dtype, uint32_t rank,
        const int64_t *dim, qfw_val *out);
    /* The weight that the model's `describe` calls `name`; it may be packed (NF4) and frozen. A
     * tied name gives the weight it is tied to. */
    qfw_status (*param)(qfw_graph *g, const char *name, qfw_val *out);
    /* y[N,out] = x[N,in] * w[out,in]^T, with w as it is stored (f32 or packed), plus the current
     * adapter's LoRA on each row slice of w that is targeted. `w` comes from `param`. */
    qfw_status (*linear)(qfw_graph *g, qfw_val x, qfw_val w, qfw_val *out);
    /* Emit one op (ops.h). Absent optional inputs are 0; want[o] = 0 leaves an optional output out
     * (want NULL: all). Shapes are inferred and checked here, once for all backends. */
    qfw_status (*op)(qfw_graph *g, uint32_t code, const qfw_val *in, uint32_t n_in,
        const void *params, uint32_t param_bytes, const uint8_t *want, qfw_val *out,
        uint32_t n_out);
    /* A strided window onto `base`; offset and strides in values, every value inside `base`. */
    qfw_status (*view)(qfw_graph *g, qfw_val base, uint32_t rank, const int64_t *dim,
        const int64_t *stride, int64_t offset, qfw_val *out);
    /* Recompute boundary: under gradient_checkpointing = full, what is emitted from here to the
     * next boundary is not kept for the backward but computed again. */
    qfw_status (*segment)(qfw_graph *g, const char *name);
    /* A value that survives runs, zero before the first; `assign` gives what it holds then. */
    qfw_status (*state)(qfw_graph *g, const char *name, uint32_t dtype, uint32_t rank,
        const int64_t *dim, qfw_val *out);
    qfw_status (*assign)(qfw_graph *g, qfw_val state, qfw_val value);
    /* Log `name`: over the micro-batches of a log interval, sum(value) / sum(weight); both F32 [1].
     * weight 0 stands for 1 per micro-batch. No gradient flows through. */
    qfw_status (*metric)(qfw_graph *g, const char *name, qfw_val value, qfw_val weight);
    /* dtype, rank and dimensions of a value. dim has room for QFW_MAX_DIMS. */
    qfw_status (*shape)(qfw_graph *g, qfw_val v, uint32_t *dtype, uint32_t *rank, int64_t *dim);
    /* QFW_ADAPTER_*: what `linear` adds from here on. A new graph starts with POLICY. */
    qfw_status (*adapter)(qfw_graph *g, uint32_t which);
    const qfw_host *(*host)(qfw_graph *g); /* for qfw_fail inside wrappers */
    /* o[N,H*D] = ATTN (ops_nn.h) of this batch's rows; k = v = 0: q is the packed qkv. In a graph
     * that generates, k and v also go into a cache that outlives the run, and each row sees what
     * its sequence has left there: keys are kept as they are given, so after the rotary embedding.
     */
    qfw_status (*attention)(qfw_graph *g, qfw_val q, qfw_val k, qfw_val v, qfw_val segments,
        const struct qfw_attn_params *p, qfw_val *o);
};
QFW_SEALED(qfw_graph_api, attention);

#endif

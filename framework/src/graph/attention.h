/* attention.h -- attention as graph.c's `attention` emits it: over the batch's rows, or over a
 * cache of keys and values that outlives the run.
 */
#ifndef GRAPH_ATTENTION_H
#define GRAPH_ATTENTION_H

#include "graph/graph.h"
#include "qfw/ops_nn.h"

/* With env->cache_rows, the n-th call in a graph keeps keys and values in the states "cache.<n>.k"
 * and "cache.<n>.v" [cache_rows, G*D]: row i of the batch goes to the row that the input
 * "cache_rows" I32[N] says (-1: nowhere), and the segments' key rows are rows of the cache. */
qfw_status attention_emit(graph *g, qfw_val q, qfw_val k, qfw_val v, qfw_val segments,
    const qfw_attn_params *p, qfw_val *o);
/* The state of cache n, "k" or "v"; NULL before a graph declared it. */
store_entry *attention_cache(const store *s, uint32_t n, const char *which);

#endif

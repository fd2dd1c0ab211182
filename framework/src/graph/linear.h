/* linear.h -- one linear layer with its adapters, as graph.c's `linear` emits it. */
#ifndef GRAPH_LINEAR_H
#define GRAPH_LINEAR_H

#include "graph/graph.h"

/* x and w are values of g. On failure *out is 0. */
qfw_status linear_emit(graph *g, qfw_val x, qfw_val w, qfw_val *out);

#endif

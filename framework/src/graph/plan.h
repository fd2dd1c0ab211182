/* plan.h -- where every op runs and where every byte lies, decided before anything is allocated.
 *
 * Placement per node: native on the backend; decomposed into ops that all are; else the reference
 * kernel on the host. Then liveness gives each value an offset in one step arena (in place where
 * the op allows it), and values that cross between device and host get a place and a transfer on
 * both sides. Dead nodes are dropped.
 */
#ifndef GRAPH_PLAN_H
#define GRAPH_PLAN_H

#include "graph/graph.h"

enum { FALLBACK_ALLOW = 0, FALLBACK_WARN = 1, FALLBACK_ERROR = 2 };
enum { PLACE_NATIVE = 1, PLACE_DECOMPOSED = 2, PLACE_REFERENCE = 3 };

typedef struct plan_placement { /* one line of the report, per op kind */
    const char *op;
    uint32_t native, decomposed, reference;
} plan_placement;

typedef struct plan {
    const graph *g;           /* the caller's graph */
    uint64_t step_bytes;      /* device arena of values and workspace */
    uint64_t workspace_bytes; /* of it the workspace */
    uint64_t saved_bytes;     /* of it what the forward keeps for the backward, at its peak */
    /* host arena, where the device has no host_ptr and a reference op runs */
    uint64_t host_bytes;
    uint64_t input_bytes; /* device memory of the inputs */
    uint64_t moved_bytes; /* crossing between device and host in one run */
    uint32_t n_native, n_decomposed, n_reference;
    plan_placement placement[QFW_OP_END]; /* by code; op NULL where unused */
    struct plan_steps *steps;             /* the executor's program */
} plan;

/* keep[]: values that the caller reads after a run (metrics and assigns are kept without saying).
 * Under FALLBACK_ERROR an op that would need the reference kernel is QFW_E_UNSUPPORTED, and the
 * message lists all of them. */
qfw_status plan_create(const graph *g, const device *dev, uint32_t fallback, const qfw_val *keep,
    uint32_t n_keep, plan **out);
void plan_destroy(plan *p);
/* 1 when a reference kernel of the plan reads the entry: it must then not be sealed. */
int plan_reads_on_host(const plan *p, const store_entry *e);
/* The weights are complete: seal each packed frozen one that no reference kernel of any of these
 * plans reads. */
qfw_status plan_seal(store *s, const plan *const *plans, uint32_t n);

#endif

/* graphs.h -- the graphs of a run: a training and an evaluation pass per batch shape, the gradient
 * norm, and the update. The largest shapes are planned before anything is allocated; the others
 * when a batch needs them.
 */
#ifndef TRAIN_GRAPHS_H
#define TRAIN_GRAPHS_H

#include "train/batch.h"

/* PASS_REFERENCE: log-probabilities of the policy alone, where a reference's are kept. */
enum { PASS_TRAIN = 0, PASS_EVAL = 1, PASS_REFERENCE = 2, PASS_KINDS = 3, MAX_METRICS = 16 };
enum { REFERENCE_SETS = 2 }; /* train, eval */

/* Log-probabilities of a data set's trained tokens under the reference (reference.h). */
typedef struct reference_rows {
    float *logp;     /* one sequence after another */
    uint64_t *first; /* of example i; [count]: their number */
} reference_rows;

/* One pass: its graph with plan and, once it runs, executor. */
typedef struct pass {
    graph_env env;
    graph *g;
    plan *p;
    exec *e;
    int64_t n_rows;
    qfw_val loss;       /* PASS_REFERENCE: the log-probabilities */
    qfw_val past_model; /* inputs below it were declared by the model */
} pass;

struct graphs {
    pass **passes[PASS_KINDS];
    size_t n_passes[PASS_KINDS], cap_passes[PASS_KINDS];
    int64_t max_rows[PASS_KINDS], n_segments[PASS_KINDS], n_examples[PASS_KINDS];
    pass norm, update;
    qfw_val sumsq; /* of the norm graph */
    uint32_t n_scalars;
    exec_arena *arena;
    uint64_t step_bytes, host_bytes, input_bytes; /* the arena's */
    void *scratch;                                /* host side of one input that a plugin fills */
    uint64_t scratch_bytes;
    int profile;
    reference_rows reference[REFERENCE_SETS];
    char reference_sha256[65]; /* of the adapter that the reference is; "" before it is known */
};

/* What names mean in a graph of this run. */
graph_env graphs_env(const run *r, uint32_t training);
/* plan_create on the run's device, as [backend] fallback allows. */
qfw_status graphs_place(const run *r, graph *g, const qfw_val *keep, uint32_t n_keep, plan **out);
uint64_t graphs_value_bytes(const graph *g, qfw_val v); /* of a dense value */
uint64_t graphs_largest_input(const graph *g);          /* bytes */
/* Build and plan the largest training and evaluation pass, the norm and the update. Nothing is
 * allocated on the device. */
qfw_status graphs_plan(run *r);
/* Take the arena and make the executors that are known so far. After store_alloc. */
qfw_status graphs_alloc(run *r);
void graphs_destroy(graphs *gs);

typedef struct pass_result {
    double loss;
    double value[MAX_METRICS],
        weight[MAX_METRICS]; /* of the metrics, in order of declaration; names: pass_metric */
    uint32_t n_metrics;
} pass_result;
/* Run one micro-batch; inv_weight is 1 / the weight of the window. A training pass adds to the
 * gradients. */
qfw_status graphs_run(run *r, uint32_t kind, batch *b, double inv_weight, pass_result *out);
/* Log-probability of each row's label under the policy as it is; logp has max_rows values. */
qfw_status graphs_reference(run *r, batch *b, float *logp);
const char *graphs_metric(const run *r, uint32_t i); /* NULL past the last */
/* Sum of squares over all gradients. */
qfw_status graphs_norm(run *r, double *sumsq);
/* The gradients become zero without an update. */
qfw_status graphs_forget_gradients(run *r);
/* One update at rate lr, number `step` (from 1), gradients times coef; leaves the gradients
 * zero. */
qfw_status graphs_update(run *r, uint64_t step, double lr, float coef);

#endif

/* exec.h -- runs a plan. All memory is taken in exec_create; a run allocates nothing.
 *
 * Several plans (one per batch shape) share one arena: they never run at the same time, and what
 * was written to the inputs of one, or can be read from it, is lost when another one runs.
 */
#ifndef GRAPH_EXEC_H
#define GRAPH_EXEC_H

#include "graph/plan.h"

typedef struct exec_arena exec_arena;
/* Device (and, if needed, host) memory for any plan whose step_bytes, host_bytes and input_bytes
 * are within these. */
qfw_status exec_arena_create(const device *dev, uint64_t step_bytes, uint64_t host_bytes,
    uint64_t input_bytes, exec_arena **out);
void exec_arena_destroy(exec_arena *a);

typedef struct exec exec;
qfw_status exec_create(const plan *p, const device *dev, exec_arena *arena, exec **out);
void exec_destroy(exec *e);

/* Write an input by name, its whole contents. QFW_E_INVALID for a name that the graph did not
 * declare. */
qfw_status exec_write(exec *e, const char *input, const void *data, uint64_t bytes);
/* Names of the inputs, in order of declaration; NULL past the last. *value is its graph value. */
const char *exec_input(const exec *e, uint32_t i, qfw_val *value);
qfw_status exec_run(exec *e);
/* Dense contents of a kept value, a metric's value, or a state after the run. */
qfw_status exec_read(exec *e, qfw_val v, void *data, uint64_t bytes);

/* --profile: time and bytes per op, summed over runs. */
typedef struct exec_profile_row {
    const char *op, *label; /* label: of one node */
    uint32_t phase, place;  /* PHASE_*, PLACE_* */
    uint64_t calls, ns, bytes;
} exec_profile_row;
void exec_profile(exec *e, int on); /* ops then run one at a time, each followed by a sync */
/* Row i of the nodes in program order; 0 past the last. */
int exec_profile_at(const exec *e, uint32_t i, exec_profile_row *out);

#endif

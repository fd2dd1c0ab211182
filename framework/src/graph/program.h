/* program.h -- a plan from the inside: what planner.c, residency.c and liveness.c build one after
 * another, and what exec.c then runs.
 */
#ifndef GRAPH_PROGRAM_H
#define GRAPH_PROGRAM_H

#include "graph/plan.h"

/* Where a value's bytes lie on one side. A device that the host can look into (host_ptr) has one
 * side only: reference kernels work in the device's memory. */
enum { SIDE_DEVICE = 0, SIDE_HOST = 1, SIDES = 2 };
enum { AT_NOWHERE = 0, AT_ARENA = 1, AT_INPUT = 2, AT_ENTRY = 3 };

typedef struct plan_place {
    uint32_t at;        /* AT_*; on the host, inputs lie in the arena too */
    uint64_t offset;    /* into the arena, or into the inputs' memory */
    store_entry *entry; /* AT_ENTRY: whose memory, or on the host whose host_copy */
} plan_place;

enum {
    STEP_OP = 1,
    STEP_UPLOAD = 2,   /* value: host to device */
    STEP_DOWNLOAD = 3, /* value: device to host */
    STEP_REFRESH = 4,  /* value is a store entry's: its host_copy, if it is out of date */
};

typedef struct plan_step {
    uint32_t kind;
    uint32_t node; /* STEP_OP: in the rewritten graph */
    qfw_val value;
} plan_step;

/* What can be read after a run: the caller's value, and the one that holds it. */
typedef struct plan_root {
    qfw_val asked, value;
} plan_root;

/* What the rewritten graph adds to a value. */
typedef struct plan_value {
    store_entry *lands; /* the state that it is assigned to: it is made in that state's memory */
    uint8_t root;       /* read after the run */
    uint8_t home;       /* the side on which it is made, SIDE_* */
    uint8_t on[SIDES];  /* residency.c: it has a place there */
    uint8_t valid_at_end[SIDES];
    plan_place place[SIDES]; /* liveness.c */
} plan_value;

struct plan_steps {
    graph *g;           /* rewritten; the caller's values keep their numbers */
    uint8_t *placement; /* PLACE_* of each node of g */
    plan_value *values; /* of each value of g; views have none of their own */
    plan_root *roots;
    plan_step *steps;
    size_t n_roots, n_steps, cap_placement, cap_values, cap_roots, cap_steps;
    uint32_t two_sided; /* the device has no host_ptr */
    uint32_t fallback;
    uint64_t workspace_offset;
};
typedef struct plan_steps plan_steps;

static inline qfw_val plan_base(const graph *g, qfw_val v) {
    return g->values[v].kind == VALUE_VIEW ? g->values[v].base : v;
}
static inline uint64_t plan_bytes(const graph_value *v) {
    uint64_t n = qfw_dtype_bytes(v->shape.dtype);
    for (uint32_t i = 0; i < v->shape.rank; i++) n *= (uint64_t)v->shape.dim[i];
    return n;
}
static inline uint64_t plan_aligned(uint64_t bytes) { return (bytes + 255) / 256 * 256; }
/* Arenas are made of blocks of at most this many bytes; no value crosses from one to the next. */
static inline uint64_t plan_block_bytes(const device *dev) {
    uint64_t limit = dev->info.max_alloc_bytes ? dev->info.max_alloc_bytes : dev->info.total_bytes;
    if (!limit) limit = UINT64_MAX / 4;
    return limit / 256 * 256;
}
/* The side on which a node runs. */
static inline uint32_t plan_side(const plan_steps *s, size_t node) {
    return s->two_sided && s->placement[node] == PLACE_REFERENCE ? SIDE_HOST : SIDE_DEVICE;
}

/* A value as a tensor without memory: what `supports` and `workspace_size` are asked about. */
qfw_tensor plan_tensor(const graph *g, qfw_val v);
/* One node as an op over tensor[QFW_MAX_IN + QFW_MAX_OUT]. */
qfw_op plan_op(const graph *g, const graph_node *node, qfw_tensor *tensor);

/* placement.c: rewrite the caller's graph into s->g, each node native, decomposed or reference, and
 * leave dead nodes out. */
qfw_status plan_rewrite(plan *p, const device *dev, const qfw_val *keep, uint32_t n_keep);
/* residency.c: order the steps, with the transfers between the sides. */
qfw_status plan_residency(plan *p);
/* liveness.c: a place for every value, and the sizes of the arenas. */
qfw_status plan_memory(plan *p, const device *dev);

#endif

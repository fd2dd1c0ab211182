/* suite.h -- every op, on the shapes, strides and values that go wrong easily, run by some target
 * and held against the reference kernels: what a backend must pass.
 *
 * Around every output lie sentinels, inside lies NaN; inputs must come back unchanged; a second run
 * must give the same bits. Tolerances stand in one table (suite.c). Who refuses everything passes
 * nothing: what was refused is counted apart, and what compared no value too.
 */
#ifndef OPS_SUITE_H
#define OPS_SUITE_H

#include "graph/store.h"
#include "ops/op.h"

/* A piece of host memory that operands of a call lie in. */
typedef struct suite_block {
    void *host;
    uint64_t bytes;
    uint32_t usage; /* QFW_MEM_*: FROZEN for packed weights and their scales, else STEP */
} suite_block;

typedef struct suite_call {
    const qfw_op *op; /* every mem in it, of scales too, is the address of a block's first byte */
    const suite_block *blocks; /* each may be written anywhere by mistake: bring back all of it */
    uint32_t n_blocks;
    uint32_t seal; /* 1: the packed weight is complete and may be sealed before the run */
} suite_call;

typedef struct suite_target {
    const char *name;
    /* Run the op and leave in the blocks what it wrote. *taken = 0: the target does not run this op
     * with these shapes, dtypes or strides; nothing has been touched then. */
    qfw_status (*run)(void *arg, const suite_call *call, int *taken);
    void *arg;
} suite_target;

typedef struct suite_row {
    const char *op;
    uint32_t passed, failed;
    uint32_t refused; /* the target left it to the reference */
    uint32_t empty;   /* of the passed: no value was compared */
    uint64_t values;  /* compared */
    double worst;     /* greatest error, as a part of what is allowed */
} suite_row;

typedef struct suite_report {
    suite_row row[QFW_OP_END]; /* by code */
    uint32_t passed, failed, refused;
    /* Called once per failure, if not NULL: "gemm, odd sizes, f32 wide: output 0 is 3e-2 off at 17,
     * ...". */
    void (*on_failure)(void *arg, const char *text);
    void *arg;
} suite_report;

/* Run all cases of the op `code`, or of all ops where it is 0, and add to the report. A failed case
 * is no failure of the call, which fails only where the cases themselves cannot be made. */
qfw_status suite_run(const suite_target *target, uint32_t code, suite_report *report);

/* The reference kernels themselves as target. */
suite_target suite_reference(void);
/* A device's backend as target, each call with memory of its own. `dev` must outlive the target. */
suite_target suite_backend(const device *dev);

#endif

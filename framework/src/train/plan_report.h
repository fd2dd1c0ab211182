/* plan_report.h -- the memory plan as a person reads it, before a byte is taken. */
#ifndef TRAIN_PLAN_REPORT_H
#define TRAIN_PLAN_REPORT_H

#include "train/graphs.h"

/* What a task takes besides weights, adapters and what is trained. */
typedef struct plan_need {
    const plan *main;                                            /* of its largest pass */
    int64_t n_rows;                                              /* tokens of that pass */
    uint64_t step_bytes, input_bytes, host_bytes, scratch_bytes; /* as in graphs */
    uint64_t cache_bytes;                                        /* of keys and values */
    char recompute[48]; /* what of a step is computed again, for a note; "" nothing is */
    char cache_note[64];
    uint64_t
        judge_bytes; /* of who scores the weights while they are trained: keys, values, a pass */
    char judge_note[64];
    char smaller[600]; /* settings that would shrink the pass, for a hint; "" none */
} plan_need;

/* Whether the device's memory is this process's, so that the plan is of the whole process. */
int plan_is_host(const run *r);
/* What this process holds, libraries included: once, when the first plan is made, so that all plans
 * of a run are compared alike. */
void plan_measure(run *r);
plan_need train_need(const run *r);
/* Everything on the device; where the device is the host, also what qfw itself keeps there. */
uint64_t plan_total(const run *r, const plan_need *need);
void plan_print(const run *r, const plan_need *need, FILE *out);
uint64_t plan_limit(const run *r); /* what the total must not exceed; 0: unknown */
/* E_PLAN_MEMORY with the numbers and the changes that would help, if the plan exceeds max_memory or
 * what the device has free. */
qfw_status plan_check(const run *r, const plan_need *need);

#endif

/* plan_report.h -- the memory plan as a person reads it, before a byte is taken. */
#ifndef TRAIN_PLAN_REPORT_H
#define TRAIN_PLAN_REPORT_H

#include "train/graphs.h"

/* Everything on the device; where the device is the host, also what qfw itself keeps there. */
uint64_t plan_total(const run *r);
void plan_print(const run *r, FILE *out);
/* E_PLAN_MEMORY with the numbers and the changes that would help, if the plan exceeds max_memory or
 * what the device has free. */
qfw_status plan_check(const run *r);

#endif

/* tasks.h -- what [run] task can name. */
#ifndef SERVE_TASKS_H
#define SERVE_TASKS_H

#include "train/run.h"

/* The whole of `qfw --ini`: returns a status; the error is the thread's (base/error.h). */
qfw_status task_main(const run_flags *flags, FILE *out);

#endif

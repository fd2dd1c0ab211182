/* export_task.h -- the task `export`: an adapter and its base as files for other programs. */
#ifndef SERVE_EXPORT_TASK_H
#define SERVE_EXPORT_TASK_H

#include "train/run.h"

/* Write what [export] asks for into output_dir, and print how far its logits are from those of base
 * and adapter as they were trained, on rows of [data] eval. */
qfw_status export_task(run *r, FILE *out);
/* The same for the adapter, or the model, that a run of task train has just left in the folder
 * `trained`, into its folder merged. */
qfw_status export_trained(const run_flags *flags, const char *trained, int is_adapter, FILE *out);

#endif

/* dpolab.h -- a lab with the model, tokenizer and rows of tests/golden/dpo, and the adapter that
 * its reference is, in sft/.
 */
#ifndef SUPPORT_DPOLAB_H
#define SUPPORT_DPOLAB_H

#include "lab.h"

/* No run is open yet. */
lab *dpolab_open(void);
/* Open and load a run from sft/ on `rows` of tests/golden/dpo. `dpo` are lines of [trainer.dpo],
 * `trainer` lines of [trainer]; lora_dropout is 0.3, which dpo disables by itself. A run that is
 * open is closed first. */
void dpolab_run(lab *l, const char *rows, const char *trainer, const char *dpo);
/* The text of the run.ini that dpolab_run writes; mem_free. */
char *dpolab_settings(const lab *l, const char *rows, const char *trainer, const char *dpo);
/* Give the policy's B the formula's values under other names: it then differs from the
 * reference. */
void dpolab_move_policy(lab *l);

#endif

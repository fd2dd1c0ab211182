/* tensorboard.h -- the numbers of trainer_log.jsonl as TensorBoard's event files, too: what
 * [trainer] report_to = tensorboard asks for. */
#ifndef TRAIN_TENSORBOARD_H
#define TRAIN_TENSORBOARD_H

#include <stddef.h>

#include "qfw/status.h"

typedef struct tensorboard tensorboard;
/* A new file below <folder>/runs. What earlier ones there say of `first_step` and later is void. */
qfw_status tensorboard_open(const char *folder, uint64_t first_step, tensorboard **out);
/* One object of trainer_log.jsonl: each number under train/<key>, or eval/<key> for eval_<key>, as
 * transformers names them. */
qfw_status tensorboard_add(tensorboard *t, const char *line, size_t n);
void tensorboard_close(tensorboard *t); /* NULL is ignored */

#endif

/* to_gguf.h -- base and adapter, merged or the adapter alone, as GGUF files for llama.cpp. */
#ifndef TRAIN_TO_GGUF_H
#define TRAIN_TO_GGUF_H

#include "train/run.h"

/* What [export] asks for, into a folder that is there: model-f16.gguf or model-q8_0.gguf of what
 * merge.h's `mode` gives, adapter.gguf. The adapter's values are in the store. Each file is read
 * back before it counts. Told to `out`. */
qfw_status to_gguf(run *r, int mode, const char *folder, FILE *out);

#endif

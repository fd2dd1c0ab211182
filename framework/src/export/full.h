/* full.h -- a whole model as transformers loads it: safetensors under Hugging Face's names, and the
 * files beside. */
#ifndef EXPORT_FULL_H
#define EXPORT_FULL_H

#include "graph/store.h"

typedef struct full_weight {
    const char *name;   /* in the file */
    store_entry *entry; /* F32 */
} full_weight;

/* model.safetensors. */
qfw_status full_write(const char *folder, store *s, const full_weight *weights, uint32_t n);
/* The files of a model folder that travel with its weights, unchanged, where they exist: config
 * (unless `with_config` is 0), tokenizer, chat template, generation config. */
qfw_status full_copy_files(const char *from, const char *to, int with_config);

#endif

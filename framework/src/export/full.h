/* full.h -- a whole model as transformers loads it: safetensors under Hugging Face's names, and the
 * files beside. */
#ifndef EXPORT_FULL_H
#define EXPORT_FULL_H

#include "graph/store.h"
#include "qfw/model.h"

#define FULL_SHARD_BYTES 5000000000u /* transformers' own limit for one file */

typedef struct full_weight {
    const qfw_param_desc *desc; /* its sources of layout 0 are what is written */
    const store_entry *entry;   /* F32; NULL where rows come from elsewhere */
    uint32_t dtype;             /* in the file: QFW_BF16, QFW_F16, QFW_NF4, QFW_FP4; 0: F32 */
    uint32_t nested;            /* of a packed one: its scales are packed, too */
} full_weight;

/* A packed weight as bitsandbytes has it, blocks of 64 and 256. */
typedef struct full_packed {
    const uint8_t *codes;
    const void *absmax;  /* F32, or U8 where nested */
    const float *nested; /* NULL: not nested */
    float offset;
} full_packed;

/* Rows that are in no store: floats, rounded to the weight's dtype when they are written. */
typedef struct full_rows {
    void *arg;
    qfw_status (*read)(void *arg, const qfw_param_desc *d, int64_t row0, int64_t rows, float *out);
    /* The whole of a packed weight, which lives until the next call. */
    qfw_status (*pack)(void *arg, const qfw_param_desc *d, full_packed *out);
} full_rows;

/* model.safetensors, or, past `shard_bytes` of data, model-0000i-of-0000n.safetensors and their
 * index. Of an earlier write into the folder nothing stays that would be read in its place. */
qfw_status full_write(
    const char *folder, store *s, const full_weight *weights, uint32_t n, uint64_t shard_bytes);
/* The same from rows, asked for weight by weight and in their order. */
qfw_status full_write_rows(const char *folder, const full_rows *from, const full_weight *weights,
    uint32_t n, uint64_t shard_bytes);
/* The files of a model folder that travel with its weights: config, first, tokenizer, chat
 * template, generation config; NULL past the last. */
extern const char *const full_files[];
/* Copy them, unchanged, where they exist; config not where `with_config` is 0. */
qfw_status full_copy_files(const char *from, const char *to, int with_config);

#endif

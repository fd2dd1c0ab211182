/* bnb.h -- checkpoints that bitsandbytes has quantised to 4 bits already, as transformers writes
 * them: each linear's codes and scales, and a description of them, beside one another.
 */
#ifndef TRAIN_BNB_H
#define TRAIN_BNB_H

#include "files/safetensors.h"
#include "train/run.h"

/* What config.json's quantization_config says becomes what [model] says: r->is_bnb, load_in_4bit
 * and the two bnb_4bit keys. An INI that says otherwise is told so; another method is refused. */
qfw_status bnb_read_config(run *r);

/* The tensors of one packed weight are there, of the right shapes and kind; else err_also. Returns
 * how many there are. */
uint32_t bnb_check(const run *r, st_file *f, const qfw_param_desc *d);
/* Whether a tensor is one of those beside a packed weight's codes. */
int bnb_is_beside(const run *r, const char *tensor);

/* A packed weight on the host. */
typedef struct packed_weight {
    uint8_t *codes;        /* [ceil(n / 2)] */
    float *absmax;         /* [blocks], where they are not nested */
    uint8_t *nested_codes; /* [blocks] */
    float *nested;         /* [ceil(blocks / 256)] */
    float offset;
} packed_weight;
qfw_status bnb_read(const run *r, const model_weight *w, packed_weight *p);

#endif

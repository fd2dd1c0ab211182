/* peft.h -- LoRA adapters as PEFT keeps them: adapter_config.json and adapter_model.safetensors.
 *
 * PEFT knows Phi-3's linears as Hugging Face fuses them, so LoRAs on slices (q_proj of qkv_proj)
 * are written as one on the fused module: A stacked, B block-diagonal, rank and alpha in patterns.
 * It is the same function, exactly.
 */
#ifndef EXPORT_PEFT_H
#define EXPORT_PEFT_H

#include "graph/graph.h"

typedef struct peft_info { /* adapter_config.json */
    const char *base_model;
    int64_t r;
    double lora_alpha, lora_dropout;
    int use_rslora;
} peft_info;

/* Write both files, of the policy's LoRAs; `s` holds their tensors and the adapted weights. Slices
 * of one weight stand next to each other in `loras`. */
qfw_status peft_write(
    const char *folder, const peft_info *info, store *s, const lora *loras, uint32_t n);

/* One adapted module of a PEFT folder. */
typedef struct peft_module {
    const char *name; /* "model.layers.0.self_attn.qkv_proj" */
    int64_t r, in, out;
    double scale;
} peft_module;

typedef struct peft peft;
/* Read and check both files. Whatever would make another function than the one that was trained is
 * refused (E_CFG_UNSUPPORTED); tensors that are missing, left over or misshapen are all listed
 * (E_MODEL_*). */
qfw_status peft_open(const char *folder, peft **out);
void peft_close(peft *p);
uint32_t peft_count(const peft *p);
const peft_module *peft_at(const peft *p, uint32_t i); /* in order of name */
peft_info peft_about(const peft *p); /* the patterns apart; base_model NULL where none is named */
/* a [r,in], b [out,r] of module i as floats. */
qfw_status peft_read(peft *p, uint32_t i, float *a, float *b);

/* A LoRA on rows row0 .. of a weight: adds scale * b a, with a [r,in] and b [rows,r]. */
typedef struct peft_slice {
    const float *a, *b;
    int64_t r, row0, rows;
    double scale;
} peft_slice;

/* One LoRA of the given scale on the whole weight [out,in] that is the same function as n on
 * slices: a [sum r, in] stacked, b [out, sum r] block-diagonal. Another scale of a slice goes into
 * its block. */
void peft_fuse(const peft_slice *slices, uint32_t n, int64_t in, int64_t out, double scale,
    float *a, float *b);

/* The inverse: the slice's part of a LoRA on the whole weight. A is shared, B is the slice's rows,
 * and the rank stays. Borrows a and b. */
static inline peft_slice peft_split(const peft_slice *whole, int64_t row0, int64_t rows) {
    peft_slice part = *whole;
    part.b += (row0 - whole->row0) * whole->r;
    part.row0 = row0;
    part.rows = rows;
    return part;
}

#endif

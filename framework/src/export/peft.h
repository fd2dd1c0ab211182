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

/* Write both files; `s` holds the LoRAs' tensors and the adapted weights. */
qfw_status peft_write(
    const char *folder, const peft_info *info, store *s, const lora *loras, uint32_t n);

/* One adapted module of a PEFT folder. */
typedef struct peft_module {
    const char *name; /* "model.layers.0.self_attn.qkv_proj" */
    int64_t r, in, out;
    double scale;
} peft_module;

typedef struct peft peft;
/* Read and check both files; what is missing, left over or misshapen is all listed (E_MODEL_*). */
qfw_status peft_open(const char *folder, peft **out);
void peft_close(peft *p);
uint32_t peft_count(const peft *p);
const peft_module *peft_at(const peft *p, uint32_t i); /* in order of name */
double peft_dropout(const peft *p);
/* a [r,in], b [out,r] of module i as floats. */
qfw_status peft_read(peft *p, uint32_t i, float *a, float *b);

/* The fused form of n LoRAs on slices of one weight with `out_rows` rows: a [sum r, in], b
 * [out_rows, sum r]. All have one scale. Source i: a_i [r_i, in], b_i [rows_i, r_i], on rows row0_i
 * .. of the weight. */
typedef struct peft_slice {
    const float *a, *b;
    int64_t r, row0, rows;
} peft_slice;
void peft_fuse(
    const peft_slice *slices, uint32_t n, int64_t in, int64_t out_rows, float *a, float *b);

#endif

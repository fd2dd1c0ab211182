/* gguf_model.h -- models and adapters of the phi3 architecture as llama.cpp's converters write
 * them: names, shapes, keys, tokenizer and chat template. */
#ifndef EXPORT_GGUF_MODEL_H
#define EXPORT_GGUF_MODEL_H

#include "export/full.h"
#include "export/gguf.h"
#include "files/json.h"

/* What a file is made from. */
typedef struct gguf_source {
    const char *folder; /* the model's: tokenizer files */
    const char *name;   /* general.name */
    const qfw_doc *config;
    const qfw_param_desc *const *desc; /* all but tied ones */
    uint32_t n;
    const full_rows *rows;
} gguf_source;

/* E_GGUF_UNSUPPORTED for a model or tokenizer that the format or llama.cpp's phi3 has no words for.
 * type: GGUF_F16 or GGUF_Q8_0, of matrices; the rest is F32. */
qfw_status gguf_write_model(const char *path, const gguf_source *s, uint32_t type);

/* An adapter of one weight: A [rank, in] and B [out, rank], y += (alpha / rank) B A x. */
typedef struct gguf_lora {
    const char *param;
    int64_t rank, in, out;
    const float *a, *b;
} gguf_lora;
qfw_status gguf_write_adapter(
    const char *path, const gguf_source *s, const gguf_lora *loras, uint32_t n, float alpha);

/* gguf_tokens.c: the tokenizer.ggml keys, and general.name, which llama.cpp reads for them, too;
 * `vocab` tokens, those that are none unused. Special tokens that the tokenizer's files do not name
 * are those of config.json. */
qfw_status gguf_put_tokenizer(gguf_writer *w, const gguf_source *s, int64_t vocab);

#endif

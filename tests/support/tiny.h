/* tiny.h -- a Phi-3 of two layers and width 64, its data and its INI, as files: the least that the
 * command trains. */
#ifndef SUPPORT_TINY_H
#define SUPPORT_TINY_H

#include <stdint.h>

/* The text of each file, one key or row a line, for tests that alter it. */
extern const char tiny_config[], tiny_tokenizer[], tiny_rows[], tiny_ini[];

/* One tensor of the checkpoint, in F32; `rank` 1 or 2. */
typedef struct tiny_tensor {
    const char *name; /* without "model." and ".weight" around it; NULL past the last */
    int64_t dim[2];   /* dim[1] 0: rank 1 */
} tiny_tensor;
enum { TINY_TENSORS = 15 };
extern const tiny_tensor tiny_tensors[TINY_TENSORS + 1];

/* A fresh folder of this name in the test's own: run.ini, rows.jsonl and model/ with its
 * config.json, tokenizer.json and model.safetensors. */
void tiny_make(const char *name);
/* <test's folder>/<name> with the tensors of the list. */
void tiny_weights(const char *name, const tiny_tensor *list);

#endif

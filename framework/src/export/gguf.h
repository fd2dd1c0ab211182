/* gguf.h -- GGUF, version 3, as llama.cpp reads it: keys with values, then tensors, aligned to 32
 * bytes, all little-endian. Written front to back; read back and checked in full.
 */
#ifndef EXPORT_GGUF_H
#define EXPORT_GGUF_H

#include "qfw/status.h"

/* ggml's numbers. */
enum { GGUF_F32 = 0, GGUF_F16 = 1, GGUF_Q8_0 = 8 };
enum { GGUF_BLOCK = 32 }; /* values that share a scale in GGUF_Q8_0 */
enum { GGUF_I8 = 1, GGUF_I16 = 3, GGUF_U32 = 4, GGUF_I32 = 5, GGUF_FLOAT = 6, GGUF_BOOL = 7 };
enum { GGUF_STRING = 8, GGUF_ARRAY = 9, GGUF_I64 = 11, GGUF_DOUBLE = 12 };

/* Bytes of n values; Q8_0: n is a multiple of GGUF_BLOCK. */
uint64_t gguf_bytes(uint32_t type, uint64_t n);
/* n values of fp32 as `type`: ggml's reference rounding, to nearest even for F16, half away from
 * zero for Q8_0. -1: one is finite and past what F16 holds. */
int gguf_encode(uint32_t type, const float *from, uint64_t n, void *to);
void gguf_decode(uint32_t type, const void *from, uint64_t n, float *to);

/* --- writing: keys and tensors are declared, then the tensors' rows follow in their order --- */

typedef struct gguf_writer gguf_writer;
qfw_status gguf_create(const char *path, gguf_writer **out); /* E_OUT_CREATE */
/* What fails for memory is told by gguf_begin. */
void gguf_put_u32(gguf_writer *w, const char *key, uint32_t v);
void gguf_put_f32(gguf_writer *w, const char *key, float v);
void gguf_put_bool(gguf_writer *w, const char *key, int v);
void gguf_put_str(gguf_writer *w, const char *key, const char *v);
void gguf_put_strs(gguf_writer *w, const char *key, const char *const *v, uint64_t n);
void gguf_put_f32s(gguf_writer *w, const char *key, const float *v, uint64_t n);
void gguf_put_i32s(gguf_writer *w, const char *key, const int32_t *v, uint64_t n);
/* dim as in a checkpoint: rows first. */
void gguf_declare(
    gguf_writer *w, const char *name, uint32_t type, uint32_t rank, const int64_t *dim);
qfw_status gguf_begin(gguf_writer *w);
/* The next n values of the next tensor: whole rows. */
qfw_status gguf_rows(gguf_writer *w, const float *values, uint64_t n);
qfw_status gguf_finish(gguf_writer *w); /* `w` is gone, also on failure */
void gguf_abort(gguf_writer *w);        /* NULL is ignored */

/* --- reading --- */

typedef struct gguf_file gguf_file;
typedef struct gguf_key {
    const char *name;           /* NULL past the last */
    uint32_t type, of;          /* of: an array's items */
    uint64_t n;                 /* items of an array; else 1 */
    double number;              /* of a plain number or bool */
    const char *text;           /* of a string */
    const char *const *strings; /* of an array of strings */
    const void *numbers;        /* of an array of them, as the file has them */
} gguf_key;
typedef struct gguf_tensor {
    const char *name;
    uint32_t type, rank;
    int64_t dim[4];     /* rows first */
    uint64_t at, bytes; /* in the file */
} gguf_tensor;
/* E_GGUF_* with the byte at which the file is wrong. */
qfw_status gguf_open(const char *path, gguf_file **out);
void gguf_close(gguf_file *f);
const gguf_key *gguf_find(const gguf_file *f, const char *name); /* NULL: none */
const gguf_tensor *gguf_at(const gguf_file *f, uint32_t i);      /* NULL past the last */
/* A tensor's values; `out` has room for them. */
qfw_status gguf_read(const gguf_file *f, const gguf_tensor *t, float *out);

#endif

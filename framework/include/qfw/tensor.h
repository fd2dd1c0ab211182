/* tensor.h -- a typed, shaped, strided window onto memory that a backend owns.
 *
 * A tensor is a small value. Copy it, return it, put it in a struct: it never owns its bytes, the
 * qfw_mem it points into does. So a view cannot leak, no tensor can be freed twice, and there is
 * nothing to count.
 *
 * Shapes are written slowest dimension first. A fresh tensor is row-major: in [N, C] the C values
 * of one row are neighbours. A view may have wider strides. A kernel may ask for dense rows
 * (stride[rank-1] is 1); where a view lacks them the planner adds a copy and says so.
 *
 * The letters used in shape comments, everywhere in qfw:
 *   B sequences   T tokens in one   N rows: all tokens of a batch   C model width   F ffn width
 *   H query heads   G key/value heads   D head width   V vocabulary   R lora rank   S segments
 */
#ifndef QFW_TENSOR_H
#define QFW_TENSOR_H

#include "qfw/status.h"

/* dtypes: numbers never change; a field that holds one is a uint32_t. */
enum {
    QFW_F32 = 1,  /* activations; statistics, weights' gradients, optimizer state always */
    QFW_BF16 = 2, /* weights and activations */
    QFW_F16 = 3,  /* the same, for devices without bf16 */
    QFW_I32 = 4,  /* token ids and labels; label -100 takes no part in the loss */
    QFW_NF4 = 5,  /* frozen weights: two 4-bit codes a byte, scales in `quant` */
    QFW_FP4 = 6,  /* the same with the FP4 code */
    QFW_U8 = 7,   /* nested scales, 8-bit optimizer state */
    QFW_F64 = 8,  /* reference kernels only: the oracle's gradient checks */
    QFW_DTYPE_COUNT = 9,
};

#define QFW_MAX_DIMS     4
#define QFW_IGNORE_LABEL (-100)

typedef struct qfw_mem qfw_mem; /* device memory; only its backend looks inside */

/* The scales of a packed weight (QFW_NF4, QFW_FP4). Element i of the flat row-major weight lies in
 * byte i/2, the even one in the high nibble; its scale is absmax[i / block]. When `nested_block` is
 * not 0 the absmax are U8 codes: absmax[j] = map[code[j]] * nested_absmax[j / nested_block] +
 * offset (a rounded product, then a rounded sum, in fp32: bitsandbytes' double quantisation). */
typedef struct qfw_quant {
    uint32_t size, block;  /* values a scale: 64 */
    uint32_t nested_block; /* 256, or 0: absmax holds F32 */
    uint32_t compute;      /* QFW_BF16, QFW_F16: what values are rounded to; 0: F32, not */
    qfw_mem *absmax_mem;   /* F32 or U8 [ceil(n / block)] */
    qfw_mem *nested_mem;   /* F32 [ceil(absmax count / nested_block)] or NULL */
    qfw_mem *map_mem;      /* F32 [256] or NULL */
    uint64_t absmax_offset, nested_offset, map_offset; /* bytes into each */
    double offset;                                     /* an fp32 value */
} qfw_quant;
QFW_SEALED(qfw_quant, offset);

typedef struct qfw_tensor {
    uint32_t size, dtype, rank, flags; /* size is sizeof(qfw_tensor); flags: 0 */

    int64_t dim[QFW_MAX_DIMS];    /* dimensions past rank are 1 */
    int64_t stride[QFW_MAX_DIMS]; /* in values, not bytes; of a packed weight: row-major, unused */
    qfw_mem *mem;                 /* whose bytes; NULL for an absent tensor */
    uint64_t offset;              /* in bytes, of the first value inside mem */
    const qfw_quant *quant;       /* scales of a packed weight, else NULL */
    uint64_t id;                  /* the graph value it stands for; messages name it */
} qfw_tensor;
QFW_SEALED(qfw_tensor, id);

/* Bytes of one value; 0 for the packed dtypes (two values a byte) and for unknown numbers. */
static inline uint32_t qfw_dtype_bytes(uint32_t dtype) {
    switch (dtype) {
    case QFW_F64: return 8;
    case QFW_F32:
    case QFW_I32: return 4;
    case QFW_BF16:
    case QFW_F16: return 2;
    case QFW_U8: return 1;
    default: return 0;
    }
}

static inline const char *qfw_dtype_name(uint32_t dtype) {
    static const char *const names[QFW_DTYPE_COUNT] = {
        "none", "f32", "bf16", "f16", "i32", "nf4", "fp4", "u8", "f64"};
    return dtype < QFW_DTYPE_COUNT ? names[dtype] : "unknown";
}

static inline int64_t qfw_tensor_count(const qfw_tensor *t) {
    int64_t n = 1;
    for (uint32_t i = 0; i < t->rank && i < QFW_MAX_DIMS; i++) n *= t->dim[i];
    return n;
}

/* 1 when the values lie row-major without gaps. */
static inline int qfw_tensor_is_dense(const qfw_tensor *t) {
    int64_t step = 1;
    for (uint32_t i = t->rank; i-- > 0;) {
        if (t->dim[i] != 1 && t->stride[i] != step) return 0;
        step *= t->dim[i];
    }
    return 1;
}

#endif

/* ops.h -- the numbers of all ops, and the struct that carries one op to a backend.
 *
 * What an op computes, the order of its operands and its params stand in ops_nn.h (what
 * transformers are made of) and ops_prim.h (primitives that losses, optimizers and decompositions
 * are made of).
 *
 * Rules for every kernel, reference or backend:
 *   Reductions accumulate in fp32 or wider, in an order fixed by the shapes alone.
 *   An output never overlaps an input, except where the op says "in place": that pair may be the
 *   very same window. `acc` inputs are added to the output they are named for, and may be in place
 *   with it.
 *   Absent optional inputs and outputs are NULL. A dimension of 0 is legal and computes nothing.
 *   Packed weights (NF4, FP4) and I32 inputs are dense; floats may be strided in their rows, and
 *   are dense in the last dimension if the backend asks for it.
 */
#ifndef QFW_OPS_H
#define QFW_OPS_H

#include "qfw/graph.h"

/* X(NAME, number, name): numbers are never changed or used again; `name` is what messages say. */
#define QFW_OP_LIST(X)                                                                             \
    X(GEMM, 1, gemm)                                                                               \
    X(QMATMUL, 2, qmatmul)                                                                         \
    X(QMATMUL_DX, 3, qmatmul_dx)                                                                   \
    X(LORA, 4, lora)                                                                               \
    X(LORA_BWD, 5, lora_bwd)                                                                       \
    X(RMSNORM, 6, rmsnorm)                                                                         \
    X(RMSNORM_BWD, 7, rmsnorm_bwd)                                                                 \
    X(ROPE, 8, rope)                                                                               \
    X(SWIGLU, 9, swiglu)                                                                           \
    X(SWIGLU_BWD, 10, swiglu_bwd)                                                                  \
    X(ATTN, 11, attn)                                                                              \
    X(ATTN_BWD, 12, attn_bwd)                                                                      \
    X(EMBED, 13, embed)                                                                            \
    X(EMBED_BWD, 14, embed_bwd)                                                                    \
    X(TOKEN_LOGPROB, 15, token_logprob)                                                            \
    X(TOKEN_LOGPROB_BWD, 16, token_logprob_bwd)                                                    \
    X(XENT, 17, xent)                                                                              \
    X(XENT_BWD, 18, xent_bwd)                                                                      \
    X(ADAMW, 19, adamw)                                                                            \
    X(DEQUANT4, 20, dequant4)                                                                      \
    X(COPY, 21, copy)                                                                              \
    X(UNVIEW, 22, unview)                                                                          \
    X(CONCAT, 23, concat)                                                                          \
    X(FILL, 24, fill)                                                                              \
    X(SCALE, 25, scale)                                                                            \
    X(UNARY, 26, unary)                                                                            \
    X(BINARY, 27, binary)                                                                          \
    X(REDUCE, 28, reduce)                                                                          \
    X(SELECT, 29, select)                                                                          \
    X(SEGMENT_SUM, 30, segment_sum)                                                                \
    X(GATHER_ROWS, 31, gather_rows)                                                                \
    X(SORT, 32, sort)                                                                              \
    X(SOFTMAX, 33, softmax)                                                                        \
    X(SOFTMAX_BWD, 34, softmax_bwd)                                                                \
    X(DROPOUT, 35, dropout)                                                                        \
    X(QUANT8, 36, quant8)                                                                          \
    X(DEQUANT8, 37, dequant8)                                                                      \
    X(SCATTER_ROWS, 38, scatter_rows)

enum {
    QFW_OP_END = 39,        /* one past the last */
    QFW_OP_VENDOR = 0x8000, /* from here on: a backend's own fused ops */
#define QFW_OP_NUMBER(NAME, number, name) QFW_OP_##NAME = number,
    QFW_OP_LIST(QFW_OP_NUMBER)
#undef QFW_OP_NUMBER
};

#define QFW_MAX_IN  8
#define QFW_MAX_OUT 6

struct qfw_op {
    uint32_t size, code;
    uint32_t n_in, n_out;
    uint32_t param_bytes, flags; /* flags: 0 */
    const qfw_tensor *in[QFW_MAX_IN];
    const qfw_tensor *out[QFW_MAX_OUT];
    const void *params; /* the op's own params struct, param_bytes long; NULL when it has none */
    const char *label;  /* where it stands: "layers.3/qkv_proj"; for messages and profiles */
};
QFW_SEALED(qfw_op, label);

#endif

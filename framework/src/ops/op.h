/* op.h -- what the core knows about one op. Each module of this folder ends with one such const
 * struct per op it holds, op_<name>; ops.c makes the table from the list in qfw/ops.h. */
#ifndef OPS_OP_H
#define OPS_OP_H

#include "qfw/model.h"

typedef struct op_shape {
    uint32_t dtype, rank;
    int64_t dim[QFW_MAX_DIMS]; /* past rank: 1 */
} op_shape;

/* A shape rule is given the shapes of the inputs and says those of the outputs. It is also the one
 * place where params and shapes are checked: what passes here, every kernel may rely on. */
typedef struct op_infer {
    const op_shape *in[QFW_MAX_IN]; /* NULL: absent */
    const void *params;
    op_shape out[QFW_MAX_OUT]; /* filled by the rule; those not wanted are ignored */
    uint8_t want[QFW_MAX_OUT]; /* 1: wanted. The rule may refuse a combination */
} op_infer;

/* A VJP emits the backward of one op. in, out: the forward's values (0 absent); dout: the gradient
 * that arrives for each output, 0 for none; need[i]: whether the gradient of input i is wanted. It
 * sets din[i]. acc[i] is what other users of input i have given so far: a VJP that adds it in (an
 * `acc` operand) sets acc[i] to 0; else the caller adds. */
typedef struct op_vjp {
    qfw_graph *g;
    const void *params;
    const qfw_val *in, *out, *dout;
    const uint8_t *need;
    qfw_val *din, *acc;
} op_vjp;

/* A decomposition emits ops that together compute what the op does, and sets result[o] for every
 * output with want[o]. */
typedef struct op_decompose {
    qfw_graph *g;
    const void *params;
    const qfw_val *in;
    const uint8_t *want;
    qfw_val *result;
} op_decompose;

typedef struct op_def {
    const char *name; /* "rmsnorm_bwd": lower case, as in messages */
    uint32_t code, param_bytes;
    uint8_t n_in, n_in_min; /* with, and without, the optional trailing inputs */
    uint8_t n_out;
    uint8_t optional[QFW_MAX_IN]; /* 1: this input may be absent though later ones are not */
    uint8_t out_optional[QFW_MAX_OUT];
    /* Outputs that may be written in place: inputs 1-based, 0 none; first choice first. */
    uint8_t inplace[QFW_MAX_OUT][2];
    qfw_status (*infer)(op_infer *i);
    qfw_status (*vjp)(op_vjp *v);             /* NULL: no gradient flows through */
    qfw_status (*decompose)(op_decompose *d); /* NULL: none */
    qfw_status (*ref)(const qfw_op *op);      /* the reference kernel: mem are host addresses */
} op_def;

const op_def *op_find(uint32_t code); /* NULL: no such op */
const op_def *op_at(uint32_t i);      /* by place in the list; NULL past the last */

/* Check one op as a graph or a test would emit it: the counts and presence of operands, the size of
 * the params, then the module's shape rule. want NULL: all outputs. Absent outputs get rank 0,
 * dtype 0. */
qfw_status op_infer_shapes(uint32_t code, const op_shape *const *in, uint32_t n_in,
    const void *params, uint32_t param_bytes, const uint8_t *want, op_shape *out, uint32_t n_out);

#endif

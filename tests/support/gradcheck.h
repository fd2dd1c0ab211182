/* gradcheck.h -- what is true of every op, checked on one call of it: the gradient its VJP gives is
 * the one that central differences give, its decomposition computes the same, results in place are
 * the same bits.
 */
#ifndef SUPPORT_GRADCHECK_H
#define SUPPORT_GRADCHECK_H

#include "eager.h"

/* One call of an op: its operands as values of an eager graph. */
typedef struct op_call {
    uint32_t code, n_in, n_out, param_bytes;
    qfw_val in[QFW_MAX_IN];
    uint8_t want[QFW_MAX_OUT];
    const void *params;
} op_call;

/* Run it; any failure fails the test. */
void call_run(eager *e, const op_call *c, qfw_val *out);

/* Give output `out`, as a scalar product with a fixed random tensor, to the op's VJP and compare
 * the gradient of each float input with need[i] = 1 with central differences, all in F64; once
 * without and once with what other users of the inputs gave (acc). Inputs with need[i] = 0 must get
 * none. Relative tolerance 1e-7. */
void check_gradients(eager *e, const op_call *c, uint32_t out, const uint8_t *need);
/* The decomposition gives the wanted outputs within `tolerance` (relative) of the reference. */
void check_decomposition(eager *e, const op_call *c, double tolerance);
/* Each output that may be in place with an input has the same bits when it is. */
void check_in_place(eager *e, const op_call *c);
/* The call is refused with this status and a message that holds `text`. */
void check_refused(eager *e, const op_call *c, qfw_status status, const char *text);
/* The same after input i is replaced by a tensor of this shape. */
void check_refused_shape(
    eager *e, const op_call *c, uint32_t i, int64_t dim0, int64_t dim1, const char *text);

#endif

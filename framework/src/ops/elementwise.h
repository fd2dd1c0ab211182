/* elementwise.h -- the reference loop of ops whose every value depends on one value of each input.
 */
#ifndef OPS_ELEMENTWISE_H
#define OPS_ELEMENTWISE_H

#include "ops/ref.h"

/* n values of each input, from the same places: leave those of the output in x[0]. */
typedef void (*element_fn)(const void *params, double *const *x, int64_t n);

/* Run fn over op->out[0], at most three inputs broadcast to its shape as BINARY says. The output
 * may be in place with inputs of its own shape. */
qfw_status ref_elementwise(const qfw_op *op, element_fn fn);

#endif

/* logprob.h -- what XENT and TOKEN_LOGPROB share: the statistics of one row of logits, and their
 * checks.
 */
#ifndef OPS_LOGPROB_H
#define OPS_LOGPROB_H

#include "ops/op.h"

/* The outputs of XENT and TOKEN_LOGPROB, in order. */
enum { LOGP = 0, LSE = 1, ARGMAX = 2, ENTROPY = 3, MEAN = 4, LSE2 = 5, N_LOGPROB = 6 };

/* Store row n of the outputs from its V logits and its label; z NULL: a row that takes no part. */
void logprob_store(const qfw_op *op, int64_t n, const double *z, int64_t V, int32_t label);
/* Turn a row of logits into dz = coef * (onehot(label) - softmax(z)). */
void logprob_gradient(double *z, int64_t V, int32_t label, double coef, double lse);
/* Shapes of the outputs for N rows of this dtype. */
void logprob_shapes(op_infer *i, uint32_t dtype, int64_t N);
/* Every label is QFW_IGNORE_LABEL or a column; QFW_E_DATA else. */
qfw_status logprob_check_labels(const char *op, const qfw_tensor *labels, int64_t V);

#endif

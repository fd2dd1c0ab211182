/* trainer.h -- what a trainer plugin provides: examples from rows, and a loss from
 * log-probabilities.
 *
 * The step loop, accumulation, clipping, schedules, evaluation and checkpoints are the core's. A
 * trainer says what a row means and emits its loss and metrics as graph ops: forward only.
 *
 * Keys that the core acts on where a trainer declares them: disable_dropout (bool);
 * share_prompt (bool): rows that all sequences of an example begin with alike and without a label
 * stand once; precompute_ref_log_probs (bool), with NEEDS_REF: the reference runs once, before the
 * first step, and what it gives is kept in the file ref_cache (path).
 */
#ifndef QFW_TRAINER_H
#define QFW_TRAINER_H

#include "qfw/model.h"

enum {
    /* The loss compares with a frozen reference: it gets ref_hidden, the forward under the adapter
     * as it was; or, where that is 0, the input "ref_logp" F32[N], each row's label under it. */
    QFW_TRAINER_NEEDS_REF = 1u << 0,
    QFW_TRAINER_ROWS_INDEPENDENT = 1u << 1, /* a micro-batch may be split between its examples */
    /* inv_weight is 1/(this micro-batch's weight * micro-batches) */
    QFW_TRAINER_MICRO_MEAN = 1u << 2,
};

typedef struct qfw_trainer {
    uint32_t size, flags;                                                        /* QFW_TRAINER_* */
    qfw_status (*create)(const qfw_host *h, const qfw_cfg *cfg, qfw_inst **out); /* [init] */
    void (*destroy)(qfw_inst *t); /* NULL is ignored */
    /* Make one example of the encoder's row. QFW_E_DATA where the row is wrong.   [inst] */
    qfw_status (*encode)(qfw_inst *t, qfw_encoder *e);
    /* Put the sequences of n examples in batch order: refs has room for all of them; *n_refs is how
     * many were placed. *weight is what the batch counts for in the window's mean.   [inst] */
    qfw_status (*collate)(qfw_inst *t, const qfw_example *const *examples, uint32_t n,
        qfw_seq_ref *refs, uint32_t *n_refs, double *weight);
    /* Emit the loss F32[1], already times "inv_weight", so that the micro-batches of a window add
     * up to the loss of the step; and metrics. ref_hidden: see NEEDS_REF.   [inst] */
    qfw_status (*loss)(qfw_inst *t, qfw_graph *g, const qfw_batch_shape *shape,
        const qfw_lm_vals *lm, qfw_val ref_hidden, qfw_val *loss);
    /* Values of an input that `loss` declared under a name of its own; NULL if there is none.
     * [inst] */
    qfw_status (*fill)(
        qfw_inst *t, const qfw_batch *batch, const char *input, void *dst, uint64_t bytes);
} qfw_trainer;
QFW_SEALED(qfw_trainer, fill);

#endif

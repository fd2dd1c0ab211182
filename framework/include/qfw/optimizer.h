/* optimizer.h -- what an optimizer plugin provides: its state, and one update as graph ops.
 *
 * What depends on the step alone (bias corrections, rates) is computed by `scalars` on the host in
 * double and arrives as an F32 input, so the update graph is built once.
 */
#ifndef QFW_OPTIMIZER_H
#define QFW_OPTIMIZER_H

#include "qfw/model.h"

#define QFW_MAX_STATES  8
#define QFW_MAX_SCALARS 16

/* One parameter that is trained. */
typedef struct qfw_opt_param {
    uint32_t size, rank;
    int64_t dim[QFW_MAX_DIMS];
    uint32_t decay; /* 1: weight decay applies (not to norms) */
    uint32_t role;  /* QFW_ROLE_*; an adapter's matrices are QFW_ROLE_LINEAR */
    const char *name;
} qfw_opt_param;
QFW_SEALED(qfw_opt_param, name);

typedef struct qfw_state_spec {
    uint32_t size, n;
    struct {
        const char *name; /* "exp_avg": its name in checkpoints */
        uint32_t dtype, rank;
        int64_t dim[QFW_MAX_DIMS];
    } state[QFW_MAX_STATES];
} qfw_state_spec;
QFW_SEALED(qfw_state_spec, state);

typedef struct qfw_optimizer {
    uint32_t size, rsv;
    qfw_status (*create)(const qfw_host *h, const qfw_cfg *cfg, qfw_inst **out); /* [init] */
    void (*destroy)(qfw_inst *o); /* NULL is ignored */
    /* The tensors kept for one parameter between steps, all zero before the first.   [any] */
    qfw_status (*state_spec)(qfw_inst *o, const qfw_opt_param *p, qfw_state_spec *out);
    /* The scalars of update `step` (from 1) at rate `lr`; *n of them, at most QFW_MAX_SCALARS.
     * `decay` as in qfw_opt_param: they are asked for once with 1 and once with 0.   [any] */
    qfw_status (*scalars)(
        qfw_inst *o, uint64_t step, double lr, uint32_t decay, double *out, uint32_t *n);
    /* Emit the update of one parameter and `assign` its new value and states. `scalars` is F32[n];
     * `coef` F32[1] multiplies the gradient (clipping).   [inst] */
    qfw_status (*emit_step)(qfw_inst *o, qfw_graph *g, const qfw_opt_param *p, qfw_val param,
        qfw_val grad, const qfw_val *state, qfw_val scalars, qfw_val coef);
    /* Fill an input that emit_step declared; asked for before each update. NULL: it declares none.
     *                                                                               [any] */
    qfw_status (*fill)(qfw_inst *o, const char *name, void *data, uint64_t bytes);
} qfw_optimizer;
QFW_SEALED(qfw_optimizer, fill);

#endif

/* adamw.c -- one AdamW update of one parameter, as torch.optim.AdamW orders it. */
#include "base/error.h"
#include "ops/check.h"
#include "ops/ref.h"

#include <math.h>

static qfw_status same_shape(const char *name, const op_shape *s, const op_shape *p) {
    char found[SHAPE_TEXT], wanted[SHAPE_TEXT];
    QFW_TRY(check_dtype("adamw", name, s, DTYPES_FLOAT));
    int same = s->rank == p->rank;
    for (uint32_t d = 0; same && d < p->rank; d++) same = s->dim[d] == p->dim[d];
    if (same) return QFW_OK;
    return err_fail("E_OP_SHAPE", QFW_E_SHAPE, "adamw: %s is %s, wanted %s", name,
        shape_text(s->rank, s->dim, found), shape_text(p->rank, p->dim, wanted));
}

static qfw_status adamw_infer(op_infer *i) {
    static const char *const names[4] = {"p", "g", "m", "v"};
    const qfw_adamw_params *const p = i->params;
    for (int k = 0; k < 4; k++) QFW_TRY(same_shape(names[k], i->in[k], i->in[0]));
    QFW_TRY(check_operand("adamw", "scalars", i->in[4], DTYPES_FLOAT, 1, 3, 0));
    QFW_TRY(check_operand("adamw", "coef", i->in[5], DTYPES_FLOAT, 1, 1, 0));
    QFW_TRY(check_param(p->beta1 >= 0 && p->beta1 < 1, "adamw", "beta1", p->beta1, "in [0, 1)"));
    QFW_TRY(check_param(p->beta2 >= 0 && p->beta2 < 1, "adamw", "beta2", p->beta2, "in [0, 1)"));
    QFW_TRY(check_param(p->eps >= 0, "adamw", "eps", p->eps, "0 or more"));
    i->out[0] = *i->in[0];
    i->out[1] = *i->in[2];
    i->out[2] = *i->in[3];
    return QFW_OK;
}

static void adamw_row(void *arg, int64_t r, double *p) {
    const qfw_op *const op = arg;
    const qfw_adamw_params *const h = op->params;
    const int64_t width = op->in[0]->rank ? op->in[0]->dim[op->in[0]->rank - 1] : 1;
    double *const g = p + width, *const m = g + width, *const v = m + width;
    const double decay = ref_load(op->in[4], ref_at(op->in[4], 0));
    const double rate = ref_load(op->in[4], ref_at(op->in[4], 1));
    const double root = ref_load(op->in[4], ref_at(op->in[4], 2));
    const double coef = op->in[5] ? ref_load(op->in[5], 0) : 1;
    ref_row(op->in[0], r, p);
    ref_row(op->in[1], r, g);
    ref_row(op->in[2], r, m);
    ref_row(op->in[3], r, v);
    for (int64_t c = 0; c < width; c++) {
        const double gradient = g[c] * coef;
        m[c] += (gradient - m[c]) * (1 - h->beta1);
        v[c] = h->beta2 * v[c] + (1 - h->beta2) * gradient * gradient;
        p[c] = p[c] * decay - rate * m[c] / (sqrt(v[c]) / root + h->eps);
    }
    ref_set_row(op->out[0], r, p);
    ref_set_row(op->out[1], r, m);
    ref_set_row(op->out[2], r, v);
}

static qfw_status adamw_ref(const qfw_op *op) {
    const qfw_tensor *const p = op->in[0];
    const int64_t count = qfw_tensor_count(p), width = p->rank ? p->dim[p->rank - 1] : 1;
    if (count == 0) return QFW_OK;
    return ref_each_row(count / width, 4 * width, adamw_row, (void *)(uintptr_t)op);
}

const op_def op_adamw = {
    .name = "adamw",
    .code = QFW_OP_ADAMW,
    .param_bytes = sizeof(qfw_adamw_params),
    .n_in = 6,
    .n_in_min = 5,
    .n_out = 3,
    .inplace = {{1}, {3}, {4}},
    .infer = adamw_infer,
    .ref = adamw_ref,
};

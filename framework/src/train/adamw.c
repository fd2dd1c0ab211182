/* adamw.c -- the built-in optimizer, torch.optim.AdamW, written as a plugin would be: one op per
 * tensor, and scalars in double on the host. Its keys stand in [optimizer] itself. */
#include <math.h>

#include "base/error.h"
#include "base/mem.h"
#include "plugin/host.h"
#include "qfw/plugin.h"
#include "train/run.h"

struct qfw_inst { /* as this module sees its own instance */
    double weight_decay, beta1, beta2, eps;
};

static qfw_status adamw_create(const qfw_host *h, const qfw_cfg *cfg, qfw_inst **out) {
    (void)h;
    qfw_inst *o = mem_alloc(1, sizeof *o);
    *out = o;
    if (!o) return QFW_E_NOMEM;
    o->weight_decay = cfg_real(cfg, "weight_decay");
    o->beta1 = cfg_real(cfg, "adam_beta1");
    o->beta2 = cfg_real(cfg, "adam_beta2");
    o->eps = cfg_real(cfg, "adam_epsilon");
    return QFW_OK;
}

static void adamw_destroy(qfw_inst *o) { mem_free(o); }

static qfw_status adamw_state_spec(qfw_inst *o, const qfw_opt_param *p, qfw_state_spec *out) {
    static const char *const names[2] = {"exp_avg", "exp_avg_sq"};
    (void)o;
    out->n = 2;
    for (int i = 0; i < 2; i++) {
        out->state[i].name = names[i];
        out->state[i].dtype = QFW_F32;
        out->state[i].rank = p->rank;
        for (int d = 0; d < QFW_MAX_DIMS; d++) out->state[i].dim[d] = p->dim[d];
    }
    return QFW_OK;
}

static qfw_status adamw_scalars(
    qfw_inst *o, uint64_t step, double lr, uint32_t decay, double *out, uint32_t *n) {
    out[0] = decay ? 1 - lr * o->weight_decay : 1;
    out[1] = lr / (1 - pow(o->beta1, (double)step));
    out[2] = sqrt(1 - pow(o->beta2, (double)step));
    *n = 3;
    return QFW_OK;
}

static qfw_status adamw_emit_step(qfw_inst *o, qfw_graph *g, const qfw_opt_param *p, qfw_val param,
    qfw_val grad, const qfw_val *state, qfw_val scalars, qfw_val coef) {
    (void)p;
    const qfw_adamw_params params = {sizeof params, 0, o->beta1, o->beta2, o->eps};
    const qfw_val in[6] = {param, grad, state[0], state[1], scalars, coef};
    qfw_val out[3];
    QFW_TRY(g->api->op(g, QFW_OP_ADAMW, in, 6, &params, sizeof params, NULL, out, 3));
    QFW_TRY(g->api->assign(g, param, out[0]));
    QFW_TRY(g->api->assign(g, state[0], out[1]));
    return g->api->assign(g, state[1], out[2]);
}

static const qfw_optimizer adamw = {
    .size = sizeof adamw,
    .create = adamw_create,
    .destroy = adamw_destroy,
    .state_spec = adamw_state_spec,
    .scalars = adamw_scalars,
    .emit_step = adamw_emit_step,
};

const qfw_component adamw_component = {
    .size = sizeof adamw_component,
    .kind = QFW_KIND_OPTIMIZER,
    .name = "adamw",
    .summary = "torch.optim.AdamW",
    .iface = &adamw,
};

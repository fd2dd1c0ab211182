/* lion.c -- the Lion optimizer as a plugin: p -= lr * sign(b1 * m + (1 - b1) * g), with decoupled
 * weight decay; then m = b2 * m + (1 - b2) * g. One state, half of AdamW's.
 */
#include "qfw/optimizer.h"
#include "qfw/plugin.h"

struct qfw_inst {
    const qfw_host *host;
    double beta1, beta2, weight_decay;
};

static qfw_status lion_create(const qfw_host *h, const qfw_cfg *cfg, qfw_inst **out) {
    double beta1, beta2, weight_decay;
    *out = NULL;
    QFW_TRY(h->cfg_f64(h, cfg, "beta1", &beta1));
    QFW_TRY(h->cfg_f64(h, cfg, "beta2", &beta2));
    QFW_TRY(h->cfg_f64(h, cfg, "weight_decay", &weight_decay));
    qfw_inst *o = (qfw_inst *)h->heap_alloc(h, sizeof *o, 16);
    if (!o) return qfw_fail(h, QFW_E_NOMEM, "lion: no memory");
    *o = (qfw_inst){h, beta1, beta2, weight_decay};
    *out = o;
    return QFW_OK;
}

static void lion_destroy(qfw_inst *o) {
    if (o) o->host->heap_free(o->host, o);
}

static qfw_status lion_state_spec(qfw_inst *o, const qfw_opt_param *p, qfw_state_spec *out) {
    (void)o;
    out->n = 1;
    out->state[0].name = "exp_avg";
    out->state[0].dtype = QFW_F32;
    out->state[0].rank = p->rank;
    for (uint32_t d = 0; d < QFW_MAX_DIMS; d++) out->state[0].dim[d] = p->dim[d];
    return QFW_OK;
}

/* {1 - lr * weight_decay, lr} */
static qfw_status lion_scalars(
    qfw_inst *o, uint64_t step, double lr, uint32_t decay, double *out, uint32_t *n) {
    (void)step;
    out[0] = decay ? 1 - lr * o->weight_decay : 1;
    out[1] = lr;
    *n = 2;
    return QFW_OK;
}

/* y = beta * m + (1 - beta) * g */
static qfw_status blend(qfw_graph *g, double beta, qfw_val m, qfw_val grad, qfw_val *y) {
    qfw_val old, now;
    QFW_TRY(qfw_scale(g, m, (float)beta, 0, &old));
    QFW_TRY(qfw_scale(g, grad, (float)(1 - beta), 0, &now));
    return qfw_binary(g, QFW_ADD, old, now, y);
}

static qfw_status lion_emit_step(qfw_inst *o, qfw_graph *g, const qfw_opt_param *p, qfw_val param,
    qfw_val grad, const qfw_val *state, qfw_val scalars, qfw_val coef) {
    const int64_t one[1] = {1}, step[1] = {1};
    qfw_val keep, lr, way, m;
    (void)p;
    QFW_TRY(g->api->view(g, scalars, 1, one, step, 0, &keep));
    QFW_TRY(g->api->view(g, scalars, 1, one, step, 1, &lr));
    QFW_TRY(qfw_binary(g, QFW_MUL, grad, coef, &grad));
    QFW_TRY(blend(g, o->beta1, state[0], grad, &way));
    QFW_TRY(qfw_unary(g, QFW_SIGN, way, &way));
    QFW_TRY(qfw_binary(g, QFW_MUL, way, lr, &way));
    QFW_TRY(qfw_binary(g, QFW_MUL, param, keep, &keep));
    QFW_TRY(qfw_binary(g, QFW_SUB, keep, way, &way));
    QFW_TRY(blend(g, o->beta2, state[0], grad, &m));
    QFW_TRY(g->api->assign(g, param, way));
    return g->api->assign(g, state[0], m);
}

static const qfw_option lion_options[] = {
    QFW_OPTION(QFW_OPT_FLOAT, "beta1", "0.9", 0, 1, NULL, "how much of the step is momentum"),
    QFW_OPTION(QFW_OPT_FLOAT, "beta2", "0.99", 0, 1, NULL, "decay of the momentum"),
    QFW_OPTION(QFW_OPT_FLOAT, "weight_decay", "0", 0, 1e3, NULL, "decoupled; not on norms"),
};

static const qfw_optimizer lion = {
    .size = sizeof lion,
    .create = lion_create,
    .destroy = lion_destroy,
    .state_spec = lion_state_spec,
    .scalars = lion_scalars,
    .emit_step = lion_emit_step,
};

static const qfw_component lion_component = {
    .size = sizeof lion_component,
    .kind = QFW_KIND_OPTIMIZER,
    .name = "lion",
    .summary = "Lion: the sign of a momentum",
    .options = lion_options,
    .n_options = sizeof lion_options / sizeof lion_options[0],
    .iface = &lion,
};
static const qfw_component *const lion_components[] = {&lion_component};

QFW_PLUGIN("lion", "0.1.0", "qfw authors", "MIT", 1u << QFW_KIND_OPTIMIZER, lion_components);

/* adamw.c -- the built-in optimizers, torch.optim.AdamW and bitsandbytes' AdamW8bit, written as
 * plugins would be: ops on each tensor, and scalars in double on the host. Their keys stand in
 * [optimizer] itself.
 *
 * With 8 bits, mean and square live as codes of a map and one scale a block of 256 values: 2 bytes
 * a parameter where fp32 takes 8. As there, small tensors and embeddings stay in fp32, and weights
 * are updated before the states are rounded.
 */
#include <math.h>

#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "ops/quant4.h"
#include "plugin/host.h"
#include "qfw/ops_prim.h"
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

/* The new parameter, mean and square. */
static qfw_status emit_adamw(const qfw_inst *o, qfw_graph *g, const qfw_val in[6], qfw_val out[3]) {
    const qfw_adamw_params params = {sizeof params, 0, o->beta1, o->beta2, o->eps};
    return g->api->op(g, QFW_OP_ADAMW, in, 6, &params, sizeof params, NULL, out, 3);
}

static qfw_status adamw_emit_step(qfw_inst *o, qfw_graph *g, const qfw_opt_param *p, qfw_val param,
    qfw_val grad, const qfw_val *state, qfw_val scalars, qfw_val coef) {
    const qfw_val in[6] = {param, grad, state[0], state[1], scalars, coef};
    qfw_val out[3];
    (void)p;
    QFW_TRY(emit_adamw(o, g, in, out));
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

/* --- with states of 8 bits --- */

enum { BLOCK = 256, LEAST = 4096, CODE_1 = 0, CODE_2 = 1, ABSMAX_1 = 2, ABSMAX_2 = 3 };

static int64_t count(const qfw_opt_param *p) {
    int64_t n = 1;
    for (uint32_t d = 0; d < p->rank; d++) n *= p->dim[d];
    return n;
}

static int stays_wide(const qfw_opt_param *p) {
    return count(p) < LEAST || p->role == QFW_ROLE_EMBED;
}

static qfw_status adamw8_state_spec(qfw_inst *o, const qfw_opt_param *p, qfw_state_spec *out) {
    static const char *const names[4] = {"state1", "state2", "absmax1", "absmax2"};
    if (stays_wide(p)) return adamw_state_spec(o, p, out);
    out->n = 4;
    for (int i = 0; i < 4; i++) {
        const int is_code = i < ABSMAX_1;
        out->state[i].name = names[i];
        out->state[i].dtype = is_code ? QFW_U8 : QFW_F32;
        out->state[i].rank = 1;
        out->state[i].dim[0] = is_code ? count(p) : (count(p) + BLOCK - 1) / BLOCK;
    }
    return QFW_OK;
}

/* A value of one row of codes, in the parameter's shape. */
static qfw_status emit_wide(qfw_graph *g, const qfw_opt_param *p, const qfw_val *state, int which,
    qfw_val map, qfw_val *v) {
    int64_t step[QFW_MAX_DIMS] = {0}, next = 1;
    qfw_val flat;
    QFW_TRY(qfw_dequant8(g, state[CODE_1 + which], state[ABSMAX_1 + which], map, BLOCK, &flat));
    for (uint32_t d = p->rank; d-- > 0; next *= p->dim[d]) step[d] = next;
    return g->api->view(g, flat, p->rank, p->dim, step, 0, v);
}

static qfw_status emit_codes(
    qfw_graph *g, const qfw_opt_param *p, const qfw_val *state, int which, qfw_val map, qfw_val v) {
    const int64_t n[1] = {count(p)}, step[1] = {1};
    qfw_val flat, code, absmax;
    QFW_TRY(g->api->view(g, v, 1, n, step, 0, &flat));
    QFW_TRY(qfw_quant8(g, flat, map, BLOCK, &code, &absmax));
    QFW_TRY(g->api->assign(g, state[CODE_1 + which], code));
    return g->api->assign(g, state[ABSMAX_1 + which], absmax);
}

static qfw_status adamw8_emit_step(qfw_inst *o, qfw_graph *g, const qfw_opt_param *p, qfw_val param,
    qfw_val grad, const qfw_val *state, qfw_val scalars, qfw_val coef) {
    static const char *const names[2] = {"qmap1", "qmap2"};
    const int64_t values[1] = {256};
    qfw_val in[6] = {param, grad, 0, 0, scalars, coef}, out[3], map[2];
    if (stays_wide(p)) return adamw_emit_step(o, g, p, param, grad, state, scalars, coef);
    for (int i = 0; i < 2; i++) {
        QFW_TRY(g->api->input(g, names[i], QFW_F32, 1, values, &map[i]));
        QFW_TRY(emit_wide(g, p, state, i, map[i], &in[2 + i]));
    }
    QFW_TRY(emit_adamw(o, g, in, out));
    QFW_TRY(g->api->assign(g, param, out[0]));
    QFW_TRY(emit_codes(g, p, state, 0, map[0], out[1]));
    return emit_codes(g, p, state, 1, map[1], out[2]);
}

static qfw_status adamw8_fill(qfw_inst *o, const char *name, void *data, uint64_t bytes) {
    (void)o;
    memcpy(data, strcmp(name, "qmap1") ? quant8_unsigned_map() : quant8_map(), (size_t)bytes);
    return QFW_OK;
}

static const qfw_optimizer adamw8 = {
    .size = sizeof adamw8,
    .create = adamw_create,
    .destroy = adamw_destroy,
    .state_spec = adamw8_state_spec,
    .scalars = adamw_scalars,
    .emit_step = adamw8_emit_step,
    .fill = adamw8_fill,
};

static const qfw_component built_in[] = {
    {.size = sizeof built_in[0],
        .kind = QFW_KIND_OPTIMIZER,
        .name = "adamw",
        .summary = "torch.optim.AdamW",
        .iface = &adamw},
    {.size = sizeof built_in[0],
        .kind = QFW_KIND_OPTIMIZER,
        .name = "adamw_8bit",
        .summary = "bitsandbytes' AdamW8bit: mean and square in 8 bits, block-wise",
        .iface = &adamw8},
};

const qfw_component *optimizer_built_in(uint32_t i) {
    return i < sizeof built_in / sizeof built_in[0] ? &built_in[i] : NULL;
}

const qfw_component *optimizer_by_name(const char *name) {
    const qfw_component *c;
    for (uint32_t i = 0; (c = optimizer_built_in(i)) != NULL; i++)
        if (!strcmp(c->name, name)) return c;
    return NULL;
}

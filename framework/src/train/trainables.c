/* trainables.c -- what is trained, with its gradient and the optimizer's state for it. */
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "train/run.h"

static qfw_status declare_states(run *r, trainable *t) {
    char name[320];
    t->spec = (qfw_state_spec){.size = sizeof t->spec};
    QFW_TRY(r->optimizer->state_spec(r->optimizer_inst, &t->info, &t->spec));
    if (t->spec.n > QFW_MAX_STATES)
        return err_fail("E_PLUG_OPTIMIZER", QFW_E_INTERNAL, "optimizer %s: %u states, at most %d",
            r->optimizer_component->name, t->spec.n, QFW_MAX_STATES);
    for (uint32_t i = 0; i < t->spec.n; i++) {
        snprintf(name, sizeof name, "%s:%s", t->spec.state[i].name, t->param->name);
        QFW_TRY(store_add(r->store, name, QFW_MEM_RUN, t->spec.state[i].dtype,
            t->spec.state[i].rank, t->spec.state[i].dim, 0, 0, &t->state[i]));
    }
    return QFW_OK;
}

static qfw_status declare_one(run *r, store_entry *param, uint32_t role) {
    trainable *t = &r->trainables[r->n_trainables];
    char name[320];
    t->param = param;
    t->info = (qfw_opt_param){
        .size = sizeof t->info, .rank = param->t.rank, .role = role, .name = param->name};
    t->info.decay = role != QFW_ROLE_NORM;
    memcpy(t->info.dim, param->t.dim, sizeof t->info.dim);
    snprintf(name, sizeof name, "grad:%s", param->name);
    QFW_TRY(store_add(
        r->store, name, QFW_MEM_RUN, QFW_F32, param->t.rank, param->t.dim, 0, 0, &t->grad));
    r->n_trainables++;
    return declare_states(r, t);
}

qfw_status trainables_declare(run *r) {
    const uint32_t n = r->n_loras ? 2 * r->n_loras : r->n_weights;
    r->trainables = mem_alloc(n, sizeof *r->trainables);
    if (!r->trainables) return QFW_E_NOMEM;
    for (uint32_t i = 0; i < r->n_loras; i++) {
        QFW_TRY(declare_one(r, r->loras[i].a, QFW_ROLE_LINEAR));
        QFW_TRY(declare_one(r, r->loras[i].b, QFW_ROLE_LINEAR));
        r->trainables[r->n_trainables - 1].is_lora_b = 1;
    }
    if (r->n_loras) return QFW_OK;
    for (uint32_t i = 0; i < r->n_weights; i++)
        if (!r->weights[i].tied)
            QFW_TRY(declare_one(r, r->weights[i].entry, r->weights[i].desc.role));
    return QFW_OK;
}

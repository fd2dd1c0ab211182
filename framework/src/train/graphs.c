/* graphs.c -- building, planning and running the graphs of a run. */
#include "train/graphs.h"

#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "train/judge.h"
#include "train/neftune.h"
#include "train/packing.h"
#include "train/reference.h"

static store_entry *find_weight(const void *arg, const char *name) {
    const run *r = arg;
    for (uint32_t i = 0; i < r->n_weights; i++)
        if (!strcmp(r->weights[i].desc.name, name)) return r->weights[i].entry;
    return NULL;
}

qfw_status graphs_place(const run *r, graph *g, const qfw_val *keep, uint32_t n_keep, plan **out) {
    const char *word = cfg_text(run_cfg(r, SECTION_BACKEND), "fallback");
    const uint32_t fallback = !strcmp(word, "allow")  ? FALLBACK_ALLOW
                              : !strcmp(word, "warn") ? FALLBACK_WARN
                                                      : FALLBACK_ERROR;
    const qfw_status status = plan_create(g, &r->dev, fallback, keep, n_keep, out);
    const ini_entry *e = ini_find(r->ini, "backend", "fallback");
    char place[512];
    if (status == QFW_E_CONFIG && e)
        err_prefix("%s", ini_place_named(r->ini, e, place, sizeof place));
    return status;
}

graph_env graphs_env(const run *r, uint32_t training) {
    return (graph_env){.host = r->host,
        .store = r->store,
        .param = find_weight,
        .arg = r,
        .loras = r->loras,
        .n_loras = r->n_loras + r->n_reference_loras,
        .training = training,
        .seed = r->seed,
        .compute = r->compute};
}

static qfw_status open_graph(const run *r, pass *p, uint32_t training) {
    p->env = graphs_env(r, training);
    return graph_create(&p->env, &p->g);
}

static void close_pass(pass *p) {
    exec_destroy(p->e);
    plan_destroy(p->p);
    graph_destroy(p->g);
    *p = (pass){.g = NULL};
}

/* state := state + gradient of the loss, for everything that is trained. */
static qfw_status emit_gradients(run *r, pass *p) {
    qfw_graph *g = &p->g->pub;
    qfw_val *wrt = mem_alloc(2 * (size_t)r->n_trainables, sizeof *wrt);
    if (!wrt) return QFW_E_NOMEM;
    qfw_val *grads = wrt + r->n_trainables;
    qfw_status status = QFW_OK;
    for (uint32_t i = 0; status == QFW_OK && i < r->n_trainables; i++)
        status = graph_store_value(p->g, r->trainables[i].param, &wrt[i]);
    if (status == QFW_OK)
        status = graph_backward(p->g, p->loss, wrt, r->n_trainables, r->recompute, grads);
    for (uint32_t i = 0; status == QFW_OK && i < r->n_trainables; i++) {
        qfw_val state, sum;
        if (!grads[i]) continue;
        status = graph_store_value(p->g, r->trainables[i].grad, &state);
        if (status == QFW_OK) status = qfw_binary(g, QFW_ADD, state, grads[i], &sum);
        if (status == QFW_OK) status = g->api->assign(g, state, sum);
    }
    mem_free(wrt);
    return status;
}

/* The forward under the frozen adapter, where the trainer wants one in each pass; else *hidden is
 * 0. */
static qfw_status emit_reference(
    run *r, qfw_graph *g, const qfw_batch_shape *shape, qfw_val *hidden) {
    qfw_lm_vals lm = {.size = sizeof lm};
    *hidden = 0;
    if (!(r->trainer->flags & QFW_TRAINER_NEEDS_REF) || reference_is_stored(r)) return QFW_OK;
    QFW_TRY(g->api->adapter(g, QFW_ADAPTER_REFERENCE));
    QFW_TRY(r->model->forward(r->model_inst, g, shape, &lm));
    QFW_TRY(g->api->adapter(g, QFW_ADAPTER_POLICY));
    *hidden = lm.hidden;
    return QFW_OK;
}

static qfw_status emit_labels(pass *p, const qfw_batch_shape *shape, const qfw_lm_vals *lm) {
    qfw_graph *g = &p->g->pub;
    const int64_t rows[1] = {shape->n_rows};
    qfw_logprob_vals v;
    qfw_val labels;
    QFW_TRY(g->api->input(g, "labels", QFW_I32, 1, rows, &labels));
    QFW_TRY(qfw_token_logprob(g, lm->hidden, lm->lm_head, labels, 0, &v));
    p->loss = v.logp;
    return QFW_OK;
}

static qfw_status build_pass(run *r, uint32_t kind, int64_t n_rows, pass *p) {
    const graphs *gs = r->graphs;
    const qfw_batch_shape shape = {
        sizeof shape, kind == PASS_TRAIN, n_rows, gs->n_segments[kind], gs->n_examples[kind]};
    qfw_lm_vals lm = {.size = sizeof lm};
    qfw_val reference = 0;
    /* A trainer may ask for no dropout: its own key, as torch's trainers call it. */
    const int no_dropout = cfg_int(r->sections[SECTION_TRAINER_OWN].cfg, "disable_dropout") != 0;
    p->n_rows = n_rows;
    QFW_TRY(open_graph(r, p, shape.training && !no_dropout));
    p->env.embed_noise = shape.training && neftune_alpha(r) > 0;
    qfw_graph *g = &p->g->pub;
    if (kind != PASS_REFERENCE) QFW_TRY(emit_reference(r, g, &shape, &reference));
    QFW_TRY(r->model->forward(r->model_inst, g, &shape, &lm));
    p->past_model = (qfw_val)p->g->n_values + 1;
    if (kind == PASS_REFERENCE)
        QFW_TRY(emit_labels(p, &shape, &lm));
    else
        QFW_TRY(r->trainer->loss(r->trainer_inst, g, &shape, &lm, reference, &p->loss));
    if (p->g->n_metrics > MAX_METRICS)
        return err_fail("E_PLUG_METRICS", QFW_E_INTERNAL, "trainer %s: %zu metrics, at most %d",
            r->trainer_component->name, p->g->n_metrics, MAX_METRICS);
    if (kind == PASS_TRAIN) QFW_TRY(emit_gradients(r, p));
    return graphs_place(r, p->g, &p->loss, 1, &p->p);
}

static qfw_status add_pass(run *r, uint32_t kind, int64_t n_rows, pass **out) {
    graphs *gs = r->graphs;
    if (mem_grow(&gs->passes[kind], &gs->cap_passes[kind], gs->n_passes[kind] + 1, sizeof(pass *)))
        return QFW_E_NOMEM;
    pass *p = mem_alloc(1, sizeof *p);
    if (!p) return QFW_E_NOMEM;
    const qfw_status status = build_pass(r, kind, n_rows, p);
    if (status != QFW_OK) {
        close_pass(p);
        mem_free(p);
        return status;
    }
    gs->passes[kind][gs->n_passes[kind]++] = p;
    *out = p;
    return QFW_OK;
}

/* sumsq = sum over all gradients of g^2. */
static qfw_status build_norm(run *r) {
    graphs *gs = r->graphs;
    QFW_TRY(open_graph(r, &gs->norm, 0));
    qfw_graph *g = &gs->norm.g->pub;
    for (uint32_t i = 0; i < r->n_trainables; i++) {
        qfw_val grad, sum;
        QFW_TRY(graph_store_value(gs->norm.g, r->trainables[i].grad, &grad));
        QFW_TRY(qfw_reduce_all(g, QFW_SUMSQ, grad, &sum));
        if (i) QFW_TRY(qfw_binary(g, QFW_ADD, gs->sumsq, sum, &sum));
        gs->sumsq = sum;
    }
    return graphs_place(r, gs->norm.g, &gs->sumsq, 1, &gs->norm.p);
}

/* The optimizer's scalars, by rate (that of LoRA's B last) and by whether weights decay. */
enum { RATES = 2 };
static const char *const scalar_names[RATES][2] = {
    {"scalars_plain", "scalars_decay"}, {"scalars_b_plain", "scalars_b_decay"}};

static double rate_of_b(const run *r) {
    return cfg_real(run_cfg(r, SECTION_OPTIMIZER), "loraplus_lr_ratio");
}

/* Rates that differ. */
static uint32_t n_rates(const run *r) { return rate_of_b(r) < 1 || rate_of_b(r) > 1 ? 2 : 1; }

static qfw_status build_update(run *r) {
    graphs *gs = r->graphs;
    double unused[QFW_MAX_SCALARS];
    const int64_t one[1] = {1};
    const uint32_t rates = n_rates(r);
    qfw_val scalars[RATES][2], coef;
    QFW_TRY(open_graph(r, &gs->update, 0));
    qfw_graph *g = &gs->update.g->pub;
    QFW_TRY(r->optimizer->scalars(r->optimizer_inst, 1, 0, 1, unused, &gs->n_scalars));
    const int64_t n[1] = {gs->n_scalars};
    for (uint32_t i = 0; i < 2 * rates; i++)
        QFW_TRY(
            g->api->input(g, scalar_names[i / 2][i % 2], QFW_F32, 1, n, &scalars[i / 2][i % 2]));
    QFW_TRY(g->api->input(g, "coef", QFW_F32, 1, one, &coef));
    for (uint32_t i = 0; i < r->n_trainables; i++) {
        const trainable *t = &r->trainables[i];
        qfw_val param, grad, zero, state[QFW_MAX_STATES];
        QFW_TRY(graph_store_value(gs->update.g, t->param, &param));
        QFW_TRY(graph_store_value(gs->update.g, t->grad, &grad));
        for (uint32_t s = 0; s < t->spec.n; s++)
            QFW_TRY(graph_store_value(gs->update.g, t->state[s], &state[s]));
        QFW_TRY(r->optimizer->emit_step(r->optimizer_inst, g, &t->info, param, grad, state,
            scalars[rates > 1 && t->is_lora_b][t->info.decay], coef));
        QFW_TRY(qfw_fill(g, 0, t->info.rank, t->info.dim, &zero));
        QFW_TRY(g->api->assign(g, grad, zero));
    }
    return graphs_place(r, gs->update.g, NULL, 0, &gs->update.p);
}

uint64_t graphs_value_bytes(const graph *g, qfw_val v) {
    const op_shape *shape = &graph_get(g, v)->shape;
    uint64_t bytes = qfw_dtype_bytes(shape->dtype);
    for (uint32_t d = 0; d < shape->rank; d++) bytes *= (uint64_t)shape->dim[d];
    return bytes;
}

uint64_t graphs_largest_input(const graph *g) {
    uint64_t most = 0;
    for (qfw_val v = 1; v <= g->n_values; v++) {
        const uint64_t bytes = graph_get(g, v)->kind == VALUE_INPUT ? graphs_value_bytes(g, v) : 0;
        if (bytes > most) most = bytes;
    }
    return most;
}

static void note_need(graphs *gs, const plan *p) {
    if (!p) return;
    const uint64_t largest = graphs_largest_input(p->g);
    if (largest > gs->scratch_bytes) gs->scratch_bytes = largest;
    if (p->step_bytes > gs->step_bytes) gs->step_bytes = p->step_bytes;
    if (p->host_bytes > gs->host_bytes) gs->host_bytes = p->host_bytes;
    if (p->input_bytes > gs->input_bytes) gs->input_bytes = p->input_bytes;
}

/* Sequences of an example, and the longest batch that the data can give. A kind may be measured on
 * several sets. */
static qfw_status measure(run *r, uint32_t kind, dataset *d, uint32_t batch_size) {
    graphs *gs = r->graphs;
    const packing *units = d == r->train ? r->units : NULL;
    uint64_t longest = 0;
    const int64_t examples = units ? packing_examples(units, batch_size) : batch_size;
    const int64_t segments = examples * batch_segments(r, d);
    QFW_TRY(packing_longest(r, units, d, batch_size, &longest));
    const int64_t rows = batch_bucket((int64_t)longest);
    if (examples > gs->n_examples[kind]) gs->n_examples[kind] = examples;
    if (segments > gs->n_segments[kind]) gs->n_segments[kind] = segments;
    if (rows > gs->max_rows[kind]) gs->max_rows[kind] = rows;
    return QFW_OK;
}

static qfw_status plan_kind(run *r, uint32_t kind) {
    pass *unused;
    return add_pass(r, kind, r->graphs->max_rows[kind], &unused);
}

qfw_status graphs_plan(run *r) {
    graphs *gs = r->graphs = mem_alloc(1, sizeof *r->graphs);
    if (!gs) return QFW_E_NOMEM;
    gs->profile = r->flags.profile;
    QFW_TRY(measure(r, PASS_TRAIN, r->train, r->batch_size));
    QFW_TRY(plan_kind(r, PASS_TRAIN));
    if (r->eval) {
        QFW_TRY(measure(r, PASS_EVAL, r->eval, r->eval_batch_size));
        QFW_TRY(plan_kind(r, PASS_EVAL));
    }
    if (reference_is_stored(r)) {
        QFW_TRY(measure(r, PASS_REFERENCE, r->train, r->batch_size));
        if (r->eval) QFW_TRY(measure(r, PASS_REFERENCE, r->eval, r->batch_size));
        QFW_TRY(plan_kind(r, PASS_REFERENCE));
    }
    QFW_TRY(build_norm(r));
    QFW_TRY(build_update(r));
    for (uint32_t kind = 0; kind < PASS_KINDS; kind++)
        for (size_t i = 0; i < gs->n_passes[kind]; i++) note_need(gs, gs->passes[kind][i]->p);
    note_need(gs, gs->norm.p);
    note_need(gs, gs->update.p);
    return QFW_OK;
}

static qfw_status make_exec(run *r, pass *p) {
    QFW_TRY(exec_create(p->p, &r->dev, r->graphs->arena, &p->e));
    exec_profile(p->e, r->graphs->profile);
    return QFW_OK;
}

/* The weights are loaded: what only the backend's own ops read is the backend's from now on. */
static qfw_status seal_weights(run *r) {
    const graphs *gs = r->graphs;
    const plan *plans[16] = {gs->norm.p, gs->update.p};
    uint32_t n = 2;
    for (uint32_t kind = 0; kind < PASS_KINDS; kind++)
        for (size_t i = 0; i < gs->n_passes[kind] && n < 16; i++)
            plans[n++] = gs->passes[kind][i]->p;
    if (r->judge) n += r->judge->plans(r->judge_inst, plans + n, 16 - n);
    return plan_seal(r->store, plans, n);
}

qfw_status graphs_alloc(run *r) {
    graphs *gs = r->graphs;
    QFW_TRY(
        exec_arena_create(&r->dev, gs->step_bytes, gs->host_bytes, gs->input_bytes, &gs->arena));
    for (uint32_t kind = 0; kind < PASS_KINDS; kind++)
        for (size_t i = 0; i < gs->n_passes[kind]; i++) QFW_TRY(make_exec(r, gs->passes[kind][i]));
    QFW_TRY(make_exec(r, &gs->norm));
    QFW_TRY(make_exec(r, &gs->update));
    gs->scratch = mem_alloc_aligned((size_t)gs->scratch_bytes + 64, 64);
    return gs->scratch ? seal_weights(r) : QFW_E_NOMEM;
}

void graphs_destroy(graphs *gs) {
    if (!gs) return;
    for (uint32_t kind = 0; kind < PASS_KINDS; kind++) {
        for (size_t i = 0; i < gs->n_passes[kind]; i++) {
            close_pass(gs->passes[kind][i]);
            mem_free(gs->passes[kind][i]);
        }
        mem_free(gs->passes[kind]);
    }
    close_pass(&gs->norm);
    close_pass(&gs->update);
    exec_arena_destroy(gs->arena);
    for (uint32_t i = 0; i < REFERENCE_SETS; i++) reference_free(&gs->reference[i]);
    mem_free(gs->scratch);
    mem_free(gs);
}

/* The pass for at least n_rows rows. A plan that would not fit the arena gives way to the largest
 * one. */
static qfw_status find_pass(run *r, uint32_t kind, int64_t n_rows, pass **out) {
    graphs *gs = r->graphs;
    for (size_t i = 0; i < gs->n_passes[kind]; i++) {
        *out = gs->passes[kind][i];
        if ((*out)->n_rows == n_rows) return QFW_OK;
    }
    QFW_TRY(add_pass(r, kind, n_rows, out));
    const plan *p = (*out)->p;
    if (p->step_bytes <= gs->step_bytes && p->host_bytes <= gs->host_bytes &&
        p->input_bytes <= gs->input_bytes)
        return make_exec(r, *out);
    close_pass(*out);
    mem_free(*out);
    gs->n_passes[kind]--;
    *out = gs->passes[kind][0];
    return QFW_OK;
}

/* The core's own inputs by name; NULL: a plugin fills it. */
static const void *core_input(const batch *b, const char *name, const float *inv_weight) {
    const struct {
        const char *name;
        const void *data;
    } inputs[] = {{"tokens", b->tokens}, {"labels", b->labels}, {"positions", b->positions},
        {"row_key", b->row_key}, {"segments", b->segments}, {"row_segment", b->row_segment},
        {"segment_example", b->segment_example}, {"inv_weight", inv_weight},
        {"ref_logp", b->ref_logp}};
    for (size_t i = 0; i < sizeof inputs / sizeof inputs[0]; i++)
        if (!strcmp(inputs[i].name, name)) return inputs[i].data;
    return NULL;
}

static qfw_status write_inputs(run *r, pass *p, const batch *b, float inv_weight) {
    const char *name;
    qfw_val v;
    for (uint32_t i = 0; (name = exec_input(p->e, i, &v)) != NULL; i++) {
        const uint64_t bytes = graphs_value_bytes(p->g, v);
        const void *data = core_input(b, name, &inv_weight);
        if (!data && !strcmp(name, "embed_noise")) {
            neftune_fill(r, b, p->n_rows, graph_get(p->g, v)->shape.dim[1], r->graphs->scratch);
            data = r->graphs->scratch;
        }
        if (!data) {
            const int of_model = v < p->past_model;
            qfw_status (*fill)(qfw_inst *, const qfw_batch *, const char *, void *, uint64_t) =
                of_model ? r->model->fill : r->trainer->fill;
            if (!fill)
                return err_fail("E_PLUG_INPUT", QFW_E_INTERNAL,
                    "plugin %s declares the input '%s' but has no fill",
                    (of_model ? r->model_component : r->trainer_component)->name, name);
            QFW_TRY(fill(of_model ? r->model_inst : r->trainer_inst, &b->pub, name,
                r->graphs->scratch, bytes));
            data = r->graphs->scratch;
        }
        QFW_TRY(exec_write(p->e, name, data, bytes));
    }
    return QFW_OK;
}

static qfw_status read_scalar(pass *p, qfw_val v, double *out) {
    float value = 0;
    QFW_TRY(exec_read(p->e, v, &value, sizeof value));
    *out = (double)value;
    return QFW_OK;
}

static qfw_status run_pass(run *r, uint32_t kind, batch *b, double inv_weight, pass **p) {
    QFW_TRY(find_pass(r, kind, b->pub.shape.n_rows, p));
    b->pub.shape.n_rows = (*p)->n_rows;
    QFW_TRY(write_inputs(r, *p, b, (float)inv_weight));
    return exec_run((*p)->e);
}

qfw_status graphs_reference(run *r, batch *b, float *logp) {
    pass *p = NULL;
    QFW_TRY(run_pass(r, PASS_REFERENCE, b, 1, &p));
    return exec_read(p->e, p->loss, logp, (uint64_t)p->n_rows * sizeof *logp);
}

qfw_status graphs_run(run *r, uint32_t kind, batch *b, double inv_weight, pass_result *out) {
    pass *p = NULL;
    QFW_TRY(run_pass(r, kind, b, inv_weight, &p));
    QFW_TRY(read_scalar(p, p->loss, &out->loss));
    out->n_metrics = (uint32_t)p->g->n_metrics;
    for (uint32_t i = 0; i < out->n_metrics; i++) {
        const graph_metric *m = &p->g->metrics[i];
        out->weight[i] = 1;
        QFW_TRY(read_scalar(p, m->value, &out->value[i]));
        if (m->weight) QFW_TRY(read_scalar(p, m->weight, &out->weight[i]));
    }
    return QFW_OK;
}

const char *graphs_metric(const run *r, uint32_t i) {
    const graph *g = r->graphs->passes[PASS_TRAIN][0]->g;
    return i < g->n_metrics ? g->metrics[i].name : NULL;
}

qfw_status graphs_norm(run *r, double *sumsq) {
    QFW_TRY(exec_run(r->graphs->norm.e));
    return read_scalar(&r->graphs->norm, r->graphs->sumsq, sumsq);
}

qfw_status graphs_forget_gradients(run *r) {
    qfw_status status = QFW_OK;
    for (uint32_t i = 0; status == QFW_OK && i < r->n_trainables; i++) {
        store_entry *grad = r->trainables[i].grad;
        float *zeros = mem_alloc((size_t)qfw_tensor_count(&grad->t), sizeof *zeros);
        status = zeros ? store_write(r->store, grad, zeros) : QFW_E_NOMEM;
        mem_free(zeros);
    }
    return status;
}

/* The scalars of update `step`, of each rate. */
static qfw_status write_scalars(run *r, uint64_t step, double lr) {
    for (uint32_t i = 0; i < 2 * n_rates(r); i++) {
        double wide[QFW_MAX_SCALARS];
        float scalars[QFW_MAX_SCALARS];
        uint32_t n = 0;
        QFW_TRY(r->optimizer->scalars(
            r->optimizer_inst, step, i / 2 ? lr * rate_of_b(r) : lr, i % 2, wide, &n));
        for (uint32_t k = 0; k < n; k++) scalars[k] = (float)wide[k];
        QFW_TRY(exec_write(
            r->graphs->update.e, scalar_names[i / 2][i % 2], scalars, n * sizeof scalars[0]));
    }
    return QFW_OK;
}

/* The update's inputs that are the optimizer's own. */
static qfw_status fill_update(run *r) {
    const pass *p = &r->graphs->update;
    const char *name;
    qfw_val v;
    for (uint32_t i = 0; (name = exec_input(p->e, i, &v)) != NULL; i++) {
        const uint64_t bytes = graphs_value_bytes(p->g, v);
        int is_ours = !strcmp(name, "coef");
        for (uint32_t k = 0; k < 2 * RATES; k++)
            is_ours = is_ours || !strcmp(name, scalar_names[k / 2][k % 2]);
        if (is_ours) continue;
        if (!QFW_HAS(r->optimizer, qfw_optimizer, fill))
            return err_fail("E_PLUG_INPUT", QFW_E_INTERNAL,
                "plugin %s declares the input '%s' but has no fill", r->optimizer_component->name,
                name);
        QFW_TRY(r->optimizer->fill(r->optimizer_inst, name, r->graphs->scratch, bytes));
        QFW_TRY(exec_write(p->e, name, r->graphs->scratch, bytes));
    }
    return QFW_OK;
}

qfw_status graphs_update(run *r, uint64_t step, double lr, float coef) {
    QFW_TRY(write_scalars(r, step, lr));
    QFW_TRY(exec_write(r->graphs->update.e, "coef", &coef, sizeof coef));
    QFW_TRY(fill_update(r));
    return exec_run(r->graphs->update.e);
}

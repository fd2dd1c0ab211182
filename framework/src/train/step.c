/* step.c -- the training loop: windows of micro-batches, one update each; evaluation, logs and
 * checkpoints.
 *
 * Order inside a step, as in transformers: micro-batches, clipping, update, log, evaluate, save.
 * The rows of an epoch are torch's permutation of seed + epoch, so a resumed run finds its place by
 * counting.
 */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/finite.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "plugin/host.h"
#include "train/best.h"
#include "train/checkpoint.h"
#include "train/packing.h"
#include "train/watch.h"

/* What the loop holds while it runs. */
typedef struct loop {
    run *r;
    progress p;
    trainer_log *log;
    batch *train, *eval;
    uint32_t *order;          /* of the units (packing.h) in `epoch` */
    uint32_t *before;         /* the rows before each of them */
    uint64_t epoch;           /* whose order that is; UINT64_MAX before the first */
    const qfw_example **rows; /* of one micro-batch */
    watch watch;
} loop;

static uint64_t n_train(const run *r) { return r->units->n; }

static void order_rows(loop *l, uint64_t epoch) {
    const run *r = l->r;
    const uint32_t n = (uint32_t)n_train(r);
    if (l->epoch == epoch) return;
    l->epoch = epoch;
    if (!strcmp(cfg_text(run_cfg(r, SECTION_DATA), "train_sampling_strategy"), "random"))
        torch_randperm(r->seed + epoch, n, l->order);
    else
        for (uint32_t i = 0; i < n; i++) l->order[i] = i;
    for (uint32_t i = 0, rows = 0; i < n; i++) {
        l->before[i] = rows;
        rows += r->units->first[l->order[i] + 1] - r->units->first[l->order[i]];
    }
}

/* Micro-batch `index` of the epoch: its examples, with the ordinals that dropout is keyed by. */
static uint32_t pick_rows(loop *l, uint64_t index) {
    const run *r = l->r;
    const uint64_t first = index * r->batch_size, n = n_train(r);
    uint32_t count = 0;
    for (uint64_t i = first; i < n && i < first + r->batch_size; i++) {
        const uint32_t *unit = &r->units->first[l->order[i]];
        for (uint32_t k = unit[0]; k < unit[1]; k++) {
            qfw_example *e = dataset_at(r->train, r->units->row[k]);
            const uint64_t place = l->epoch * r->units->n_rows + l->before[i] + (k - unit[0]);
            e->ordinal = (int32_t)(place & 0x3fffffff);
            l->rows[count++] = e;
        }
    }
    return count;
}

/* The window of this step: its first micro-batch in the epoch and how many there are. */
static void window_of(const run *r, uint64_t step, uint64_t *epoch, uint64_t *first, uint64_t *n) {
    const uint64_t micros = (n_train(r) + r->batch_size - 1) / r->batch_size;
    *epoch = step / r->steps_per_epoch;
    *first = step % r->steps_per_epoch * r->accumulation;
    *n = micros - *first < r->accumulation ? micros - *first : r->accumulation;
}

/* The weight of a window: what its losses are divided by, known before its first micro-batch
 * runs. */
static qfw_status window_weight(loop *l, uint64_t first, uint64_t n, double *weight) {
    *weight = 0;
    for (uint64_t m = 0; m < n; m++) {
        const uint32_t count = pick_rows(l, first + m);
        QFW_TRY(batch_fill(l->train, l->r, l->rows, count, 1));
        *weight += l->train->weight;
    }
    return QFW_OK;
}

/* A loss that is not finite stops the run before it can reach the weights, naming the rows. */
static qfw_status check_loss(const loop *l, double loss, uint32_t count) {
    char lines[200] = "";
    size_t at = 0;
    if (finite_f64(loss)) return QFW_OK;
    for (uint32_t i = 0; i < count && at + 24 < sizeof lines; i++)
        at += (size_t)snprintf(lines + at, sizeof lines - at, "%s%llu", i ? ", " : "",
            (unsigned long long)l->rows[i]->line);
    return err_fail("E_NUM_LOSS", QFW_E_NUMERIC,
        "step %llu: loss is %g; %s lines %s; the weights are those of step %llu",
        (unsigned long long)l->p.step + 1, loss, cfg_text(run_cfg(l->r, SECTION_DATA), "train"),
        lines, (unsigned long long)l->p.step);
}

static qfw_status run_window(loop *l, uint64_t first, uint64_t n, double *loss) {
    run *r = l->r;
    pass_result res;
    double weight = 0;
    const int is_mean = (r->trainer->flags & QFW_TRAINER_MICRO_MEAN) != 0;
    if (!is_mean) QFW_TRY(window_weight(l, first, n, &weight));
    *loss = 0;
    for (uint64_t m = 0; m < n; m++) {
        const uint32_t count = pick_rows(l, first + m);
        QFW_TRY(batch_fill(l->train, r, l->rows, count, 1));
        if (is_mean) weight = l->train->weight * (double)n;
        const double scale = l->p.scaler.scale;
        QFW_TRY(graphs_run(r, PASS_TRAIN, l->train, weight > 0 ? scale / weight : 0, &res));
        res.loss /= scale;
        *loss += res.loss;
        QFW_TRY(check_loss(l, res.loss, count));
        progress_add(&l->p, &res, l->train);
    }
    return QFW_OK;
}

/* The first trained tensor with a gradient that is not finite. */
static qfw_status blame_gradient(const loop *l, double norm) {
    const run *r = l->r;
    const char *name = NULL;
    for (uint32_t i = 0; i < r->n_trainables; i++) {
        const trainable *t = &r->trainables[i];
        const int64_t n = qfw_tensor_count(&t->grad->t);
        float *g = mem_alloc((size_t)n, sizeof *g);
        int found = 0;
        if (!g || store_read(r->store, t->grad, g) != QFW_OK) {
            mem_free(g);
            break;
        }
        found = finite_all(g, QFW_F32, (uint64_t)n) < (uint64_t)n;
        mem_free(g);
        if (!found) continue;
        name = t->param->name;
        break;
    }
    return err_fail("E_NUM_GRAD", QFW_E_NUMERIC,
        "step %llu: the gradient norm is %g, %s%s; the weights are those of step %llu",
        (unsigned long long)l->p.step + 1, norm, name ? "first in " : "its squares are too large",
        name ? name : "", (unsigned long long)l->p.step);
}

/* No update: gradients of fp16 are not finite, most likely for the loss scale. As with torch, the
 * rate and the optimizer's count stay where they are, the step counts. */
static qfw_status leave_out(loop *l) {
    QFW_TRY(graphs_forget_gradients(l->r));
    scaler_move(&l->p.scaler, 1, SCALER_INTERVAL);
    log_line(QFW_LOG_INFO,
        "step %llu: gradients overflow fp16: no update, the loss scale is %g from now on",
        (unsigned long long)l->p.step + 1, l->p.scaler.scale);
    return QFW_OK;
}

static qfw_status update(loop *l) {
    run *r = l->r;
    scaler *s = &l->p.scaler;
    const qfw_cfg *t = run_cfg(r, SECTION_TRAINER);
    const uint64_t updates = l->p.step - s->left_out;
    double sumsq = 0;
    QFW_TRY(graphs_norm(r, &sumsq));
    const double norm = sqrt(sumsq) / s->scale, max_norm = cfg_real(t, "max_grad_norm");
    const schedule rates = schedule_of(r);
    l->p.grad_norm = norm;
    l->p.lr = schedule_rate(&rates, updates);
    if (!finite_f64(norm)) return s->scale > 1 ? leave_out(l) : blame_gradient(l, norm);
    float coef = 1;
    if (max_norm > 0 && (float)max_norm / ((float)norm + 1e-6f) < 1)
        coef = (float)max_norm / ((float)norm + 1e-6f);
    QFW_TRY(graphs_update(r, updates + 1, l->p.lr, (float)((double)coef / s->scale)));
    if (r->compute == QFW_F16) scaler_move(s, 0, SCALER_INTERVAL);
    return QFW_OK;
}

/* The step that ends the run has its line in the log: of itself alone, so that no mean hides it. */
static void log_not_finite(loop *l, double loss) {
    progress p = l->p;
    p.step++;
    p.loss_sum = loss;
    p.loss_steps = 1;
    err_hold();
    (void)trainer_log_step(l->log, l->r, &p);
    err_join();
}

static void warn(loop *l, double loss) {
    double mean;
    if (watch_norm(&l->watch, l->p.grad_norm, &mean))
        log_line(QFW_LOG_WARN,
            "step %llu: the gradient norm is %.3g, its mean over the steps before is %.3g; hint: a "
            "lower learning_rate, more warmup_steps",
            (unsigned long long)l->p.step, l->p.grad_norm, mean);
    if (watch_loss(&l->watch, loss))
        log_line(QFW_LOG_WARN,
            "step %llu: the loss has been %.6g for %d steps; hint: see learning_rate (it is %.3g) "
            "and the tokens that --dry-run shows as trained",
            (unsigned long long)l->p.step, loss, WATCH_SAME, l->p.lr);
}

static qfw_status one_step(loop *l) {
    const run *r = l->r;
    uint64_t epoch, first, n;
    double loss = 0;
    const uint64_t micros = (n_train(r) + r->batch_size - 1) / r->batch_size;
    const uint64_t started = clock_ns(), tokens = l->p.num_tokens;
    window_of(r, l->p.step, &epoch, &first, &n);
    order_rows(l, epoch);
    qfw_status status = run_window(l, first, n, &loss);
    if (status == QFW_OK) status = update(l);
    if (status == QFW_E_NUMERIC) log_not_finite(l, loss);
    QFW_TRY(status);
    progress *p = &l->p;
    p->step++;
    p->epoch = (double)epoch + (double)(first + n) / (double)micros;
    p->loss_sum += loss;
    p->loss_steps++;
    p->total_loss += loss;
    if (p->step == 1) p->first_loss = loss;
    p->last_loss = loss;
    warn(l, loss);
    p->timed_ns += clock_ns() - started;
    p->timed_tokens += p->num_tokens - tokens;
    p->timed_steps++;
    return QFW_OK;
}

/* Sum over the whole set, token-weighted: eval_loss does not depend on how the set is cut into
 * batches. */
static qfw_status evaluate_rows(loop *l, eval_values *v) {
    run *r = l->r;
    pass_result sum = {0}, res;
    double weight = 0;
    const char *name;
    const uint64_t n = dataset_count(r->eval);
    for (uint64_t first = 0; first < n; first += r->eval_batch_size) {
        uint32_t count = 0;
        for (; count < r->eval_batch_size && first + count < n; count++)
            l->rows[count] = dataset_at(r->eval, first + count);
        QFW_TRY(batch_fill(l->eval, r, l->rows, count, 0));
        QFW_TRY(graphs_run(r, PASS_EVAL, l->eval, 1, &res));
        sum.loss += res.loss;
        sum.n_metrics = res.n_metrics;
        for (uint32_t i = 0; i < res.n_metrics; i++) {
            sum.value[i] += res.value[i];
            sum.weight[i] += res.weight[i];
        }
        weight += l->eval->weight;
        if (r->host->cancelled(r->host)) return QFW_OK;
    }
    l->p.last_eval_loss = weight > 0 ? sum.loss / weight : 0;
    eval_values_add(v, "loss", l->p.last_eval_loss);
    for (uint32_t i = 0; i < sum.n_metrics && (name = graphs_metric(r, i)) != NULL; i++)
        eval_values_add(v, name, sum.weight[i] > 0 ? sum.value[i] / sum.weight[i] : 0);
    return QFW_OK;
}

/* One that is cancelled says nothing, and is still due. */
static qfw_status evaluate(loop *l, int *is_best) {
    run *r = l->r;
    eval_values v = {.n = 0};
    const uint64_t started = clock_ns();
    *is_best = 0;
    if (r->eval) QFW_TRY(evaluate_rows(l, &v));
    qfw_status status = QFW_OK;
    if (r->judge && !r->host->cancelled(r->host)) status = r->judge->judge(r->judge_inst, &v);
    if (r->host->cancelled(r->host)) return status == QFW_E_CANCELLED ? QFW_OK : status;
    QFW_TRY(status);
    l->p.evaluated_step = l->p.step;
    if (l->p.step) *is_best = best_take(r, &l->p, &v);
    return trainer_log_eval(l->log, r, &l->p, &v, (double)(clock_ns() - started) * 1e-9);
}

static int is_due(uint64_t step, int64_t every) { return every > 0 && step % (uint64_t)every == 0; }

/* What eval_strategy or save_strategy asks for after this step; the last one counts in any case. */
static int strategy_asks(const run *r, uint64_t step, const char *strategy, int64_t every) {
    if (!strcmp(strategy, "no")) return 0;
    if (!strcmp(strategy, "epoch")) every = (int64_t)r->steps_per_epoch;
    return is_due(step, every) || step == r->max_steps;
}

static int is_save_due(const run *r, uint64_t step) {
    const qfw_cfg *t = run_cfg(r, SECTION_TRAINER);
    return strategy_asks(r, step, cfg_text(t, "save_strategy"), cfg_int(t, "save_steps"));
}

/* Whether this step is to be evaluated, and has not been yet. */
static int is_eval_due(const run *r, const progress *p) {
    const qfw_cfg *t = run_cfg(r, SECTION_TRAINER);
    const int64_t every =
        cfg_int(t, "eval_steps") ? cfg_int(t, "eval_steps") : cfg_int(t, "logging_steps");
    return p->step > 0 && p->evaluated_step != p->step &&
           strategy_asks(r, p->step, cfg_text(t, "eval_strategy"), every);
}

static qfw_status fail_stopped(const loop *l) {
    return err_fail("E_SIGNAL", QFW_E_CANCELLED,
        "stopped after step %llu of %llu%s, checkpoint written; hint: --resume goes on from there",
        (unsigned long long)l->p.step, (unsigned long long)l->r->max_steps,
        is_eval_due(l->r, &l->p) ? ", before its evaluation" : "");
}

/* Evaluate where that is due, and save where anything asks for it; *stops: a signal does. A best
 * that is one no longer goes, unless save_strategy asked for it, too. */
static qfw_status evaluate_and_save(loop *l, int *stops) {
    run *r = l->r;
    const uint64_t before = l->p.best_step;
    int is_best = 0;
    if (is_eval_due(r, &l->p) && !r->host->cancelled(r->host)) QFW_TRY(evaluate(l, &is_best));
    *stops = r->host->cancelled(r->host) != 0;
    is_best = is_best && best_is_kept(r);
    l->p.is_over = best_is_over(r, &l->p);
    const int saves = strcmp(cfg_text(run_cfg(r, SECTION_TRAINER), "save_strategy"), "no") != 0;
    const int asked = host_asked(HOST_SAVE);
    if (*stops || asked || (l->p.is_over && saves) || is_best || is_save_due(r, l->p.step)) {
        QFW_TRY(trainer_log_sync(l->log));
        QFW_TRY(checkpoint_save(r, &l->p));
    }
    return is_best && before && !is_save_due(r, before) ? checkpoint_drop(r, before) : QFW_OK;
}

/* A stop does not wait for an evaluation: the checkpoint says that it is due, and who resumes runs
 * it. */
static qfw_status after_step(loop *l) {
    run *r = l->r;
    int stops = 0;
    if (is_due(l->p.step, cfg_int(run_cfg(r, SECTION_TRAINER), "logging_steps")))
        QFW_TRY(trainer_log_step(l->log, r, &l->p));
    progress_bar(r, &l->p);
    if (host_asked(HOST_STATUS)) progress_status(r, &l->p);
    QFW_TRY(evaluate_and_save(l, &stops));
    const int is_done = l->p.step == r->max_steps || l->p.is_over;
    return stops && (!is_done || is_eval_due(r, &l->p)) ? fail_stopped(l) : QFW_OK;
}

/* What shared prefixes save, in the epoch that comes next. */
static qfw_status say_shared(loop *l) {
    const run *r = l->r;
    const uint64_t micros = (n_train(r) + r->batch_size - 1) / r->batch_size;
    uint64_t rows = 0, tokens = 0;
    char some[32], all[32];
    if (!cfg_int(run_cfg(r, SECTION_DATA), "share_prefix")) return QFW_OK;
    order_rows(l, l->p.step / r->steps_per_epoch);
    for (uint64_t m = 0; m < micros; m++) {
        const uint32_t n = pick_rows(l, m);
        QFW_TRY(batch_count(l->train, r, l->rows, n, &rows, &tokens));
    }
    log_line(QFW_LOG_INFO, "prefixes shared: %s rows computed for %s tokens an epoch, %.1f %% less",
        format_count(rows, some), format_count(tokens, all),
        100 * (double)(tokens - rows) / (double)tokens);
    return QFW_OK;
}

static qfw_status open_loop(loop *l, const char *from) {
    run *r = l->r;
    const graphs *gs = r->graphs;
    const uint32_t most = (uint32_t)gs->n_examples[PASS_TRAIN];
    const uint32_t rows = most > r->eval_batch_size ? most : r->eval_batch_size;
    l->epoch = UINT64_MAX;
    if (!from) l->p.scaler = scaler_start(r->compute == QFW_F16);
    l->p.last_eval_loss = (double)NAN;
    l->order = mem_alloc(n_train(r), sizeof *l->order);
    l->rows = mem_alloc(rows, sizeof *l->rows);
    l->before = mem_alloc(n_train(r), sizeof *l->before);
    if (!l->order || !l->before || !l->rows) return QFW_E_NOMEM;
    QFW_TRY(batch_create(most, (uint32_t)(gs->n_segments[PASS_TRAIN] / gs->n_examples[PASS_TRAIN]),
        gs->max_rows[PASS_TRAIN], &l->train));
    if (r->eval)
        QFW_TRY(batch_create(r->eval_batch_size,
            (uint32_t)(gs->n_segments[PASS_EVAL] / gs->n_examples[PASS_EVAL]),
            gs->max_rows[PASS_EVAL], &l->eval));
    const int starts_over =
        !strcmp(cfg_text(run_cfg(r, SECTION_RUN), "resume_from_checkpoint"), "none");
    if (from) {
        QFW_TRY(checkpoint_load(r, from));
        log_line(QFW_LOG_INFO, "resumed from %s at step %llu", from, (unsigned long long)l->p.step);
        QFW_TRY(checkpoint_prune(r, &l->p));
    } else if (starts_over) {
        QFW_TRY(checkpoint_forget(r));
    }
    return trainer_log_open(r, from != NULL, l->p.step, &l->log);
}

static void close_loop(loop *l) {
    trainer_log_close(l->log);
    batch_destroy(l->train);
    batch_destroy(l->eval);
    mem_free(l->order);
    mem_free(l->before);
    mem_free(l->rows);
}

/* The evaluation at the start, and one that the run was stopped before. */
static qfw_status before_steps(loop *l) {
    run *r = l->r;
    int is_best = 0, stops = 0;
    if (!l->p.step && (r->eval || r->judge) &&
        cfg_int(run_cfg(r, SECTION_TRAINER), "eval_on_start"))
        QFW_TRY(evaluate(l, &is_best));
    if (!is_eval_due(r, &l->p)) return QFW_OK;
    QFW_TRY(evaluate_and_save(l, &stops));
    return is_eval_due(r, &l->p) ? fail_stopped(l) : QFW_OK;
}

qfw_status train_loop(run *r, const char *from, progress *p) {
    loop l = {.r = r, .p = *p};
    qfw_status status = open_loop(&l, from);
    if (status == QFW_OK) status = say_shared(&l);
    l.p.started_ns = clock_ns();
    l.p.started_step = l.p.step;
    l.p.started_tokens = l.p.num_tokens;
    if (status == QFW_OK) status = before_steps(&l);
    if (status == QFW_OK) progress_bar(r, &l.p);
    while (status == QFW_OK && l.p.step < r->max_steps && !l.p.is_over) {
        status = one_step(&l);
        if (status == QFW_OK) status = after_step(&l);
    }
    log_status(NULL);
    l.p.spent_ns = clock_ns() - l.p.started_ns;
    if (status == QFW_OK && l.p.step > l.p.started_step) {
        const double seconds = (double)l.p.spent_ns * 1e-9;
        const uint64_t rows =
            (l.p.step - l.p.started_step) * r->accumulation * (uint64_t)r->batch_size;
        status = trainer_log_end(l.log, &l.p, seconds > 0 ? seconds : 1e-9, rows);
        if (status == QFW_OK) status = trainer_log_sync(l.log);
    }
    *p = l.p;
    close_loop(&l);
    return status;
}

/* fit.c -- plans until one fits. Planning takes no memory of the device and some milliseconds, so
 * every figure that is named is that of a plan, not of a formula.
 */
#include "train/fit.h"

#include <stdarg.h>
#include <string.h>

#include "base/error.h"
#include "train/judge.h"
#include "train/progress.h"

static const struct {
    const char *name, *alias;
    uint32_t recompute;
} modes[] = {{"none", "false", RECOMPUTE_NONE}, {"selective", "selective", RECOMPUTE_SELECTIVE},
    {"full", "true", RECOMPUTE_FULL}};
enum { N_MODES = sizeof modes / sizeof modes[0] };

/* By [trainer] gradient_checkpointing; N_MODES: auto. */
static size_t asked_mode(const run *r) {
    const char *word = cfg_text(run_cfg(r, SECTION_TRAINER), "gradient_checkpointing");
    size_t i = 0;
    while (i < N_MODES && strcmp(word, modes[i].name) && strcmp(word, modes[i].alias)) i++;
    return i;
}

static size_t mode_now(const run *r) {
    size_t i = 0;
    while (i + 1 < N_MODES && modes[i].recompute != r->recompute) i++;
    return i;
}

const char *fit_recompute_name(const run *r) { return modes[mode_now(r)].name; }

/* The same rows an update, in batches of n. */
static void set_batch(run *r, uint32_t n) {
    r->accumulation *= r->batch_size / n;
    r->batch_size = n;
}

static void set_passes(run *r, uint32_t passes) {
    const qfw_cfg *t = run_cfg(r, SECTION_TRAINER);
    r->batch_size = (uint32_t)cfg_int(t, "per_device_train_batch_size");
    r->accumulation = (uint32_t)cfg_int(t, "gradient_accumulation_steps");
    r->passes = passes;
    set_batch(r, r->batch_size / passes);
}

static qfw_status replan(run *r, uint64_t *total) {
    graphs_destroy(r->graphs);
    r->graphs = NULL;
    *total = UINT64_MAX;
    QFW_TRY(graphs_plan(r));
    if (r->judge && !r->judge_inst) QFW_TRY(r->judge->plan(r, &r->judge_inst));
    plan_measure(r);
    const plan_need need = train_need(r);
    *total = plan_total(r, &need);
    return QFW_OK;
}

/* replan, for a plan that need not be possible: what the device does not allow in one piece counts
 * as more than there is. */
static qfw_status try_plan(run *r, uint64_t *total) {
    const qfw_status status = replan(r, total);
    if (status != QFW_E_DEVICE_OOM) return status;
    err_clear();
    return QFW_OK;
}

/* What auto may take: of a machine that others share an eighth less than it has now. */
static uint64_t room(const run *r) {
    const uint64_t limit = plan_limit(r);
    if (!limit) return UINT64_MAX;
    return cfg_int(run_cfg(r, SECTION_RUN), "max_memory") ? limit : limit - limit / 8;
}

static qfw_status choose(run *r) {
    const uint64_t limit = room(r);
    const uint32_t rows = r->batch_size;
    const int splits = (r->trainer->flags & QFW_TRAINER_ROWS_INDEPENDENT) != 0;
    uint64_t total = UINT64_MAX;
    for (size_t i = 0; i + 1 < N_MODES; i++) {
        r->recompute = modes[i].recompute;
        QFW_TRY(try_plan(r, &total));
        if (total <= limit) return QFW_OK;
    }
    r->recompute = RECOMPUTE_FULL;
    for (uint32_t passes = 1; passes <= rows && total > limit; passes++) {
        if (rows % passes) continue;
        set_passes(r, passes);
        QFW_TRY(splits && passes < rows ? try_plan(r, &total) : replan(r, &total));
        if (!splits) break;
    }
    return QFW_OK;
}

qfw_status fit_plan(run *r) {
    const size_t asked = asked_mode(r);
    uint64_t unused;
    r->passes = 1;
    if (asked == N_MODES) return choose(r);
    r->recompute = modes[asked].recompute;
    return replan(r, &unused);
}

qfw_status fit_passes(run *r, uint32_t passes) {
    const uint32_t rows = r->batch_size * r->passes;
    const uint64_t limit = room(r);
    uint64_t total;
    if (passes == r->passes) return QFW_OK;
    if (!passes || rows % passes)
        return err_fail("E_CKPT_STATE", QFW_E_DATA,
            "trainer_state.json: %u passes of a micro-batch of %u rows", passes, rows);
    set_passes(r, passes);
    if (asked_mode(r) == N_MODES) r->recompute = RECOMPUTE_NONE;
    QFW_TRY(try_plan(r, &total));
    for (size_t i = mode_now(r) + 1; i < N_MODES && total > limit && asked_mode(r) == N_MODES;
         i++) {
        r->recompute = modes[i].recompute;
        QFW_TRY(try_plan(r, &total));
    }
    return fit_check(r);
}

/* --- what would fit --- */

typedef struct changes {
    char *text;
    size_t cap, n;
    uint64_t limit;
} changes;

/* One more change, if what it needs fits. */
QFW_PRINTF(3, 4)
static void offer(changes *c, uint64_t total, const char *fmt, ...) {
    char bytes[32];
    va_list args;
    if (total > c->limit || c->n + 120 > c->cap) return;
    c->n += (size_t)snprintf(c->text + c->n, c->cap - c->n, "%s", c->n ? "; or " : "");
    va_start(args, fmt);
    c->n += (size_t)vsnprintf(c->text + c->n, c->cap - c->n, fmt, args);
    va_end(args);
    c->n += (size_t)snprintf(c->text + c->n, c->cap - c->n, ": %s", format_bytes(total, bytes));
}

/* The modes that keep less, the quickest first. */
static qfw_status offer_modes(run *r, changes *c) {
    uint64_t total = UINT64_MAX;
    for (size_t i = mode_now(r) + 1; i < N_MODES && total > c->limit; i++) {
        r->recompute = modes[i].recompute;
        QFW_TRY(try_plan(r, &total));
        offer(c, total, "gradient_checkpointing = %s", modes[i].name);
    }
    return QFW_OK;
}

/* The largest batch of fewer rows, with as many rows an update; `with`: what else is changed. */
static qfw_status offer_batches(run *r, changes *c, const char *with) {
    const uint32_t rows = r->batch_size, accumulation = r->accumulation;
    uint64_t total = UINT64_MAX;
    for (uint32_t n = rows - 1; n > 0 && total > c->limit; n--) {
        if (rows % n) continue;
        set_batch(r, n);
        QFW_TRY(try_plan(r, &total));
        offer(c, total, "%sper_device_train_batch_size = %u with gradient_accumulation_steps = %u",
            with, n, r->accumulation);
        r->batch_size = rows;
        r->accumulation = accumulation;
    }
    return QFW_OK;
}

/* The longest of halved lengths. */
static qfw_status offer_lengths(run *r, changes *c, const char *with) {
    const char *overlong = cfg_text(run_cfg(r, SECTION_DATA), "overlong");
    uint64_t total = UINT64_MAX;
    for (uint64_t n = dataset_longest(r->train, 1) / 2; n >= 16 && total > c->limit; n /= 2) {
        r->length_cap = n;
        QFW_TRY(try_plan(r, &total));
        offer(c, total, "%smax_length = %llu%s", with, (unsigned long long)n,
            strcmp(overlong, "error") ? "" : " with overlong = truncate");
    }
    r->length_cap = 0;
    return QFW_OK;
}

static const char with_full[] = "gradient_checkpointing = full, ";

static int offered(const changes *c, const char *what) {
    return c->n && strstr(c->text, what) != NULL;
}

/* One change at a time, then on top of full recomputation. */
static qfw_status offer_changes(run *r, changes *c) {
    const uint32_t recompute = r->recompute;
    QFW_TRY(offer_modes(r, c));
    r->recompute = recompute;
    QFW_TRY(offer_batches(r, c, ""));
    QFW_TRY(offer_lengths(r, c, ""));
    if (recompute == RECOMPUTE_FULL) return QFW_OK;
    r->recompute = RECOMPUTE_FULL;
    if (!offered(c, "per_device")) QFW_TRY(offer_batches(r, c, with_full));
    return c->n ? QFW_OK : offer_lengths(r, c, with_full);
}

qfw_status fit_check(run *r) {
    plan_need need = train_need(r);
    const uint32_t recompute = r->recompute, rows = r->batch_size, steps = r->accumulation;
    changes c = {need.smaller, sizeof need.smaller, 0, plan_limit(r)};
    uint64_t total;
    if (!c.limit || plan_total(r, &need) <= c.limit) return QFW_OK;
    QFW_TRY(offer_changes(r, &c));
    r->recompute = recompute;
    r->batch_size = rows;
    r->accumulation = steps;
    QFW_TRY(replan(r, &total));
    char found[sizeof need.smaller];
    memcpy(found, need.smaller, sizeof found);
    need = train_need(r);
    memcpy(need.smaller, found, sizeof found);
    return plan_check(r, &need);
}

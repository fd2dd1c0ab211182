/* best.c -- see best.h. */
#include "train/best.h"

#include <math.h>
#include <string.h>

#include "base/error.h"
#include "train/progress.h"

int best_is_kept(const run *r) {
    return (int)cfg_int(run_cfg(r, SECTION_TRAINER), "load_best_model_at_end");
}

const char *best_metric(const run *r) {
    const char *name = cfg_text(run_cfg(r, SECTION_TRAINER), "metric_for_best_model");
    if (!strncmp(name, "eval_", 5)) name += 5;
    return strcmp(name, "auto") ? name : r->eval || !r->judge ? "loss" : "in_range";
}

static int larger_is_better(const run *r) {
    static const char *const smaller[] = {"loss", "mae", "brier"};
    const char *said = cfg_text(run_cfg(r, SECTION_TRAINER), "greater_is_better");
    const char *name = best_metric(r);
    const size_t n = strlen(name);
    if (strcmp(said, "auto")) return !strcmp(said, "true");
    for (size_t i = 0; i < sizeof smaller / sizeof smaller[0]; i++) {
        const size_t part = strlen(smaller[i]);
        if (n >= part && !strcmp(name + n - part, smaller[i])) return 0;
    }
    return 1;
}

/* Name i of what an evaluation of this run says; NULL past the last. */
static const char *name_at(const run *r, uint32_t i) {
    const char *name = NULL;
    if (r->eval) {
        uint32_t n = 0;
        if (i == 0) return "loss";
        while (graphs_metric(r, n)) n++;
        if (i <= n) return graphs_metric(r, i - 1);
        i -= n + 1;
    }
    if (r->judge) name = r->judge->name(r->judge_inst, i);
    return name;
}

qfw_status best_check(const run *r) {
    const char *wanted = best_metric(r), *name, *names[MAX_EVAL_VALUES];
    uint32_t n = 0;
    const int matters =
        best_is_kept(r) || cfg_int(run_cfg(r, SECTION_TRAINER), "early_stopping_patience");
    for (; n < MAX_EVAL_VALUES && (name = name_at(r, n)) != NULL; n++) {
        if (!strcmp(name, wanted)) return QFW_OK;
        names[n] = name;
    }
    const char *near = err_nearest(wanted, names, n);
    if (!matters) return QFW_OK;
    return cfg_problem(r->ini, run_cfg(r, SECTION_TRAINER), "metric_for_best_model",
        "'%s' is nothing that an evaluation of this run says%s%s%s", wanted,
        near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

int best_take(const run *r, progress *p, const eval_values *v) {
    const double threshold = cfg_real(run_cfg(r, SECTION_TRAINER), "early_stopping_threshold");
    const char *name = best_metric(r);
    const double sign = larger_is_better(r) ? 1 : -1;
    double value = (double)NAN;
    for (uint32_t i = 0; i < v->n; i++)
        if (!strcmp(v->item[i].name, name)) value = v->item[i].value;
    double gain = sign * (value - p->best_value);
    if (!p->best_step) gain = isnan(value) ? -1 : HUGE_VAL;
    if (gain > threshold)
        p->worse = 0;
    else
        p->worse++;
    if (!(gain > 0)) return 0;
    p->best_value = value;
    p->best_step = p->step;
    return 1;
}

int best_is_over(const run *r, const progress *p) {
    const int64_t patience = cfg_int(run_cfg(r, SECTION_TRAINER), "early_stopping_patience");
    return patience > 0 && p->worse >= (uint64_t)patience;
}

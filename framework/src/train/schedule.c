/* schedule.c -- learning rate schedules, in transformers' order of operations: the rates are
 * bit-equal. */
#include <math.h>
#include <string.h>

#include "train/run.h"

schedule schedule_of(const run *r) {
    const qfw_cfg *t = run_cfg(r, SECTION_TRAINER);
    const double ratio = cfg_real(t, "warmup_ratio");
    return (schedule){.type = cfg_text(t, "lr_scheduler_type"),
        .rate = cfg_real(t, "learning_rate"),
        .end = cfg_real(t, "lr_end"),
        .power = cfg_real(t, "lr_power"),
        .n_cycles = (double)cfg_int(t, "lr_num_cycles"),
        .warmup = ratio > 0 ? (uint64_t)ceil((double)r->max_steps * ratio)
                            : (uint64_t)cfg_int(t, "warmup_steps"),
        .total = r->max_steps};
}

static double factor_of(const schedule *s, uint64_t step) {
    const double pi = 3.14159265358979323846;
    const double span = s->total > s->warmup ? (double)(s->total - s->warmup) : 1;
    if (!strcmp(s->type, "constant")) return 1; /* warmup has no part in it, as in transformers */
    if (step < s->warmup) return (double)step / (double)s->warmup;
    if (!strcmp(s->type, "constant_with_warmup")) return 1;
    const double done = (double)(step - s->warmup) / span;
    if (!strcmp(s->type, "cosine")) return 0.5 * (1.0 + cos(pi * 0.5 * 2.0 * done));
    if (!strcmp(s->type, "cosine_with_restarts"))
        return done >= 1 ? 0 : 0.5 * (1.0 + cos(pi * fmod(s->n_cycles * done, 1.0)));
    if (!strcmp(s->type, "polynomial"))
        return ((s->rate - s->end) * pow(1 - done, s->power) + s->end) / s->rate;
    return ((double)s->total - (double)step) / span; /* linear */
}

double schedule_rate(const schedule *s, uint64_t step) {
    const double factor = factor_of(s, step);
    return s->rate * (factor > 0 ? factor : 0);
}

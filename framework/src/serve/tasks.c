/* tasks.c -- from the word in [run] task to the code that does it. */
#include "serve/tasks.h"

#include <string.h>

#include "serve/evaluate_task.h"
#include "serve/generate_task.h"
#include "serve/judging.h"
#include "serve/pairs_task.h"
#include "serve/score_task.h"

typedef struct task {
    const char *name;
    qfw_status (*run)(run *r, FILE *out);
} task;

/* The words are those of [run] task (train/options.c). */
static const task tasks[] = {
    {"train", train_task},
    {"generate", generate_task},
    {"score", score_task},
    {"evaluate", evaluate_task},
    {"pairs", pairs_task},
};

qfw_status task_main(const run_flags *flags, FILE *out) {
    run *r = NULL;
    qfw_status status = run_start(flags, &r);
    if (status != QFW_OK) return status;
    const task *t = tasks;
    while (strcmp(t->name, cfg_text(run_cfg(r, SECTION_RUN), "task"))) t++;
    const int evaluates = strcmp(cfg_text(run_cfg(r, SECTION_TRAINER), "eval_strategy"), "no") != 0;
    if (t->run == train_task && evaluates && *cfg_text(run_cfg(r, SECTION_EVALUATE), "set"))
        r->judge = &scoring_judge;
    status = t->run(r, out);
    if (status == QFW_OK && flags->dry_run && !flags->plan_only)
        fprintf(
            out, "\nDry run: nothing is wrong that can be known beforehand; nothing was written\n");
    run_close(r);
    return status;
}

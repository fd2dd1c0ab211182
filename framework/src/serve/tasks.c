/* tasks.c -- from the word in [run] task to the code that does it. */
#include "serve/tasks.h"

#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "serve/evaluate_task.h"
#include "serve/export_task.h"
#include "serve/generate_task.h"
#include "serve/judging.h"
#include "serve/pairs_task.h"
#include "serve/score_task.h"

typedef struct task {
    const char *name;
    qfw_status (*run)(run *r, FILE *out);
    int resumes, profiles; /* what --resume and --profile can do */
} task;

/* The words are those of [run] task (train/options.c). */
static const task tasks[] = {
    {"train", train_task, 1, 1},
    {"generate", generate_task, 0, 0},
    {"score", score_task, 1, 0},
    {"evaluate", evaluate_task, 0, 0},
    {"pairs", pairs_task, 0, 0},
    {"export", export_task, 0, 0},
};

/* Words of the command line that would do nothing. */
static qfw_status check_words(const task *t, const run *r) {
    const char *from = cfg_text(run_cfg(r, SECTION_RUN), "resume_from_checkpoint");
    if (r->flags.profile && !t->profiles)
        return err_fail("E_USAGE", QFW_E_CONFIG,
            "--profile: task = %s has no profile; hint: task = train has", t->name);
    if (t->resumes || !strcmp(from, "none")) return QFW_OK;
    return err_fail("E_USAGE", QFW_E_CONFIG,
        "%s: task = %s cannot go on where it was stopped; hint: the same command without it "
        "begins anew",
        r->flags.resume ? "--resume" : "[run] resume_from_checkpoint", t->name);
}

/* What a run of task train has left, where [export] asks for more of it; mem_free. */
static char *trained_folder(const task *t, const run *r) {
    const int writes = !r->flags.plan_only && !r->flags.dry_run;
    if (t->run != train_task || !writes || !settings_exports(r)) return NULL;
    return mem_strdup(cfg_text(run_cfg(r, SECTION_RUN), "output_dir"));
}

qfw_status task_main(const run_flags *flags, FILE *out) {
    run *r = NULL;
    qfw_status status = run_start(flags, &r);
    if (status != QFW_OK) return status;
    const task *t = tasks;
    while (strcmp(t->name, cfg_text(run_cfg(r, SECTION_RUN), "task"))) t++;
    const int evaluates = strcmp(cfg_text(run_cfg(r, SECTION_TRAINER), "eval_strategy"), "no") != 0;
    if (t->run == train_task && evaluates && *cfg_text(run_cfg(r, SECTION_EVALUATE), "set"))
        r->judge = &scoring_judge;
    status = check_words(t, r);
    if (status == QFW_OK) status = t->run(r, out);
    char *trained = status == QFW_OK ? trained_folder(t, r) : NULL;
    if (status == QFW_OK && flags->dry_run && !flags->plan_only)
        fprintf(
            out, "\nDry run: nothing is wrong that can be known beforehand; nothing was written\n");
    const int is_adapter = strcmp(cfg_text(run_cfg(r, SECTION_ADAPTER), "use"), "none") != 0;
    run_close(r);
    if (trained) status = export_trained(flags, trained, is_adapter, out);
    mem_free(trained);
    return status;
}

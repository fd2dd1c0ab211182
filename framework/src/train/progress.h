/* progress.h -- what happened so far: the numbers of the log, the checkpoint and the screen. */
#ifndef TRAIN_PROGRESS_H
#define TRAIN_PROGRESS_H

#include "train/judge.h"
#include "train/scaler.h"

/* Everything about a run's place that a resume must know. Saved as trainer_state.json. */
struct progress {
    uint64_t step;                /* updates done */
    uint64_t evaluated_step;      /* after which the eval rows were last run over; 0: never */
    uint64_t num_tokens;          /* tokens seen, prompts included */
    double total_loss;            /* of all steps */
    double first_loss, last_loss; /* of the first and last step */
    double best_value;            /* of the best evaluation (best.h) */
    uint64_t best_step, worse;    /* its step, 0: none yet; evaluations since without a gain */
    uint32_t passes;              /* of a micro-batch (fit.h) */
    int is_over;                  /* early stopping has ended the run */
    scaler scaler;                /* of fp16 */
    uint64_t told_ns;             /* when a line was last printed */
    /* since the last log: */
    double loss_sum;
    uint64_t loss_steps;
    double value[MAX_METRICS], weight[MAX_METRICS];
    /* of this process only: */
    double grad_norm, lr, epoch;
    uint64_t started_ns, started_step, started_tokens;
    uint64_t spent_ns;                            /* the whole loop, when it is over */
    uint64_t timed_ns, timed_steps, timed_tokens; /* of the steps since the last log */
    double last_eval_loss;                        /* NaN before the first */
};

uint64_t clock_ns(void); /* monotonic */
void progress_add(progress *p, const pass_result *res, const batch *b);

/* trainer_log.jsonl in output_dir, one object a line; kept open. Cut back to `keep_step` on a
 * resume: lines of later steps are dropped. As [trainer] report_to says, TensorBoard's files hold
 * the same. */
typedef struct trainer_log trainer_log;
qfw_status trainer_log_open(const run *r, int append, uint64_t keep_step, trainer_log **out);
void trainer_log_close(trainer_log *l);
/* What was logged outlasts a loss of power, as the checkpoint that comes next does. */
qfw_status trainer_log_sync(const trainer_log *l);
/* The line of a log step; then the sums start anew. */
qfw_status trainer_log_step(trainer_log *l, run *r, progress *p);
qfw_status trainer_log_eval(
    trainer_log *l, run *r, const progress *p, const eval_values *v, double seconds);
qfw_status trainer_log_end(trainer_log *l, const progress *p, double seconds, uint64_t rows);

/* The bar with the time left, on a terminal; elsewhere a plain line, one a second at most. */
void progress_bar(const run *r, progress *p);
/* One line, now: where the run is and how long it takes from here. */
void progress_status(const run *r, const progress *p);
/* "1:02:03" into buf. */
const char *format_time(double seconds, char buf[32]);
/* "1.53 GiB" into buf. */
const char *format_bytes(uint64_t bytes, char buf[32]);
/* "1,234,567" into buf. */
const char *format_count(uint64_t n, char buf[32]);

#endif

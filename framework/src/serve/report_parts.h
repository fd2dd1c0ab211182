/* report_parts.h -- the report's sections, each a file or half of one, and what they share. A
 * section that has nothing to show says so.
 */
#ifndef SERVE_REPORT_PARTS_H
#define SERVE_REPORT_PARTS_H

#include "files/json.h"
#include "serve/report.h"

void report_style(FILE *out); /* the rules between <style> and </style> */

/* --- training: report_run.c, report_training.c --- */

enum { CURVE_LOSS, CURVE_EVAL_LOSS, CURVE_RATE, CURVE_MARGIN, N_CURVES };
typedef struct curve {
    double *step, *value;
    size_t n, cap_steps, cap_values;
} curve;

/* What a folder of outputs says of its run. */
typedef struct run_record {
    const char *folder, *name; /* name: the folder's last part */
    curve curves[N_CURVES];
    uint64_t n_bad;    /* lines of the log that are no JSON: the end of a broken run */
    uint32_t has_log;  /* 0: no trainer_log.jsonl, or it cannot be read */
    qfw_doc *manifest; /* NULL: none, or it cannot be read */
} run_record;
/* Fails for want of memory alone. */
qfw_status run_record_read(const char *folder, run_record *out);
void run_record_free(run_record *r);

qfw_status report_curves(const run_record *runs, uint32_t n, FILE *out);
void report_data(const run_record *runs, uint32_t n, FILE *out);
void report_memory(const run_record *runs, uint32_t n, FILE *out);

/* --- scores: report_scores.c, report_compare.c, report_figures.c, report_sensitivity.c,
 * report_worst.c --- */

/* "54.0 % (44.3-63.4)" with its interval drawn beside it. */
void report_share(const share *s, FILE *out);
void report_percent(double value, FILE *out); /* "54.0 %" */
/* Every pair's p after Holm, and its counts (NULL: not wanted): first with second, third, ..., then
 * second with third, ... QFW_E_DATA when rows differ. */
enum { MAX_REPORT_PAIRS = 120 };
qfw_status report_pairs(
    const evaluation *const *list, uint32_t n, comparison *c, double p[MAX_REPORT_PAIRS]);
/* The result in one sentence. */
void report_sentence(const report_input *in, const run_record *runs, FILE *out);
qfw_status report_comparison(const evaluation *const *list, uint32_t n, FILE *out);
void report_skills(const evaluation *const *list, uint32_t n, FILE *out);
qfw_status report_calibration(const evaluation *const *list, uint32_t n, FILE *out);
void report_confusion(const evaluation *const *list, uint32_t n, FILE *out);
void report_sensitivity(const evaluation *const *list, uint32_t n, FILE *out);
void report_worst(const evaluation *const *list, uint32_t n, FILE *out);

#endif

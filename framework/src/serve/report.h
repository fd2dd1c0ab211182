/* report.h -- report.html: one file that opens offline and tells what runs learned, what scorers
 * are worth, and where they are wrong.
 */
#ifndef SERVE_REPORT_H
#define SERVE_REPORT_H

#include "serve/evaluation.h"

typedef struct report_input {
    const char *title;              /* NULL: "qfw report" */
    const char *const *run_folders; /* outputs of training; what one lacks is said in its place */
    uint32_t n_runs;
    const evaluation *const *evaluations; /* from the first scorer to the latest */
    uint32_t n_evaluations;
} report_input;

/* Written whole, renamed into place; the same input gives the same bytes. */
qfw_status report_write(const report_input *in, const char *path);

#endif

/* score_out.h -- scores.jsonl and scores.csv.
 *
 * scores.jsonl grows by a line a document, complete when it is written: after a kill --resume goes
 * on behind the last complete line. scores.csv and the table are made from it when all documents
 * are done, so that they hold the same whatever happened on the way. docs/scoring.md says what
 * stands where.
 */
#ifndef SERVE_SCORE_OUT_H
#define SERVE_SCORE_OUT_H

#include <stdio.h>

#include "serve/score.h"

typedef struct score_out score_out;

typedef struct score_out_opts {
    const char *folder;
    const rubric *rubric;
    const char *settings; /* a digest of what scores depend on, in every line */
    int resume;           /* go on with what the folder holds */
} score_out_opts;

/* *n_done: documents that are there already; E_OUT_RESUME where they were scored under other
 * settings. */
qfw_status score_out_open(const score_out_opts *o, uint64_t *n_done, score_out **out);
/* Whether document i of those is this one, id and text. */
int score_out_is(const score_out *o, uint64_t i, const char *id, const char *text, size_t n);
qfw_status score_out_add(score_out *o, const scored *d);
/* Write scores.csv and print the table of skills. */
qfw_status score_out_finish(score_out *o, FILE *table);
void score_out_close(score_out *o); /* NULL is ignored */

#endif

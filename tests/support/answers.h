/* answers.h -- an engine on a lab's model. */
#ifndef SUPPORT_ANSWERS_H
#define SUPPORT_ANSWERS_H

#include "lab.h"
#include "serve/engine.h"

typedef struct answers {
    run *r;
    engine *e;
} answers;

/* On run.ini of the lab, whose weights must be there (lab_run). Fails the test on any error. */
void answers_open(const lab *l, const engine_opts *o, answers *a);
void answers_close(answers *a);
/* Append n tokens to a slot, `step` at a time; the logits after the last: free(). */
float *answers_read(answers *a, uint32_t slot, const int32_t *tokens, int64_t n, int64_t step);

#endif

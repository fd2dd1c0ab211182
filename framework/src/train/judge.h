/* judge.h -- who judges the weights while they are trained by more than their loss: scores a set,
 * say. train/ knows neither sets nor scores; serve/ provides one.
 */
#ifndef TRAIN_JUDGE_H
#define TRAIN_JUDGE_H

#include "train/plan_report.h"

/* What an evaluation says: "loss", the trainer's metrics, a judge's; in the log after "eval_". */
enum { MAX_JUDGED = 48, MAX_EVAL_VALUES = MAX_JUDGED + MAX_METRICS + 1 };
typedef struct eval_value {
    char name[80];
    double value; /* NaN: nothing can be said */
} eval_value;
typedef struct eval_values {
    eval_value item[MAX_EVAL_VALUES];
    uint32_t n;
} eval_values;
void eval_values_add(eval_values *v, const char *name, double value); /* past the last: dropped */

typedef struct judge {
    /* Everything that can be wrong, and the graphs; after graphs_plan, before store_alloc. */
    qfw_status (*plan)(run *r, void **out);
    plan_need (*need)(void *j);
    const char *(*name)(void *j, uint32_t i); /* of what it says; NULL past the last */
    /* Its plans, for what of the weights may be sealed; returns how many. */
    uint32_t (*plans)(void *j, const plan **out, uint32_t cap);
    qfw_status (*alloc)(void *j); /* after store_alloc */
    qfw_status (*judge)(void *j, eval_values *out);
    void (*close)(void *j); /* NULL is ignored */
} judge;

#endif

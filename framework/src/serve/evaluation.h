/* evaluation.h -- what a scorer said of documents with known scores, and what that says of it.
 *
 * One evaluation is one scorer (a model with or without an adapter, under one prompt) on one set.
 * It can be written as evaluation.json and read again, so that scorers are compared and reported
 * without running them anew.
 */
#ifndef SERVE_EVALUATION_H
#define SERVE_EVALUATION_H

#include <stdint.h>
#include <stdio.h>

#include "qfw/status.h"
#include "serve/stats.h"

enum { MAX_SKILLS = 32, MAX_LEVELS = 16 };

/* The scale: whole numbers low .. low + n_levels - 1. */
typedef struct scale {
    int32_t low;
    uint32_t n_levels;
} scale;

/* One document and one skill. Strings belong to the evaluation. */
typedef struct judged {
    const char *document; /* its id */
    const char *text;     /* the document, cut to what a report can show; "" unknown */
    const char *reason;   /* as generated; "" none */
    uint32_t skill;       /* index into skills */
    uint32_t abstained;   /* 1: confidence below the threshold; counted apart */
    int32_t low, high;    /* the scores that count as right, low <= high */
    int32_t score;        /* the most probable level */
    double expected;      /* sum of level * probability */
    double confidence;    /* probability of `score` */
    double p[MAX_LEVELS]; /* of each level, sums to 1 */
} judged;

/* How one skill's scores move when the question is worded otherwise and when the words that speak
 * for it are taken away or said twice (sensitivity.h). */
typedef struct skill_movement {
    share moved;         /* documents whose score is not the same under all wordings */
    double spread;       /* mean over documents of the highest - lowest expected score */
    uint64_t n_evidence; /* documents with evidence that were scored; 0: the means say nothing */
    double as_it_is, without, twice; /* their mean expected score */
} skill_movement;

typedef struct evaluation {
    const char *name;    /* "base", "sft", "dpo": for tables */
    const char *set;     /* file of the set */
    const char *adapter; /* its folder; "" none */
    const char *skills[MAX_SKILLS];
    uint32_t n_skills;
    scale scale;
    judged *rows;
    size_t n_rows, cap_rows;
    uint32_t n_wordings;    /* the rubric's own counted; 0: no other was tried */
    uint32_t evidence_rows; /* most rows a skill whose evidence was changed; 0: none */
    skill_movement movement[MAX_SKILLS];
} evaluation;

qfw_status evaluation_create(const char *name, const char *set, const char *adapter,
    const char *const *skills, uint32_t n_skills, scale s, evaluation **out);
void evaluation_destroy(evaluation *e); /* NULL is ignored */
qfw_status evaluation_rename(evaluation *e, const char *name);
/* Append a copy, strings included. */
qfw_status evaluation_add(evaluation *e, const judged *row);
/* evaluation.json: written whole, renamed into place; read back to the same bits. */
qfw_status evaluation_write(const evaluation *e, const char *path);
qfw_status evaluation_read(const char *path, evaluation **out);

/* Numbers of one skill, or of all together. Rows that abstained count in `abstained` alone. "Right"
 * below is the score of low .. high that is nearest to the row's own. NaN where there is nothing to
 * say. */
typedef struct skill_metrics {
    share in_range; /* score within low .. high, of the rows that did not abstain */
    uint64_t n, abstained;
    uint64_t over, under;   /* score > high, score < low */
    double sign_p;          /* two-sided exact sign test of over against under */
    double mae;             /* mean distance of score to the right one */
    double bias;            /* mean signed distance: over > 0 */
    double kappa;           /* quadratic weighted, of score against the right one */
    double brier;           /* mean of (confidence - 1[score is in range])^2: Brier, 1950 */
    double calibration_err; /* expected calibration error over the bins below */
} skill_metrics;

skill_metrics evaluation_metrics(const evaluation *e, uint32_t skill); /* n_skills: all */

/* The score of low .. high that is nearest to the row's. */
int32_t judged_right(const judged *r);

/* Two scorers on the same rows, in the same order; rows on which either abstained are left out. */
typedef struct comparison {
    uint64_t n, both, first_only, second_only, neither; /* in range */
    double p;                                           /* McNemar, exact and two-sided */
    share first, second;
} comparison;
/* QFW_E_DATA when the sets do not hold the same rows. skill n_skills: all. */
qfw_status evaluation_compare(
    const evaluation *first, const evaluation *second, uint32_t skill, comparison *out);

/* One of ten equal bins of confidence: its mean, and the share that was in range. */
typedef struct calibration_bin {
    double from, to, confidence;
    share right;
} calibration_bin;
enum { CALIBRATION_BINS = 10 };
void evaluation_calibration(
    const evaluation *e, uint32_t skill, calibration_bin bins[CALIBRATION_BINS]);

#endif

/* near.h -- rows that say nearly the same: in the training rows, and of the evaluation's rows those
 * that the training rows hold, too.
 *
 * Two rows are near when the Jaccard index of their shingles (shingles.h) is at least a threshold.
 * Candidates are found by MinHash: 128 minima a row in 32 bands of 4; each is then counted exactly,
 * so that nothing is reported that is not so. What is missed: at a threshold of 0.8 one pair in
 * 10^7 by the bands alone; more where many rows share a band, of which only neighbours are
 * compared, those that share the following bands, too. So time is n log n for whatever rows.
 */
#ifndef TEXT_NEAR_H
#define TEXT_NEAR_H

#include "text/dataset.h"

enum { NEAR_SHOWN = 5 };

/* A row, and the one of the training rows that it is near to. */
typedef struct near_pair {
    uint64_t line, train_line;
    double jaccard;
} near_pair;

/* The nearest first, then in the order of the file. */
typedef struct near_list {
    uint64_t rows; /* of the set that have a near one */
    uint64_t of;
    near_pair worst[NEAR_SHOWN];
    uint32_t n_worst;
} near_list;

typedef struct near_facts {
    double threshold; /* 0: not looked for */
    near_list train;  /* rows that stand after one that they are near to */
    near_list eval;   /* rows that are near to one of train */
} near_facts;

/* Both sets were opened with `shingles`, which are then given back. eval: NULL, none. */
qfw_status near_find(dataset *train, dataset *eval, double threshold, near_facts *out);
/* E_DATA_NEAR, E_DATA_LEAK: more than this share of the rows. */
qfw_status near_check(const near_facts *f, const dataset *train, const dataset *eval,
    double max_near, double max_leakage);
void near_print(const near_facts *f, FILE *out); /* data_report.c */

#endif

/* dataset.h -- a JSONL file as examples: parsed, tokenised, masked, measured and reported before
 * step 1.
 *
 * The whole file is read once, so that a run cannot die on row 90,000 at hour nine. Rows go through
 * the trainer's `encode` and the encoder service (qfw/data.h) that this module implements.
 */
#ifndef TEXT_DATASET_H
#define TEXT_DATASET_H

#include "qfw/trainer.h"
#include "text/chat.h"

enum { OVERLONG_ERROR = 0, OVERLONG_TRUNCATE = 1, OVERLONG_DROP = 2 };

typedef struct dataset_opts {
    const tokenizer *tok;
    const chat_template *chat; /* NULL: a messages row is an error */
    int system_policy;         /* CHAT_SYSTEM_* */
    int allow_special;         /* special tokens typed inside a message's content count */
    int64_t max_length;
    int64_t model_length; /* at most as many positions, whatever max_length says; 0: unknown */
    int overlong;         /* OVERLONG_*; truncation keeps the EOS */
    int drop_untrained;   /* 1: drop a row without a trained token, else it is an error */
    int skip_errors;      /* 1: a row that is wrong is left out, max_errors of them at most */
    uint64_t max_errors;
    int shingles;      /* 1: keep what near.h compares */
    uint64_t max_line; /* bytes; 0: 16 MiB */
    const qfw_trainer *trainer;
    qfw_inst *trainer_inst;
    const qfw_host *host; /* asked whether to stop; NULL: never */
} dataset_opts;

typedef struct dataset dataset;
qfw_status dataset_open(const char *path, const dataset_opts *o, dataset **out);
void dataset_close(dataset *d);
uint64_t dataset_count(const dataset *d);
qfw_example *dataset_at(dataset *d, uint64_t i); /* index order; ordinal is the caller's to set */

/* What was read, cut and dropped. */
typedef struct dataset_report {
    uint64_t lines, rows, kept, cut, dropped_long, dropped_untrained, blank;
    uint64_t tokens, trained;    /* of the kept rows */
    uint64_t min, p50, p95, max; /* tokens a row, all sequences of it */
    uint64_t extra_keys;         /* rows with keys that no one read */
    uint64_t errors;             /* lines left out because they are wrong */
    uint64_t duplicates;         /* kept rows whose tokens and masks are those of an earlier one */
    uint64_t duplicate_line, duplicate_of; /* the first of them, and which it repeats */
    char sha256[65];
} dataset_report;
const dataset_report *dataset_facts(const dataset *d);
/* What is wrong with line number *line that was left out, i in the order of the file; NULL past the
 * last that is kept (DATASET_PROBLEMS). */
enum { DATASET_PROBLEMS = 20 };
const char *dataset_problem(const dataset *d, uint32_t i, uint64_t *line);
/* Rows by their length: bin i, or 0 past the last; all are as wide, from the shortest row to the
 * longest, DATASET_BINS at most. */
enum { DATASET_BINS = 9 };
typedef struct dataset_bin {
    uint64_t from, to, rows; /* tokens, both included */
} dataset_bin;
int dataset_length_bin(const dataset *d, uint32_t i, dataset_bin *out);
/* The report as lines for a person, and one row token by token with its mask (colour on a
 * terminal). */
void dataset_print_report(const dataset *d, const char *title, FILE *out);
void dataset_print_row(const dataset *d, uint64_t i, FILE *out, int colour);

/* The sum of the n longest rows' tokens: no batch of n examples is longer. */
uint64_t dataset_longest(const dataset *d, uint64_t n);

extern const qfw_encoder_api encoder_api; /* host extension "qfw.encoder/1" */

#endif

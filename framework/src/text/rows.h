/* rows.h -- what the files of the dataset share: the store of tokens, and the encoder that fills
 * it. */
#ifndef TEXT_ROWS_H
#define TEXT_ROWS_H

#include "files/json.h"
#include "text/dataset.h"

/* All sequences of all rows, one after another. A sequence's token and trained point into these
 * arrays once nothing is added any more (dataset.c). */
typedef struct row_store {
    int32_t *token;
    uint8_t *trained;
    qfw_seq *seq;
    size_t n, token_cap, trained_cap, n_seqs, seq_cap;
} row_store;

enum { MAX_KEYS = 16, KEY_BYTES = 64, FORM_BYTES = 256 };

/* One row at a time: what qfw/data.h calls the encoder. */
struct qfw_encoder {
    const dataset_opts *o;
    qfw_doc *row;
    const char *path;
    uint64_t line;
    row_store *store;
    char key[MAX_KEYS][KEY_BYTES]; /* members of the row that were asked for */
    uint32_t n_keys;
    int of_messages;       /* the row is read as messages */
    char form[FORM_BYTES]; /* of the first row: its keys as a message names them; "": none yet */
    uint64_t form_line;
    int too_long, untrained; /* the example is to be dropped */
    int template_checked;
    ids prompt, whole, other; /* scratch */
    chat_message *message;
    size_t n_messages, message_cap;
    text_part *part;
    size_t part_cap;
};

void encoder_free(qfw_encoder *e); /* its scratch */
/* Make the example of e->row; on failure, and when it is to be dropped, the store is as it was. */
qfw_status encoder_run(qfw_encoder *e);
int encoder_knows_key(const qfw_encoder *e, const char *key);

/* The sets of all rows, one after another (shingles.h). */
typedef struct shingle_store {
    uint64_t *hash;
    size_t *end; /* of each row's */
    size_t n, cap, n_rows, end_cap;
} shingle_store;

typedef struct row_problem {
    uint64_t line;
    char *text; /* "rows.jsonl:7: ..." */
} row_problem;

/* duplicates.c: facts.duplicates, once everything points at what is its. */
qfw_status count_duplicates(dataset *d);

struct dataset {
    char *path;
    const tokenizer *tok;
    int64_t max_length;
    row_store store;
    qfw_example *example;
    size_t n, cap;
    uint64_t *length; /* tokens of each row, the longest first */
    row_problem problem[DATASET_PROBLEMS];
    uint32_t n_problems;
    shingle_store shingles;
    dataset_report facts;
};

#endif

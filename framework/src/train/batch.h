/* batch.h -- examples into the inputs of a graph, without padding between sequences. */
#ifndef TRAIN_BATCH_H
#define TRAIN_BATCH_H

#include "train/run.h"

/* The buckets that N is rounded up to: few graphs, at most an eighth wasted above 128 rows. */
int64_t batch_bucket(int64_t n_tokens);

/* Whether the trainer's key share_prompt lets the sequences of an example share the rows that they
 * begin with alike: a segment of their own, which the others see as their prefix. */
int batch_shares_prompts(const run *r);
/* Segments that an example of the set has at most. */
uint32_t batch_segments(const run *r, dataset *d);
/* Rows of an example. */
uint64_t batch_rows(const run *r, const qfw_example *e);

/* Room for one batch of at most max_examples examples and max_rows rows (a bucket). */
struct batch {
    qfw_batch pub;
    int32_t *tokens, *labels, *positions, *row_key, *segments, *row_segment, *segment_example;
    int32_t *row_length;
    float *ref_logp; /* of the label of each row, where a reference's are kept; else 0 */
    const qfw_example **examples;
    qfw_seq_ref *refs;
    int64_t max_rows, max_segments, max_examples;
    double weight;    /* the trainer's */
    uint64_t trained; /* tokens that have a label */
    uint64_t seen;    /* tokens of all sequences, a shared prompt counted in each */
};

/* segments: of an example at most. */
qfw_status batch_create(uint32_t max_examples, uint32_t segments, int64_t max_rows, batch **out);
void batch_destroy(batch *b);
/* Lay out examples[0..n-1] as the trainer collates them. The shape is the bucket of their
 * tokens. */
qfw_status batch_fill(
    batch *b, const run *r, const qfw_example *const *examples, uint32_t n, uint32_t training);
/* Add the rows that this batch would have, and its tokens, a shared one counted in each sequence;
 * uses b->refs and b->examples. */
qfw_status batch_count(batch *b, const run *r, const qfw_example *const *examples, uint32_t n,
    uint64_t *rows, uint64_t *tokens);

#endif

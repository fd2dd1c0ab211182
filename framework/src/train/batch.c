/* batch.c -- lays sequences one after another and derives everything a graph asks for by row. */
#include "train/batch.h"

#include <string.h>

#include "base/error.h"
#include "base/mem.h"

int64_t batch_bucket(int64_t n_tokens) {
    int64_t step = 16;
    while (step * 8 < n_tokens) step *= 2;
    const int64_t bucket = (n_tokens + step - 1) / step * step;
    return bucket > 0 ? bucket : step;
}

void batch_destroy(batch *b) {
    if (!b) return;
    mem_free(b->tokens);
    mem_free(b->segments);
    mem_free(b->segment_example);
    mem_free(b->examples);
    mem_free(b->refs);
    mem_free(b);
}

qfw_status batch_create(uint32_t max_examples, uint32_t seqs, int64_t max_rows, batch **out) {
    enum { ROW_ARRAYS = 7 }; /* row_key has two values a row */
    const size_t rows = (size_t)max_rows, segments = (size_t)max_examples * seqs;
    batch *b = *out = mem_alloc(1, sizeof *b);
    if (!b) return QFW_E_NOMEM;
    b->max_rows = max_rows;
    b->max_segments = (int64_t)segments;
    b->max_examples = max_examples;
    b->tokens = mem_alloc(rows * ROW_ARRAYS, sizeof *b->tokens);
    b->segments = mem_alloc(segments * 5, sizeof *b->segments);
    b->segment_example = mem_alloc(segments, sizeof *b->segment_example);
    b->examples = mem_alloc(max_examples, sizeof *b->examples);
    b->refs = mem_alloc(segments, sizeof *b->refs);
    if (!b->tokens || !b->segments || !b->segment_example || !b->examples || !b->refs) {
        batch_destroy(b);
        *out = NULL;
        return QFW_E_NOMEM;
    }
    b->labels = b->tokens + rows;
    b->positions = b->labels + rows;
    b->row_segment = b->positions + rows;
    b->row_length = b->row_segment + rows;
    b->row_key = b->row_length + rows;
    return QFW_OK;
}

/* Sequence `at` of the batch, from row `row` on. */
static void lay_sequence(batch *b, int64_t at, int64_t row, const qfw_example *e, uint32_t seq) {
    const qfw_seq *s = &e->seq[seq];
    int32_t *segment = b->segments + at * 5;
    for (uint32_t t = 0; t < s->n; t++) {
        const int64_t n = row + t;
        b->tokens[n] = s->token[t];
        b->labels[n] = t + 1 < s->n && s->trained[t + 1] ? s->token[t + 1] : QFW_IGNORE_LABEL;
        b->positions[n] = (int32_t)t;
        b->row_segment[n] = (int32_t)at;
        b->row_length[n] = (int32_t)s->n;
        b->row_key[2 * n] = (int32_t)((uint32_t)e->ordinal * e->n_seqs + seq);
        b->row_key[2 * n + 1] = (int32_t)t;
        b->trained += b->labels[n] != QFW_IGNORE_LABEL;
    }
    segment[0] = (int32_t)row;
    segment[1] = (int32_t)(row + s->n);
    segment[2] = segment[3] = 0;
    segment[4] = (int32_t)row;
}

static void lay_padding(batch *b, int64_t from, int64_t to) {
    for (int64_t n = from; n < to; n++) {
        b->tokens[n] = b->positions[n] = b->row_length[n] = 0;
        b->labels[n] = QFW_IGNORE_LABEL;
        b->row_segment[n] = -1;
        b->row_key[2 * n] = b->row_key[2 * n + 1] = 0;
    }
}

static void publish(batch *b, uint32_t training, int64_t n_tokens, uint32_t n_refs, uint32_t n) {
    const qfw_batch_shape shape = {
        sizeof shape, training, batch_bucket(n_tokens), b->max_segments, b->max_examples};
    b->pub = (qfw_batch){.size = sizeof b->pub,
        .shape = shape,
        .n_tokens = n_tokens,
        .n_seqs = n_refs,
        .n_examples = n,
        .tokens = b->tokens,
        .labels = b->labels,
        .positions = b->positions,
        .row_key = b->row_key,
        .segments = b->segments,
        .row_segment = b->row_segment,
        .segment_example = b->segment_example,
        .row_length = b->row_length,
        .examples = b->examples};
}

qfw_status batch_fill(
    batch *b, const run *r, const qfw_example *const *examples, uint32_t n, uint32_t training) {
    uint32_t n_refs = 0;
    int64_t n_tokens = 0;
    QFW_TRY(r->trainer->collate(r->trainer_inst, examples, n, b->refs, &n_refs, &b->weight));
    for (uint32_t i = 0; i < n_refs; i++)
        n_tokens += examples[b->refs[i].example]->seq[b->refs[i].seq].n;
    if (batch_bucket(n_tokens) > b->max_rows || n_refs > b->max_segments)
        return err_fail("E_PLUG_TRAINER", QFW_E_INTERNAL,
            "trainer %s: a batch of %lld tokens and "
            "%u sequences, planned for %lld and %lld",
            r->trainer_component->name, (long long)n_tokens, n_refs, (long long)b->max_rows,
            (long long)b->max_segments);
    memset(b->segments, 0, (size_t)b->max_segments * 5 * sizeof *b->segments);
    memset(b->segment_example, -1, (size_t)b->max_segments * sizeof *b->segment_example);
    for (uint32_t i = 0; i < n; i++) b->examples[i] = examples[i];
    b->trained = 0;
    int64_t row = 0;
    for (uint32_t i = 0; i < n_refs; i++) {
        const qfw_example *e = examples[b->refs[i].example];
        lay_sequence(b, i, row, e, b->refs[i].seq);
        b->segment_example[i] = (int32_t)b->refs[i].example;
        row += e->seq[b->refs[i].seq].n;
    }
    publish(b, training, n_tokens, n_refs, n);
    lay_padding(b, n_tokens, b->max_rows); /* whichever larger graph runs it */
    return QFW_OK;
}

/* batch.c -- lays sequences one after another and derives everything a graph asks for by row.
 *
 * Sequences of one example that follow each other may share the rows that they begin with alike and
 * that have no label: those stand once, in a segment of their own after all others. The row before
 * the first trained token has a label in each sequence, and stands in each.
 */
#include "train/batch.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "train/reference.h"

int64_t batch_bucket(int64_t n_tokens) {
    int64_t step = 16;
    while (step * 8 < n_tokens) step *= 2;
    const int64_t bucket = (n_tokens + step - 1) / step * step;
    return bucket > 0 ? bucket : step;
}

void batch_destroy(batch *b) {
    if (!b) return;
    mem_free(b->ref_logp);
    mem_free(b->tokens);
    mem_free(b->segments);
    mem_free(b->segment_example);
    mem_free(b->examples);
    mem_free(b->refs);
    mem_free(b);
}

qfw_status batch_create(uint32_t max_examples, uint32_t segments, int64_t max_rows, batch **out) {
    enum { ROW_ARRAYS = 7 }; /* row_key has two values a row */
    const size_t rows = (size_t)max_rows, all = (size_t)max_examples * segments;
    batch *b = *out = mem_alloc(1, sizeof *b);
    if (!b) return QFW_E_NOMEM;
    b->max_rows = max_rows;
    b->max_segments = (int64_t)all;
    b->max_examples = max_examples;
    b->tokens = mem_alloc(rows * ROW_ARRAYS, sizeof *b->tokens);
    b->segments = mem_alloc(all * 5, sizeof *b->segments);
    b->segment_example = mem_alloc(all, sizeof *b->segment_example);
    b->examples = mem_alloc(max_examples, sizeof *b->examples);
    b->refs = mem_alloc(all, sizeof *b->refs);
    b->ref_logp = mem_alloc(rows, sizeof *b->ref_logp);
    if (!b->tokens || !b->segments || !b->segment_example || !b->examples || !b->refs ||
        !b->ref_logp) {
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

/* --- what is shared --- */

int batch_shares_prompts(const run *r) {
    return (int)cfg_int(r->sections[SECTION_TRAINER_OWN].cfg, "share_prompt");
}

/* Rows that all sequences of an example begin with alike and without a label. None where the model
 * computes a long sequence otherwise than a short one, and the example has both. */
static uint32_t common_rows(const run *r, const qfw_example *e) {
    const qfw_seq *a = &e->seq[0];
    const int64_t limit = r->facts.rope_switch;
    uint32_t common = e->n_seqs > 1 ? a->n : 0;
    for (uint32_t k = 0; k < e->n_seqs && common; k++) {
        const qfw_seq *s = &e->seq[k];
        uint32_t n = 0;
        while (n < common && n + 1 < s->n && s->token[n] == a->token[n] && !s->trained[n + 1]) n++;
        common = limit && (s->n > limit) != (a->n > limit) ? 0 : n;
    }
    return common;
}

uint32_t batch_segments(const run *r, dataset *d) {
    uint32_t most = 1;
    for (uint64_t i = 0; i < dataset_count(d); i++)
        if (dataset_at(d, i)->n_seqs > most) most = dataset_at(d, i)->n_seqs;
    return most > 1 && batch_shares_prompts(r) ? most + 1 : most;
}

uint64_t batch_rows(const run *r, const qfw_example *e) {
    uint64_t rows = 0;
    for (uint32_t k = 0; k < e->n_seqs; k++) rows += e->seq[k].n;
    if (!batch_shares_prompts(r)) return rows;
    return e->n_seqs > 1 ? rows - (e->n_seqs - 1) * (uint64_t)common_rows(r, e) : rows;
}

static int compare_longest(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x < y) - (x > y);
}

qfw_status batch_longest(const run *r, dataset *d, uint32_t n, uint64_t *rows) {
    const uint64_t count = dataset_count(d);
    uint64_t *length = mem_alloc(count, sizeof *length);
    *rows = 0;
    if (!length) return QFW_E_NOMEM;
    for (uint64_t i = 0; i < count; i++) length[i] = batch_rows(r, dataset_at(d, i));
    qsort(length, count, sizeof *length, compare_longest);
    for (uint64_t i = 0; i < count && i < n; i++) *rows += length[i];
    mem_free(length);
    return QFW_OK;
}

/* --- laying out --- */

/* A part of a sequence that is to become a segment: its tokens from..to-1, from row `row` on. */
typedef struct part {
    const qfw_example *e;
    uint32_t seq, from, to;
    uint32_t common;     /* rows that have the same dropout in all sequences of the example */
    int64_t row, prefix; /* prefix: the row of token 0, where from is not 0 */
} part;

static void lay_part(batch *b, const run *r, int64_t at, const part *p) {
    const qfw_seq *s = &p->e->seq[p->seq];
    const float *logp = reference_logps(r, p->e, p->seq);
    int32_t *segment = b->segments + at * 5;
    for (uint32_t t = p->from; t < p->to; t++) {
        const int64_t n = p->row + t - p->from;
        const int has_label = t + 1 < s->n && s->trained[t + 1];
        b->tokens[n] = s->token[t];
        b->labels[n] = has_label ? s->token[t + 1] : QFW_IGNORE_LABEL;
        b->ref_logp[n] = has_label && logp ? *logp++ : 0;
        b->positions[n] = (int32_t)t;
        b->row_segment[n] = (int32_t)at;
        b->row_length[n] = (int32_t)s->n;
        b->row_key[2 * n] =
            (int32_t)((uint32_t)p->e->ordinal * p->e->n_seqs + (t < p->common ? 0 : p->seq));
        b->row_key[2 * n + 1] = (int32_t)t;
        b->trained += (uint64_t)has_label;
    }
    segment[0] = (int32_t)p->row;
    segment[1] = (int32_t)(p->row + p->to - p->from);
    segment[2] = p->from ? (int32_t)p->prefix : 0;
    segment[3] = p->from ? (int32_t)(p->prefix + p->from) : 0;
    segment[4] = (int32_t)p->row;
}

static void lay_padding(batch *b, int64_t from, int64_t to) {
    for (int64_t n = from; n < to; n++) {
        b->tokens[n] = b->positions[n] = b->row_length[n] = 0;
        b->labels[n] = QFW_IGNORE_LABEL;
        b->ref_logp[n] = 0;
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

/* How many refs from `at` on are the sequences of one example. */
static uint32_t group_of(const batch *b, uint32_t at, uint32_t n_refs) {
    uint32_t n = 1;
    while (at + n < n_refs && b->refs[at + n].example == b->refs[at].example) n++;
    return n;
}

/* Rows that the group of refs from `at` on shares. */
static uint32_t shared_rows(
    const batch *b, const run *r, const qfw_example *e, uint32_t at, uint32_t n_refs) {
    const int whole = e->n_seqs > 1 && group_of(b, at, n_refs) == e->n_seqs;
    return whole && batch_shares_prompts(r) ? common_rows(r, e) : 0;
}

static int64_t count_rows(
    const batch *b, const run *r, const qfw_example *const *examples, uint32_t n_refs) {
    int64_t rows = 0;
    for (uint32_t at = 0, n; at < n_refs; at += n) {
        const qfw_example *e = examples[b->refs[at].example];
        const uint32_t shared = shared_rows(b, r, e, at, n_refs);
        n = group_of(b, at, n_refs);
        for (uint32_t i = at; i < at + n; i++) rows += e->seq[b->refs[i].seq].n - shared;
        rows += shared;
    }
    return rows;
}

/* The sequences of one example, and before them what they share; returns the row past them. */
static int64_t lay_group(
    batch *b, const run *r, uint32_t at, uint32_t n_refs, int64_t row, int64_t *prefix_segment) {
    const uint32_t n = group_of(b, at, n_refs), example = b->refs[at].example;
    const qfw_example *e = b->examples[example];
    const uint32_t shared = shared_rows(b, r, e, at, n_refs);
    part p = {.e = e, .common = common_rows(r, e), .row = row, .prefix = row, .to = shared};
    if (shared) {
        lay_part(b, r, *prefix_segment, &p);
        b->segment_example[(*prefix_segment)++] = (int32_t)example;
    }
    p.row += shared;
    p.from = shared;
    for (uint32_t i = at; i < at + n; i++) {
        p.seq = b->refs[i].seq;
        p.to = e->seq[p.seq].n;
        lay_part(b, r, i, &p);
        b->segment_example[i] = (int32_t)example;
        b->seen += p.to;
        p.row += p.to - p.from;
    }
    return p.row;
}

qfw_status batch_fill(
    batch *b, const run *r, const qfw_example *const *examples, uint32_t n, uint32_t training) {
    uint32_t n_refs = 0;
    QFW_TRY(r->trainer->collate(r->trainer_inst, examples, n, b->refs, &n_refs, &b->weight));
    const int64_t n_rows = count_rows(b, r, examples, n_refs);
    int64_t prefix_segment = n_refs;
    if (batch_bucket(n_rows) > b->max_rows || n_refs > b->max_segments)
        return err_fail("E_PLUG_TRAINER", QFW_E_INTERNAL,
            "trainer %s: a batch of %lld tokens and "
            "%u sequences, planned for %lld and %lld",
            r->trainer_component->name, (long long)n_rows, n_refs, (long long)b->max_rows,
            (long long)b->max_segments);
    memset(b->segments, 0, (size_t)b->max_segments * 5 * sizeof *b->segments);
    memset(b->segment_example, -1, (size_t)b->max_segments * sizeof *b->segment_example);
    for (uint32_t i = 0; i < n; i++) b->examples[i] = examples[i];
    b->trained = b->seen = 0;
    int64_t row = 0;
    for (uint32_t at = 0; at < n_refs; at += group_of(b, at, n_refs))
        row = lay_group(b, r, at, n_refs, row, &prefix_segment);
    publish(b, training, n_rows, n_refs, n);
    lay_padding(b, n_rows, b->max_rows); /* whichever larger graph runs it */
    return QFW_OK;
}

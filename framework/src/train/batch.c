/* batch.c -- lays sequences one after another and derives everything a graph asks for by row.
 *
 * Sequences of one example that follow each other, and with share_prefix those of different
 * examples, may share the rows that they begin with alike and that have no label: those stand once,
 * in a segment of their own after all others. The row before the first trained token has a label in
 * each sequence, and stands in each.
 */
#include "train/batch.h"

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

/* Of the first `most` rows of a, those that s begins with alike and without a label. None where the
 * model computes a long sequence otherwise than a short one, and one is long. */
static uint32_t alike(const run *r, const qfw_seq *a, const qfw_seq *s, uint32_t most) {
    const int64_t limit = r->facts.rope_switch;
    uint32_t n = 0;
    if (limit && (s->n > limit) != (a->n > limit)) return 0;
    while (n < most && n + 1 < s->n && s->token[n] == a->token[n] && !s->trained[n + 1]) n++;
    return n;
}

/* Rows that all sequences of an example begin with alike and without a label. */
static uint32_t common_rows(const run *r, const qfw_example *e) {
    uint32_t common = e->n_seqs > 1 ? e->seq[0].n : 0;
    for (uint32_t k = 0; k < e->n_seqs && common; k++)
        common = alike(r, &e->seq[0], &e->seq[k], common);
    return common;
}

static int shares_prefixes(const run *r) {
    return (int)cfg_int(run_cfg(r, SECTION_DATA), "share_prefix");
}

uint32_t batch_segments(const run *r, dataset *d) {
    uint32_t most = 1;
    for (uint64_t i = 0; i < dataset_count(d); i++)
        if (dataset_at(d, i)->n_seqs > most) most = dataset_at(d, i)->n_seqs;
    return (most > 1 && batch_shares_prompts(r)) || shares_prefixes(r) ? most + 1 : most;
}

uint64_t batch_rows(const run *r, const qfw_example *e) {
    uint64_t rows = 0;
    for (uint32_t k = 0; k < e->n_seqs; k++) rows += e->seq[k].n;
    if (!batch_shares_prompts(r)) return rows;
    return e->n_seqs > 1 ? rows - (e->n_seqs - 1) * (uint64_t)common_rows(r, e) : rows;
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

/* Refs that follow each other, and the rows that they share. */
typedef struct group {
    uint32_t n, shared;
} group;

static const qfw_example *example_of(const batch *b, uint32_t at) {
    return b->examples[b->refs[at].example];
}

/* The sequences of one example. */
static group group_of_example(const batch *b, const run *r, uint32_t at, uint32_t n_refs) {
    const qfw_example *e = example_of(b, at);
    group g = {.n = 1};
    while (at + g.n < n_refs && b->refs[at + g.n].example == b->refs[at].example) g.n++;
    if (e->n_seqs > 1 && g.n == e->n_seqs && batch_shares_prompts(r)) g.shared = common_rows(r, e);
    return g;
}

/* Examples of one sequence each: as many as save rows by being in it. */
static group group_of_prefix(const batch *b, const run *r, uint32_t at, uint32_t n_refs) {
    const qfw_seq *first = &example_of(b, at)->seq[0];
    group g = {1, alike(r, first, first, first->n)};
    for (uint32_t i = at + 1; i < n_refs && example_of(b, i)->n_seqs == 1; i++) {
        const uint32_t shared = alike(r, first, &example_of(b, i)->seq[0], g.shared);
        if (!shared || (uint64_t)g.n * shared < (uint64_t)(g.n - 1) * g.shared) break;
        g = (group){g.n + 1, shared};
    }
    if (g.n == 1) g.shared = 0;
    return g;
}

static group group_at(const batch *b, const run *r, uint32_t at, uint32_t n_refs) {
    const int by_prefix = shares_prefixes(r) && example_of(b, at)->n_seqs == 1;
    return by_prefix ? group_of_prefix(b, r, at, n_refs) : group_of_example(b, r, at, n_refs);
}

static int64_t count_rows(const batch *b, const run *r, uint32_t n_refs) {
    int64_t rows = 0;
    group g;
    for (uint32_t at = 0; at < n_refs; at += g.n) {
        g = group_at(b, r, at, n_refs);
        for (uint32_t i = at; i < at + g.n; i++)
            rows += example_of(b, i)->seq[b->refs[i].seq].n - g.shared;
        rows += g.shared;
    }
    return rows;
}

/* The sequences of a group, and before them what they share; returns the row past them. */
static int64_t lay_group(
    batch *b, const run *r, uint32_t at, group g, int64_t row, int64_t *prefix_segment) {
    part p = {.e = example_of(b, at), .row = row, .prefix = row, .to = g.shared};
    p.common = common_rows(r, p.e);
    if (g.shared) {
        lay_part(b, r, *prefix_segment, &p);
        b->segment_example[(*prefix_segment)++] = (int32_t)b->refs[at].example;
    }
    p.row += g.shared;
    p.from = g.shared;
    for (uint32_t i = at; i < at + g.n; i++) {
        p.e = example_of(b, i);
        p.seq = b->refs[i].seq;
        p.to = p.e->seq[p.seq].n;
        lay_part(b, r, i, &p);
        b->segment_example[i] = (int32_t)b->refs[i].example;
        b->seen += p.to;
        p.row += p.to - p.from;
    }
    return p.row;
}

qfw_status batch_fill(
    batch *b, const run *r, const qfw_example *const *examples, uint32_t n, uint32_t training) {
    uint32_t n_refs = 0;
    group g;
    QFW_TRY(r->trainer->collate(r->trainer_inst, examples, n, b->refs, &n_refs, &b->weight));
    for (uint32_t i = 0; i < n; i++) b->examples[i] = examples[i];
    const int64_t n_rows = count_rows(b, r, n_refs);
    int64_t prefix_segment = n_refs;
    if (batch_bucket(n_rows) > b->max_rows || n_refs > b->max_segments)
        return err_fail("E_PLUG_TRAINER", QFW_E_INTERNAL,
            "trainer %s: a batch of %lld tokens and "
            "%u sequences, planned for %lld and %lld",
            r->trainer_component->name, (long long)n_rows, n_refs, (long long)b->max_rows,
            (long long)b->max_segments);
    memset(b->segments, 0, (size_t)b->max_segments * 5 * sizeof *b->segments);
    memset(b->segment_example, -1, (size_t)b->max_segments * sizeof *b->segment_example);
    b->trained = b->seen = 0;
    int64_t row = 0;
    for (uint32_t at = 0; at < n_refs; at += g.n) {
        g = group_at(b, r, at, n_refs);
        row = lay_group(b, r, at, g, row, &prefix_segment);
    }
    publish(b, training, n_rows, n_refs, n);
    lay_padding(b, n_rows, b->max_rows); /* whichever larger graph runs it */
    return QFW_OK;
}

qfw_status batch_count(batch *b, const run *r, const qfw_example *const *examples, uint32_t n,
    uint64_t *rows, uint64_t *tokens) {
    uint32_t n_refs = 0;
    double weight;
    QFW_TRY(r->trainer->collate(r->trainer_inst, examples, n, b->refs, &n_refs, &weight));
    for (uint32_t i = 0; i < n; i++) b->examples[i] = examples[i];
    *rows += (uint64_t)count_rows(b, r, n_refs);
    for (uint32_t i = 0; i < n_refs; i++) *tokens += example_of(b, i)->seq[b->refs[i].seq].n;
    return QFW_OK;
}

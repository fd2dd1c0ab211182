/* logits.c -- see logits.h. */
#include "logits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static int64_t number_at(const qfw_doc *d, const char *list, int64_t i) {
    char ptr[192];
    double value = 0;
    snprintf(ptr, sizeof ptr, "%s/%lld", list, (long long)i);
    lab_ok(json_doc_api.f64(d, ptr, &value));
    return (int64_t)value;
}

void logits_tokens(const qfw_doc *d, const char *ptr, logits_case *c) {
    char row_ptr[160];
    assert_int_equal(json_doc_api.count(d, ptr), 2);
    for (int row = 0; row < 2; row++) {
        snprintf(row_ptr, sizeof row_ptr, "%s/%d", ptr, row);
        c->n_tokens = (int64_t)json_doc_api.count(d, row_ptr);
        assert_true(c->n_tokens <= MAX_TOKENS);
        for (int64_t t = 0; t < c->n_tokens; t++)
            c->token[row][t] = (int32_t)number_at(d, row_ptr, t);
    }
}

void logits_positions(const qfw_doc *d, const char *ptr, logits_case *c) {
    c->n_positions = (int64_t)json_doc_api.count(d, ptr);
    assert_in_range(c->n_positions, 1, MAX_POSITIONS);
    for (int64_t p = 0; p < c->n_positions; p++) c->position[p] = number_at(d, ptr, p);
}

void logits_rows(const lab *l, const logits_case *c) {
    char text[16384];
    size_t at = 0;
    for (int row = 0; row < 2; row++) {
        at += (size_t)snprintf(text + at, sizeof text - at, "{\"input_ids\": [");
        for (int64_t t = 0; t < c->n_tokens; t++)
            at += (size_t)snprintf(
                text + at, sizeof text - at, "%s%d", t ? ", " : "", c->token[row][t]);
        at += (size_t)snprintf(text + at, sizeof text - at, "]}\n");
    }
    lab_write(l, "rows.jsonl", text);
}

float *logits_run(lab *l, const logits_case *c) {
    batch *b = NULL;
    const qfw_example *rows[2] = {dataset_at(l->r->train, 0), dataset_at(l->r->train, 1)};
    lab_ok(batch_create(2, 1, batch_bucket(2 * c->n_tokens), &b));
    lab_ok(batch_fill(b, l->r, rows, 2, 0));
    float *logits = lab_logits(l, b);
    batch_destroy(b);
    return logits;
}

double logits_against(
    const lab *l, const logits_case *c, const float *all, const char *file, const char *name) {
    char path[512];
    st_file *f = NULL;
    const int64_t vocab = l->r->facts.vocab, n = 2 * c->n_positions * vocab;
    float *wanted = malloc((size_t)n * sizeof *wanted), *found = malloc((size_t)n * sizeof *found);
    assert_non_null(wanted);
    assert_non_null(found);
    lab_ok(st_open(lab_golden(file, path), &f));
    const st_tensor *t = st_find(f, name);
    assert_non_null(t);
    assert_int_equal(t->bytes, (uint64_t)n * sizeof(float));
    lab_ok(st_read_f32(f, t, 0, t->dim[0], wanted));
    st_close(f);
    for (int row = 0; row < 2; row++)
        for (int64_t p = 0; p < c->n_positions; p++)
            memcpy(found + (row * c->n_positions + p) * vocab,
                all + (row * c->n_tokens + c->position[p]) * vocab, (size_t)vocab * sizeof(float));
    const double worst = lab_relative(found, wanted, n);
    free(wanted);
    free(found);
    return worst;
}

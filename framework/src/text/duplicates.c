/* duplicates.c -- rows whose tokens and masks are those of an earlier row. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "text/rows.h"
#include "text/shingles.h"

typedef struct keyed_row {
    uint64_t hash, index;
} keyed_row;

static uint64_t hash_row(const qfw_example *e) {
    uint64_t hash = e->n_seqs;
    for (uint32_t k = 0; k < e->n_seqs; k++) {
        const qfw_seq *s = &e->seq[k];
        hash = hash_mix(hash * 31 + s->n);
        for (uint32_t t = 0; t < s->n; t++)
            hash = hash_mix(hash * 31 + 2 * (uint64_t)(uint32_t)s->token[t] + s->trained[t]);
    }
    return hash;
}

static int same_row(const qfw_example *a, const qfw_example *b) {
    if (a->n_seqs != b->n_seqs) return 0;
    for (uint32_t k = 0; k < a->n_seqs; k++) {
        const qfw_seq *x = &a->seq[k], *y = &b->seq[k];
        if (x->n != y->n || memcmp(x->token, y->token, x->n * sizeof *x->token) != 0 ||
            memcmp(x->trained, y->trained, x->n) != 0)
            return 0;
    }
    return 1;
}

static int compare_rows(const void *a, const void *b) {
    const keyed_row *x = a, *y = b;
    if (x->hash != y->hash) return x->hash < y->hash ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

qfw_status count_duplicates(dataset *d) {
    size_t first = 0; /* of the rows that are alike */
    dataset_report *f = &d->facts;
    keyed_row *row = mem_alloc(d->n, sizeof *row);
    if (!row) return QFW_E_NOMEM;
    for (size_t i = 0; i < d->n; i++) row[i] = (keyed_row){hash_row(&d->example[i]), i};
    qsort(row, d->n, sizeof *row, compare_rows);
    for (size_t i = 1; i < d->n; i++) {
        const qfw_example *a = &d->example[row[first].index], *b = &d->example[row[i].index];
        if (row[i].hash != row[first].hash || !same_row(a, b)) {
            first = i;
            continue;
        }
        if (f->duplicates++ == 0 || b->line < f->duplicate_line) {
            f->duplicate_line = b->line;
            f->duplicate_of = a->line;
        }
    }
    mem_free(row);
    return QFW_OK;
}

/* near.c -- see near.h. */
#include "text/near.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "text/shingles.h"

enum { PERMUTATIONS = 128, BANDS = 32, BAND = PERMUTATIONS / BANDS, NEIGHBOURS = 8 };

/* A row of either set: train's stand first. */
typedef struct near_row {
    const uint64_t *hash;
    size_t n;
    uint64_t line, copies; /* copies: rows of eval that say just the same, itself included */
    uint64_t digest;
    uint32_t is_eval, is_copy; /* of a row before it */
    double nearest;            /* -1: none */
    uint64_t nearest_line;
} near_row;

/* Where a row stands when a band is sorted: neighbours share what follows, too. */
typedef struct band_entry {
    uint64_t key[3];
    size_t row;
} band_entry;

typedef struct search {
    near_row *row;
    size_t n;
    uint64_t *band; /* [n][BANDS] */
    band_entry *entry;
    double threshold;
    near_facts *out;
} search;

/* --- two rows --- */

static double jaccard(const near_row *a, const near_row *b, double threshold) {
    size_t i = 0, k = 0, both = 0;
    const size_t less = a->n < b->n ? a->n : b->n, more = a->n < b->n ? b->n : a->n;
    if ((double)less < threshold * (double)more) return 0;
    while (i < a->n && k < b->n) {
        const uint64_t x = a->hash[i], y = b->hash[k];
        both += x == y;
        i += x <= y;
        k += y <= x;
    }
    return (double)both / (double)(a->n + b->n - both);
}

/* The later row, or the one of eval, remembers the nearest before it. */
static void compare(search *s, size_t a, size_t b) {
    near_row *later = &s->row[a > b ? a : b];
    const near_row *earlier = &s->row[a > b ? b : a];
    if (earlier->is_eval) return;
    const double j = jaccard(earlier, later, s->threshold);
    if (j < s->threshold || j < later->nearest) return;
    if (j == later->nearest && later->nearest_line <= earlier->line) return;
    later->nearest = j;
    later->nearest_line = earlier->line;
}

/* --- rows that say just the same --- */

static int compare_entries(const void *a, const void *b) {
    const band_entry *x = a, *y = b;
    for (int i = 0; i < 3; i++)
        if (x->key[i] != y->key[i]) return x->key[i] < y->key[i] ? -1 : 1;
    return (x->row > y->row) - (x->row < y->row);
}

static int same_set(const near_row *a, const near_row *b) {
    return a->n == b->n && !memcmp(a->hash, b->hash, a->n * sizeof *a->hash);
}

/* Row b says what a, before it, says. */
static void join(near_row *a, near_row *b) {
    b->is_copy = 1;
    if (a->is_eval) {
        a->copies++;
    } else {
        b->nearest = 1;
        b->nearest_line = a->line;
    }
}

/* Only the first of rows that say the same is searched for: a million copies are no million
 * squared. */
static void join_copies(search *s) {
    size_t first = 0;
    for (size_t i = 0; i < s->n; i++)
        s->entry[i] = (band_entry){{s->row[i].digest, s->row[i].n, 0}, i};
    qsort(s->entry, s->n, sizeof *s->entry, compare_entries);
    for (size_t i = 1; i < s->n; i++) {
        near_row *a = &s->row[s->entry[first].row], *b = &s->row[s->entry[i].row];
        if (a->n && a->digest == b->digest && same_set(a, b))
            join(a, b);
        else
            first = i;
    }
}

/* --- candidates --- */

static void sign(search *s, size_t i, const uint64_t factor[PERMUTATIONS]) {
    const near_row *r = &s->row[i];
    uint64_t least[PERMUTATIONS];
    memset(least, 0xff, sizeof least);
    for (size_t k = 0; k < r->n; k++)
        for (int p = 0; p < PERMUTATIONS; p++) {
            const uint64_t x = (r->hash[k] ^ (factor[p] >> 7)) * factor[p];
            least[p] = x < least[p] ? x : least[p];
        }
    for (int b = 0; b < BANDS; b++) {
        uint64_t key = (uint64_t)b;
        for (int p = 0; p < BAND; p++) key = hash_mix(key * 31 + least[b * BAND + p]);
        s->band[i * BANDS + (size_t)b] = key;
    }
}

static void compare_band(search *s, size_t b) {
    size_t n = 0;
    for (size_t i = 0; i < s->n; i++) {
        const uint64_t *key = s->band + i * BANDS;
        if (s->row[i].is_copy || !s->row[i].n) continue;
        s->entry[n++] = (band_entry){{key[b], key[(b + 1) % BANDS], key[(b + 2) % BANDS]}, i};
    }
    qsort(s->entry, n, sizeof *s->entry, compare_entries);
    for (size_t i = 0; i < n; i++)
        for (size_t k = i + 1; k < n && k <= i + NEIGHBOURS; k++) {
            if (s->entry[k].key[0] != s->entry[i].key[0]) break;
            compare(s, s->entry[i].row, s->entry[k].row);
        }
}

static void find_candidates(search *s) {
    uint64_t factor[PERMUTATIONS];
    for (uint64_t p = 0; p < PERMUTATIONS; p++)
        factor[p] = hash_mix((p + 1) * 0x9e3779b97f4a7c15ull) | 1;
    for (size_t i = 0; i < s->n; i++)
        if (!s->row[i].is_copy) sign(s, i, factor);
    for (size_t b = 0; b < BANDS; b++) compare_band(s, b);
}

/* --- what was found --- */

static void show(near_list *l, const near_row *r) {
    uint32_t at = l->n_worst;
    while (at > 0 && l->worst[at - 1].jaccard < r->nearest) at--;
    if (at == NEAR_SHOWN) return;
    if (l->n_worst < NEAR_SHOWN) l->n_worst++;
    for (uint32_t i = l->n_worst - 1; i > at; i--) l->worst[i] = l->worst[i - 1];
    l->worst[at] = (near_pair){r->line, r->nearest_line, r->nearest};
}

static void count(search *s) {
    for (size_t i = 0; i < s->n; i++) {
        const near_row *r = &s->row[i];
        near_list *l = r->is_eval ? &s->out->eval : &s->out->train;
        l->of++;
        if (r->nearest < 0) continue;
        l->rows += r->is_eval && !r->is_copy ? r->copies : 1;
        show(l, r);
    }
}

static void add_rows(search *s, const dataset *d, uint32_t is_eval) {
    for (uint64_t i = 0; d && i < d->n; i++) {
        near_row *r = &s->row[s->n++];
        *r = (near_row){.line = d->example[i].line, .copies = 1, .is_eval = is_eval, .nearest = -1};
        r->hash = shingles_of(d, i, &r->n);
        for (size_t k = 0; k < r->n; k++) r->digest = hash_mix(r->digest * 31 + r->hash[k]);
    }
}

static qfw_status run_search(search *s, const dataset *train, const dataset *eval) {
    const size_t n = train->n + (eval ? eval->n : 0);
    s->row = mem_alloc(n, sizeof *s->row);
    s->band = mem_alloc(n * BANDS, sizeof *s->band);
    s->entry = mem_alloc(n, sizeof *s->entry);
    if (!s->row || !s->band || !s->entry) return QFW_E_NOMEM;
    add_rows(s, train, 0);
    add_rows(s, eval, 1);
    join_copies(s);
    find_candidates(s);
    count(s);
    return QFW_OK;
}

qfw_status near_find(dataset *train, dataset *eval, double threshold, near_facts *out) {
    search s = {.threshold = threshold, .out = out};
    *out = (near_facts){.threshold = threshold};
    const qfw_status status = run_search(&s, train, eval);
    if (status != QFW_OK) err_prefix("%s: rows that say nearly the same", train->path);
    mem_free(s.row);
    mem_free(s.band);
    mem_free(s.entry);
    shingles_free(&train->shingles);
    if (eval) shingles_free(&eval->shingles);
    return status;
}

static int too_many(const near_list *l, double most) {
    return (double)l->rows > most * (double)l->of;
}

qfw_status near_check(const near_facts *f, const dataset *train, const dataset *eval,
    double max_near, double max_leakage) {
    const near_pair *near = f->train.worst, *leak = f->eval.worst;
    if (too_many(&f->train, max_near))
        return err_fail("E_DATA_NEAR", QFW_E_DATA,
            "%s: %" PRIu64 " of %" PRIu64
            " rows say nearly what an earlier one says, at most a share of %g ([data] "
            "max_near_duplicates); line %" PRIu64 " is near line %" PRIu64 ", Jaccard %.3f",
            train->path, f->train.rows, f->train.of, max_near, near->line, near->train_line,
            near->jaccard);
    if (!too_many(&f->eval, max_leakage)) return QFW_OK;
    return err_fail("E_DATA_LEAK", QFW_E_DATA,
        "%s: %" PRIu64 " of %" PRIu64
        " rows say nearly what a row of train says, at most a share of %g ([data] max_leakage); "
        "line %" PRIu64 " is near %s:%" PRIu64 ", Jaccard %.3f",
        eval->path, f->eval.rows, f->eval.of, max_leakage, leak->line, train->path,
        leak->train_line, leak->jaccard);
}

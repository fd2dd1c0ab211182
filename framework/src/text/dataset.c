/* dataset.c -- see dataset.h: the file is read once, row after row, and what came of it counted. */
#include "text/dataset.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "text/jsonl.h"
#include "text/rows.h"
#include "text/shingles.h"

enum { MAX_DEPTH = 64, MAX_VALUES = 8000000, MAX_ROWS = INT32_MAX };

/* What is known while a file is read. */
typedef struct reading {
    dataset *d;
    qfw_encoder encoder;
    char extra[KEY_BYTES]; /* the first key that no one read, and its line */
    uint64_t extra_line;
} reading;

/* --- rows --- */

static int is_blank(const char *text, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (text[i] != ' ' && text[i] != '\t') return 0;
    return 1;
}

/* Keys of the row that the trainer did not ask the encoder for. */
static void note_extra_keys(reading *r) {
    const json_node *row = json_root(r->encoder.row);
    for (json_member m = json_first(row); m.key; m = json_next(row, m)) {
        if (encoder_knows_key(&r->encoder, m.key)) continue;
        if (r->d->facts.extra_keys++ == 0) {
            err_escape(r->extra, sizeof r->extra, m.key);
            r->extra_line = r->encoder.line;
        }
        return;
    }
}

/* Keep the sequences that the encoder added from `first` on as one example. */
static qfw_status keep_row(reading *r, size_t first) {
    dataset *d = r->d;
    const row_store *s = &d->store;
    int cut = 0;
    if (d->n >= MAX_ROWS)
        return err_fail("E_DATA_LIMIT", QFW_E_DATA, "%s:%" PRIu64 ": more than %d rows", d->path,
            r->encoder.line, MAX_ROWS);
    if (mem_grow(&d->example, &d->cap, d->n + 1, sizeof *d->example)) return QFW_E_NOMEM;
    if (r->encoder.o->shingles) QFW_TRY(shingles_add(d, &r->encoder));
    for (size_t i = first; i < s->n_seqs; i++) {
        d->facts.tokens += s->seq[i].n;
        d->facts.trained += s->seq[i].n_trained;
        cut |= s->seq[i].truncated > 0;
    }
    d->example[d->n] = (qfw_example){.size = sizeof *d->example,
        .n_seqs = (uint32_t)(s->n_seqs - first),
        .line = r->encoder.line,
        .index = d->n};
    d->n++;
    d->facts.cut += (uint64_t)cut;
    return QFW_OK;
}

static qfw_status encode_row(reading *r) {
    dataset_report *f = &r->d->facts;
    const size_t first = r->d->store.n_seqs;
    if (json_doc_api.kind(r->encoder.row, "") != QFW_DOC_OBJECT)
        return json_doc_api.fail(r->encoder.row, "", QFW_E_DATA, "a row is an object, {...}");
    QFW_TRY(encoder_run(&r->encoder));
    note_extra_keys(r);
    f->rows++;
    if (r->encoder.too_long) {
        f->dropped_long++;
        return QFW_OK;
    }
    if (r->encoder.untrained) {
        f->dropped_untrained++;
        return QFW_OK;
    }
    const qfw_status status = keep_row(r, first);
    if (status == QFW_E_NOMEM) err_prefix("%s:%" PRIu64, r->d->path, r->encoder.line);
    return status;
}

/* --- rows that are wrong --- */

/* The thread's error without its name. */
static const char *error_sentence(void) {
    const char *text = err_text(0), *end = strstr(text, "] ");
    return end ? end + 2 : text;
}

/* The row is wrong; QFW_OK where [data] on_error leaves such rows out. An error that is not the
 * row's (no memory, a trainer that fails) is not forgiven. */
static qfw_status forgive(reading *r, uint64_t line, qfw_status status) {
    dataset *d = r->d;
    if (!r->encoder.o->skip_errors || status != QFW_E_DATA || strncmp(err_name(), "E_DATA_", 7))
        return status;
    if (++d->facts.errors > r->encoder.o->max_errors) {
        err_prefix("more than %" PRIu64 " rows are wrong ([data] max_errors), the last",
            r->encoder.o->max_errors);
        return status;
    }
    if (d->n_problems < DATASET_PROBLEMS) {
        char *text = mem_strdup(error_sentence());
        if (!text) return QFW_E_NOMEM;
        log_line(QFW_LOG_WARN, "left out: %s", text);
        d->problem[d->n_problems++] = (row_problem){line, text};
    } else if (d->facts.errors == DATASET_PROBLEMS + 1) {
        log_line(QFW_LOG_WARN, "%s:%" PRIu64 ": left out; from here on they are only counted",
            d->path, line);
    }
    err_clear();
    return QFW_OK;
}

const char *dataset_problem(const dataset *d, uint32_t i, uint64_t *line) {
    if (i >= d->n_problems) return NULL;
    *line = d->problem[i].line;
    return d->problem[i].text;
}

static qfw_status read_row(reading *r, const char *text, size_t n, uint64_t line) {
    static const json_limits limits = {.max_depth = MAX_DEPTH, .max_values = MAX_VALUES};
    const json_source from = {
        .file = r->d->path, .line = line, .name = "E_DATA_JSON", .limit_name = "E_DATA_LIMIT"};
    r->encoder.line = line;
    QFW_TRY(json_parse_from(text, n, &from, &limits, &r->encoder.row));
    const qfw_status status = encode_row(r);
    json_destroy(r->encoder.row);
    r->encoder.row = NULL;
    return status;
}

static qfw_status read_line(reading *r, const char *text, size_t n, uint64_t line) {
    r->d->facts.lines++;
    if (is_blank(text, n)) {
        r->d->facts.blank++;
        return QFW_OK;
    }
    const qfw_status status = read_row(r, text, n, line);
    return status == QFW_OK ? status : forgive(r, line, status);
}

/* The file may be long: somebody who asks to stop does not wait for its end. */
static qfw_status check_cancelled(const reading *r) {
    const qfw_host *h = r->encoder.o->host;
    if (!h || !h->cancelled(h)) return QFW_OK;
    return err_fail("E_SIGNAL", QFW_E_CANCELLED,
        "%s: stopped while it was read; nothing was written", r->d->path);
}

static qfw_status read_rows(reading *r, uint64_t max_line) {
    jsonl *file = NULL;
    const char *text = NULL;
    size_t n = 0;
    QFW_TRY(jsonl_open(r->d->path, max_line, &file));
    qfw_status status = QFW_OK;
    while (status == QFW_OK && (status = jsonl_next(file, &text, &n)) == QFW_OK) {
        status = check_cancelled(r);
        if (status == QFW_OK) status = read_line(r, text, n, jsonl_line(file));
    }
    if (status == QFW_E_END) {
        jsonl_sha256(file, r->d->facts.sha256);
        status = QFW_OK;
    }
    jsonl_close(file);
    return status;
}

/* --- the whole set --- */

/* Nothing moves any more: let sequences and examples point at what is theirs. */
static void set_pointers(dataset *d) {
    size_t token = 0, seq = 0;
    for (size_t i = 0; i < d->store.n_seqs; i++) {
        d->store.seq[i].token = d->store.token + token;
        d->store.seq[i].trained = d->store.trained + token;
        token += d->store.seq[i].n;
    }
    for (size_t i = 0; i < d->n; i++) {
        d->example[i].seq = d->store.seq + seq;
        seq += d->example[i].n_seqs;
    }
}

static int compare_longest(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x < y) - (x > y);
}

/* The length that a share of the rows, in percent, does not exceed. */
static uint64_t percentile(const dataset *d, size_t percent) {
    const size_t rank = (d->n * percent + 99) / 100; /* from 1, the shortest first */
    return d->length[d->n - (rank ? rank : 1)];
}

/* Nine bins at most: a row at each end, and the width doubled until eight widths span them. */
int dataset_length_bin(const dataset *d, uint32_t i, dataset_bin *out) {
    uint64_t width = 1;
    while (d->facts.max - d->facts.min >= (DATASET_BINS - 1) * width) width *= 2;
    const uint64_t from = d->facts.min / width * width + i * width;
    if (from > d->facts.max) return 0;
    *out = (dataset_bin){from, from + width - 1, 0};
    for (size_t k = 0; k < d->n; k++) out->rows += d->length[k] >= from && d->length[k] <= out->to;
    return 1;
}

static qfw_status measure(dataset *d) {
    d->length = mem_alloc(d->n, sizeof *d->length);
    if (!d->length) return QFW_E_NOMEM;
    for (size_t i = 0; i < d->n; i++)
        for (uint32_t k = 0; k < d->example[i].n_seqs; k++) d->length[i] += d->example[i].seq[k].n;
    qsort(d->length, d->n, sizeof *d->length, compare_longest);
    d->facts.kept = d->n;
    d->facts.min = d->length[d->n - 1];
    d->facts.p50 = percentile(d, 50);
    d->facts.p95 = percentile(d, 95);
    d->facts.max = d->length[0];
    return count_duplicates(d);
}

static void warn(const reading *r) {
    const dataset_report *f = &r->d->facts;
    const uint64_t dropped = f->dropped_long + f->dropped_untrained;
    if (f->extra_keys)
        log_line(QFW_LOG_WARN,
            "%s: %" PRIu64 " of %" PRIu64
            " rows have keys that nothing reads, first '%s' in line %" PRIu64,
            r->d->path, f->extra_keys, f->rows, r->extra, r->extra_line);
    if (20 * dropped > f->rows)
        log_line(QFW_LOG_WARN,
            "%s: %.1f %% OF THE ROWS ARE DROPPED: %" PRIu64 " are too long, %" PRIu64
            " have no trained token",
            r->d->path, 100.0 * (double)dropped / (double)f->rows, f->dropped_long,
            f->dropped_untrained);
}

static qfw_status read_set(reading *r, uint64_t max_line) {
    const dataset_report *f = &r->d->facts;
    QFW_TRY(read_rows(r, max_line));
    if (r->d->n == 0)
        return err_fail("E_DATA_EMPTY", QFW_E_DATA,
            "%s: no row that can be used; lines: %" PRIu64 ", rows: %" PRIu64 ", too long: %" PRIu64
            ", without a trained token: %" PRIu64 ", wrong: %" PRIu64,
            r->d->path, f->lines, f->rows, f->dropped_long, f->dropped_untrained, f->errors);
    set_pointers(r->d);
    QFW_TRY(measure(r->d));
    warn(r);
    return QFW_OK;
}

qfw_status dataset_open(const char *path, const dataset_opts *o, dataset **out) {
    dataset *d = mem_alloc(1, sizeof *d);
    *out = NULL;
    if (!d) return QFW_E_NOMEM;
    d->path = mem_strdup(path);
    d->tok = o->tok;
    d->max_length = o->max_length;
    reading r = {.d = d, .encoder = {.o = o, .path = d->path, .store = &d->store}};
    const qfw_status status = d->path ? read_set(&r, o->max_line) : QFW_E_NOMEM;
    encoder_free(&r.encoder);
    if (status != QFW_OK) {
        dataset_close(d);
        return status;
    }
    *out = d;
    return QFW_OK;
}

void dataset_close(dataset *d) {
    if (!d) return;
    mem_free(d->store.token);
    mem_free(d->store.trained);
    mem_free(d->store.seq);
    mem_free(d->example);
    shingles_free(&d->shingles);
    mem_free(d->length);
    for (uint32_t i = 0; i < d->n_problems; i++) mem_free(d->problem[i].text);
    mem_free(d->path);
    mem_free(d);
}

uint64_t dataset_count(const dataset *d) { return d->n; }
qfw_example *dataset_at(dataset *d, uint64_t i) { return &d->example[i]; }
const dataset_report *dataset_facts(const dataset *d) { return &d->facts; }

uint64_t dataset_longest(const dataset *d, uint64_t n) {
    uint64_t sum = 0;
    for (size_t i = 0; i < d->n && i < n; i++) sum += d->length[i];
    return sum;
}

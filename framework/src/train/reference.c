/* reference.c -- see reference.h: log-probabilities computed once, by row, in file order. */
#include "train/reference.h"

#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "files/file.h"
#include "train/progress.h"

static const qfw_cfg *own_keys(const run *r) { return r->sections[SECTION_TRAINER_OWN].cfg; }

int reference_is_stored(const run *r) {
    return (r->trainer->flags & QFW_TRAINER_NEEDS_REF) &&
           cfg_int(own_keys(r), "precompute_ref_log_probs");
}

static dataset *set_at(const run *r, uint32_t i) { return i ? r->eval : r->train; }

uint64_t reference_bytes(const run *r) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < REFERENCE_SETS; i++) {
        const dataset *d = set_at(r, i);
        if (!d) continue;
        bytes += dataset_facts(d)->trained * sizeof(float);
        bytes += (dataset_count(d) + 1) * sizeof(uint64_t);
    }
    return reference_is_stored(r) ? bytes : 0;
}

char *reference_path(const run *r) {
    const char *path = cfg_text(own_keys(r), "ref_cache");
    return *path ? mem_strdup(path)
                 : path_join(
                       cfg_text(run_cfg(r, SECTION_RUN), "output_dir"), "ref_logps.safetensors");
}

/* --- what is kept --- */

void reference_free(reference_rows *rows) {
    mem_free(rows->logp);
    mem_free(rows->first);
    *rows = (reference_rows){NULL, NULL};
}

static qfw_status make_room(dataset *d, reference_rows *rows) {
    const uint64_t n = dataset_count(d);
    rows->first = mem_alloc(n + 1, sizeof *rows->first);
    if (!rows->first) return QFW_E_NOMEM;
    for (uint64_t i = 0; i < n; i++) {
        const qfw_example *e = dataset_at(d, i);
        rows->first[i + 1] = rows->first[i];
        for (uint32_t k = 0; k < e->n_seqs; k++) rows->first[i + 1] += e->seq[k].n_trained;
    }
    rows->logp = mem_alloc(rows->first[n], sizeof *rows->logp);
    return rows->logp ? QFW_OK : QFW_E_NOMEM;
}

static float *logps_of(const run *r, uint32_t set, const qfw_example *e, uint32_t seq) {
    const reference_rows *rows = &r->graphs->reference[set];
    uint64_t at = rows->first[e->index];
    for (uint32_t k = 0; k < seq; k++) at += e->seq[k].n_trained;
    return rows->logp + at;
}

const float *reference_logps(const run *r, const qfw_example *e, uint32_t seq) {
    for (uint32_t i = 0; i < REFERENCE_SETS; i++) {
        dataset *d = set_at(r, i);
        if (!d || !r->graphs || !r->graphs->reference[i].logp || e->index >= dataset_count(d))
            continue;
        if (dataset_at(d, e->index) == e) return logps_of(r, i, e, seq);
    }
    return NULL;
}

/* --- computing it --- */

/* The labels of a segment's rows are the trained tokens of its sequence, in their order. */
static void keep_rows(const run *r, uint32_t set, const batch *b, const float *logp) {
    int32_t last = -1;
    float *to = NULL;
    for (int64_t n = 0; n < b->pub.n_tokens; n++) {
        const int32_t s = b->row_segment[n];
        if (b->labels[n] == QFW_IGNORE_LABEL) continue;
        if (s != last) to = logps_of(r, set, b->examples[b->refs[s].example], b->refs[s].seq);
        last = s;
        *to++ = logp[n];
    }
}

static qfw_status compute_set(run *r, uint32_t set, batch *b, float *logp) {
    dataset *d = set_at(r, set);
    const uint64_t n = dataset_count(d);
    const qfw_example **rows = mem_alloc(r->batch_size, sizeof(const qfw_example *));
    qfw_status status = rows ? QFW_OK : QFW_E_NOMEM;
    for (uint64_t first = 0; status == QFW_OK && first < n; first += r->batch_size) {
        uint32_t count = 0;
        char text[64];
        for (; count < r->batch_size && first + count < n; count++)
            rows[count] = dataset_at(d, first + count);
        status = batch_fill(b, r, rows, count, 0);
        if (status == QFW_OK) status = graphs_reference(r, b, logp);
        if (status == QFW_OK) keep_rows(r, set, b, logp);
        snprintf(text, sizeof text, "reference: %llu of %llu rows", (unsigned long long)first,
            (unsigned long long)n);
        if (log_is_terminal()) log_status(text);
        if (status == QFW_OK && r->host->cancelled(r->host))
            status = err_fail("E_SIGNAL", QFW_E_CANCELLED,
                "stopped while the reference's log-probabilities were computed, nothing kept");
    }
    log_status(NULL);
    mem_free(rows);
    return status;
}

static qfw_status compute(run *r) {
    const graphs *gs = r->graphs;
    const uint64_t started = clock_ns();
    batch *b = NULL;
    float *logp = mem_alloc((size_t)gs->max_rows[PASS_REFERENCE], sizeof *logp);
    qfw_status status = logp ? QFW_OK : QFW_E_NOMEM;
    if (status == QFW_OK)
        status = batch_create(r->batch_size,
            (uint32_t)(gs->n_segments[PASS_REFERENCE] / gs->n_examples[PASS_REFERENCE]),
            gs->max_rows[PASS_REFERENCE], &b);
    for (uint32_t i = 0; status == QFW_OK && i < REFERENCE_SETS; i++)
        if (set_at(r, i)) status = compute_set(r, i, b, logp);
    batch_destroy(b);
    mem_free(logp);
    if (status == QFW_OK)
        log_line(QFW_LOG_INFO, "the reference's log-probabilities took %.1f s",
            (double)(clock_ns() - started) * 1e-9);
    return status;
}

/* --- the adapter's hash --- */

static qfw_status add_tensor(const run *r, const store_entry *e, sha256 *s) {
    const uint64_t bytes = (uint64_t)qfw_tensor_count(&e->t) * sizeof(float);
    float *data = mem_alloc(bytes, 1);
    const qfw_status status = data ? store_read(r->store, e, data) : QFW_E_NOMEM;
    if (status == QFW_OK) {
        sha256_add(s, e->name, strlen(e->name) + 1);
        sha256_add(s, data, bytes);
    }
    mem_free(data);
    return status;
}

/* Names, scales and values of the adapter, as the device has them: the policy still is the
 * reference. A fresh one is the bare model, whatever its A is. */
static qfw_status hash_adapter(const run *r, char hex[65]) {
    sha256 s;
    sha256_init(&s);
    const uint32_t n = *cfg_text(run_cfg(r, SECTION_ADAPTER), "path") ? r->n_loras : 0;
    for (uint32_t i = 0; i < n; i++) {
        sha256_add(&s, &r->loras[i].scale, sizeof r->loras[i].scale);
        QFW_TRY(add_tensor(r, r->loras[i].a, &s));
        QFW_TRY(add_tensor(r, r->loras[i].b, &s));
    }
    sha256_hex(&s, hex);
    return QFW_OK;
}

/* --- both --- */

static qfw_status read_or_compute(run *r, const char *path) {
    char key[65];
    int found = 0;
    QFW_TRY(ref_cache_key(r, key));
    QFW_TRY(ref_cache_read(r, path, key, &found));
    if (found) {
        log_line(QFW_LOG_INFO, "the reference's log-probabilities are those of %s", path);
        return QFW_OK;
    }
    QFW_TRY(compute(r));
    return ref_cache_write(r, path, key);
}

qfw_status reference_prepare(run *r) {
    if (!(r->trainer->flags & QFW_TRAINER_NEEDS_REF)) return QFW_OK;
    QFW_TRY(hash_adapter(r, r->graphs->reference_sha256));
    if (!reference_is_stored(r)) return QFW_OK;
    for (uint32_t i = 0; i < REFERENCE_SETS; i++)
        if (set_at(r, i)) QFW_TRY(make_room(set_at(r, i), &r->graphs->reference[i]));
    char *path = reference_path(r);
    const qfw_status status = path ? read_or_compute(r, path) : QFW_E_NOMEM;
    mem_free(path);
    return status;
}

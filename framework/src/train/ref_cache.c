/* ref_cache.c -- the file that keeps a reference's log-probabilities: safetensors, one array for
 * each data set, with the key of what they were computed from and the hash of what is in it.
 */
#define _POSIX_C_SOURCE 200809L
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "files/file.h"
#include "files/safetensors.h"
#include "train/reference.h"

static const char *const set_names[REFERENCE_SETS] = {"train", "eval"};

/* --- the key --- */

static void add_text(sha256 *s, const char *text) { sha256_add(s, text, strlen(text) + 1); }

/* Tokens and what is trained of them: whatever text, template and tokenizer they came from. */
static void add_rows(sha256 *s, dataset *d) {
    for (uint64_t i = 0; d && i < dataset_count(d); i++) {
        const qfw_example *e = dataset_at(d, i);
        for (uint32_t k = 0; k < e->n_seqs; k++) {
            sha256_add(s, &e->seq[k].n, sizeof e->seq[k].n);
            sha256_add(s, e->seq[k].token, e->seq[k].n * sizeof *e->seq[k].token);
            sha256_add(s, e->seq[k].trained, e->seq[k].n);
        }
    }
    add_text(s, "end");
}

static qfw_status add_file(sha256 *s, const char *path) {
    char hex[65];
    QFW_TRY(file_sha256(path, hex));
    add_text(s, hex);
    return QFW_OK;
}

static qfw_status add_shards(sha256 *s, const char *folder) {
    st_file *f = NULL;
    QFW_TRY(st_open_folder(folder, &f));
    qfw_status status = QFW_OK;
    for (uint32_t i = 0; status == QFW_OK && i < st_count(f); i++) {
        uint32_t first = 0; /* tensor of the same file */
        while (st_at(f, first)->shard != st_at(f, i)->shard) first++;
        if (first == i) status = add_file(s, st_at(f, i)->file);
    }
    st_close(f);
    return status;
}

/* The weights, and what is made of them when they are loaded. */
static qfw_status add_model(const run *r, sha256 *s) {
    const qfw_cfg *m = run_cfg(r, SECTION_MODEL);
    const char *folder = cfg_text(m, "path");
    for (uint64_t i = 0; i < m->n; i++) {
        char value[64];
        if (m->options[i].type == QFW_OPT_PATH) continue;
        snprintf(value, sizeof value, "%lld", (long long)m->values[i].i);
        add_text(s, m->options[i].key);
        add_text(s, m->values[i].s ? m->values[i].s : value);
    }
    char *config = path_join(folder, "config.json");
    const qfw_status status = config ? add_file(s, config) : QFW_E_NOMEM;
    mem_free(config);
    if (status != QFW_OK) return status;
    if (strcmp(cfg_text(m, "init"), "random")) return add_shards(s, folder);
    sha256_add(s, &r->seed, sizeof r->seed);
    return QFW_OK;
}

qfw_status ref_cache_key(const run *r, char key[65]) {
    sha256 s;
    sha256_init(&s);
    add_text(&s, "reference log-probabilities 1");
    add_text(&s, r->host->version);
    add_text(&s, r->backend->name);
    add_text(&s, batch_shares_prompts(r) ? "shared" : "apart"); /* the last bits may differ */
    add_text(&s, r->graphs->reference_sha256);
    QFW_TRY(add_model(r, &s));
    add_rows(&s, r->train);
    add_rows(&s, r->eval);
    sha256_hex(&s, key);
    return QFW_OK;
}

/* --- the file --- */

static uint64_t count_of(const run *r, uint32_t set) {
    const dataset *d = set ? r->eval : r->train;
    return d ? r->graphs->reference[set].first[dataset_count(d)] : 0;
}

static void hash_contents(const run *r, char hex[65]) {
    sha256 s;
    sha256_init(&s);
    for (uint32_t i = 0; i < REFERENCE_SETS; i++)
        if (count_of(r, i))
            sha256_add(&s, r->graphs->reference[i].logp, count_of(r, i) * sizeof(float));
    sha256_hex(&s, hex);
}

/* What is wrong with the file, as this run's; NULL: it is read. */
static const char *read_sets(const run *r, st_file *f, const char *key) {
    char hex[65];
    const char *found = st_metadata(f, "key"), *hash = st_metadata(f, "sha256");
    if (strcmp(found, key)) return "it is of another model, adapter or other rows";
    for (uint32_t i = 0; i < REFERENCE_SETS; i++) {
        const uint64_t n = count_of(r, i);
        const st_tensor *t = n ? st_find(f, set_names[i]) : NULL;
        if (!n) continue;
        if (!t || t->dtype != QFW_F32 || t->rank != 1 || t->dim[0] != (int64_t)n)
            return "it is damaged";
        if (st_read(f, t, 0, t->dim[0], r->graphs->reference[i].logp) != QFW_OK)
            return "it cannot be read";
    }
    hash_contents(r, hex);
    return strcmp(hash, hex) ? "it is damaged" : NULL;
}

qfw_status ref_cache_read(const run *r, const char *path, const char *key, int *found) {
    st_file *f = NULL;
    *found = 0;
    if (!file_exists(path)) return QFW_OK;
    const int is_ours =
        st_open(path, &f) == QFW_OK && st_metadata(f, "key") && st_metadata(f, "sha256");
    const char *wrong = is_ours ? read_sets(r, f, key) : NULL;
    st_close(f);
    if (!is_ours)
        return err_fail("E_OUT_EXISTS", QFW_E_IO,
            "%s: it is no file of log-probabilities, which would take its place; hint: another "
            "ref_cache, or remove it",
            path);
    if (wrong) log_line(QFW_LOG_WARN, "%s: %s; it is computed anew", path, wrong);
    err_clear();
    *found = !wrong;
    return QFW_OK;
}

static qfw_status write_sets(const run *r, const char *key, st_writer *w) {
    char hex[65];
    hash_contents(r, hex);
    QFW_TRY(st_writer_meta(w, "key", key));
    QFW_TRY(st_writer_meta(w, "sha256", hex));
    for (uint32_t i = 0; i < REFERENCE_SETS; i++) {
        const int64_t dim[1] = {(int64_t)count_of(r, i)};
        if (dim[0]) QFW_TRY(st_writer_add(w, set_names[i], QFW_F32, 1, dim));
    }
    for (uint32_t i = 0; i < REFERENCE_SETS; i++)
        if (count_of(r, i))
            QFW_TRY(
                st_writer_data(w, r->graphs->reference[i].logp, count_of(r, i) * sizeof(float)));
    return QFW_OK;
}

/* The folder of the file is there or can be made. */
static qfw_status make_folder(const char *path) {
    const char *slash = strrchr(path, '/');
    char *folder = slash && slash > path ? mem_printf("%.*s", (int)(slash - path), path) : NULL;
    const qfw_status status = folder ? dir_make(folder) : QFW_OK;
    mem_free(folder);
    return status;
}

qfw_status ref_cache_write(const run *r, const char *path, const char *key) {
    st_writer *w = NULL;
    QFW_TRY(make_folder(path));
    QFW_TRY(st_writer_create(path, &w));
    const qfw_status status = write_sets(r, key, w);
    if (status == QFW_OK) return st_writer_finish(w);
    st_writer_abort(w);
    return status;
}

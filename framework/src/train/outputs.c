/* outputs.c -- what a run leaves behind, so that others can load it and anybody can tell where it
 * came from. */
#define _POSIX_C_SOURCE 200809L
#include "train/outputs.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/error.h"
#include "base/mem.h"
#include "export/full.h"
#include "export/peft.h"
#include "files/file.h"
#include "files/json.h"

enum { MANIFEST_VERSION = 1 };
static const char checkpoint_manifest[] = "MANIFEST.json";

static qfw_status write_json(const char *folder, const char *name, json_out *o) {
    size_t n = 0;
    json_end_line(o);
    const char *text = json_out_text(o, &n);
    char *path = text ? path_join(folder, name) : NULL;
    const qfw_status status = path ? file_write(path, text, n) : QFW_E_NOMEM;
    mem_free(path);
    json_out_destroy(o);
    return status;
}

static qfw_status write_adapter(run *r, const char *folder) {
    const qfw_cfg *a = run_cfg(r, SECTION_ADAPTER);
    const peft_info info = {.base_model = cfg_text(run_cfg(r, SECTION_MODEL), "path"),
        .r = cfg_int(a, "r"),
        .lora_alpha = cfg_real(a, "lora_alpha"),
        .lora_dropout = cfg_real(a, "lora_dropout"),
        .use_rslora = (int)cfg_int(a, "use_rslora")};
    return peft_write(folder, &info, r->store, r->loras, r->n_loras);
}

static qfw_status write_model(run *r, const char *folder) {
    uint32_t n = 0;
    full_weight *weights = mem_alloc(r->n_weights, sizeof *weights);
    if (!weights) return QFW_E_NOMEM;
    for (uint32_t i = 0; i < r->n_weights; i++)
        if (!r->weights[i].tied)
            weights[n++] = (full_weight){&r->weights[i].desc, r->weights[i].entry, 0, 0};
    const qfw_status status = full_write(folder, r->store, weights, n, FULL_SHARD_BYTES);
    mem_free(weights);
    return status;
}

qfw_status outputs_weights(run *r, const char *folder) {
    const int is_adapter = r->n_loras > 0;
    QFW_TRY(is_adapter ? write_adapter(r, folder) : write_model(r, folder));
    return full_copy_files(cfg_text(run_cfg(r, SECTION_MODEL), "path"), folder, !is_adapter);
}

qfw_status outputs_resolved(const run *r, const char *folder) {
    char *text = option_resolved(r->sections, MAX_SECTIONS);
    char *path = text ? path_join(folder, "resolved.ini") : NULL;
    const qfw_status status = path ? file_write(path, text, strlen(text)) : QFW_E_NOMEM;
    mem_free(path);
    mem_free(text);
    return status;
}

/* --- a checkpoint's manifest: what is in it --- */

qfw_status manifest_write_all(const char *folder) {
    qfw_status status = QFW_OK;
    DIR *dir = opendir(folder);
    if (!dir) return file_unlisted(folder);
    json_out *o = json_out_create(2);
    json_open(o, NULL, '{');
    json_int(o, "version", MANIFEST_VERSION);
    json_open(o, "files", '[');
    for (struct dirent *d; status == QFW_OK && (d = readdir(dir)) != NULL;) {
        char hex[65];
        struct stat s;
        if (d->d_name[0] == '.') continue;
        char *path = path_join(folder, d->d_name);
        status = path ? file_sha256(path, hex) : QFW_E_NOMEM;
        if (status != QFW_OK && status != QFW_E_NOMEM)
            status =
                err_fail("E_IO_READ", QFW_E_IO, "%s: was written, and cannot be read back", path);
        if (status == QFW_OK && !stat(path, &s)) {
            json_open(o, NULL, '{');
            json_str(o, "name", d->d_name);
            json_int(o, "bytes", (int64_t)s.st_size);
            json_str(o, "sha256", hex);
            json_close(o);
        }
        mem_free(path);
    }
    closedir(dir);
    json_close(o);
    json_close(o);
    if (status == QFW_OK) return write_json(folder, checkpoint_manifest, o);
    json_out_destroy(o);
    return status;
}

static qfw_status check_size(const char *path, int64_t wanted) {
    struct stat s;
    if (stat(path, &s) || s.st_size == wanted) return QFW_OK; /* one that is not there is named */
    return err_fail("E_CKPT_SIZE", QFW_E_DATA, "%s: %lld bytes, %s says %lld: damaged", path,
        (long long)s.st_size, checkpoint_manifest, (long long)wanted);
}

static qfw_status verify_file(const char *folder, const qfw_doc *d, uint64_t i) {
    char ptr[64], hex[65];
    const char *name = NULL, *wanted = NULL;
    int64_t bytes = 0;
    snprintf(ptr, sizeof ptr, "/files/%llu/bytes", (unsigned long long)i);
    QFW_TRY(json_doc_api.i64(d, ptr, &bytes));
    snprintf(ptr, sizeof ptr, "/files/%llu/name", (unsigned long long)i);
    QFW_TRY(json_doc_api.str(d, ptr, &name));
    if (strchr(name, '/') || !strcmp(name, ".."))
        return json_doc_api.fail(d, ptr, QFW_E_DATA, "E_CKPT_PATH: wanted a plain file name");
    snprintf(ptr, sizeof ptr, "/files/%llu/sha256", (unsigned long long)i);
    QFW_TRY(json_doc_api.str(d, ptr, &wanted));
    char *path = path_join(folder, name);
    qfw_status status = path ? check_size(path, bytes) : QFW_E_NOMEM;
    if (status == QFW_OK) status = file_sha256(path, hex);
    if (status == QFW_OK && strcmp(hex, wanted))
        status =
            err_fail("E_CKPT_HASH", QFW_E_DATA, "%s: sha256 %.12s..., %s says %.12s...: damaged",
                path, hex, checkpoint_manifest, wanted);
    mem_free(path);
    return status;
}

qfw_status manifest_verify(const char *folder) {
    qfw_doc *d = NULL;
    char *path = path_join(folder, checkpoint_manifest);
    qfw_status status = path ? json_read(path, 1 << 20, NULL, &d) : QFW_E_NOMEM;
    mem_free(path);
    if (status != QFW_OK) return status;
    const uint64_t n = json_doc_api.count(d, "/files");
    int64_t version = 0;
    status = json_doc_api.i64(d, "/version", &version);
    if (status == QFW_OK && version != MANIFEST_VERSION)
        status = json_doc_api.fail(
            d, "/version", QFW_E_DATA, "E_CKPT_VERSION: written by another version of qfw");
    if (status == QFW_OK && !n)
        status = json_doc_api.fail(d, "/files", QFW_E_DATA, "E_CKPT_MANIFEST: lists no file");
    for (uint64_t i = 0; status == QFW_OK && i < n; i++) status = verify_file(folder, d, i);
    json_destroy(d);
    return status;
}

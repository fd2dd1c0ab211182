/* st_folder.c -- a model folder: one file, or an index and shards that agree with it in every name.
 *
 * The index is a stranger's: it names plain files of its own folder and nothing else.
 */
#define _XOPEN_SOURCE 700
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "files/file.h"
#include "files/json.h"
#include "files/st_header.h"

enum { MAX_SHARDS = 512, MAX_NAME = 255 };

static const char single_name[] = "model.safetensors";
static const char index_name[] = "model.safetensors.index.json";

typedef struct folder {
    const char *path;
    char *index;  /* the index's path */
    qfw_doc *doc; /* the index */
    const json_node *map;
    const char **names; /* of the shards, sorted, each once */
    uint32_t n_names;
    st_file *out;
} folder;

/* [A-Za-z0-9._-]+\.safetensors: a plain file of the same folder, whatever the folder. */
static int is_shard_name(const char *name) {
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    static const char end[] = ".safetensors";
    const size_t n = strlen(name), n_end = sizeof end - 1;
    return n > n_end && n <= MAX_NAME && strspn(name, plain) == n && !strcmp(name + n - n_end, end);
}

static int compare_text(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* folder.names from the map's values. */
static qfw_status list_shards(folder *f) {
    const uint64_t n = json_node_count(f->map);
    uint32_t all = 0;
    if (json_node_kind(f->map) != QFW_DOC_OBJECT || n == 0)
        return err_fail("E_IDX_MAP", QFW_E_DATA,
            "%s: /weight_map: wanted an object from tensor to file, with members", f->index);
    if (!(f->names = mem_alloc((size_t)n, sizeof *f->names))) return QFW_E_NOMEM;
    for (json_member m = json_first(f->map); m.key; m = json_next(f->map, m)) {
        const char *name = json_node_str(m.value);
        if (!name || !is_shard_name(name))
            return err_fail("E_IDX_PATH", QFW_E_DATA,
                "%s: /weight_map/%.100s: %s%.100s%s, wanted the plain name of a .safetensors file "
                "in the same folder",
                f->index, m.key, name ? "\"" : "", name ? name : "not a string", name ? "\"" : "");
        f->names[all++] = name;
    }
    qsort(f->names, all, sizeof *f->names, compare_text);
    for (uint32_t i = 0; i < all; i++)
        if (i == 0 || strcmp(f->names[i], f->names[f->n_names - 1]))
            f->names[f->n_names++] = f->names[i];
    if (f->n_names <= MAX_SHARDS) return QFW_OK;
    return err_fail("E_IDX_MAP", QFW_E_DATA, "%s: /weight_map: %u files, at most %d", f->index,
        f->n_names, MAX_SHARDS);
}

static void log_link(const char *path) {
    struct stat st;
    if (lstat(path, &st) != 0 || !S_ISLNK(st.st_mode)) return;
    char *real = realpath(path, NULL);
    if (real) log_line(QFW_LOG_DEBUG, "%s is %s", path, real);
    free(real);
}

/* Open every shard; those that are missing are all named. */
static qfw_status open_shards(folder *f) {
    st_file *out = f->out;
    out->shards = mem_alloc(f->n_names, sizeof *out->shards);
    if (!out->shards) return QFW_E_NOMEM;
    err_clear();
    for (uint32_t i = 0; i < f->n_names; i++) {
        char *path = path_join(f->path, f->names[i]);
        if (!path) return QFW_E_NOMEM;
        struct stat st;
        qfw_status status = QFW_OK;
        if (lstat(path, &st) != 0)
            (void)err_also("E_IDX_SHARD", QFW_E_DATA,
                "%s: /weight_map: \"%s\" is missing, wanted every file that it names", f->index,
                f->names[i]);
        else if (err_count() == 0)
            status = st_shard_open(path, "E_IDX_TYPE", &out->shards[out->n_shards]);
        if (status == QFW_OK && err_count() == 0) {
            out->n_shards++;
            log_link(path);
        }
        mem_free(path);
        if (status != QFW_OK) return status;
    }
    return err_status();
}

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* Every tensor lies in exactly the file that the map says, and the map knows every tensor. */
static qfw_status check_map(const folder *f) {
    const st_file *out = f->out;
    err_clear();
    for (uint32_t i = 0; i < out->n_tensors; i++) {
        const st_tensor *t = &out->tensors[i];
        if (i > 0 && !strcmp(t[-1].name, t->name))
            (void)err_also("E_IDX_DUP", QFW_E_DATA,
                "%s: tensor \"%.100s\": in \"%s\" and in \"%s\", wanted in one file", f->index,
                t->name, base_name(t[-1].file), base_name(t->file));
        else if (!json_node_member(f->map, t->name))
            (void)err_also("E_IDX_TENSOR", QFW_E_DATA,
                "%s: tensor \"%.100s\": in \"%s\", but not in /weight_map", f->index, t->name,
                base_name(t->file));
    }
    for (json_member m = json_first(f->map); m.key; m = json_next(f->map, m)) {
        const char *name = json_node_str(m.value);
        const st_tensor *t = st_find(out, m.key);
        if (!t || strcmp(base_name(t->file), name))
            (void)err_also("E_IDX_TENSOR", QFW_E_DATA, "%s: tensor \"%.100s\": \"%s\" lacks it%s%s",
                f->index, m.key, name, t ? ", found in " : "", t ? base_name(t->file) : "");
    }
    return err_status();
}

static void check_total(const folder *f) {
    const json_node *meta = json_node_member(json_root(f->doc), "metadata");
    const json_node *total = json_node_member(meta, "total_size");
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < f->out->n_tensors; i++) bytes += f->out->tensors[i].bytes;
    if (!total || (uint64_t)json_node_i64(total) == bytes) return;
    log_line(QFW_LOG_WARN, "%s: /metadata/total_size: %lld, but the tensors have %llu bytes",
        f->index, (long long)json_node_i64(total), (unsigned long long)bytes);
}

static qfw_status open_index(folder *f) {
    static const json_limits limits = {.max_depth = 8, .max_values = 4 * ST_MAX_TENSORS};
    QFW_TRY(json_read(f->index, ST_MAX_HEADER, &limits, &f->doc));
    f->map = json_node_member(json_root(f->doc), "weight_map");
    QFW_TRY(list_shards(f));
    f->out = mem_alloc(1, sizeof *f->out);
    if (!f->out) return QFW_E_NOMEM;
    QFW_TRY(open_shards(f));
    QFW_TRY(st_merge(f->out));
    QFW_TRY(check_map(f));
    check_total(f);
    return QFW_OK;
}

qfw_status st_open_folder(const char *path, st_file **out) {
    folder f = {.path = path, .index = path_join(path, index_name)};
    char *single = path_join(path, single_name);
    struct stat st;
    qfw_status status = f.index && single ? QFW_OK : QFW_E_NOMEM;
    *out = NULL;
    const int has_index = status == QFW_OK && lstat(f.index, &st) == 0;
    const int has_single = status == QFW_OK && lstat(single, &st) == 0;
    if (has_index && has_single)
        status = err_fail("E_IDX_AMBIGUOUS", QFW_E_DATA,
            "%s: both %s and %s are there, wanted one; hint: remove the one that is out of date",
            path, single_name, index_name);
    else if (status == QFW_OK && !has_index && !has_single)
        status = err_fail("E_NOINPUT", QFW_E_IO,
            "%s: neither %s nor %s is there; hint: pickled weights (*.bin) are not read", path,
            single_name, index_name);
    else if (has_single)
        status = st_open(single, &f.out);
    else if (has_index)
        status = open_index(&f);
    if (status == QFW_OK && has_single) log_link(single);
    json_destroy(f.doc);
    mem_free(f.names);
    mem_free(f.index);
    mem_free(single);
    if (status != QFW_OK) {
        st_close(f.out);
        return status;
    }
    *out = f.out;
    return QFW_OK;
}

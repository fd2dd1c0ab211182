/* list.c -- what can be told about all plugin files without loading one into this process. */
#define _POSIX_C_SOURCE 200809L
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "files/file.h"
#include "plugin/probe.h"
#include "plugin/search.h"

typedef struct found {
    char *path;
    size_t rank; /* as the search list has them */
} found;

static found *files;
static size_t n_files;

static const char *file_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

void plugin_file_words(const char *path, char kind[16], char name[64]) {
    const char *at = file_name(path), *end = at + strlen(at);
    *kind = *name = 0;
    if (strncmp(at, "libqfw_", 7) || end - at < 10 || strcmp(end - 3, ".so")) return;
    at += 7;
    end -= 3;
    const char *gap = memchr(at, '_', (size_t)(end - at));
    if (!gap) gap = end;
    snprintf(kind, 16, "%.*s", (int)(gap - at), at);
    if (gap < end) snprintf(name, 64, "%.*s", (int)(end - gap - 1), gap + 1);
}

static int by_name(const void *a, const void *b) {
    const found *x = a, *y = b;
    const int order = strcmp(file_name(x->path), file_name(y->path));
    return order ? order : x->rank < y->rank ? -1 : x->rank > y->rank;
}

static qfw_status collect_folder(const char *folder, size_t *cap) {
    qfw_status status = QFW_OK;
    DIR *dir = opendir(folder);
    if (!dir) return errno == ENOMEM ? file_unlisted(folder) : QFW_OK;
    for (struct dirent *d; status == QFW_OK && (d = readdir(dir)) != NULL;) {
        const char *name = d->d_name, *end = strrchr(name, '.');
        if (strncmp(name, "libqfw_", 7) || !end || strcmp(end, ".so")) continue;
        char *path = mem_printf("%s/%s", folder, name);
        if (path && !mem_grow(&files, cap, n_files + 1, sizeof *files)) {
            files[n_files] = (found){path, n_files};
            n_files++;
            continue;
        }
        mem_free(path);
        status = QFW_E_NOMEM;
    }
    closedir(dir);
    return status;
}

/* All libqfw_*.so of the search list, anew. */
static qfw_status collect(void) {
    static size_t cap;
    const char *folder;
    while (n_files > 0) mem_free(files[--n_files].path);
    for (uint32_t i = 0; (folder = search_folder(i)) != NULL; i++)
        QFW_TRY(collect_folder(folder, &cap));
    if (n_files) qsort(files, n_files, sizeof *files, by_name);
    return QFW_OK;
}

/* Where the file stands that a bare name means instead of files[i]; NULL: it is files[i]. */
static const char *hidden_by(size_t i) {
    if (i == 0 || strcmp(file_name(files[i - 1].path), file_name(files[i].path))) return NULL;
    const char *before = hidden_by(i - 1);
    return before ? before : files[i - 1].path;
}

/* Whether the probe found what the file's name promises. */
static qfw_status check_words(const plugin_facts *f) {
    char wanted[96];
    snprintf(wanted, sizeof wanted, "%s '%s'", f->kind, f->name);
    if (strstr(f->has, wanted)) return QFW_OK;
    return err_fail("E_PLUG_KIND", QFW_E_ABI,
        "%s: has %s, its file name says %s; hint: call it libqfw_<kind>_<name>.so", f->path,
        *f->has ? f->has : "nothing that this qfw knows", wanted);
}

static qfw_status look_at(size_t i, plugin_facts *out) {
    qfw_note note;
    if (!plugin_kind(out->kind) || !*out->name)
        return err_fail("E_PLUG_KIND", QFW_E_ABI,
            "%s: its name is not libqfw_<kind>_<name>.so with a kind that this qfw knows; hint: "
            "the kinds are backend, model, trainer and optimizer",
            out->path);
    const qfw_status status = plugin_precheck(out->path, &note);
    out->abi_major = note.abi_major;
    out->abi_minor = note.abi_minor;
    QFW_TRY(status);
    if (hidden_by(i))
        return err_fail("E_PLUG_DUP", QFW_E_ABI,
            "%s: hidden by %s, which is found first; hint: remove one of them", out->path,
            hidden_by(i));
    if (!plugin_prober()) return QFW_OK;
    QFW_TRY(plugin_probe(out->path, out));
    return check_words(out);
}

qfw_status plugin_list(uint32_t i, plugin_facts *out) {
    if (i == 0) QFW_TRY(collect());
    if (i >= n_files) return QFW_E_END;
    memset(out, 0, sizeof *out);
    snprintf(out->path, sizeof out->path, "%s", files[i].path);
    plugin_file_words(out->path, out->kind, out->name);
    const qfw_status status = look_at(i, out);
    if (status == QFW_E_NOMEM) return status; /* that is no fault of the file's */
    if (status != QFW_OK) snprintf(out->problem, sizeof out->problem, "%s", err_text(0));
    err_clear();
    return QFW_OK;
}

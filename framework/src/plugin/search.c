/* search.c -- where plugins are looked for, and whom a file must belong to.
 *
 * Absolute folders only, never the current one by accident: a stranger's libqfw_*.so beside
 * somebody's data must not be loaded because a command was run there.
 */
#define _GNU_SOURCE
#include "plugin/search.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"

enum { MAX_FOLDERS = 32 };

static char *folders[MAX_FOLDERS];
static uint32_t n_folders, n_added;
static int is_complete, allows_insecure;

void plugin_allow_insecure(int on) { allows_insecure = on; }

/* Put a folder at place `at` of the list, from a later place or anew. 0: it does not exist or
 * stands before already; -1: there is no room. */
static int insert(const char *folder, uint32_t at) {
    char *real = realpath(folder, NULL);
    uint32_t old = 0;
    if (!real) return 0;
    while (old < n_folders && strcmp(folders[old], real)) old++;
    if (old < at || (old == n_folders && n_folders == MAX_FOLDERS)) {
        free(real);
        return old < at ? 0 : -1;
    }
    if (old < n_folders)
        free(folders[old]);
    else
        n_folders++;
    memmove(folders + at + 1, folders + at, (old - at) * sizeof folders[0]);
    folders[at] = real;
    return 1;
}

qfw_status plugin_search_add(const char *folder) {
    struct stat s;
    if (stat(folder, &s) || !S_ISDIR(s.st_mode))
        return err_fail("E_PLUG_FOLDER", QFW_E_IO,
            "plugin folder %s: no such folder; hint: --plugin-dir and [plugins] path want folders "
            "that are there",
            folder);
    const int placed = insert(folder, n_added);
    if (placed < 0)
        return err_fail("E_PLUG_FOLDER", QFW_E_UNSUPPORTED,
            "plugin folder %s: the search list holds %d folders, no more; hint: put plugins "
            "together",
            folder, MAX_FOLDERS);
    n_added += (uint32_t)placed;
    return QFW_OK;
}

static void add_environment(void) {
    const char *at = secure_getenv("QFW_PLUGIN_PATH");
    char folder[PATH_MAX];
    while (at && *at) {
        const size_t n = strcspn(at, ":");
        if (n && n < sizeof folder) {
            memcpy(folder, at, n);
            folder[n] = 0;
            if (folder[0] == '/')
                (void)insert(folder, n_folders);
            else
                log_line(QFW_LOG_WARN, "QFW_PLUGIN_PATH: '%s' is not an absolute folder", folder);
        }
        at += n + (at[n] == ':');
    }
}

/* The rest of the list, once: the environment, the executable's folder, the libraries'. */
static void complete(void) {
    char exe[PATH_MAX], folder[PATH_MAX + 64];
    if (is_complete) return;
    is_complete = 1;
    add_environment();
    const ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    if (n > 0) {
        exe[n] = 0;
        char *slash = strrchr(exe, '/');
        if (slash) *slash = 0;
        (void)insert(exe, n_folders);
        snprintf(folder, sizeof folder, "%s/../lib/qfw/plugins/%d", exe, QFW_ABI_MAJOR);
        (void)insert(folder, n_folders);
    }
    (void)insert(QFW_PLUGIN_LIBDIR, n_folders);
}

const char *search_folder(uint32_t i) {
    complete();
    return i < n_folders ? folders[i] : NULL;
}

int search_file(const char *kind, const char *name, char *path, size_t cap) {
    const char *folder;
    for (uint32_t i = 0; (folder = search_folder(i)) != NULL; i++) {
        const int n = snprintf(path, cap, "%s/libqfw_%s_%s.so", folder, kind, name);
        if (n > 0 && (size_t)n < cap && !access(path, F_OK)) return 1;
    }
    return 0;
}

/* One file or folder: nobody but root and we ourselves may be able to write it; a group may, a
 * umask of 002 is common. */
static qfw_status check_owner(const struct stat *s, const char *what, const char *path) {
    const int is_sticky = S_ISDIR(s->st_mode) && s->st_mode & S_ISVTX;
    if (s->st_mode & S_IWOTH && !is_sticky)
        return err_fail("E_PLUG_PERM", QFW_E_INVALID,
            "%s: %s can be written by everybody; hint: chmod o-w, or --allow-insecure-plugins",
            path, what);
    if (s->st_uid != 0 && s->st_uid != geteuid())
        return err_fail("E_PLUG_PERM", QFW_E_INVALID,
            "%s: %s belongs to user %u, wanted root or user %u; hint: chown it, or "
            "--allow-insecure-plugins",
            path, what, s->st_uid, geteuid());
    return QFW_OK;
}

qfw_status search_check_owner(int fd, const char *path) {
    struct stat s;
    char parent[PATH_MAX], what[PATH_MAX + 16];
    if (allows_insecure) return QFW_OK;
    if (fstat(fd, &s)) return err_fail("E_PLUG_PERM", QFW_E_IO, "%s: %s", path, strerror(errno));
    QFW_TRY(check_owner(&s, "the file", path));
    snprintf(parent, sizeof parent, "%s", path);
    for (char *slash; (slash = strrchr(parent, '/')) != NULL;) {
        *slash = 0;
        const char *folder = *parent ? parent : "/";
        if (stat(folder, &s))
            return err_fail(
                "E_PLUG_PERM", QFW_E_IO, "%s: its folder %s: %s", path, folder, strerror(errno));
        snprintf(what, sizeof what, "its folder %s", folder);
        QFW_TRY(check_owner(&s, what, path));
    }
    return QFW_OK;
}

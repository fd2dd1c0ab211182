/* claim.c -- output_dir before a run writes to it: that it can be made, that it is nobody else's,
 * and what a run that was killed left half done.
 */
#define _DEFAULT_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/mem.h"
#include "files/file.h"
#include "train/checkpoint.h"
#include "train/outputs.h"

static const char lock_file[] = ".lock", manifest_file[] = "manifest.json";

static const char *output_dir(const run *r) {
    return cfg_text(run_cfg(r, SECTION_RUN), "output_dir");
}

/* Whether `folder` has a file of that name, or one that begins so where it ends in '*', with
 * something in it. */
static int holds_something(const char *folder, const char *pattern) {
    const size_t n = strcspn(pattern, "*");
    int holds = 0;
    DIR *dir = opendir(folder);
    if (!dir && (errno == ENOMEM || errno == EMFILE) && file_unlisted(folder)) return 1;
    for (struct dirent *d; dir && !holds && (d = readdir(dir)) != NULL;) {
        struct stat s;
        if (strncmp(d->d_name, pattern, n) || (!pattern[n] && d->d_name[n])) continue;
        char *path = path_join(folder, d->d_name);
        holds = !path || (!stat(path, &s) && s.st_size > 0);
        mem_free(path);
    }
    if (dir) closedir(dir);
    return holds;
}

/* The first mark of the kind that the folder has; NULL: none. */
static const output_mark *find_mark(const run *r, const output_kind *k, int is_own) {
    static const output_mark checkpoint = {"checkpoint-*", "a run", 1};
    if (is_own && k->writes_weights && checkpoint_exists(r)) return &checkpoint;
    for (const output_mark *m = k->marks; m->pattern; m++)
        if (m->is_own == is_own && holds_something(output_dir(r), m->pattern)) return m;
    return NULL;
}

/* A merged model that another run left below output_dir. */
static int holds_merged(const run *r) {
    char *folder = path_join(output_dir(r), "merged");
    const int merges = strcmp(cfg_text(run_cfg(r, SECTION_EXPORT), "merged"), "none") != 0;
    const int holds = merges && folder && holds_something(folder, "model*");
    mem_free(folder);
    return holds;
}

/* What is there is neither overwritten nor mixed with something else by accident. */
static qfw_status check_unused(const run *r, const output_kind *k) {
    err_clear();
    const output_mark *own = find_mark(r, k, 1), *other = own ? NULL : find_mark(r, k, 0);
    if (err_count()) return err_status(); /* it could not be looked at */
    const int goes_on =
        k->resumes && strcmp(cfg_text(run_cfg(r, SECTION_RUN), "resume_from_checkpoint"), "none");
    if (cfg_int(run_cfg(r, SECTION_RUN), "overwrite_output_dir") || (own && goes_on)) return QFW_OK;
    if (!own && !other && k->resumes && holds_merged(r))
        return err_fail("E_OUT_EXISTS", QFW_E_IO,
            "%s/merged: it holds a model already; hint: another output_dir keeps it, --set "
            "run.overwrite_output_dir=true starts over",
            output_dir(r));
    if (!own && !other) return QFW_OK;
    return err_fail("E_OUT_EXISTS", QFW_E_IO,
        "%s: it holds %s already; hint: %sanother output_dir keeps it, "
        "--set run.overwrite_output_dir=true starts over",
        output_dir(r), own ? own->what : other->what,
        own && k->resumes ? "--resume goes on with it, " : "");
}

/* The weights that a run starts from are never where it writes its own. */
static qfw_status check_apart(const run *r) {
    static const uint32_t sections[] = {SECTION_MODEL, SECTION_ADAPTER};
    struct stat out, in;
    if (stat(output_dir(r), &out)) return QFW_OK; /* not there yet */
    for (size_t i = 0; i < sizeof sections / sizeof sections[0]; i++) {
        const qfw_cfg *c = run_cfg(r, sections[i]);
        const char *path = cfg_text(c, "path");
        if (!*path || stat(path, &in) || in.st_dev != out.st_dev || in.st_ino != out.st_ino)
            continue;
        return err_fail("E_OUT_INPUT", QFW_E_IO,
            "%s: it is [%s] path, too, whose files would be overwritten; hint: another output_dir",
            output_dir(r), c->section);
    }
    return QFW_OK;
}

static qfw_status check_both(const run *r, const output_kind *k) {
    if (k->writes_weights) QFW_TRY(check_apart(r));
    return check_unused(r, k);
}

qfw_status output_check(const run *r, const output_kind *k) {
    QFW_TRY(dir_check(output_dir(r)));
    return check_both(r, k);
}

/* Whoever holds the lock says so in it, for the message of the one who comes second. */
static void sign_lock(int fd) {
    char host[64] = "", text[96];
    (void)gethostname(host, sizeof host - 1);
    const int n = snprintf(text, sizeof text, "process %ld on %s", (long)getpid(), host);
    if (!ftruncate(fd, 0)) (void)!pwrite(fd, text, (size_t)n, 0);
}

static qfw_status fail_locked(int fd) {
    char holder[96] = "";
    const ssize_t n = pread(fd, holder, sizeof holder - 1, 0);
    if (n <= 0) snprintf(holder, sizeof holder, "it does not say which");
    return err_fail("E_OUT_LOCKED", QFW_E_IO,
        "another run writes there (%s); hint: another output_dir, or wait for it", holder);
}

/* A file system without locks (ENOTSUP, ENOLCK) gives none, and is used all the same. */
static qfw_status take_lock(const char *path, int *fd) {
    struct stat s = {.st_nlink = 0};
    while (s.st_nlink == 0) { /* 0: its holder removed it before we had it */
        if (*fd >= 0) close(*fd);
        *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
        if (*fd < 0)
            return err_fail(
                "E_OUT_CREATE", QFW_E_IO, "%s cannot be written: %s", lock_file, strerror(errno));
        if (flock(*fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK) {
            const qfw_status status = fail_locked(*fd);
            close(*fd);
            *fd = -1;
            return status;
        }
        if (fstat(*fd, &s)) break;
    }
    sign_lock(*fd);
    return QFW_OK;
}

qfw_status output_claim(run *r, const output_kind *k) {
    const char *folder = output_dir(r);
    const output_lock lock = {-1, !dir_exists(folder)};
    QFW_TRY(dir_make(folder));
    r->lock = lock;
    char *path = path_join(folder, lock_file);
    qfw_status status = path ? take_lock(path, &r->lock.fd) : QFW_E_NOMEM;
    mem_free(path);
    if (status == QFW_E_IO) err_prefix("%s", folder);
    if (status == QFW_OK) status = check_both(r, k);
    if (status == QFW_OK) status = checkpoint_sweep(r);
    return status;
}

void output_release(run *r) {
    if (r->lock.fd < 0) return;
    char *path = path_join(output_dir(r), lock_file);
    if (path) (void)unlink(path);
    mem_free(path);
    close(r->lock.fd);
    r->lock.fd = -1;
    if (r->lock.is_new) (void)rmdir(output_dir(r)); /* where nothing was written */
}

int output_is_whole(const run *r) {
    char *path = path_join(output_dir(r), manifest_file);
    const int there = path && file_exists(path);
    mem_free(path);
    return there;
}

/* One that stays would call a run whole that is not. */
qfw_status output_begin(const run *r) {
    qfw_status status = QFW_OK;
    char *path = path_join(output_dir(r), manifest_file);
    if (!path) return QFW_E_NOMEM;
    if (unlink(path) && errno != ENOENT)
        status =
            err_fail("E_IO_REMOVE", QFW_E_IO, "%s: cannot be removed: %s", path, strerror(errno));
    mem_free(path);
    return status;
}

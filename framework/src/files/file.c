/* file.c -- files and folders: read whole, written aside and renamed.
 *
 * A name never points at half a file: the bytes lie in <path>.tmp until they are synced. A rename
 * is only promised to last once the folder is synced too, so that is part of publishing.
 */
#define _XOPEN_SOURCE 700
#include "files/file.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/mem.h"

enum { COPY_BYTES = 1 << 20 };

struct file_out {
    int fd;
    char *path, *aside;
};

/* --- reading --- */

static const char *kind_of(mode_t mode) {
    if (S_ISDIR(mode)) return "a folder";
    if (S_ISFIFO(mode)) return "a FIFO";
    if (S_ISSOCK(mode)) return "a socket";
    return "a device";
}

int file_open(const char *path, const char *type_name, uint64_t *size) {
    struct stat st;
    const qfw_status wrong = strcmp(type_name, "E_NOINPUT") ? QFW_E_DATA : QFW_E_IO;
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 && (errno == EMFILE || errno == ENFILE))
        (void)err_fail("E_LIMIT", QFW_E_IO, "%s: %s; hint: raise ulimit -n", path, strerror(errno));
    else if (fd < 0 && (errno == ELOOP || errno == ENXIO))
        (void)err_fail(type_name, wrong, "%s: %s, wanted a regular file", path, strerror(errno));
    else if (fd < 0)
        (void)err_fail("E_NOINPUT", QFW_E_IO, "%s: %s", path, strerror(errno));
    else if (fstat(fd, &st) != 0)
        (void)err_fail("E_IO_READ", QFW_E_IO, "%s: %s", path, strerror(errno));
    else if (!S_ISREG(st.st_mode))
        (void)err_fail(
            type_name, wrong, "%s: %s, wanted a regular file", path, kind_of(st.st_mode));
    else {
        *size = (uint64_t)st.st_size;
        return fd;
    }
    if (fd >= 0) close(fd);
    return -1;
}

qfw_status file_pread(int fd, const char *path, uint64_t at, void *data, size_t n) {
    for (size_t done = 0; done < n;) {
        const ssize_t got = pread(fd, (char *)data + done, n - done, (off_t)(at + done));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0)
            return err_fail("E_IO_READ", QFW_E_IO, "%s: byte %llu: %s", path,
                (unsigned long long)(at + done), strerror(errno));
        if (got == 0)
            return err_fail("E_IO_SHRUNK", QFW_E_IO,
                "%s: ends at byte %llu, %llu more were there when it was opened; hint: something "
                "else writes this file",
                path, (unsigned long long)(at + done), (unsigned long long)(n - done));
        done += (size_t)got;
    }
    return QFW_OK;
}

qfw_status file_read(const char *path, uint64_t max_bytes, char **text, size_t *n) {
    uint64_t size = 0;
    *text = NULL;
    *n = 0;
    const int fd = file_open(path, "E_NOINPUT", &size);
    if (fd < 0) return err_status();
    qfw_status status = QFW_OK;
    char *data = NULL;
    if (size > max_bytes)
        status = err_fail("E_DATA_LIMIT", QFW_E_DATA, "%s: %llu bytes, at most %llu are read", path,
            (unsigned long long)size, (unsigned long long)max_bytes);
    else if (!(data = mem_alloc((size_t)size + 1, 1)))
        status = QFW_E_NOMEM;
    else
        status = file_pread(fd, path, 0, data, (size_t)size);
    close(fd);
    if (status != QFW_OK) {
        mem_free(data);
        return status;
    }
    *text = data;
    *n = (size_t)size;
    return QFW_OK;
}

int file_exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && !S_ISDIR(st.st_mode);
}

/* --- writing --- */

qfw_status file_out_open(const char *path, file_out **out) {
    file_out *o = mem_alloc(1, sizeof *o);
    *out = NULL;
    if (!o) return QFW_E_NOMEM;
    o->fd = -1;
    o->path = mem_strdup(path);
    o->aside = mem_printf("%s.tmp", path);
    if (!o->path || !o->aside) {
        file_out_abort(o);
        return QFW_E_NOMEM;
    }
    unlink(o->aside); /* what a killed run left */
    o->fd = open(o->aside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (o->fd < 0) {
        const qfw_status status = err_fail(
            "E_OUT_CREATE", QFW_E_IO, "%s: cannot be created: %s", o->aside, strerror(errno));
        mem_free(o->aside); /* nothing to remove */
        o->aside = NULL;
        file_out_abort(o);
        return status;
    }
    *out = o;
    return QFW_OK;
}

static qfw_status write_failed(const char *path, const char *what) {
    return err_fail("E_IO_WRITE", QFW_E_IO, "%s: %s: %s%s", path, what, strerror(errno),
        errno == ENOSPC || errno == EDQUOT ? "; hint: make room and run again" : "");
}

static qfw_status write_bytes(int fd, const char *path, const void *data, size_t n) {
    for (size_t done = 0; done < n;) {
        const ssize_t put = write(fd, (const char *)data + done, n - done);
        if (put < 0 && errno == EINTR) continue;
        if (put == 0) errno = ENOSPC; /* it takes nothing, and does not say why */
        if (put <= 0) return write_failed(path, "cannot be written");
        done += (size_t)put;
    }
    return QFW_OK;
}

qfw_status file_out_write(file_out *o, const void *data, size_t n) {
    return write_bytes(o->fd, o->aside, data, n);
}

/* fsync the folder that holds `path`. */
static qfw_status sync_folder_of(const char *path) {
    const char *slash = strrchr(path, '/');
    if (!slash) return dir_sync(".");
    char *folder = mem_printf("%.*s", slash == path ? 1 : (int)(slash - path), path);
    if (!folder) return QFW_E_NOMEM;
    const qfw_status status = dir_sync(folder);
    mem_free(folder);
    return status;
}

qfw_status file_out_finish(file_out *o) {
    qfw_status status = QFW_OK;
    if (fsync(o->fd) != 0) status = write_failed(o->aside, "cannot be synced");
    if (close(o->fd) != 0 && status == QFW_OK) status = write_failed(o->aside, "cannot be closed");
    o->fd = -1;
    if (status == QFW_OK && rename(o->aside, o->path) != 0)
        status = err_fail("E_IO_WRITE", QFW_E_IO, "%s: cannot be renamed to %s: %s", o->aside,
            o->path, strerror(errno));
    if (status == QFW_OK) {
        mem_free(o->aside);
        o->aside = NULL;
        status = sync_folder_of(o->path);
    }
    file_out_abort(o);
    return status;
}

void file_out_abort(file_out *o) {
    if (!o) return;
    if (o->fd >= 0) close(o->fd);
    if (o->aside) unlink(o->aside);
    mem_free(o->aside);
    mem_free(o->path);
    mem_free(o);
}

/* --- logs --- */

int file_log_open(const char *path, int keeps) {
    const int flags = O_WRONLY | O_CREAT | O_CLOEXEC | O_APPEND | (keeps ? 0 : O_TRUNC);
    const int fd = open(path, flags, 0644);
    if (fd < 0)
        (void)err_fail(
            "E_OUT_CREATE", QFW_E_IO, "%s: cannot be written: %s", path, strerror(errno));
    return fd;
}

qfw_status file_log_write(int fd, const char *path, const void *data, size_t n) {
    return write_bytes(fd, path, data, n);
}

qfw_status file_log_sync(int fd, const char *path) {
    return fsync(fd) ? write_failed(path, "cannot be synced") : QFW_OK;
}

qfw_status file_log_close(int fd, const char *path) {
    return close(fd) ? write_failed(path, "cannot be closed") : QFW_OK;
}

qfw_status file_write(const char *path, const void *data, size_t n) {
    file_out *o = NULL;
    QFW_TRY(file_out_open(path, &o));
    const qfw_status status = file_out_write(o, data, n);
    if (status == QFW_OK) return file_out_finish(o);
    file_out_abort(o);
    return status;
}

/* Call `take` with all bytes of the file, in pieces. */
static qfw_status each_piece(
    const char *path, void *arg, qfw_status (*take)(void *arg, const void *data, size_t n)) {
    uint64_t size = 0;
    const int fd = file_open(path, "E_NOINPUT", &size);
    if (fd < 0) return err_status();
    char *piece = mem_alloc(COPY_BYTES, 1);
    qfw_status status = piece ? QFW_OK : QFW_E_NOMEM;
    for (uint64_t at = 0; status == QFW_OK && at < size; at += COPY_BYTES) {
        const size_t n = size - at < COPY_BYTES ? (size_t)(size - at) : COPY_BYTES;
        status = file_pread(fd, path, at, piece, n);
        if (status == QFW_OK) status = take(arg, piece, n);
    }
    mem_free(piece);
    close(fd);
    return status;
}

static qfw_status take_copy(void *arg, const void *data, size_t n) {
    return file_out_write(arg, data, n);
}

qfw_status file_copy(const char *from, const char *to) {
    file_out *o = NULL;
    QFW_TRY(file_out_open(to, &o));
    const qfw_status status = each_piece(from, o, take_copy);
    if (status == QFW_OK) return file_out_finish(o);
    file_out_abort(o);
    return status;
}

static qfw_status take_hash(void *arg, const void *data, size_t n) {
    sha256_add(arg, data, n);
    return QFW_OK;
}

qfw_status file_sha256(const char *path, char out[65]) {
    sha256 s;
    sha256_init(&s);
    out[0] = 0;
    QFW_TRY(each_piece(path, &s, take_hash));
    sha256_hex(&s, out);
    return QFW_OK;
}

/* --- folders --- */

int dir_exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

qfw_status dir_make(const char *path) {
    char *part = mem_strdup(path);
    if (!part) return QFW_E_NOMEM;
    qfw_status status = QFW_OK;
    for (char *at = part; status == QFW_OK && *at;) {
        at += strspn(at, "/");
        at += strcspn(at, "/");
        const char end = *at;
        *at = 0;
        const int why = mkdir(part, 0755) ? errno : 0;
        if (why && !dir_exists(part))
            status = err_fail(
                "E_OUT_CREATE", QFW_E_IO, "%s: folder cannot be made: %s", part, strerror(why));
        *at = end;
    }
    mem_free(part);
    return status;
}

/* Of what is not there yet, the first parent that is decides. */
qfw_status dir_check(const char *path) {
    struct stat st;
    char *part = mem_strdup(path);
    if (!part) return QFW_E_NOMEM;
    while (*part && stat(part, &st) != 0 && errno == ENOENT) {
        char *slash = strrchr(part, '/');
        *(slash ? slash == part ? slash + 1 : slash : part) = 0;
    }
    const char *there = *part ? part : ".";
    const int why = stat(there, &st)             ? errno
                    : !S_ISDIR(st.st_mode)       ? ENOTDIR
                    : access(there, W_OK | X_OK) ? errno
                                                 : 0;
    const qfw_status status =
        !why ? QFW_OK
             : err_fail("E_OUT_CREATE", QFW_E_IO, "%s: folder cannot be made or written: %s: %s",
                   path, there, strerror(why));
    mem_free(part);
    return status;
}

qfw_status dir_sync(const char *path) {
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return write_failed(path, "folder cannot be opened");
    /* EINVAL: this file system cannot sync folders, and there is nothing more to do. */
    const int failed = fsync(fd) != 0 && errno != EINVAL;
    const qfw_status status = failed ? write_failed(path, "folder cannot be synced") : QFW_OK;
    close(fd);
    return status;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at) {
    (void)st;
    (void)at;
    return kind == FTW_DP ? rmdir(path) : unlink(path);
}

static int remove_all(const char *path) {
    enum { DESCRIPTORS = 8 };
    return nftw(path, remove_one, DESCRIPTORS, FTW_DEPTH | FTW_PHYS);
}

void dir_discard(const char *path) { (void)remove_all(path); }

qfw_status dir_remove(const char *path) {
    if (remove_all(path) == 0 || errno == ENOENT) return QFW_OK;
    return err_fail("E_IO_REMOVE", QFW_E_IO, "%s: cannot be removed: %s", path, strerror(errno));
}

char *path_join(const char *folder, const char *name) {
    const size_t n = strlen(folder);
    if (*name == '/' || n == 0) return mem_strdup(name);
    return mem_printf("%s%s%s", folder, folder[n - 1] == '/' ? "" : "/", name);
}

qfw_status file_unlisted(const char *folder) {
    const int why = errno;
    if (why == ENOMEM)
        return err_fail("E_MEM", QFW_E_NOMEM, "%s: cannot be listed: %s", folder, strerror(why));
    return err_fail(why == EMFILE || why == ENFILE ? "E_LIMIT" : "E_IO_READ", QFW_E_IO,
        "%s: cannot be listed: %s%s", folder, strerror(why),
        why == EMFILE || why == ENFILE ? "; hint: raise ulimit -n" : "");
}

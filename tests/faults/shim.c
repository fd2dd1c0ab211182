/* shim.c -- stands between qfw and the C library (LD_PRELOAD): counts the calls that change what is
 * below one folder, and at one of them kills the process or lets the call fail; or it writes down
 * every such call with its data, so that what a crash leaves can be built from them.
 *
 * QFW_SHIM_FOLDER the folder; QFW_SHIM_KILL=n dies before call n; QFW_SHIM_FAIL=n lets call n fail
 * with QFW_SHIM_ERRNO (EINTR: writes only), or with QFW_SHIM_SHORT writes half of what it was to
 * write; with QFW_SHIM_STICKY every call from n on. QFW_SHIM_LOG is the file of the log: a line
 * "<kind> <bytes on stderr before> <offset> <bytes> <path> [<path>]", then the bytes.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { DESCRIPTORS = 1024, PATH_BYTES = 512 };

static char folder[PATH_BYTES], paths[DESCRIPTORS][PATH_BYTES];
static size_t n_folder;
static long n_calls, kill_at, fail_at;
static int error, is_sticky, is_short, log_fd = -1;

/* What the process would have called. */
static void real(const char *name, void *function) {
    void *found = dlsym(RTLD_NEXT, name);
    memcpy(function, &found, sizeof found);
}

static long number(const char *name) {
    const char *text = getenv(name);
    return text ? strtol(text, NULL, 10) : 0;
}

__attribute__((constructor)) static void start(void) {
    const char *where = getenv("QFW_SHIM_FOLDER"), *log = getenv("QFW_SHIM_LOG");
    if (!where) return;
    n_folder = (size_t)snprintf(folder, sizeof folder, "%s", where);
    kill_at = number("QFW_SHIM_KILL");
    fail_at = number("QFW_SHIM_FAIL");
    error = (int)number("QFW_SHIM_ERRNO");
    is_sticky = number("QFW_SHIM_STICKY") != 0;
    is_short = number("QFW_SHIM_SHORT") != 0;
    if (log)
        log_fd =
            (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
}

/* The folder itself, or something in it. */
static int is_ours(const char *path) {
    return n_folder && !strncmp(path, folder, n_folder) &&
           (!path[n_folder] || path[n_folder] == '/');
}

static const char *path_of(int fd) {
    return fd >= 0 && fd < DESCRIPTORS && *paths[fd] ? paths[fd] : NULL;
}

/* Another call of ours: whether it fails. `n`: bytes to write, 0 for other calls. */
static int fails(size_t n) {
    n_calls++;
    if (n_calls == kill_at) (void)raise(SIGKILL);
    if (!fail_at || (is_sticky ? n_calls < fail_at : n_calls != fail_at)) return 0;
    if ((is_short || error == EINTR) && !n) return 0;
    if (error == EINTR && is_sticky) return 0; /* for ever, it would be no interruption */
    errno = error;
    return 1;
}

static void note(char kind, long at, const void *data, size_t n, const char *path, const char *to) {
    char head[2 * PATH_BYTES + 96];
    struct stat said = {.st_size = 0};
    const int why = errno;
    if (log_fd < 0) return;
    (void)fstat(STDERR_FILENO, &said);
    const int length = snprintf(
        head, sizeof head, "%c %ld %ld %zu %s %s\n", kind, (long)said.st_size, at, n, path, to);
    if (syscall(SYS_write, log_fd, head, length) != length ||
        (n && syscall(SYS_write, log_fd, data, n) != (long)n))
        abort();
    errno = why;
}

/* --- the calls --- */

static int open_file(const char *path, int flags, mode_t mode) {
    int (*call)(const char *, int, ...) = NULL;
    const int writes = is_ours(path) && (flags & O_ACCMODE) != O_RDONLY;
    real("open", &call);
    if (writes && fails(0)) return -1;
    if (writes) note(flags & O_TRUNC ? 'T' : 'C', 0, NULL, 0, path, "");
    const int fd = call(path, flags, mode);
    const int is_kept = writes || flags & O_DIRECTORY; /* folders are opened to be synced */
    if (fd >= 0 && fd < DESCRIPTORS && is_kept && is_ours(path))
        snprintf(paths[fd], PATH_BYTES, "%s", path);
    return fd;
}

int open(const char *path, int flags, ...) {
    va_list args;
    va_start(args, flags);
    const mode_t mode = flags & O_CREAT ? va_arg(args, mode_t) : 0;
    va_end(args);
    return open_file(path, flags, mode);
}

int open64(const char *path, int flags, ...);
int open64(const char *path, int flags, ...) {
    va_list args;
    va_start(args, flags);
    const mode_t mode = flags & O_CREAT ? va_arg(args, mode_t) : 0;
    va_end(args);
    return open_file(path, flags, mode);
}

/* A log that grows is written at its end, wherever that is. */
static long place_of(int fd) {
    struct stat st;
    const int flags = fcntl(fd, F_GETFL);
    if (flags & O_APPEND && !fstat(fd, &st)) return (long)st.st_size;
    return (long)lseek(fd, 0, SEEK_CUR);
}

ssize_t write(int fd, const void *data, size_t n) {
    ssize_t (*call)(int, const void *, size_t) = NULL;
    const char *path = path_of(fd);
    real("write", &call);
    if (path && fails(n)) {
        if (!is_short) return -1;
        n = n > 1 ? n / 2 : n;
    }
    if (path) note('W', place_of(fd), data, n, path, "");
    return call(fd, data, n);
}

ssize_t pwrite(int fd, const void *data, size_t n, off_t at) {
    ssize_t (*call)(int, const void *, size_t, off_t) = NULL;
    const char *path = path_of(fd);
    real("pwrite", &call);
    if (path && fails(n)) {
        if (!is_short) return -1;
        n = n > 1 ? n / 2 : n;
    }
    if (path) note('W', (long)at, data, n, path, "");
    return call(fd, data, n, at);
}

int ftruncate(int fd, off_t size) {
    int (*call)(int, off_t) = NULL;
    const char *path = path_of(fd);
    real("ftruncate", &call);
    if (path && fails(0)) return -1;
    if (path) note('L', (long)size, NULL, 0, path, "");
    return call(fd, size);
}

/* No power is lost here: what a sync is for is worked out from the log, and waiting for a disk some
 * hundred times a run would make the tests ten times slower. */
static int sync_file(const char *name, int fd) {
    int (*call)(int) = NULL;
    const char *path = path_of(fd);
    real(name, &call);
    if (path && fails(0)) return -1;
    if (path) note('S', 0, NULL, 0, path, "");
    return path ? 0 : call(fd);
}

int fsync(int fd) { return sync_file("fsync", fd); }
int fdatasync(int fd) { return sync_file("fdatasync", fd); }

/* A close that fails has closed all the same. */
int close(int fd) {
    int (*call)(int) = NULL;
    const int is_one = path_of(fd) != NULL;
    real("close", &call);
    const int failed = is_one && fails(0), why = errno;
    if (is_one) note('E', 0, NULL, 0, paths[fd], "");
    if (is_one) *paths[fd] = 0;
    const int result = call(fd);
    if (failed) errno = why;
    return failed ? -1 : result;
}

int rename(const char *from, const char *to) {
    int (*call)(const char *, const char *) = NULL;
    real("rename", &call);
    if (is_ours(from) && fails(0)) return -1;
    if (is_ours(from)) note('R', 0, NULL, 0, from, to);
    return call(from, to);
}

static int change_name(const char *name, char kind, const char *path) {
    int (*call)(const char *) = NULL;
    real(name, &call);
    if (is_ours(path) && fails(0)) return -1;
    if (is_ours(path)) note(kind, 0, NULL, 0, path, "");
    return call(path);
}

int unlink(const char *path) { return change_name("unlink", 'U', path); }
int rmdir(const char *path) { return change_name("rmdir", 'D', path); }

int mkdir(const char *path, mode_t mode) {
    int (*call)(const char *, mode_t) = NULL;
    real("mkdir", &call);
    if (is_ours(path) && fails(0)) return -1;
    if (is_ours(path)) note('M', 0, NULL, 0, path, "");
    return call(path, mode);
}

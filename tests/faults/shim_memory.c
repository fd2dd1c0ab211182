/* shim_memory.c -- stands in front of the C library (LD_PRELOAD) and lets one allocation of the
 * process fail, whoever asks for it: the core, a plugin, a library, the dynamic linker.
 *
 * SHIM_FAIL_AT=n fails the n-th, with SHIM_STICKY=1 all from there on. SHIM_REPORT=<file> gets two
 * numbers when the process ends: how many allocations there were, and how many blocks were never
 * freed. Children are left alone. A thread is counted as an allocation, too: its stack is one.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *p, size_t bytes);
void *__libc_memalign(size_t align, size_t bytes);
void __libc_free(void *p);

static atomic_ulong n_asked;
static atomic_long n_living;
static unsigned long fail_at;
static int sticky, report_fd = -1, counts;

__attribute__((constructor)) static void begin(void) {
    const char *at = getenv("SHIM_FAIL_AT"), *report = getenv("SHIM_REPORT");
    fail_at = at ? strtoul(at, NULL, 10) : 0;
    sticky = getenv("SHIM_STICKY") != NULL;
    if (report) report_fd = open(report, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    unsetenv("LD_PRELOAD");
    counts = 1;
}

__attribute__((destructor)) static void end(void) {
    char text[64];
    counts = 0;
    if (report_fd < 0) return;
    const int n =
        snprintf(text, sizeof text, "%lu %ld\n", atomic_load(&n_asked), atomic_load(&n_living));
    if (write(report_fd, text, (size_t)n) != n) _exit(99);
}

/* 1: this one fails. */
static int fails(void) {
    if (!counts) return 0;
    const unsigned long n = atomic_fetch_add(&n_asked, 1) + 1;
    if (!fail_at || (sticky ? n < fail_at : n != fail_at)) return 0;
    errno = ENOMEM;
    return 1;
}

static void *given(void *p) {
    if (p) atomic_fetch_add(&n_living, 1);
    return p;
}

void *malloc(size_t bytes) { return fails() ? NULL : given(__libc_malloc(bytes)); }
void *calloc(size_t count, size_t size) {
    return fails() ? NULL : given(__libc_calloc(count, size));
}
static void *take_aligned(size_t align, size_t bytes) {
    return fails() ? NULL : given(__libc_memalign(align, bytes));
}
void *aligned_alloc(size_t align, size_t bytes) { return take_aligned(align, bytes); }
int posix_memalign(void **p, size_t align, size_t bytes) {
    void *block = take_aligned(align, bytes);
    if (!block) return ENOMEM;
    *p = block;
    return 0;
}
void *realloc(void *p, size_t bytes) {
    if (fails()) return NULL;
    void *moved = __libc_realloc(p, bytes);
    if (!p) given(moved);
    if (p && !bytes && !moved) atomic_fetch_sub(&n_living, 1);
    return moved;
}
void free(void *p) {
    if (p) atomic_fetch_sub(&n_living, 1);
    __libc_free(p);
}

void *mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset) {
    if (fails()) return MAP_FAILED;
    return (void *)syscall(SYS_mmap, at, bytes, protection, flags, fd, offset);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *), void *arg) {
    static int (*create)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (!create) *(void **)&create = dlsym(RTLD_NEXT, "pthread_create");
    return fails() ? EAGAIN : create(thread, attr, run, arg);
}

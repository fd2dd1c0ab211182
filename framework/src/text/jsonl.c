/* jsonl.c -- see jsonl.h. */
#define _POSIX_C_SOURCE 200809L
#include "text/jsonl.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/mem.h"
#include "files/file.h"

enum { CHUNK = 1 << 18, USUAL_MAX_LINE = 16 << 20 };

struct jsonl {
    char *path, *buf;
    int fd;
    size_t from, scanned, n, cap; /* the line begins at buf[from]; no line end in what is scanned */
    uint64_t read, size, max_line, line;
    struct timespec changed;
    sha256 digest;
};

qfw_status jsonl_open(const char *path, uint64_t max_line, jsonl **out) {
    struct stat st;
    jsonl *r = mem_alloc(1, sizeof *r);
    *out = NULL;
    if (!r) return QFW_E_NOMEM;
    r->max_line = max_line ? max_line : USUAL_MAX_LINE;
    sha256_init(&r->digest);
    r->fd = file_open(path, "E_NOINPUT", &r->size);
    if (r->fd < 0) {
        mem_free(r);
        return err_status();
    }
    qfw_status status = QFW_OK;
    r->path = mem_strdup(path);
    if (!r->path)
        status = QFW_E_NOMEM;
    else if (fstat(r->fd, &st) != 0)
        status = err_fail("E_IO_READ", QFW_E_IO, "%s: its size cannot be read", path);
    else
        r->changed = st.st_mtim;
    if (status != QFW_OK) {
        jsonl_close(r);
        return status;
    }
    *out = r;
    return QFW_OK;
}

/* Move the line to the front of the buffer and read on behind it. */
static qfw_status read_more(jsonl *r) {
    const uint64_t left = r->size - r->read;
    const size_t n = left < CHUNK ? (size_t)left : CHUNK;
    if (r->from > 0) memmove(r->buf, r->buf + r->from, r->n - r->from);
    r->n -= r->from;
    r->from = 0;
    r->scanned = r->n;
    if (mem_grow(&r->buf, &r->cap, r->n + n, 1)) return QFW_E_NOMEM;
    QFW_TRY(file_pread(r->fd, r->path, r->read, r->buf + r->n, n));
    sha256_add(&r->digest, r->buf + r->n, n);
    r->n += n;
    r->read += n;
    return QFW_OK;
}

static qfw_status too_long(const jsonl *r) {
    return err_fail("E_DATA_LIMIT", QFW_E_DATA,
        "%s:%llu: a line of more than %llu bytes; hint: [data] max_line", r->path,
        (unsigned long long)r->line, (unsigned long long)r->max_line);
}

/* The file is what it was when it was opened. */
static qfw_status check_end(const jsonl *r) {
    struct stat st;
    if (fstat(r->fd, &st) == 0 && (uint64_t)st.st_size == r->size &&
        st.st_mtim.tv_sec == r->changed.tv_sec && st.st_mtim.tv_nsec == r->changed.tv_nsec)
        return QFW_E_END;
    return err_fail("E_DATA_CHANGED", QFW_E_DATA,
        "%s: it changed while it was read; hint: something else writes this file", r->path);
}

qfw_status jsonl_next(jsonl *r, const char **text, size_t *n) {
    const char *end = NULL;
    if (r->from == r->n && r->read == r->size) return check_end(r);
    r->line++;
    for (;;) {
        const size_t fresh = r->n - r->scanned;
        end = fresh ? memchr(r->buf + r->scanned, '\n', fresh) : NULL;
        const size_t bytes = (end ? (size_t)(end - r->buf) : r->n) - r->from;
        if (bytes > r->max_line) return too_long(r);
        if (end || r->read == r->size) break;
        QFW_TRY(read_more(r));
    }
    const char *from = r->buf + r->from, *stop = end ? end : r->buf + r->n;
    r->scanned = r->from = (size_t)(stop - r->buf) + (end ? 1 : 0);
    if (stop > from && stop[-1] == '\r') stop--;
    if (r->line == 1 && stop - from >= 3 && !memcmp(from, "\xef\xbb\xbf", 3)) from += 3;
    *text = from;
    *n = (size_t)(stop - from);
    return QFW_OK;
}

uint64_t jsonl_line(const jsonl *r) { return r->line; }
void jsonl_sha256(jsonl *r, char hex[65]) { sha256_hex(&r->digest, hex); }

void jsonl_close(jsonl *r) {
    if (!r) return;
    if (r->fd >= 0) close(r->fd);
    mem_free(r->path);
    mem_free(r->buf);
    mem_free(r);
}

/* safetensors.c -- open files of tensors, and their values.
 *
 * Data is read with pread: a file that shrinks under a mapping would kill the process, a short read
 * is an error like any other.
 */
#define _POSIX_C_SOURCE 200809L
#include "files/safetensors.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/finite.h"
#include "base/mem.h"
#include "files/file.h"
#include "files/st_header.h"

enum { PIECE = 16384 }; /* 16-bit values that are widened at a time */

/* --- files --- */

static void note_state(st_shard *s, const struct stat *st) {
    s->size = (uint64_t)st->st_size;
    s->inode = (uint64_t)st->st_ino;
    s->device = (uint64_t)st->st_dev;
    s->modified = st->st_mtim;
}

qfw_status st_shard_open(const char *path, const char *type_name, st_shard *out) {
    struct stat st;
    char first[ST_LENGTH_BYTES] = "";
    uint64_t size = 0, length = 0;
    memset(out, 0, sizeof *out);
    out->fd = -1;
    out->path = mem_strdup(path);
    if (!out->path) return QFW_E_NOMEM;
    out->fd = file_open(path, type_name, &size);
    qfw_status status = out->fd < 0 ? err_status() : QFW_OK;
    if (status == QFW_OK && fstat(out->fd, &st) != 0)
        status = err_fail("E_IO_READ", QFW_E_IO, "%s: its state cannot be read", path);
    if (status == QFW_OK) note_state(out, &st);
    size = out->size;
    const size_t n_first = size < sizeof first ? (size_t)size : sizeof first;
    if (status == QFW_OK) status = file_pread(out->fd, path, 0, first, n_first);
    if (status == QFW_OK) status = st_header_length(first, size, path, &length);
    char *text = status == QFW_OK ? mem_alloc((size_t)length, 1) : NULL;
    if (status == QFW_OK && !text) status = QFW_E_NOMEM;
    if (status == QFW_OK) status = file_pread(out->fd, path, ST_LENGTH_BYTES, text, (size_t)length);
    if (status == QFW_OK)
        status = st_header_parse(text, (size_t)length, size, out->path, &out->header);
    mem_free(text);
    if (status != QFW_OK) st_shard_close(out);
    return status;
}

void st_shard_close(st_shard *s) {
    if (s->path && s->fd >= 0) close(s->fd);
    st_header_free(&s->header);
    mem_free(s->path);
    s->path = NULL;
}

static int compare_names(const void *a, const void *b) {
    return strcmp(((const st_tensor *)a)->name, ((const st_tensor *)b)->name);
}

qfw_status st_merge(st_file *f) {
    uint32_t n = 0;
    for (uint32_t s = 0; s < f->n_shards; s++) n += f->shards[s].header.n_tensors;
    f->tensors = mem_alloc(n, sizeof *f->tensors);
    if (!f->tensors) return QFW_E_NOMEM;
    for (uint32_t s = 0; s < f->n_shards; s++) {
        const st_header *h = &f->shards[s].header;
        for (uint32_t i = 0; i < h->n_tensors; i++) {
            f->tensors[f->n_tensors] = h->tensors[i];
            f->tensors[f->n_tensors++].shard = s;
        }
    }
    if (n) qsort(f->tensors, n, sizeof *f->tensors, compare_names);
    return QFW_OK;
}

qfw_status st_open(const char *path, st_file **out) {
    st_file *f = mem_alloc(1, sizeof *f);
    *out = NULL;
    if (!f) return QFW_E_NOMEM;
    f->shards = mem_alloc(1, sizeof *f->shards);
    qfw_status status = f->shards ? st_shard_open(path, "E_ST_TYPE", f->shards) : QFW_E_NOMEM;
    if (status == QFW_OK) {
        f->n_shards = 1;
        status = st_merge(f);
    }
    if (status != QFW_OK) {
        st_close(f);
        return status;
    }
    *out = f;
    return QFW_OK;
}

void st_close(st_file *f) {
    if (!f) return;
    for (uint32_t i = 0; i < f->n_shards; i++) st_shard_close(&f->shards[i]);
    mem_free(f->shards);
    mem_free(f->tensors);
    mem_free(f);
}

qfw_status st_unchanged(const st_file *f) {
    for (uint32_t i = 0; i < f->n_shards; i++) {
        const st_shard *s = &f->shards[i];
        struct stat st;
        st_shard now = {.fd = -1};
        if (stat(s->path, &st) == 0) note_state(&now, &st);
        if (now.size == s->size && now.inode == s->inode && now.device == s->device &&
            now.modified.tv_sec == s->modified.tv_sec &&
            now.modified.tv_nsec == s->modified.tv_nsec)
            continue;
        return err_fail("E_IO_CHANGED", QFW_E_IO,
            "%s: changed or was replaced while it was read (size %llu, then %llu); hint: run again "
            "when nothing writes it",
            s->path, (unsigned long long)s->size, (unsigned long long)now.size);
    }
    return QFW_OK;
}

/* --- what is there --- */

uint32_t st_count(const st_file *f) { return f->n_tensors; }

const st_tensor *st_at(const st_file *f, uint32_t i) {
    return i < f->n_tensors ? &f->tensors[i] : NULL;
}

const st_tensor *st_find(const st_file *f, const char *name) {
    const st_tensor wanted = {.name = name};
    if (!f->n_tensors) return NULL;
    return bsearch(&wanted, f->tensors, f->n_tensors, sizeof wanted, compare_names);
}

const char *st_metadata(const st_file *f, const char *key) {
    for (uint32_t s = 0; s < f->n_shards; s++) {
        const st_header *h = &f->shards[s].header;
        for (uint32_t i = 0; i < h->n_meta; i++)
            if (!strcmp(h->meta[i].key, key)) return h->meta[i].value;
    }
    return NULL;
}

/* --- values --- */

/* The rows' place and size in the file. A tensor without dimensions has one row. */
static qfw_status locate_rows(
    const st_tensor *t, int64_t row0, int64_t rows, uint64_t *at, uint64_t *bytes) {
    const int64_t n_rows = t->rank ? t->dim[0] : 1;
    if (row0 < 0 || rows < 0 || row0 > n_rows || rows > n_rows - row0)
        return err_fail("E_INTERNAL", QFW_E_INVALID,
            "%s: tensor \"%.100s\": rows %lld..%lld of %lld", t->file, t->name, (long long)row0,
            (long long)(row0 + rows), (long long)n_rows);
    const uint64_t row_bytes = n_rows ? t->bytes / (uint64_t)n_rows : 0;
    *at = t->begin + (uint64_t)row0 * row_bytes;
    *bytes = (uint64_t)rows * row_bytes;
    return QFW_OK;
}

qfw_status st_read(st_file *f, const st_tensor *t, int64_t row0, int64_t rows, void *out) {
    uint64_t at = 0, bytes = 0;
    QFW_TRY(locate_rows(t, row0, rows, &at, &bytes));
    return file_pread(f->shards[t->shard].fd, t->file, at, out, (size_t)bytes);
}

static float float_of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* IEEE binary16. Subnormals are counts of 2^-24, which a float holds exactly. */
static float float_of_f16(uint16_t half) {
    const uint32_t sign = (uint32_t)(half & 0x8000) << 16;
    const uint32_t exponent = half >> 10 & 31, fraction = half & 1023;
    if (exponent == 31) return float_of_bits(sign | 0x7f800000 | fraction << 13);
    if (exponent) return float_of_bits(sign | (exponent + 112) << 23 | fraction << 13);
    const float tiny = (float)fraction * 0x1p-24f;
    return sign ? -tiny : tiny;
}

static qfw_status check_finite(const st_tensor *t, const float *v, uint64_t n, uint64_t flat) {
    const uint64_t i = finite_all(v, QFW_F32, n);
    if (i < n)
        return err_fail("E_ST_NONFINITE", QFW_E_DATA,
            "%s: tensor \"%.100s\": value %llu: %s, wanted finite values", t->file, t->name,
            (unsigned long long)(flat + i), v[i] > 0 || v[i] < 0 ? "infinite" : "NaN");
    return QFW_OK;
}

static qfw_status read_widened(
    const st_shard *s, const st_tensor *t, uint64_t at, uint64_t n, float *out) {
    uint16_t piece[PIECE];
    for (uint64_t done = 0; done < n; done += PIECE) {
        const size_t count = n - done < PIECE ? (size_t)(n - done) : PIECE;
        QFW_TRY(file_pread(s->fd, t->file, at + 2 * done, piece, 2 * count));
        for (size_t i = 0; i < count; i++)
            out[done + i] = t->dtype == QFW_F16 ? float_of_f16(piece[i])
                                                : float_of_bits((uint32_t)piece[i] << 16);
    }
    return QFW_OK;
}

qfw_status st_read_f32(st_file *f, const st_tensor *t, int64_t row0, int64_t rows, float *out) {
    const st_shard *s = &f->shards[t->shard];
    const uint64_t value_bytes = t->dtype == QFW_F32 ? 4 : 2;
    uint64_t at = 0, bytes = 0;
    if (t->dtype != QFW_F32 && t->dtype != QFW_BF16 && t->dtype != QFW_F16)
        return err_fail("E_ST_DTYPE", QFW_E_DATA,
            "%s: tensor \"%.100s\": dtype: %s, wanted F32, BF16 or F16", t->file, t->name,
            t->dtype_name);
    QFW_TRY(locate_rows(t, row0, rows, &at, &bytes));
    const uint64_t n = bytes / value_bytes;
    if (t->dtype == QFW_F32)
        QFW_TRY(file_pread(s->fd, t->file, at, out, (size_t)bytes));
    else
        QFW_TRY(read_widened(s, t, at, n, out));
    return check_finite(t, out, n, (at - t->begin) / value_bytes);
}

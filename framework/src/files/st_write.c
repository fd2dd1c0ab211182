/* st_write.c -- writing safetensors: the header from what was declared, then data as it comes. */
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "files/file.h"
#include "files/json.h"
#include "files/st_header.h"

struct st_writer {
    file_out *file;
    char *path;
    st_tensor *tensors;
    st_meta *meta;
    size_t n_tensors, cap_tensors, n_meta, cap_meta;
    uint64_t bytes, written; /* of data: declared, given */
    int started;             /* the header is in the file */
};

qfw_status st_writer_create(const char *path, st_writer **out) {
    st_writer *w = mem_alloc(1, sizeof *w);
    *out = NULL;
    if (!w) return QFW_E_NOMEM;
    w->path = mem_strdup(path);
    const qfw_status status = w->path ? file_out_open(path, &w->file) : QFW_E_NOMEM;
    if (status != QFW_OK) {
        st_writer_abort(w);
        return status;
    }
    *out = w;
    return QFW_OK;
}

void st_writer_abort(st_writer *w) {
    if (!w) return;
    for (size_t i = 0; i < w->n_tensors; i++) mem_free((char *)(uintptr_t)w->tensors[i].name);
    for (size_t i = 0; i < w->n_meta; i++) {
        mem_free(w->meta[i].key);
        mem_free(w->meta[i].value);
    }
    mem_free(w->tensors);
    mem_free(w->meta);
    mem_free(w->path);
    file_out_abort(w->file);
    mem_free(w);
}

qfw_status st_writer_meta(st_writer *w, const char *key, const char *value) {
    if (w->started)
        return err_fail("E_INTERNAL", QFW_E_INVALID, "%s: metadata after the data", w->path);
    if (mem_grow(&w->meta, &w->cap_meta, w->n_meta + 1, sizeof *w->meta)) return QFW_E_NOMEM;
    st_meta *m = &w->meta[w->n_meta++];
    m->key = mem_strdup(key);
    m->value = mem_strdup(value);
    return m->key && m->value ? QFW_OK : QFW_E_NOMEM;
}

qfw_status st_writer_add(
    st_writer *w, const char *name, uint32_t dtype, uint32_t rank, const int64_t *dim) {
    const char *dtype_name = st_dtype_name(dtype);
    uint64_t bytes = qfw_dtype_bytes(dtype);
    if (w->started || !dtype_name || rank > 8)
        return err_fail("E_INTERNAL", QFW_E_INVALID,
            "%s: tensor \"%.100s\": declared after the data, or of dtype %s, or of rank %u",
            w->path, name, qfw_dtype_name(dtype), rank);
    for (size_t i = 0; i < w->n_tensors; i++)
        if (!strcmp(w->tensors[i].name, name))
            return err_fail(
                "E_INTERNAL", QFW_E_INVALID, "%s: tensor \"%.100s\" twice", w->path, name);
    if (mem_grow(&w->tensors, &w->cap_tensors, w->n_tensors + 1, sizeof *w->tensors))
        return QFW_E_NOMEM;
    st_tensor *t = &w->tensors[w->n_tensors];
    *t = (st_tensor){.dtype = dtype, .dtype_name = dtype_name, .rank = rank, .begin = w->bytes};
    for (uint32_t i = 0; i < rank; i++) {
        t->dim[i] = dim[i];
        if (dim[i] < 0 || __builtin_mul_overflow(bytes, (uint64_t)dim[i], &bytes))
            return err_fail("E_INTERNAL", QFW_E_INVALID, "%s: tensor \"%.100s\": shape/%u: %lld",
                w->path, name, i, (long long)dim[i]);
    }
    if (!(t->name = mem_strdup(name))) return QFW_E_NOMEM;
    t->bytes = bytes;
    w->bytes += bytes;
    w->n_tensors++;
    return QFW_OK;
}

static void put_tensor(json_out *o, const st_tensor *t) {
    json_open(o, t->name, '{');
    json_str(o, "dtype", t->dtype_name);
    json_open(o, "shape", '[');
    for (uint32_t i = 0; i < t->rank; i++) json_int(o, NULL, t->dim[i]);
    json_close(o);
    json_open(o, "data_offsets", '[');
    json_int(o, NULL, (int64_t)t->begin);
    json_int(o, NULL, (int64_t)(t->begin + t->bytes));
    json_close(o);
    json_close(o);
}

/* Length, JSON, and spaces that bring the data to a multiple of 8. */
static qfw_status write_header(st_writer *w) {
    char length[ST_LENGTH_BYTES];
    size_t n = 0;
    json_out *o = json_out_create(0);
    json_open(o, NULL, '{');
    if (w->n_meta) json_open(o, "__metadata__", '{');
    for (size_t i = 0; i < w->n_meta; i++) json_str(o, w->meta[i].key, w->meta[i].value);
    if (w->n_meta) json_close(o);
    for (size_t i = 0; i < w->n_tensors; i++) put_tensor(o, &w->tensors[i]);
    json_close(o);
    const char *text = json_out_text(o, &n);
    const size_t padding = (ST_LENGTH_BYTES - n % ST_LENGTH_BYTES) % ST_LENGTH_BYTES;
    for (int i = 0; i < ST_LENGTH_BYTES; i++) length[i] = (char)((n + padding) >> 8 * i & 255);
    qfw_status status = text ? file_out_write(w->file, length, sizeof length) : err_status();
    if (status == QFW_OK) status = file_out_write(w->file, text, n);
    if (status == QFW_OK) status = file_out_write(w->file, "        ", padding);
    json_out_destroy(o);
    w->started = 1;
    return status;
}

qfw_status st_writer_data(st_writer *w, const void *data, uint64_t bytes) {
    if (bytes > w->bytes - w->written)
        return err_fail("E_INTERNAL", QFW_E_INVALID, "%s: more data than was declared", w->path);
    if (!w->started) QFW_TRY(write_header(w));
    w->written += bytes;
    return file_out_write(w->file, data, (size_t)bytes);
}

qfw_status st_writer_finish(st_writer *w) {
    qfw_status status = w->started ? QFW_OK : write_header(w);
    if (status == QFW_OK && w->written != w->bytes)
        status = err_fail("E_INTERNAL", QFW_E_INVALID, "%s: %llu bytes of data, %llu were declared",
            w->path, (unsigned long long)w->written, (unsigned long long)w->bytes);
    if (status == QFW_OK) {
        status = file_out_finish(w->file);
        w->file = NULL;
    }
    st_writer_abort(w);
    return status;
}

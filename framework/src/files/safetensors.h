/* safetensors.h -- reading and writing *.safetensors, single files and sharded folders.
 *
 * The reader believes nothing: every size is checked before it is used (the cases of
 * docs/files.md), data is read with pread, and the file is compared with what it was when it was
 * opened.
 */
#ifndef FILES_SAFETENSORS_H
#define FILES_SAFETENSORS_H

#include "qfw/tensor.h"

typedef struct st_tensor {
    const char *name;
    const char *file; /* the shard's path */
    uint32_t dtype;   /* QFW_F32, BF16, F16, I32, U8; 0: a dtype qfw does not compute with */
    const char *dtype_name;
    uint32_t rank;
    int64_t dim[8];
    uint64_t bytes;
    uint64_t begin; /* in the file */
    uint32_t shard;
} st_tensor;

typedef struct st_file st_file; /* one file, or one folder's set of shards */

qfw_status st_open(const char *path, st_file **out); /* a file */
/* A model folder: model.safetensors, or model.safetensors.index.json with its shards; not both. */
qfw_status st_open_folder(const char *folder, st_file **out);
void st_close(st_file *f);
uint32_t st_count(const st_file *f);
const st_tensor *st_at(const st_file *f, uint32_t i);         /* sorted by name */
const st_tensor *st_find(const st_file *f, const char *name); /* NULL: none */
const char *st_metadata(const st_file *f, const char *key);   /* NULL: none */
/* Rows row0 .. row0+rows-1 (dimension 0) of a tensor, as stored. E_IO_SHRUNK where the file
 * changed. */
qfw_status st_read(st_file *f, const st_tensor *t, int64_t row0, int64_t rows, void *out);
/* The same as floats, F32, BF16 or F16 on disk; a value that is not finite is E_ST_NONFINITE with
 * its place. */
qfw_status st_read_f32(st_file *f, const st_tensor *t, int64_t row0, int64_t rows, float *out);
/* Fails if any file changed (size, mtime, inode) since st_open. */
qfw_status st_unchanged(const st_file *f);

/* Writing: declare all tensors, then give their data in that order, in pieces of any size. Atomic:
 * the file appears, synced, under its name in st_writer_finish, or not at all. */
typedef struct st_writer st_writer;
qfw_status st_writer_create(const char *path, st_writer **out);
qfw_status st_writer_meta(st_writer *w, const char *key, const char *value);
qfw_status st_writer_add(
    st_writer *w, const char *name, uint32_t dtype, uint32_t rank, const int64_t *dim);
qfw_status st_writer_data(st_writer *w, const void *data, uint64_t bytes);
qfw_status st_writer_finish(st_writer *w); /* w is gone, also on failure */
void st_writer_abort(st_writer *w);

/* The header parser alone, for the fuzz target: `n` bytes that start a file of `file_size`. */
qfw_status st_parse_header(const char *bytes, size_t n, uint64_t file_size, const char *path);

#endif

/* st_header.h -- what the files of the safetensors reader share: a checked header, an open file. */
#ifndef FILES_ST_HEADER_H
#define FILES_ST_HEADER_H

#include <time.h>

#include "files/safetensors.h"

enum { ST_LENGTH_BYTES = 8, ST_MAX_HEADER = 100000000, ST_MAX_TENSORS = 200000 };

typedef struct st_meta {
    char *key, *value;
} st_meta;

typedef struct st_header {
    st_tensor *tensors; /* sorted by name; `begin` counts from the file's first byte */
    st_meta *meta;
    uint32_t n_tensors, n_meta;
} st_header;

typedef struct st_shard { /* an open file, and what it was when it was opened */
    char *path;
    int fd;
    uint64_t size, inode, device;
    struct timespec modified;
    st_header header;
} st_shard;

struct st_file {
    st_shard *shards;
    st_tensor *tensors; /* of all shards, sorted by name; names are the headers' */
    uint32_t n_shards, n_tensors;
};

/* The header's length, from the first min(8, file_size) bytes of a file. */
qfw_status st_header_length(
    const char *bytes, uint64_t file_size, const char *path, uint64_t *length);
/* Check and take apart the header's n bytes of text. `path` must outlive *out. */
qfw_status st_header_parse(
    const char *text, size_t n, uint64_t file_size, const char *path, st_header *out);
void st_header_free(st_header *h); /* an emptied one is fine */

/* Open and check one file; a file that is not regular is `type_name`. st_shard_close undoes it. */
qfw_status st_shard_open(const char *path, const char *type_name, st_shard *out);
void st_shard_close(st_shard *s);
/* The tensors of all shards, sorted by name. */
qfw_status st_merge(st_file *f);

const char *st_dtype_name(uint32_t dtype); /* "BF16" for QFW_BF16; NULL: not written */

#endif

/* shard.h -- safetensors files for tests, right or wrong, from their header's text. */
#ifndef SUPPORT_SHARD_H
#define SUPPORT_SHARD_H

#include <stddef.h>

/* One tensor of a header. */
#define SHARD_TENSOR(name, dtype, shape, offsets)                                                  \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

/* A file in the test's folder: this header and so many bytes of data: 0, 1, 2, ... */
void shard_make(const char *name, const char *header, size_t data_bytes);
/* The same with a header of n bytes, which may hold zeros. */
void shard_make_bytes(const char *name, const char *header, size_t n, size_t data_bytes);

#endif

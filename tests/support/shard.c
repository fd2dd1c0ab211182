/* shard.c -- safetensors files for tests. */
#include "../support/shard.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../support/temp.h"

void shard_make_bytes(const char *name, const char *header, size_t n, size_t data_bytes) {
    unsigned char *file = malloc(8 + n + data_bytes);
    for (int i = 0; i < 8; i++) file[i] = (unsigned char)((uint64_t)n >> 8 * i);
    memcpy(file + 8, header, n);
    for (size_t i = 0; i < data_bytes; i++) file[8 + n + i] = (unsigned char)i;
    temp_write(name, file, 8 + n + data_bytes);
    free(file);
}

void shard_make(const char *name, const char *header, size_t data_bytes) {
    shard_make_bytes(name, header, strlen(header), data_bytes);
}

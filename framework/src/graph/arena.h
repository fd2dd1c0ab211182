/* arena.h -- the memory that the executors of one device share: blocks for values and workspace,
 * blocks for inputs, and the host's side.
 */
#ifndef GRAPH_ARENA_H
#define GRAPH_ARENA_H

#include "graph/exec.h"

typedef struct arena_blocks {
    qfw_mem **mem;
    size_t n;
    uint64_t bytes, block_bytes; /* in all; of each block but the last */
} arena_blocks;

struct exec_arena {
    const device *dev;
    arena_blocks step, input;
    char *host;
    uint64_t host_bytes;
};

/* The block that holds `offset`; *offset becomes the offset inside it. */
qfw_mem *arena_at(const arena_blocks *b, uint64_t *offset);

#endif

/* arena.c -- blocks cut from chunks that double; small ones that came back are taken again. */
#include "files/arena.h"

#include <stdint.h>

#include "base/mem.h"

enum { UNIT = 8, CLASSES = 64, FIRST_CHUNK = 4096, LAST_CHUNK = 1 << 20 };

typedef struct chunk {
    struct chunk *next;
    uint64_t data[];
} chunk;

struct arena {
    chunk *chunks;
    uint64_t *at;        /* the newest chunk's free units */
    size_t left;         /* how many */
    size_t chunk_bytes;  /* of the next chunk */
    void *back[CLASSES]; /* blocks that came back, by their units; each holds the next one */
};

arena *arena_create(void) {
    arena *a = mem_alloc(1, sizeof *a);
    if (a) a->chunk_bytes = FIRST_CHUNK;
    return a;
}

void arena_destroy(arena *a) {
    if (!a) return;
    for (chunk *c = a->chunks, *next; c; c = next) {
        next = c->next;
        mem_free(c);
    }
    mem_free(a);
}

static uint64_t *add_chunk(arena *a, size_t units) {
    chunk *c = mem_alloc(units + 1, UNIT);
    if (!c) return NULL;
    c->next = a->chunks;
    a->chunks = c;
    return c->data;
}

/* `units` and one before them, which says how many they are. */
static uint64_t *cut(arena *a, size_t units) {
    if (units + 1 > a->left) {
        const size_t usual = a->chunk_bytes / UNIT;
        if (units + 1 > usual / 4) return add_chunk(a, units + 1); /* one of its own */
        uint64_t *fresh = add_chunk(a, usual);
        if (!fresh) return NULL;
        a->at = fresh;
        a->left = usual;
        if (a->chunk_bytes < LAST_CHUNK) a->chunk_bytes *= 2;
    }
    uint64_t *block = a->at;
    a->at += units + 1;
    a->left -= units + 1;
    return block;
}

void *arena_take(arena *a, size_t n) {
    const size_t units = n / UNIT + 1;
    if (units < CLASSES && a->back[units]) {
        void **p = a->back[units];
        a->back[units] = *p;
        return p;
    }
    uint64_t *block = cut(a, units);
    if (!block) return NULL;
    *block = units;
    return block + 1;
}

void arena_return(arena *a, void *p) {
    if (!p) return;
    const uint64_t units = ((uint64_t *)p)[-1];
    if (units >= CLASSES) return;
    *(void **)p = a->back[units];
    a->back[units] = p;
}

/* mem.c -- malloc behind checked sizes, counted, and made to fail on demand for tests. */
#define _POSIX_C_SOURCE 200809L
#include "base/mem.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

static atomic_uint_fast64_t n_allocations;
static atomic_uint_fast64_t failing; /* the number of the allocation that fails; 0: none */

/* Count one allocation; 0 when a test wants this one to fail. */
static int mem_admit(void) {
    const uint64_t number = atomic_fetch_add_explicit(&n_allocations, 1, memory_order_relaxed) + 1;
    return number != atomic_load_explicit(&failing, memory_order_relaxed);
}

static void *mem_none(size_t count, size_t size) {
    if (count == 1)
        err_fail("E_MEM", QFW_E_NOMEM,
            "memory: %zu bytes are not available; hint: free memory, "
            "or lower [run] max_memory or the batch",
            size);
    else
        err_fail(
            "E_MEM", QFW_E_NOMEM, "memory: %zu times %zu bytes are not available", count, size);
    return NULL;
}

/* count * size, at least 1; 0 when no object can be that large. */
static size_t mem_bytes(size_t count, size_t size) {
    if (count == 0 || size == 0) return 1;
    if (count > (size_t)PTRDIFF_MAX / size) return 0;
    return count * size;
}

void *mem_alloc(size_t count, size_t size) {
    const size_t bytes = mem_bytes(count, size);
    void *p = mem_admit() && bytes ? calloc(1, bytes) : NULL;
    return p ? p : mem_none(count, size);
}

void *mem_alloc_aligned(size_t bytes, size_t align) {
    const size_t wanted = mem_bytes(1, bytes);
    void *p = NULL;
    if (align < sizeof(void *)) align = sizeof(void *);
    if ((align & (align - 1)) != 0 || align > 4096) {
        err_fail("E_INTERNAL", QFW_E_INVALID,
            "memory: alignment %zu, wanted a power of two, at most 4096", align);
        return NULL;
    }
    if (!mem_admit() || !wanted || posix_memalign(&p, align, wanted) != 0)
        return mem_none(1, bytes);
    memset(p, 0, wanted);
    return p;
}

int mem_grow(void *items, size_t *cap, size_t need, size_t size) {
    void *old, *grown;
    if (need <= *cap) return 0;
    size_t room = *cap < 8 ? 8 : *cap + *cap / 2;
    if (room < need) room = need;
    const size_t bytes = mem_bytes(room, size);
    memcpy(&old, items, sizeof old); /* *items is a pointer of some other type */
    grown = mem_admit() && bytes ? realloc(old, bytes) : NULL;
    if (!grown) {
        mem_none(room, size);
        return -1;
    }
    memset((char *)grown + *cap * size, 0, (room - *cap) * size);
    memcpy(items, &grown, sizeof grown);
    *cap = room;
    return 0;
}

char *mem_strdup(const char *text) {
    const size_t bytes = strlen(text) + 1;
    char *copy = mem_alloc(bytes, 1);
    if (copy) memcpy(copy, text, bytes);
    return copy;
}

char *mem_printf(const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    const int length = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (length < 0) {
        err_fail("E_INTERNAL", QFW_E_INVALID, "memory: text of format '%s' cannot be formed", fmt);
        return NULL;
    }
    char *text = mem_alloc((size_t)length + 1, 1);
    if (!text) return NULL;
    va_start(args, fmt);
    vsnprintf(text, (size_t)length + 1, fmt, args);
    va_end(args);
    return text;
}

void mem_free(void *p) { free(p); }

uint64_t mem_count(void) { return atomic_load_explicit(&n_allocations, memory_order_relaxed); }

void mem_fail_at(uint64_t k) { atomic_store(&failing, k ? mem_count() + k : 0); }

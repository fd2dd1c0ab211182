/* mem.h -- host memory with checked sizes, and a guard that tests use to see that a step allocates
 * nothing.
 *
 * Every allocation of the core goes through here. All return zeroed memory, or NULL (never abort)
 * after err_fail("E_MEM", QFW_E_NOMEM, ...).
 */
#ifndef BASE_MEM_H
#define BASE_MEM_H

#include <stddef.h>
#include <stdint.h>

void *mem_alloc(size_t count, size_t size);          /* count * size, overflow-checked */
void *mem_alloc_aligned(size_t bytes, size_t align); /* align a power of two <= 4096 */
/* Grow *items (capacity *cap, of `size` bytes each) so that `need` fit; keeps the old items. 0 on
 * success. */
int mem_grow(void *items, size_t *cap, size_t need, size_t size);
char *mem_strdup(const char *text);
char *mem_printf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void mem_free(void *p); /* NULL does nothing; frees what any of these gave */

/* For tests: let the k-th allocation from now fail, once; 0: none. */
void mem_fail_at(uint64_t k);

uint64_t mem_count(void); /* allocations so far, all threads: a step must not change it */

#endif

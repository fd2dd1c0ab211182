/* arena.h -- memory that is given back all at once.
 *
 * jansson goes on with what it could not append to a token when memory runs out, and reads past its
 * buffer's end (2.14, lex_save). So it is never told: a parse takes its memory here, where failing
 * leaves the parse, and drops all that it took.
 */
#ifndef FILES_ARENA_H
#define FILES_ARENA_H

#include <stddef.h>

typedef struct arena arena;

arena *arena_create(void);            /* NULL: E_MEM */
void arena_destroy(arena *a);         /* and all that came from it; NULL does nothing */
void *arena_take(arena *a, size_t n); /* aligned to 8, not zeroed; NULL: E_MEM */
void arena_return(arena *a, void *p); /* may be taken again; NULL does nothing */

#endif

/* chunk.h -- a document that is too long for one question, cut where a reader would pause.
 *
 * A chunk ends where a section does if that leaves it at least half full (a section begins after a
 * blank line, at a heading: "# ...", a line in capitals, a short line that ends in ':'), else where
 * a sentence or an item of a list does, else at a line end, else between words; within a word
 * only where a word alone is too long. The next one begins with the last whole sentences of the one
 * before. Every character is in a chunk, every chunk fits, time grows with the length alone.
 */
#ifndef SERVE_CHUNK_H
#define SERVE_CHUNK_H

#include "qfw/status.h"

typedef struct chunk {
    size_t from, to; /* bytes */
} chunk;

typedef struct chunk_ruler {
    /* Tokens of a text by itself: what it adds to a question, or a little more. */
    qfw_status (*tokens)(void *arg, const char *text, size_t n, int64_t *tokens);
    /* Whether it fits as a chunk. Asked before anything is called one. */
    qfw_status (*fits)(void *arg, const char *text, size_t n, int *fits);
    void *arg;
    int64_t room;    /* tokens of a chunk, above 0 */
    int64_t overlap; /* tokens that are read again at most; at most half of the room is taken */
} chunk_ruler;

/* The chunks of n bytes of UTF-8, in order; one even of nothing. mem_free. E_DATA_LONG where not
 * even a character fits. */
qfw_status chunk_text(
    const char *text, size_t n, const chunk_ruler *r, chunk **out, size_t *n_chunks);

#endif

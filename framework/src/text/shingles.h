/* shingles.h -- what a row says, as a set that can be compared with another row's: the hashes of
 * every five words that follow each other (of all words, where there are fewer).
 *
 * Words are of the strings under the keys that the trainer read, without roles; ASCII is lowered,
 * and a character of a script without blanks (U+3000 and up) is a word of its own. Token ids are
 * words.
 */
#ifndef TEXT_SHINGLES_H
#define TEXT_SHINGLES_H

#include "text/rows.h"

/* Append the row's set to d->shingles, sorted and without doubles. */
qfw_status shingles_add(dataset *d, const qfw_encoder *e);
/* The set of row i. */
const uint64_t *shingles_of(const dataset *d, uint64_t i, size_t *n);
void shingles_free(shingle_store *s); /* and forget */

/* A bijection of 64 bits that leaves nothing of its argument's order. */
static inline uint64_t hash_mix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

#endif

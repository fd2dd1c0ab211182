/* tagged.h -- text whose every byte carries a tag, through normalisation up to the tokens.
 *
 * The tags say which bytes may be an added token (template text, not a message's content) and which
 * the caller has marked (an assistant's turn).
 */
#ifndef TEXT_TAGGED_H
#define TEXT_TAGGED_H

#include <stddef.h>
#include <stdint.h>

enum { TAG_SPECIAL = 1, TAG_MARK = 2 };

typedef struct tagged_view {
    const char *s;
    const uint8_t *tag;
    size_t n;
} tagged_view;

typedef struct tagged {
    char *s;
    uint8_t *tag;
    size_t n, cap, tag_cap;
} tagged;

static inline tagged_view tagged_all(const tagged *t) { return (tagged_view){t->s, t->tag, t->n}; }
static inline tagged_view tagged_part(tagged_view v, size_t from, size_t to) {
    return (tagged_view){v.s + from, v.tag + from, to - from};
}

/* Append; -1 after err_fail without memory. */
int tagged_add(tagged *t, const char *s, size_t n, uint8_t tag); /* one tag for all */
int tagged_copy(tagged *t, tagged_view v);
void tagged_free(tagged *t);

#endif

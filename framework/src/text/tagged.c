/* tagged.c -- see tagged.h. */
#include "text/tagged.h"

#include <string.h>

#include "base/mem.h"

static int tagged_room(tagged *t, size_t n) {
    return mem_grow(&t->s, &t->cap, t->n + n, 1) || mem_grow(&t->tag, &t->tag_cap, t->n + n, 1) ? -1
                                                                                                : 0;
}

int tagged_add(tagged *t, const char *s, size_t n, uint8_t tag) {
    if (n == 0) return 0;
    if (tagged_room(t, n)) return -1;
    memcpy(t->s + t->n, s, n);
    memset(t->tag + t->n, tag, n);
    t->n += n;
    return 0;
}

int tagged_copy(tagged *t, tagged_view v) {
    if (v.n == 0) return 0;
    if (tagged_room(t, v.n)) return -1;
    memcpy(t->s + t->n, v.s, v.n);
    memcpy(t->tag + t->n, v.tag, v.n);
    t->n += v.n;
    return 0;
}

void tagged_free(tagged *t) {
    mem_free(t->s);
    mem_free(t->tag);
    *t = (tagged){0};
}

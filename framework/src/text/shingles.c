/* shingles.c -- see shingles.h. */
#include "text/shingles.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "text/unicode.h"

enum { WORDS = 5 };

/* The last words of the row that is being read. */
typedef struct window {
    shingle_store *s;
    uint64_t word[WORDS];
    size_t n; /* words so far */
} window;

static qfw_status add_shingle(window *w, size_t words) {
    uint64_t hash = words;
    for (size_t i = w->n - words; i < w->n; i++) hash = hash_mix(hash * 31 + w->word[i % WORDS]);
    if (mem_grow(&w->s->hash, &w->s->cap, w->s->n + 1, sizeof *w->s->hash)) return QFW_E_NOMEM;
    w->s->hash[w->s->n++] = hash;
    return QFW_OK;
}

static qfw_status add_word(window *w, uint64_t word) {
    w->word[w->n++ % WORDS] = hash_mix(word);
    return w->n < WORDS ? QFW_OK : add_shingle(w, WORDS);
}

static int is_letter(uint32_t c) {
    return c >= 0x80 || (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

static qfw_status add_text(window *w, const char *text) {
    enum { NO_BLANKS = 0x3000 };
    const uint64_t empty = 0xcbf29ce484222325ull;
    const size_t end = strlen(text);
    uint64_t word = empty;
    uint32_t c = 0;
    for (size_t i = 0, n; i < end; i += n) {
        n = utf8_read(text + i, end - i, &c);
        if (n == 0) return QFW_OK; /* the parser lets nothing else than UTF-8 through */
        if (c >= 'A' && c <= 'Z') c += 'a' - 'A';
        if ((!is_letter(c) || c >= NO_BLANKS) && word != empty) {
            QFW_TRY(add_word(w, word));
            word = empty;
        }
        if (c >= NO_BLANKS)
            QFW_TRY(add_word(w, c));
        else if (is_letter(c))
            word = (word ^ c) * 0x100000001b3ull;
    }
    return word == empty ? QFW_OK : add_word(w, word);
}

/* Depth is the parser's limit at most. */
static qfw_status add_value(window *w, const json_node *v) {
    const uint32_t kind = json_node_kind(v);
    if (kind == QFW_DOC_STRING) return add_text(w, json_node_str(v));
    if (kind == QFW_DOC_INT) return add_word(w, (uint64_t)json_node_i64(v));
    const uint64_t n = kind == QFW_DOC_ARRAY ? json_node_count(v) : 0;
    for (uint64_t i = 0; i < n; i++) QFW_TRY(add_value(w, json_node_item(v, i)));
    if (kind != QFW_DOC_OBJECT) return QFW_OK;
    for (json_member m = json_first(v); m.key; m = json_next(v, m))
        if (strcmp(m.key, "role") != 0 && strcmp(m.key, "from") != 0)
            QFW_TRY(add_value(w, m.value));
    return QFW_OK;
}

static qfw_status add_row(window *w, const qfw_encoder *e) {
    const json_node *row = json_root(e->row);
    for (uint32_t i = 0; i < e->n_keys; i++)
        if (strcmp(e->key[i], "labels") != 0)
            QFW_TRY(add_value(w, json_node_member(row, e->key[i])));
    return w->n > 0 && w->n < WORDS ? add_shingle(w, w->n) : QFW_OK;
}

static int compare_hashes(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

qfw_status shingles_add(dataset *d, const qfw_encoder *e) {
    shingle_store *s = &d->shingles;
    const size_t first = s->n;
    window w = {.s = s};
    if (mem_grow(&s->end, &s->end_cap, s->n_rows + 1, sizeof *s->end)) return QFW_E_NOMEM;
    QFW_TRY(add_row(&w, e));
    if (s->n > first) qsort(s->hash + first, s->n - first, sizeof *s->hash, compare_hashes);
    size_t kept = first;
    for (size_t i = first; i < s->n; i++)
        if (kept == first || s->hash[i] != s->hash[kept - 1]) s->hash[kept++] = s->hash[i];
    s->end[s->n_rows++] = s->n = kept;
    return QFW_OK;
}

const uint64_t *shingles_of(const dataset *d, uint64_t i, size_t *n) {
    const size_t from = i ? d->shingles.end[i - 1] : 0;
    *n = d->shingles.end[i] - from;
    return d->shingles.hash + from;
}

void shingles_free(shingle_store *s) {
    mem_free(s->hash);
    mem_free(s->end);
    *s = (shingle_store){0};
}

/* added.c -- added tokens: role marks and the like, found in a text before anything is merged.
 *
 * As in the tokenizers library: the leftmost match, the longest there; a match that is no single
 * word where it should be is passed over whole; lstrip and rstrip take the white space beside it.
 * What is ours: a token is only found where all its bytes are tagged TAG_SPECIAL.
 */
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "text/parts.h"
#include "text/unicode.h"

enum { MAX_CONTENT = 512 };

/* --- the trie --- */

/* The child of node `at` (0: the root) for `byte`; 0: none. */
static int32_t child_of(const trie *t, int32_t at, uint8_t byte) {
    int32_t i = at ? t->node[at].child : t->first[byte];
    while (i && t->node[i].byte != byte) i = t->node[i].sibling;
    return i;
}

static int32_t add_child(trie *t, int32_t at, uint8_t byte) {
    if (t->n == 0) t->n = 1; /* node 0 is the root */
    if (mem_grow(&t->node, &t->cap, t->n + 1, sizeof *t->node)) return 0;
    const int32_t made = (int32_t)t->n++;
    t->node[made] = (trie_node){.byte = byte};
    if (at) {
        t->node[made].sibling = t->node[at].child;
        t->node[at].child = made;
    } else
        t->first[byte] = made;
    return made;
}

static qfw_status trie_add(trie *t, const char *s, size_t n, int32_t token, const char *file) {
    int32_t at = 0;
    for (size_t i = 0; i < n; i++) {
        const int32_t next = child_of(t, at, (uint8_t)s[i]);
        at = next ? next : add_child(t, at, (uint8_t)s[i]);
        if (!at) return QFW_E_NOMEM;
    }
    if (t->node[at].token)
        return err_fail("E_TOK_ADDED", QFW_E_DATA,
            "%s: added_tokens[%d] and [%d] are one text, '%.*s'", file, t->node[at].token - 1,
            token, (int)n, s);
    t->node[at].token = token + 1;
    return QFW_OK;
}

/* The longest token that starts at text[from] and lies in special bytes: its index, or -1. */
static int32_t trie_longest(const trie *t, tagged_view text, size_t from, size_t *end) {
    int32_t at = 0, found = -1;
    for (size_t i = from; i < text.n && (text.tag[i] & TAG_SPECIAL); i++) {
        at = child_of(t, at, (uint8_t)text.s[i]);
        if (!at) break;
        if (!t->node[at].token) continue;
        found = t->node[at].token - 1;
        *end = i + 1;
    }
    return found;
}

/* --- finding --- */

static size_t char_before(const char *s, size_t at, uint32_t *c) {
    size_t n = 1;
    while (n < at && n < 4 && ((unsigned char)s[at - n] & 0xc0) == 0x80) n++;
    return utf8_read(s + at - n, n, c);
}

static size_t strip_left(tagged_view text, size_t at) {
    uint32_t c = 0;
    for (size_t n; at > 0 && (n = char_before(text.s, at, &c)) > 0 && unicode_is_space(c);) at -= n;
    return at;
}

static size_t strip_right(tagged_view text, size_t at) {
    uint32_t c = 0;
    for (size_t n; (n = utf8_read(text.s + at, text.n - at, &c)) > 0 && unicode_is_space(c);)
        at += n;
    return at;
}

static int is_single_word(tagged_view text, size_t start, size_t stop) {
    uint32_t c = 0;
    if (start > 0 && char_before(text.s, start, &c) && unicode_is_word(c)) return 0;
    return !(utf8_read(text.s + stop, text.n - stop, &c) && unicode_is_word(c));
}

int added_next(const added_set *a, const trie *t, tagged_view text, size_t *scan, added_match *m) {
    while (t->n > 0 && *scan < text.n) {
        const size_t start = *scan;
        size_t stop = start;
        const int32_t i = trie_longest(t, text, start, &stop);
        if (i < 0) {
            ++*scan;
            continue;
        }
        *scan = stop;
        m->token = &a->token[i];
        if (m->token->single_word && !is_single_word(text, start, stop)) continue;
        m->tag = 0;
        for (size_t k = start; k < stop; k++) m->tag |= text.tag[k];
        m->start = m->token->lstrip ? strip_left(text, start) : start;
        m->stop = m->token->rstrip ? strip_right(text, stop) : stop;
        return 1;
    }
    return 0;
}

const added_token *added_find(const added_set *a, const char *content) {
    for (size_t i = 0; i < a->n; i++)
        if (!strcmp(a->token[i].content, content)) return &a->token[i];
    return NULL;
}

const added_token *added_by_id(const added_set *a, int32_t id) {
    for (size_t i = 0; i < a->n; i++)
        if (a->token[i].id == id) return &a->token[i];
    return NULL;
}

/* --- loading --- */

/* Normalised tokens are looked for as the normalizer makes them. */
static qfw_status add_to_trie(added_set *a, size_t i, const normalizer *z, const char *file) {
    const added_token *token = &a->token[i];
    tagged text = {0}, spare = {0};
    if (!token->normalized)
        return trie_add(&a->raw, token->content, strlen(token->content), (int32_t)i, file);
    qfw_status status =
        tagged_add(&text, token->content, strlen(token->content), 0) ? QFW_E_NOMEM : QFW_OK;
    if (status == QFW_OK) status = normalizer_run(z, &text, &spare);
    if (status == QFW_OK && text.n == 0)
        status = err_fail("E_TOK_ADDED", QFW_E_DATA,
            "%s: added_tokens: '%s' is normalised to nothing", file, token->content);
    if (status == QFW_OK) status = trie_add(&a->normal, text.s, text.n, (int32_t)i, file);
    tagged_free(&text);
    tagged_free(&spare);
    return status;
}

static qfw_status load_token(
    const json_node *v, uint64_t i, const char *file, const vocabulary *words, added_token *out) {
    const char *content = part_str(v, "content");
    const int64_t id = json_node_i64(json_node_member(v, "id"));
    if (!content || !*content || strlen(content) > MAX_CONTENT)
        return err_fail("E_TOK_ADDED", QFW_E_DATA,
            "%s: added_tokens[%llu].content: %zu bytes, wanted 1 .. %d", file,
            (unsigned long long)i, content ? strlen(content) : 0, MAX_CONTENT);
    const int32_t base = vocab_find(words, content, strlen(content));
    if (base >= 0 && base != id)
        return err_fail("E_TOK_ADDED", QFW_E_DATA,
            "%s: added_tokens[%llu]: '%s' has the id %lld here and %d in model.vocab", file,
            (unsigned long long)i, content, (long long)id, base);
    out->id = (int32_t)id;
    out->single_word = part_flag(v, "single_word", 0);
    out->lstrip = part_flag(v, "lstrip", 0);
    out->rstrip = part_flag(v, "rstrip", 0);
    out->special = part_flag(v, "special", 0);
    out->normalized = part_flag(v, "normalized", !out->special);
    out->content = mem_strdup(content);
    return out->content ? QFW_OK : QFW_E_NOMEM;
}

qfw_status added_load(const json_node *list, const char *file, const vocabulary *v,
    const normalizer *z, added_set *out) {
    const uint64_t n = json_node_count(list);
    out->token = mem_alloc(n, sizeof *out->token);
    if (!out->token) return QFW_E_NOMEM;
    for (uint64_t i = 0; i < n; i++) {
        QFW_TRY(load_token(json_node_item(list, i), i, file, v, &out->token[i]));
        out->n = i + 1;
        QFW_TRY(add_to_trie(out, i, z, file));
    }
    return QFW_OK;
}

static void trie_free(trie *t) { mem_free(t->node); }

void added_free(added_set *a) {
    for (size_t i = 0; i < a->n; i++) mem_free(a->token[i].content);
    mem_free(a->token);
    trie_free(&a->raw);
    trie_free(&a->normal);
    *a = (added_set){0};
}

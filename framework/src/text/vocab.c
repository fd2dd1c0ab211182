/* vocab.c -- the tokens of a tokenizer.json: strings by id, and ids by string.
 *
 * Memory follows the number of entries, never the largest id that a file claims.
 */
#include <inttypes.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "text/parts.h"

enum { MAX_TOKENS = 1 << 24 };

static uint32_t hash(const char *s, size_t n) {
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)s[i]) * 16777619u;
    return h ^ (h >> 15);
}

int32_t vocab_find(const vocabulary *v, const char *s, size_t n) {
    if (n > v->longest) return -1;
    const uint32_t h = hash(s, n);
    for (size_t i = h & (v->n_slots - 1); v->slot[i].next_id; i = (i + 1) & (v->n_slots - 1)) {
        const int32_t id = v->slot[i].next_id - 1;
        if (v->slot[i].hash == h && strlen(v->text[id]) == n && !memcmp(v->text[id], s, n))
            return id;
    }
    return -1;
}

static void add_slot(vocabulary *v, int32_t id) {
    const uint32_t h = hash(v->text[id], strlen(v->text[id]));
    size_t i = h & (v->n_slots - 1);
    while (v->slot[i].next_id) i = (i + 1) & (v->n_slots - 1);
    v->slot[i] = (struct vocab_slot){h, id + 1};
}

/* One past the largest id that so many tokens may have: vocabularies have holes (o200k: 18 of
 * 200,019). */
static size_t with_holes(size_t n_tokens) { return n_tokens + n_tokens / 8 + 64; }

/* Token `text` gets `id`; the string is copied to *end of the arena. `taken` is the error of an id
 * that another token has. */
static qfw_status put(vocabulary *v, const char *file, const char *taken, const char *text,
    const json_node *id, char **end) {
    const int64_t i = json_node_i64(id);
    if (json_node_kind(id) != QFW_DOC_INT)
        return err_fail(
            "E_TOK_ID", QFW_E_DATA, "%s: token '%s': its id is not an integer", file, text);
    if (i < 0 || (uint64_t)i >= v->n)
        return err_fail("E_TOK_ID", QFW_E_DATA,
            "%s: token '%s' has the id %" PRId64 ", wanted 0 .. %zu: an eighth more than there are "
            "tokens, and 64",
            file, text, i, v->n - 1);
    if (v->text[i])
        return err_fail(taken, QFW_E_DATA, "%s: tokens '%s' and '%s' have one id, %" PRId64, file,
            v->text[i], text, i);
    const size_t n = strlen(text);
    memcpy(*end, text, n + 1);
    v->text[i] = *end;
    *end += n + 1;
    if (n > v->longest) v->longest = n;
    return QFW_OK;
}

/* How many added tokens are not in the base vocabulary, and the bytes of their strings. */
static size_t count_added(const json_node *base, const json_node *added, size_t *bytes) {
    size_t n = 0;
    for (uint64_t i = 0; i < json_node_count(added); i++) {
        const char *text = part_str(json_node_item(added, i), "content");
        if (!text || json_node_member(base, text)) continue;
        *bytes += strlen(text) + 1;
        n++;
    }
    return n;
}

static qfw_status allocate(vocabulary *v, size_t bytes) {
    v->n_slots = 16;
    while (v->n_slots < 2 * v->n_base) v->n_slots *= 2;
    v->text = mem_alloc(v->n, sizeof *v->text);
    v->slot = mem_alloc(v->n_slots, sizeof *v->slot);
    v->arena = mem_alloc(bytes, 1);
    return v->text && v->slot && v->arena ? QFW_OK : QFW_E_NOMEM;
}

qfw_status vocab_load(
    const json_node *base, const json_node *added, const char *file, vocabulary *out) {
    size_t bytes = 0;
    char *end;
    if (json_node_kind(base) != QFW_DOC_OBJECT || json_node_count(base) == 0)
        return err_fail("E_TOK_ID", QFW_E_DATA, "%s: model.vocab: no tokens", file);
    for (json_member m = json_first(base); m.key; m = json_next(base, m))
        bytes += strlen(m.key) + 1;
    out->n_base = json_node_count(base);
    out->n = out->n_base + count_added(base, added, &bytes);
    if (out->n > MAX_TOKENS)
        return err_fail("E_TOK_LIMIT", QFW_E_DATA, "%s: model.vocab: %zu tokens, at most %d", file,
            out->n, MAX_TOKENS);
    out->n = with_holes(out->n);
    QFW_TRY(allocate(out, bytes));
    end = out->arena;
    for (json_member m = json_first(base); m.key; m = json_next(base, m)) {
        QFW_TRY(put(out, file, "E_TOK_ID", m.key, m.value, &end));
        add_slot(out, (int32_t)json_node_i64(m.value));
    }
    for (uint64_t i = 0; i < json_node_count(added); i++) {
        const json_node *token = json_node_item(added, i);
        const char *text = part_str(token, "content");
        if (!text || json_node_member(base, text)) continue;
        QFW_TRY(put(out, file, "E_TOK_ADDED", text, json_node_member(token, "id"), &end));
    }
    while (!out->text[out->n - 1]) out->n--;
    return QFW_OK;
}

void vocab_free(vocabulary *v) {
    mem_free(v->text);
    mem_free(v->slot);
    mem_free(v->arena);
    *v = (vocabulary){0};
}

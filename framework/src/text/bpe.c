/* bpe.c -- byte-pair encoding: a word's characters, merged pair by pair in the order of the merges.
 *
 * The symbols of a word are a linked list and the pairs that may merge a heap by (rank, place), so
 * that a word of n bytes takes O(n log n), whatever it says: a tokenizer without a pre-tokenizer
 * sees a whole document as one word. Most words need none of that: they are tokens that their own
 * text is merged into, which is found out once, at load.
 */
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "text/parts.h"
#include "text/unicode.h"

#define NO_PAIR UINT64_MAX
enum { MAX_MERGES = 4000000 };

/* --- the merges --- */

static uint64_t pair_of(int32_t left, int32_t right) {
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

static bpe_merge *merge_slot(const bpe *b, uint64_t pair) {
    size_t i = (size_t)((pair * 0x9E3779B97F4A7C15u) >> 40) & (b->n_slots - 1);
    while (b->merge[i].pair != pair && b->merge[i].pair != NO_PAIR) i = (i + 1) & (b->n_slots - 1);
    return &b->merge[i];
}

/* The two parts of merge i, "a b" or ["a", "b"]: 0 where it is neither. */
static int merge_parts(const json_node *v, const char *part[2], size_t n[2]) {
    const char *line = json_node_str(v);
    if (line) {
        const char *blank = strchr(line, ' ');
        if (!blank || strchr(blank + 1, ' ')) return 0;
        part[0] = line;
        part[1] = blank + 1;
        n[0] = (size_t)(blank - line);
    } else {
        if (json_node_count(v) != 2) return 0;
        part[0] = json_node_str(json_node_item(v, 0));
        part[1] = json_node_str(json_node_item(v, 1));
        if (!part[0] || !part[1]) return 0;
        n[0] = strlen(part[0]);
    }
    n[1] = strlen(part[1]);
    return n[0] > 0 && n[1] > 0;
}

/* `joined` has room for the longest token. */
static qfw_status load_merge(
    const json_node *v, uint64_t i, const char *file, char *joined, bpe *out) {
    const char *part[2] = {NULL, NULL};
    size_t n[2] = {0, 0};
    int32_t id[3] = {-1, -1, -1};
    if (!merge_parts(v, part, n))
        return err_fail("E_TOK_MERGE", QFW_E_DATA,
            "%s: model.merges[%llu]: wanted \"a b\" or [\"a\", \"b\"]", file,
            (unsigned long long)i);
    for (int k = 0; k < 2; k++) id[k] = vocab_find(out->words, part[k], n[k]);
    if (id[0] >= 0 && id[1] >= 0 && n[0] + n[1] <= out->words->longest) {
        memcpy(joined, part[0], n[0]);
        memcpy(joined + n[0], part[1], n[1]);
        id[2] = vocab_find(out->words, joined, n[0] + n[1]);
    }
    if (id[2] < 0)
        return err_fail("E_TOK_MERGE", QFW_E_DATA,
            "%s: model.merges[%llu]: '%.*s' + '%.*s': %s is not in model.vocab", file,
            (unsigned long long)i, (int)(n[0] < 100 ? n[0] : 100), part[0],
            (int)(n[1] < 100 ? n[1] : 100), part[1],
            id[0] < 0   ? "the left part"
            : id[1] < 0 ? "the right part"
                        : "the result");
    *merge_slot(out, pair_of(id[0], id[1])) =
        (bpe_merge){pair_of(id[0], id[1]), (uint32_t)i, id[2]};
    return QFW_OK;
}

static qfw_status load_merges(const json_node *list, const char *file, bpe *out) {
    const uint64_t n = json_node_count(list);
    if (json_node_kind(list) != QFW_DOC_ARRAY || n > MAX_MERGES)
        return err_fail("E_TOK_MERGE", QFW_E_DATA,
            "%s: model.merges: %llu merges, wanted a list of at most %d", file,
            (unsigned long long)n, MAX_MERGES);
    out->n_slots = 16;
    while (out->n_slots < 2 * n) out->n_slots *= 2;
    out->merge = mem_alloc(out->n_slots, sizeof *out->merge);
    char *joined = mem_alloc(out->words->longest + 1, 1);
    qfw_status status = out->merge && joined ? QFW_OK : QFW_E_NOMEM;
    for (size_t i = 0; status == QFW_OK && i < out->n_slots; i++) out->merge[i].pair = NO_PAIR;
    for (uint64_t i = 0; status == QFW_OK && i < n; i++)
        status = load_merge(json_node_item(list, i), i, file, joined, out);
    mem_free(joined);
    return status;
}

/* --- what is built here --- */

qfw_status bpe_check(const json_node *model, const char *file) {
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    const json_node *dropout = json_node_member(model, "dropout");
    const int old = !json_node_member(model, "type") && json_node_member(model, "merges");
    if (!old && strcmp(part_type(model), "BPE") != 0)
        return part_unsupported(file, "model", part_type(model));
    if (json_node_kind(dropout) > QFW_DOC_NULL)
        return part_unsupported(file, "model", "BPE with dropout");
    for (size_t i = 0; i < 2; i++) {
        const char *affix = part_str(model, affixes[i]);
        if (affix && *affix) return part_unsupported(file, "model", affixes[i]);
    }
    return QFW_OK;
}

/* --- the symbols of a word --- */

static int add_symbol(bpe_work *w, int32_t id, size_t bytes) {
    if (mem_grow(&w->symbol, &w->symbol_cap, w->n_symbols + 1, sizeof *w->symbol)) return -1;
    const int32_t i = (int32_t)w->n_symbols++;
    w->symbol[i] = (struct bpe_symbol){id, i - 1, i + 1, (uint32_t)bytes};
    return 0;
}

/* A character without a token, as its bytes: 1 when each has a token, 0 when not, -1 no memory. */
static int add_bytes(const bpe *b, bpe_work *w, const char *s, size_t n) {
    if (!b->byte_fallback) return 0;
    for (size_t i = 0; i < n; i++)
        if (b->byte[(uint8_t)s[i]] < 0) return 0;
    for (size_t i = 0; i < n; i++)
        if (add_symbol(w, b->byte[(uint8_t)s[i]], 1)) return -1;
    return 1;
}

static qfw_status no_token(const char *s, size_t n) {
    return err_fail("E_TOK_UNKNOWN", QFW_E_DATA,
        "tokenizer: '%.*s' has no token, and the tokenizer has no unk_token", (int)n, s);
}

/* One symbol a character, as the tokenizers library starts: an unknown run is added when the next
 * known character comes, so byte tokens may overtake it. */
static qfw_status start_symbols(const bpe *b, bpe_work *w, const char *s, size_t n_bytes) {
    size_t unknown = 0; /* bytes of the unknown run that waits */
    uint32_t c;
    w->n_symbols = 0;
    for (size_t i = 0, n; i < n_bytes; i += n) {
        n = utf8_read(s + i, n_bytes - i, &c);
        const int32_t id = vocab_find(b->words, s + i, n);
        const int bytes = id < 0 ? add_bytes(b, w, s + i, n) : 0;
        if (bytes < 0) return QFW_E_NOMEM;
        if (bytes) continue;
        if (id < 0 && b->unk < 0) return no_token(s + i, n);
        if (unknown && (id >= 0 || !b->fuse_unk)) {
            if (add_symbol(w, b->unk, unknown)) return QFW_E_NOMEM;
            unknown = 0;
        }
        if (id < 0)
            unknown += n;
        else if (add_symbol(w, id, n))
            return QFW_E_NOMEM;
    }
    return unknown && add_symbol(w, b->unk, unknown) ? QFW_E_NOMEM : QFW_OK;
}

/* --- the heap of candidates --- */

static int comes_first(struct bpe_candidate a, struct bpe_candidate b) {
    return a.rank != b.rank ? a.rank < b.rank : a.at < b.at;
}

static int heap_push(bpe_work *w, struct bpe_candidate c) {
    if (mem_grow(&w->heap, &w->heap_cap, w->n_heap + 1, sizeof *w->heap)) return -1;
    size_t i = w->n_heap++;
    for (; i > 0 && comes_first(c, w->heap[(i - 1) / 2]); i = (i - 1) / 2)
        w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = c;
    return 0;
}

static struct bpe_candidate heap_pop(bpe_work *w) {
    const struct bpe_candidate top = w->heap[0], last = w->heap[--w->n_heap];
    size_t i = 0;
    for (size_t child = 1; child < w->n_heap; child = 2 * i + 1) {
        if (child + 1 < w->n_heap && comes_first(w->heap[child + 1], w->heap[child])) child++;
        if (!comes_first(w->heap[child], last)) break;
        w->heap[i] = w->heap[child];
        i = child;
    }
    w->heap[i] = last;
    return top;
}

/* Symbol `at` and the one after it, if a merge knows them. */
static int push_pair(const bpe *b, bpe_work *w, int32_t at) {
    if (at < 0 || (size_t)w->symbol[at].next >= w->n_symbols) return 0;
    const uint64_t pair = pair_of(w->symbol[at].id, w->symbol[w->symbol[at].next].id);
    const bpe_merge *m = merge_slot(b, pair);
    if (m->pair != pair) return 0;
    return heap_push(w, (struct bpe_candidate){m->rank, (uint32_t)at, m->id, pair});
}

/* Whether the pair that was a candidate is still there. */
static int still_stands(const bpe_work *w, struct bpe_candidate c) {
    const struct bpe_symbol *left = &w->symbol[c.at];
    return left->id >= 0 && (size_t)left->next < w->n_symbols &&
           pair_of(left->id, w->symbol[left->next].id) == c.pair;
}

static qfw_status merge_all(const bpe *b, bpe_work *w) {
    w->n_heap = 0;
    for (size_t i = 0; i + 1 < w->n_symbols; i++)
        if (push_pair(b, w, (int32_t)i)) return QFW_E_NOMEM;
    while (w->n_heap > 0) {
        const struct bpe_candidate c = heap_pop(w);
        if (!still_stands(w, c)) continue;
        struct bpe_symbol *left = &w->symbol[c.at], *right = &w->symbol[left->next];
        left->id = c.id;
        left->n += right->n;
        left->next = right->next;
        right->id = -1;
        if ((size_t)left->next < w->n_symbols) w->symbol[left->next].prev = (int32_t)c.at;
        if (push_pair(b, w, left->prev) || push_pair(b, w, (int32_t)c.at)) return QFW_E_NOMEM;
    }
    return QFW_OK;
}

static qfw_status merge_word(const bpe *b, bpe_work *w, const char *s, size_t n) {
    QFW_TRY(start_symbols(b, w, s, n));
    return merge_all(b, w);
}

/* --- words inside of a word --- */

static const char blank[] = "\xe2\x96\x81"; /* U+2581 */
enum { BLANK_BYTES = sizeof blank - 1 };

/* Where the first word ends: before a blank that another character is before. */
static size_t word_end(const char *s, size_t n) {
    int in_word = 0;
    for (size_t i = 0; i < n;) {
        const int is_blank = n - i >= BLANK_BYTES && !memcmp(s + i, blank, BLANK_BYTES);
        if (is_blank && in_word) return i;
        in_word = !is_blank;
        i += is_blank ? BLANK_BYTES : 1;
    }
    return n;
}

/* --- loading --- */

/* No token that merges make has a blank behind another character. */
static int can_cut(const bpe *b) {
    if (vocab_find(b->words, blank, BLANK_BYTES) < 0) return 0;
    for (size_t i = 0; i < b->n_slots; i++)
        if (b->merge[i].pair != NO_PAIR) {
            const char *text = b->words->text[b->merge[i].id];
            if (word_end(text, strlen(text)) < strlen(text)) return 0;
        }
    return 1;
}

/* Which tokens their own text is merged into. */
static qfw_status find_whole(bpe *b) {
    bpe_work work = {0};
    qfw_status status = QFW_OK;
    uint8_t *whole = mem_alloc(b->words->n, 1);
    if (!whole) return QFW_E_NOMEM;
    for (size_t i = 0; status == QFW_OK && i < b->n_slots; i++) {
        if (b->merge[i].pair == NO_PAIR) continue;
        const int32_t id = b->merge[i].id;
        const char *text = b->words->text[id];
        status = merge_word(b, &work, text, strlen(text));
        whole[id] = status == QFW_OK && work.symbol[0].n == strlen(text);
        if (status == QFW_E_DATA) { /* a character without a token: no word of any text */
            err_clear();
            status = QFW_OK;
        }
    }
    b->whole = whole;
    bpe_work_free(&work);
    return status;
}

qfw_status bpe_load(const json_node *model, const char *file, const vocabulary *v, bpe *out) {
    char name[8];
    const char *unk = part_str(model, "unk_token");
    out->words = v;
    out->fuse_unk = part_flag(model, "fuse_unk", 0);
    out->byte_fallback = part_flag(model, "byte_fallback", 0);
    out->ignore_merges = part_flag(model, "ignore_merges", 0);
    out->unk = unk ? vocab_find(v, unk, strlen(unk)) : -1;
    if (unk && out->unk < 0)
        return err_fail("E_TOK_SPECIAL", QFW_E_DATA,
            "%s: model.unk_token: '%s' is not in model.vocab", file, unk);
    for (int i = 0; i < 256; i++) {
        snprintf(name, sizeof name, "<0x%02X>", (unsigned)i);
        out->byte[i] = vocab_find(v, name, strlen(name));
    }
    QFW_TRY(load_merges(json_node_member(model, "merges"), file, out));
    out->cuts = !out->ignore_merges && can_cut(out);
    return find_whole(out);
}

void bpe_free(bpe *b) {
    mem_free(b->merge);
    mem_free(b->whole);
    *b = (bpe){0};
}

/* --- a word --- */

int ids_add(ids *v, int32_t id, uint8_t mark) {
    if (mem_grow(&v->id, &v->cap, v->n + 1, sizeof *v->id) ||
        mem_grow(&v->mark, &v->mark_cap, v->n + 1, 1))
        return -1;
    v->id[v->n] = id;
    v->mark[v->n++] = mark;
    return 0;
}

static uint8_t marked(const uint8_t *tag, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (tag[i] & TAG_MARK) return 1;
    return 0;
}

static qfw_status encode_word(const bpe *b, bpe_work *w, tagged_view word, ids *out) {
    const int32_t whole = vocab_find(b->words, word.s, word.n);
    if (whole >= 0 && (b->ignore_merges || b->whole[whole]))
        return ids_add(out, whole, marked(word.tag, word.n)) ? QFW_E_NOMEM : QFW_OK;
    QFW_TRY(merge_word(b, w, word.s, word.n));
    size_t at = 0;
    for (size_t i = 0; i < w->n_symbols; i++) {
        const struct bpe_symbol *s = &w->symbol[i];
        if (s->id < 0) continue;
        if (ids_add(out, s->id, marked(word.tag + at, s->n))) return QFW_E_NOMEM;
        at += s->n;
    }
    return QFW_OK;
}

qfw_status bpe_encode(const bpe *b, bpe_work *w, tagged_view word, ids *out) {
    if (!b->cuts) return encode_word(b, w, word, out);
    for (size_t from = 0, n; from < word.n; from += n) {
        n = word_end(word.s + from, word.n - from);
        QFW_TRY(encode_word(b, w, tagged_part(word, from, from + n), out));
    }
    return QFW_OK;
}

void bpe_work_free(bpe_work *w) {
    mem_free(w->symbol);
    mem_free(w->heap);
    *w = (bpe_work){0};
}

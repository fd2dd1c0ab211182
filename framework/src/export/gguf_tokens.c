/* gguf_tokens.c -- the tokenizer of a model folder in llama.cpp's terms: "llama" for BPE with byte
 * fallback, "gpt2" for byte-level BPE, with the name of its split pattern.
 *
 * tokenizer.json has no SentencePiece scores; they follow from the merges, whose order they are.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "export/gguf_model.h"
#include "files/file.h"

enum { NORMAL = 1, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE };
#define NO_SCORE 1.0f
enum { MAX_JSON = 256 << 20, MAX_VALUES = 4000000, MAX_VOCAB = 1 << 24, PAD_BYTES = 24 };

/* llama.cpp's name of a split pattern; where whole words are not merged, `whole`. */
static const struct {
    const char *regex, *pre, *whole;
} patterns[] = {
    {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| "
     "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
        "dbrx", "llama-bpe"},
    {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "
     "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
        "qwen2", NULL},
    {"[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i:"
     "'s|'t|'re|'ve|'m|'ll|'d)?|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}"
     "\\p{Lm}\\p{Lo}\\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\\p{N}{1,3}| "
     "?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
        "gpt-4o", NULL},
};

typedef struct tokens {
    const json_node *root, *model; /* of tokenizer.json */
    int64_t n;
    const char **text;
    float *score;
    int32_t *type;
    char *pads; /* the texts of ids that are no tokens */
} tokens;

static qfw_status unsupported(const char *what) {
    return err_fail("E_GGUF_UNSUPPORTED", QFW_E_UNSUPPORTED,
        "tokenizer.json: a GGUF file has no words for %s", what);
}

static const char *str_of(const json_node *v, const char *key) {
    const char *text = json_node_str(json_node_member(v, key));
    return text ? text : "";
}

/* --- the list --- */

static qfw_status alloc_tokens(tokens *t, int64_t n) {
    if (n <= 0 || n > MAX_VOCAB) return unsupported("that many tokens");
    t->n = n;
    t->text = mem_alloc((size_t)n, sizeof *t->text);
    t->score = mem_alloc((size_t)n, sizeof *t->score);
    t->type = mem_alloc((size_t)n, sizeof *t->type);
    t->pads = mem_alloc((size_t)n, PAD_BYTES);
    if (!t->text || !t->score || !t->type || !t->pads) return QFW_E_NOMEM;
    for (int64_t i = 0; i < n; i++) {
        snprintf(t->pads + i * PAD_BYTES, PAD_BYTES, "[PAD%" PRId64 "]", i);
        t->text[i] = t->pads + i * PAD_BYTES;
        t->score[i] = -10000;
        t->type[i] = UNUSED;
    }
    return QFW_OK;
}

static void free_tokens(tokens *t) {
    mem_free(t->text);
    mem_free(t->score);
    mem_free(t->type);
    mem_free(t->pads);
}

static int is_byte(const char *text) {
    return strlen(text) == 6 && !strncmp(text, "<0x", 3) && text[5] == '>';
}

static void take_vocab(tokens *t, int is_bytes) {
    const json_node *vocab = json_node_member(t->model, "vocab");
    const char *unk = str_of(t->model, "unk_token");
    for (json_member m = json_first(vocab); m.key; m = json_next(vocab, m)) {
        const int64_t id = json_node_i64(m.value);
        if (id < 0 || id >= t->n) continue;
        t->text[id] = m.key;
        t->score[id] = 0;
        t->type[id] = !is_bytes && !strcmp(m.key, unk) ? UNKNOWN
                      : !is_bytes && is_byte(m.key)    ? BYTE
                                                       : NORMAL;
    }
}

static void take_added(tokens *t) {
    const json_node *list = json_node_member(t->root, "added_tokens");
    for (uint64_t i = 0; i < json_node_count(list); i++) {
        const json_node *token = json_node_item(list, i);
        const int64_t id = json_node_i64(json_node_member(token, "id"));
        if (id < 0 || id >= t->n) continue;
        t->text[id] = str_of(token, "content");
        t->score[id] = -1000;
        t->type[id] = json_node_true(json_node_member(token, "special")) ? CONTROL : USER_DEFINED;
    }
}

/* --- BPE with byte fallback --- */

/* The two parts of a merge, "a b" or ["a", "b"], as one text in `joined`. */
static int join_merge(const json_node *v, const char *between, char *joined, size_t cap) {
    const char *line = json_node_str(v), *cut = line ? strchr(line, ' ') : NULL;
    int n;
    if (cut)
        n = snprintf(joined, cap, "%.*s%s%s", (int)(cut - line), line, between, cut + 1);
    else
        n = snprintf(joined, cap, "%s%s%s", json_node_str(json_node_item(v, 0)), between,
            json_node_str(json_node_item(v, 1)));
    return n >= 0 && (size_t)n < cap;
}

/* SentencePiece merges the pair whose token has the highest score. So the merges that make a token
 * must stand together, and each token has one less than the one before. */
static qfw_status take_scores(tokens *t) {
    enum { MOST = 4096 };
    const json_node *vocab = json_node_member(t->model, "vocab");
    const json_node *merges = json_node_member(t->model, "merges");
    int64_t before = -1, made = 0;
    char joined[MOST];
    for (int64_t id = 0; id < t->n; id++)
        if (t->type[id] == NORMAL) t->score[id] = NO_SCORE;
    for (uint64_t i = 0; i < json_node_count(merges); i++) {
        if (!join_merge(json_node_item(merges, i), "", joined, sizeof joined)) continue;
        const int64_t id = json_node_i64(json_node_member(vocab, joined));
        if (id == before || id < 0 || id >= t->n) continue;
        if (t->score[id] != NO_SCORE)
            return unsupported("merges that make one token at two places of their order");
        t->score[id] = (float)-made++;
        before = id;
    }
    for (int64_t id = 0; id < t->n; id++) /* characters: nothing is merged into them */
        if (t->type[id] == NORMAL && t->score[id] == NO_SCORE) t->score[id] = (float)-made++;
    return QFW_OK;
}

/* --- byte-level BPE --- */

static const char *find_pre(const tokens *t) {
    const json_node *pre = json_node_member(t->root, "pre_tokenizer");
    const json_node *list = json_node_member(pre, "pretokenizers");
    const int whole = json_node_true(json_node_member(t->model, "ignore_merges"));
    if (!strcmp(str_of(pre, "type"), "ByteLevel")) return "gpt-2";
    const char *regex = str_of(json_node_member(json_node_item(list, 0), "pattern"), "Regex");
    if (json_node_count(list) != 2 || strcmp(str_of(json_node_item(list, 1), "type"), "ByteLevel"))
        return NULL;
    for (size_t i = 0; i < sizeof patterns / sizeof patterns[0]; i++)
        if (!strcmp(regex, patterns[i].regex))
            return whole && patterns[i].whole ? patterns[i].whole : patterns[i].pre;
    return NULL;
}

static qfw_status put_merges(gguf_writer *w, const tokens *t) {
    enum { MOST = 8192 };
    const json_node *merges = json_node_member(t->model, "merges");
    const uint64_t n = json_node_count(merges);
    const char **list = mem_alloc(n, sizeof *list);
    qfw_status status = list ? QFW_OK : QFW_E_NOMEM;
    for (uint64_t i = 0; status == QFW_OK && i < n; i++) {
        char text[MOST];
        if (!join_merge(json_node_item(merges, i), " ", text, sizeof text))
            status = unsupported("a merge of so many bytes");
        else if (!(list[i] = mem_strdup(text)))
            status = QFW_E_NOMEM;
    }
    if (status == QFW_OK) gguf_put_strs(w, "tokenizer.ggml.merges", list, n);
    for (uint64_t i = 0; list && i < n; i++) mem_free((void *)(uintptr_t)list[i]);
    mem_free(list);
    return status;
}

/* --- special tokens and the chat template --- */

static void put_special(gguf_writer *w, const tokens *t, const json_node *config) {
    static const struct {
        const char *of, *key;
    } ids[] = {{"bos_token", "tokenizer.ggml.bos_token_id"},
        {"eos_token", "tokenizer.ggml.eos_token_id"},
        {"unk_token", "tokenizer.ggml.unknown_token_id"},
        {"pad_token", "tokenizer.ggml.padding_token_id"}},
      flags[] = {{"add_bos_token", "tokenizer.ggml.add_bos_token"},
          {"add_eos_token", "tokenizer.ggml.add_eos_token"}};
    for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++) {
        const json_node *v = json_node_member(config, ids[i].of);
        const char *text = json_node_str(v) ? json_node_str(v) : str_of(v, "content");
        for (int64_t id = 0; *text && id < t->n; id++)
            if (!strcmp(t->text[id], text)) {
                gguf_put_u32(w, ids[i].key, (uint32_t)id);
                break;
            }
    }
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        const json_node *v = json_node_member(config, flags[i].of);
        if (json_node_kind(v) == QFW_DOC_BOOL) gguf_put_bool(w, flags[i].key, json_node_true(v));
    }
}

static qfw_status put_template(gguf_writer *w, const char *folder, const json_node *config) {
    char *path = path_join(folder, "chat_template.jinja"), *text = NULL;
    size_t n = 0;
    qfw_status status = path ? QFW_OK : QFW_E_NOMEM;
    const char *own = json_node_str(json_node_member(config, "chat_template"));
    if (status == QFW_OK && file_exists(path)) status = file_read(path, 1 << 20, &text, &n);
    if (status == QFW_OK && (text || own))
        gguf_put_str(w, "tokenizer.chat_template", text ? text : own);
    mem_free(text);
    mem_free(path);
    return status;
}

/* --- the whole --- */

static qfw_status put_tokens(gguf_writer *w, tokens *t, int64_t vocab) {
    const int is_bytes = !json_node_true(json_node_member(t->model, "byte_fallback"));
    const char *pre = is_bytes ? find_pre(t) : "default";
    if (!pre) return unsupported("this pre_tokenizer");
    if (is_bytes && json_node_kind(json_node_member(t->root, "normalizer")) > QFW_DOC_NULL &&
        strcmp(pre, "qwen2") != 0)
        return unsupported("this normalizer");
    QFW_TRY(alloc_tokens(t, vocab));
    take_vocab(t, is_bytes);
    if (!is_bytes) QFW_TRY(take_scores(t));
    take_added(t);
    gguf_put_str(w, "tokenizer.ggml.model", is_bytes ? "gpt2" : "llama");
    gguf_put_str(w, "tokenizer.ggml.pre", pre);
    gguf_put_strs(w, "tokenizer.ggml.tokens", t->text, (uint64_t)t->n);
    if (!is_bytes) gguf_put_f32s(w, "tokenizer.ggml.scores", t->score, (uint64_t)t->n);
    gguf_put_i32s(w, "tokenizer.ggml.token_type", t->type, (uint64_t)t->n);
    return is_bytes ? put_merges(w, t) : QFW_OK;
}

qfw_status gguf_put_tokenizer(gguf_writer *w, const char *folder, int64_t vocab) {
    const json_limits limits = {.max_depth = 64, .max_values = MAX_VALUES};
    char *path[2] = {
        path_join(folder, "tokenizer.json"), path_join(folder, "tokenizer_config.json")};
    qfw_doc *doc[2] = {NULL, NULL};
    tokens t = {.n = 0};
    qfw_status status = path[0] && path[1] ? QFW_OK : QFW_E_NOMEM;
    if (status == QFW_OK) status = json_read(path[0], MAX_JSON, &limits, &doc[0]);
    if (status == QFW_OK && file_exists(path[1]))
        status = json_read(path[1], MAX_JSON, &limits, &doc[1]);
    if (status == QFW_OK) {
        t.root = json_root(doc[0]);
        t.model = json_node_member(t.root, "model");
        status = put_tokens(w, &t, vocab);
    }
    const json_node *config = doc[1] ? json_root(doc[1]) : NULL;
    if (status == QFW_OK) put_special(w, &t, config);
    if (status == QFW_OK) status = put_template(w, folder, config);
    free_tokens(&t);
    for (int i = 0; i < 2; i++) {
        json_destroy(doc[i]);
        mem_free(path[i]);
    }
    return status;
}

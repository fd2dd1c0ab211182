/* gguf_tokens.c -- the tokenizer of a model folder in llama.cpp's terms: "llama" for BPE with byte
 * fallback, "gpt2" for byte-level BPE, with the name of its split pattern.
 *
 * tokenizer.json has no SentencePiece scores; they follow from the merges, whose order they are.
 */
#define _POSIX_C_SOURCE 200809L
#include "export/gguf_model.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "files/file.h"
#include "text/tokenizer.h"

enum { NORMAL = 1, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE };
#define NO_SCORE 1.0f
enum { MAX_JSON = 256 << 20, MAX_VALUES = 4000000, MAX_VOCAB = 1 << 24, PAD_BYTES = 32 };

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

static const char blank[] = "\xe2\x96\x81"; /* U+2581, in the place of a space */

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

/* Pairs of tokens that llama.cpp merges, for what they make is a token, and BPE does not. What
 * SentencePiece has trained has a merge for each; other trainers leave some out. */
static void warn_of_splits(const tokens *t, int64_t n_merges) {
    enum { MOST = 256 };
    const json_node *vocab = json_node_member(t->model, "vocab");
    int64_t n_splits = 0;
    for (json_member m = json_first(vocab); m.key; m = json_next(vocab, m)) {
        char left[MOST];
        const size_t n = strlen(m.key);
        for (size_t i = 1; i < n && n < MOST; i++) {
            memcpy(left, m.key, i);
            left[i] = 0;
            n_splits += json_node_member(vocab, m.key + i) && json_node_member(vocab, left);
        }
    }
    if (n_splits > n_merges)
        log_line(QFW_LOG_WARN,
            "tokenizer.json: %" PRId64 " pairs of tokens make a token and have no merge; llama.cpp "
            "merges them, too, and cuts some texts into other tokens",
            n_splits - n_merges);
}

/* SentencePiece merges the pair whose token has the highest score. So the merges that make a token
 * must stand together, and each token has one less than the one before. */
static qfw_status take_scores(tokens *t) {
    enum { MOST = 4096 };
    const json_node *vocab = json_node_member(t->model, "vocab");
    const json_node *merges = json_node_member(t->model, "merges");
    int64_t before = -1, made = 0, n_merges = 0;
    char joined[MOST];
    for (int64_t id = 0; id < t->n; id++)
        if (t->type[id] == NORMAL) t->score[id] = NO_SCORE;
    for (uint64_t i = 0; i < json_node_count(merges); i++) {
        if (!join_merge(json_node_item(merges, i), "", joined, sizeof joined)) continue;
        const int64_t id = json_node_i64(json_node_member(vocab, joined));
        n_merges++;
        if (id == before || id < 0 || id >= t->n) continue;
        if (t->score[id] != NO_SCORE)
            return unsupported("merges that make one token at two places of their order");
        t->score[id] = (float)-made++;
        before = id;
    }
    for (int64_t id = 0; id < t->n; id++) /* characters: nothing is merged into them */
        if (t->type[id] == NORMAL && t->score[id] == NO_SCORE) t->score[id] = (float)-made++;
    warn_of_splits(t, n_merges);
    return QFW_OK;
}

/* --- what llama.cpp does to a text before, of BPE with byte fallback --- */

/* Spaces become U+2581, and one may be put in front. */
static int is_known_step(const json_node *v) {
    const char *type = str_of(v, "type");
    if (!strcmp(type, "Prepend")) return !strcmp(str_of(v, "prepend"), blank);
    return !strcmp(type, "Replace") && !strcmp(str_of(v, "content"), blank) &&
           !strcmp(str_of(json_node_member(v, "pattern"), "String"), " ");
}

static int is_known_normalizer(const json_node *v) {
    const json_node *list = json_node_member(v, "normalizers");
    if (json_node_kind(v) <= QFW_DOC_NULL) return 1;
    if (!list) return is_known_step(v);
    for (uint64_t i = 0; i < json_node_count(list); i++)
        if (!is_known_step(json_node_item(list, i))) return 0;
    return 1;
}

/* llama.cpp puts a space in front unless it is told not to. */
static qfw_status put_prefix(gguf_writer *w, const tokens *t, const tokenizer *words) {
    ids got = {.id = NULL};
    if (!is_known_normalizer(json_node_member(t->root, "normalizer")))
        return unsupported("this normalizer");
    qfw_status status = tokenizer_encode(words, "a", 1, 0, &got);
    const char *first = status == QFW_OK && got.n ? tokenizer_token(words, got.id[0]) : NULL;
    if (first && strncmp(first, blank, strlen(blank)) != 0)
        gguf_put_bool(w, "tokenizer.ggml.add_space_prefix", 0);
    ids_free(&got);
    return status;
}

/* --- byte-level BPE --- */

static const char *find_pre(const tokens *t) {
    const json_node *pre = json_node_member(t->root, "pre_tokenizer");
    const json_node *list = json_node_member(pre, "pretokenizers");
    const int whole = json_node_true(json_node_member(t->model, "ignore_merges"));
    if (!strcmp(str_of(pre, "type"), "ByteLevel"))
        return json_node_true(json_node_member(pre, "add_prefix_space")) ? NULL : "gpt-2";
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

static const char *token_name(const json_node *config, const char *kind) {
    char key[32];
    snprintf(key, sizeof key, "%s_token", kind);
    const json_node *v = json_node_member(config, key);
    return json_node_str(v) ? json_node_str(v) : str_of(v, "content");
}

/* As tokenizer_config.json names it, else as config.json counts it; -1: neither. */
static int64_t special_id(
    const tokens *t, const json_node *names, const json_node *model, const char *kind) {
    const char *text = token_name(names, kind);
    char key[32];
    for (int64_t id = 0; *text && id < t->n; id++)
        if (!strcmp(t->text[id], text)) return id;
    snprintf(key, sizeof key, "%s_token_id", kind);
    const json_node *v = json_node_member(model, key);
    const int64_t id = json_node_kind(v) == QFW_DOC_INT ? json_node_i64(v) : -1;
    return id < t->n ? id : -1;
}

/* Which ids they are, and which of them stand around a text; llama.cpp has its own opinion where
 * nothing is said of the first. */
static void put_special(gguf_writer *w, const tokens *t, const tokenizer *words,
    const json_node *names, const json_node *model) {
    static const struct {
        const char *kind, *key;
    } kinds[] = {{"bos", "tokenizer.ggml.bos_token_id"}, {"eos", "tokenizer.ggml.eos_token_id"},
        {"unk", "tokenizer.ggml.unknown_token_id"}, {"sep", "tokenizer.ggml.seperator_token_id"},
        {"pad", "tokenizer.ggml.padding_token_id"}, {"mask", "tokenizer.ggml.mask_token_id"}};
    const json_node *bos = json_node_member(names, "add_bos_token");
    const json_node *eos = json_node_member(names, "add_eos_token");
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        const int64_t id = special_id(t, names, model, kinds[i].kind);
        if (id >= 0) gguf_put_u32(w, kinds[i].key, (uint32_t)id);
    }
    gguf_put_bool(w, "tokenizer.ggml.add_bos_token",
        json_node_kind(bos) == QFW_DOC_BOOL ? json_node_true(bos) : tokenizer_adds_bos(words));
    if (json_node_kind(eos) == QFW_DOC_BOOL)
        gguf_put_bool(w, "tokenizer.ggml.add_eos_token", json_node_true(eos));
    if (tokenizer_chat_template(words))
        gguf_put_str(w, "tokenizer.chat_template", tokenizer_chat_template(words));
}

/* --- the model's name, from which llama.cpp takes what else it must know of the tokenizer --- */

static int has_word(const char *name, const char *word) {
    const size_t n = strlen(word);
    for (; *name; name++)
        if (!strncasecmp(name, word, n)) return 1;
    return 0;
}

/* Of special tokens: a text between <|user|> and what it says is theirs. */
static int strips_behind(const tokens *t) {
    const json_node *list = json_node_member(t->root, "added_tokens");
    for (uint64_t i = 0; i < json_node_count(list); i++) {
        const json_node *token = json_node_item(list, i);
        if (json_node_true(json_node_member(token, "special")) &&
            json_node_true(json_node_member(token, "rstrip")))
            return 1;
    }
    return 0;
}

/* Special tokens take the white space behind them where the name has a Phi-3 in it, and nowhere
 * else: there is no key for it. */
static qfw_status put_name(gguf_writer *w, const tokens *t, const char *name) {
    const int is_llama = json_node_true(json_node_member(t->model, "byte_fallback"));
    const int strips = strips_behind(t), says = has_word(name, "phi-3") || has_word(name, "phi3");
    char *told = mem_printf(strips && !says && is_llama ? "Phi-3 %s" : "%s", name);
    if (!told) return QFW_E_NOMEM;
    if (strips != says && !(strips && is_llama))
        log_line(QFW_LOG_WARN,
            "general.name '%s': llama.cpp %s white space behind special tokens, and the tokenizer "
            "does not; hint: %s",
            name, says ? "strips" : "keeps",
            says ? "another name for the model's folder" : "prompts without it");
    gguf_put_str(w, "general.name", told);
    mem_free(told);
    return QFW_OK;
}

/* --- the whole --- */

static qfw_status put_tokens(gguf_writer *w, tokens *t, const tokenizer *words, int64_t vocab) {
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
    return is_bytes ? put_merges(w, t) : put_prefix(w, t, words);
}

qfw_status gguf_put_tokenizer(gguf_writer *w, const gguf_source *s, int64_t vocab) {
    const json_limits limits = {.max_depth = 64, .max_values = MAX_VALUES};
    char *path[2] = {
        path_join(s->folder, "tokenizer.json"), path_join(s->folder, "tokenizer_config.json")};
    qfw_doc *doc[2] = {NULL, NULL};
    tokenizer *words = NULL;
    tokens t = {.n = 0};
    qfw_status status = path[0] && path[1] ? QFW_OK : QFW_E_NOMEM;
    if (status == QFW_OK) status = tokenizer_open(s->folder, vocab, &words);
    if (status == QFW_OK) status = json_read(path[0], MAX_JSON, &limits, &doc[0]);
    if (status == QFW_OK && file_exists(path[1]))
        status = json_read(path[1], MAX_JSON, &limits, &doc[1]);
    if (status == QFW_OK) {
        t.root = json_root(doc[0]);
        t.model = json_node_member(t.root, "model");
        status = put_name(w, &t, s->name);
        if (status == QFW_OK) status = put_tokens(w, &t, words, vocab);
    }
    if (status == QFW_OK)
        put_special(w, &t, words, doc[1] ? json_root(doc[1]) : NULL, json_root(s->config));
    free_tokens(&t);
    tokenizer_close(words);
    for (int i = 0; i < 2; i++) {
        json_destroy(doc[i]);
        mem_free(path[i]);
    }
    return status;
}

/* load.c -- a tokenizer from its folder: tokenizer.json, and tokenizer_config.json for the names of
 * the special tokens and the chat template. */
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "files/file.h"
#include "text/parts.h"

enum { MAX_JSON = 256 << 20, MAX_CONFIG = 16 << 20, MAX_TEMPLATE = 1 << 20 };
/* The largest published tokenizers have 2 million: 260,000 tokens, 510,000 merges. */
enum { MAX_VALUES = 4000000 };

/* --- what every loader asks --- */

const char *part_str(const json_node *v, const char *key) {
    return json_node_str(json_node_member(v, key));
}

const char *part_type(const json_node *v) {
    const char *type = part_str(v, "type");
    return type ? type : "";
}

int part_flag(const json_node *v, const char *key, int absent) {
    const json_node *flag = json_node_member(v, key);
    return json_node_kind(flag) == QFW_DOC_BOOL ? json_node_true(flag) : absent;
}

qfw_status part_unsupported(const char *file, const char *place, const char *what) {
    return err_fail(
        "E_TOK_UNSUPPORTED", QFW_E_UNSUPPORTED, "%s: %s: '%s' is not supported", file, place, what);
}

/* --- tokenizer.json --- */

/* What TemplateProcessing adds to one text: nothing, or one token in front. */
static qfw_status load_template(const json_node *v, const char *file, tokenizer *t) {
    const json_node *single = json_node_member(v, "single");
    const uint64_t n = json_node_count(single);
    const json_node *lead = n == 2 ? json_node_item(single, 0) : NULL;
    const char *name = part_str(json_node_member(lead, "SpecialToken"), "id");
    const json_node *special = json_node_member(v, "special_tokens");
    const json_node *list = name ? json_node_member(json_node_member(special, name), "ids") : NULL;
    const int sequence_last = n && json_node_member(json_node_item(single, n - 1), "Sequence");
    if (!sequence_last || n > 2 || (n == 2 && json_node_count(list) != 1))
        return part_unsupported(
            file, "post_processor", "TemplateProcessing that adds more than one token in front");
    if (n == 1) return QFW_OK;
    const int64_t id = json_node_i64(json_node_item(list, 0));
    if (id < 0 || (uint64_t)id >= t->words.n)
        return err_fail("E_TOK_ID", QFW_E_DATA, "%s: post_processor: '%s' has the id %lld", file,
            name, (long long)id);
    t->adds_bos = 1;
    t->bos = (int32_t)id;
    return QFW_OK;
}

static qfw_status load_post_processor(const json_node *v, const char *file, tokenizer *t) {
    const char *type = part_type(v);
    if (json_node_kind(v) <= QFW_DOC_NULL || !strcmp(type, "ByteLevel")) return QFW_OK;
    if (!strcmp(type, "TemplateProcessing")) return load_template(v, file, t);
    if (strcmp(type, "Sequence") != 0) return part_unsupported(file, "post_processor", type);
    const json_node *list = json_node_member(v, "processors");
    for (uint64_t i = 0; i < json_node_count(list); i++) {
        const json_node *part = json_node_item(list, i);
        if (!strcmp(part_type(part), "Sequence") || t->adds_bos)
            return part_unsupported(file, "post_processor", "Sequence of these steps");
        QFW_TRY(load_post_processor(part, file, t));
    }
    return QFW_OK;
}

static qfw_status load_parts(const json_node *root, const char *file, int64_t size, tokenizer *t) {
    const json_node *model = json_node_member(root, "model");
    const json_node *list = json_node_member(root, "added_tokens");
    QFW_TRY(bpe_check(model, file));
    QFW_TRY(vocab_load(json_node_member(model, "vocab"), list, file, &t->words));
    if (size && t->words.n > (uint64_t)size)
        return err_fail("E_TOK_VOCAB", QFW_E_DATA,
            "%s: %zu tokens, but the model's vocab_size is %lld; hint: the tokenizer belongs to "
            "another model",
            file, t->words.n, (long long)size);
    t->limit = size ? size : (int64_t)t->words.n;
    QFW_TRY(normalizer_load(json_node_member(root, "normalizer"), file, &t->norm));
    QFW_TRY(added_load(list, file, &t->words, &t->norm, &t->extra));
    QFW_TRY(pretokenizer_load(json_node_member(root, "pre_tokenizer"), file, &t->pre));
    QFW_TRY(bpe_load(model, file, &t->words, &t->model));
    QFW_TRY(decoder_load(json_node_member(root, "decoder"), file, &t->back));
    return load_post_processor(json_node_member(root, "post_processor"), file, t);
}

/* --- tokenizer_config.json --- */

/* "<s>", or an object with that content; absent or null: none. */
static qfw_status load_special(
    const json_node *root, const char *key, const char *file, const tokenizer *t, int32_t *id) {
    const json_node *v = json_node_member(root, key);
    const char *text =
        json_node_kind(v) == QFW_DOC_OBJECT ? part_str(v, "content") : json_node_str(v);
    if (json_node_kind(v) <= QFW_DOC_NULL) return QFW_OK;
    const int32_t found = text ? tokenizer_id(t, text) : -1;
    if (found < 0)
        return err_fail("E_TOK_SPECIAL", QFW_E_DATA, "%s: %s: '%s' is no token of tokenizer.json",
            file, key, text ? text : "");
    *id = found;
    return QFW_OK;
}

/* A string, or a list of {name, template} of which "default" is meant. */
static const char *find_template(const json_node *v) {
    if (json_node_kind(v) != QFW_DOC_ARRAY) return json_node_str(v);
    for (uint64_t i = 0; i < json_node_count(v); i++) {
        const char *name = part_str(json_node_item(v, i), "name");
        if (name && !strcmp(name, "default")) return part_str(json_node_item(v, i), "template");
    }
    return NULL;
}

static qfw_status load_config(const json_node *root, const char *file, tokenizer *t) {
    int32_t bos = -1;
    const char *text = find_template(json_node_member(root, "chat_template"));
    QFW_TRY(load_special(root, "bos_token", file, t, &bos));
    QFW_TRY(load_special(root, "eos_token", file, t, &t->eos));
    QFW_TRY(load_special(root, "pad_token", file, t, &t->pad));
    if (!t->adds_bos) t->bos = bos;
    if (!text || t->chat_template) return QFW_OK;
    t->chat_template = mem_strdup(text);
    return t->chat_template ? QFW_OK : QFW_E_NOMEM;
}

/* --- the folder --- */

static qfw_status read_tokenizer(const char *path, int64_t size, tokenizer *t) {
    char *text = NULL;
    size_t n = 0;
    qfw_doc *doc = NULL;
    const json_source from = {.file = path, .name = "E_JSON", .limit_name = "E_TOK_LIMIT"};
    const json_limits limits = {.max_depth = 64, .max_values = MAX_VALUES};
    QFW_TRY(file_read(path, MAX_JSON, &text, &n));
    qfw_status status = json_parse_from(text, n, &from, &limits, &doc);
    mem_free(text);
    if (status == QFW_OK) status = load_parts(json_root(doc), path, size, t);
    json_destroy(doc);
    return status;
}

static qfw_status read_config(const char *path, tokenizer *t) {
    qfw_doc *doc = NULL;
    if (!file_exists(path)) return QFW_OK;
    QFW_TRY(json_read(path, MAX_CONFIG, NULL, &doc));
    const qfw_status status = load_config(json_root(doc), path, t);
    json_destroy(doc);
    return status;
}

/* Newer folders keep the Jinja text in a file of its own, which then counts. */
static qfw_status read_template(const char *path, tokenizer *t) {
    size_t n = 0;
    return file_exists(path) ? file_read(path, MAX_TEMPLATE, &t->chat_template, &n) : QFW_OK;
}

qfw_status tokenizer_open(const char *folder, int64_t vocab, tokenizer **out) {
    char *path[3] = {path_join(folder, "tokenizer.json"), path_join(folder, "chat_template.jinja"),
        path_join(folder, "tokenizer_config.json")};
    tokenizer *t = mem_alloc(1, sizeof *t);
    qfw_status status = t && path[0] && path[1] && path[2] ? QFW_OK : QFW_E_NOMEM;
    *out = NULL;
    if (t) t->bos = t->eos = t->pad = -1;
    if (status == QFW_OK) status = read_tokenizer(path[0], vocab, t);
    if (status == QFW_OK) status = read_template(path[1], t);
    if (status == QFW_OK) status = read_config(path[2], t);
    for (int i = 0; i < 3; i++) mem_free(path[i]);
    if (status != QFW_OK) {
        tokenizer_close(t);
        return status;
    }
    *out = t;
    return QFW_OK;
}

void tokenizer_close(tokenizer *t) {
    if (!t) return;
    vocab_free(&t->words);
    normalizer_free(&t->norm);
    added_free(&t->extra);
    pretokenizer_free(&t->pre);
    bpe_free(&t->model);
    decoder_free(&t->back);
    mem_free(t->chat_template);
    mem_free(t);
}

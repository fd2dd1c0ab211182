/* config.c -- config.json of a Phi-3, in both of its spellings, believed in nothing.
 *
 * transformers 4 writes torch_dtype, rope_theta, rope_scaling and partial_rotary_factor;
 * transformers 5 writes dtype and one rope_parameters. A key that would change the arithmetic and
 * is not known here is an error: a silent default would train another model than the one that the
 * file describes.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "phi3.h"

/* Published ones have up to 40; planning takes time with the square of them. */
enum { MAX_LAYERS = 128 };

typedef struct reader { /* one config.json while it is read; the first failure sticks */
    const qfw_host *host;
    const qfw_doc_api *api;
    const qfw_doc *doc;
    qfw_status status;
} reader;

QFW_PRINTF(3, 4) static void reject(reader *r, const char *ptr, const char *fmt, ...) {
    if (r->status != QFW_OK) return;
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    r->status = r->api->fail(r->doc, ptr, QFW_E_DATA, text);
}

static uint32_t kind_of(const reader *r, const char *ptr) {
    const uint32_t kind = r->api->kind(r->doc, ptr);
    return kind == QFW_DOC_NULL ? (uint32_t)QFW_DOC_ABSENT : kind;
}

/* "found the string "3072", wanted an integer". */
static void reject_type(reader *r, const char *ptr, const char *wanted) {
    char found[80] = "an object";
    const char *text = "";
    int64_t whole = 0;
    double real = 0;
    if (r->status != QFW_OK) return;
    switch (r->api->kind(r->doc, ptr)) {
    case QFW_DOC_BOOL:
        (void)r->api->i64(r->doc, ptr, &whole);
        snprintf(found, sizeof found, "%s", whole ? "true" : "false");
        break;
    case QFW_DOC_INT:
        (void)r->api->i64(r->doc, ptr, &whole);
        snprintf(found, sizeof found, "the integer %lld", (long long)whole);
        break;
    case QFW_DOC_REAL:
        (void)r->api->f64(r->doc, ptr, &real);
        snprintf(found, sizeof found, "the real %g", real);
        break;
    case QFW_DOC_STRING:
        (void)r->api->str(r->doc, ptr, &text);
        snprintf(found, sizeof found, "the string \"%.60s\"", text);
        break;
    case QFW_DOC_ARRAY: snprintf(found, sizeof found, "an array"); break;
    default: break;
    }
    reject(r, ptr, "E_CFG_TYPE: found %s, wanted %s", found, wanted);
}

/* An integer in lo..hi; a key that is not there gives `dflt`, or an error when dflt is below lo. */
static int64_t read_int(reader *r, const char *ptr, int64_t lo, int64_t hi, int64_t dflt) {
    int64_t value = dflt;
    if (r->status != QFW_OK) return 0;
    if (kind_of(r, ptr) == QFW_DOC_ABSENT) {
        if (dflt < lo) reject(r, ptr, "E_CFG_RANGE: null or missing, a Phi-3 config needs it");
        return dflt;
    }
    if (r->api->kind(r->doc, ptr) != QFW_DOC_INT) {
        char wanted[80];
        snprintf(wanted, sizeof wanted, "an integer in %lld..%lld", (long long)lo, (long long)hi);
        reject_type(r, ptr, wanted);
        return 0;
    }
    r->status = r->api->i64(r->doc, ptr, &value);
    if (r->status == QFW_OK && (value < lo || value > hi))
        reject(r, ptr, "E_CFG_RANGE: %lld, wanted %lld..%lld", (long long)value, (long long)lo,
            (long long)hi);
    return value;
}

static double read_real(reader *r, const char *ptr, double lo, double hi, double dflt) {
    double value = dflt;
    if (r->status != QFW_OK || kind_of(r, ptr) == QFW_DOC_ABSENT) return value;
    const uint32_t kind = r->api->kind(r->doc, ptr);
    if (kind != QFW_DOC_INT && kind != QFW_DOC_REAL) {
        char wanted[80];
        snprintf(wanted, sizeof wanted, "a number in %g..%g", lo, hi);
        reject_type(r, ptr, wanted);
        return dflt;
    }
    r->status = r->api->f64(r->doc, ptr, &value);
    if (r->status == QFW_OK && !(value >= lo && value <= hi))
        reject(r, ptr, "E_CFG_RANGE: %g, wanted %g..%g", value, lo, hi);
    return value;
}

static int read_bool(reader *r, const char *ptr, int dflt) {
    int64_t value = dflt;
    if (r->status != QFW_OK || kind_of(r, ptr) == QFW_DOC_ABSENT) return dflt;
    if (r->api->kind(r->doc, ptr) != QFW_DOC_BOOL)
        reject_type(r, ptr, "true or false");
    else
        r->status = r->api->i64(r->doc, ptr, &value);
    return (int)value;
}

/* The string at `ptr`, or `dflt` when it is not there. */
static const char *read_str(reader *r, const char *ptr, const char *dflt) {
    const char *value = dflt;
    if (r->status != QFW_OK || kind_of(r, ptr) == QFW_DOC_ABSENT) return dflt;
    if (r->api->kind(r->doc, ptr) != QFW_DOC_STRING)
        reject_type(r, ptr, "a string");
    else
        r->status = r->api->str(r->doc, ptr, &value);
    return value;
}

static int is_one_of(const char *word, const char *const *list) {
    for (; *list; list++)
        if (!strcmp(word, *list)) return 1;
    return 0;
}

/* Keys that this file reads or checks. */
static const char *const known_keys[] = {"model_type", "vocab_size", "hidden_size",
    "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "head_dim", "max_position_embeddings", "original_max_position_embeddings", "sliding_window",
    "rope_theta", "rope_scaling", "rope_parameters", "partial_rotary_factor", "rms_norm_eps",
    "hidden_act", "attention_bias", "attention_dropout", "resid_pdrop", "embd_pdrop",
    "tie_word_embeddings", "initializer_range", "torch_dtype", "dtype", "layer_types", "mlp_bias",
    "lm_head_bias", "full_attn_mod", "interpolate_factor", NULL};
/* Keys that change nothing of what is computed here: ids, caches, bookkeeping. */
static const char *const ignored_keys[] = {"_name_or_path", "architectures", "auto_map",
    "bos_token_id", "eos_token_id", "pad_token_id", "transformers_version", "use_cache",
    "_attn_implementation", "_attn_implementation_autoset", "attn_implementation",
    "output_attentions", "output_hidden_states", "return_dict", "chunk_size_feed_forward",
    "is_encoder_decoder", "id2label", "label2id", "problem_type", "gradient_checkpointing",
    "quantization_config", NULL};
static const char *const known_rope_keys[] = {"type", "rope_type", "rope_theta",
    "partial_rotary_factor", "short_factor", "long_factor", "factor", "attention_factor",
    "original_max_position_embeddings", NULL};

static void check_keys(
    reader *r, const char *at, const char *const *known, const char *const *ignored) {
    const char *key;
    for (uint64_t i = 0; r->status == QFW_OK && (key = r->api->key(r->doc, at, i)); i++) {
        if (is_one_of(key, known) || (ignored && is_one_of(key, ignored))) continue;
        char ptr[256];
        snprintf(ptr, sizeof ptr, "%s/%.200s", at, key);
        reject(r, ptr,
            "E_CFG_UNSUPPORTED: a key that phi3 does not know and that may change "
            "what the model computes");
    }
}

/* The tensors say their dtype themselves; but one here that is none, or two that differ, are a
 * mistake. */
static void check_dtype(reader *r) {
    static const char *const known[] = {"float32", "float16", "bfloat16", "auto", NULL};
    static const char *const places[] = {"/torch_dtype", "/dtype"};
    const char *older = read_str(r, places[0], NULL), *newer = read_str(r, places[1], older);
    for (int i = 0; i < 2; i++) {
        const char *found = read_str(r, places[i], "auto");
        if (r->status == QFW_OK && !is_one_of(found, known))
            reject(r, places[i],
                "E_CFG_UNSUPPORTED: \"%.60s\", wanted float32, float16 or bfloat16", found);
    }
    if (r->status == QFW_OK && older && strcmp(older, newer))
        reject(
            r, places[1], "E_CFG_RELATION: \"%.60s\", but torch_dtype is \"%.60s\"", newer, older);
}

/* Ids that the vocabulary has: a number, a list of them, or null. */
static void check_id(reader *r, const char *ptr, int64_t vocab) {
    if (kind_of(r, ptr) != QFW_DOC_ARRAY) {
        (void)read_int(r, ptr, 0, vocab - 1, 0);
        return;
    }
    for (uint64_t i = 0; r->status == QFW_OK && i < r->api->count(r->doc, ptr); i++) {
        char item[64];
        snprintf(item, sizeof item, "%s/%llu", ptr, (unsigned long long)i);
        (void)read_int(r, item, 0, vocab - 1, 0);
    }
}

static void check_fixed(reader *r) {
    const char *type = read_str(r, "/model_type", "");
    if (!strcmp(type, "phi3small"))
        reject(r, "/model_type",
            "E_CFG_UNSUPPORTED: \"phi3small\", wanted \"phi3\": it has another attention "
            "(block-sparse), activation (gegelu) and norm");
    if (strcmp(type, "phi3"))
        reject(r, "/model_type", "E_CFG_UNSUPPORTED: \"%.60s\", wanted \"phi3\"", type);
    const char *act = read_str(r, "/hidden_act", "silu");
    if (strcmp(act, "silu"))
        reject(r, "/hidden_act", "E_CFG_UNSUPPORTED: \"%.60s\", wanted \"silu\"", act);
    static const char *const biases[] = {"/attention_bias", "/mlp_bias", "/lm_head_bias", NULL};
    for (const char *const *b = biases; *b; b++)
        if (read_bool(r, *b, 0)) reject(r, *b, "E_CFG_UNSUPPORTED: true, wanted false");
    static const char *const ones[] = {"/full_attn_mod", "/interpolate_factor", NULL};
    for (const char *const *one = ones; *one; one++) {
        const double value = read_real(r, *one, 0, 1e6, 1);
        if (value < 1 || value > 1)
            reject(r, *one, "E_CFG_UNSUPPORTED: %g, wanted 1, as Phi-4-mini has it", value);
    }
    static const char *const dropouts[] = {
        "/attention_dropout", "/resid_pdrop", "/embd_pdrop", NULL};
    for (const char *const *d = dropouts; *d; d++) {
        const double p = read_real(r, *d, 0, 1, 0);
        if (p != 0)
            reject(r, *d,
                "E_CFG_UNSUPPORTED: %g, wanted 0: Phi-3 is trained without dropout of its own", p);
    }
}

/* transformers' Phi-3 gives every layer the same attention, whatever this list says: one that tells
 * them apart describes another model. */
static void check_layer_types(reader *r) {
    if (kind_of(r, "/layer_types") == QFW_DOC_ABSENT) return;
    const uint64_t n = r->api->count(r->doc, "/layer_types");
    const char *first = read_str(r, "/layer_types/0", "");
    for (uint64_t i = 1; r->status == QFW_OK && i < n; i++) {
        char ptr[64];
        snprintf(ptr, sizeof ptr, "/layer_types/%llu", (unsigned long long)i);
        const char *type = read_str(r, ptr, "");
        if (strcmp(type, first))
            reject(r, ptr,
                "E_CFG_UNSUPPORTED: \"%.60s\" after \"%.60s\": all layers of a Phi-3 attend alike",
                type, first);
    }
}

static void read_sizes(reader *r, phi3_config *c) {
    c->vocab = read_int(r, "/vocab_size", 2, 1 << 24, -1);
    c->width = read_int(r, "/hidden_size", 1, 1 << 20, -1);
    c->ffn = read_int(r, "/intermediate_size", 1, 1 << 22, -1);
    c->n_layers = read_int(r, "/num_hidden_layers", 1, MAX_LAYERS, -1);
    c->n_heads = read_int(r, "/num_attention_heads", 1, 1 << 14, -1);
    c->n_kv_heads = read_int(r, "/num_key_value_heads", 1, 1 << 14, c->n_heads);
    c->max_positions = read_int(r, "/max_position_embeddings", 1, 1 << 30, -1);
    c->window = read_int(r, "/sliding_window", 1, 1 << 30, 1 << 30);
    if (c->window >= c->max_positions) c->window = 0; /* it never binds */
    c->rms_eps = read_real(r, "/rms_norm_eps", 1e-30, 1, 1e-5);
    c->init_std = read_real(r, "/initializer_range", 0, 10, 0.02);
    c->tied = read_bool(r, "/tie_word_embeddings", 0);
    if (r->status != QFW_OK) return;
    if (c->width % c->n_heads)
        reject(r, "/num_attention_heads",
            "E_CFG_RELATION: hidden_size %lld is no multiple of num_attention_heads %lld",
            (long long)c->width, (long long)c->n_heads);
    else if (c->n_heads % c->n_kv_heads)
        reject(r, "/num_key_value_heads",
            "E_CFG_RELATION: num_attention_heads %lld is no multiple of num_key_value_heads %lld",
            (long long)c->n_heads, (long long)c->n_kv_heads);
    if (r->status != QFW_OK) return;
    c->head_dim = read_int(r, "/head_dim", 1, 1 << 16, c->width / c->n_heads);
    if (r->status == QFW_OK && c->head_dim != c->width / c->n_heads)
        reject(r, "/head_dim",
            "E_CFG_RELATION: %lld, but hidden_size / num_attention_heads is %lld",
            (long long)c->head_dim, (long long)(c->width / c->n_heads));
}

/* Where the rotary keys stand: "/rope_parameters" (transformers 5) or "/rope_scaling"; NULL:
 * nowhere. */
static const char *rope_at(reader *r) {
    static const char *const places[] = {"/rope_parameters", "/rope_scaling"};
    const char *found = NULL;
    for (int i = 0; i < 2; i++) {
        const uint32_t kind = kind_of(r, places[i]);
        if (kind == QFW_DOC_ABSENT) continue;
        if (kind != QFW_DOC_OBJECT) reject_type(r, places[i], "an object or null");
        if (found)
            reject(r, places[i],
                "E_CFG_RELATION: rope_parameters is there, too, wanted one of them: which counts "
                "is not said");
        found = places[i];
    }
    return found;
}

static char *at(char *buf, size_t cap, const char *base, const char *key) {
    snprintf(buf, cap, "%s/%s", base, key);
    return buf;
}

/* inv_freq[k] = 1 / (factor[k] * theta^(2k / rotary_dim)), in fp32 as torch computes it. */
static void read_freqs(reader *r, const phi3_config *c, const char *factors, float *freq) {
    const int64_t half = c->rotary_dim / 2;
    if (factors && r->api->count(r->doc, factors) != (uint64_t)half) {
        reject(r, factors,
            "E_CFG_RELATION: %llu factors, wanted rotary_dim / 2 = %lld (hidden_size, "
            "num_attention_heads and partial_rotary_factor decide it)",
            (unsigned long long)r->api->count(r->doc, factors), (long long)half);
        return;
    }
    for (int64_t k = 0; k < half && r->status == QFW_OK; k++) {
        double factor = 1;
        if (factors) {
            char ptr[128];
            snprintf(ptr, sizeof ptr, "%s/%lld", factors, (long long)k);
            factor = read_real(r, ptr, 1e-6, 1e6, 0);
        }
        const float power = powf((float)c->theta, (float)(2 * k) / (float)c->rotary_dim);
        freq[k] = 1.0f / ((float)factor * power);
    }
}

static void read_longrope(reader *r, qfw_inst *m, const char *base) {
    phi3_config *c = &m->config;
    char ptr[128];
    c->longrope = 1;
    read_freqs(r, c, at(ptr, sizeof ptr, base, "short_factor"), m->short_freq);
    read_freqs(r, c, at(ptr, sizeof ptr, base, "long_factor"), m->long_freq);
    const double scale = (double)c->max_positions / (double)c->original_max;
    const double factor = read_real(r, at(ptr, sizeof ptr, base, "factor"), 1e-6, 1e6, scale);
    if (fabs(factor - scale) > 1e-6 * scale)
        reject(r, ptr,
            "E_CFG_RELATION: %g, but max_position_embeddings / "
            "original_max_position_embeddings is %g",
            factor, scale);
    const double dflt = scale <= 1 ? 1 : sqrt(1 + log(scale) / log((double)c->original_max));
    c->attention_factor =
        read_real(r, at(ptr, sizeof ptr, base, "attention_factor"), 1e-3, 1e3, dflt);
    if (!(c->attention_factor <= 1e3))
        reject(r, ptr,
            "E_CFG_RELATION: null or missing, and original_max_position_embeddings %lld gives "
            "none",
            (long long)c->original_max);
}

/* Under rope type default nothing reads them: either they or the type are a mistake. */
static void reject_factors(reader *r, const char *base) {
    static const char *const keys[] = {
        "short_factor", "long_factor", "factor", "attention_factor", NULL};
    char ptr[128];
    for (const char *const *key = keys; base && *key; key++)
        if (kind_of(r, at(ptr, sizeof ptr, base, *key)) != QFW_DOC_ABSENT)
            reject(r, ptr,
                "E_CFG_UNSUPPORTED: rope type default has no such key; hint: longrope, if the "
                "model is one");
}

/* A number that newer files nest in `base`. What an older key beside it says must be the same. */
static double read_nested(
    reader *r, const char *base, const char *key, double min, double max, double dflt) {
    char outer[64], inner[128];
    snprintf(outer, sizeof outer, "/%s", key);
    const double older = read_real(r, outer, min, max, dflt);
    if (!base) return older;
    const double value = read_real(r, at(inner, sizeof inner, base, key), min, max, older);
    const int differs = value < older || value > older;
    if (differs && kind_of(r, outer) != QFW_DOC_ABSENT)
        reject(r, inner, "E_CFG_RELATION: %g, but %s outside of it says %g", value, key, older);
    return value;
}

static void read_rope(reader *r, qfw_inst *m) {
    phi3_config *c = &m->config;
    char ptr[128];
    const char *base = rope_at(r);
    if (base) check_keys(r, base, known_rope_keys, NULL);
    const double partial = read_nested(r, base, "partial_rotary_factor", 0, 1, 1);
    c->theta = read_nested(r, base, "rope_theta", 1, 1e12, 1e4);
    const char *type = "default";
    if (base) {
        type = read_str(r, at(ptr, sizeof ptr, base, "type"), type);
        type = read_str(r, at(ptr, sizeof ptr, base, "rope_type"), type);
    }
    c->original_max =
        read_int(r, "/original_max_position_embeddings", 1, 1 << 30, c->max_positions);
    if (base)
        c->original_max = read_int(r, at(ptr, sizeof ptr, base, "original_max_position_embeddings"),
            1, 1 << 30, c->original_max);
    if (r->status != QFW_OK) return;
    c->rotary_dim = (int64_t)((double)c->head_dim * partial);
    if (c->rotary_dim < 2 || c->rotary_dim % 2) {
        reject(r, "/partial_rotary_factor",
            "E_CFG_RELATION: %lld of %lld head dimensions rotate, wanted an even number, at least "
            "2",
            (long long)c->rotary_dim, (long long)c->head_dim);
        return;
    }
    const uint64_t bytes = (uint64_t)c->rotary_dim / 2 * sizeof(float);
    m->short_freq = (float *)m->host->heap_alloc(m->host, bytes, 64);
    m->long_freq = (float *)m->host->heap_alloc(m->host, bytes, 64);
    if (!m->short_freq || !m->long_freq) {
        r->status = qfw_fail(m->host, QFW_E_NOMEM, "phi3: no memory");
        return;
    }
    c->attention_factor = 1;
    static const char *const long_types[] = {"longrope", "su", "yarn", NULL};
    if (is_one_of(type, long_types)) {
        read_longrope(r, m, base);
    } else if (!strcmp(type, "default")) {
        reject_factors(r, base);
        read_freqs(r, c, NULL, m->short_freq);
        memcpy(m->long_freq, m->short_freq, bytes);
    } else {
        reject(r, base, "E_CFG_UNSUPPORTED: rope type \"%.60s\", wanted default or longrope", type);
    }
}

qfw_status phi3_read_config(qfw_inst *m, const qfw_doc *doc) {
    reader r = {m->host, (const qfw_doc_api *)m->host->extension(m->host, "qfw.doc/1"), doc, 0};
    if (!r.api) return qfw_fail(m->host, QFW_E_ABI, "phi3: the host has no qfw.doc/1");
    if (r.api->kind(doc, "") != QFW_DOC_OBJECT) reject_type(&r, "", "an object");
    check_fixed(&r);
    check_dtype(&r);
    check_layer_types(&r);
    check_keys(&r, "", known_keys, ignored_keys);
    read_sizes(&r, &m->config);
    check_id(&r, "/bos_token_id", m->config.vocab);
    check_id(&r, "/eos_token_id", m->config.vocab);
    if (r.status == QFW_OK) read_rope(&r, m);
    return r.status;
}

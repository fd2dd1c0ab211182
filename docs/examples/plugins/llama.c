/* llama.c -- Llama 2 and 3 as a model plugin, unfused: q, k, v, gate and up are weights of their
 * own, so nothing is sliced; grouped query heads; rotary tables plain or stretched as Llama 3.1
 * does.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "qfw/model.h"
#include "qfw/plugin.h"

enum { NAME_BYTES = 96, PARAMS_PER_LAYER = 9 };

typedef struct weight {
    qfw_param_desc desc;
    qfw_source source;
    char name[NAME_BYTES], module[16];
} weight;

struct qfw_inst {
    const qfw_host *host;
    int64_t vocab, width, ffn, n_layers, n_heads, n_kv_heads, head_dim, max_positions, tied;
    double rms_eps, init_std, theta;
    /* Llama 3.1's stretch of low frequencies; factor 1: none. */
    double factor, low_freq_factor, high_freq_factor, original_max;
    weight *weights;
    uint32_t n_weights;
};

/* --- config.json --- */

typedef struct reader { /* the first failure sticks */
    const qfw_doc_api *api;
    const qfw_doc *doc;
    qfw_status status;
} reader;

static int is_there(const reader *r, const char *ptr) {
    const uint32_t kind = r->api->kind(r->doc, ptr);
    return kind != QFW_DOC_ABSENT && kind != QFW_DOC_NULL;
}

static void reject(reader *r, const char *ptr, const char *text) {
    if (r->status == QFW_OK) r->status = r->api->fail(r->doc, ptr, QFW_E_DATA, text);
}

static double read_real(reader *r, const char *ptr, double lo, double hi, double dflt) {
    double value = dflt;
    if (r->status != QFW_OK || !is_there(r, ptr)) return dflt;
    r->status = r->api->f64(r->doc, ptr, &value);
    if (r->status == QFW_OK && !(value >= lo && value <= hi)) reject(r, ptr, "out of range");
    return value;
}

/* From 1 to 2^24; dflt 0: the key must be there. */
static int64_t read_size(reader *r, const char *ptr, int64_t dflt) {
    int64_t value = dflt;
    if (r->status != QFW_OK) return 1;
    if (!is_there(r, ptr) && dflt) return dflt;
    r->status = r->api->i64(r->doc, ptr, &value);
    if (r->status == QFW_OK && (value < 1 || value > 1 << 24)) reject(r, ptr, "out of range");
    return r->status == QFW_OK ? value : 1;
}

static int64_t read_bool(reader *r, const char *ptr, int64_t dflt) {
    int64_t value = dflt;
    if (r->status == QFW_OK && is_there(r, ptr)) r->status = r->api->i64(r->doc, ptr, &value);
    return value;
}

static int text_is(reader *r, const char *ptr, const char *wanted, int if_absent) {
    const char *text = "";
    if (r->status != QFW_OK || !is_there(r, ptr)) return if_absent;
    r->status = r->api->str(r->doc, ptr, &text);
    return !strcmp(text, wanted);
}

static int is_one_of(const char *key, const char *const *list) {
    while (*list && strcmp(key, *list)) list++;
    return *list != NULL;
}

/* Each key is one that this file reads, or one that changes nothing of what is computed. */
static void check_keys(reader *r, const char *at, const char *const *known) {
    const char *key;
    char ptr[256];
    for (uint64_t i = 0; r->status == QFW_OK && (key = r->api->key(r->doc, at, i)); i++) {
        snprintf(ptr, sizeof ptr, "%s/%.200s", at, key);
        if (!is_one_of(key, known))
            reject(r, ptr, "a key that llama does not know and that may change what it computes");
    }
}

static const char *const known_keys[] = {"model_type", "vocab_size", "hidden_size",
    "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "head_dim", "max_position_embeddings", "rope_theta", "rope_scaling", "rope_parameters",
    "rms_norm_eps", "hidden_act", "attention_bias", "mlp_bias", "attention_dropout",
    "tie_word_embeddings", "initializer_range", "torch_dtype", "dtype", "_name_or_path",
    "architectures", "bos_token_id", "eos_token_id", "pad_token_id", "pretraining_tp",
    "transformers_version", "use_cache", NULL};
static const char *const known_rope_keys[] = {"rope_type", "rope_theta", "factor",
    "low_freq_factor", "high_freq_factor", "original_max_position_embeddings", NULL};

/* Of the object that transformers 5 calls rope_parameters and 4 rope_scaling. */
static double read_rope(reader *r, const char *key, double lo, double hi, double dflt) {
    const char *const at = is_there(r, "/rope_parameters") ? "/rope_parameters" : "/rope_scaling";
    char ptr[64];
    snprintf(ptr, sizeof ptr, "%s/%s", at, key);
    return read_real(r, ptr, lo, hi, dflt);
}

static void read_rotary(reader *r, qfw_inst *m) {
    const int is_new = is_there(r, "/rope_parameters");
    const char *const at = is_new ? "/rope_parameters" : "/rope_scaling";
    const char *const type = is_new ? "/rope_parameters/rope_type" : "/rope_scaling/rope_type";
    m->theta = read_real(r, "/rope_theta", 1, 1e12, 1e4);
    m->factor = 1;
    if (!is_there(r, at)) return;
    check_keys(r, at, known_rope_keys);
    m->theta = read_rope(r, "rope_theta", 1, 1e12, m->theta);
    if (text_is(r, type, "default", 0)) return;
    if (!text_is(r, type, "llama3", 0)) reject(r, at, "rope_type: wanted default or llama3");
    m->factor = read_rope(r, "factor", 1, 1e6, 8);
    m->low_freq_factor = read_rope(r, "low_freq_factor", 1e-6, 1e6, 1);
    m->high_freq_factor = read_rope(r, "high_freq_factor", 1e-6, 1e6, 4);
    m->original_max = read_rope(r, "original_max_position_embeddings", 1, 1e9, 8192);
    if (m->high_freq_factor <= m->low_freq_factor)
        reject(r, at, "high_freq_factor must be above low_freq_factor");
}

static void read_config(reader *r, qfw_inst *m) {
    check_keys(r, "", known_keys);
    if (!text_is(r, "/model_type", "llama", 0)) reject(r, "/model_type", "wanted \"llama\"");
    if (!text_is(r, "/hidden_act", "silu", 1)) reject(r, "/hidden_act", "wanted \"silu\"");
    if (read_bool(r, "/attention_bias", 0) || read_bool(r, "/mlp_bias", 0))
        reject(r, "/attention_bias", "biases are not built here");
    if (read_real(r, "/attention_dropout", 0, 1, 0) > 0)
        reject(r, "/attention_dropout", "not 0, and not built here");
    m->vocab = read_size(r, "/vocab_size", 0);
    m->width = read_size(r, "/hidden_size", 0);
    m->ffn = read_size(r, "/intermediate_size", 0);
    m->n_layers = read_size(r, "/num_hidden_layers", 0);
    m->n_heads = read_size(r, "/num_attention_heads", 0);
    m->n_kv_heads = read_size(r, "/num_key_value_heads", m->n_heads);
    m->max_positions = read_size(r, "/max_position_embeddings", 2048);
    m->tied = read_bool(r, "/tie_word_embeddings", 0);
    m->rms_eps = read_real(r, "/rms_norm_eps", 1e-12, 1, 1e-6);
    m->init_std = read_real(r, "/initializer_range", 0, 10, 0.02);
    if (r->status != QFW_OK) return;
    m->head_dim = read_size(r, "/head_dim", m->width / m->n_heads);
    if (m->head_dim % 2) reject(r, "/head_dim", "odd, but dimensions rotate in pairs");
    if (m->n_heads % m->n_kv_heads)
        reject(r, "/num_key_value_heads", "does not divide num_attention_heads");
    read_rotary(r, m);
}

/* --- weights --- */

static weight *add_weight(
    qfw_inst *m, uint32_t role, int64_t layer, const char *path, int64_t rows, int64_t columns) {
    weight *w = &m->weights[m->n_weights++];
    if (layer >= 0)
        snprintf(w->name, NAME_BYTES, "model.layers.%lld.%s.weight", (long long)layer, path);
    else
        snprintf(w->name, NAME_BYTES, "%s.weight", path);
    w->source = (qfw_source){w->name, 0, rows, 0, 0};
    w->desc = (qfw_param_desc){.size = sizeof w->desc,
        .role = role,
        .rank = columns ? 2 : 1,
        .dim = {rows, columns ? columns : 1, 1, 1},
        .name = w->name,
        .sources = &w->source,
        .n_sources = 1,
        .init = role == QFW_ROLE_NORM ? QFW_INIT_ONES : QFW_INIT_NORMAL,
        .init_std = m->init_std};
    return w;
}

static void add_linear(
    qfw_inst *m, int64_t layer, const char *path, int64_t rows, int64_t columns) {
    weight *w = add_weight(m, QFW_ROLE_LINEAR, layer, path, rows, columns);
    snprintf(w->module, sizeof w->module, "%s", strrchr(path, '.') + 1);
    w->desc.module = w->module;
    w->desc.flags = QFW_PARAM_4BIT;
}

static qfw_status make_weights(qfw_inst *m) {
    const uint64_t n = (uint64_t)m->n_layers * PARAMS_PER_LAYER + 3;
    const int64_t q = m->n_heads * m->head_dim, kv = m->n_kv_heads * m->head_dim;
    m->weights = (weight *)m->host->heap_alloc(m->host, n * sizeof *m->weights, 16);
    if (!m->weights) return qfw_fail(m->host, QFW_E_NOMEM, "llama: no memory");
    const weight *embed =
        add_weight(m, QFW_ROLE_EMBED, -1, "model.embed_tokens", m->vocab, m->width);
    for (int64_t l = 0; l < m->n_layers; l++) {
        add_weight(m, QFW_ROLE_NORM, l, "input_layernorm", m->width, 0);
        add_linear(m, l, "self_attn.q_proj", q, m->width);
        add_linear(m, l, "self_attn.k_proj", kv, m->width);
        add_linear(m, l, "self_attn.v_proj", kv, m->width);
        add_linear(m, l, "self_attn.o_proj", m->width, q);
        add_weight(m, QFW_ROLE_NORM, l, "post_attention_layernorm", m->width, 0);
        add_linear(m, l, "mlp.gate_proj", m->ffn, m->width);
        add_linear(m, l, "mlp.up_proj", m->ffn, m->width);
        add_linear(m, l, "mlp.down_proj", m->width, m->ffn);
    }
    add_weight(m, QFW_ROLE_NORM, -1, "model.norm", m->width, 0);
    weight *head = add_weight(m, QFW_ROLE_HEAD, -1, "lm_head", m->vocab, m->width);
    if (m->tied) head->desc.tied_to = embed->name;
    return QFW_OK;
}

static qfw_status llama_describe(qfw_inst *m, uint32_t i, qfw_param_desc *out) {
    if (i >= m->n_weights) return QFW_E_END;
    *out = m->weights[i].desc;
    return QFW_OK;
}

/* --- forward --- */

typedef struct inputs {
    qfw_val segments, cos, sin;
} inputs;

/* y = linear(x) with weight `path` of this layer; a rank-1 weight is a norm's. */
static qfw_status layer_param(qfw_graph *g, int64_t layer, const char *path, qfw_val *w) {
    char name[NAME_BYTES];
    snprintf(name, sizeof name, "model.layers.%lld.%s.weight", (long long)layer, path);
    return g->api->param(g, name, w);
}

static qfw_status linear(qfw_graph *g, int64_t layer, const char *path, qfw_val x, qfw_val *y) {
    qfw_val w;
    QFW_TRY(layer_param(g, layer, path, &w));
    return g->api->linear(g, x, w, y);
}

static qfw_status norm(
    qfw_inst *m, qfw_graph *g, int64_t layer, const char *path, qfw_val x, qfw_val *y) {
    qfw_val w;
    QFW_TRY(layer_param(g, layer, path, &w));
    return qfw_rmsnorm(g, x, w, (float)m->rms_eps, y);
}

static qfw_status emit_attention(
    qfw_inst *m, qfw_graph *g, int64_t layer, const inputs *in, qfw_val *h) {
    const int64_t D = m->head_dim;
    const qfw_attn_params p = {
        sizeof p, (float)(1 / sqrt((double)D)), m->n_heads, m->n_kv_heads, D, 0};
    qfw_val x, q, k, v, o;
    QFW_TRY(norm(m, g, layer, "input_layernorm", *h, &x));
    QFW_TRY(linear(g, layer, "self_attn.q_proj", x, &q));
    QFW_TRY(linear(g, layer, "self_attn.k_proj", x, &k));
    QFW_TRY(linear(g, layer, "self_attn.v_proj", x, &v));
    QFW_TRY(qfw_rope(g, q, in->cos, in->sin, D, D, m->n_heads, &q));
    QFW_TRY(qfw_rope(g, k, in->cos, in->sin, D, D, m->n_kv_heads, &k));
    QFW_TRY(qfw_attn(g, q, k, v, in->segments, &p, &o));
    QFW_TRY(linear(g, layer, "self_attn.o_proj", o, &x));
    return qfw_binary(g, QFW_ADD, *h, x, h);
}

static qfw_status emit_mlp(qfw_inst *m, qfw_graph *g, int64_t layer, qfw_val *h) {
    qfw_val x, gate, up, mid;
    QFW_TRY(norm(m, g, layer, "post_attention_layernorm", *h, &x));
    QFW_TRY(linear(g, layer, "mlp.gate_proj", x, &gate));
    QFW_TRY(linear(g, layer, "mlp.up_proj", x, &up));
    QFW_TRY(qfw_swiglu(g, gate, up, &mid));
    QFW_TRY(linear(g, layer, "mlp.down_proj", mid, &x));
    return qfw_binary(g, QFW_ADD, *h, x, h);
}

static qfw_status llama_forward(
    qfw_inst *m, qfw_graph *g, const qfw_batch_shape *shape, qfw_lm_vals *out) {
    const int64_t rows[1] = {shape->n_rows}, segments[2] = {shape->n_segments, 5};
    const int64_t table[2] = {shape->n_rows, m->head_dim / 2};
    qfw_val tokens, w, h;
    inputs in;
    QFW_TRY(g->api->input(g, "tokens", QFW_I32, 1, rows, &tokens));
    QFW_TRY(g->api->input(g, "segments", QFW_I32, 2, segments, &in.segments));
    QFW_TRY(g->api->input(g, "rope_cos", QFW_F32, 2, table, &in.cos));
    QFW_TRY(g->api->input(g, "rope_sin", QFW_F32, 2, table, &in.sin));
    QFW_TRY(g->api->param(g, "model.embed_tokens.weight", &w));
    QFW_TRY(qfw_embed(g, w, tokens, &h));
    for (int64_t layer = 0; layer < m->n_layers; layer++) {
        char name[32];
        snprintf(name, sizeof name, "layers.%lld", (long long)layer);
        QFW_TRY(g->api->segment(g, name));
        QFW_TRY(emit_attention(m, g, layer, &in, &h));
        QFW_TRY(emit_mlp(m, g, layer, &h));
    }
    QFW_TRY(g->api->segment(g, "head"));
    QFW_TRY(g->api->param(g, "model.norm.weight", &w));
    QFW_TRY(qfw_rmsnorm(g, h, w, (float)m->rms_eps, &out->hidden));
    return g->api->param(g, "lm_head.weight", &out->lm_head);
}

/* The frequency of pair k, in fp32 as torch has it; long waves are stretched, short ones are not,
 * and in between it goes over smoothly. */
static float frequency(const qfw_inst *m, int64_t k) {
    const float plain = 1.0f / powf((float)m->theta, (float)(2 * k) / (float)m->head_dim);
    const float wave = 6.28318530717958647692f / plain;
    if (m->factor <= 1) return plain;
    if ((double)wave > m->original_max / m->low_freq_factor) return plain / (float)m->factor;
    if ((double)wave < m->original_max / m->high_freq_factor) return plain;
    const double span = m->high_freq_factor - m->low_freq_factor;
    const float smooth = (float)((m->original_max / (double)wave - m->low_freq_factor) / span);
    return (1 - smooth) * plain / (float)m->factor + smooth * plain;
}

static qfw_status llama_fill(
    qfw_inst *m, const qfw_batch *batch, const char *input, void *dst, uint64_t bytes) {
    const int64_t half = m->head_dim / 2, n_rows = batch->shape.n_rows;
    const int sine = !strcmp(input, "rope_sin");
    float *table = (float *)dst;
    if ((!sine && strcmp(input, "rope_cos")) || bytes != (uint64_t)(n_rows * half) * sizeof *table)
        return qfw_fail(m->host, QFW_E_INVALID, "llama: no input '%s' of %llu bytes", input,
            (unsigned long long)bytes);
    for (int64_t k = 0; k < half; k++) {
        const float step = frequency(m, k);
        for (int64_t n = 0; n < n_rows; n++) {
            const float angle = (float)batch->positions[n] * step;
            table[n * half + k] = sine ? sinf(angle) : cosf(angle);
        }
    }
    return QFW_OK;
}

/* --- the plugin --- */

static void llama_destroy(qfw_inst *m) {
    if (!m) return;
    m->host->heap_free(m->host, m->weights);
    m->host->heap_free(m->host, m);
}

static qfw_status llama_create(
    const qfw_host *h, const qfw_cfg *cfg, const qfw_doc *config, qfw_inst **out) {
    reader r = {(const qfw_doc_api *)h->extension(h, "qfw.doc/1"), config, QFW_OK};
    (void)cfg;
    *out = NULL;
    if (!r.api) return qfw_fail(h, QFW_E_ABI, "llama: the host lacks qfw.doc/1");
    qfw_inst *m = (qfw_inst *)h->heap_alloc(h, sizeof *m, 16);
    if (!m) return qfw_fail(h, QFW_E_NOMEM, "llama: no memory");
    m->host = h;
    read_config(&r, m);
    if (r.status == QFW_OK) r.status = make_weights(m);
    if (r.status == QFW_OK)
        *out = m;
    else
        llama_destroy(m);
    return r.status;
}

static qfw_status llama_facts(qfw_inst *m, qfw_model_facts *out) {
    *out = (qfw_model_facts){.size = sizeof *out,
        .n_layers = (uint32_t)m->n_layers,
        .vocab = m->vocab,
        .width = m->width,
        .max_positions = m->max_positions};
    return QFW_OK;
}

static const qfw_model llama_model = {
    .size = sizeof llama_model,
    .create = llama_create,
    .destroy = llama_destroy,
    .facts = llama_facts,
    .describe = llama_describe,
    .forward = llama_forward,
    .fill = llama_fill,
};

static const qfw_component llama_component = {
    .size = sizeof llama_component,
    .kind = QFW_KIND_MODEL,
    .name = "llama",
    .summary = "Llama 2 and 3: grouped query heads, tied or untied",
    .iface = &llama_model,
};
static const qfw_component *const llama_components[] = {&llama_component};

QFW_PLUGIN("llama", "0.1.0", "qfw authors", "MIT", 1u << QFW_KIND_MODEL, llama_components);

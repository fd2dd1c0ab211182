/* gguf_model.c -- see gguf_model.h: the keys and tensors of llama.cpp's phi3. */
#include "export/gguf_model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"

enum { NAME_BYTES = 128, PIECE_VALUES = 1 << 20 };
enum { FILE_TYPE_F16 = 1, FILE_TYPE_Q8_0 = 7, QUANTIZATION_VERSION = 2 };

static qfw_status unsupported(const char *what, const char *found) {
    return err_fail("E_GGUF_UNSUPPORTED", QFW_E_UNSUPPORTED,
        "a GGUF file of architecture phi3 cannot say %s '%.80s'", what, found);
}

/* --- config.json --- */

/* A member of the root, or of rope_parameters or rope_scaling: newer and older files. */
static const json_node *find(const gguf_source *s, const char *key) {
    static const char *const inside[] = {"rope_parameters", "rope_scaling"};
    const json_node *root = json_root(s->config), *v = json_node_member(root, key);
    for (size_t i = 0; json_node_kind(v) <= QFW_DOC_NULL && i < 2; i++)
        v = json_node_member(json_node_member(root, inside[i]), key);
    return v;
}

static int64_t integer(const gguf_source *s, const char *key, int64_t absent) {
    const json_node *v = find(s, key);
    return json_node_kind(v) == QFW_DOC_INT ? json_node_i64(v) : absent;
}

static double real(const gguf_source *s, const char *key, double absent) {
    const json_node *v = find(s, key);
    return json_node_kind(v) == QFW_DOC_INT    ? (double)json_node_i64(v)
           : json_node_kind(v) == QFW_DOC_REAL ? json_node_f64(v)
                                               : absent;
}

static int64_t context(const gguf_source *s) { return integer(s, "max_position_embeddings", 0); }
static int64_t first_context(const gguf_source *s) {
    return integer(s, "original_max_position_embeddings", context(s));
}

static int64_t rope_dims(const gguf_source *s) {
    const double part = real(s, "partial_rotary_factor", 1);
    const int64_t heads = integer(s, "num_attention_heads", 1);
    return (int64_t)(part * (double)integer(s, "hidden_size", 0)) / (heads ? heads : 1);
}

static void put_parameters(gguf_writer *w, const gguf_source *s) {
    static const struct {
        const char *key, *of;
    } sizes[] = {{"phi3.embedding_length", "hidden_size"},
        {"phi3.feed_forward_length", "intermediate_size"},
        {"phi3.block_count", "num_hidden_layers"},
        {"phi3.attention.head_count", "num_attention_heads"}};
    gguf_put_u32(w, "phi3.context_length", (uint32_t)context(s));
    gguf_put_u32(w, "phi3.rope.scaling.original_context_length", (uint32_t)first_context(s));
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        gguf_put_u32(w, sizes[i].key, (uint32_t)integer(s, sizes[i].of, 0));
    gguf_put_u32(w, "phi3.attention.head_count_kv",
        (uint32_t)integer(s, "num_key_value_heads", integer(s, "num_attention_heads", 0)));
    gguf_put_f32(w, "phi3.attention.layer_norm_rms_epsilon", (float)real(s, "rms_norm_eps", 1e-5));
    gguf_put_u32(w, "phi3.rope.dimension_count", (uint32_t)rope_dims(s));
    gguf_put_f32(w, "phi3.rope.freq_base", (float)real(s, "rope_theta", 10000));
    /* 0 tells llama.cpp that there is none. */
    gguf_put_u32(w, "phi3.attention.sliding_window", (uint32_t)integer(s, "sliding_window", 0));
}

static void put_general(gguf_writer *w, const char *type) {
    gguf_put_str(w, "general.architecture", "phi3");
    gguf_put_str(w, "general.type", type);
}

/* --- longrope --- */

static const char *const factor_keys[2] = {"long_factor", "short_factor"};
static const char *const factor_names[2] = {
    "rope_factors_long.weight", "rope_factors_short.weight"};

static int has_factors(const gguf_source *s) {
    return json_node_count(find(s, factor_keys[0])) > 0;
}

static qfw_status declare_factors(gguf_writer *w, const gguf_source *s) {
    const int64_t n[1] = {rope_dims(s) / 2};
    if (!has_factors(s)) return QFW_OK;
    const double scale = (double)context(s) / (double)first_context(s);
    const double usual = scale > 1 ? sqrt(1 + log(scale) / log((double)first_context(s))) : 1;
    gguf_put_f32(w, "phi3.rope.scaling.attn_factor", (float)real(s, "attention_factor", usual));
    for (int i = 0; i < 2; i++) {
        if ((int64_t)json_node_count(find(s, factor_keys[i])) != n[0])
            return unsupported(
                "rotary factors of another number than", "half the rotary dimensions");
        gguf_declare(w, factor_names[i], GGUF_F32, 1, n);
    }
    return QFW_OK;
}

static qfw_status write_factors(gguf_writer *w, const gguf_source *s) {
    qfw_status status = QFW_OK;
    for (int i = 0; status == QFW_OK && has_factors(s) && i < 2; i++) {
        const json_node *list = find(s, factor_keys[i]);
        const uint64_t n = json_node_count(list);
        float *v = mem_alloc(n, sizeof *v);
        if (!v) return QFW_E_NOMEM;
        for (uint64_t k = 0; k < n; k++) {
            const json_node *item = json_node_item(list, k);
            v[k] = json_node_kind(item) == QFW_DOC_INT ? (float)json_node_i64(item)
                                                       : (float)json_node_f64(item);
        }
        status = gguf_rows(w, v, n);
        mem_free(v);
    }
    return status;
}

/* --- names --- */

/* "model.layers.3.self_attn.qkv_proj.weight" as "blk.3.attn_qkv.weight". */
static qfw_status name_of(const char *param, char out[NAME_BYTES]) {
    static const struct {
        const char *from, *to;
    } outer[] = {{"model.embed_tokens.weight", "token_embd.weight"},
        {"model.norm.weight", "output_norm.weight"}, {"lm_head.weight", "output.weight"}},
      inner[] = {{"input_layernorm.weight", "attn_norm.weight"},
          {"self_attn.qkv_proj.weight", "attn_qkv.weight"},
          {"self_attn.o_proj.weight", "attn_output.weight"},
          {"post_attention_layernorm.weight", "ffn_norm.weight"},
          {"mlp.gate_up_proj.weight", "ffn_up.weight"},
          {"mlp.down_proj.weight", "ffn_down.weight"}};
    unsigned layer;
    int at = 0;
    for (size_t i = 0; i < sizeof outer / sizeof outer[0]; i++)
        if (!strcmp(outer[i].from, param)) {
            snprintf(out, NAME_BYTES, "%s", outer[i].to);
            return QFW_OK;
        }
    if (sscanf(param, "model.layers.%u.%n", &layer, &at) == 1 && at)
        for (size_t i = 0; i < sizeof inner / sizeof inner[0]; i++)
            if (!strcmp(inner[i].from, param + at)) {
                snprintf(out, NAME_BYTES, "blk.%u.%s", layer, inner[i].to);
                return QFW_OK;
            }
    return unsupported("a weight called", param);
}

/* --- a model --- */

static uint32_t type_of(const qfw_param_desc *d, uint32_t type) {
    if (d->rank < 2) return GGUF_F32;
    return type == GGUF_Q8_0 && d->dim[1] % GGUF_BLOCK ? GGUF_F16 : type;
}

static qfw_status check(const gguf_source *s) {
    const char *type = json_node_str(json_node_member(json_root(s->config), "model_type"));
    const char *rope = json_node_str(find(s, "rope_type"));
    if (!rope) rope = json_node_str(find(s, "type"));
    if (!type || strcmp(type, "phi3") != 0) return unsupported("a model_type", type ? type : "");
    if (rope && strcmp(rope, "default") && strcmp(rope, "su") && strcmp(rope, "longrope"))
        return unsupported("a rope_type", rope);
    return QFW_OK;
}

/* "3.8B": how many numbers the model has. */
static void put_size(gguf_writer *w, const gguf_source *s) {
    static const char units[] = "KMBT";
    double n = has_factors(s) ? (double)(rope_dims(s) / 2 * 2) : 0;
    char text[32];
    int unit = 0;
    for (uint32_t i = 0; i < s->n; i++)
        n += (double)s->desc[i]->dim[0] * (double)(s->desc[i]->rank > 1 ? s->desc[i]->dim[1] : 1);
    for (n *= 1e-3; n > 1e3 && units[unit + 1]; n *= 1e-3) unit++;
    const double whole = nearbyint(n);
    snprintf(text, sizeof text, "%.*f%c", whole < 1 ? 2 : whole < 10 ? 1 : 0, n, units[unit]);
    gguf_put_str(w, "general.size_label", text);
}

static qfw_status declare_all(gguf_writer *w, const gguf_source *s, uint32_t type) {
    char name[NAME_BYTES];
    put_general(w, "model");
    put_size(w, s);
    put_parameters(w, s);
    gguf_put_u32(w, "general.file_type", type == GGUF_F16 ? FILE_TYPE_F16 : FILE_TYPE_Q8_0);
    gguf_put_u32(w, "general.quantization_version", QUANTIZATION_VERSION);
    QFW_TRY(declare_factors(w, s));
    for (uint32_t i = 0; i < s->n; i++) {
        const qfw_param_desc *d = s->desc[i];
        QFW_TRY(name_of(d->name, name));
        gguf_declare(w, name, type_of(d, type), d->rank, d->dim);
    }
    return gguf_put_tokenizer(w, s, integer(s, "vocab_size", 0));
}

static qfw_status write_weight(gguf_writer *w, const gguf_source *s, const qfw_param_desc *d) {
    const int64_t width = d->rank > 1 ? d->dim[1] : 1;
    const int64_t most = PIECE_VALUES / width > 0 ? PIECE_VALUES / width : 1;
    float *piece = mem_alloc((size_t)(most * width), sizeof *piece);
    qfw_status status = piece ? QFW_OK : QFW_E_NOMEM;
    for (int64_t row = 0, n; status == QFW_OK && row < d->dim[0]; row += n) {
        n = d->dim[0] - row < most ? d->dim[0] - row : most;
        status = s->rows->read(s->rows->arg, d, row, n, piece);
        if (status != QFW_OK) break;
        status = gguf_rows(w, piece, (uint64_t)(n * width));
        if (status != QFW_OK) err_prefix("%s", d->name);
    }
    mem_free(piece);
    return status;
}

qfw_status gguf_write_model(const char *path, const gguf_source *s, uint32_t type) {
    gguf_writer *w = NULL;
    QFW_TRY(check(s));
    QFW_TRY(gguf_create(path, &w));
    qfw_status status = declare_all(w, s, type);
    if (status == QFW_OK) status = gguf_begin(w);
    if (status == QFW_OK) status = write_factors(w, s);
    for (uint32_t i = 0; status == QFW_OK && i < s->n; i++) status = write_weight(w, s, s->desc[i]);
    if (status == QFW_OK) return gguf_finish(w);
    gguf_abort(w);
    return status;
}

/* --- an adapter --- */

static qfw_status declare_lora(gguf_writer *w, const gguf_lora *l) {
    const int64_t a[2] = {l->rank, l->in}, b[2] = {l->out, l->rank};
    char base[NAME_BYTES], name[NAME_BYTES + 8];
    QFW_TRY(name_of(l->param, base));
    snprintf(name, sizeof name, "%s.lora_a", base);
    gguf_declare(w, name, GGUF_F32, 2, a);
    snprintf(name, sizeof name, "%s.lora_b", base);
    gguf_declare(w, name, GGUF_F32, 2, b);
    return QFW_OK;
}

qfw_status gguf_write_adapter(
    const char *path, const gguf_source *s, const gguf_lora *loras, uint32_t n, float alpha) {
    gguf_writer *w = NULL;
    QFW_TRY(check(s));
    QFW_TRY(gguf_create(path, &w));
    put_general(w, "adapter");
    gguf_put_str(w, "general.name", s->name);
    gguf_put_str(w, "adapter.type", "lora");
    gguf_put_f32(w, "adapter.lora.alpha", alpha);
    gguf_put_u32(w, "general.base_model.count", 1);
    gguf_put_str(w, "general.base_model.0.name", s->name);
    gguf_put_u32(w, "general.quantization_version", QUANTIZATION_VERSION);
    qfw_status status = QFW_OK;
    for (uint32_t i = 0; status == QFW_OK && i < n; i++) status = declare_lora(w, &loras[i]);
    if (status == QFW_OK) status = gguf_begin(w);
    for (uint32_t i = 0; status == QFW_OK && i < n; i++) {
        status = gguf_rows(w, loras[i].a, (uint64_t)(loras[i].rank * loras[i].in));
        if (status == QFW_OK)
            status = gguf_rows(w, loras[i].b, (uint64_t)(loras[i].out * loras[i].rank));
    }
    if (status == QFW_OK) return gguf_finish(w);
    gguf_abort(w);
    return status;
}

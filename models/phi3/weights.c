/* weights.c -- the names, shapes and file sources of all weights.
 *
 * Files hold qkv_proj and gate_up_proj fused (as Microsoft's checkpoints do) or apart as q, k, v,
 * gate and up; both are sources of the same fused parameter. LoRA targets name the fused module or
 * one of its slices.
 */
#include <stdio.h>
#include <string.h>

#include "phi3.h"

enum { NAME_MAX = 96, PARAMS_PER_LAYER = 6, SLICES_PER_LAYER = 5 };

typedef struct builder { /* fills the instance's tables from the front */
    qfw_inst *m;
    char *name;
    qfw_slice *slice;
    qfw_source *source;
    int64_t layer; /* -1 outside the layers */
} builder;

/* "model.layers.<i>.<module>.weight", or "<module>.weight" outside the layers. */
static const char *weight_name(builder *b, const char *module) {
    char *name = b->name;
    if (b->layer >= 0)
        snprintf(name, NAME_MAX, "model.layers.%lld.%s.weight", (long long)b->layer, module);
    else
        snprintf(name, NAME_MAX, "%s.weight", module);
    b->name += NAME_MAX;
    return name;
}

static qfw_source *add_source(
    builder *b, const char *tensor, int64_t row0, int64_t rows, uint32_t layout) {
    *b->source = (qfw_source){tensor, row0, rows, layout, 0};
    return b->source++;
}

static qfw_param_desc *add_param(
    builder *b, uint32_t role, const char *module, int64_t rows, int64_t cols) {
    qfw_param_desc *p = &b->m->params[b->m->n_params++];
    const int rank = cols ? 2 : 1;
    *p = (qfw_param_desc){.size = sizeof *p,
        .role = role,
        .rank = (uint32_t)rank,
        .dim = {rows, cols ? cols : 1, 1, 1},
        .name = weight_name(b, module),
        .init = role == QFW_ROLE_NORM ? QFW_INIT_ONES : QFW_INIT_NORMAL,
        .init_std = b->m->config.init_std};
    p->sources = add_source(b, p->name, 0, rows, 0);
    p->n_sources = 1;
    return p;
}

static qfw_param_desc *add_linear(builder *b, const char *module, int64_t rows, int64_t cols) {
    qfw_param_desc *p = add_param(b, QFW_ROLE_LINEAR, module, rows, cols);
    p->flags = QFW_PARAM_4BIT;
    p->module = strrchr(module, '.') + 1;
    return p;
}

/* A slice that adapters can name and that some checkpoints hold as a tensor of its own. */
static void add_slice(builder *b, qfw_param_desc *p, const char *path, int64_t row0, int64_t rows) {
    *b->slice = (qfw_slice){strrchr(path, '.') + 1, row0, rows};
    if (!p->n_slices) p->slices = b->slice;
    b->slice++;
    p->n_slices++;
    add_source(b, weight_name(b, path), row0, rows, 1);
    p->n_sources++;
}

static void add_layer(builder *b) {
    const phi3_config *c = &b->m->config;
    const int64_t q = c->n_heads * c->head_dim, kv = c->n_kv_heads * c->head_dim;
    add_param(b, QFW_ROLE_NORM, "input_layernorm", c->width, 0);
    qfw_param_desc *qkv = add_linear(b, "self_attn.qkv_proj", q + 2 * kv, c->width);
    add_slice(b, qkv, "self_attn.q_proj", 0, q);
    add_slice(b, qkv, "self_attn.k_proj", q, kv);
    add_slice(b, qkv, "self_attn.v_proj", q + kv, kv);
    add_linear(b, "self_attn.o_proj", c->width, q);
    add_param(b, QFW_ROLE_NORM, "post_attention_layernorm", c->width, 0);
    qfw_param_desc *gate_up = add_linear(b, "mlp.gate_up_proj", 2 * c->ffn, c->width);
    add_slice(b, gate_up, "mlp.gate_proj", 0, c->ffn);
    add_slice(b, gate_up, "mlp.up_proj", c->ffn, c->ffn);
    add_linear(b, "mlp.down_proj", c->width, c->ffn);
}

qfw_status phi3_make_params(qfw_inst *m) {
    const qfw_host *h = m->host;
    const phi3_config *c = &m->config;
    const uint64_t layers = (uint64_t)c->n_layers;
    const uint64_t n_params = layers * PARAMS_PER_LAYER + 3;
    const uint64_t n_slices = layers * SLICES_PER_LAYER;
    const uint64_t n_sources = n_params + n_slices;
    m->params = (qfw_param_desc *)h->heap_alloc(h, n_params * sizeof *m->params, 16);
    m->names = (char *)h->heap_alloc(h, n_sources * NAME_MAX, 16);
    m->slices = (qfw_slice *)h->heap_alloc(h, n_slices * sizeof *m->slices, 16);
    m->sources = (qfw_source *)h->heap_alloc(h, n_sources * sizeof *m->sources, 16);
    if (!m->params || !m->names || !m->slices || !m->sources)
        return qfw_fail(h, QFW_E_NOMEM, "phi3: no memory for the table of weights");

    builder b = {m, m->names, m->slices, m->sources, -1};
    const qfw_param_desc *embed =
        add_param(&b, QFW_ROLE_EMBED, "model.embed_tokens", c->vocab, c->width);
    for (b.layer = 0; b.layer < c->n_layers; b.layer++) add_layer(&b);
    b.layer = -1;
    add_param(&b, QFW_ROLE_NORM, "model.norm", c->width, 0);
    qfw_param_desc *head = add_param(&b, QFW_ROLE_HEAD, "lm_head", c->vocab, c->width);
    if (c->tied) head->tied_to = embed->name;
    return QFW_OK;
}

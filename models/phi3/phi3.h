/* phi3.h -- what the files of the Phi-3 model share: the configuration and the instance. */
#ifndef PHI3_H
#define PHI3_H

#include "qfw/model.h"

typedef struct phi3_config {
    int64_t vocab, width, ffn, n_layers, n_heads, n_kv_heads, head_dim;
    int64_t rotary_dim;    /* of each head, the leading dimensions that rotate */
    int64_t max_positions; /* the longest sequence the model is made for */
    int64_t original_max;  /* longrope: past it the long factors apply; else max_positions */
    int64_t window;        /* sliding window in keys, 0: none */
    double theta, rms_eps, init_std;
    double attention_factor; /* multiplies cos and sin */
    int tied;                /* lm_head shares the embedding's values */
    int longrope;
} phi3_config;

struct qfw_inst {
    const qfw_host *host;
    phi3_config config;
    /* [rotary_dim / 2] each; without longrope both are the plain frequencies. */
    float *short_freq, *long_freq;
    qfw_param_desc *params;
    uint32_t n_params;
    char *names; /* what the descriptors' strings point into */
    qfw_slice *slices;
    qfw_source *sources;
};

/* config.c: read and check config.json; fills config and the two frequency tables. */
qfw_status phi3_read_config(qfw_inst *m, const qfw_doc *doc);
/* weights.c: the table of parameters that `describe` answers from. */
qfw_status phi3_make_params(qfw_inst *m);
/* layer.c: the graph. */
qfw_status phi3_forward(qfw_inst *m, qfw_graph *g, const qfw_batch_shape *shape, qfw_lm_vals *out);
/* rope.c: cos and sin of a batch's positions, F32[N, rotary_dim/2]. */
qfw_status phi3_fill(
    qfw_inst *m, const qfw_batch *batch, const char *input, void *dst, uint64_t bytes);

#endif

/* model.h -- what a model plugin provides: the names and shapes of its weights, and its forward.
 *
 * A model emits a graph and never sees a backend, an adapter or a file: `linear` of the graph
 * service adds adapters and reads packed weights, the core loads what `describe` names. The same
 * instance serves many graphs.
 */
#ifndef QFW_MODEL_H
#define QFW_MODEL_H

#include "qfw/data.h"
#include "qfw/ops_nn.h"
#include "qfw/ops_prim.h"

enum { QFW_ROLE_EMBED = 1, QFW_ROLE_NORM = 2, QFW_ROLE_LINEAR = 3, QFW_ROLE_HEAD = 4 };
enum { QFW_PARAM_4BIT = 1u << 0 }; /* may be quantised when [model] load_in_4bit says so */
enum { QFW_INIT_NORMAL = 1, QFW_INIT_ONES = 2, QFW_INIT_ZEROS = 3 };

/* A row range of a weight that `target_modules` can name: q_proj inside qkv_proj. */
typedef struct qfw_slice {
    const char *name;
    int64_t row0, rows;
} qfw_slice;
QFW_SEALED(qfw_slice, rows);

/* A tensor in a file that holds rows row0 .. row0+rows-1 of the weight. Sources with the same
 * `layout` together make the whole weight; layout 0 (the first) is how qfw writes it. */
typedef struct qfw_source {
    const char *tensor;
    int64_t row0, rows;
    uint32_t layout, rsv;
} qfw_source;
QFW_SEALED(qfw_source, rsv);

typedef struct qfw_param_desc {
    uint32_t size, role;
    uint32_t flags, rank;
    int64_t dim[QFW_MAX_DIMS];
    const char *name; /* "model.layers.3.self_attn.qkv_proj.weight" */
    /* What target_modules calls it: "qkv_proj"; NULL for what takes no adapter. */
    const char *module;
    const char *tied_to; /* the parameter whose values it shares, or NULL */
    const qfw_slice *slices;
    const qfw_source *sources;
    uint32_t n_slices, n_sources;
    uint32_t init, rsv; /* QFW_INIT_*: a fresh model */
    double init_std;
} qfw_param_desc;
QFW_SEALED(qfw_param_desc, init_std);

typedef struct qfw_model_facts {
    uint32_t size, n_layers;
    int64_t vocab, width, max_positions; /* V, C, the longest sequence the model is made for */
    /* Every row of a sequence longer than this is computed otherwise than in a shorter one
     * (longrope's two sets of factors): what was kept of it is void once it grows past; 0: never */
    int64_t rope_switch;
} qfw_model_facts;
QFW_SEALED(qfw_model_facts, rope_switch);

typedef struct qfw_lm_vals {
    uint32_t size;
    qfw_val hidden;  /* [N,C], after the last norm */
    qfw_val lm_head; /* [V,C] */
} qfw_lm_vals;
QFW_SEALED(qfw_lm_vals, lm_head);

typedef struct qfw_model {
    uint32_t size, rsv;
    /* Read a config.json. A key that would change the arithmetic and is not known is an error that
     * names it; QFW_E_CONFIG or QFW_E_DATA.   [init] */
    qfw_status (*create)(
        const qfw_host *h, const qfw_cfg *cfg, const qfw_doc *config, qfw_inst **out);
    void (*destroy)(qfw_inst *m);                           /* NULL is ignored */
    qfw_status (*facts)(qfw_inst *m, qfw_model_facts *out); /* [any] */
    /* Parameter i; QFW_E_END past the last. Strings and arrays live as long as the instance.
     * [any] */
    qfw_status (*describe)(qfw_inst *m, uint32_t i, qfw_param_desc *out);
    /* Emit the forward for this shape.   [inst] */
    qfw_status (*forward)(
        qfw_inst *m, qfw_graph *g, const qfw_batch_shape *shape, qfw_lm_vals *out);
    /* Values of an input that `forward` declared under a name of its own, before each run.
     * [inst] */
    qfw_status (*fill)(
        qfw_inst *m, const qfw_batch *batch, const char *input, void *dst, uint64_t bytes);
} qfw_model;
QFW_SEALED(qfw_model, fill);

#endif

/* merge.c -- see merge.h. As PEFT merges: the sum in fp32, rounded once. */
#include "train/merge.h"

#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/parallel.h"
#include "files/file.h"
#include "files/json.h"
#include "ops/quant4.h"
#include "ops/ref.h"
#include "train/bnb.h"

enum { BLOCK = 64, NESTED = 256, SLAB_ROWS = 64 };

/* A weight packed on the host as weights_load packs it. */
typedef struct packed {
    packed_weight of;
    qfw_quant quant;
    qfw_tensor t;
} packed;

typedef struct merging {
    run *r;
    int mode;
    const model_weight *w; /* whose rows are asked for */
    packed p;
    float **a, **b;    /* of lora i, where it is the weight's; else NULL */
    packed_weight sum; /* MERGE_REQUANT: what is written */
} merging;

/* Rows of W in `out`, to which the adapters are added. */
typedef struct rows_job {
    const merging *m;
    int64_t row0, width;
    float *out;
} rows_job;

static int is_of(const lora *l, const model_weight *w) { return !strcmp(l->param, w->desc.name); }

static void add_row(void *arg, uint32_t item, uint32_t worker) {
    const rows_job *j = arg;
    const run *r = j->m->r;
    const int64_t row = j->row0 + item;
    float *out = j->out + (int64_t)item * j->width;
    (void)worker;
    for (uint32_t i = 0; i < r->n_loras; i++) {
        const lora *l = &r->loras[i];
        if (!j->m->a[i] || row < l->row0 || row >= l->row0 + l->rows) continue;
        const int64_t rank = l->a->t.dim[0];
        for (int64_t k = 0; k < rank; k++) {
            const float times = l->scale * j->m->b[i][(row - l->row0) * rank + k];
            const float *a = j->m->a[i] + k * j->width;
            for (int64_t c = 0; c < j->width; c++) out[c] += times * a[c];
        }
    }
}

/* --- a weight --- */

static void free_packed(packed_weight *p) {
    mem_free(p->codes);
    mem_free(p->nested_codes);
    mem_free(p->absmax);
    mem_free(p->nested);
    *p = (packed_weight){.codes = NULL};
}

static qfw_status alloc_packed(packed_weight *p, int64_t n) {
    const size_t blocks = (size_t)quant4_blocks(n, BLOCK);
    p->codes = mem_alloc(quant4_code_bytes(n), 1);
    p->nested_codes = mem_alloc(blocks, 1);
    p->absmax = mem_alloc(blocks, sizeof *p->absmax);
    p->nested = mem_alloc(blocks / NESTED + 1, sizeof *p->nested);
    return p->codes && p->nested_codes && p->absmax && p->nested ? QFW_OK : QFW_E_NOMEM;
}

static void leave_weight(merging *m) {
    for (uint32_t i = 0; i < m->r->n_loras; i++) {
        mem_free(m->a[i]);
        mem_free(m->b[i]);
        m->a[i] = m->b[i] = NULL;
    }
    free_packed(&m->p.of);
    free_packed(&m->sum);
    m->p = (packed){.of = {.codes = NULL}};
    m->w = NULL;
}

static qfw_status read_values(const store *s, const store_entry *e, float **out) {
    *out = mem_alloc((size_t)qfw_tensor_count(&e->t), sizeof **out);
    return *out ? store_read(s, e, *out) : QFW_E_NOMEM;
}

static qfw_status read_rows(
    void *arg, const qfw_param_desc *d, int64_t row0, int64_t rows, float *out);

/* Codes and scales of rows, a slab at a time: of the file, or of the sum. */
static qfw_status pack_rows(merging *m, int of_sum, packed_weight *p) {
    const int64_t n_rows = m->w->desc.dim[0], width = m->w->desc.dim[1];
    const int64_t step = width % BLOCK ? n_rows : SLAB_ROWS; /* of whole blocks */
    float *slab = mem_alloc((size_t)(step * width), sizeof *slab);
    qfw_status status = slab ? QFW_OK : QFW_E_NOMEM;
    for (int64_t row = 0, n; status == QFW_OK && row < n_rows; row += n) {
        n = n_rows - row < step ? n_rows - row : step;
        status = of_sum ? read_rows(m, &m->w->desc, row, n, slab)
                        : weights_read_rows(m->r, m->w, row, n, slab);
        const int rounds = !of_sum && m->r->compute == QFW_BF16; /* as weights_load does */
        for (int64_t i = 0; status == QFW_OK && rounds && i < n * width; i++)
            slab[i] = (float)ref_round((double)slab[i], QFW_BF16);
        if (status == QFW_OK)
            status = quant4_encode(m->w->entry->t.dtype, slab, n * width, BLOCK,
                p->codes + row * width / 2, p->absmax + row * width / BLOCK);
    }
    mem_free(slab);
    return status;
}

/* Codes and scales: the file's own, or packed as they are at load. */
static qfw_status fill_packed(merging *m, int of_sum, packed_weight *p) {
    const char *rule = cfg_text(run_cfg(m->r, SECTION_MODEL), "nested_codes");
    const int64_t blocks = quant4_blocks(qfw_tensor_count(&m->w->entry->t), BLOCK);
    if (m->r->is_bnb && !of_sum) return bnb_read(m->r, m->w, p);
    QFW_TRY(pack_rows(m, of_sum, p));
    if (!m->w->entry->t.quant->nested_block) return QFW_OK;
    return quant8_nest(p->absmax, blocks,
        !strcmp(rule, "cpu_table") ? QUANT8_CPU_TABLE : QUANT8_NEAREST, p->nested_codes, p->nested,
        &p->offset);
}

static qfw_status pack_weight(merging *m) {
    packed_weight *p = &m->p.of;
    const int64_t n = qfw_tensor_count(&m->w->entry->t);
    const uint32_t nested = m->w->entry->t.quant->nested_block;
    QFW_TRY(alloc_packed(p, n));
    QFW_TRY(fill_packed(m, 0, p));
    m->p.quant = (qfw_quant){.size = sizeof m->p.quant,
        .block = BLOCK,
        .nested_block = nested,
        .absmax_mem = nested ? (qfw_mem *)p->nested_codes : (qfw_mem *)p->absmax,
        .nested_mem = (qfw_mem *)p->nested,
        .map_mem = (qfw_mem *)(uintptr_t)quant8_map(),
        .offset = (double)p->offset};
    m->p.t = m->w->entry->t;
    m->p.t.mem = (qfw_mem *)p->codes;
    m->p.t.offset = 0;
    m->p.t.quant = &m->p.quant;
    return QFW_OK;
}

static qfw_status enter_weight(merging *m, const qfw_param_desc *d) {
    const run *r = m->r;
    leave_weight(m);
    for (uint32_t i = 0; i < r->n_weights; i++)
        if (&r->weights[i].desc == d) m->w = &r->weights[i];
    for (uint32_t i = 0; i < r->n_loras; i++) {
        if (!is_of(&r->loras[i], m->w)) continue;
        QFW_TRY(read_values(r->store, r->loras[i].a, &m->a[i]));
        QFW_TRY(read_values(r->store, r->loras[i].b, &m->b[i]));
    }
    const int decodes = m->mode != MERGE_BASE16 && m->w->entry->t.quant;
    return decodes ? pack_weight(m) : QFW_OK;
}

static qfw_status read_rows(
    void *arg, const qfw_param_desc *d, int64_t row0, int64_t rows, float *out) {
    merging *m = arg;
    if (!m->w || &m->w->desc != d) QFW_TRY(enter_weight(m, d));
    const int64_t width = d->rank > 1 ? d->dim[1] : 1;
    if (m->p.of.codes)
        quant4_decode(&m->p.t, row0 * width, rows * width, out);
    else
        QFW_TRY(weights_read_rows(m->r, m->w, row0, rows, out));
    rows_job j = {m, row0, width, out};
    parallel_for((uint32_t)rows, add_row, &j);
    return QFW_OK;
}

static qfw_status pack_sum(void *arg, const qfw_param_desc *d, full_packed *out) {
    merging *m = arg;
    QFW_TRY(enter_weight(m, d));
    QFW_TRY(alloc_packed(&m->sum, qfw_tensor_count(&m->w->entry->t)));
    QFW_TRY(fill_packed(m, 1, &m->sum));
    const int nested = m->w->entry->t.quant->nested_block != 0;
    *out = (full_packed){m->sum.codes, nested ? (const void *)m->sum.nested_codes : m->sum.absmax,
        nested ? m->sum.nested : NULL, m->sum.offset};
    return QFW_OK;
}

/* --- the model --- */

uint32_t merged_dtype(const run *r, const model_weight *w) {
    const uint32_t own = weights_file_dtype(r, w);
    return own == QFW_U8 ? weights_file_dtype(r, &r->weights[0]) : own;
}

/* Where the safetensors go. */
typedef struct merged_folder {
    const run *r;
    int mode;
    const char *folder;
} merged_folder;

static qfw_status write_merged(void *arg, const full_rows *from) {
    const merged_folder *to = arg;
    const run *r = to->r;
    uint32_t n = 0;
    full_weight *weights = mem_alloc(r->n_weights, sizeof *weights);
    if (!weights) return QFW_E_NOMEM;
    for (uint32_t i = 0; i < r->n_weights; i++) {
        const model_weight *w = &r->weights[i];
        const int packs = to->mode == MERGE_REQUANT && w->entry->t.quant;
        if (w->tied) continue;
        weights[n++] = (full_weight){&w->desc, NULL, packs ? w->entry->t.dtype : merged_dtype(r, w),
            packs && w->entry->t.quant->nested_block};
    }
    const qfw_status status = full_write_rows(to->folder, from, weights, n, FULL_SHARD_BYTES);
    mem_free(weights);
    return status;
}

/* config.json says whether the weights beside it are quantised. */
static qfw_status write_config(const run *r, int mode, const char *folder) {
    const qfw_cfg *model = run_cfg(r, SECTION_MODEL);
    char quantised[512];
    size_t n = 0;
    snprintf(quantised, sizeof quantised,
        "{\"quant_method\": \"bitsandbytes\", \"load_in_4bit\": true, \"load_in_8bit\": false, "
        "\"_load_in_4bit\": true, \"_load_in_8bit\": false, \"bnb_4bit_quant_type\": \"%s\", "
        "\"bnb_4bit_use_double_quant\": %s, \"bnb_4bit_compute_dtype\": \"float32\", "
        "\"bnb_4bit_quant_storage\": \"uint8\"}",
        cfg_text(model, "bnb_4bit_quant_type"),
        cfg_int(model, "bnb_4bit_use_double_quant") ? "true" : "false");
    char *text = json_replaced(
        r->model_config, "quantization_config", mode == MERGE_REQUANT ? quantised : NULL, &n);
    char *path = path_join(folder, "config.json");
    const qfw_status status = text && path ? file_write(path, text, n) : QFW_E_NOMEM;
    mem_free(path);
    mem_free(text);
    return status;
}

qfw_status merge_rows(
    run *r, int mode, qfw_status (*write)(void *arg, const full_rows *from), void *arg) {
    merging m = {.r = r, .mode = mode};
    const full_rows from = {&m, read_rows, pack_sum};
    if (r->is_bnb && mode == MERGE_BASE16)
        return cfg_problem(r->ini, run_cfg(r, SECTION_EXPORT), "merged",
            "base16, but the base on disk is quantised already; hint: dequant");
    if (mode == MERGE_REQUANT && !cfg_int(run_cfg(r, SECTION_MODEL), "load_in_4bit"))
        return cfg_problem(r->ini, run_cfg(r, SECTION_EXPORT), "merged",
            "requant, but [model] load_in_4bit is false: there is no code to quantise to");
    QFW_TRY(weights_open(r));
    m.a = mem_alloc(2 * (size_t)r->n_loras + 1, sizeof *m.a);
    m.b = m.a ? m.a + r->n_loras : NULL;
    qfw_status status = m.a ? write(arg, &from) : QFW_E_NOMEM;
    if (m.a) leave_weight(&m);
    mem_free(m.a);
    if (status == QFW_OK) status = st_unchanged(r->files);
    st_close(r->files);
    r->files = NULL;
    return status;
}

qfw_status merge_write(run *r, int mode, const char *folder) {
    merged_folder to = {r, mode, folder};
    QFW_TRY(merge_rows(r, mode, write_merged, &to));
    QFW_TRY(full_copy_files(cfg_text(run_cfg(r, SECTION_MODEL), "path"), folder, 0));
    return write_config(r, mode, folder);
}

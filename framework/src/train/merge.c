/* merge.c -- see merge.h. As PEFT merges: the sum in fp32, rounded once. */
#include "train/merge.h"

#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/parallel.h"
#include "export/full.h"
#include "ops/quant4.h"

enum { BLOCK = 64, NESTED = 256, SLAB_ROWS = 64 };

/* A weight packed on the host as weights_load packs it. */
typedef struct packed {
    uint8_t *codes, *nested_codes;
    float *absmax, *nested;
    qfw_quant quant;
    qfw_tensor t;
} packed;

typedef struct merging {
    run *r;
    int mode;
    const model_weight *w; /* whose rows are asked for */
    packed p;
    float **a, **b; /* of lora i, where it is the weight's; else NULL */
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

static void leave_weight(merging *m) {
    for (uint32_t i = 0; i < m->r->n_loras; i++) {
        mem_free(m->a[i]);
        mem_free(m->b[i]);
        m->a[i] = m->b[i] = NULL;
    }
    mem_free(m->p.codes);
    mem_free(m->p.nested_codes);
    mem_free(m->p.absmax);
    mem_free(m->p.nested);
    m->p = (packed){.codes = NULL};
    m->w = NULL;
}

static qfw_status read_values(const store *s, const store_entry *e, float **out) {
    *out = mem_alloc((size_t)qfw_tensor_count(&e->t), sizeof **out);
    return *out ? store_read(s, e, *out) : QFW_E_NOMEM;
}

static qfw_status pack_rows(merging *m, packed *p, float *slab) {
    const int64_t n_rows = m->w->desc.dim[0], width = m->w->desc.dim[1];
    const int64_t step = width % BLOCK ? n_rows : SLAB_ROWS; /* of whole blocks */
    for (int64_t row = 0, n; row < n_rows; row += n) {
        n = n_rows - row < step ? n_rows - row : step;
        QFW_TRY(weights_read_rows(m->r, m->w, row, n, slab));
        QFW_TRY(quant4_encode(m->w->entry->t.dtype, slab, n * width, BLOCK,
            p->codes + row * width / 2, p->absmax + row * width / BLOCK));
    }
    return QFW_OK;
}

static qfw_status nest(const merging *m, packed *p, int64_t blocks) {
    const char *rule = cfg_text(run_cfg(m->r, SECTION_MODEL), "nested_codes");
    float offset = 0;
    QFW_TRY(quant8_nest(p->absmax, blocks,
        !strcmp(rule, "cpu_table") ? QUANT8_CPU_TABLE : QUANT8_NEAREST, p->nested_codes, p->nested,
        &offset));
    p->quant.nested_block = NESTED;
    p->quant.absmax_mem = (qfw_mem *)p->nested_codes;
    p->quant.nested_mem = (qfw_mem *)p->nested;
    p->quant.map_mem = (qfw_mem *)(uintptr_t)quant8_map();
    p->quant.offset = (double)offset;
    return QFW_OK;
}

static qfw_status pack_weight(merging *m) {
    packed *p = &m->p;
    const int64_t n = qfw_tensor_count(&m->w->entry->t), blocks = quant4_blocks(n, BLOCK);
    const int64_t width = m->w->desc.dim[1];
    const int64_t slab_values = width % BLOCK ? n : SLAB_ROWS * width;
    float *slab = mem_alloc((size_t)slab_values, sizeof *slab);
    p->codes = mem_alloc(quant4_code_bytes(n), 1);
    p->nested_codes = mem_alloc((size_t)blocks, 1);
    p->absmax = mem_alloc((size_t)blocks, sizeof *p->absmax);
    p->nested = mem_alloc((size_t)(blocks / NESTED + 1), sizeof *p->nested);
    qfw_status status = slab && p->codes && p->nested_codes && p->absmax && p->nested
                            ? pack_rows(m, p, slab)
                            : QFW_E_NOMEM;
    p->t = m->w->entry->t;
    p->t.mem = (qfw_mem *)p->codes;
    p->t.offset = 0;
    p->quant =
        (qfw_quant){.size = sizeof p->quant, .block = BLOCK, .absmax_mem = (qfw_mem *)p->absmax};
    if (status == QFW_OK && m->w->entry->t.quant->nested_block) status = nest(m, p, blocks);
    p->t.quant = &p->quant;
    mem_free(slab);
    return status;
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
    const int decodes = m->mode == MERGE_DEQUANT && m->w->entry->t.quant;
    return decodes ? pack_weight(m) : QFW_OK;
}

static qfw_status read_rows(
    void *arg, const qfw_param_desc *d, int64_t row0, int64_t rows, float *out) {
    merging *m = arg;
    if (!m->w || &m->w->desc != d) QFW_TRY(enter_weight(m, d));
    const int64_t width = d->rank > 1 ? d->dim[1] : 1;
    if (m->p.codes)
        quant4_decode(&m->p.t, row0 * width, rows * width, out);
    else
        QFW_TRY(weights_read_rows(m->r, m->w, row0, rows, out));
    rows_job j = {m, row0, width, out};
    parallel_for((uint32_t)rows, add_row, &j);
    return QFW_OK;
}

/* --- the model --- */

static qfw_status write_merged(merging *m, const char *folder) {
    const run *r = m->r;
    uint32_t n = 0;
    const full_rows from = {m, read_rows};
    full_weight *weights = mem_alloc(r->n_weights, sizeof *weights);
    if (!weights) return QFW_E_NOMEM;
    for (uint32_t i = 0; i < r->n_weights; i++)
        if (!r->weights[i].tied)
            weights[n++] =
                (full_weight){&r->weights[i].desc, NULL, weights_file_dtype(r, &r->weights[i])};
    const qfw_status status = full_write_rows(folder, &from, weights, n, FULL_SHARD_BYTES);
    mem_free(weights);
    return status;
}

qfw_status merge_write(run *r, int mode, const char *folder) {
    merging m = {.r = r, .mode = mode};
    QFW_TRY(weights_open(r));
    m.a = mem_alloc(2 * (size_t)r->n_loras, sizeof *m.a);
    m.b = m.a ? m.a + r->n_loras : NULL;
    qfw_status status = m.a ? write_merged(&m, folder) : QFW_E_NOMEM;
    if (m.a) leave_weight(&m);
    mem_free(m.a);
    if (status == QFW_OK) status = st_unchanged(r->files);
    st_close(r->files);
    r->files = NULL;
    if (status == QFW_OK)
        status = full_copy_files(cfg_text(run_cfg(r, SECTION_MODEL), "path"), folder, 1);
    return status;
}

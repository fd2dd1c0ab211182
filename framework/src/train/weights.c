/* weights.c -- the model's weights: declared from what the model describes, then read (or made) and
 * packed.
 *
 * Reading streams one tensor at a time: floats from the file, packed at once where the INI says
 * 4-bit, written to the device. Missing, misshapen and unknown tensors are all listed before
 * anything is read.
 */
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/parallel.h"
#include "base/rng.h"
#include "files/safetensors.h"
#include "ops/quant4.h"
#include "train/run.h"

enum { QUANT_BLOCK = 64, NESTED_BLOCK = 256 };

static int64_t weight_count(const qfw_param_desc *d) {
    int64_t n = 1;
    for (uint32_t i = 0; i < d->rank; i++) n *= d->dim[i];
    return n;
}

qfw_status weights_describe(run *r) {
    size_t cap = 0;
    qfw_status status;
    QFW_TRY(r->model->facts(r->model_inst, &r->facts));
    for (;; r->n_weights++) {
        qfw_param_desc desc = {.size = sizeof desc};
        status = r->model->describe(r->model_inst, r->n_weights, &desc);
        if (status != QFW_OK) break;
        if (mem_grow(&r->weights, &cap, r->n_weights + 1, sizeof *r->weights)) return QFW_E_NOMEM;
        r->weights[r->n_weights] = (model_weight){desc, NULL, 0};
    }
    if (status != QFW_E_END) return status;
    for (uint32_t i = 0; i < r->n_weights; i++) {
        if (!r->weights[i].desc.tied_to) continue;
        for (uint32_t j = 0; j < r->n_weights; j++)
            if (!strcmp(r->weights[j].desc.name, r->weights[i].desc.tied_to))
                r->weights[i].tied = j + 1;
        if (!r->weights[i].tied)
            return err_fail("E_PLUG_MODEL", QFW_E_INTERNAL,
                "model %s: %s is tied to %s, which it "
                "does not describe",
                r->model_component->name, r->weights[i].desc.name, r->weights[i].desc.tied_to);
    }
    return QFW_OK;
}

static int is_packed(const run *r, const qfw_param_desc *d) {
    return (d->flags & QFW_PARAM_4BIT) && cfg_int(run_cfg(r, SECTION_MODEL), "load_in_4bit");
}

qfw_status weights_declare(run *r) {
    const qfw_cfg *model = run_cfg(r, SECTION_MODEL);
    const int frozen = strcmp(cfg_text(run_cfg(r, SECTION_ADAPTER), "use"), "none") != 0;
    const uint32_t packed =
        !strcmp(cfg_text(model, "bnb_4bit_quant_type"), "nf4") ? QFW_NF4 : QFW_FP4;
    const uint32_t nested = cfg_int(model, "bnb_4bit_use_double_quant") ? NESTED_BLOCK : 0;
    for (uint32_t i = 0; i < r->n_weights; i++) {
        model_weight *w = &r->weights[i];
        const int four_bit = is_packed(r, &w->desc);
        if (w->tied) continue;
        QFW_TRY(store_add(r->store, w->desc.name, frozen ? QFW_MEM_FROZEN : QFW_MEM_RUN,
            four_bit ? packed : QFW_F32, w->desc.rank, w->desc.dim, four_bit ? QUANT_BLOCK : 0,
            four_bit ? nested : 0, &w->entry));
    }
    for (uint32_t i = 0; i < r->n_weights; i++)
        if (r->weights[i].tied) r->weights[i].entry = r->weights[r->weights[i].tied - 1].entry;
    return QFW_OK;
}

/* Pack `w` and write it to the entry. */
static qfw_status write_packed(run *r, const model_weight *wt, const float *w) {
    store_entry *e = wt->entry;
    const int64_t n = weight_count(&wt->desc), blocks = quant4_blocks(n, QUANT_BLOCK);
    const int64_t nests = (blocks + NESTED_BLOCK - 1) / NESTED_BLOCK;
    const uint32_t rule = !strcmp(cfg_text(run_cfg(r, SECTION_MODEL), "nested_codes"), "cpu_table")
                              ? QUANT8_CPU_TABLE
                              : QUANT8_NEAREST;
    uint8_t *codes = mem_alloc(quant4_code_bytes(n), 1);
    float *absmax = mem_alloc((size_t)blocks, sizeof *absmax);
    uint8_t *nested_codes = mem_alloc((size_t)blocks, 1);
    float *nested = mem_alloc((size_t)nests, sizeof *nested);
    qfw_status status = codes && absmax && nested_codes && nested ? QFW_OK : QFW_E_NOMEM;
    if (status == QFW_OK) {
        status = quant4_encode(e->t.dtype, w, n, QUANT_BLOCK, codes, absmax);
        if (status != QFW_OK) err_prefix("%s", wt->desc.name);
    }
    if (status == QFW_OK && !e->quant.nested_block)
        status = store_write_packed(r->store, e, codes, absmax, NULL, 0);
    if (status == QFW_OK && e->quant.nested_block) {
        float offset = 0;
        status = quant8_nest(absmax, blocks, rule, nested_codes, nested, &offset);
        if (status == QFW_OK)
            status = store_write_packed(r->store, e, codes, nested_codes, nested, offset);
    }
    mem_free(codes);
    mem_free(absmax);
    mem_free(nested_codes);
    mem_free(nested);
    return status;
}

static qfw_status write_weight(run *r, const model_weight *w, const float *data) {
    if (w->entry->t.dtype == QFW_F32) return store_write(r->store, w->entry, data);
    return write_packed(r, w, data);
}

typedef struct fresh { /* one weight being drawn in parallel */
    const qfw_param_desc *desc;
    uint64_t seed;
    int64_t n;
    float *out;
} fresh;
enum { FRESH_PER_ITEM = 4096 };

static void draw_fresh(void *arg, uint32_t item, uint32_t worker) {
    const fresh *f = arg;
    const int64_t first = (int64_t)item * FRESH_PER_ITEM;
    const int64_t past = first + FRESH_PER_ITEM < f->n ? first + FRESH_PER_ITEM : f->n;
    (void)worker;
    for (int64_t i = first; i < past; i++)
        f->out[i] = (float)f->desc->init_std * rng_normal(f->seed, f->desc->name, (uint64_t)i);
}

/* Fresh values, drawn by the weight's name, so that nothing depends on the order of weights. */
static void make_fresh(const run *r, const qfw_param_desc *d, float *out) {
    fresh f = {d, r->seed, weight_count(d), out};
    if (d->init == QFW_INIT_NORMAL) {
        parallel_for((uint32_t)((f.n + FRESH_PER_ITEM - 1) / FRESH_PER_ITEM), draw_fresh, &f);
        return;
    }
    for (int64_t i = 0; i < f.n; i++) out[i] = d->init == QFW_INIT_ONES ? 1.0f : 0.0f;
}

/* Whether the file holds every source of this layout. */
static int has_layout(const st_file *f, const qfw_param_desc *d, uint32_t layout, uint32_t *n) {
    *n = 0;
    for (uint32_t i = 0; i < d->n_sources; i++) {
        if (d->sources[i].layout != layout) continue;
        ++*n;
        if (!st_find(f, d->sources[i].tensor)) return 0;
    }
    return *n > 0;
}

/* The layout in which the file holds the weight; UINT32_MAX: in none. */
static uint32_t layout_of(const st_file *f, const qfw_param_desc *d) {
    uint32_t n = 1;
    for (uint32_t layout = 0; n > 0; layout++)
        if (has_layout(f, d, layout, &n)) return layout;
    return UINT32_MAX;
}

static void check_shape(const qfw_param_desc *d, const qfw_source *s, const st_tensor *t) {
    const int ok =
        t->rank == d->rank && t->dim[0] == s->rows && (d->rank < 2 || t->dim[1] == d->dim[1]);
    if (ok) return;
    (void)err_also("E_MODEL_SHAPE", QFW_E_DATA,
        "%s: %s: rank %u, [%lld, %lld], wanted [%lld, %lld] as config.json says", t->file, t->name,
        t->rank, (long long)t->dim[0], (long long)(t->rank > 1 ? t->dim[1] : 1), (long long)s->rows,
        (long long)(d->rank > 1 ? d->dim[1] : 1));
}

/* Every weight is there in one layout with the right shape, and nothing else is there. */
static qfw_status check_files(const run *r, const st_file *f) {
    uint32_t expected = 0;
    err_clear();
    for (uint32_t i = 0; i < r->n_weights; i++) {
        const qfw_param_desc *d = &r->weights[i].desc;
        const uint32_t layout = layout_of(f, d);
        if (layout == UINT32_MAX && r->weights[i].tied) continue;
        if (layout == UINT32_MAX) {
            (void)err_also("E_MODEL_MISSING", QFW_E_DATA, "%s: %s is missing",
                cfg_text(run_cfg(r, SECTION_MODEL), "path"), d->name);
            continue;
        }
        for (uint32_t s = 0; s < d->n_sources; s++) {
            if (d->sources[s].layout != layout) continue;
            check_shape(d, &d->sources[s], st_find(f, d->sources[s].tensor));
            expected++;
        }
    }
    for (uint32_t t = 0; err_status() == QFW_OK && expected < st_count(f) && t < st_count(f); t++) {
        int known = 0;
        for (uint32_t i = 0; !known && i < r->n_weights; i++)
            for (uint32_t s = 0; s < r->weights[i].desc.n_sources; s++)
                known |= !strcmp(r->weights[i].desc.sources[s].tensor, st_at(f, t)->name);
        if (!known)
            (void)err_also("E_MODEL_EXTRA", QFW_E_DATA,
                "%s: %s: a tensor that the model does not "
                "have",
                st_at(f, t)->file, st_at(f, t)->name);
    }
    return err_status();
}

static qfw_status read_weight(st_file *f, const qfw_param_desc *d, float *out) {
    const uint32_t layout = layout_of(f, d);
    const int64_t cols = d->rank > 1 ? d->dim[1] : 1;
    for (uint32_t s = 0; s < d->n_sources; s++) {
        const qfw_source *src = &d->sources[s];
        if (src->layout != layout) continue;
        QFW_TRY(st_read_f32(f, st_find(f, src->tensor), 0, src->rows, out + src->row0 * cols));
    }
    return QFW_OK;
}

qfw_status weights_load(run *r) {
    const int is_fresh = !strcmp(cfg_text(run_cfg(r, SECTION_MODEL), "init"), "random");
    st_file *f = NULL;
    int64_t largest = 0;
    for (uint32_t i = 0; i < r->n_weights; i++)
        if (weight_count(&r->weights[i].desc) > largest)
            largest = weight_count(&r->weights[i].desc);
    if (!is_fresh) QFW_TRY(st_open_folder(cfg_text(run_cfg(r, SECTION_MODEL), "path"), &f));
    qfw_status status = is_fresh ? QFW_OK : check_files(r, f);
    float *data = status == QFW_OK ? mem_alloc((size_t)largest, sizeof *data) : NULL;
    if (status == QFW_OK && !data) status = QFW_E_NOMEM;
    for (uint32_t i = 0; status == QFW_OK && i < r->n_weights; i++) {
        const model_weight *w = &r->weights[i];
        if (w->tied) continue;
        if (is_fresh)
            make_fresh(r, &w->desc, data);
        else
            status = read_weight(f, &w->desc, data);
        if (status == QFW_OK) status = write_weight(r, w, data);
    }
    if (status == QFW_OK && f) status = st_unchanged(f);
    mem_free(data);
    st_close(f);
    return status;
}

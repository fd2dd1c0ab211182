/* weights.c -- the model's weights: declared from what the model describes, then read (or made) and
 * packed.
 *
 * Reading streams slabs of rows: floats from the file, packed at once where the INI says 4-bit,
 * written to the device. Missing, misshapen and unknown tensors are all listed before
 * anything is read.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/parallel.h"
#include "base/rng.h"
#include "files/safetensors.h"
#include "ops/quant4.h"
#include "ops/ref.h"
#include "train/bnb.h"
#include "train/run.h"

enum { QUANT_BLOCK = 64, NESTED_BLOCK = 256 };

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

/* In how many bits a weight is kept. Trained ones are fp32 masters; with fp16 so are norms and
 * embeddings, which bear the residual stream. */
static uint32_t kept_dtype(const run *r, const qfw_param_desc *d, int frozen) {
    if (!frozen || (r->compute == QFW_F16 && !(d->flags & QFW_PARAM_4BIT))) return QFW_F32;
    return r->compute;
}

/* What 4-bit weights are decoded to; 0: fp32. */
static uint32_t decoded_dtype(const run *r) {
    const char *word = cfg_text(run_cfg(r, SECTION_MODEL), "bnb_4bit_compute_dtype");
    return !strcmp(word, "bfloat16") ? QFW_BF16 : !strcmp(word, "float16") ? QFW_F16 : 0;
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
            four_bit ? packed : kept_dtype(r, &w->desc, frozen), w->desc.rank, w->desc.dim,
            four_bit ? QUANT_BLOCK : 0, four_bit ? nested : 0, &w->entry));
        if (four_bit) w->entry->quant.compute = decoded_dtype(r);
    }
    for (uint32_t i = 0; i < r->n_weights; i++)
        if (r->weights[i].tied) r->weights[i].entry = r->weights[r->weights[i].tied - 1].entry;
    return QFW_OK;
}

/* --- what reading needs on the host: taken once, for the largest weight --- */

typedef struct scratch {
    float *values; /* of a slab */
    uint8_t *codes, *nested_codes;
    float *absmax, *nested;
} scratch;

typedef struct scratch_size {
    uint64_t values, codes, blocks, nested; /* items of each */
} scratch_size;
enum { SLAB_VALUES = 1 << 22 };

static int64_t columns(const qfw_param_desc *d) { return d->rank > 1 ? d->dim[1] : 1; }

/* Rows of the weight that are read at once: a slab, of whole blocks where it is packed. */
static int64_t slab_rows(const model_weight *w) {
    const int64_t rows = w->desc.dim[0], cols = columns(&w->desc);
    if (w->entry->t.quant && cols % QUANT_BLOCK) return rows;
    const int64_t step = SLAB_VALUES / cols > 0 ? SLAB_VALUES / cols : 1;
    return step < rows ? step : rows;
}

static void at_least(uint64_t *most, uint64_t n) {
    if (n > *most) *most = n;
}

static scratch_size scratch_need(const run *r) {
    scratch_size need = {0, 0, 0, 0};
    for (uint32_t i = 0; i < r->n_weights; i++) {
        const model_weight *w = &r->weights[i];
        const int64_t n = qfw_tensor_count(&w->entry->t);
        if (w->tied) at_least(&need.values, 2 * (uint64_t)columns(&w->desc)); /* check_tied */
        if (w->tied) continue;
        at_least(&need.values, (uint64_t)(slab_rows(w) * columns(&w->desc)));
        if (!w->entry->t.quant) continue;
        at_least(&need.codes, quant4_code_bytes(n));
        at_least(&need.blocks, (uint64_t)quant4_blocks(n, QUANT_BLOCK));
    }
    need.nested = (need.blocks + NESTED_BLOCK - 1) / NESTED_BLOCK;
    return need;
}

static void scratch_free(scratch *p) {
    mem_free(p->values);
    mem_free(p->codes);
    mem_free(p->nested_codes);
    mem_free(p->absmax);
    mem_free(p->nested);
}

static qfw_status scratch_alloc(scratch *p, scratch_size n) {
    p->values = mem_alloc(n.values, sizeof *p->values);
    p->codes = mem_alloc(n.codes, 1);
    p->nested_codes = mem_alloc(n.blocks, 1);
    p->absmax = mem_alloc(n.blocks, sizeof *p->absmax);
    p->nested = mem_alloc(n.nested, sizeof *p->nested);
    return p->values && p->codes && p->nested_codes && p->absmax && p->nested ? QFW_OK
                                                                              : QFW_E_NOMEM;
}

/* --- reading --- */

/* A weight on its way to the device, a slab of rows at a time: the floats of one tensor never lie
 * in memory whole. */
typedef struct slab {
    const run *r;
    const model_weight *w;
    st_file *file; /* NULL: fresh values */
    float *data;   /* the scratch's: rows x cols of the slab */
    int64_t row0, rows, cols;
} slab;
enum { FRESH_PER_ITEM = 4096 };

static void draw_fresh(void *arg, uint32_t item, uint32_t worker) {
    const slab *s = arg;
    const qfw_param_desc *d = &s->w->desc;
    const int64_t n = s->rows * s->cols, first = (int64_t)item * FRESH_PER_ITEM;
    const int64_t past = first + FRESH_PER_ITEM < n ? first + FRESH_PER_ITEM : n;
    (void)worker;
    for (int64_t i = first; i < past; i++)
        s->data[i] =
            (float)d->init_std * rng_normal(s->r->seed, d->name, (uint64_t)(s->row0 * s->cols + i));
}

/* Fresh values, drawn by the weight's name, so that nothing depends on the order of weights. */
static void make_fresh(slab *s) {
    const int64_t n = s->rows * s->cols;
    const uint32_t init = s->w->desc.init;
    if (init == QFW_INIT_NORMAL) {
        parallel_for((uint32_t)((n + FRESH_PER_ITEM - 1) / FRESH_PER_ITEM), draw_fresh, s);
        return;
    }
    for (int64_t i = 0; i < n; i++) s->data[i] = init == QFW_INIT_ONES ? 1.0f : 0.0f;
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

enum { SHAPE_TEXT = 192 };

/* "[64, 128]" */
static const char *shape_text(uint32_t rank, const int64_t *dim, char buf[SHAPE_TEXT]) {
    size_t n = 0;
    for (uint32_t i = 0; i < rank && n < SHAPE_TEXT; i++)
        n += (size_t)snprintf(buf + n, SHAPE_TEXT - n, "%s%lld", i ? ", " : "[", (long long)dim[i]);
    if (n < SHAPE_TEXT) snprintf(buf + n, SHAPE_TEXT - n, rank ? "]" : "[]");
    return buf;
}

static void check_shape(const qfw_param_desc *d, const qfw_source *s, const st_tensor *t) {
    const int64_t wanted[2] = {s->rows, d->dim[1]};
    char found_text[SHAPE_TEXT], wanted_text[SHAPE_TEXT];
    const int ok =
        t->rank == d->rank && t->dim[0] == s->rows && (d->rank < 2 || t->dim[1] == d->dim[1]);
    if (ok) return;
    (void)err_also("E_MODEL_SHAPE", QFW_E_DATA,
        "%s: %s: shape %s, wanted %s by the sizes in config.json", t->file, t->name,
        shape_text(t->rank, t->dim, found_text), shape_text(d->rank, wanted, wanted_text));
}

static void check_dtype(const st_tensor *t) {
    if (t->dtype == QFW_F32 || t->dtype == QFW_BF16 || t->dtype == QFW_F16) return;
    (void)err_also("E_ST_DTYPE", QFW_E_DATA,
        "%s: tensor \"%.100s\": dtype: %s, wanted F32, BF16 or F16", t->file, t->name,
        t->dtype_name);
}

/* Of a weight that is missing in part, what is there is not one too many. */
static int is_read(const run *r, const st_file *f, const char *tensor) {
    for (uint32_t i = 0; i < r->n_weights; i++) {
        const qfw_param_desc *d = &r->weights[i].desc;
        for (uint32_t s = 0; s < d->n_sources; s++)
            if (!strcmp(d->sources[s].tensor, tensor)) {
                const uint32_t layout = layout_of(f, d);
                return layout == UINT32_MAX || layout == d->sources[s].layout;
            }
    }
    return 0;
}

static void list_extra(const run *r, const st_file *f) {
    for (uint32_t i = 0; i < st_count(f); i++)
        if (!is_read(r, f, st_at(f, i)->name) && !bnb_is_beside(r, st_at(f, i)->name))
            (void)err_also("E_MODEL_EXTRA", QFW_E_DATA,
                "%s: %s: a tensor that the model does not have, or has in another form there, too",
                st_at(f, i)->file, st_at(f, i)->name);
}

/* Every weight is there in one layout with the right shape, and nothing else is there. */
static qfw_status check_files(const run *r, st_file *f) {
    uint32_t expected = 0;
    err_clear();
    for (uint32_t i = 0; i < r->n_weights; i++) {
        const qfw_param_desc *d = &r->weights[i].desc;
        const uint32_t layout = layout_of(f, d);
        if (r->is_bnb && is_packed(r, d)) {
            expected += bnb_check(r, f, d);
            continue;
        }
        if (layout == UINT32_MAX && r->weights[i].tied) continue;
        if (layout == UINT32_MAX) {
            (void)err_also("E_MODEL_MISSING", QFW_E_DATA, "%s: %s is missing",
                cfg_text(run_cfg(r, SECTION_MODEL), "path"), d->name);
            continue;
        }
        for (uint32_t s = 0; s < d->n_sources; s++) {
            if (d->sources[s].layout != layout) continue;
            check_shape(d, &d->sources[s], st_find(f, d->sources[s].tensor));
            check_dtype(st_find(f, d->sources[s].tensor));
            expected++;
        }
    }
    if (expected < st_count(f)) list_extra(r, f);
    return err_status();
}

/* The slab's rows out of the tensors that hold them. */
static qfw_status read_slab(slab *s) {
    const qfw_param_desc *d = &s->w->desc;
    const uint32_t layout = layout_of(s->file, d);
    for (uint32_t i = 0; i < d->n_sources; i++) {
        const qfw_source *src = &d->sources[i];
        const int64_t first = s->row0 > src->row0 ? s->row0 : src->row0;
        const int64_t past =
            s->row0 + s->rows < src->row0 + src->rows ? s->row0 + s->rows : src->row0 + src->rows;
        if (src->layout != layout || first >= past) continue;
        QFW_TRY(st_read_f32(s->file, st_find(s->file, src->tensor), first - src->row0, past - first,
            s->data + (first - s->row0) * s->cols));
    }
    return QFW_OK;
}

qfw_status weights_read_rows(
    const run *r, const model_weight *w, int64_t row0, int64_t rows, float *out) {
    slab s = {r, w, r->files, out, row0, rows, columns(&w->desc)};
    return read_slab(&s);
}

uint32_t weights_file_dtype(const run *r, const model_weight *w) {
    const qfw_param_desc *d = &w->desc;
    const uint32_t layout = layout_of(r->files, d);
    for (uint32_t i = 0; i < d->n_sources; i++)
        if (d->sources[i].layout == layout) return st_find(r->files, d->sources[i].tensor)->dtype;
    return QFW_F32;
}

/* The slab's floats; in a bf16 run those of frozen weights are rounded to that, as a model is that
 * is loaded so, before anything is packed. */
static qfw_status fill_slab(slab *s) {
    const int64_t n = s->rows * s->cols;
    if (s->file)
        QFW_TRY(read_slab(s));
    else
        make_fresh(s);
    const int rounds = s->r->compute == QFW_BF16 && s->w->entry->t.dtype != QFW_F32;
    for (int64_t i = 0; rounds && i < n; i++)
        s->data[i] = (float)ref_round((double)s->data[i], QFW_BF16);
    return QFW_OK;
}

/* The slab's floats become values of 16 bits, in place; all of them are finite there, too. */
static qfw_status to_half(slab *s, uint32_t dtype) {
    const int64_t n = s->rows * s->cols;
    for (int64_t i = 0; i < n; i++) {
        const double v = (double)s->data[i];
        const uint16_t half = dtype == QFW_BF16 ? ref_bf16(v) : ref_f16(v);
        if (isfinite(v) && !isfinite(ref_round(v, dtype)))
            return err_fail("E_MODEL_RANGE", QFW_E_DATA,
                "%s: value %lld is %g, past what fp16 holds (65504); hint: bf16 = true",
                s->w->desc.name, (long long)(s->row0 * s->cols + i), v);
        memcpy((char *)s->data + (size_t)i * sizeof half, &half, sizeof half);
    }
    return QFW_OK;
}

static qfw_status load_plain(slab *s, int64_t step) {
    store_entry *e = s->w->entry;
    for (s->row0 = 0; s->row0 < e->t.dim[0]; s->row0 += s->rows) {
        s->rows = e->t.dim[0] - s->row0 < step ? e->t.dim[0] - s->row0 : step;
        QFW_TRY(fill_slab(s));
        if (e->t.dtype != QFW_F32) QFW_TRY(to_half(s, e->t.dtype));
        QFW_TRY(store_write_rows(s->r->store, e, s->row0, s->rows, s->data));
    }
    return QFW_OK;
}

static qfw_status write_packed(const slab *s, scratch *p) {
    store_entry *e = s->w->entry;
    const char *rule = cfg_text(run_cfg(s->r, SECTION_MODEL), "nested_codes");
    float offset = 0;
    if (!e->quant.nested_block)
        return store_write_packed(s->r->store, e, p->codes, p->absmax, NULL, 0);
    QFW_TRY(quant8_nest(p->absmax, quant4_blocks(qfw_tensor_count(&e->t), QUANT_BLOCK),
        !strcmp(rule, "cpu_table") ? QUANT8_CPU_TABLE : QUANT8_NEAREST, p->nested_codes, p->nested,
        &offset));
    return store_write_packed(s->r->store, e, p->codes, p->nested_codes, p->nested, offset);
}

/* Slabs are whole blocks (`step` rows), so each is packed on its own. */
static qfw_status load_packed(slab *s, int64_t step, scratch *p) {
    const store_entry *e = s->w->entry;
    for (s->row0 = 0; s->row0 < e->t.dim[0]; s->row0 += s->rows) {
        s->rows = e->t.dim[0] - s->row0 < step ? e->t.dim[0] - s->row0 : step;
        const int64_t first = s->row0 * s->cols;
        QFW_TRY(fill_slab(s));
        const qfw_status status = quant4_encode(e->t.dtype, s->data, s->rows * s->cols, QUANT_BLOCK,
            p->codes + first / 2, p->absmax + first / QUANT_BLOCK);
        if (status == QFW_OK) continue;
        err_prefix("%s", s->w->desc.name);
        return status;
    }
    return write_packed(s, p);
}

static qfw_status load_bnb(const run *r, const model_weight *w, scratch *host) {
    packed_weight p = {host->codes, host->absmax, host->nested_codes, host->nested, 0};
    store_entry *e = w->entry;
    QFW_TRY(bnb_read(r, w, &p));
    if (!e->quant.nested_block) return store_write_packed(r->store, e, p.codes, p.absmax, NULL, 0);
    return store_write_packed(r->store, e, p.codes, p.nested_codes, p.nested, p.offset);
}

static qfw_status load_weight(const run *r, const model_weight *w, st_file *file, scratch *host) {
    if (r->is_bnb && file && w->entry->t.quant) return load_bnb(r, w, host);
    slab s = {.r = r, .w = w, .file = file, .data = host->values, .cols = columns(&w->desc)};
    const int64_t step = slab_rows(w);
    return w->entry->t.quant ? load_packed(&s, step, host) : load_plain(&s, step);
}

uint64_t weights_load_bytes(const run *r) {
    const scratch_size n = scratch_need(r);
    return n.values * sizeof(float) + n.codes + n.blocks * (1 + sizeof(float)) +
           n.nested * sizeof(float);
}

/* A checkpoint may hold the tied weight, too. If it is another one there, file and config.json
 * describe different models. `values` has room for a slab, here for two halves of one. */
static qfw_status check_tied(const run *r, const model_weight *w, float *values) {
    const qfw_param_desc *d = &w->desc, *other = &r->weights[w->tied - 1].desc;
    const st_tensor *t = r->files ? st_find(r->files, d->name) : NULL;
    const st_tensor *tied_to = r->files ? st_find(r->files, other->name) : NULL;
    const int64_t cols = columns(d), step = slab_rows(w) / 2 > 0 ? slab_rows(w) / 2 : 1;
    if (!t || !tied_to) return QFW_OK;
    for (int64_t row = 0, rows; row < d->dim[0]; row += rows) {
        rows = d->dim[0] - row < step ? d->dim[0] - row : step;
        float *others = values + rows * cols;
        QFW_TRY(st_read_f32(r->files, t, row, rows, values));
        QFW_TRY(st_read_f32(r->files, tied_to, row, rows, others));
        for (int64_t i = 0; i < rows * cols; i++)
            if (values[i] != others[i])
                return err_fail("E_CFG_UNSUPPORTED", QFW_E_DATA,
                    "%s: %s: value %lld is not that of %s, but config.json says that they are one "
                    "(tie_word_embeddings); hint: tie_word_embeddings = false there, if the file "
                    "is right",
                    t->file, d->name, (long long)(row * cols + i), other->name);
    }
    return QFW_OK;
}

static void say_loading(const run *r, uint32_t i) {
    char text[96];
    snprintf(text, sizeof text, "%s weights: %u of %u",
        strcmp(cfg_text(run_cfg(r, SECTION_MODEL), "init"), "random") ? "reading" : "drawing", i,
        r->n_weights);
    log_status(text);
}

qfw_status weights_open(run *r) {
    const qfw_cfg *model = run_cfg(r, SECTION_MODEL);
    if (!strcmp(cfg_text(model, "init"), "random")) return QFW_OK;
    QFW_TRY(st_open_folder(cfg_text(model, "path"), &r->files));
    return check_files(r, r->files);
}

qfw_status weights_load(run *r) {
    scratch host = {.values = NULL};
    qfw_status status = scratch_alloc(&host, scratch_need(r));
    for (uint32_t i = 0; status == QFW_OK && i < r->n_weights; i++) {
        if (r->host->cancelled(r->host)) {
            status = err_fail("E_SIGNAL", QFW_E_CANCELLED,
                "stopped after %u of %u weights, before the first step; nothing was written", i,
                r->n_weights);
            break;
        }
        say_loading(r, i);
        status = r->weights[i].tied ? check_tied(r, &r->weights[i], host.values)
                                    : load_weight(r, &r->weights[i], r->files, &host);
    }
    log_status(NULL);
    if (status == QFW_OK && r->files) status = st_unchanged(r->files);
    scratch_free(&host);
    st_close(r->files);
    r->files = NULL;
    return status;
}

/* to_gguf.c -- see to_gguf.h. */
#include "train/to_gguf.h"

#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "base/parallel.h"
#include "export/gguf_model.h"
#include "files/file.h"
#include "ops/ref.h"
#include "train/merge.h"
#include "train/progress.h"

/* --- the model: what the converter makes of the merged folder, in the dtypes that it has there ---
 */

typedef struct model_file {
    gguf_source source;
    const run *r;
    const full_rows *sums;
    const char *path;
    uint32_t type;
} model_file;

enum { ITEM_VALUES = 1 << 14 };

typedef struct rounding {
    float *values;
    int64_t n;
    uint32_t dtype;
} rounding;

static void round_item(void *arg, uint32_t item, uint32_t worker) {
    const rounding *j = arg;
    const int64_t first = (int64_t)item * ITEM_VALUES;
    (void)worker;
    for (int64_t i = first; i < j->n && i < first + ITEM_VALUES; i++)
        j->values[i] = (float)ref_round((double)j->values[i], j->dtype);
}

static qfw_status read_merged(
    void *arg, const qfw_param_desc *d, int64_t row0, int64_t rows, float *out) {
    const model_file *f = arg;
    const int64_t n = rows * (d->rank > 1 ? d->dim[1] : 1);
    uint32_t dtype = QFW_F32;
    for (uint32_t i = 0; i < f->r->n_weights; i++)
        if (&f->r->weights[i].desc == d) dtype = merged_dtype(f->r, &f->r->weights[i]);
    QFW_TRY(f->sums->read(f->sums->arg, d, row0, rows, out));
    rounding j = {out, n, dtype};
    if (dtype != QFW_F32)
        parallel_for((uint32_t)((n + ITEM_VALUES - 1) / ITEM_VALUES), round_item, &j);
    return QFW_OK;
}

static qfw_status write_model(void *arg, const full_rows *from) {
    model_file *f = arg;
    const full_rows rows = {f, read_merged, NULL};
    f->sums = from;
    f->source.rows = &rows;
    return gguf_write_model(f->path, &f->source, f->type);
}

/* --- the adapter: llama.cpp knows one per weight, so slices become one --- */

typedef struct adapter_file {
    gguf_lora *lora;
    float **values; /* A and B of each, owned */
    uint32_t n;
    float alpha;
} adapter_file;

static void free_adapter(adapter_file *f) {
    for (uint32_t i = 0; f->values && i < 2 * f->n; i++) mem_free(f->values[i]);
    mem_free(f->values);
    mem_free(f->lora);
}

/* The adapter's part l from row `at` of A and column `at` of B on. */
static qfw_status add_part(const run *r, const lora *l, gguf_lora *to, int64_t at, float times) {
    const int64_t rank = l->a->t.dim[0], rows = l->b->t.dim[0];
    float *b = mem_alloc((size_t)(rows * rank), sizeof *b), *a = (float *)(uintptr_t)to->a;
    float *whole = (float *)(uintptr_t)to->b;
    qfw_status status = b ? store_read(r->store, l->a, a + at * to->in) : QFW_E_NOMEM;
    if (status == QFW_OK) status = store_read(r->store, l->b, b);
    for (int64_t i = 0; status == QFW_OK && i < rows; i++)
        for (int64_t k = 0; k < rank; k++)
            whole[(l->row0 + i) * to->rank + at + k] = times * b[i * rank + k];
    mem_free(b);
    return status;
}

static int is_of(const lora *l, const model_weight *w) { return !strcmp(l->param, w->desc.name); }

static qfw_status add_weight(const run *r, const model_weight *w, adapter_file *f) {
    gguf_lora *to = &f->lora[f->n];
    int64_t at = 0;
    float scale = 0;
    *to = (gguf_lora){.param = w->desc.name, .in = w->desc.dim[1], .out = w->desc.dim[0]};
    for (uint32_t i = 0; i < r->n_loras; i++)
        if (is_of(&r->loras[i], w)) {
            to->rank += r->loras[i].a->t.dim[0];
            if (at++ == 0) scale = r->loras[i].scale;
        }
    if (!to->rank) return QFW_OK;
    if (f->n == 0) f->alpha = scale * (float)to->rank;
    to->a = f->values[2 * f->n] = mem_alloc((size_t)(to->rank * to->in), sizeof(float));
    to->b = f->values[2 * f->n + 1] = mem_alloc((size_t)(to->out * to->rank), sizeof(float));
    f->n++;
    if (!to->a || !to->b) return QFW_E_NOMEM;
    at = 0;
    for (uint32_t i = 0; i < r->n_loras; i++) {
        const lora *l = &r->loras[i];
        if (!is_of(l, w)) continue;
        /* The file has one alpha for all; what differs from it goes into B. */
        QFW_TRY(add_part(r, l, to, at, l->scale * (float)to->rank / f->alpha));
        at += l->a->t.dim[0];
    }
    return QFW_OK;
}

static qfw_status write_adapter(const run *r, const gguf_source *s, const char *path) {
    adapter_file f = {.n = 0};
    f.lora = mem_alloc(r->n_weights, sizeof *f.lora);
    f.values = mem_alloc(2 * (size_t)r->n_weights, sizeof *f.values);
    qfw_status status = f.lora && f.values ? QFW_OK : QFW_E_NOMEM;
    for (uint32_t i = 0; status == QFW_OK && i < r->n_weights; i++)
        if (!r->weights[i].tied) status = add_weight(r, &r->weights[i], &f);
    if (status == QFW_OK) status = gguf_write_adapter(path, s, f.lora, f.n, f.alpha);
    free_adapter(&f);
    return status;
}

/* --- both --- */

/* It reads back; what it holds, for a person. */
static qfw_status check_file(const char *path, FILE *out) {
    gguf_file *f = NULL;
    uint32_t n = 0;
    uint64_t bytes = 0;
    char size[32];
    QFW_TRY(gguf_open(path, &f));
    for (const gguf_tensor *t; (t = gguf_at(f, n)) != NULL; n++) bytes += t->bytes;
    gguf_close(f);
    fprintf(out, "  gguf       %s: %u tensors, %s\n", path, n, format_bytes(bytes, size));
    return QFW_OK;
}

static const char *last_of(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

qfw_status to_gguf(run *r, int mode, const char *folder, FILE *out) {
    const qfw_cfg *c = run_cfg(r, SECTION_EXPORT);
    const char *type = cfg_text(c, "gguf");
    const qfw_param_desc **desc = mem_alloc(r->n_weights, sizeof *desc);
    char *model = mem_printf("%s/model-%s.gguf", folder, type);
    char *adapter = path_join(folder, "adapter.gguf");
    model_file f = {.r = r, .path = model, .type = !strcmp(type, "q8_0") ? GGUF_Q8_0 : GGUF_F16};
    qfw_status status = desc && model && adapter ? QFW_OK : QFW_E_NOMEM;
    f.source = (gguf_source){.folder = cfg_text(run_cfg(r, SECTION_MODEL), "path"),
        .config = r->model_config,
        .desc = desc};
    f.source.name = last_of(f.source.folder);
    for (uint32_t i = 0; status == QFW_OK && i < r->n_weights; i++)
        if (!r->weights[i].tied) desc[f.source.n++] = &r->weights[i].desc;
    if (status == QFW_OK && strcmp(type, "none")) {
        status = merge_rows(r, mode, write_model, &f);
        if (status == QFW_OK) status = check_file(model, out);
    }
    if (status == QFW_OK && cfg_int(c, "gguf_adapter")) {
        status = write_adapter(r, &f.source, adapter);
        if (status == QFW_OK) status = check_file(adapter, out);
    }
    mem_free(desc);
    mem_free(model);
    mem_free(adapter);
    return status;
}

/* full.c -- a store's weights into the files that transformers reads. */
#define _POSIX_C_SOURCE 200809L
#include "export/full.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/mem.h"
#include "export/entry.h"
#include "files/file.h"
#include "files/json.h"
#include "ops/quant4.h"
#include "ops/ref.h"

static const char single_name[] = "model.safetensors";
static const char index_name[] = "model.safetensors.index.json";

typedef struct model { /* while it is written */
    const char *folder;
    store *store; /* or: */
    const full_rows *rows;
    const full_weight *weights;
    uint32_t n_weights, n_shards;
    uint32_t *shard; /* of each weight */
    uint64_t bytes;  /* of all tensors */
} model;

static uint32_t dtype_of(const full_weight *w) { return w->dtype ? w->dtype : QFW_F32; }

static uint64_t row_values(const qfw_param_desc *d) {
    uint64_t n = 1;
    for (uint32_t i = 1; i < d->rank; i++) n *= (uint64_t)d->dim[i];
    return n;
}

static int is_packed(const full_weight *w) { return w->dtype == QFW_NF4 || w->dtype == QFW_FP4; }

static uint64_t weight_bytes(const full_weight *w) {
    if (is_packed(w)) /* codes and scales; the rest is small */
        return (uint64_t)w->desc->dim[0] * row_values(w->desc) * 9 / 16;
    return (uint64_t)w->desc->dim[0] * row_values(w->desc) * qfw_dtype_bytes(dtype_of(w));
}

/* Fill shards in order; a weight that is larger than a shard has one of its own. */
static qfw_status assign_shards(model *m, uint64_t shard_bytes) {
    uint64_t used = 0;
    m->shard = mem_alloc(m->n_weights, sizeof *m->shard);
    if (!m->shard) return QFW_E_NOMEM;
    m->n_shards = 1;
    for (uint32_t i = 0; i < m->n_weights; i++) {
        const full_weight *w = &m->weights[i];
        const uint64_t bytes = weight_bytes(w);
        if (w->entry && w->entry->t.dtype != QFW_F32)
            return err_fail("E_UNSUPPORTED", QFW_E_UNSUPPORTED,
                "%s: a weight of dtype %s cannot be written, wanted f32", w->desc->name,
                qfw_dtype_name(w->entry->t.dtype));
        if (used > 0 && used + bytes > shard_bytes) {
            m->n_shards++;
            used = 0;
        }
        m->shard[i] = m->n_shards - 1;
        used += bytes;
        m->bytes += bytes;
    }
    return QFW_OK;
}

static void shard_name(const model *m, uint32_t shard, char *name, size_t cap) {
    if (m->n_shards == 1)
        snprintf(name, cap, "%s", single_name);
    else
        snprintf(name, cap, "model-%05u-of-%05u.safetensors", shard + 1, m->n_shards);
}

/* --- packed weights, as bitsandbytes writes them --- */

enum { BLOCK = 64, NESTED_BLOCK = 256, STATE_BYTES = 256 };

/* Where the whole weight stands under its own name. */
static const char *whole_name(const qfw_param_desc *d) {
    for (uint32_t i = 0; i < d->n_sources; i++)
        if (d->sources[i].rows == d->dim[0]) return d->sources[i].tensor;
    return d->name;
}

static qfw_status add_part(st_writer *w, const full_weight *weight, const char *part,
    uint32_t dtype, uint32_t rank, int64_t n) {
    const int64_t dim[2] = {n, 1};
    char name[512];
    snprintf(name, sizeof name, "%s%s%s", whole_name(weight->desc), *part ? "." : "", part);
    return st_writer_add(w, name, dtype, rank, dim);
}

static const char *state_part(const full_weight *weight) {
    return weight->dtype == QFW_NF4 ? "quant_state.bitsandbytes__nf4"
                                    : "quant_state.bitsandbytes__fp4";
}

static qfw_status declare_packed(st_writer *w, const full_weight *weight) {
    const int64_t n = weight->desc->dim[0] * (int64_t)row_values(weight->desc);
    const int64_t blocks = quant4_blocks(n, BLOCK);
    QFW_TRY(add_part(w, weight, "", QFW_U8, 2, (int64_t)quant4_code_bytes(n)));
    QFW_TRY(add_part(w, weight, "absmax", weight->nested ? QFW_U8 : QFW_F32, 1, blocks));
    QFW_TRY(add_part(w, weight, "quant_map", QFW_F32, 1, 16));
    if (weight->nested) {
        const int64_t nested = (blocks + NESTED_BLOCK - 1) / NESTED_BLOCK;
        QFW_TRY(add_part(w, weight, "nested_absmax", QFW_F32, 1, nested));
        QFW_TRY(add_part(w, weight, "nested_quant_map", QFW_F32, 1, 256));
    }
    return add_part(w, weight, state_part(weight), QFW_U8, 1, STATE_BYTES);
}

/* Ends in blanks: its size is declared before the offset is known. */
static qfw_status write_state(st_writer *w, const full_weight *weight, const full_packed *p) {
    char text[STATE_BYTES + 1], nested[128] = "";
    if (weight->nested)
        snprintf(nested, sizeof nested,
            ", \"nested_blocksize\": 256, \"nested_dtype\": \"float32\", \"nested_offset\": %.17g",
            (double)p->offset);
    const int n = snprintf(text, sizeof text,
        "{\"quant_type\": \"%s\", \"blocksize\": 64, \"dtype\": \"float32\", \"shape\": [%lld, "
        "%lld]%s}",
        weight->dtype == QFW_NF4 ? "nf4" : "fp4", (long long)weight->desc->dim[0],
        (long long)weight->desc->dim[1], nested);
    memset(text + n, ' ', (size_t)(STATE_BYTES - n));
    return st_writer_data(w, text, STATE_BYTES);
}

static qfw_status write_packed(st_writer *w, const model *m, const full_weight *weight) {
    const int64_t n = weight->desc->dim[0] * (int64_t)row_values(weight->desc);
    const uint64_t blocks = (uint64_t)quant4_blocks(n, BLOCK);
    full_packed p = {.codes = NULL};
    QFW_TRY(m->rows->pack(m->rows->arg, weight->desc, &p));
    QFW_TRY(st_writer_data(w, p.codes, quant4_code_bytes(n)));
    QFW_TRY(st_writer_data(w, p.absmax, blocks * (weight->nested ? 1 : sizeof(float))));
    QFW_TRY(st_writer_data(w, quant4_codebook(weight->dtype), 16 * sizeof(float)));
    if (weight->nested) {
        const uint64_t nested = (blocks + NESTED_BLOCK - 1) / NESTED_BLOCK;
        QFW_TRY(st_writer_data(w, p.nested, nested * sizeof(float)));
        QFW_TRY(st_writer_data(w, quant8_map(), 256 * sizeof(float)));
    }
    return write_state(w, weight, &p);
}

/* --- plain ones --- */

static qfw_status declare_weight(st_writer *w, const full_weight *weight) {
    const qfw_param_desc *d = weight->desc;
    if (is_packed(weight)) return declare_packed(w, weight);
    for (uint32_t i = 0; i < d->n_sources; i++) {
        int64_t dim[QFW_MAX_DIMS];
        if (d->sources[i].layout != 0) continue;
        memcpy(dim, d->dim, sizeof dim);
        dim[0] = d->sources[i].rows;
        QFW_TRY(st_writer_add(w, d->sources[i].tensor, dtype_of(weight), d->rank, dim));
    }
    return QFW_OK;
}

/* In place: the narrow values take the front of the floats'. */
static void narrow(float *values, uint64_t n, uint32_t dtype) {
    uint16_t *to = (uint16_t *)(void *)values;
    for (uint64_t i = 0; i < n && dtype != QFW_F32; i++) {
        const double v = (double)values[i];
        to[i] = dtype == QFW_BF16 ? ref_bf16(v) : ref_f16(v);
    }
}

static qfw_status copy_rows(
    st_writer *w, const model *m, const full_weight *weight, int64_t row0, int64_t rows) {
    enum { PIECE_VALUES = 1 << 20 };
    const uint64_t width = row_values(weight->desc);
    const int64_t most = PIECE_VALUES / width > 0 ? (int64_t)(PIECE_VALUES / width) : 1;
    if (!m->rows) return entry_write_rows(w, m->store, weight->entry, row0, rows);
    float *piece = mem_alloc((size_t)most * width, sizeof *piece);
    qfw_status status = piece ? QFW_OK : QFW_E_NOMEM;
    for (int64_t row = row0, n; status == QFW_OK && row < row0 + rows; row += n) {
        n = row0 + rows - row < most ? row0 + rows - row : most;
        const uint64_t values = (uint64_t)n * width;
        status = m->rows->read(m->rows->arg, weight->desc, row, n, piece);
        if (status != QFW_OK) break;
        narrow(piece, values, dtype_of(weight));
        status = st_writer_data(w, piece, values * qfw_dtype_bytes(dtype_of(weight)));
    }
    mem_free(piece);
    return status;
}

static qfw_status write_weight(st_writer *w, const model *m, const full_weight *weight) {
    const qfw_param_desc *d = weight->desc;
    if (is_packed(weight)) return write_packed(w, m, weight);
    for (uint32_t i = 0; i < d->n_sources; i++)
        if (d->sources[i].layout == 0)
            QFW_TRY(copy_rows(w, m, weight, d->sources[i].row0, d->sources[i].rows));
    return QFW_OK;
}

static qfw_status write_shard(const model *m, uint32_t shard) {
    char name[64];
    st_writer *w = NULL;
    shard_name(m, shard, name, sizeof name);
    char *path = path_join(m->folder, name);
    qfw_status status = path ? st_writer_create(path, &w) : QFW_E_NOMEM;
    mem_free(path);
    if (status == QFW_OK) status = st_writer_meta(w, "format", "pt");
    for (uint32_t i = 0; status == QFW_OK && i < m->n_weights; i++)
        if (m->shard[i] == shard) status = declare_weight(w, &m->weights[i]);
    for (uint32_t i = 0; status == QFW_OK && i < m->n_weights; i++)
        if (m->shard[i] == shard) status = write_weight(w, m, &m->weights[i]);
    if (status == QFW_OK) return st_writer_finish(w);
    st_writer_abort(w);
    return status;
}

static void put_packed_index(json_out *o, const full_weight *w, const char *shard) {
    static const char *const parts[] = {
        "", ".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map"};
    char name[512];
    for (uint32_t i = 0; i < (w->nested ? 5u : 3u); i++) {
        snprintf(name, sizeof name, "%s%s", whole_name(w->desc), parts[i]);
        json_str(o, name, shard);
    }
    snprintf(name, sizeof name, "%s.%s", whole_name(w->desc), state_part(w));
    json_str(o, name, shard);
}

static void put_index(json_out *o, const model *m) {
    char name[64];
    json_open(o, NULL, '{');
    json_open(o, "metadata", '{');
    json_int(o, "total_size", (int64_t)m->bytes);
    json_close(o);
    json_open(o, "weight_map", '{');
    for (uint32_t i = 0; i < m->n_weights; i++) {
        const qfw_param_desc *d = m->weights[i].desc;
        shard_name(m, m->shard[i], name, sizeof name);
        if (is_packed(&m->weights[i])) put_packed_index(o, &m->weights[i], name);
        for (uint32_t k = 0; k < d->n_sources && !is_packed(&m->weights[i]); k++)
            if (d->sources[k].layout == 0) json_str(o, d->sources[k].tensor, name);
    }
    json_close(o);
    json_close(o);
}

static qfw_status write_index(const model *m) {
    size_t n = 0;
    json_out *o = json_out_create(2);
    put_index(o, m);
    const char *text = json_out_text(o, &n);
    char *path = text ? path_join(m->folder, index_name) : NULL;
    const qfw_status status = path ? file_write(path, text, n) : QFW_E_NOMEM;
    mem_free(path);
    json_out_destroy(o);
    return status;
}

/* A folder with both an index and a single file would be ambiguous. */
static qfw_status remove_stale(const char *folder, const char *name) {
    char *path = path_join(folder, name);
    if (!path) return QFW_E_NOMEM;
    const int failed = unlink(path) != 0 && errno != ENOENT;
    const qfw_status status = failed ? err_fail("E_IO_REMOVE", QFW_E_IO,
                                           "%s: cannot be removed: %s", path, strerror(errno))
                                     : QFW_OK;
    mem_free(path);
    return status;
}

static qfw_status write_model(model m, uint64_t shard_bytes) {
    const char *folder = m.folder;
    qfw_status status = assign_shards(&m, shard_bytes);
    for (uint32_t i = 0; status == QFW_OK && i < m.n_shards; i++) status = write_shard(&m, i);
    const int one = m.n_shards == 1;
    if (status == QFW_OK && !one) status = write_index(&m);
    if (status == QFW_OK) status = remove_stale(folder, one ? index_name : single_name);
    mem_free(m.shard);
    return status;
}

qfw_status full_write(
    const char *folder, store *s, const full_weight *weights, uint32_t n, uint64_t shard_bytes) {
    const model m = {.folder = folder, .store = s, .weights = weights, .n_weights = n};
    return write_model(m, shard_bytes);
}

qfw_status full_write_rows(const char *folder, const full_rows *from, const full_weight *weights,
    uint32_t n, uint64_t shard_bytes) {
    const model m = {.folder = folder, .rows = from, .weights = weights, .n_weights = n};
    return write_model(m, shard_bytes);
}

const char *const full_files[] = {"config.json", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "tokenizer.model", "chat_template.jinja",
    "generation_config.json", NULL};

qfw_status full_copy_files(const char *from, const char *to, int with_config) {
    for (size_t i = with_config ? 0 : 1; full_files[i]; i++) {
        char *a = path_join(from, full_files[i]), *b = path_join(to, full_files[i]);
        qfw_status status = a && b ? QFW_OK : QFW_E_NOMEM;
        if (status == QFW_OK && file_exists(a)) status = file_copy(a, b);
        mem_free(a);
        mem_free(b);
        QFW_TRY(status);
    }
    return QFW_OK;
}

/* bnb.c -- see bnb.h. */
#include "train/bnb.h"

#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "files/json.h"
#include "ops/quant4.h"

enum { BLOCK = 64, NESTED_BLOCK = 256, CODES = 16, MAP = 256, MAX_STATE = 4096 };

/* --- config.json --- */

static const char *type_name(const run *r) {
    return cfg_text(run_cfg(r, SECTION_MODEL), "bnb_4bit_quant_type");
}

static int is_nested(const run *r) {
    return (int)cfg_int(run_cfg(r, SECTION_MODEL), "bnb_4bit_use_double_quant");
}

static qfw_status settle(run *r, const char *key, const char *found) {
    qfw_cfg *m = r->sections[SECTION_MODEL].cfg;
    const uint32_t said = (uint32_t)cfg_is_set(m, key);
    char now[64];
    if (!strcmp(found, "true") || !strcmp(found, "false"))
        snprintf(now, sizeof now, "%s", cfg_int(m, key) ? "true" : "false");
    else
        snprintf(now, sizeof now, "%s", cfg_text(m, key));
    if (!strcmp(now, found)) return QFW_OK;
    if (!said) return cfg_replace(m, key, found);
    return cfg_problem(r->ini, m, key,
        "%s, but the checkpoint is quantised already, with %s; hint: leave the key out", now,
        found);
}

static int flag(const qfw_doc *d, const char *ptr) {
    int64_t value = 0;
    if (json_doc_api.kind(d, ptr) == QFW_DOC_BOOL) (void)json_doc_api.i64(d, ptr, &value);
    return value != 0;
}

qfw_status bnb_read_config(run *r) {
    static const char at[] = "/quantization_config";
    const qfw_doc *d = r->model_config;
    const char *method = "", *type = "fp4";
    if (json_doc_api.kind(d, at) != QFW_DOC_OBJECT) return QFW_OK;
    if (json_doc_api.kind(d, "/quantization_config/quant_method") == QFW_DOC_STRING)
        QFW_TRY(json_doc_api.str(d, "/quantization_config/quant_method", &method));
    if (strcmp(method, "bitsandbytes") || !flag(d, "/quantization_config/load_in_4bit"))
        return json_doc_api.fail(d, at, QFW_E_DATA,
            "E_CFG_UNSUPPORTED: wanted bitsandbytes with load_in_4bit, the only checkpoints that "
            "are "
            "read as they are quantised; hint: the 16-bit checkpoint, with [model] load_in_4bit");
    if (json_doc_api.kind(d, "/quantization_config/bnb_4bit_quant_type") == QFW_DOC_STRING)
        QFW_TRY(json_doc_api.str(d, "/quantization_config/bnb_4bit_quant_type", &type));
    if (!strcmp(cfg_text(run_cfg(r, SECTION_ADAPTER), "use"), "none") &&
        !strcmp(cfg_text(run_cfg(r, SECTION_RUN), "task"), "train"))
        return cfg_problem(r->ini, run_cfg(r, SECTION_ADAPTER), "use",
            "none, but the checkpoint is quantised: packed weights cannot be trained");
    r->is_bnb = 1;
    QFW_TRY(settle(r, "load_in_4bit", "true"));
    QFW_TRY(settle(r, "bnb_4bit_quant_type", type));
    return settle(r, "bnb_4bit_use_double_quant",
        flag(d, "/quantization_config/bnb_4bit_use_double_quant") ? "true" : "false");
}

/* --- its tensors --- */

static const char *const plain_parts[] = {"absmax", "quant_map", NULL};
static const char *const nested_parts[] = {
    "absmax", "quant_map", "nested_absmax", "nested_quant_map", NULL};

static const char *const *parts_of(const run *r) {
    return is_nested(r) ? nested_parts : plain_parts;
}

static const st_tensor *find_part(const st_file *f, const char *tensor, const char *part) {
    char name[512];
    snprintf(name, sizeof name, "%s.%s", tensor, part);
    return st_find(f, name);
}

static void state_name(const run *r, char name[64]) {
    snprintf(name, 64, "quant_state.bitsandbytes__%s", type_name(r));
}

/* The one tensor that holds the whole weight; NULL: there is none. */
static const st_tensor *whole_tensor(const st_file *f, const qfw_param_desc *d) {
    const st_tensor *t = NULL;
    for (uint32_t i = 0; i < d->n_sources && !t; i++)
        if (d->sources[i].rows == d->dim[0]) t = st_find(f, d->sources[i].tensor);
    return t;
}

static int has_size(const st_tensor *t, uint32_t dtype, uint64_t n) {
    return t->dtype == dtype && t->bytes == n * qfw_dtype_bytes(dtype);
}

static void complain(const st_tensor *t, const char *wanted) {
    (void)err_also("E_MODEL_SHAPE", QFW_E_DATA, "%s: %s: %s of %llu bytes, wanted %s", t->file,
        t->name, t->dtype_name, (unsigned long long)t->bytes, wanted);
}

static void missing(const run *r, const char *tensor, const char *part) {
    (void)err_also("E_MODEL_MISSING", QFW_E_DATA, "%s: %s.%s is missing",
        cfg_text(run_cfg(r, SECTION_MODEL), "path"), tensor, part);
}

/* What the description beside the codes says must be what they are read as. */
static void check_state(const run *r, st_file *f, const st_tensor *t, const qfw_param_desc *d) {
    char text[MAX_STATE];
    const char *type = "";
    int64_t block = 0, nested_block = 0, rows = 0, cols = 0;
    qfw_doc *doc = NULL;
    if (t->dtype != QFW_U8 || t->rank != 1 || t->bytes >= MAX_STATE) {
        complain(t, "a JSON text as bytes");
        return;
    }
    if (st_read(f, t, 0, t->dim[0], text) != QFW_OK ||
        json_parse(text, (size_t)t->bytes, t->name, 0, "E_ST_QUANT", NULL, &doc) != QFW_OK)
        return;
    (void)json_doc_api.str(doc, "/quant_type", &type);
    (void)json_doc_api.i64(doc, "/blocksize", &block);
    (void)json_doc_api.i64(doc, "/shape/0", &rows);
    (void)json_doc_api.i64(doc, "/shape/1", &cols);
    if (is_nested(r)) (void)json_doc_api.i64(doc, "/nested_blocksize", &nested_block);
    if (strcmp(type, type_name(r)) || block != BLOCK || rows != d->dim[0] || cols != d->dim[1] ||
        (is_nested(r) && nested_block != NESTED_BLOCK))
        (void)err_also("E_ST_QUANT", QFW_E_DATA,
            "%s: %s: %s, blocks of %lld, shape [%lld, %lld], wanted %s, blocks of %d, shape [%lld, "
            "%lld]%s",
            t->file, t->name, type, (long long)block, (long long)rows, (long long)cols,
            type_name(r), BLOCK, (long long)d->dim[0], (long long)d->dim[1],
            is_nested(r) ? ", scales nested in blocks of 256" : "");
    json_destroy(doc);
}

/* Tables of their own would be another code. */
static void check_map(st_file *f, const st_tensor *t, const float *wanted, uint32_t n) {
    float values[MAP];
    if (!has_size(t, QFW_F32, n) || t->dim[0] != (int64_t)n) {
        complain(t, n == MAP ? "256 floats" : "16 floats");
        return;
    }
    if (st_read(f, t, 0, (int64_t)n, values) != QFW_OK) return;
    if (memcmp(values, wanted, n * sizeof *values))
        (void)err_also("E_ST_QUANT", QFW_E_DATA,
            "%s: %s: another table than bitsandbytes' own, which is the only one that is known",
            t->file, t->name);
}

static void check_part(const run *r, st_file *f, const st_tensor *t, const char *part, int64_t n) {
    const uint32_t type = strcmp(type_name(r), "nf4") ? QFW_FP4 : QFW_NF4;
    const uint64_t blocks = (uint64_t)quant4_blocks(n, BLOCK);
    if (!strcmp(part, "quant_map")) {
        check_map(f, t, quant4_codebook(type), CODES);
    } else if (!strcmp(part, "nested_quant_map")) {
        check_map(f, t, quant8_map(), MAP);
    } else if (!strcmp(part, "nested_absmax")) {
        if (!has_size(t, QFW_F32, (blocks + NESTED_BLOCK - 1) / NESTED_BLOCK))
            complain(t, "a float for each 256 scales");
    } else if (!has_size(t, is_nested(r) ? QFW_U8 : QFW_F32, blocks)) {
        complain(t, is_nested(r) ? "a byte for each block" : "a float for each block");
    }
}

uint32_t bnb_check(const run *r, st_file *f, const qfw_param_desc *d) {
    const st_tensor *t = whole_tensor(f, d);
    const int64_t n = d->dim[0] * d->dim[1];
    uint32_t found = t != NULL;
    char state[64];
    if (!t) {
        (void)err_also("E_MODEL_MISSING", QFW_E_DATA,
            "%s: %s is missing as one tensor; parts that were quantised apart cannot be put "
            "together",
            cfg_text(run_cfg(r, SECTION_MODEL), "path"), d->name);
        return 0;
    }
    state_name(r, state);
    if (t->bytes >= (uint64_t)n * 2 && !find_part(f, t->name, "absmax")) {
        (void)err_also("E_MODEL_SHAPE", QFW_E_DATA,
            "%s: %s: %s, not quantised (llm_int8_skip_modules?), wanted 4 bits as the other "
            "linears "
            "of the checkpoint; hint: the 16-bit checkpoint, with [model] load_in_4bit",
            t->file, t->name, t->dtype_name);
        return found;
    }
    /* The codes are the same bytes whatever bnb_4bit_quant_storage calls them. */
    if (t->bytes != quant4_code_bytes(n)) complain(t, "two codes a byte");
    for (const char *const *part = parts_of(r); *part; part++) {
        const st_tensor *p = find_part(f, t->name, *part);
        if (p)
            check_part(r, f, p, *part, n);
        else
            missing(r, t->name, *part);
        found += p != NULL;
    }
    const st_tensor *s = find_part(f, t->name, state);
    if (s)
        check_state(r, f, s, d);
    else
        missing(r, t->name, state);
    return found + (s != NULL);
}

int bnb_is_beside(const run *r, const char *tensor) {
    for (uint32_t i = 0; r->is_bnb && i < r->n_weights; i++) {
        const qfw_param_desc *d = &r->weights[i].desc;
        for (uint32_t s = 0; s < d->n_sources && (d->flags & QFW_PARAM_4BIT); s++) {
            const size_t n = strlen(d->sources[s].tensor);
            char state[64];
            if (strncmp(tensor, d->sources[s].tensor, n) || tensor[n] != '.') continue;
            state_name(r, state);
            if (!strcmp(tensor + n + 1, state)) return 1;
            for (const char *const *part = parts_of(r); *part; part++)
                if (!strcmp(tensor + n + 1, *part)) return 1;
        }
    }
    return 0;
}

/* --- reading --- */

static qfw_status read_offset(const run *r, st_file *f, const st_tensor *t, float *offset) {
    char text[MAX_STATE], state[64];
    qfw_doc *doc = NULL;
    double value = 0;
    state_name(r, state);
    const st_tensor *s = find_part(f, t->name, state);
    QFW_TRY(st_read(f, s, 0, s->dim[0], text));
    QFW_TRY(json_parse(text, (size_t)s->bytes, s->name, 0, "E_ST_QUANT", NULL, &doc));
    const qfw_status status = json_doc_api.f64(doc, "/nested_offset", &value);
    json_destroy(doc);
    *offset = (float)value;
    return status;
}

qfw_status bnb_read(const run *r, const model_weight *w, packed_weight *p) {
    st_file *f = r->files;
    const st_tensor *t = whole_tensor(f, &w->desc), *scales = find_part(f, t->name, "absmax");
    QFW_TRY(st_read(f, t, 0, t->dim[0], p->codes));
    if (!is_nested(r)) return st_read_f32(f, scales, 0, scales->dim[0], p->absmax);
    const st_tensor *nested = find_part(f, t->name, "nested_absmax");
    QFW_TRY(st_read(f, scales, 0, scales->dim[0], p->nested_codes));
    QFW_TRY(st_read_f32(f, nested, 0, nested->dim[0], p->nested));
    return read_offset(r, f, t, &p->offset);
}

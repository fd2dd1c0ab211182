/* st_header.c -- a safetensors header, checked until nothing in it can surprise a reader.
 *
 * Sizes are compared before anything is allocated, products are checked, and the tensors must tile
 * the data without gap, overlap or rest: what lies between them could hide a second file.
 */
#include "files/st_header.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "files/json.h"

enum {
    MAX_DEPTH = 8,
    MAX_DIMS = 8,
    /* name, {, dtype, shape, [, 8 sizes, data_offsets, [, 2 numbers and their separators */
    MAX_VALUES = 32 * ST_MAX_TENSORS,
    MAX_META_BYTES = 1 << 20,
    ROUNDING = 4096, /* memory is handed out in such pieces: sizes leave room to be rounded up */
};

static const char metadata_key[] = "__metadata__";

static const struct dtype {
    const char *name;
    uint32_t bytes, dtype; /* dtype 0: known, but nothing that qfw computes with */
} dtypes[] = {{"F32", 4, QFW_F32}, {"BF16", 2, QFW_BF16}, {"F16", 2, QFW_F16}, {"I32", 4, QFW_I32},
    {"U8", 1, QFW_U8}, {"F64", 8, 0}, {"I64", 8, 0}, {"I16", 2, 0}, {"I8", 1, 0}, {"U64", 8, 0},
    {"U32", 4, 0}, {"U16", 2, 0}, {"BOOL", 1, 0}, {"F8_E4M3", 1, 0}, {"F8_E5M2", 1, 0},
    {"F8_E8M0", 1, 0}};

const char *st_dtype_name(uint32_t dtype) {
    if (dtype == QFW_F64) return "F64";
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
        if (dtype && dtypes[i].dtype == dtype) return dtypes[i].name;
    return NULL;
}

typedef struct parser {
    const char *path;
    uint64_t data_at, data_bytes; /* where the tensors' bytes lie */
    st_header *out;
} parser;

/* --- one tensor --- */

static qfw_status parse_dtype(
    const parser *p, st_tensor *t, const json_node *v, uint32_t *value_bytes) {
    const char *name = json_node_str(v);
    for (size_t i = 0; name && i < sizeof dtypes / sizeof *dtypes; i++) {
        if (strcmp(dtypes[i].name, name)) continue;
        t->dtype = dtypes[i].dtype;
        t->dtype_name = dtypes[i].name;
        *value_bytes = dtypes[i].bytes;
        return QFW_OK;
    }
    return err_fail("E_ST_DTYPE", QFW_E_DATA,
        "%s: tensor \"%.100s\": dtype: %.40s, wanted one of F32, BF16, F16, I32, U8 (read), F64, "
        "I64, I16, I8, U64, U32, U16, BOOL, F8_E4M3, F8_E5M2, F8_E8M0 (known)",
        p->path, t->name, name ? name : "no text");
}

/* dim, rank and bytes; nothing overflows, not even rounded up. */
static qfw_status parse_shape(
    const parser *p, st_tensor *t, const json_node *v, uint32_t value_bytes) {
    const uint64_t rank = json_node_count(v);
    uint64_t bytes = value_bytes, rounded;
    if (json_node_kind(v) != QFW_DOC_ARRAY || rank > MAX_DIMS)
        return err_fail("E_ST_SHAPE", QFW_E_DATA,
            "%s: tensor \"%.100s\": shape: %s of %llu, wanted a list of at most %d sizes", p->path,
            t->name, json_node_kind(v) == QFW_DOC_ARRAY ? "a list" : "something else",
            (unsigned long long)rank, MAX_DIMS);
    t->rank = (uint32_t)rank;
    for (uint32_t i = 0; i < t->rank; i++) {
        const json_node *size = json_node_item(v, i);
        t->dim[i] = json_node_i64(size);
        if (json_node_kind(size) != QFW_DOC_INT || t->dim[i] < 0)
            return err_fail("E_ST_SHAPE", QFW_E_DATA,
                "%s: tensor \"%.100s\": shape/%u: %s, wanted an integer of at least 0", p->path,
                t->name, i, t->dim[i] < 0 ? "below 0" : "not an integer");
        if (__builtin_mul_overflow(bytes, (uint64_t)t->dim[i], &bytes) ||
            __builtin_add_overflow(bytes, ROUNDING, &rounded) || rounded > INT64_MAX)
            return err_fail("E_ST_SHAPE", QFW_E_DATA,
                "%s: tensor \"%.100s\": shape/%u: %lld makes more bytes than can be counted",
                p->path, t->name, i, (long long)t->dim[i]);
    }
    t->bytes = bytes;
    return QFW_OK;
}

static qfw_status parse_offsets(const parser *p, st_tensor *t, const json_node *v) {
    const json_node *first = json_node_item(v, 0), *second = json_node_item(v, 1);
    const int64_t begin = json_node_i64(first), end = json_node_i64(second);
    if (json_node_kind(v) != QFW_DOC_ARRAY || json_node_count(v) != 2 ||
        json_node_kind(first) != QFW_DOC_INT || json_node_kind(second) != QFW_DOC_INT)
        return err_fail("E_ST_OFFSET", QFW_E_DATA,
            "%s: tensor \"%.100s\": data_offsets: wanted a list of two integers", p->path, t->name);
    if (begin < 0 || begin > end || (uint64_t)end > p->data_bytes)
        return err_fail("E_ST_OFFSET", QFW_E_DATA,
            "%s: tensor \"%.100s\": data_offsets: [%lld, %lld], wanted 0 <= begin <= end <= %llu "
            "(the bytes of data in the file)%s",
            p->path, t->name, (long long)begin, (long long)end, (unsigned long long)p->data_bytes,
            begin >= 0 && begin <= end ? "; hint: the download is incomplete, fetch it again" : "");
    if ((uint64_t)(end - begin) != t->bytes)
        return err_fail("E_ST_SIZE", QFW_E_DATA,
            "%s: tensor \"%.100s\": data_offsets: %lld bytes, wanted %llu for its dtype and shape",
            p->path, t->name, (long long)(end - begin), (unsigned long long)t->bytes);
    t->begin = (uint64_t)begin;
    return QFW_OK;
}

static qfw_status parse_tensor(const parser *p, st_tensor *t, const json_node *v) {
    static const char *const fields[] = {"dtype", "shape", "data_offsets"};
    uint32_t value_bytes = 0;
    for (size_t i = 0; i < 3; i++)
        if (!json_node_member(v, fields[i]))
            return err_fail("E_ST_FIELD", QFW_E_DATA,
                "%s: tensor \"%.100s\": %s: missing, wanted an object with dtype, shape and "
                "data_offsets",
                p->path, t->name, fields[i]);
    for (json_member m = json_first(v); m.key; m = json_next(v, m))
        if (strcmp(m.key, fields[0]) && strcmp(m.key, fields[1]) && strcmp(m.key, fields[2]))
            return err_fail("E_ST_FIELD", QFW_E_DATA,
                "%s: tensor \"%.100s\": %.100s: unknown, wanted dtype, shape and data_offsets",
                p->path, t->name, m.key);
    QFW_TRY(parse_dtype(p, t, json_node_member(v, fields[0]), &value_bytes));
    QFW_TRY(parse_shape(p, t, json_node_member(v, fields[1]), value_bytes));
    return parse_offsets(p, t, json_node_member(v, fields[2]));
}

/* --- the header --- */

static qfw_status parse_metadata(const parser *p, const json_node *v) {
    st_header *h = p->out;
    if (json_node_kind(v) != QFW_DOC_OBJECT)
        return err_fail("E_ST_META", QFW_E_DATA, "%s: %s: not an object, wanted one of strings",
            p->path, metadata_key);
    h->meta = mem_alloc((size_t)json_node_count(v), sizeof *h->meta);
    if (!h->meta) return QFW_E_NOMEM;
    for (json_member m = json_first(v); m.key; m = json_next(v, m)) {
        const char *value = json_node_str(m.value);
        if (!value || strlen(value) > MAX_META_BYTES)
            return err_fail("E_ST_META", QFW_E_DATA,
                "%s: %s: %.100s: %s, wanted a string of at most %d bytes", p->path, metadata_key,
                m.key, value ? "too long" : "not a string", MAX_META_BYTES);
        st_meta *kept = &h->meta[h->n_meta++];
        kept->key = mem_strdup(m.key);
        kept->value = mem_strdup(value);
        if (!kept->key || !kept->value) return QFW_E_NOMEM;
    }
    return QFW_OK;
}

static qfw_status parse_members(const parser *p, const json_node *root) {
    st_header *h = p->out;
    if (json_node_kind(root) != QFW_DOC_OBJECT)
        return err_fail("E_ST_JSON", QFW_E_DATA, "%s: header: a list, wanted an object", p->path);
    h->tensors = mem_alloc((size_t)json_node_count(root), sizeof *h->tensors);
    if (!h->tensors) return QFW_E_NOMEM;
    for (json_member m = json_first(root); m.key; m = json_next(root, m)) {
        if (!strcmp(m.key, metadata_key)) {
            QFW_TRY(parse_metadata(p, m.value));
            continue;
        }
        st_tensor *t = &h->tensors[h->n_tensors++];
        t->file = p->path;
        t->name = mem_strdup(m.key);
        if (!t->name) return QFW_E_NOMEM;
        QFW_TRY(parse_tensor(p, t, m.value));
    }
    return QFW_OK;
}

static int compare_places(const void *a, const void *b) {
    const st_tensor *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1;
    return strcmp(x->name, y->name);
}

static int compare_names(const void *a, const void *b) {
    return strcmp(((const st_tensor *)a)->name, ((const st_tensor *)b)->name);
}

/* The tensors tile the data: each begins where the one before it ends, up to the file's end. */
static qfw_status check_tiling(const parser *p) {
    const st_header *h = p->out;
    uint64_t end = 0;
    const char *before = "the header";
    if (h->n_tensors) qsort(h->tensors, h->n_tensors, sizeof *h->tensors, compare_places);
    for (uint32_t i = 0; i < h->n_tensors; i++) {
        const st_tensor *t = &h->tensors[i];
        if (t->begin != end)
            return err_fail(t->begin < end ? "E_ST_OVERLAP" : "E_ST_HOLE", QFW_E_DATA,
                "%s: tensor \"%.100s\": data_offsets: begins at data byte %llu, wanted %llu, "
                "where \"%.100s\" ends",
                p->path, t->name, (unsigned long long)t->begin, (unsigned long long)end, before);
        end += t->bytes;
        before = t->name;
    }
    if (end != p->data_bytes)
        return err_fail("E_ST_HOLE", QFW_E_DATA,
            "%s: data: %llu bytes after \"%.100s\", the last tensor, wanted none (data byte %llu)",
            p->path, (unsigned long long)(p->data_bytes - end), before, (unsigned long long)end);
    return QFW_OK;
}

/* jansson takes white space around the object; here only spaces may follow, to pad. */
static qfw_status check_ends(const char *text, size_t *n, const char *path) {
    while (*n > 0 && text[*n - 1] == ' ') --*n;
    if (*n == 0 || text[0] != '{')
        return err_fail("E_ST_JSON", QFW_E_DATA,
            "%s: header: does not begin with '{' (byte %d); hint: is this a safetensors file?",
            path, ST_LENGTH_BYTES);
    if (text[*n - 1] != '}')
        return err_fail("E_ST_JSON", QFW_E_DATA,
            "%s: header: ends in neither '}' nor spaces after it (byte %zu)", path,
            ST_LENGTH_BYTES + *n - 1);
    return QFW_OK;
}

qfw_status st_header_length(
    const char *bytes, uint64_t file_size, const char *path, uint64_t *length) {
    *length = 0;
    if (file_size < ST_LENGTH_BYTES)
        return err_fail("E_ST_SHORT", QFW_E_DATA, "%s: file: size %llu < %d, no header length",
            path, (unsigned long long)file_size, ST_LENGTH_BYTES);
    for (int i = ST_LENGTH_BYTES; i-- > 0;) *length = *length << 8 | (unsigned char)bytes[i];
    if (*length > ST_MAX_HEADER)
        return err_fail("E_ST_HDRLEN", QFW_E_DATA,
            "%s: header length: %llu, at most %d (byte 0); hint: is this a safetensors file?", path,
            (unsigned long long)*length, ST_MAX_HEADER);
    if (*length > file_size - ST_LENGTH_BYTES)
        return err_fail("E_ST_TRUNC", QFW_E_DATA,
            "%s: header length: header needs %llu bytes, file has %llu (byte 0); hint: download "
            "incomplete?",
            path, (unsigned long long)(*length + ST_LENGTH_BYTES), (unsigned long long)file_size);
    return QFW_OK;
}

qfw_status st_header_parse(
    const char *text, size_t n, uint64_t file_size, const char *path, st_header *out) {
    static const json_limits limits = {
        .max_depth = MAX_DEPTH, .max_values = MAX_VALUES, .max_members = ST_MAX_TENSORS + 1};
    const json_source from = {.file = path,
        .byte = ST_LENGTH_BYTES,
        .name = "E_ST_JSON",
        .duplicate_name = "E_ST_DUP",
        .limit_name = "E_ST_LIMIT"};
    const uint64_t data_at = ST_LENGTH_BYTES + n;
    const parser p = {path, data_at, file_size - data_at, out};
    qfw_doc *d = NULL;
    memset(out, 0, sizeof *out);
    QFW_TRY(check_ends(text, &n, path));
    QFW_TRY(json_parse_from(text, n, &from, &limits, &d));
    qfw_status status = parse_members(&p, json_root(d));
    json_destroy(d);
    if (status == QFW_OK) status = check_tiling(&p);
    if (status != QFW_OK) {
        st_header_free(out);
        return status;
    }
    for (uint32_t i = 0; i < out->n_tensors; i++) out->tensors[i].begin += data_at;
    if (out->n_tensors) qsort(out->tensors, out->n_tensors, sizeof *out->tensors, compare_names);
    return QFW_OK;
}

void st_header_free(st_header *h) {
    for (uint32_t i = 0; i < h->n_tensors; i++) mem_free((char *)(uintptr_t)h->tensors[i].name);
    for (uint32_t i = 0; i < h->n_meta; i++) {
        mem_free(h->meta[i].key);
        mem_free(h->meta[i].value);
    }
    mem_free(h->tensors);
    mem_free(h->meta);
    memset(h, 0, sizeof *h);
}

qfw_status st_parse_header(const char *bytes, size_t n, uint64_t file_size, const char *path) {
    uint64_t length = 0;
    st_header header;
    QFW_TRY(st_header_length(bytes, n < file_size ? n : file_size, path, &length));
    QFW_TRY(st_header_parse(bytes + ST_LENGTH_BYTES, (size_t)length, file_size, path, &header));
    st_header_free(&header);
    return QFW_OK;
}

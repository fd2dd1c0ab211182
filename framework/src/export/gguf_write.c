/* gguf_write.c -- the writing half of gguf.h. */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "base/parallel.h"
#include "export/gguf.h"
#include "files/file.h"
#include "ops/ref.h"

enum { ALIGN = 32, VERSION = 3, MAX_RANK = 4, Q8_BYTES = GGUF_BLOCK + 2 };

typedef struct bytes {
    char *at;
    size_t n, cap;
    int failed;
} bytes;

struct gguf_writer {
    file_out *out;
    bytes keys, tensors;
    uint64_t n_keys, n_tensors, data; /* data: bytes of the tensors declared, aligned */
    uint64_t *size;                   /* of each tensor, in bytes */
    uint32_t *type;
    size_t size_cap, type_cap;
    uint64_t now, written; /* the tensor being written, and how much of it is */
    char *scratch;
    size_t scratch_cap;
};

/* --- values --- */

uint64_t gguf_bytes(uint32_t type, uint64_t n) {
    if (type == GGUF_Q8_0) return n / GGUF_BLOCK * Q8_BYTES;
    return n * (type == GGUF_F16 ? sizeof(uint16_t) : sizeof(float));
}

static int encode_half(float v, uint16_t *to) {
    *to = ref_f16((double)v);
    return (*to & 0x7c00) == 0x7c00 && isfinite(v) ? -1 : 0;
}

static int encode_block(const float *from, uint8_t *to) {
    float most = 0;
    uint16_t half;
    for (int i = 0; i < GGUF_BLOCK; i++) most = fmaxf(most, fabsf(from[i]));
    const float scale = most / 127, inverse = scale > 0 ? 1 / scale : 0;
    const int bad = encode_half(scale, &half);
    memcpy(to, &half, sizeof half);
    for (int i = 0; i < GGUF_BLOCK; i++) to[2 + i] = (uint8_t)(int8_t)roundf(from[i] * inverse);
    return bad;
}

int gguf_encode(uint32_t type, const float *from, uint64_t n, void *to) {
    uint8_t *at = to;
    int bad = 0;
    if (type == GGUF_F32) memcpy(to, from, (size_t)n * sizeof *from);
    for (uint64_t i = 0; type == GGUF_F16 && i < n; i++) {
        uint16_t half;
        bad |= encode_half(from[i], &half);
        memcpy(at + i * sizeof half, &half, sizeof half);
    }
    for (uint64_t i = 0; type == GGUF_Q8_0 && i + GGUF_BLOCK <= n; i += GGUF_BLOCK)
        bad |= encode_block(from + i, at + i / GGUF_BLOCK * Q8_BYTES);
    return bad;
}

/* A piece of many values: of whole blocks, each by a thread of its own. */
typedef struct encoding {
    uint32_t type;
    const float *from;
    uint64_t n;
    char *to;
    _Atomic int bad;
} encoding;

enum { ITEM_VALUES = 1 << 14 };

static void encode_item(void *arg, uint32_t item, uint32_t worker) {
    encoding *e = arg;
    const uint64_t first = (uint64_t)item * ITEM_VALUES;
    const uint64_t n = e->n - first < ITEM_VALUES ? e->n - first : ITEM_VALUES;
    (void)worker;
    if (gguf_encode(e->type, e->from + first, n, e->to + gguf_bytes(e->type, first))) e->bad = 1;
}

static int encode_all(uint32_t type, const float *from, uint64_t n, char *to) {
    encoding e = {.type = type, .from = from, .n = n, .to = to};
    parallel_for((uint32_t)((n + ITEM_VALUES - 1) / ITEM_VALUES), encode_item, &e);
    return e.bad;
}

static float decode_half(const uint8_t *from) {
    uint16_t half;
    memcpy(&half, from, sizeof half);
    return (float)ref_of_f16(half);
}

void gguf_decode(uint32_t type, const void *from, uint64_t n, float *to) {
    const uint8_t *at = from;
    if (type == GGUF_F32) memcpy(to, from, (size_t)n * sizeof *to);
    for (uint64_t i = 0; type == GGUF_F16 && i < n; i++) to[i] = decode_half(at + 2 * i);
    for (uint64_t i = 0; type == GGUF_Q8_0 && i < n; i++) {
        const uint8_t *block = at + i / GGUF_BLOCK * Q8_BYTES;
        to[i] = decode_half(block) * (float)(int8_t)block[2 + i % GGUF_BLOCK];
    }
}

/* --- keys --- */

static void put(bytes *b, const void *data, size_t n) {
    if (b->failed || mem_grow(&b->at, &b->cap, b->n + n, 1)) {
        b->failed = 1;
        return;
    }
    memcpy(b->at + b->n, data, n);
    b->n += n;
}

static void put_u32(bytes *b, uint32_t v) { put(b, &v, sizeof v); }
static void put_u64(bytes *b, uint64_t v) { put(b, &v, sizeof v); }

static void put_text(bytes *b, const char *text) {
    const size_t n = strlen(text);
    put_u64(b, n);
    put(b, text, n);
}

static void put_key(gguf_writer *w, const char *key, uint32_t type) {
    put_text(&w->keys, key);
    put_u32(&w->keys, type);
    w->n_keys++;
}

static void put_array(gguf_writer *w, const char *key, uint32_t of, uint64_t n) {
    put_key(w, key, GGUF_ARRAY);
    put_u32(&w->keys, of);
    put_u64(&w->keys, n);
}

void gguf_put_u32(gguf_writer *w, const char *key, uint32_t v) {
    put_key(w, key, GGUF_U32);
    put_u32(&w->keys, v);
}

void gguf_put_f32(gguf_writer *w, const char *key, float v) {
    put_key(w, key, GGUF_FLOAT);
    put(&w->keys, &v, sizeof v);
}

void gguf_put_bool(gguf_writer *w, const char *key, int v) {
    const char byte = v != 0;
    put_key(w, key, GGUF_BOOL);
    put(&w->keys, &byte, 1);
}

void gguf_put_str(gguf_writer *w, const char *key, const char *v) {
    put_key(w, key, GGUF_STRING);
    put_text(&w->keys, v);
}

void gguf_put_strs(gguf_writer *w, const char *key, const char *const *v, uint64_t n) {
    put_array(w, key, GGUF_STRING, n);
    for (uint64_t i = 0; i < n; i++) put_text(&w->keys, v[i]);
}

void gguf_put_f32s(gguf_writer *w, const char *key, const float *v, uint64_t n) {
    put_array(w, key, GGUF_FLOAT, n);
    put(&w->keys, v, (size_t)n * sizeof *v);
}

void gguf_put_i32s(gguf_writer *w, const char *key, const int32_t *v, uint64_t n) {
    put_array(w, key, GGUF_I32, n);
    put(&w->keys, v, (size_t)n * sizeof *v);
}

/* --- tensors --- */

static uint64_t aligned(uint64_t n) { return (n + ALIGN - 1) / ALIGN * ALIGN; }

void gguf_declare(
    gguf_writer *w, const char *name, uint32_t type, uint32_t rank, const int64_t *dim) {
    uint64_t n = 1;
    if (mem_grow(&w->size, &w->size_cap, w->n_tensors + 1, sizeof *w->size) ||
        mem_grow(&w->type, &w->type_cap, w->n_tensors + 1, sizeof *w->type)) {
        w->tensors.failed = 1;
        return;
    }
    put_text(&w->tensors, name);
    put_u32(&w->tensors, rank);
    for (uint32_t d = rank; d-- > 0;) { /* ggml's order: what varies fastest comes first */
        put_u64(&w->tensors, (uint64_t)dim[d]);
        n *= (uint64_t)dim[d];
    }
    put_u32(&w->tensors, type);
    put_u64(&w->tensors, w->data);
    w->type[w->n_tensors] = type;
    w->size[w->n_tensors++] = gguf_bytes(type, n);
    w->data += aligned(gguf_bytes(type, n));
}

static qfw_status pad(gguf_writer *w, uint64_t n) {
    static const char zeros[ALIGN] = {0};
    return n ? file_out_write(w->out, zeros, (size_t)n) : QFW_OK;
}

qfw_status gguf_begin(gguf_writer *w) {
    bytes head = {.at = NULL};
    put(&head, "GGUF", 4);
    put_u32(&head, VERSION);
    put_u64(&head, w->n_tensors);
    put_u64(&head, w->n_keys);
    if (head.failed || w->keys.failed || w->tensors.failed) {
        mem_free(head.at);
        return QFW_E_NOMEM;
    }
    const uint64_t n = head.n + w->keys.n + w->tensors.n;
    qfw_status status = file_out_write(w->out, head.at, head.n);
    if (status == QFW_OK) status = file_out_write(w->out, w->keys.at, w->keys.n);
    if (status == QFW_OK) status = file_out_write(w->out, w->tensors.at, w->tensors.n);
    if (status == QFW_OK) status = pad(w, aligned(n) - n);
    mem_free(head.at);
    return status;
}

qfw_status gguf_rows(gguf_writer *w, const float *values, uint64_t n) {
    if (w->now >= w->n_tensors)
        return err_fail("E_INTERNAL", QFW_E_INVALID, "gguf: more values than declared");
    const uint32_t type = w->type[w->now];
    const uint64_t size = gguf_bytes(type, n), whole = w->size[w->now];
    if (w->written + size > whole)
        return err_fail("E_INTERNAL", QFW_E_INVALID, "gguf: more values than declared");
    if (mem_grow(&w->scratch, &w->scratch_cap, (size_t)size, 1)) return QFW_E_NOMEM;
    if (encode_all(type, values, n, w->scratch))
        return err_fail("E_MODEL_RANGE", QFW_E_DATA, "a value past what fp16 holds, 65504");
    QFW_TRY(file_out_write(w->out, w->scratch, (size_t)size));
    w->written += size;
    if (w->written < whole) return QFW_OK;
    w->now++;
    w->written = 0;
    return pad(w, aligned(whole) - whole);
}

/* --- the file --- */

qfw_status gguf_create(const char *path, gguf_writer **out) {
    gguf_writer *w = *out = mem_alloc(1, sizeof *w);
    if (!w) return QFW_E_NOMEM;
    const qfw_status status = file_out_open(path, &w->out);
    if (status == QFW_OK) return QFW_OK;
    gguf_abort(w);
    *out = NULL;
    return status;
}

static void free_writer(gguf_writer *w) {
    mem_free(w->keys.at);
    mem_free(w->tensors.at);
    mem_free(w->size);
    mem_free(w->type);
    mem_free(w->scratch);
    mem_free(w);
}

qfw_status gguf_finish(gguf_writer *w) {
    qfw_status status = w->now == w->n_tensors
                            ? QFW_OK
                            : err_fail("E_INTERNAL", QFW_E_INVALID, "gguf: values are missing");
    if (status == QFW_OK)
        status = file_out_finish(w->out);
    else
        file_out_abort(w->out);
    free_writer(w);
    return status;
}

void gguf_abort(gguf_writer *w) {
    if (!w) return;
    file_out_abort(w->out);
    free_writer(w);
}

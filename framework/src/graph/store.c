/* store.c -- entries by name, laid out into as few blocks of device memory as the device allows.
 *
 * A packed entry has three parts (codes, scales, nested scales), each aligned and placed by itself;
 * the table of the nested code is the same for all and stored once.
 */
#include "graph/store.h"

#include <stdint.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "ops/quant4.h"

enum { ALIGN = 256, MAP_BYTES = 256 * sizeof(float), MAX_PARTS = 3 };

typedef struct store_block {
    qfw_mem *mem;
    uint64_t bytes;
} store_block;

typedef struct stored {
    store_entry pub;
    size_t block[MAX_PARTS]; /* which block each part lies in */
} stored;

struct store {
    const device *dev;
    stored **entries;
    size_t n_entries, cap_entries;
    store_block *blocks;
    size_t n_blocks, cap_blocks;
    qfw_mem *map; /* of nested scales; NULL while no entry has them */
    uint32_t has_nested, allocated;
};

/* A run of bytes of an entry, and where its place is written down. */
typedef struct store_part {
    qfw_mem **mem;
    uint64_t *offset;
    uint64_t bytes;
} store_part;

static uint64_t aligned(uint64_t bytes) { return (bytes + ALIGN - 1) / ALIGN * ALIGN; }

static uint32_t parts_of(store_entry *e, store_part part[MAX_PARTS]) {
    const int64_t n = qfw_tensor_count(&e->t);
    qfw_quant *q = &e->quant;
    if (!e->t.quant) {
        part[0] = (store_part){&e->t.mem, &e->t.offset, (uint64_t)n * qfw_dtype_bytes(e->t.dtype)};
        return 1;
    }
    const uint64_t blocks = (uint64_t)quant4_blocks(n, q->block);
    part[0] = (store_part){&e->t.mem, &e->t.offset, quant4_code_bytes(n)};
    part[1] = (store_part){
        &q->absmax_mem, &q->absmax_offset, blocks * (q->nested_block ? 1 : sizeof(float))};
    if (!q->nested_block) return 2;
    const uint64_t nests = (blocks + q->nested_block - 1) / q->nested_block;
    part[2] = (store_part){&q->nested_mem, &q->nested_offset, nests * sizeof(float)};
    return 3;
}

qfw_status store_create(const device *dev, store **out) {
    *out = mem_alloc(1, sizeof **out);
    if (!*out) return QFW_E_NOMEM;
    (*out)->dev = dev;
    return QFW_OK;
}

static void free_blocks(store *s) {
    const device *dev = s->dev;
    for (size_t i = 0; i < s->n_blocks; i++) dev->be->mem_free(dev->inst, s->blocks[i].mem);
    s->n_blocks = 0;
    dev->be->mem_free(dev->inst, s->map);
    s->map = NULL;
}

void store_destroy(store *s) {
    if (!s) return;
    free_blocks(s);
    for (size_t i = 0; i < s->n_entries; i++) {
        mem_free(s->entries[i]->pub.host_copy);
        mem_free((void *)(uintptr_t)s->entries[i]->pub.name);
        mem_free(s->entries[i]);
    }
    mem_free(s->entries);
    mem_free(s->blocks);
    mem_free(s);
}

static qfw_status check_new(const store *s, const char *name, uint32_t usage, uint32_t dtype,
    uint32_t rank, const int64_t *dim, uint32_t block, uint32_t nested) {
    const int packed = dtype == QFW_NF4 || dtype == QFW_FP4;
    const char *wrong = NULL;
    int64_t n = 1;
    if (s->allocated)
        wrong = "declared after the store was allocated";
    else if (store_find(s, name))
        wrong = "declared twice";
    else if (usage != QFW_MEM_FROZEN && usage != QFW_MEM_RUN)
        wrong = "of a usage that is neither FROZEN nor RUN";
    else if (!packed && !qfw_dtype_bytes(dtype))
        wrong = "of an unknown dtype";
    else if (rank > QFW_MAX_DIMS || (packed && rank != 2))
        wrong = "of a rank that its dtype cannot have";
    else if (packed ? block == 0 || (nested != 0 && nested != 256) : block != 0 || nested != 0)
        wrong = "with blocks of scales that its dtype cannot have";
    for (uint32_t i = 0; !wrong && i < rank; i++) {
        if (dim[i] < 0 || (dim[i] && n > INT64_MAX / 8 / dim[i])) wrong = "of an impossible size";
        n *= dim[i];
    }
    return wrong ? err_fail("E_INTERNAL", QFW_E_INVALID, "store: %s is %s", name, wrong) : QFW_OK;
}

static void fill_entry(store_entry *e, uint32_t usage, uint32_t dtype, uint32_t rank,
    const int64_t *dim, uint32_t block, uint32_t nested) {
    e->usage = usage;
    e->t = (qfw_tensor){.size = sizeof e->t, .dtype = dtype, .rank = rank};
    int64_t step = 1;
    for (uint32_t i = QFW_MAX_DIMS; i-- > 0;) {
        e->t.dim[i] = i < rank ? dim[i] : 1;
        e->t.stride[i] = step;
        step *= e->t.dim[i];
    }
    if (!block) return;
    e->quant = (qfw_quant){.size = sizeof e->quant, .block = block, .nested_block = nested};
    e->t.quant = &e->quant;
}

/* What it takes on the device, with the private copy that sealing will make. */
static uint64_t entry_bytes(const device *dev, store_entry *e) {
    store_part part[MAX_PARTS];
    const uint32_t n = parts_of(e, part);
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < n; i++) bytes += aligned(part[i].bytes);
    if (e->t.quant && e->usage == QFW_MEM_FROZEN && QFW_HAS(dev->be, qfw_backend, mem_seal) &&
        QFW_HAS(dev->be, qfw_backend, tensor_bytes))
        bytes += dev->be->tensor_bytes(dev->inst, &e->t, e->usage);
    return bytes;
}

qfw_status store_add(store *s, const char *name, uint32_t usage, uint32_t dtype, uint32_t rank,
    const int64_t *dim, uint32_t block, uint32_t nested, store_entry **out) {
    *out = NULL;
    QFW_TRY(check_new(s, name, usage, dtype, rank, dim, block, nested));
    if (mem_grow(&s->entries, &s->cap_entries, s->n_entries + 1, sizeof *s->entries))
        return QFW_E_NOMEM;
    stored *new_entry = mem_alloc(1, sizeof *new_entry);
    if (!new_entry) return QFW_E_NOMEM;
    store_entry *e = &new_entry->pub;
    e->name = mem_strdup(name);
    if (!e->name) {
        mem_free(new_entry);
        return QFW_E_NOMEM;
    }
    fill_entry(e, usage, dtype, rank, dim, block, nested);
    e->bytes = entry_bytes(s->dev, e);
    s->has_nested |= nested != 0;
    s->entries[s->n_entries++] = new_entry;
    *out = e;
    return QFW_OK;
}

store_entry *store_find(const store *s, const char *name) {
    for (size_t i = 0; i < s->n_entries; i++)
        if (!strcmp(s->entries[i]->pub.name, name)) return &s->entries[i]->pub;
    return NULL;
}

store_entry *store_at(const store *s, uint32_t i) {
    return i < s->n_entries ? &s->entries[i]->pub : NULL;
}

uint64_t store_bytes(const store *s, uint32_t usage) {
    uint64_t bytes = usage == QFW_MEM_FROZEN && s->has_nested ? MAP_BYTES : 0;
    for (size_t i = 0; i < s->n_entries; i++)
        if (s->entries[i]->pub.usage == usage) bytes += s->entries[i]->pub.bytes;
    return bytes;
}

/* --- layout --- */

static uint64_t block_limit(const device *dev) {
    const uint64_t limit =
        dev->info.max_alloc_bytes ? dev->info.max_alloc_bytes : dev->info.total_bytes;
    return (limit ? limit : UINT64_MAX / 2) / ALIGN * ALIGN;
}

/* Add a block of 0 bytes for `usage` to grow in. */
static qfw_status next_block(store *s, store_block **out) {
    if (mem_grow(&s->blocks, &s->cap_blocks, s->n_blocks + 1, sizeof *s->blocks))
        return QFW_E_NOMEM;
    *out = &s->blocks[s->n_blocks++];
    **out = (store_block){NULL, 0};
    return QFW_OK;
}

/* Give every part of this usage its block and its offset there. */
static qfw_status place_parts(store *s, uint32_t usage) {
    const uint64_t limit = block_limit(s->dev);
    store_block *block = NULL;
    for (size_t i = 0; i < s->n_entries; i++) {
        store_part part[MAX_PARTS];
        stored *e = s->entries[i];
        if (e->pub.usage != usage) continue;
        const uint32_t n = parts_of(&e->pub, part);
        for (uint32_t k = 0; k < n; k++) {
            if (part[k].bytes > limit)
                return err_fail("E_DEV_MEM", QFW_E_DEVICE_OOM,
                    "%s: %s: %llu bytes in one piece, the device allows %llu", s->dev->name,
                    e->pub.name, (unsigned long long)part[k].bytes, (unsigned long long)limit);
            if (!block || block->bytes > limit - aligned(part[k].bytes))
                QFW_TRY(next_block(s, &block));
            e->block[k] = s->n_blocks - 1;
            *part[k].offset = block->bytes;
            block->bytes += aligned(part[k].bytes);
        }
    }
    return QFW_OK;
}

static qfw_status take_blocks(store *s, size_t first, uint32_t usage) {
    const device *dev = s->dev;
    for (size_t i = first; i < s->n_blocks; i++) {
        store_block *b = &s->blocks[i];
        const uint64_t bytes = b->bytes ? b->bytes : ALIGN;
        const qfw_status status = dev->be->mem_alloc(dev->inst, bytes, usage, &b->mem);
        if (status != QFW_OK) {
            err_prefix("%s: block of %llu bytes for %s", dev->name, (unsigned long long)bytes,
                usage == QFW_MEM_FROZEN ? "frozen weights" : "what is trained");
            return status;
        }
    }
    return QFW_OK;
}

static void bind_parts(store *s, int to_blocks) {
    for (size_t i = 0; i < s->n_entries; i++) {
        store_part part[MAX_PARTS];
        stored *e = s->entries[i];
        const uint32_t n = parts_of(&e->pub, part);
        for (uint32_t k = 0; k < n; k++)
            *part[k].mem = to_blocks ? s->blocks[e->block[k]].mem : NULL;
        if (e->pub.quant.nested_block) e->pub.quant.map_mem = s->map;
    }
}

static qfw_status take_all(store *s) {
    const device *dev = s->dev;
    QFW_TRY(place_parts(s, QFW_MEM_FROZEN));
    const size_t n_frozen = s->n_blocks;
    QFW_TRY(place_parts(s, QFW_MEM_RUN));
    const size_t n_blocks = s->n_blocks;
    s->n_blocks = n_frozen;
    QFW_TRY(take_blocks(s, 0, QFW_MEM_FROZEN));
    s->n_blocks = n_blocks;
    QFW_TRY(take_blocks(s, n_frozen, QFW_MEM_RUN));
    if (!s->has_nested) return QFW_OK;
    QFW_TRY(dev->be->mem_alloc(dev->inst, MAP_BYTES, QFW_MEM_FROZEN, &s->map));
    return dev->be->mem_write(dev->inst, NULL, s->map, 0, quant8_map(), MAP_BYTES);
}

qfw_status store_alloc(store *s) {
    if (s->allocated)
        return err_fail("E_INTERNAL", QFW_E_INVALID, "store: allocated a second time");
    const qfw_status status = take_all(s);
    if (status != QFW_OK) free_blocks(s);
    bind_parts(s, status == QFW_OK);
    s->allocated = status == QFW_OK;
    return status;
}

/* --- contents --- */

static qfw_status check_ready(const store *s, const store_entry *e, int packed, const char *call) {
    const char *wrong = !s->allocated                       ? "the store has no memory yet"
                        : e->sealed                         ? "it is sealed"
                        : packed && !e->t.quant             ? "it is not packed"
                        : packed == 0 && e->t.quant != NULL ? "it is packed"
                                                            : NULL;
    if (!wrong) return QFW_OK;
    return err_fail("E_INTERNAL", e->sealed ? QFW_E_UNSUPPORTED : QFW_E_INVALID, "%s: %s: %s", call,
        e->name, wrong);
}

static qfw_status write_part(store *s, store_entry *e, const store_part *p, const void *data) {
    e->host_fresh = 0;
    if (!p->bytes) return QFW_OK;
    return s->dev->be->mem_write(s->dev->inst, NULL, *p->mem, *p->offset, data, p->bytes);
}

qfw_status store_write(store *s, store_entry *e, const void *data) {
    store_part part[MAX_PARTS];
    QFW_TRY(check_ready(s, e, 0, "store_write"));
    (void)parts_of(e, part);
    return write_part(s, e, &part[0], data);
}

qfw_status store_write_packed(store *s, store_entry *e, const uint8_t *codes, const void *absmax,
    const float *nested, float offset) {
    store_part part[MAX_PARTS];
    QFW_TRY(check_ready(s, e, 1, "store_write_packed"));
    const uint32_t n = parts_of(e, part);
    if ((nested != NULL) != (n == 3))
        return err_fail("E_INTERNAL", QFW_E_INVALID, "store_write_packed: %s: nested scales %s",
            e->name, nested ? "given, but it has none" : "missing");
    e->quant.offset = (double)offset;
    QFW_TRY(write_part(s, e, &part[0], codes));
    QFW_TRY(write_part(s, e, &part[1], absmax));
    return n == 3 ? write_part(s, e, &part[2], nested) : QFW_OK;
}

/* Narrow a part of `e` to `count` of its values from `first`, one byte or scale per `values` of
 * them. 0: that cuts through one. */
static int narrow(const store_entry *e, store_part *p, int64_t values, uint64_t bytes_each,
    int64_t first, int64_t count) {
    const int64_t n = qfw_tensor_count(&e->t);
    if (first % values || (count % values && first + count != n)) return 0;
    *p->offset += (uint64_t)(first / values) * bytes_each;
    p->bytes = (uint64_t)((count + values - 1) / values) * bytes_each;
    return 1;
}

static qfw_status check_rows(const store_entry *e, int64_t row0, int64_t rows, const char *call) {
    if (row0 >= 0 && rows >= 0 && row0 <= e->t.dim[0] - rows) return QFW_OK;
    return err_fail("E_INTERNAL", QFW_E_SHAPE, "%s: %s: rows %lld + %lld of %lld", call, e->name,
        (long long)row0, (long long)rows, (long long)e->t.dim[0]);
}

qfw_status store_write_rows(
    store *s, store_entry *e, int64_t row0, int64_t rows, const void *data) {
    store_part part[MAX_PARTS];
    store_entry window = *e; /* whose offsets are moved to the rows */
    const int64_t width = e->t.rank && e->t.dim[0] ? qfw_tensor_count(&e->t) / e->t.dim[0] : 1;
    const char *bytes = data;
    QFW_TRY(check_ready(s, e, e->t.quant != NULL, "store_write_rows"));
    QFW_TRY(check_rows(e, row0, rows, "store_write_rows"));
    const uint32_t n = parts_of(&window, part) > 1 ? 2 : 1;
    const int64_t values[2] = {n == 1 ? 1 : 2, n == 1 ? 1 : (int64_t)e->quant.block};
    const uint64_t each[2] = {
        n == 1 ? qfw_dtype_bytes(e->t.dtype) : 1, e->quant.nested_block ? 1 : sizeof(float)};
    for (uint32_t k = 0; k < n; k++)
        if (!narrow(e, &part[k], values[k], each[k], row0 * width, rows * width))
            return err_fail("E_INTERNAL", QFW_E_SHAPE,
                "store_write_rows: %s: rows %lld + %lld cut through a byte or a block of scales",
                e->name, (long long)row0, (long long)rows);
    for (uint32_t k = 0; k < n; bytes += part[k++].bytes)
        QFW_TRY(write_part(s, e, &part[k], bytes));
    return QFW_OK;
}

qfw_status store_read(const store *s, const store_entry *e, void *data) {
    store_part part[MAX_PARTS];
    store_entry copy = *e;
    char *bytes = data;
    QFW_TRY(check_ready(s, e, e->t.quant != NULL, "store_read"));
    const uint32_t n = parts_of(&copy, part);
    for (uint32_t k = 0; k < n; bytes += part[k++].bytes)
        if (part[k].bytes)
            QFW_TRY(s->dev->be->mem_read(
                s->dev->inst, NULL, *part[k].mem, *part[k].offset, bytes, part[k].bytes));
    return QFW_OK;
}

qfw_status store_read_rows(
    const store *s, const store_entry *e, int64_t row0, int64_t rows, void *data) {
    store_part part[MAX_PARTS];
    store_entry window = *e;
    const int64_t width = e->t.rank && e->t.dim[0] ? qfw_tensor_count(&e->t) / e->t.dim[0] : 1;
    QFW_TRY(check_ready(s, e, 0, "store_read_rows"));
    QFW_TRY(check_rows(e, row0, rows, "store_read_rows"));
    (void)parts_of(&window, part);
    (void)narrow(e, &part[0], 1, qfw_dtype_bytes(e->t.dtype), row0 * width, rows * width);
    if (!part[0].bytes) return QFW_OK;
    return s->dev->be->mem_read(
        s->dev->inst, NULL, *part[0].mem, *part[0].offset, data, part[0].bytes);
}

qfw_status store_zero(store *s, store_entry *e) {
    static const char zeros[1 << 16];
    store_part part[MAX_PARTS];
    QFW_TRY(check_ready(s, e, 0, "store_zero"));
    (void)parts_of(e, part);
    const uint64_t bytes = part[0].bytes;
    for (uint64_t at = 0; at < bytes; at += sizeof zeros) {
        e->host_fresh = 0;
        QFW_TRY(s->dev->be->mem_write(s->dev->inst, NULL, *part[0].mem, *part[0].offset + at, zeros,
            bytes - at < sizeof zeros ? bytes - at : sizeof zeros));
    }
    return QFW_OK;
}

qfw_status store_seal(store *s, store_entry *e) {
    const device *dev = s->dev;
    if (e->sealed || !QFW_HAS(dev->be, qfw_backend, mem_seal)) return QFW_OK;
    QFW_TRY(check_ready(s, e, 1, "store_seal"));
    if (e->usage != QFW_MEM_FROZEN)
        return err_fail("E_INTERNAL", QFW_E_INVALID, "store_seal: %s: it is not frozen", e->name);
    QFW_TRY(dev->be->mem_seal(dev->inst, NULL, &e->t));
    e->sealed = 1;
    return QFW_OK;
}

/* --- the host's copy: parts one after another, each aligned --- */

qfw_status store_host_alloc(const device *dev, store_entry *e) {
    store_part part[MAX_PARTS];
    uint64_t bytes = ALIGN;
    (void)dev;
    if (e->host_copy) return QFW_OK;
    const uint32_t n = parts_of(e, part);
    for (uint32_t k = 0; k < n; k++) bytes += aligned(part[k].bytes);
    e->host_copy = mem_alloc_aligned(bytes, ALIGN);
    e->host_fresh = 0;
    return e->host_copy ? QFW_OK : QFW_E_NOMEM;
}

qfw_status store_host_refresh(const device *dev, store_entry *e, uint64_t *moved) {
    store_part part[MAX_PARTS];
    char *at = e->host_copy;
    if (e->host_fresh) return QFW_OK;
    if (e->sealed)
        return err_fail("E_INTERNAL", QFW_E_UNSUPPORTED,
            "%s: %s: a reference kernel reads it, but it is sealed", dev->name, e->name);
    const uint32_t n = parts_of(e, part);
    for (uint32_t k = 0; k < n; k++) {
        if (part[k].bytes)
            QFW_TRY(dev->be->mem_read(
                dev->inst, NULL, *part[k].mem, *part[k].offset, at, part[k].bytes));
        at += aligned(part[k].bytes);
        *moved += part[k].bytes;
    }
    e->host_fresh = 1;
    return QFW_OK;
}

qfw_tensor store_host_tensor(const store_entry *e, qfw_quant *quant) {
    store_part part[MAX_PARTS];
    store_entry copy = *e;
    char *at = e->host_copy;
    const uint32_t n = parts_of(&copy, part);
    for (uint32_t k = 0; k < n; k++) {
        *part[k].mem = (qfw_mem *)at;
        *part[k].offset = 0;
        at += aligned(part[k].bytes);
    }
    if (!e->t.quant) return copy.t;
    *quant = copy.quant;
    if (quant->nested_block) quant->map_mem = (qfw_mem *)(uintptr_t)quant8_map();
    copy.t.quant = quant;
    return copy.t;
}

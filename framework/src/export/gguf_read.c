/* gguf_read.c -- the reading half of gguf.h: every length is held against what is left of the file
 * before anything is taken from it. Of the tensors' values nothing is read before gguf_read. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/mem.h"
#include "export/gguf.h"
#include "files/file.h"

enum { ALIGN = 32, MAX_ALIGN = 1 << 16, MAX_RANK = 4, MAX_ITEMS = 1 << 24 };
enum { MAX_KEYS = 1 << 16, MAX_TENSORS = 200000, MAX_HEAD = 256 << 20, PIECE = 1 << 16 };

struct gguf_file {
    char *path, *text; /* text: all before the tensors' values, a NUL after each string */
    int fd;
    uint64_t size;
    gguf_key *key;
    gguf_tensor *tensor;
    uint64_t n_keys, n_tensors;
};

/* A place in the head, and what is wrong with it. */
typedef struct cursor {
    gguf_file *f;
    uint64_t at, n, have; /* n: bytes that the head can have; have: those that were read */
    qfw_status status;
} cursor;

static void bad(cursor *c, const char *what) {
    if (c->status == QFW_OK)
        c->status = err_fail("E_GGUF_FORMAT", QFW_E_DATA, "%s: byte %llu: %s", c->f->path,
            (unsigned long long)c->at, what);
}

static const char *take(cursor *c, uint64_t n) {
    if (c->status != QFW_OK) return NULL;
    if (n > c->n - c->at) {
        bad(c, c->n < MAX_HEAD ? "the file ends inside a value, or a length is wrong"
                               : "more than 256 MiB before the tensors");
        return NULL;
    }
    if (c->at + n > c->have) {
        uint64_t more = c->at + n - c->have + PIECE;
        if (more > c->n - c->have) more = c->n - c->have;
        c->status = file_pread(c->f->fd, c->f->path, c->have, c->f->text + c->have, (size_t)more);
        if (c->status != QFW_OK) return NULL;
        c->have += more;
    }
    c->at += n;
    return c->f->text + c->at - n;
}

static uint32_t take_u32(cursor *c) {
    uint32_t v = 0;
    const char *p = take(c, sizeof v);
    if (p) memcpy(&v, p, sizeof v);
    return v;
}

static uint64_t take_u64(cursor *c) {
    uint64_t v = 0;
    const char *p = take(c, sizeof v);
    if (p) memcpy(&v, p, sizeof v);
    return v;
}

/* The string stays where it is, moved by one byte into its length, so that a NUL fits behind it. */
static const char *take_text(cursor *c) {
    const uint64_t n = take_u64(c);
    const char *p = take(c, n);
    if (!p) return "";
    char *to = c->f->text + (p - c->f->text) - 1;
    memmove(to, p, (size_t)n);
    to[n] = 0;
    if (strlen(to) != n) bad(c, "a string that holds a NUL");
    return to;
}

static uint32_t size_of(uint32_t type) {
    static const uint32_t size[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return type < sizeof size / sizeof size[0] ? size[type] : 0;
}

static double number_of(uint32_t type, const char *p) {
    union {
        int8_t i8;
        int16_t i16;
        int32_t i32;
        int64_t i64;
        float f32;
        double f64;
        uint64_t u64; /* of a narrower one, too: the rest is 0 */
    } v = {.u64 = 0};
    memcpy(&v, p, size_of(type));
    switch (type) {
    case GGUF_I8: return v.i8;
    case GGUF_I16: return v.i16;
    case GGUF_I32: return v.i32;
    case GGUF_I64: return (double)v.i64;
    case GGUF_FLOAT: return (double)v.f32;
    case GGUF_DOUBLE: return v.f64;
    default: return (double)v.u64;
    }
}

static void take_array(cursor *c, gguf_key *k) {
    k->of = take_u32(c);
    k->n = take_u64(c);
    if (k->n > MAX_ITEMS) bad(c, "an array of more than 16,777,216 items");
    if (k->of != GGUF_STRING) {
        if (!size_of(k->of)) bad(c, "an array of a type that is unknown");
        k->numbers = take(c, c->status == QFW_OK ? k->n * size_of(k->of) : 0);
        return;
    }
    if (c->status == QFW_OK && k->n > (c->n - c->at) / sizeof(uint64_t))
        bad(c, "an array of more strings than the file has room for");
    const char **list = c->status == QFW_OK ? mem_alloc(k->n + 1, sizeof *list) : NULL;
    if (c->status == QFW_OK && !list) c->status = QFW_E_NOMEM;
    k->strings = list;
    for (uint64_t i = 0; c->status == QFW_OK && i < k->n; i++) list[i] = take_text(c);
}

static void take_key(cursor *c, gguf_key *k) {
    k->name = take_text(c);
    k->type = take_u32(c);
    k->n = 1;
    if (k->type == GGUF_STRING) {
        k->text = take_text(c);
    } else if (k->type == GGUF_ARRAY) {
        take_array(c, k);
    } else if (!size_of(k->type)) {
        bad(c, "a value of a type that is unknown");
    } else {
        const char *p = take(c, size_of(k->type));
        if (p) k->number = number_of(k->type, p);
        if (p && k->type == GGUF_BOOL && *p & ~1) bad(c, "a bool, wanted 0 or 1");
    }
}

static void take_tensor(cursor *c, gguf_tensor *t) {
    uint64_t dim[MAX_RANK] = {1, 1, 1, 1}, n = 1;
    t->name = take_text(c);
    t->rank = take_u32(c);
    if (t->rank < 1 || t->rank > MAX_RANK) {
        bad(c, "a tensor's rank, wanted 1 .. 4");
        return;
    }
    for (uint32_t d = t->rank; d-- > 0;) {
        dim[d] = take_u64(c);
        if (!dim[d] || dim[d] > c->f->size || n > c->f->size / dim[d] * 2)
            bad(c, "a tensor larger than the file");
        else
            n *= dim[d];
    }
    for (uint32_t d = 0; d < MAX_RANK; d++) t->dim[d] = d < t->rank ? (int64_t)dim[d] : 1;
    t->type = take_u32(c);
    t->at = take_u64(c);
    if (t->type != GGUF_F32 && t->type != GGUF_F16 && t->type != GGUF_Q8_0)
        bad(c, "a tensor type that is not read here (F32, F16, Q8_0)");
    if (t->type == GGUF_Q8_0 && dim[t->rank - 1] % GGUF_BLOCK)
        bad(c, "a Q8_0 tensor whose rows are no whole blocks");
    t->bytes = gguf_bytes(t->type, n);
}

/* --- what holds between them --- */

static int compare_names(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The first of two names that are the same; NULL: none. `names` is sorted in place. */
static const char *find_twice(const char **names, uint64_t n) {
    if (n) qsort(names, (size_t)n, sizeof *names, compare_names);
    for (uint64_t i = 1; i < n; i++)
        if (!strcmp(names[i - 1], names[i])) return names[i];
    return NULL;
}

static void check_names(cursor *c) {
    const gguf_file *f = c->f;
    const uint64_t most = f->n_keys > f->n_tensors ? f->n_keys : f->n_tensors;
    const char **names = mem_alloc((size_t)most + 1, sizeof *names), *twice;
    if (!names) {
        c->status = QFW_E_NOMEM;
        return;
    }
    for (uint64_t i = 0; i < f->n_keys; i++) names[i] = f->key[i].name;
    twice = find_twice(names, f->n_keys);
    for (uint64_t i = 0; !twice && i < f->n_tensors; i++) names[i] = f->tensor[i].name;
    if (!twice) twice = find_twice(names, f->n_tensors);
    if (twice)
        c->status = err_fail("E_GGUF_FORMAT", QFW_E_DATA, "%s: byte %llu: \"%.100s\" stands twice",
            f->path, (unsigned long long)c->at, twice);
    mem_free(names);
}

static uint64_t find_alignment(cursor *c) {
    const gguf_key *k = gguf_find(c->f, "general.alignment");
    const uint64_t n = !k ? ALIGN : k->type == GGUF_U32 ? (uint64_t)k->number : 0;
    if (n >= 8 && n <= MAX_ALIGN && !(n & (n - 1))) return n;
    bad(c, "general.alignment, wanted a power of two from 8 to 65536");
    return ALIGN;
}

static uint64_t round_up(uint64_t n, uint64_t to) { return (n + to - 1) / to * to; }

/* One behind the other, in the file, and nothing after them but the last one's padding. */
static void place_tensors(cursor *c) {
    gguf_file *f = c->f;
    const uint64_t align = find_alignment(c), data = round_up(c->at, align);
    uint64_t next = 0;
    for (uint64_t i = 0; c->status == QFW_OK && i < f->n_tensors; i++) {
        gguf_tensor *t = &f->tensor[i];
        if (t->at != next)
            bad(c, "a tensor's values do not begin where those of the one before it end");
        else if (data > f->size || next > f->size - data || t->bytes > f->size - data - next)
            bad(c, "a tensor's values lie past the end of the file");
        t->at += data;
        next += round_up(t->bytes, align);
    }
    if (c->status == QFW_OK && f->n_tensors && f->size > data + next)
        bad(c, "bytes behind the last tensor's values");
}

static void parse(cursor *c) {
    gguf_file *f = c->f;
    const char *magic = take(c, 4);
    if (magic && memcmp(magic, "GGUF", 4) != 0) bad(c, "not a GGUF file");
    if (take_u32(c) != 3) bad(c, "the version, wanted 3");
    f->n_tensors = take_u64(c);
    f->n_keys = take_u64(c);
    if (f->n_tensors > MAX_TENSORS || f->n_keys > MAX_KEYS)
        bad(c, "more than 200,000 tensors or 65,536 keys");
    if (c->status != QFW_OK) f->n_tensors = f->n_keys = 0;
    f->key = mem_alloc(f->n_keys + 1, sizeof *f->key);
    f->tensor = mem_alloc(f->n_tensors + 1, sizeof *f->tensor);
    if (c->status == QFW_OK && (!f->key || !f->tensor)) c->status = QFW_E_NOMEM;
    for (uint64_t i = 0; c->status == QFW_OK && i < f->n_keys; i++) take_key(c, &f->key[i]);
    for (uint64_t i = 0; c->status == QFW_OK && i < f->n_tensors; i++)
        take_tensor(c, &f->tensor[i]);
    if (c->status == QFW_OK) check_names(c);
    if (c->status == QFW_OK) place_tensors(c);
}

qfw_status gguf_open(const char *path, gguf_file **out) {
    gguf_file *f = mem_alloc(1, sizeof *f);
    *out = NULL;
    if (!f) return QFW_E_NOMEM;
    f->path = mem_strdup(path);
    f->fd = file_open(path, "E_NOINPUT", &f->size);
    cursor c = {.f = f, .status = f->fd < 0 ? err_status() : f->path ? QFW_OK : QFW_E_NOMEM};
    c.n = f->size < MAX_HEAD ? f->size : MAX_HEAD;
    if (c.status == QFW_OK) f->text = mem_alloc(c.n + 1, 1);
    if (c.status == QFW_OK && !f->text) c.status = QFW_E_NOMEM;
    if (c.status == QFW_OK) parse(&c);
    if (c.status != QFW_OK) {
        gguf_close(f);
        return c.status;
    }
    *out = f;
    return QFW_OK;
}

void gguf_close(gguf_file *f) {
    if (!f) return;
    for (uint64_t i = 0; f->key && i < f->n_keys; i++)
        mem_free((void *)(uintptr_t)f->key[i].strings);
    if (f->fd >= 0) close(f->fd);
    mem_free(f->key);
    mem_free(f->tensor);
    mem_free(f->text);
    mem_free(f->path);
    mem_free(f);
}

const gguf_key *gguf_find(const gguf_file *f, const char *name) {
    for (uint64_t i = 0; i < f->n_keys; i++)
        if (!strcmp(f->key[i].name, name)) return &f->key[i];
    return NULL;
}

const gguf_tensor *gguf_at(const gguf_file *f, uint32_t i) {
    return i < f->n_tensors ? &f->tensor[i] : NULL;
}

qfw_status gguf_read(const gguf_file *f, const gguf_tensor *t, float *out) {
    uint64_t n = 1;
    char *data = mem_alloc(t->bytes, 1);
    if (!data) return QFW_E_NOMEM;
    for (uint32_t d = 0; d < t->rank; d++) n *= (uint64_t)t->dim[d];
    const qfw_status status = file_pread(f->fd, f->path, t->at, data, (size_t)t->bytes);
    if (status == QFW_OK) gguf_decode(t->type, data, n, out);
    mem_free(data);
    return status;
}

/* test_quant4_golden.c -- packing and unpacking against what bitsandbytes itself gave: codes,
 * scales, nested scales and decoded values, bit for bit.
 */
#include "../support/synth.h"
#include "base/error.h"
#include "base/mem.h"
#include "files/file.h"
#include "files/json.h"
#include "files/safetensors.h"
#include "ops/quant4.h"
#include "ops/ref.h"

#include "../support/test.h"

#define FOLDER "tests/golden/quant4/"

static void must(qfw_status s) {
    if (s != QFW_OK) fail_msg("%s", err_text(0));
}

typedef struct golden {
    const char *name, *dtype;
    uint32_t at, type, block; /* its place in the list; QFW_NF4 or QFW_FP4 */
    int64_t n, n_blocks, rows, columns;
    float *w, *absmax;
    uint8_t *codes;
} golden;

typedef struct files {
    qfw_doc *doc;
    st_file *arrays;
} files;

static int64_t number(const files *f, const golden *c, const char *key) {
    char place[128];
    int64_t v;
    snprintf(place, sizeof place, "/cases/%u/%s", c->at, key);
    must(json_doc_api.i64(f->doc, place, &v));
    return v;
}

static double real(const files *f, const golden *c, const char *key) {
    char place[128];
    double v;
    snprintf(place, sizeof place, "/cases/%u/%s", c->at, key);
    must(json_doc_api.f64(f->doc, place, &v));
    return v;
}

static const char *text(const files *f, const golden *c, const char *key) {
    char place[128];
    const char *v;
    snprintf(place, sizeof place, "/cases/%u/%s", c->at, key);
    must(json_doc_api.str(f->doc, place, &v));
    return v;
}

static uint64_t count(const files *f, const golden *c, const char *key) {
    char place[128];
    snprintf(place, sizeof place, "/cases/%u/%s", c->at, key);
    return json_doc_api.count(f->doc, place);
}

/* Round to the dtype that the fixture was quantised from. */
static void round_to(const char *dtype, float *w, int64_t n) {
    uint16_t narrow;
    qfw_tensor t = {.size = sizeof t, .rank = 1, .dim = {1, 1, 1, 1}, .stride = {1, 1, 1, 1}};
    t.mem = (qfw_mem *)(void *)&narrow;
    t.dtype = strcmp(dtype, "bfloat16") == 0 ? QFW_BF16 : QFW_F16;
    if (strcmp(dtype, "float32") == 0) return;
    for (int64_t i = 0; i < n; i++) {
        ref_store(&t, 0, (double)w[i]);
        w[i] = (float)ref_load(&t, 0);
    }
}

/* The tensor that was quantised, by its formula. */
static void make_source(const files *f, golden *c) {
    char name[64], key[64];
    snprintf(name, sizeof name, "quant4.%s", c->name);
    synth_fill(name, 0, real(f, c, "scale"), c->w, c->n);
    for (uint64_t z = 0; z < count(f, c, "zero_blocks"); z++) {
        snprintf(key, sizeof key, "zero_blocks/%d", (int)z);
        memset(c->w + number(f, c, key) * c->block, 0, c->block * sizeof *c->w);
    }
    for (int64_t i = 0; number(f, c, "block_exp") && i < c->n; i++) {
        const int power = (int)(i / c->block % 13) - 6;
        c->w[i] *= power < 0 ? 1.0f / (float)(1 << -power) : (float)(1 << power);
    }
    round_to(c->dtype, c->w, c->n);
}

/* Compare bytes with the array "<case>.<type>.<key>" of the fixture. */
static void same_bytes(
    const files *f, const golden *c, const char *key, const void *got, uint64_t bytes) {
    char name[128];
    snprintf(name, sizeof name, "%s.%s.%s", c->name, c->type == QFW_NF4 ? "nf4" : "fp4", key);
    const st_tensor *const t = st_find(f->arrays, name);
    if (!t) fail_msg("no array %s", name);
    assert_int_equal(t->bytes, bytes);
    uint8_t *const want = mem_alloc((size_t)bytes, 1);
    must(st_read(f->arrays, t, 0, t->dim[0], want));
    for (uint64_t i = 0; i < bytes; i++)
        if (((const uint8_t *)got)[i] != want[i]) fail_msg("%s: byte %d differs", name, (int)i);
    mem_free(want);
}

static qfw_tensor packed_tensor(const golden *c, const qfw_quant *q) {
    const qfw_tensor t = {.size = sizeof t,
        .dtype = c->type,
        .rank = 2,
        .dim = {c->rows, c->columns, 1, 1},
        .mem = (qfw_mem *)(void *)c->codes,
        .quant = q};
    return t;
}

/* The digest of the decoded tensor in its own dtype; `sign` goes to FP4's code 8. */
static void digest_of(const golden *c, const qfw_quant *q, double sign, char digest[65]) {
    const qfw_tensor t = packed_tensor(c, q);
    float *const out = mem_alloc((size_t)c->n, sizeof *out);
    qfw_tensor narrow = {.size = sizeof narrow, .rank = 1, .dim = {c->n, 1, 1, 1}};
    narrow.stride[0] = 1;
    narrow.dtype = strcmp(c->dtype, "float32") == 0    ? QFW_F32
                   : strcmp(c->dtype, "bfloat16") == 0 ? QFW_BF16
                                                       : QFW_F16;
    narrow.mem = mem_alloc((size_t)c->n, qfw_dtype_bytes(narrow.dtype));
    quant4_decode(&t, 0, c->n, out);
    for (int64_t i = 0; i < c->n; i++) {
        const uint32_t code = i % 2 ? c->codes[i / 2] & 15 : c->codes[i / 2] >> 4;
        const int signed_zero = c->type == QFW_FP4 && code == 8;
        ref_store(&narrow, i, signed_zero ? sign * (double)out[i] : (double)out[i]);
    }
    sha256 hash;
    sha256_init(&hash);
    sha256_add(&hash, narrow.mem, (size_t)c->n * qfw_dtype_bytes(narrow.dtype));
    sha256_hex(&hash, digest);
    mem_free(narrow.mem);
    mem_free(out);
}

/* FP4's code 8 decodes to 0.0 in some paths of bitsandbytes and to -0.0 in others: both pass. */
static void same_digest(const files *f, const golden *c, const qfw_quant *q, const char *key) {
    char place[64], plus[65], minus[65];
    digest_of(c, q, 1, plus);
    digest_of(c, q, -1, minus);
    snprintf(place, sizeof place, "%s/%s/sha256", c->type == QFW_NF4 ? "nf4" : "fp4", key);
    const char *const want = text(f, c, place);
    if (strcmp(plus, want) != 0 && strcmp(minus, want) != 0)
        fail_msg("%s: %s differs", c->name, place);
}

static void check_nested(const files *f, const golden *c) {
    char place[64];
    uint8_t *const codes = mem_alloc((size_t)c->n_blocks, 1);
    const int64_t outer = quant4_blocks(c->n_blocks, 256);
    float *const nested = mem_alloc((size_t)outer, sizeof *nested), offset;
    must(quant8_nest(c->absmax, c->n_blocks, QUANT8_CPU_TABLE, codes, nested, &offset));
    same_bytes(f, c, "absmax_u8", codes, (uint64_t)c->n_blocks);
    same_bytes(f, c, "nested_absmax", nested, (uint64_t)outer * sizeof *nested);
    snprintf(place, sizeof place, "%s/nested_offset", c->type == QFW_NF4 ? "nf4" : "fp4");
    assert_true((double)offset == real(f, c, place));
    qfw_quant q = {.size = sizeof q, .block = c->block, .nested_block = 256};
    q.absmax_mem = (qfw_mem *)(void *)codes;
    q.nested_mem = (qfw_mem *)(void *)nested;
    q.map_mem = (qfw_mem *)(uintptr_t)quant8_map();
    q.offset = (double)offset;
    same_digest(f, c, &q, "decoded_nested");
    mem_free(nested);
    mem_free(codes);
}

static void check_case(const files *f, golden *c) {
    c->n_blocks = quant4_blocks(c->n, c->block);
    c->w = mem_alloc((size_t)c->n, sizeof *c->w);
    c->absmax = mem_alloc((size_t)c->n_blocks, sizeof *c->absmax);
    c->codes = mem_alloc((size_t)quant4_code_bytes(c->n), 1);
    make_source(f, c);
    must(quant4_encode(c->type, c->w, c->n, c->block, c->codes, c->absmax));
    same_bytes(f, c, "packed", c->codes, quant4_code_bytes(c->n));
    same_bytes(f, c, "absmax", c->absmax, (uint64_t)c->n_blocks * sizeof *c->absmax);
    const qfw_quant q = {
        .size = sizeof q, .block = c->block, .absmax_mem = (qfw_mem *)(void *)c->absmax};
    same_digest(f, c, &q, "decoded");
    check_nested(f, c);
    mem_free(c->codes);
    mem_free(c->absmax);
    mem_free(c->w);
}

static void test_every_case(void **state) {
    files f;
    (void)state;
    must(json_read(FOLDER "quant4.json", 1 << 20, NULL, &f.doc));
    must(st_open(FOLDER "quant4.safetensors", &f.arrays));
    const uint64_t n = json_doc_api.count(f.doc, "/cases");
    assert_true(n >= 15);
    for (uint32_t at = 0; at < n; at++)
        for (uint32_t type = QFW_NF4; type <= QFW_FP4; type++) {
            golden c = {.at = at, .type = type};
            c.name = text(&f, &c, "name");
            c.dtype = text(&f, &c, "dtype");
            c.block = (uint32_t)number(&f, &c, "blocksize");
            c.rows = number(&f, &c, "shape/0");
            c.columns = count(&f, &c, "shape") > 1 ? number(&f, &c, "shape/1") : 1;
            c.n = c.rows * c.columns;
            check_case(&f, &c);
        }
    st_close(f.arrays);
    json_destroy(f.doc);
}

static void test_dynamic_map(void **state) {
    char digest[65];
    sha256 hash;
    (void)state;
    sha256_init(&hash);
    sha256_add(&hash, quant8_map(), 256 * sizeof(float)); /* little-endian, as the digest is */
    sha256_hex(&hash, digest);
    assert_string_equal(digest, "e732639a65f497b4ad684bb166a4467708255edd5207757de8b8f0c7e1fda89c");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_case),
        cmocka_unit_test(test_dynamic_map),
    };
    return cmocka_run_group_tests_name("quant4 golden", tests, NULL, NULL);
}

/* test_store.c -- what outlives a step: names, layout in blocks, contents, sealing, the host's
 * copies. */
#include "../support/testbackend.h"
#include "base/error.h"
#include "base/mem.h"
#include "ops/quant4.h"

#include "../support/test.h"

static const int64_t square[2] = {64, 64}, row[1] = {100};

static store_entry *add(store *s, const char *name, uint32_t usage, const int64_t *dim) {
    store_entry *e = NULL;
    assert_int_equal(store_add(s, name, usage, QFW_F32, dim == row ? 1 : 2, dim, 0, 0, &e), QFW_OK);
    assert_non_null(e);
    return e;
}

static store_entry *add_packed(store *s, const char *name, uint32_t nested) {
    store_entry *e = NULL;
    assert_int_equal(
        store_add(s, name, QFW_MEM_FROZEN, QFW_NF4, 2, square, 64, nested, &e), QFW_OK);
    return e;
}

static void test_names(void **state) {
    test_device d;
    store *s;
    (void)state;
    test_device_storage(&d);
    assert_int_equal(store_create(&d.dev, &s), QFW_OK);
    store_entry *a = add(s, "a", QFW_MEM_RUN, square), *b = add(s, "b", QFW_MEM_FROZEN, row);
    assert_ptr_equal(store_find(s, "a"), a);
    assert_ptr_equal(store_find(s, "b"), b);
    assert_null(store_find(s, "c"));
    assert_ptr_equal(store_at(s, 0), a);
    assert_ptr_equal(store_at(s, 1), b);
    assert_null(store_at(s, 2));
    assert_int_equal(a->t.stride[0], 64);
    assert_int_equal(a->bytes, 64 * 64 * 4);
    assert_int_equal(store_bytes(s, QFW_MEM_RUN), 64 * 64 * 4);
    assert_int_equal(store_bytes(s, QFW_MEM_FROZEN), 512); /* 400, aligned */
    store_destroy(s);
}

static void check_refused(store *s, const char *name, uint32_t usage, uint32_t dtype,
    const int64_t *dim, uint32_t block, const char *text) {
    store_entry *e = (store_entry *)(void *)&s;
    err_clear();
    assert_int_equal(store_add(s, name, usage, dtype, 2, dim, block, 0, &e), QFW_E_INVALID);
    assert_null(e);
    assert_non_null(strstr(err_text(0), name));
    if (!strstr(err_text(0), text)) fail_msg("%s", err_text(0));
}

static void test_refusals(void **state) {
    test_device d;
    store *s;
    const int64_t huge[2] = {INT64_MAX / 2, 8}, negative[2] = {-1, 8};
    (void)state;
    test_device_storage(&d);
    assert_int_equal(store_create(&d.dev, &s), QFW_OK);
    add(s, "a", QFW_MEM_RUN, square);
    check_refused(s, "a", QFW_MEM_RUN, QFW_F32, square, 0, "twice");
    check_refused(s, "b", QFW_MEM_STEP, QFW_F32, square, 0, "usage");
    check_refused(s, "b", QFW_MEM_RUN, 77, square, 0, "dtype");
    check_refused(s, "b", QFW_MEM_RUN, QFW_F32, square, 64, "blocks");
    check_refused(s, "b", QFW_MEM_RUN, QFW_NF4, square, 0, "blocks");
    check_refused(s, "b", QFW_MEM_RUN, QFW_F32, huge, 0, "size");
    check_refused(s, "b", QFW_MEM_RUN, QFW_F32, negative, 0, "size");
    assert_int_equal(store_alloc(s), QFW_OK);
    check_refused(s, "b", QFW_MEM_RUN, QFW_F32, square, 0, "allocated");
    assert_int_equal(store_alloc(s), QFW_E_INVALID);
    err_clear();
    store_destroy(s);
}

/* Blocks are no larger than the device allows, FROZEN apart from RUN, parts aligned and apart. */
static void test_blocks(void **state) {
    test_device d;
    store *s;
    char name[16];
    store_entry *e[20];
    (void)state;
    test_device_storage(&d);
    d.dev.info.max_alloc_bytes = 40000; /* two squares and a bit */
    assert_int_equal(store_create(&d.dev, &s), QFW_OK);
    for (int i = 0; i < 20; i++) {
        snprintf(name, sizeof name, "e%d", i);
        e[i] = add(s, name, i % 3 ? QFW_MEM_RUN : QFW_MEM_FROZEN, i % 2 ? square : row);
    }
    assert_int_equal(store_alloc(s), QFW_OK);
    for (int i = 0; i < 20; i++) {
        assert_non_null(e[i]->t.mem);
        assert_int_equal(e[i]->t.offset % 256, 0);
        for (int k = 0; k < i; k++) {
            if (e[i]->t.mem != e[k]->t.mem) continue;
            assert_int_equal(e[i]->usage, e[k]->usage);
            assert_true(e[i]->t.offset >= e[k]->t.offset + e[k]->bytes ||
                        e[k]->t.offset >= e[i]->t.offset + e[i]->bytes);
        }
    }
    assert_true(d.largest <= 40000);
    assert_true(d.n_mems < 10);
    assert_int_equal(d.bytes, store_bytes(s, QFW_MEM_RUN) + store_bytes(s, QFW_MEM_FROZEN));
    store_destroy(s);
    assert_int_equal(d.n_mems, 0);
}

static void test_no_memory(void **state) {
    test_device d;
    store *s;
    (void)state;
    test_device_storage(&d);
    assert_int_equal(store_create(&d.dev, &s), QFW_OK);
    store_entry *e = add(s, "weight", QFW_MEM_FROZEN, square);
    add(s, "state", QFW_MEM_RUN, square);
    d.limit = 20000;
    assert_int_equal(store_alloc(s), QFW_E_DEVICE_OOM);
    assert_non_null(strstr(err_text(0), "what is trained"));
    assert_int_equal(d.n_mems, 0);
    assert_null(e->t.mem);
    d.limit = 0;
    d.dev.info.max_alloc_bytes = 16000; /* less than one entry */
    err_clear();
    assert_int_equal(store_alloc(s), QFW_E_DEVICE_OOM);
    assert_non_null(strstr(err_text(0), "weight"));
    d.dev.info.max_alloc_bytes = 0;
    assert_int_equal(store_alloc(s), QFW_OK);
    err_clear();
    store_destroy(s);
}

static void test_contents(void **state) {
    test_device d;
    store *s;
    float in[64 * 64], out[64 * 64];
    (void)state;
    test_device_storage(&d);
    assert_int_equal(store_create(&d.dev, &s), QFW_OK);
    store_entry *e = add(s, "e", QFW_MEM_RUN, square), *other = add(s, "o", QFW_MEM_RUN, square);
    assert_int_equal(store_write(s, e, in), QFW_E_INVALID); /* no memory yet */
    err_clear();
    assert_int_equal(store_alloc(s), QFW_OK);
    for (int i = 0; i < 64 * 64; i++) in[i] = (float)i;
    assert_int_equal(store_write(s, other, in), QFW_OK);
    assert_int_equal(store_write(s, e, in), QFW_OK);
    const float rows[128] = {-1, -2};
    assert_int_equal(store_write_rows(s, e, 3, 2, rows), QFW_OK);
    assert_int_equal(store_read(s, e, out), QFW_OK);
    for (int i = 0; i < 64 * 64; i++)
        assert_true(out[i] == (i / 64 == 3 || i / 64 == 4 ? rows[i - 192] : in[i]));
    assert_int_equal(store_read_rows(s, e, 2, 3, out), QFW_OK);
    for (int i = 0; i < 3 * 64; i++) assert_true(out[i] == (i < 64 ? in[128 + i] : rows[i - 64]));
    assert_int_equal(store_write_rows(s, e, 63, 2, rows), QFW_E_SHAPE);
    assert_int_equal(store_read_rows(s, e, 63, 2, out), QFW_E_SHAPE);
    err_clear();
    assert_int_equal(store_zero(s, e), QFW_OK);
    assert_int_equal(store_read(s, e, out), QFW_OK);
    for (int i = 0; i < 64 * 64; i++) assert_true(out[i] == 0.0f);
    assert_int_equal(store_read(s, other, out), QFW_OK);
    assert_memory_equal(out, in, sizeof in);
    store_destroy(s);
}

/* 64 x 64 values: 2048 bytes of codes, 64 scales. */
static void fill_packed(store *s, store_entry *e, uint8_t *codes, uint8_t *scales, float *nested) {
    for (int i = 0; i < 2048; i++) codes[i] = (uint8_t)(i * 7);
    for (int i = 0; i < 64; i++) scales[i] = (uint8_t)(i * 3);
    nested[0] = 0.5f;
    assert_int_equal(store_write_packed(s, e, codes, scales, nested, 0.25f), QFW_OK);
}

static void test_packed(void **state) {
    test_device d;
    store *s;
    uint8_t codes[2048], scales[64], out[2048 + 64 + 4];
    float nested[1], plain[64] = {1, 2, 3}, more[64 * 64];
    (void)state;
    test_device_storage(&d);
    assert_int_equal(store_create(&d.dev, &s), QFW_OK);
    store_entry *e = add_packed(s, "w", 256), *f = add_packed(s, "f32 scales", 0);
    assert_int_equal(store_bytes(s, QFW_MEM_FROZEN), 1024 + 2048 + 256 + 256 + 2048 + 256);
    assert_int_equal(store_alloc(s), QFW_OK);
    fill_packed(s, e, codes, scales, nested);
    assert_int_equal(store_read(s, e, out), QFW_OK);
    assert_memory_equal(out, codes, 2048);
    assert_memory_equal(out + 2048, scales, 64);
    assert_memory_equal(out + 2112, nested, 4);
    assert_true(e->quant.offset == 0.25);
    assert_int_equal(store_write_packed(s, f, codes, plain, NULL, 0), QFW_OK);
    assert_int_equal(store_write_packed(s, f, codes, plain, nested, 0), QFW_E_INVALID);
    assert_int_equal(store_write_packed(s, e, codes, scales, NULL, 0), QFW_E_INVALID);
    assert_int_equal(store_write(s, e, more), QFW_E_INVALID);
    err_clear();
    uint8_t piece[32 + 1] = {0};
    memset(piece, 0xab, 32);
    piece[32] = 9;
    assert_int_equal(store_write_rows(s, e, 5, 1, piece), QFW_OK);
    assert_int_equal(store_read(s, e, out), QFW_OK);
    assert_int_equal(out[5 * 32], 0xab);
    assert_int_equal(out[6 * 32], codes[6 * 32]);
    assert_int_equal(out[2048 + 5], 9);
    assert_int_equal(out[2048 + 6], scales[6]);
    store_destroy(s);
}

static void test_host_copy(void **state) {
    test_device d;
    store *s;
    uint8_t codes[2048], scales[64];
    float nested[1], in[64 * 64] = {7};
    uint64_t moved = 0;
    qfw_quant q;
    (void)state;
    test_device_storage(&d);
    assert_int_equal(store_create(&d.dev, &s), QFW_OK);
    store_entry *w = add_packed(s, "w", 256), *e = add(s, "e", QFW_MEM_RUN, square);
    assert_int_equal(store_alloc(s), QFW_OK);
    fill_packed(s, w, codes, scales, nested);
    assert_int_equal(store_write(s, e, in), QFW_OK);
    assert_int_equal(store_host_alloc(&d.dev, w), QFW_OK);
    assert_int_equal(store_host_alloc(&d.dev, e), QFW_OK);
    assert_int_equal(store_host_refresh(&d.dev, w, &moved), QFW_OK);
    assert_int_equal(store_host_refresh(&d.dev, e, &moved), QFW_OK);
    assert_int_equal(moved, 2048 + 64 + 4 + sizeof in);
    assert_int_equal(store_host_refresh(&d.dev, e, &moved), QFW_OK); /* still fresh */
    assert_int_equal(moved, 2048 + 64 + 4 + sizeof in);
    const qfw_tensor t = store_host_tensor(w, &q);
    assert_memory_equal(t.mem, codes, 2048);
    assert_ptr_equal(t.quant, &q);
    assert_memory_equal(q.absmax_mem, scales, 64);
    assert_memory_equal(q.nested_mem, nested, 4);
    assert_memory_equal(q.map_mem, quant8_map(), 1024);
    in[0] = 8;
    assert_int_equal(store_write(s, e, in), QFW_OK); /* now it is stale */
    assert_int_equal(e->host_fresh, 0);
    assert_int_equal(store_host_refresh(&d.dev, e, &moved), QFW_OK);
    assert_true(((const float *)e->host_copy)[0] == 8.0f);
    store_destroy(s);
}

static void test_seal(void **state) {
    test_device d;
    store *s;
    uint8_t codes[2048], scales[64], out[2116];
    float nested[1];
    (void)state;
    test_device_native(&d);
    assert_int_equal(store_create(&d.dev, &s), QFW_OK);
    store_entry *w = add_packed(s, "w", 256), *e = add(s, "e", QFW_MEM_RUN, square);
    assert_int_equal(w->bytes, 2048 + 256 + 256 + 4096); /* with the private copy */
    assert_int_equal(store_alloc(s), QFW_OK);
    fill_packed(s, w, codes, scales, nested);
    assert_int_equal(store_seal(s, e), QFW_E_INVALID);
    assert_int_equal(store_seal(s, w), QFW_OK);
    assert_int_equal(store_seal(s, w), QFW_OK);
    assert_int_equal(d.n_sealed, 1);
    assert_int_equal(w->sealed, 1);
    assert_int_equal(store_read(s, w, out), QFW_E_UNSUPPORTED);
    assert_int_equal(store_write_packed(s, w, codes, scales, nested, 0), QFW_E_UNSUPPORTED);
    err_clear();
    store_destroy(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_contents),
        cmocka_unit_test(test_packed),
        cmocka_unit_test(test_host_copy),
        cmocka_unit_test(test_seal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

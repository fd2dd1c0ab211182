/* test_host.c -- the table that plugins get: every service answers, and failures get the right
 * exit code. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/error.h"
#include "base/option.h"
#include "base/parallel.h"
#include "plugin/host.h"
#include "qfw/ops.h"
#include "qfw/ops_prim.h"
#include "qfw/plugin.h"

#include <cmocka.h>
#undef fail /* cmocka's; the table has a member of that name */

static void table_is_whole(void **state) {
    (void)state;
    const qfw_host *h = host_table();
    assert_ptr_equal(h, host_table());
    assert_int_equal(h->size, sizeof *h);
    assert_int_equal(h->abi_minor, QFW_ABI_MINOR);
    assert_string_equal(h->name, "qfw");
    assert_non_null(h->version);
    assert_true(h->log_line && h->fail && h->heap_alloc && h->heap_free && h->cfg_i64 &&
                h->cfg_f64 && h->cfg_str && h->parallel && h->n_workers && h->cancelled &&
                h->ref_run && h->extension);
}

static void failures_keep_code_and_text(void **state) {
    (void)state;
    const qfw_host *h = host_table();
    static const struct {
        qfw_status code;
        int exit_code;
    } rows[] = {
        {QFW_E_INVALID, 70},
        {QFW_E_SHAPE, 70},
        {QFW_E_DTYPE, 70},
        {QFW_E_UNSUPPORTED, 70},
        {QFW_E_NOMEM, 71},
        {QFW_E_DEVICE, 69},
        {QFW_E_DEVICE_OOM, 71},
        {QFW_E_DEVICE_LOST, 69},
        {QFW_E_IO, 74},
        {QFW_E_CONFIG, 78},
        {QFW_E_CANCELLED, 75},
        {QFW_E_ABI, 69},
        {QFW_E_INTERNAL, 70},
        {QFW_E_END, 70},
        {QFW_E_DATA, 65},
        {QFW_E_NUMERIC, 80},
        {-99, 70},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_int_equal(qfw_fail(h, rows[i].code, "rope: 100%% of %d\x1b", 3), rows[i].code);
        assert_int_equal(err_status(), rows[i].code);
        assert_int_equal(err_exit_code(), rows[i].exit_code);
        assert_non_null(strstr(err_text(0), "rope: 100% of 3\\x1b"));
    }
    assert_int_equal(qfw_fail(h, QFW_OK, "fine?"), QFW_E_INTERNAL);
    assert_int_equal(qfw_fail(h, 7, "fine?"), QFW_E_INTERNAL);
    assert_int_equal(err_exit_code(), EXIT_INTERNAL);
}

static void heap_is_aligned_and_zero(void **state) {
    (void)state;
    const qfw_host *h = host_table();
    unsigned char *p = h->heap_alloc(h, 1000, 4096);
    assert_non_null(p);
    assert_int_equal((uintptr_t)p % 4096, 0);
    for (int i = 0; i < 1000; i++) assert_int_equal(p[i], 0);
    h->heap_free(h, p);
    void *empty = h->heap_alloc(h, 0, 64);
    assert_non_null(empty);
    h->heap_free(h, empty);
    h->heap_free(h, NULL);
    assert_null(h->heap_alloc(h, UINT64_MAX - 64, 64));
    assert_int_equal(err_exit_code(), EXIT_MEMORY);
}

static void options_are_answered(void **state) {
    (void)state;
    const qfw_host *h = host_table();
    static const qfw_option options[] = {
        QFW_OPTION(QFW_OPT_INT, "n", "7", 0, 0, NULL, "n"),
        QFW_OPTION(QFW_OPT_FLOAT, "x", "0.5", 0, 0, NULL, "x"),
        QFW_OPTION(QFW_OPT_STR, "s", "text", 0, 0, NULL, "s"),
    };
    schema_section section = {"trainer.t", options, 3, NULL};
    ini *i = NULL;
    int64_t n = 0;
    double x = 0;
    const char *s = NULL;
    assert_int_equal(ini_parse_text("", 0, "x.ini", &i), QFW_OK);
    assert_int_equal(option_check(i, &section, 1, NULL, 0), QFW_OK);
    assert_int_equal(h->cfg_i64(h, section.cfg, "n", &n), QFW_OK);
    assert_int_equal(h->cfg_f64(h, section.cfg, "x", &x), QFW_OK);
    assert_int_equal(h->cfg_str(h, section.cfg, "s", &s), QFW_OK);
    assert_int_equal(n, 7);
    assert_true(x == 0.5);
    assert_string_equal(s, "text");
    assert_int_equal(h->cfg_i64(h, section.cfg, "m", &n), QFW_E_INVALID);
    assert_int_equal(h->cfg_i64(h, section.cfg, "x", &n), QFW_E_INVALID);
    option_free(&section, 1);
    ini_destroy(i);
}

static void add_item(void *arg, uint32_t item, uint32_t worker) {
    assert_true(worker < QFW_MAX_WORKERS);
    atomic_fetch_add((atomic_uint *)arg, item + 1);
}

static void loops_run_on_the_pool(void **state) {
    (void)state;
    const qfw_host *h = host_table();
    atomic_uint sum = 0;
    assert_int_equal(parallel_start(3), QFW_OK);
    assert_int_equal(h->n_workers(h), 3);
    h->parallel(h, 100, add_item, &sum);
    assert_int_equal(sum, 5050);
    parallel_stop();
}

static void services_are_found_by_id(void **state) {
    (void)state;
    const qfw_host *h = host_table();
    static const int one = 1, two = 2;
    char id[] = "qfw.test/1";
    assert_null(h->extension(h, "qfw.test/1"));
    host_register("qfw.test/1", &one);
    host_register("qfw.test/2", &two);
    assert_ptr_equal(h->extension(h, id), &one);
    assert_ptr_equal(h->extension(h, "qfw.test/2"), &two);
    host_register("qfw.test/1", &two);
    assert_ptr_equal(h->extension(h, id), &two);
    assert_null(h->extension(h, "qfw.test/3"));
}

static void cancelling_is_seen(void **state) {
    (void)state;
    const qfw_host *h = host_table();
    assert_int_equal(h->cancelled(h), 0);
    host_cancel(1);
    assert_int_equal(h->cancelled(h), 1);
    host_cancel(0);
    assert_int_equal(h->cancelled(h), 0);
}

static void reference_kernels_run(void **state) {
    (void)state;
    const qfw_host *h = host_table();
    float x[4] = {1, 2, 3, 4}, y[4] = {0};
    const qfw_tensor from = {
        sizeof from, QFW_F32, 1, 0, {4, 1, 1, 1}, {1, 0, 0, 0}, (qfw_mem *)(void *)x, 0, NULL, 0};
    qfw_tensor to = from;
    to.mem = (qfw_mem *)(void *)y;
    const qfw_copy_params f32 = {sizeof f32, QFW_F32};
    const qfw_op copy = {.size = sizeof copy,
        .code = QFW_OP_COPY,
        .n_in = 1,
        .n_out = 1,
        .param_bytes = sizeof f32,
        .params = &f32,
        .in = {&from},
        .out = {&to}};
    assert_int_equal(h->ref_run(h, &copy), QFW_OK);
    assert_memory_equal(x, y, sizeof x);
    const qfw_op none = {.size = sizeof none, .code = 9999, .label = "layers.3/odd"};
    assert_int_equal(h->ref_run(h, &none), QFW_E_UNSUPPORTED);
    assert_non_null(strstr(err_text(0), "layers.3/odd: op 9999"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table_is_whole),
        cmocka_unit_test(failures_keep_code_and_text),
        cmocka_unit_test(heap_is_aligned_and_zero),
        cmocka_unit_test(options_are_answered),
        cmocka_unit_test(loops_run_on_the_pool),
        cmocka_unit_test(services_are_found_by_id),
        cmocka_unit_test(cancelling_is_seen),
        cmocka_unit_test(reference_kernels_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* test_suite_cpu.c -- the cpu backend against the reference kernels, on every case of the suite, on
 * one thread and on two, with every instruction set that this machine has; and which ops it must
 * run itself.
 */
#include <string.h>

#include "base/error.h"
#include "base/ini.h"
#include "base/option.h"
#include "base/parallel.h"
#include "ops/suite.h"
#include "plugin/host.h"
#include "plugin/loader.h"

#include "../support/test.h"

static void print_failure(void *arg, const char *text) {
    uint32_t *const count = arg;
    if ((*count)++ < 40) print_message("  %s\n", text);
}

/* The backend with this isa; 0: the machine has not got it. */
static int open_cpu(const qfw_component *c, const char *isa, device *dev) {
    char text[64];
    ini *i = NULL;
    schema_section section = {"backend.cpu", c->options, c->n_options, NULL};
    snprintf(text, sizeof text, "[backend.cpu]\nisa = %s\n", isa);
    assert_int_equal(ini_parse_text(text, strlen(text), "test", &i), QFW_OK);
    assert_int_equal(option_check(i, &section, 1, NULL, 0), QFW_OK);
    *dev = (device){
        .be = c->iface, .host = host_table(), .name = "cpu", .info = {.size = sizeof dev->info}};
    const qfw_status status = dev->be->create(dev->host, section.cfg, 0, &dev->inst);
    if (status != QFW_OK) {
        assert_int_equal(status, QFW_E_DEVICE);
        assert_non_null(strstr(err_text(0), "this machine has no"));
        err_clear();
    }
    option_free(&section, 1);
    ini_destroy(i);
    return status == QFW_OK;
}

static void run_on(uint32_t threads, const char *isa) {
    static const uint32_t native[] = {QFW_OP_GEMM, QFW_OP_QMATMUL, QFW_OP_QMATMUL_DX, QFW_OP_LORA,
        QFW_OP_LORA_BWD, QFW_OP_RMSNORM, QFW_OP_RMSNORM_BWD, QFW_OP_ROPE, QFW_OP_SWIGLU,
        QFW_OP_SWIGLU_BWD, QFW_OP_ATTN, QFW_OP_ATTN_BWD, QFW_OP_EMBED, QFW_OP_EMBED_BWD,
        QFW_OP_TOKEN_LOGPROB, QFW_OP_TOKEN_LOGPROB_BWD, QFW_OP_ADAMW, QFW_OP_COPY, QFW_OP_FILL,
        QFW_OP_SCALE, QFW_OP_UNARY, QFW_OP_BINARY, QFW_OP_REDUCE};
    static suite_report report;
    const plugin *p;
    const qfw_component *c;
    uint32_t shown = 0;
    report = (suite_report){.on_failure = print_failure, .arg = &shown};
    plugin_set_host(host_table());
    assert_int_equal(parallel_start(threads), QFW_OK);
    if (plugin_open("backend", "cpu", &p, &c) != QFW_OK) fail_msg("%s", err_text(0));
    device dev;
    if (!open_cpu(c, isa, &dev)) {
        print_message("%s: not on this machine\n", isa);
        return;
    }
    const suite_target target = suite_backend(&dev);
    const qfw_status status = suite_run(&target, 0, &report);
    if (status != QFW_OK) fail_msg("%s", err_text(0));
    print_message("%s, %u threads: %u passed, %u failed, %u left to the reference\n", isa, threads,
        report.passed, report.failed, report.refused);
    for (size_t i = 0; i < sizeof native / sizeof native[0]; i++) {
        const suite_row *row = &report.row[native[i]];
        if (row->passed <= row->empty) fail_msg("%s: the backend ran no case", row->op);
    }
    assert_int_equal(report.failed, 0);
    dev.be->destroy(dev.inst);
}

static void one_thread(void **state) {
    (void)state;
    run_on(1, "auto");
}

static void two_threads(void **state) {
    (void)state;
    run_on(2, "auto");
}

static void every_isa(void **state) {
    (void)state;
    run_on(2, "avx512");
    run_on(2, "avx2");
    run_on(2, "generic");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_thread), cmocka_unit_test(two_threads), cmocka_unit_test(every_isa)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

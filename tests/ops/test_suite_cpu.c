/* test_suite_cpu.c -- the cpu backend against the reference kernels, on every case of the suite, on
 * one thread and on two; and which ops it must run itself.
 */
#include "base/error.h"
#include "base/parallel.h"
#include "ops/suite.h"
#include "plugin/host.h"
#include "plugin/loader.h"

#include "../support/test.h"

static void print_failure(void *arg, const char *text) {
    uint32_t *const count = arg;
    if ((*count)++ < 40) print_message("  %s\n", text);
}

static void run_on(uint32_t threads) {
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
    device dev = {
        .be = c->iface, .host = host_table(), .name = "cpu", .info = {.size = sizeof dev.info}};
    assert_int_equal(dev.be->create(dev.host, NULL, 0, &dev.inst), QFW_OK);
    const suite_target target = suite_backend(&dev);
    const qfw_status status = suite_run(&target, 0, &report);
    if (status != QFW_OK) fail_msg("%s", err_text(0));
    print_message("%u threads: %u passed, %u failed, %u left to the reference\n", threads,
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
    run_on(1);
}

static void two_threads(void **state) {
    (void)state;
    run_on(2);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(one_thread), cmocka_unit_test(two_threads)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

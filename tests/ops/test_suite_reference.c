/* test_suite_reference.c -- the suite itself: the reference passes all of it, with every op
 * covered; targets that are wrong in one way each do not; and the adapter brings a backend's
 * results back.
 */
#include "base/error.h"
#include "base/mem.h"
#include "ops/ref.h"
#include "ops/suite.h"

#include <math.h>

#include "../support/test.h"

static void print_failure(void *arg, const char *text) {
    uint32_t *const count = arg;
    if ((*count)++ < 20) print_message("  %s\n", text);
}

static void test_the_reference_passes_every_case(void **state) {
    static suite_report report;
    uint32_t shown = 0;
    const suite_target target = suite_reference();
    (void)state;
    report.on_failure = print_failure;
    report.arg = &shown;
    const qfw_status s = suite_run(&target, 0, &report);
    if (s != QFW_OK) fail_msg("%s", err_text(0));
    assert_int_equal(report.failed, 0);
    assert_int_equal(report.refused, 0);
    for (uint32_t i = 0; op_at(i); i++) {
        const suite_row *const row = &report.row[op_at(i)->code];
        if (row->passed < 9 || row->values == 0) fail_msg("%s is not covered", op_at(i)->name);
        assert_true(row->passed > row->empty);
        assert_true(row->worst == 0);
    }
}

/* One fault, planted into what the reference does with RMSNORM. */
enum {
    FAULT_VALUE = 1, /* one value of an output is a little off */
    FAULT_NAN,
    FAULT_LEFT_OUT, /* the last value of the last output is never written */
    FAULT_BEFORE,   /* a byte before an output is written */
    FAULT_AFTER,
    FAULT_INPUT,  /* an input is changed */
    FAULT_RANDOM, /* bits differ from run to run, within tolerance */
    FAULT_STATUS,
    FAULT_END
};

typedef struct faulty {
    int fault;
    uint32_t runs;
} faulty;

static qfw_status run_faulty(void *arg, const suite_call *call, int *taken) {
    faulty *const f = arg;
    const qfw_op *const op = call->op;
    const qfw_tensor *const y = op->out[0], *const rstd = op->out[1];
    const int64_t n = qfw_tensor_count(y), rows = qfw_tensor_count(rstd);
    double last = 0;
    *taken = 1;
    if (f->fault == FAULT_STATUS) return err_fail("E_TEST", QFW_E_DEVICE, "no such luck");
    if (f->fault == FAULT_LEFT_OUT && rows) last = ref_load(rstd, rows - 1);
    QFW_TRY(op_find(op->code)->ref(op));
    f->runs++;
    if (!n) return QFW_OK;
    const double v = ref_load(y, n / 2);
    if (f->fault == FAULT_VALUE) ref_store(y, n / 2, v + 0.05);
    if (f->fault == FAULT_NAN) ref_store(y, n / 2, (double)NAN);
    if (f->fault == FAULT_LEFT_OUT) ref_store(rstd, rows - 1, last);
    if (f->fault == FAULT_BEFORE) ((char *)ref_data(y))[-1] ^= 1;
    if (f->fault == FAULT_AFTER) ((char *)ref_data(y))[n * qfw_dtype_bytes(y->dtype)] ^= 1;
    if (f->fault == FAULT_INPUT) ((char *)ref_data(op->in[1]))[0] ^= 1;
    if (f->fault == FAULT_RANDOM && f->runs % 2) ((char *)ref_data(y))[0] ^= 1;
    return QFW_OK;
}

static void remember(void *arg, const char *text) { snprintf(arg, 600, "%s", text); }

static void test_wrong_targets_fail(void **state) {
    static const char *const said[FAULT_END] = {NULL, "output 0 holds", "output 0 holds nan",
        "output 1 holds", "outside of the outputs", "outside of the outputs",
        "outside of the outputs", "a second run gave other bits", "no such luck"};
    (void)state;
    for (int fault = 1; fault < FAULT_END; fault++) {
        static suite_report report;
        char text[600] = "";
        faulty f = {fault, 0};
        const suite_target target = {"faulty", run_faulty, &f};
        memset(&report, 0, sizeof report);
        report.on_failure = remember;
        report.arg = text;
        assert_int_equal(suite_run(&target, QFW_OP_RMSNORM, &report), QFW_OK);
        assert_true(report.failed > 0);
        assert_true(report.row[QFW_OP_RMSNORM].failed == report.failed);
        if (!strstr(text, said[fault])) fail_msg("fault %d: %s", fault, text);
        assert_non_null(strstr(text, "rmsnorm, "));
        /* Only cases without a value can pass; a status fails them too. */
        assert_int_equal(report.passed, report.row[QFW_OP_RMSNORM].empty);
    }
}

static qfw_status run_nothing(void *arg, const suite_call *call, int *taken) {
    (void)arg;
    (void)call;
    *taken = 0;
    return QFW_OK;
}

static void test_who_refuses_everything_passes_nothing(void **state) {
    static suite_report report;
    const suite_target target = {"idle", run_nothing, NULL};
    (void)state;
    memset(&report, 0, sizeof report);
    assert_int_equal(suite_run(&target, QFW_OP_SWIGLU, &report), QFW_OK);
    assert_int_equal(report.passed + report.failed, 0);
    assert_true(report.refused > 0);
    assert_int_equal(report.row[QFW_OP_SWIGLU].refused, report.refused);
}

/* --- a backend whose device memory is malloc's --- */

struct qfw_mem {
    char *bytes;
};

static struct {
    uint32_t live, sealed, flags; /* flags: what `supports` adds to NATIVE */
    uint32_t wrong;               /* 1: run writes past the first output */
} fake;

static qfw_status fake_alloc(qfw_inst *be, uint64_t bytes, uint32_t usage, qfw_mem **out) {
    (void)be;
    (void)usage;
    *out = mem_alloc(1, sizeof **out);
    (*out)->bytes = mem_alloc_aligned((size_t)bytes, 256);
    fake.live++;
    return QFW_OK;
}

static void fake_free(qfw_inst *be, qfw_mem *mem) {
    (void)be;
    if (!mem) return;
    mem_free(mem->bytes);
    mem_free(mem);
    fake.live--;
}

static qfw_status fake_write(
    qfw_inst *be, qfw_queue *q, qfw_mem *mem, uint64_t offset, const void *src, uint64_t bytes) {
    (void)be;
    (void)q;
    memcpy(mem->bytes + offset, src, (size_t)bytes);
    return QFW_OK;
}

static qfw_status fake_read(
    qfw_inst *be, qfw_queue *q, qfw_mem *mem, uint64_t offset, void *dst, uint64_t bytes) {
    (void)be;
    (void)q;
    memcpy(dst, mem->bytes + offset, (size_t)bytes);
    return QFW_OK;
}

static uint32_t fake_supports(qfw_inst *be, const qfw_op *op) {
    (void)be;
    for (uint32_t i = 0; i < op->n_in; i++) assert_true(!op->in[i] || !op->in[i]->mem);
    return QFW_SUPPORT_NATIVE | fake.flags;
}

static qfw_status fake_seal(qfw_inst *be, qfw_queue *q, const qfw_tensor *t) {
    (void)be;
    (void)q;
    assert_non_null(t->quant);
    fake.sealed++;
    return QFW_OK;
}

static uint64_t out_bytes(const qfw_tensor *t) {
    return (uint64_t)qfw_tensor_count(t) * qfw_dtype_bytes(t->dtype);
}

static qfw_mem *host_of(qfw_mem *m) { return m ? (qfw_mem *)(void *)m->bytes : NULL; }

static qfw_status fake_run(qfw_inst *be, qfw_queue *q, const qfw_op *const *ops, uint32_t n,
    qfw_mem *workspace, uint64_t workspace_offset, uint32_t *done) {
    qfw_tensor in[QFW_MAX_IN], out[QFW_MAX_OUT];
    qfw_quant quant;
    qfw_op op = *ops[0];
    (void)be;
    (void)q;
    (void)workspace_offset;
    assert_non_null(workspace);
    for (uint32_t i = 0; i < op.n_in; i++) {
        if (!op.in[i]) continue;
        in[i] = *op.in[i];
        in[i].mem = host_of(in[i].mem);
        if (in[i].quant) {
            quant = *in[i].quant;
            quant.absmax_mem = host_of(quant.absmax_mem);
            quant.nested_mem = host_of(quant.nested_mem);
            quant.map_mem = host_of(quant.map_mem);
            in[i].quant = &quant;
        }
        op.in[i] = &in[i];
    }
    for (uint32_t o = 0; o < op.n_out; o++) {
        if (!op.out[o]) continue;
        out[o] = *op.out[o];
        out[o].mem = host_of(out[o].mem);
        op.out[o] = &out[o];
    }
    QFW_TRY(op_find(op.code)->ref(&op));
    if (fake.wrong) *((char *)ref_data(&out[0]) + out_bytes(&out[0])) ^= 1;
    *done = n;
    return QFW_OK;
}

static uint64_t fake_workspace(qfw_inst *be, const qfw_op *op) {
    (void)be;
    (void)op;
    return 64;
}

static const qfw_backend backend = {
    .size = sizeof backend,
    .mem_alloc = fake_alloc,
    .mem_free = fake_free,
    .mem_write = fake_write,
    .mem_read = fake_read,
    .supports = fake_supports,
    .run = fake_run,
    .workspace_size = fake_workspace,
    .mem_seal = fake_seal,
};

static suite_report *run_fake(uint32_t code, uint32_t flags, uint32_t wrong) {
    static suite_report report;
    const device dev = {.be = &backend, .name = "fake"};
    const suite_target target = suite_backend(&dev);
    memset(&report, 0, sizeof report);
    memset(&fake, 0, sizeof fake);
    fake.flags = flags;
    fake.wrong = wrong;
    assert_int_equal(suite_run(&target, code, &report), QFW_OK);
    assert_int_equal(fake.live, 0);
    return &report;
}

static void test_a_backend_is_reached_through_its_table(void **state) {
    (void)state;
    const suite_report *r = run_fake(QFW_OP_QMATMUL, 0, 0);
    assert_int_equal(r->failed + r->refused, 0);
    assert_true(r->passed > 20 && fake.sealed > 0);
    r = run_fake(QFW_OP_LORA_BWD, 0, 0);
    assert_true(r->passed > 20 && r->failed + r->refused == 0);
    r = run_fake(QFW_OP_LORA_BWD, QFW_SUPPORT_DENSE_ROWS, 0);
    assert_true(r->passed > 20 && r->failed == 0 && r->refused > 0);
    r = run_fake(QFW_OP_ROPE, 0, 1);
    assert_true(r->failed > 0);
}

static void test_a_backend_without_run_takes_nothing(void **state) {
    qfw_backend bare = backend;
    const device dev = {.be = &bare, .name = "bare"};
    const suite_target target = suite_backend(&dev);
    static suite_report report;
    (void)state;
    bare.size = QFW_BACKEND_V0_SIZE;
    assert_int_equal(suite_run(&target, QFW_OP_ROPE, &report), QFW_OK);
    assert_true(report.refused > 0 && report.passed + report.failed == 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_reference_passes_every_case),
        cmocka_unit_test(test_wrong_targets_fail),
        cmocka_unit_test(test_who_refuses_everything_passes_nothing),
        cmocka_unit_test(test_a_backend_is_reached_through_its_table),
        cmocka_unit_test(test_a_backend_without_run_takes_nothing),
    };
    return cmocka_run_group_tests_name("suite", tests, NULL, NULL);
}

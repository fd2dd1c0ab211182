/* test_table.c -- the table of ops, and the checks that all ops share. */
#include "../support/gradcheck.h"
#include "../support/test.h"

#include "base/error.h"

#include <ctype.h>

static void test_every_number_has_its_op(void **state) {
    (void)state;
    for (uint32_t code = 1; code < QFW_OP_END; code++) {
        const op_def *const def = op_find(code);
        assert_non_null(def);
        assert_int_equal(def->code, code);
        assert_non_null(def->infer);
        assert_non_null(def->ref);
        assert_in_range(def->n_in, def->n_in_min, QFW_MAX_IN);
        assert_in_range(def->n_out, 1, QFW_MAX_OUT);
    }
    assert_null(op_find(0));
    assert_null(op_find(QFW_OP_END));
    assert_null(op_find(QFW_OP_VENDOR));
}

static void test_names_are_the_lists(void **state) {
    static const char *const names[] = {
#define TEXT(NAME, number, name) #NAME,
        QFW_OP_LIST(TEXT)
#undef TEXT
    };
    uint32_t n = 0;
    (void)state;
    for (; op_at(n); n++) {
        const char *const name = op_at(n)->name;
        assert_ptr_equal(op_find(op_at(n)->code), op_at(n));
        assert_int_equal(strlen(name), strlen(names[n]));
        for (size_t i = 0; name[i]; i++) assert_int_equal(toupper(name[i]), names[n][i]);
    }
    assert_int_equal(n, sizeof names / sizeof *names);
}

static void test_in_place_pairs_exist(void **state) {
    (void)state;
    for (uint32_t k = 0; op_at(k); k++)
        for (uint32_t o = 0; o < QFW_MAX_OUT; o++)
            for (int c = 0; c < 2; c++)
                assert_in_range(
                    op_at(k)->inplace[o][c], 0, o < op_at(k)->n_out ? op_at(k)->n_in : 0);
}

/* What abi.md requires of the core: whoever lacks these ops can still run them natively. */
static void test_required_decompositions_exist(void **state) {
    static const uint32_t codes[] = {QFW_OP_QMATMUL, QFW_OP_QMATMUL_DX, QFW_OP_LORA,
        QFW_OP_LORA_BWD, QFW_OP_SWIGLU, QFW_OP_SWIGLU_BWD, QFW_OP_TOKEN_LOGPROB,
        QFW_OP_TOKEN_LOGPROB_BWD};
    (void)state;
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        assert_non_null(op_find(codes[i])->decompose);
}

static qfw_status infer(uint32_t code, const op_shape *const *in, uint32_t n_in, const void *params,
    uint32_t bytes, const uint8_t *want, uint32_t n_out) {
    op_shape out[QFW_MAX_OUT];
    err_clear();
    return op_infer_shapes(code, in, n_in, params, bytes, want, out, n_out);
}

static void expect(qfw_status status, const char *text) {
    assert_int_equal(status, QFW_E_INVALID);
    assert_non_null(err_text(0));
    if (!strstr(err_text(0), text)) fail_msg("\"%s\", wanted \"%s\"", err_text(0), text);
}

static void test_refusals(void **state) {
    const op_shape x = {QFW_F32, 2, {3, 4, 1, 1}};
    const op_shape *const in[4] = {&x, &x, &x, &x}, *const gap[3] = {&x, NULL, &x};
    static const uint8_t none[2] = {0, 0};
    const qfw_scale_params scale = {sizeof scale, 1, 0}, stale = {8, 1, 0};
    const uint32_t bytes = sizeof scale;
    (void)state;
    expect(infer(0, in, 1, NULL, 0, NULL, 1), "op: there is no op 0, wanted 1 to 38");
    expect(infer(39, in, 1, NULL, 0, NULL, 1), "op: there is no op 39, wanted 1 to 38");
    expect(infer(QFW_OP_SCALE, in, 2, &scale, bytes, NULL, 1), "scale: 2 inputs, wanted 1 to 1");
    expect(infer(QFW_OP_SCALE, in, 0, &scale, bytes, NULL, 1), "scale: 0 inputs, wanted 1 to 1");
    expect(infer(QFW_OP_SELECT, gap, 3, NULL, 0, NULL, 1), "select: input 1 is absent");
    expect(
        infer(QFW_OP_SCALE, in, 1, &scale, bytes, NULL, 2), "scale: room for 2 outputs, wanted 1");
    expect(infer(QFW_OP_SCALE, in, 1, &scale, bytes, none, 1), "scale: output 0 is not wanted");
    expect(infer(QFW_OP_SCALE, in, 1, NULL, bytes, NULL, 1), "says 0, wanted 12");
    expect(infer(QFW_OP_SCALE, in, 1, &scale, 8, NULL, 1), "scale: 8 bytes of params");
    expect(infer(QFW_OP_SCALE, in, 1, &stale, bytes, NULL, 1), "whose size says 8, wanted 12");
    expect(infer(QFW_OP_SELECT, in, 3, &scale, bytes, NULL, 1), "select: 12 bytes of params");
    assert_int_equal(infer(QFW_OP_SCALE, in, 1, &scale, bytes, NULL, 1), QFW_OK);
    err_clear();
}

static void test_outputs_that_are_not_wanted_have_no_shape(void **state) {
    const op_shape logits = {QFW_F32, 2, {3, 7, 1, 1}}, labels = {QFW_I32, 1, {3, 1, 1, 1}};
    const op_shape *const in[2] = {&logits, &labels};
    static const uint8_t want[6] = {1, 1, 0, 1, 0, 0};
    op_shape out[6];
    (void)state;
    memset(out, 0xff, sizeof out);
    assert_int_equal(op_infer_shapes(QFW_OP_XENT, in, 2, NULL, 0, want, out, 6), QFW_OK);
    for (int o = 0; o < 6; o++) {
        assert_int_equal(out[o].rank, want[o]);
        assert_int_equal(out[o].dtype, want[o] ? QFW_F32 : 0);
        assert_int_equal(out[o].dim[0], want[o] ? 3 : 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_number_has_its_op),
        cmocka_unit_test(test_names_are_the_lists),
        cmocka_unit_test(test_in_place_pairs_exist),
        cmocka_unit_test(test_required_decompositions_exist),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_outputs_that_are_not_wanted_have_no_shape),
    };
    return cmocka_run_group_tests_name("table", tests, NULL, NULL);
}

/* test_gguf.c -- GGUF files: what is written reads back, Q8_0 has the gguf package's bytes, and no
 * broken file does more than fail. */
#include "../support/temp.h"
#include "base/error.h"
#include "base/mem.h"
#include "export/gguf.h"
#include "files/file.h"
#include "gguf_table.h"

#include "../support/test.h"

#include <math.h>
#include <stdlib.h>

/* --- values --- */

/* (i * 37 % 101 - 50) * 0.013f, and ties, by gguf 0.17.1's quants.quantize. */
static const uint8_t ramp[34] = {0x3e, 0x1d, 0x81, 0xdf, 0x3d, 0x9a, 0xf8, 0x56, 0xb4, 0x12, 0x70,
    0xcd, 0x2b, 0x89, 0xe7, 0x45, 0xa2, 0x00, 0x5e, 0xbb, 0x19, 0x77, 0xd5, 0x33, 0x90, 0xee, 0x4c,
    0xaa, 0x08, 0x66, 0xc3, 0x21, 0x7f, 0xdc};
static const uint8_t ties[34] = {0x00, 0x3c, 0x7f, 0x01, 0x02, 0x03, 0xff, 0xfe, 0xfd, 0x81, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00};

static void q8_0_has_the_package_s_bytes(void **state) {
    float v[32], back[32];
    uint8_t got[34];
    (void)state;
    for (int i = 0; i < 32; i++) v[i] = (float)(i * 37 % 101 - 50) * 0.013f;
    assert_int_equal(gguf_encode(GGUF_Q8_0, v, 32, got), 0);
    assert_memory_equal(got, ramp, sizeof got);
    gguf_decode(GGUF_Q8_0, got, 32, back);
    for (int i = 0; i < 32; i++) assert_true(fabsf(back[i] - v[i]) <= 0.65f / 127);
    static const float t[32] = {127, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, -127};
    assert_int_equal(gguf_encode(GGUF_Q8_0, t, 32, got), 0);
    assert_memory_equal(got, ties, sizeof got);
    static const float zeros[32] = {0}, large[32] = {1e7f};
    assert_int_equal(gguf_encode(GGUF_Q8_0, zeros, 32, got), 0);
    for (int i = 0; i < 34; i++) assert_int_equal(got[i], 0);
    assert_int_equal(gguf_encode(GGUF_Q8_0, large, 32, got), -1); /* its scale is no fp16 */
    assert_int_equal(gguf_encode(GGUF_F16, large, 1, got), -1);
}

/* --- files --- */

static void write_file(const char *path) {
    static const char *const words[] = {"a", "", "\xe2\x96\x81_b"};
    static const float scores[] = {0, -1, -2.5f};
    static const int32_t types[] = {1, 3, 6};
    const int64_t wide[2] = {3, 32}, norm[1] = {5};
    float v[96];
    gguf_writer *w = NULL;
    for (int i = 0; i < 96; i++) v[i] = (float)(i - 40) * 0.25f;
    assert_int_equal(gguf_create(path, &w), QFW_OK);
    gguf_put_str(w, "general.name", "tiny");
    gguf_put_u32(w, "n", 4000000000u);
    gguf_put_f32(w, "eps", 1e-5f);
    gguf_put_bool(w, "flag", 1);
    gguf_put_strs(w, "words", words, 3);
    gguf_put_f32s(w, "scores", scores, 3);
    gguf_put_i32s(w, "types", types, 3);
    gguf_declare(w, "m.half", GGUF_F16, 2, wide);
    gguf_declare(w, "m.q8", GGUF_Q8_0, 2, wide);
    gguf_declare(w, "norm", GGUF_F32, 1, norm);
    assert_int_equal(gguf_begin(w), QFW_OK);
    assert_int_equal(gguf_rows(w, v, 64), QFW_OK); /* in two pieces */
    assert_int_equal(gguf_rows(w, v + 64, 32), QFW_OK);
    assert_int_equal(gguf_rows(w, v, 96), QFW_OK);
    assert_int_equal(gguf_rows(w, v, 5), QFW_OK);
    assert_int_equal(gguf_finish(w), QFW_OK);
}

static void what_is_written_reads_back(void **state) {
    gguf_file *f = NULL;
    float v[96];
    (void)state;
    write_file(temp_path("a.gguf"));
    if (gguf_open(temp_path("a.gguf"), &f)) fail_msg("%s", err_text(0));
    assert_string_equal(gguf_find(f, "general.name")->text, "tiny");
    assert_true(gguf_find(f, "n")->number == 4000000000.0);
    assert_true(gguf_find(f, "eps")->number == (double)1e-5f);
    assert_true(gguf_find(f, "flag")->number == 1);
    assert_null(gguf_find(f, "none"));
    const gguf_key *words = gguf_find(f, "words");
    assert_int_equal(words->n, 3);
    assert_string_equal(words->strings[0], "a");
    assert_string_equal(words->strings[1], "");
    assert_string_equal(words->strings[2], "\xe2\x96\x81_b");
    float score;
    memcpy(&score, (const char *)gguf_find(f, "scores")->numbers + 8, sizeof score);
    assert_true(score == -2.5f);
    assert_int_equal(gguf_find(f, "types")->of, GGUF_I32);
    const gguf_tensor *half = gguf_at(f, 0), *q8 = gguf_at(f, 1), *norm = gguf_at(f, 2);
    assert_string_equal(q8->name, "m.q8");
    assert_int_equal(q8->dim[0], 3);
    assert_int_equal(q8->dim[1], 32);
    assert_int_equal(q8->at % 32, 0);
    assert_int_equal(norm->rank, 1);
    assert_null(gguf_at(f, 3));
    assert_int_equal(gguf_read(f, half, v), QFW_OK);
    for (int i = 0; i < 96; i++) assert_true(v[i] == (float)(i - 40) * 0.25f);
    assert_int_equal(gguf_read(f, q8, v), QFW_OK);
    for (int i = 0; i < 96; i++)
        assert_true(fabsf(v[i] - (float)(i - 40) * 0.25f) <= 14.0f / 254 * 1.01f);
    assert_int_equal(gguf_read(f, norm, v), QFW_OK);
    assert_true(v[4] == -9);
    gguf_close(f);
}

static void the_writer_counts(void **state) {
    const int64_t dim[1] = {4};
    const float v[8] = {0};
    gguf_writer *w = NULL;
    (void)state;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(gguf_create(temp_path("b.gguf"), &w), QFW_OK);
        gguf_declare(w, "t", GGUF_F32, 1, dim);
        assert_int_equal(gguf_begin(w), QFW_OK);
        if (i) assert_error(gguf_rows(w, v, 8), "E_INTERNAL", EXIT_INTERNAL, "more values");
        if (i)
            gguf_abort(w);
        else
            assert_error(gguf_finish(w), "E_INTERNAL", EXIT_INTERNAL, "missing");
        assert_false(file_exists(temp_path("b.gguf")));
    }
    gguf_abort(NULL);
}

/* --- the same file by the package --- */

enum { ROWS = 6 };

/* As make_gguf.py has them. */
static float value_at(int row, int i) {
    if (row == 0) return 0;
    if (row == 1) return i < 31 ? (float)(i * 8 - 123) / 2 : 127;
    return ldexpf((float)((i * 37 + row * 11) % 101 - 50), 7 * row - 34);
}

static void the_package_writes_the_same_bytes(void **state) {
    static const char *const tokens[] = {"<s>", "\xe2\x96\x81\x61", "b"};
    static const float scores[] = {0, -1, -2.5f};
    static const int32_t types[] = {3, 1, -1};
    static const int64_t embd[] = {ROWS, 8}, norm[] = {5}, head[] = {ROWS, 32};
    float x[ROWS][32];
    char *data = NULL;
    size_t n = 0;
    gguf_writer *w = NULL;
    (void)state;
    for (int i = 0; i < ROWS * 32; i++) x[i / 32][i % 32] = value_at(i / 32, i % 32);
    assert_int_equal(gguf_create(temp_path("small.gguf"), &w), QFW_OK);
    gguf_put_str(w, "general.architecture", "phi3");
    gguf_put_str(w, "general.name", "small");
    gguf_put_u32(w, "phi3.block_count", 2);
    gguf_put_f32(w, "phi3.attention.layer_norm_rms_epsilon", 1e-5f);
    gguf_put_bool(w, "tokenizer.ggml.add_bos_token", 0);
    gguf_put_strs(w, "tokenizer.ggml.tokens", tokens, 3);
    gguf_put_f32s(w, "tokenizer.ggml.scores", scores, 3);
    gguf_put_i32s(w, "tokenizer.ggml.token_type", types, 3);
    gguf_declare(w, "token_embd.weight", GGUF_F16, 2, embd);
    gguf_declare(w, "output_norm.weight", GGUF_F32, 1, norm);
    gguf_declare(w, "output.weight", GGUF_Q8_0, 2, head);
    assert_int_equal(gguf_begin(w), QFW_OK);
    for (int i = 0; i < ROWS; i++) assert_int_equal(gguf_rows(w, x[i], 8), QFW_OK);
    assert_int_equal(gguf_rows(w, x[1], 5), QFW_OK);
    for (int i = 0; i < ROWS; i++) assert_int_equal(gguf_rows(w, x[i], 32), QFW_OK);
    assert_int_equal(gguf_finish(w), QFW_OK);
    assert_int_equal(file_read(temp_path("small.gguf"), 1 << 20, &data, &n), QFW_OK);
    assert_int_equal(n, sizeof gguf_small);
    assert_memory_equal(data, gguf_small, n);
    mem_free(data);
}

/* --- files that are refused --- */

/* What a file is made of: as it stands, but for <n>, which is 8 bytes of n, and {n}, 4. */
static size_t make(uint8_t *out, const char *text) {
    size_t n = 0;
    while (*text) {
        if (*text != '<' && *text != '{') {
            out[n++] = (uint8_t)*text++;
            continue;
        }
        const int size = *text == '<' ? 8 : 4;
        char *end = NULL;
        const uint64_t value = strtoull(text + 1, &end, 0);
        for (int i = 0; i < size; i++) out[n++] = (uint8_t)(value >> 8 * i & 255);
        text = end + 1;
    }
    return n;
}

#define HEAD(tensors, keys) "GGUF{3}<" #tensors "><" #keys ">"
#define K                   "<1>k"
#define T                   "<1>t"
#define ALIGNMENT           "<17>general.alignment"

static const struct {
    const char *text, *says;
} bad_files[] = {
    {"", "byte 0: the file ends"},
    {"GGML{3}<0><0>", "not a GGUF file"},
    {"GGUF{0x03000000}<0><0>", "the version, wanted 3"},
    {HEAD(200001, 0), "more than 200,000 tensors"},
    {HEAD(0, 65537), "65,536 keys"},
    {HEAD(0, 0xffffffffffffffff), "65,536 keys"},
    /* keys and values */
    {HEAD(0, 1) "<60000>k", "byte 32: the file ends"},
    {HEAD(0, 1) "<0xffffffffffffffff>k", "byte 32: the file ends"},
    {HEAD(0, 1) "<4>{0}", "holds a NUL"},
    {HEAD(0, 1) K "{13}", "a value of a type that is unknown"},
    {HEAD(0, 1) K "{4}", "byte 37: the file ends"},
    {HEAD(0, 1) K "{7}x", "a bool, wanted 0 or 1"},
    {HEAD(0, 1) K "{9}{9}<1>", "an array of a type that is unknown"},
    {HEAD(0, 1) K "{9}{4}<0x4000000000000001>{1}", "more than 16,777,216 items"},
    {HEAD(0, 1) K "{9}{10}<3><1><2>", "byte 49: the file ends"},
    {HEAD(0, 1) K "{9}{8}<3><0><0>", "more strings than the file has room for"},
    {HEAD(0, 2) K "{4}{1}" K "{4}{1}", "\"k\" stands twice"},
    {HEAD(0, 1) ALIGNMENT "{4}{24}", "general.alignment, wanted"},
    {HEAD(0, 1) ALIGNMENT "{5}{32}", "general.alignment, wanted"},
    {HEAD(0, 1) ALIGNMENT "{4}{131072}", "general.alignment, wanted"},
    /* tensors */
    {HEAD(1, 0) T "{0}", "a tensor's rank"},
    {HEAD(1, 0) T "{5}", "a tensor's rank"},
    {HEAD(1, 0) T "{1}<0>{0}<0>", "larger than the file"},
    {HEAD(1, 0) T "{1}<0x8000000000000000>{0}<0>", "larger than the file"},
    {HEAD(1, 0) T "{2}<0x100000000><0x100000000>{0}<0>", "larger than the file"},
    {HEAD(1, 0) T "{1}<8>{2}<0>", "a tensor type"},
    {HEAD(1, 0) T "{1}<31>{8}<0>", "no whole blocks"},
    {HEAD(1, 0) T "{1}<1>{0}<32>0123", "do not begin where"},
    {HEAD(1, 0) T "{1}<8>{0}<0>", "past the end of the file"},
    {HEAD(1, 0) T "{1}<8>{0}<0>0123456{0}{0}{0}{0}{0}{0}{0}", "past the end of the file"},
    {HEAD(1, 0) T "{1}<1>{0}<0>0123456{0}{0}{0}{0}{0}{0}{0}{0}{0}", "bytes behind the last"},
    {HEAD(2, 0) T "{1}<1>{0}<0>" T "{1}<1>{0}<32>", "\"t\" stands twice"},
    {HEAD(2, 0) T "{1}<1>{0}<0><1>u{1}<1>{0}<0>0123456789{0}{0}{0}{0}{0}{0}", "do not begin where"},
};

static void bad_files_are_refused(void **state) {
    uint8_t data[512];
    (void)state;
    for (size_t i = 0; i < sizeof bad_files / sizeof *bad_files; i++) {
        gguf_file *f = NULL;
        temp_write("bad.gguf", data, make(data, bad_files[i].text));
        const double start = work_seconds();
        const qfw_status status = gguf_open(temp_path("bad.gguf"), &f);
        if (status == QFW_OK) fail_msg("row %zu was read, wanted: %s", i, bad_files[i].says);
        if (!strstr(err_text(0), bad_files[i].says))
            fail_msg("row %zu: %s, wanted: %s", i, err_text(0), bad_files[i].says);
        assert_error(status, "E_GGUF_FORMAT", EXIT_DATA, "bad\\.gguf: byte [0-9]+: ");
        assert_true(work_seconds() - start < 1);
    }
}

/* Numbers of all types, and data that another alignment moves. */
static void other_programs_files_are_read(void **state) {
    static const char text[] =
        HEAD(1, 7) "<1>a{1}\xff<1>b{3}\xfe\xff<1>c{5}{0xfffffffd}<1>d{11}<0xfffffffffffffffc>"
                   "<1>e{12}<0xbff8000000000000><1>f{9}{8}<0>" ALIGNMENT "{4}{64}" T
                   "{1}<1>{0}<0>%*s{0x3fc00000}";
    static const char *const keys[] = {"a", "b", "c", "d", "e"};
    static const double wanted[] = {-1, -2, -3, -4, -1.5};
    char whole[512];
    uint8_t data[512];
    float v = 0;
    gguf_file *f = NULL;
    (void)state;
    const size_t head = make(data, text) - strlen("%*s") - sizeof v;
    snprintf(whole, sizeof whole, text, (int)((64 - head % 64) % 64), "");
    temp_write("other.gguf", data, make(data, whole));
    if (gguf_open(temp_path("other.gguf"), &f)) fail_msg("%s", err_text(0));
    for (int i = 0; i < 5; i++) assert_true(fabs(gguf_find(f, keys[i])->number - wanted[i]) < 1e-9);
    assert_int_equal(gguf_find(f, "f")->n, 0);
    assert_int_equal(gguf_at(f, 0)->at % 64, 0);
    assert_int_equal(gguf_read(f, gguf_at(f, 0), &v), QFW_OK);
    assert_true(fabsf(v - 1.5f) < 1e-6f);
    gguf_close(f);
}

static void no_memory(void **state) {
    uint64_t k = 1;
    (void)state;
    temp_write("package.gguf", gguf_small, sizeof gguf_small);
    for (;; k++) {
        gguf_file *f = NULL;
        mem_fail_at(k);
        const qfw_status status = gguf_open(temp_path("package.gguf"), &f);
        mem_fail_at(0);
        gguf_close(f);
        if (status == QFW_OK) break;
        assert_int_equal(status, QFW_E_NOMEM);
        err_clear();
    }
    assert_true(k > 5);
}

/* Cut after every byte, and every byte of the head changed: it opens with sound facts, or it fails
 * by name. */
static void broken_files_fail(void **state) {
    enum { PADDING = 12 }; /* behind the last tensor's values */
    char *whole = NULL;
    size_t n = 0;
    (void)state;
    write_file(temp_path("a.gguf"));
    assert_int_equal(file_read(temp_path("a.gguf"), 1 << 20, &whole, &n), QFW_OK);
    for (size_t k = 0; k < 2 * n; k++) {
        gguf_file *f = NULL;
        char *text = malloc(n);
        assert_non_null(text);
        memcpy(text, whole, n);
        const size_t length = k < n ? k : n;
        if (k >= n) text[k - n] = (char)(text[k - n] ^ (1 << (k % 8)));
        assert_int_equal(file_write(temp_path("c.gguf"), text, length), QFW_OK);
        const qfw_status status = gguf_open(temp_path("c.gguf"), &f);
        if (k < n - PADDING) assert_int_not_equal(status, QFW_OK);
        if (status != QFW_OK && status != QFW_E_NOMEM)
            assert_error(status, "E_GGUF_FORMAT", EXIT_DATA, "c\\.gguf: byte [0-9]+: ");
        for (uint32_t i = 0; f && gguf_at(f, i); i++) {
            const gguf_tensor *t = gguf_at(f, i);
            const uint64_t values = (uint64_t)t->dim[0] * (uint64_t)t->dim[1] *
                                    (uint64_t)t->dim[2] * (uint64_t)t->dim[3];
            float *v = malloc((size_t)values * sizeof *v + 1);
            if (v) assert_int_equal(gguf_read(f, t, v), QFW_OK);
            free(v);
        }
        gguf_close(f);
        free(text);
    }
    mem_free(whole);
    gguf_file *f = NULL;
    assert_error(gguf_open(temp_path("nowhere"), &f), "E_NOINPUT", EXIT_NOINPUT, "nowhere");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(q8_0_has_the_package_s_bytes),
        cmocka_unit_test(what_is_written_reads_back),
        cmocka_unit_test(the_writer_counts),
        cmocka_unit_test(the_package_writes_the_same_bytes),
        cmocka_unit_test(bad_files_are_refused),
        cmocka_unit_test(other_programs_files_are_read),
        cmocka_unit_test(no_memory),
        cmocka_unit_test(broken_files_fail),
    };
    return cmocka_run_group_tests(tests, temp_make, temp_drop);
}

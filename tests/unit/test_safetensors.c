/* test_safetensors.c -- one malformed file per row, each refused by name and place; right files
 * read back; what is written can be read by others.
 */
#define _XOPEN_SOURCE 700
#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../support/shard.h"
#include "../support/temp.h"
#include "base/error.h"
#include "base/mem.h"
#include "files/file.h"
#include "files/safetensors.h"

#include <cmocka.h>

static qfw_status open_it(const char *name) {
    st_file *f = (st_file *)(uintptr_t)name;
    const qfw_status status = st_open(temp_path(name), &f);
    if (status != QFW_OK) assert_null(f);
    st_close(status == QFW_OK ? f : NULL);
    return status;
}

static uint32_t files_here(void) {
    uint32_t n = 0;
    DIR *d = opendir(temp_folder());
    while (readdir(d)) n++;
    closedir(d);
    return n;
}

static long peak_kib(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;
}

/* o1, o2, o4, o5 of one file: name, exit code, sentence; time; no file grows out of it. */
static void assert_refused(const char *file, const char *name, const char *regex) {
    char whole[512];
    const uint32_t files = files_here();
    const double start = work_seconds();
    snprintf(whole, sizeof whole, "%s.*%s", file, regex);
    assert_error(open_it(file), name, EXIT_DATA, whole);
    assert_true(work_seconds() - start < 2);
    assert_int_equal(files_here(), files);
}

/* --- headers that are refused --- */

static const struct {
    const char *header;
    size_t data_bytes;
    const char *name, *regex;
} bad_headers[] = {
    /* does not begin or end as it must */
    {" {}", 0, "E_ST_JSON", "header: .*\\(byte 8\\)"},
    {"\xef\xbb\xbf{}", 0, "E_ST_JSON", "header: .*\\(byte 8\\)"},
    {"[]", 0, "E_ST_JSON", "header: .*\\(byte 8\\)"},
    {"  ", 0, "E_ST_JSON", "header: .*\\(byte 8\\)"},
    {"{}\n", 0, "E_ST_JSON", "header: .*\\(byte 10\\)"},
    {"{} x ", 0, "E_ST_JSON", "header: .*\\(byte 11\\)"},
    {"{} }", 0, "E_ST_JSON", ":1:4: end of file expected.*\\(byte 11\\)"},
    {"{\"a\":1,}", 0, "E_ST_JSON", ":1:8: .*\\(byte 15\\)"},
    /* text that is no UTF-8 */
    {"{\"a\xff\":{}}", 0, "E_ST_JSON", ":1:4: .*0xff.*\\(byte 11\\)"},
    {"{\"\\ud800\":{}}", 0, "E_ST_JSON", "ud800"},
    {"{\"\xed\xa0\x80\":{}}", 0, "E_ST_JSON", ":1:[0-9]+: .*0xed"},
    {"{\"a\\u0000b\":{}}", 0, "E_ST_JSON", "u0000"},
    /* names that stand twice */
    {"{" SHARD_TENSOR("a", "U8", "[1]", "[0,1]") "," SHARD_TENSOR("a", "U8", "[1]", "[0,1]") "}", 1,
        "E_ST_DUP", "key \"a\" .*first at 1:2 \\(byte 61\\)"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"dtype\":\"F32\",\"data_offsets\":[0,1]}}", 1,
        "E_ST_DUP", "key \"dtype\" .*\\(byte 39\\)"},
    /* metadata */
    {"{\"__metadata__\":[]}", 0, "E_ST_META", "__metadata__"},
    {"{\"__metadata__\":{\"format\":1}}", 0, "E_ST_META", "__metadata__: format: not a string"},
    /* fields */
    {"{\"a\":{\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "E_ST_FIELD", "\"a\": dtype: missing"},
    {"{\"a\":[1]}", 1, "E_ST_FIELD", "\"a\": dtype: missing"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"x\":1}}", 1, "E_ST_FIELD",
        "\"a\": x: unknown"},
    {"{" SHARD_TENSOR("a", "F8_X", "[1]", "[0,1]") "}", 1, "E_ST_DTYPE",
        "\"a\": dtype: F8_X.*BF16"},
    {"{\"a\":{\"dtype\":3,\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "E_ST_DTYPE",
        "\"a\": dtype: no text"},
    /* offsets */
    {"{" SHARD_TENSOR("a", "U8", "[1]", "[2,1]") "}", 2, "E_ST_OFFSET",
        "\"a\": data_offsets: \\[2, 1"},
    {"{" SHARD_TENSOR("a", "U8", "[8]", "[0,8]") "}", 7, "E_ST_OFFSET",
        "data_offsets: .*<= 7 .*hint: the download is incomplete"},
    {"{" SHARD_TENSOR("a", "U8", "[1]", "[-1,0]") "}", 1, "E_ST_OFFSET", "data_offsets: \\[-1"},
    {"{" SHARD_TENSOR("a", "U8", "[1]", "[0,9007199254740993]") "}", 1, "E_ST_OFFSET",
        "data_offsets: .*9007199254740993"},
    {"{" SHARD_TENSOR("a", "U8", "[1000]", "[0,1e3]") "}", 1000, "E_ST_OFFSET", "two integers"},
    {"{" SHARD_TENSOR("a", "U8", "[8]", "[0,\"8\"]") "}", 8, "E_ST_OFFSET", "two integers"},
    {"{" SHARD_TENSOR("a", "U8", "[8]", "[0,8.0]") "}", 8, "E_ST_OFFSET", "two integers"},
    {"{" SHARD_TENSOR("a", "U8", "[8]", "[0,8,8]") "}", 8, "E_ST_OFFSET", "two integers"},
    {"{" SHARD_TENSOR("a", "U8", "[8]", "8") "}", 8, "E_ST_OFFSET", "two integers"},
    {"{" SHARD_TENSOR("a", "U8", "[8]", "[0,18446744073709551616]") "}", 8, "E_ST_JSON",
        "too big integer"},
    /* tensors that do not tile the data */
    {"{" SHARD_TENSOR("a", "U8", "[2]", "[0,2]") "," SHARD_TENSOR("b", "U8", "[2]", "[1,3]") "}", 3,
        "E_ST_OVERLAP", "tensor \"b\": .* byte 1, wanted 2, where \"a\" ends"},
    {"{" SHARD_TENSOR("a", "U8", "[2]", "[0,2]") "," SHARD_TENSOR("b", "U8", "[2]", "[0,2]") "}", 2,
        "E_ST_OVERLAP", "tensor \"b\": .* byte 0, wanted 2, where \"a\" ends"},
    {"{" SHARD_TENSOR("a", "U8", "[1]", "[0,1]") "," SHARD_TENSOR("b", "U8", "[1]", "[2,3]") "}", 3,
        "E_ST_HOLE", "tensor \"b\": .* byte 2, wanted 1, where \"a\" ends"},
    {"{" SHARD_TENSOR("a", "U8", "[1]", "[1,2]") "}", 2, "E_ST_HOLE", "\"a\": .* byte 1, wanted 0"},
    {"{" SHARD_TENSOR("a", "U8", "[1]", "[0,1]") "}", 5, "E_ST_HOLE",
        "4 bytes after \"a\".*byte 1"},
    {"{}", 1, "E_ST_HOLE", "1 bytes after \"the header\""},
    {"{" SHARD_TENSOR("a", "U8", "[4]", "[0,4]") "," SHARD_TENSOR("z", "U8", "[0]", "[2,2]") "}", 4,
        "E_ST_OVERLAP", "tensor \"z\": .* byte 2, wanted 4"},
    /* shapes */
    {"{" SHARD_TENSOR("a", "U8", "[4294967296,4294967296,2]", "[0,1]") "}", 1, "E_ST_SHAPE",
        "\"a\": shape/1: 4294967296"},
    {"{" SHARD_TENSOR("a", "F64", "[2305843009213693952]", "[0,1]") "}", 1, "E_ST_SHAPE",
        "\"a\": shape/0"},
    {"{" SHARD_TENSOR("a", "U8", "[9223372036854775807]", "[0,1]") "}", 1, "E_ST_SHAPE",
        "\"a\": shape/0"}, /* fits, but not rounded up */
    {"{" SHARD_TENSOR("a", "U8", "[1,1,1,1,1,1,1,1,1]", "[0,1]") "}", 1, "E_ST_SHAPE",
        "\"a\": shape: a list of 9, .*at most 8"},
    {"{" SHARD_TENSOR("a", "U8", "[-1]", "[0,1]") "}", 1, "E_ST_SHAPE", "\"a\": shape/0: below 0"},
    {"{" SHARD_TENSOR("a", "U8", "[1.0]", "[0,1]") "}", 1, "E_ST_SHAPE", "shape/0: not an integer"},
    {"{" SHARD_TENSOR("a", "U8", "{\"x\":1}", "[0,1]") "}", 1, "E_ST_SHAPE",
        "shape: something else"},
    {"{" SHARD_TENSOR("a", "F32", "[2]", "[0,4]") "}", 4, "E_ST_SIZE",
        "\"a\": .* 4 bytes, wanted 8"},
    {"{" SHARD_TENSOR("a", "F32", "[]", "[0,2]") "}", 2, "E_ST_SIZE",
        "\"a\": .* 2 bytes, wanted 4"},
    /* nesting; a name that would write to the terminal */
    {"{\"a\":[[[[[[[[]]]]]]]]}", 0, "E_ST_LIMIT", "more than 8 levels of nesting \\(byte 20\\)"},
    {"{\"\\u001b[2J\":[1]}", 0, "E_ST_FIELD", "\\\\x1b\\[2J"},
};

static void refuses_malformed_headers(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof bad_headers / sizeof *bad_headers; i++) {
        shard_make("bad.safetensors", bad_headers[i].header, bad_headers[i].data_bytes);
        assert_refused("bad.safetensors", bad_headers[i].name, bad_headers[i].regex);
    }
    shard_make_bytes("bad.safetensors", "{\"a\":\0{}}", 9, 0);
    assert_refused("bad.safetensors", "E_ST_JSON", ":1:[0-9]+: .*\\(byte 1[0-9]\\)");
}

static void refuses_short_files(void **state) {
    (void)state;
    char regex[64];
    for (size_t n = 0; n < 8; n++) {
        temp_write("bad.safetensors", "\0\0\0\0\0\0\0", n);
        snprintf(regex, sizeof regex, "size %zu < 8", n);
        assert_refused("bad.safetensors", "E_ST_SHORT", regex);
    }
}

static void refuses_header_lengths(void **state) {
    (void)state;
    static const unsigned char lengths[][8] = {
        {0, 0, 0, 0, 0, 0, 0, 0x80}, {255, 255, 255, 255, 255, 255, 255, 255},
        {248, 255, 255, 255, 255, 255, 255, 255}, {1, 0xe1, 0xf5, 5}, /* 100,000,001 */
    };
    unsigned char file[32] = {0};
    const long before = peak_kib();
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        memcpy(file, lengths[i], 8);
        temp_write("bad.safetensors", file, sizeof file);
        assert_int_equal(truncate(temp_path("bad.safetensors"), (off_t)1 << 30), 0);
        assert_refused("bad.safetensors", "E_ST_HDRLEN", "at most 100000000 \\(byte 0\\)");
    }
    assert_true(peak_kib() - before < 64 << 10); /* it was not read */
    memcpy(file, "\x19\0\0\0\0\0\0\0", 8);
    temp_write("bad.safetensors", file, sizeof file);
    assert_refused("bad.safetensors", "E_ST_TRUNC", "needs 33 bytes, file has 32.*incomplete");
}

static void refuses_large_metadata(void **state) {
    (void)state;
    enum { BYTES = 10 << 20 };
    static char header[BYTES + 64];
    const int n = snprintf(header, sizeof header, "{\"__metadata__\":{\"k\":\"");
    memset(header + n, 'x', BYTES);
    memcpy(header + n + BYTES, "\"}}", 3);
    shard_make("bad.safetensors", header, 0);
    assert_refused("bad.safetensors", "E_ST_META", "__metadata__: k: too long");
}

static void refuses_huge_headers(void **state) {
    (void)state;
    enum { BYTES = 100000000 - 8, TINY = 1000000 };
    char *header = malloc(BYTES);
    memset(header, '[', BYTES);
    header[0] = '{';
    header[BYTES - 1] = '}';
    shard_make_bytes("huge.safetensors", header, BYTES, 0);
    const long before = peak_kib();
    assert_refused("huge.safetensors", "E_ST_LIMIT", "more than 8 levels of nesting \\(byte 16\\)");
    char *at = header;
    *at++ = '{';
    for (int i = 0; i < TINY; i++)
        at += sprintf(at, "\"t%d\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}%c", i,
            i + 1 < TINY ? ',' : '}');
    shard_make_bytes("huge.safetensors", header, (size_t)(at - header), 0);
    assert_refused("huge.safetensors", "E_ST_LIMIT", "more than 200001 members of the root");
    assert_true(peak_kib() - before < (64 << 10) + 2 * (BYTES >> 10));
    free(header);
    assert_int_equal(unlink(temp_path("huge.safetensors")), 0);
}

/* As many tensors as there may be, each one byte. */
static void reads_the_most_tensors(void **state) {
    (void)state;
    enum { N = 200000 };
    char *header = malloc(80 * N), *at = header;
    *at++ = '{';
    for (int i = 0; i < N; i++)
        at += sprintf(at, "\"t%d\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%d,%d]}%c", i,
            i, i + 1, i + 1 < N ? ',' : '}');
    shard_make_bytes("most.safetensors", header, (size_t)(at - header), N);
    free(header);
    st_file *f = NULL;
    assert_int_equal(st_open(temp_path("most.safetensors"), &f), QFW_OK);
    assert_int_equal(st_count(f), N);
    uint8_t byte = 0;
    assert_int_equal(st_read(f, st_find(f, "t131071"), 0, 1, &byte), QFW_OK);
    assert_int_equal(byte, 131071 & 255);
    st_close(f);
    assert_int_equal(unlink(temp_path("most.safetensors")), 0);
}

static void refuses_what_is_no_file(void **state) {
    (void)state;
    st_file *f;
    assert_int_equal(mkfifo(temp_path("fifo"), 0600), 0);
    assert_error(st_open(temp_path("none"), &f), "E_NOINPUT", EXIT_NOINPUT, "none: No such file");
    assert_error(st_open(temp_path("fifo"), &f), "E_ST_TYPE", EXIT_DATA, "fifo: a FIFO");
    assert_error(st_open(temp_folder(), &f), "E_ST_TYPE", EXIT_DATA, "a folder");
}

/* --- files that are right --- */

static void reads_what_is_there(void **state) {
    (void)state;
    st_file *f = NULL;
    /* A header whose length is no multiple of 8: the data lies at an odd place. */
    shard_make("good.safetensors",
        "{" SHARD_TENSOR("w", "F32", "[2,3]", "[3,27]") "," SHARD_TENSOR(
            "b", "U8", "[3]", "[0,3]") "," SHARD_TENSOR("scalar", "BF16", "[]",
            "[27,29]") "," SHARD_TENSOR("none", "F32", "[0,5]", "[29,29]") "," SHARD_TENSOR("i",
            "I64", "[1]", "[29,37]") ",\"__metadata__\":{\"format\":\"pt\",\"a\":\"\"}} ",
        37);
    assert_int_equal(st_open(temp_path("good.safetensors"), &f), QFW_OK);
    assert_int_equal(st_count(f), 5);
    for (uint32_t i = 1; i < 5; i++)
        assert_true(strcmp(st_at(f, i - 1)->name, st_at(f, i)->name) < 0);
    assert_null(st_at(f, 5));
    assert_null(st_find(f, "x"));
    assert_string_equal(st_metadata(f, "format"), "pt");
    assert_string_equal(st_metadata(f, "a"), "");
    assert_null(st_metadata(f, "b"));
    const st_tensor *w = st_find(f, "w");
    assert_int_equal(w->dtype, QFW_F32);
    assert_int_equal(w->rank, 2);
    assert_int_equal(w->dim[1], 3);
    assert_int_equal(w->bytes, 24);
    assert_string_equal(w->dtype_name, "F32");
    assert_non_null(strstr(w->file, "good.safetensors"));
    uint8_t bytes[24];
    assert_int_equal(st_read(f, w, 0, 2, bytes), QFW_OK);
    for (int i = 0; i < 24; i++) assert_int_equal(bytes[i], 3 + i);
    assert_int_equal(st_read(f, w, 1, 1, bytes), QFW_OK);
    for (int i = 0; i < 12; i++) assert_int_equal(bytes[i], 15 + i);
    assert_int_equal(st_read(f, st_find(f, "scalar"), 0, 1, bytes), QFW_OK);
    assert_int_equal(bytes[0], 27);
    assert_int_equal(st_read(f, st_find(f, "none"), 0, 0, bytes), QFW_OK);
    assert_int_equal(st_find(f, "i")->dtype, 0);
    assert_error(st_read_f32(f, st_find(f, "i"), 0, 1, (float *)bytes), "E_ST_DTYPE", EXIT_DATA,
        "good.safetensors: tensor \"i\": dtype: I64, wanted F32");
    assert_error(st_read(f, w, 1, 2, bytes), "E_INTERNAL", EXIT_INTERNAL, "rows 1..3 of 2");
    assert_error(st_read(f, w, -1, 1, bytes), "E_INTERNAL", EXIT_INTERNAL, "rows");
    assert_int_equal(st_unchanged(f), QFW_OK);
    st_close(f);
    st_close(NULL);
}

static void accepts_no_tensors(void **state) {
    (void)state;
    shard_make("empty.safetensors", "{}", 0);
    st_file *f = NULL;
    assert_int_equal(st_open(temp_path("empty.safetensors"), &f), QFW_OK);
    assert_int_equal(st_count(f), 0);
    assert_null(st_find(f, "a"));
    st_close(f);
}

/* One tensor of 16-bit values, written by hand. */
static st_file *open_halves(const char *dtype, const uint16_t *values, size_t n) {
    char file[1024], header[160];
    st_file *f = NULL;
    snprintf(header, sizeof header,
        "{\"h\":{\"dtype\":\"%s\",\"shape\":[%zu],\"data_offsets\":[0,%zu]}}", dtype, n, 2 * n);
    const size_t length = strlen(header);
    memset(file, 0, sizeof file);
    file[0] = (char)length;
    memcpy(file + 8, header, length);
    memcpy(file + 8 + length, values, 2 * n);
    temp_write("half.safetensors", file, 8 + length + 2 * n);
    assert_int_equal(st_open(temp_path("half.safetensors"), &f), QFW_OK);
    return f;
}

static void widens_halves(void **state) {
    (void)state;
    static const uint16_t f16[] = {
        0x0000, 0x8000, 0x3c00, 0xc000, 0x7bff, 0x0400, 0x0001, 0x83ff, 0x3555};
    static const float f16_value[] = {
        0, -0.0f, 1, -2, 65504, 0x1p-14f, 0x1p-24f, -0x1.ff8p-15f, 0x1.554p-2f};
    static const uint16_t bf16[] = {0x3f80, 0xc040, 0x0001, 0x7f7f, 0x8000};
    static const float bf16_value[] = {1, -3, 0x1p-133f, 0x1.fep127f, -0.0f};
    float out[9];
    st_file *f = open_halves("F16", f16, 9);
    assert_int_equal(st_read_f32(f, st_at(f, 0), 0, 9, out), QFW_OK);
    assert_memory_equal(out, f16_value, sizeof f16_value);
    assert_int_equal(st_read_f32(f, st_at(f, 0), 3, 2, out), QFW_OK);
    assert_memory_equal(out, f16_value + 3, 2 * sizeof *out);
    st_close(f);
    f = open_halves("BF16", bf16, 5);
    assert_int_equal(st_read_f32(f, st_at(f, 0), 0, 5, out), QFW_OK);
    assert_memory_equal(out, bf16_value, sizeof bf16_value);
    st_close(f);
}

static void refuses_values_that_are_not_finite(void **state) {
    (void)state;
    static const uint16_t f16[] = {0, 0, 0x7c00}, bf16[] = {0, 0xffff, 0};
    float out[3], values[6] = {0, 1, 2, 3, 4, 5};
    st_file *f = open_halves("F16", f16, 3);
    assert_int_equal(st_read_f32(f, st_at(f, 0), 0, 2, out), QFW_OK);
    assert_error(st_read_f32(f, st_at(f, 0), 1, 2, out), "E_ST_NONFINITE", EXIT_DATA,
        "half.safetensors: tensor \"h\": value 2: infinite");
    st_close(f);
    f = open_halves("BF16", bf16, 3);
    assert_error(st_read_f32(f, st_at(f, 0), 0, 3, out), "E_ST_NONFINITE", EXIT_DATA,
        "tensor \"h\": value 1: NaN");
    st_close(f);
    st_writer *w = NULL;
    const int64_t dim[] = {3, 2};
    values[5] = (float)INFINITY;
    assert_int_equal(st_writer_create(temp_path("inf.safetensors"), &w), QFW_OK);
    assert_int_equal(st_writer_add(w, "x", QFW_F32, 2, dim), QFW_OK);
    assert_int_equal(st_writer_data(w, values, sizeof values), QFW_OK);
    assert_int_equal(st_writer_finish(w), QFW_OK);
    assert_int_equal(st_open(temp_path("inf.safetensors"), &f), QFW_OK);
    assert_int_equal(st_read_f32(f, st_at(f, 0), 1, 1, out), QFW_OK);
    assert_true(out[0] == 2 && out[1] == 3);
    assert_error(st_read_f32(f, st_at(f, 0), 2, 1, out), "E_ST_NONFINITE", EXIT_DATA,
        "inf.safetensors: tensor \"x\": value 5: infinite");
    st_close(f);
}

static void notices_a_change(void **state) {
    (void)state;
    static const char header[] = "{" SHARD_TENSOR("a", "U8", "[9]", "[0,9]") "}";
    uint8_t bytes[9];
    st_file *f = NULL;
    shard_make("c.safetensors", header, 9);
    assert_int_equal(st_open(temp_path("c.safetensors"), &f), QFW_OK);
    assert_int_equal(truncate(temp_path("c.safetensors"), 8 + (off_t)strlen(header) + 4), 0);
    assert_error(st_read(f, st_at(f, 0), 0, 9, bytes), "E_IO_SHRUNK", EXIT_IOERR,
        "c.safetensors: ends at byte [0-9]+, 5 more");
    assert_error(st_unchanged(f), "E_IO_CHANGED", EXIT_IOERR, "c.safetensors: changed");
    st_close(f);
    shard_make("c.safetensors", header, 9);
    assert_int_equal(st_open(temp_path("c.safetensors"), &f), QFW_OK);
    shard_make("c.safetensors", header, 9); /* the same bytes, another file */
    assert_int_equal(st_read(f, st_at(f, 0), 0, 9, bytes), QFW_OK);
    assert_error(st_unchanged(f), "E_IO_CHANGED", EXIT_IOERR, "c.safetensors: changed");
    st_close(f);
}

/* --- writing --- */

static void writes_what_others_read(void **state) {
    (void)state;
    static const float values[] = {1, 2, 3, 4, 5, 6};
    static const int32_t ids[] = {7, 8, 9};
    const int64_t two_three[] = {2, 3}, three[] = {3}, zero[] = {0};
    const char *path = temp_path("out.safetensors");
    st_writer *w = NULL;
    assert_int_equal(st_writer_create(path, &w), QFW_OK);
    assert_int_equal(st_writer_add(w, "z", QFW_F32, 2, two_three), QFW_OK);
    assert_int_equal(st_writer_meta(w, "format", "pt"), QFW_OK);
    assert_int_equal(st_writer_add(w, "nothing", QFW_BF16, 1, zero), QFW_OK);
    assert_int_equal(st_writer_add(w, "a\"\\\n", QFW_I32, 1, three), QFW_OK);
    assert_int_equal(st_writer_data(w, values, 4), QFW_OK); /* in pieces of any size */
    assert_int_equal(st_writer_data(w, values + 1, 20), QFW_OK);
    assert_false(file_exists(path));
    assert_int_equal(st_writer_data(w, ids, 12), QFW_OK);
    assert_int_equal(st_writer_finish(w), QFW_OK);
    char *bytes = NULL;
    size_t n = 0;
    assert_int_equal(file_read(path, 4096, &bytes, &n), QFW_OK);
    const size_t length = (unsigned char)bytes[0] | (size_t)(unsigned char)bytes[1] << 8;
    assert_int_equal(length % 8, 0);
    assert_int_equal(n, 8 + length + 36);
    assert_memory_equal(bytes + 8 + length, values, 24);
    bytes[8 + length] = 0;
    while (length && bytes[8 + strlen(bytes + 8) - 1] == ' ') bytes[8 + strlen(bytes + 8) - 1] = 0;
    assert_string_equal(bytes + 8,
        "{\"__metadata__\": {\"format\": \"pt\"}, "
        "\"z\": {\"dtype\": \"F32\", \"shape\": [2, 3], \"data_offsets\": [0, 24]}, "
        "\"nothing\": {\"dtype\": \"BF16\", \"shape\": [0], \"data_offsets\": [24, 24]}, "
        "\"a\\\"\\\\\\n\": {\"dtype\": \"I32\", \"shape\": [3], \"data_offsets\": [24, 36]}}");
    mem_free(bytes);
    st_file *f = NULL;
    float back[6];
    assert_int_equal(st_open(path, &f), QFW_OK);
    assert_int_equal(st_read_f32(f, st_find(f, "z"), 0, 2, back), QFW_OK);
    assert_memory_equal(back, values, sizeof back);
    assert_non_null(st_find(f, "a\"\\\n"));
    assert_string_equal(st_metadata(f, "format"), "pt");
    st_close(f);
}

/* Until finish, and where finish fails, the old file stays and nothing lies beside it. */
static void publishes_all_or_nothing(void **state) {
    (void)state;
    const int64_t four[] = {4}, minus[] = {-4};
    const char *path = temp_path("p.safetensors");
    st_writer *w = NULL;
    temp_text("p.safetensors", "old");
    assert_int_equal(st_writer_create(path, &w), QFW_OK);
    assert_int_equal(st_writer_add(w, "a", QFW_U8, 1, four), QFW_OK);
    assert_error(st_writer_add(w, "a", QFW_U8, 1, four), "E_INTERNAL", EXIT_INTERNAL, "twice");
    assert_error(st_writer_add(w, "b", QFW_NF4, 1, four), "E_INTERNAL", EXIT_INTERNAL, "nf4");
    assert_error(st_writer_add(w, "b", QFW_U8, 1, minus), "E_INTERNAL", EXIT_INTERNAL, "shape/0");
    assert_int_equal(st_writer_data(w, "123", 3), QFW_OK);
    assert_error(st_writer_data(w, "45", 2), "E_INTERNAL", EXIT_INTERNAL, "more data");
    assert_error(st_writer_add(w, "b", QFW_U8, 1, four), "E_INTERNAL", EXIT_INTERNAL, "after");
    assert_error(st_writer_finish(w), "E_INTERNAL", EXIT_INTERNAL, "3 bytes of data, 4 were");
    assert_int_equal(st_writer_create(path, &w), QFW_OK);
    st_writer_abort(w);
    st_writer_abort(NULL);
    char *text = NULL;
    size_t n;
    assert_int_equal(file_read(path, 9, &text, &n), QFW_OK);
    assert_string_equal(text, "old");
    mem_free(text);
    assert_false(file_exists(temp_path("p.safetensors.tmp")));
    assert_error(st_writer_create(temp_path("none/p"), &w), "E_OUT_CREATE", EXIT_OUTPUT, "none/p");
    assert_null(w);
}

static void survives_want_of_memory(void **state) {
    (void)state;
    const int64_t dim[] = {4};
    for (uint64_t k = 1;; k++) {
        st_writer *w = NULL;
        mem_fail_at(k);
        qfw_status status = st_writer_create(temp_path("k.safetensors"), &w);
        if (status == QFW_OK) status = st_writer_meta(w, "format", "pt");
        if (status == QFW_OK) status = st_writer_add(w, "a", QFW_U8, 1, dim);
        if (status == QFW_OK) status = st_writer_data(w, "1234", 4);
        if (status == QFW_OK)
            status = st_writer_finish(w);
        else
            st_writer_abort(w);
        mem_fail_at(0);
        if (status == QFW_OK) break;
        assert_error(status, "E_MEM", EXIT_MEMORY, ".");
        assert_false(file_exists(temp_path("k.safetensors.tmp")));
        assert_true(k < 2000);
    }
    assert_int_equal(open_it("k.safetensors"), QFW_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_short_files),
        cmocka_unit_test(refuses_header_lengths),
        cmocka_unit_test(refuses_malformed_headers),
        cmocka_unit_test(refuses_large_metadata),
        cmocka_unit_test(refuses_what_is_no_file),
        cmocka_unit_test(reads_what_is_there),
        cmocka_unit_test(accepts_no_tensors),
        cmocka_unit_test(widens_halves),
        cmocka_unit_test(refuses_values_that_are_not_finite),
        cmocka_unit_test(notices_a_change),
        cmocka_unit_test(writes_what_others_read),
        cmocka_unit_test(publishes_all_or_nothing),
        cmocka_unit_test(survives_want_of_memory),
        cmocka_unit_test(reads_the_most_tensors),
        cmocka_unit_test(refuses_huge_headers),
    };
    return cmocka_run_group_tests(tests, temp_make, temp_drop);
}

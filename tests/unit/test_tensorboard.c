/* test_tensorboard.c -- event files, byte by byte: lengths, checksums and fields. TensorBoard's own
 * reader looks at them in tests/parity/check_tensorboard.py. */
#define _POSIX_C_SOURCE 200809L
#include <dirent.h>

#include "base/error.h"
#include "base/mem.h"
#include "files/file.h"
#include "train/tensorboard.h"

#include "../support/temp.h"
#include "../support/test.h"

/* CRC-32C by table, written apart from the one that is tested. */
static uint32_t crc32c(const uint8_t *data, size_t n) {
    uint32_t table[256], crc = UINT32_MAX;
    for (uint32_t i = 0; i < 256; i++) {
        table[i] = i;
        for (int k = 0; k < 8; k++)
            table[i] = table[i] & 1 ? table[i] >> 1 ^ 0x82f63b78u : table[i] >> 1;
    }
    for (size_t i = 0; i < n; i++) crc = table[(crc ^ data[i]) & 255] ^ crc >> 8;
    return ~crc;
}

static uint32_t read32(const uint8_t *p) {
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void expect_crc(const uint8_t *data, size_t n, const uint8_t *stored) {
    const uint32_t rotated = read32(stored) - 0xa282ead8u;
    assert_int_equal(rotated << 15 | rotated >> 17, crc32c(data, n));
}

/* The next record's message; *p goes past it. */
static const uint8_t *next_record(const uint8_t **p, size_t *n) {
    const uint8_t *record = *p;
    *n = read32(record);
    assert_int_equal(read32(record + 4), 0);
    expect_crc(record, 8, record + 8);
    expect_crc(record + 12, *n, record + 12 + *n);
    *p = record + 12 + *n + 4;
    return record + 12;
}

/* What stands behind the time: 1 + 8 bytes. */
static void expect_rest(const uint8_t **p, const char *rest, size_t n_rest) {
    size_t n;
    const uint8_t *m = next_record(p, &n);
    assert_int_equal(m[0], 1 << 3 | 1);
    assert_int_equal(n, 9 + n_rest);
    assert_memory_equal(m + 9, rest, n_rest);
}

static char *only_file(size_t *n) {
    char *path = NULL, *bytes = NULL;
    DIR *dir = opendir(temp_path("runs"));
    assert_non_null(dir);
    for (struct dirent *d; (d = readdir(dir)) != NULL;) {
        if (d->d_name[0] == '.') continue;
        assert_null(path);
        assert_int_equal(strncmp(d->d_name, "events.out.tfevents.", 20), 0);
        path = path_join(temp_path("runs"), d->d_name);
    }
    closedir(dir);
    assert_non_null(path);
    assert_int_equal(file_read(path, 1 << 20, &bytes, n), QFW_OK);
    mem_free(path);
    return bytes;
}

static void numbers_are_events(void **state) {
    static const char line[] =
        "{\"loss\": 0.5, \"eval_loss\": 2, \"name\": \"x\", \"epoch\": null, \"step\": 300}";
    tensorboard *t = NULL;
    size_t n = 0;
    (void)state;
    assert_int_equal(crc32c((const uint8_t *)"123456789", 9), 0xe3069283u); /* the known answer */
    assert_int_equal(tensorboard_open(temp_folder(), 201, &t), QFW_OK);
    assert_int_equal(tensorboard_add(t, line, sizeof line - 1), QFW_OK);
    tensorboard_close(t);
    char *bytes = only_file(&n);
    const uint8_t *p = (const uint8_t *)bytes;
#define REST(text) text, sizeof text - 1
    expect_rest(&p, REST("\x10\x00\x1a\x0d"
                         "brain.Event:2"));
    expect_rest(&p, REST("\x10\xc9\x01\x3a\x02\x08\x01")); /* from step 201 on */
    expect_rest(&p, REST("\x10\xac\x02\x2a\x13\x0a\x11\x0a\x0a"
                         "train/loss"
                         "\x15\x00\x00\x00\x3f"));
    expect_rest(&p, REST("\x10\xac\x02\x2a\x12\x0a\x10\x0a\x09"
                         "eval/loss"
                         "\x15\x00\x00\x00\x40"));
#undef REST
    assert_ptr_equal(p, bytes + n);
    mem_free(bytes);
}

static void a_folder_that_cannot_be(void **state) {
    tensorboard *t = NULL;
    (void)state;
    assert_int_equal(file_write(temp_path("taken"), "", 0), QFW_OK);
    assert_int_not_equal(tensorboard_open(temp_path("taken"), 0, &t), QFW_OK);
    assert_null(t);
    assert_int_equal(err_exit_code(), EXIT_OUTPUT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_are_events),
        cmocka_unit_test(a_folder_that_cannot_be),
    };
    return cmocka_run_group_tests(tests, temp_make, temp_drop);
}

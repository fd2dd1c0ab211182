/* test_safetensors_folder.c -- a model's folder: an index and its shards read as one file, and each
 * way in which they can disagree named.
 */
#define _XOPEN_SOURCE 700
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../support/shard.h"
#include "../support/temp.h"
#include "base/error.h"
#include "base/mem.h"
#include "files/file.h"
#include "files/safetensors.h"

#include <cmocka.h>

#define INDEX_NAME "model.safetensors.index.json"

static qfw_status open_folder(const char *name) {
    st_file *f = NULL;
    const qfw_status status = st_open_folder(temp_path(name), &f);
    st_close(f);
    return status;
}

static void make_folder(const char *name, const char *index) {
    char path[128];
    assert_int_equal(dir_remove(temp_path(name)), QFW_OK);
    assert_int_equal(dir_make(temp_path(name)), QFW_OK);
    snprintf(path, sizeof path, "%s/a.safetensors", name);
    shard_make(path,
        "{" SHARD_TENSOR("w.0", "U8", "[2]", "[0,2]") "," SHARD_TENSOR(
            "w.2", "U8", "[1]", "[2,3]") "}",
        3);
    snprintf(path, sizeof path, "%s/b.safetensors", name);
    shard_make(path, "{" SHARD_TENSOR("w.1", "U8", "[4]", "[0,4]") "}", 4);
    snprintf(path, sizeof path, "%s/" INDEX_NAME, name);
    temp_text(path, index);
}

#define MAP(members) "{\"metadata\":{\"total_size\":7},\"weight_map\":{" members "}}"
#define ALL_OF_A     "\"w.0\":\"a.safetensors\",\"w.2\":\"a.safetensors\""
#define ALL          ALL_OF_A ",\"w.1\":\"b.safetensors\""

static void reads_shards(void **state) {
    (void)state;
    uint8_t bytes[4];
    st_file *f = NULL;
    make_folder("m", MAP(ALL));
    assert_int_equal(st_open_folder(temp_path("m"), &f), QFW_OK);
    assert_int_equal(st_count(f), 3);
    assert_string_equal(st_at(f, 1)->name, "w.1");
    assert_int_equal(st_read(f, st_at(f, 1), 1, 3, bytes), QFW_OK);
    assert_int_equal(bytes[0], 1);
    assert_int_equal(st_read(f, st_at(f, 2), 0, 1, bytes), QFW_OK);
    assert_int_equal(bytes[0], 2);
    st_close(f);
    /* A wrong total is only said; a link to a file is followed. */
    make_folder("m", "{\"metadata\":{\"total_size\":8},\"weight_map\":{" ALL "}}");
    assert_int_equal(rename(temp_path("m/b.safetensors"), temp_path("blob")), 0);
    assert_int_equal(symlink("../blob", temp_path("m/b.safetensors")), 0);
    assert_int_equal(open_folder("m"), QFW_OK);
}

static void refuses_index_maps(void **state) {
    (void)state;
    char index[8192], longest[4097];
    static const char *const paths[] = {"../x.safetensors", "/etc/passwd", "a/b.safetensors", "",
        ".safetensors", "..", "a.bin", "a\\nb.safetensors", "a b.safetensors",
        "\\u001b.safetensors"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        snprintf(index, sizeof index, MAP(ALL_OF_A ",\"w.1\":\"%s\""), paths[i]);
        make_folder("m", index);
        assert_error(open_folder("m"), "E_IDX_PATH", EXIT_DATA,
            INDEX_NAME ": /weight_map/w.1: \".*\", wanted the plain name");
    }
    memset(longest, 'a', sizeof longest);
    longest[4096] = 0;
    snprintf(index, sizeof index, MAP("\"w.1\":\"%s.safetensors\""), longest);
    make_folder("m", index);
    assert_error(open_folder("m"), "E_IDX_PATH", EXIT_DATA, "/weight_map/w.1: \"aaaa");
    make_folder("m", MAP("\"w.1\":\"\\u0000\""));
    assert_error(
        open_folder("m"), "E_JSON", EXIT_DATA, INDEX_NAME ":1:[0-9]+: .*\\(byte [0-9]+\\)");
    make_folder("m", MAP("\"w.1\":3"));
    assert_error(open_folder("m"), "E_IDX_PATH", EXIT_DATA, "/weight_map/w.1: not a string");
    make_folder("m", MAP(""));
    assert_error(open_folder("m"), "E_IDX_MAP", EXIT_DATA, INDEX_NAME ": /weight_map: ");
    make_folder("m", "{}");
    assert_error(open_folder("m"), "E_IDX_MAP", EXIT_DATA, INDEX_NAME ": /weight_map: ");
    make_folder("m", MAP("\"w.1\":\"b.safetensors\",\"w.1\":\"b.safetensors\""));
    assert_error(open_folder("m"), "E_JSON", EXIT_DATA, "key \"w.1\" stands twice");
}

static void refuses_strange_shards(void **state) {
    (void)state;
    static const char *const kinds[] = {"a FIFO", "a folder", "a device", "symbolic links"};
    for (int kind = 0; kind < 4; kind++) {
        make_folder("m", MAP(ALL));
        const char *b = temp_path("m/b.safetensors");
        assert_int_equal(unlink(b), 0);
        if (kind == 0) assert_int_equal(mkfifo(b, 0600), 0);
        if (kind == 1) assert_int_equal(mkdir(b, 0700), 0);
        if (kind == 2) assert_int_equal(symlink("/dev/zero", b), 0);
        if (kind == 3) assert_int_equal(symlink("b.safetensors", b), 0);
        char regex[128];
        snprintf(regex, sizeof regex, "m/b.safetensors: .*%s", kinds[kind]);
        assert_error(open_folder("m"), "E_IDX_TYPE", EXIT_DATA, regex);
    }
}

static void lists_all_disagreements(void **state) {
    (void)state;
    make_folder("m", MAP("\"w.0\":\"a.safetensors\",\"w.3\":\"b.safetensors\","
                         "\"w.2\":\"b.safetensors\""));
    assert_int_not_equal(open_folder("m"), QFW_OK);
    assert_int_equal(err_count(), 3);
    assert_non_null(strstr(err_text(0), "\"w.1\": in \"b.safetensors\", but not in /weight_map"));
    assert_non_null(strstr(err_text(1), "\"w.3\": \"b.safetensors\" lacks it"));
    assert_non_null(strstr(err_text(2), "\"w.2\": \"b.safetensors\" lacks it, found in a.safete"));
    assert_error(err_status(), "E_IDX_TENSOR", EXIT_DATA, INDEX_NAME);
    make_folder("m", MAP(ALL));
    shard_make("m/b.safetensors",
        "{" SHARD_TENSOR("w.0", "U8", "[1]", "[0,1]") "," SHARD_TENSOR(
            "w.1", "U8", "[1]", "[1,2]") "}",
        2);
    assert_error(open_folder("m"), "E_IDX_DUP", EXIT_DATA,
        "\"w.0\": in \"a.safetensors\" and in \"b.safetensors\"");
    make_folder("m", MAP(ALL ",\"w.4\":\"c.safetensors\",\"w.5\":\"d.safetensors\""));
    assert_int_not_equal(open_folder("m"), QFW_OK);
    assert_int_equal(err_count(), 2);
    assert_non_null(strstr(err_text(1), "\"d.safetensors\" is missing"));
    assert_error(err_status(), "E_IDX_SHARD", EXIT_DATA, "\"c.safetensors\" is missing");
    make_folder("m", MAP(ALL));
    shard_make("m/b.safetensors", "{} x", 0);
    assert_error(open_folder("m"), "E_ST_JSON", EXIT_DATA, "m/b.safetensors: header");
}

static void wants_one_way_to_read_a_folder(void **state) {
    (void)state;
    make_folder("m", MAP(ALL));
    shard_make("m/model.safetensors", "{}", 0);
    assert_error(open_folder("m"), "E_IDX_AMBIGUOUS", EXIT_DATA, "m: both model.safetensors and");
    assert_int_equal(unlink(temp_path("m/" INDEX_NAME)), 0);
    assert_int_equal(open_folder("m"), QFW_OK);
    assert_int_equal(unlink(temp_path("m/model.safetensors")), 0);
    assert_error(open_folder("m"), "E_NOINPUT", EXIT_NOINPUT, "m: neither model.safetensors nor");
}

static void survives_want_of_memory(void **state) {
    (void)state;
    make_folder("m", MAP(ALL));
    for (uint64_t k = 1;; k++) {
        mem_fail_at(k);
        const qfw_status status = open_folder("m");
        mem_fail_at(0);
        if (status == QFW_OK) break;
        assert_error(status, "E_MEM", EXIT_MEMORY, ".");
        assert_true(k < 2000);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_shards),
        cmocka_unit_test(refuses_index_maps),
        cmocka_unit_test(refuses_strange_shards),
        cmocka_unit_test(lists_all_disagreements),
        cmocka_unit_test(wants_one_way_to_read_a_folder),
        cmocka_unit_test(survives_want_of_memory),
    };
    return cmocka_run_group_tests(tests, temp_make, temp_drop);
}

/* test_file.c -- a name holds the old bytes or the new ones; hashes; strange kinds of file. */
#define _XOPEN_SOURCE 700
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../support/temp.h"
#include "base/error.h"
#include "base/mem.h"
#include "files/file.h"

#include <cmocka.h>

static void assert_holds(const char *path, const char *text) {
    char *found = NULL;
    size_t n = 0;
    assert_int_equal(file_read(path, 1 << 20, &found, &n), QFW_OK);
    assert_int_equal(n, strlen(text));
    assert_string_equal(found, text);
    mem_free(found);
}

static void writes_and_replaces(void **state) {
    (void)state;
    const char *path = temp_path("a");
    umask(022);
    assert_int_equal(file_write(path, "old", 3), QFW_OK);
    assert_holds(path, "old");
    assert_int_equal(file_write(path, "new and longer", 14), QFW_OK);
    assert_holds(path, "new and longer");
    assert_int_equal(file_write(path, "", 0), QFW_OK);
    assert_holds(path, "");
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0644);
    assert_false(file_exists(temp_path("a.tmp")));
}

/* Until finish the name holds the old bytes, whatever lies aside; an abort leaves nothing. */
static void a_name_never_holds_half_a_file(void **state) {
    (void)state;
    const char *path = temp_path("b");
    file_out *o = NULL;
    assert_int_equal(file_write(path, "old", 3), QFW_OK);
    assert_int_equal(file_out_open(path, &o), QFW_OK);
    assert_int_equal(file_out_write(o, "ne", 2), QFW_OK);
    assert_holds(path, "old");
    file_out_abort(o);
    assert_holds(path, "old");
    assert_false(file_exists(temp_path("b.tmp")));
    assert_int_equal(file_out_open(path, &o), QFW_OK);
    assert_int_equal(file_out_write(o, "ne", 2), QFW_OK);
    assert_int_equal(file_out_write(o, "w", 1), QFW_OK);
    assert_int_equal(file_out_finish(o), QFW_OK);
    assert_holds(path, "new");
}

/* A child dies by SIGKILL in the middle of a write; its leftover stops nobody. */
static void a_kill_leaves_the_old_file(void **state) {
    (void)state;
    const char *path = temp_path("c");
    assert_int_equal(file_write(path, "old", 3), QFW_OK);
    const pid_t child = fork();
    if (child == 0) {
        file_out *o = NULL;
        if (file_out_open(path, &o) == QFW_OK && file_out_write(o, "half", 4) == QFW_OK)
            raise(SIGKILL);
        _exit(1);
    }
    int how = 0;
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFSIGNALED(how));
    assert_holds(path, "old");
    assert_true(file_exists(temp_path("c.tmp")));
    assert_int_equal(file_write(path, "new", 3), QFW_OK);
    assert_holds(path, "new");
    assert_false(file_exists(temp_path("c.tmp")));
}

/* A leftover that is a symlink is not written through. */
static void does_not_follow_what_lies_aside(void **state) {
    (void)state;
    assert_int_equal(file_write(temp_path("victim"), "mine", 4), QFW_OK);
    assert_int_equal(symlink(temp_path("victim"), temp_path("d.tmp")), 0);
    assert_int_equal(file_write(temp_path("d"), "text", 4), QFW_OK);
    assert_holds(temp_path("victim"), "mine");
    assert_holds(temp_path("d"), "text");
}

static void a_full_disk_keeps_the_old_file(void **state) {
    (void)state;
    static char big[1 << 16];
    const char *path = temp_path("e");
    struct rlimit old, small;
    assert_int_equal(file_write(path, "old", 3), QFW_OK);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = old;
    small.rlim_cur = 4096;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    const qfw_status status = file_write(path, big, sizeof big);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_error(status, "E_IO_WRITE", EXIT_IOERR, path);
    assert_holds(path, "old");
    assert_false(file_exists(temp_path("e.tmp")));
}

static void says_what_cannot_be_created(void **state) {
    (void)state;
    const char *path = temp_path("none/f");
    file_out *o = (file_out *)(uintptr_t) "x";
    assert_error(file_write(path, "x", 1), "E_OUT_CREATE", EXIT_OUTPUT, path);
    assert_error(file_out_open(path, &o), "E_OUT_CREATE", EXIT_OUTPUT, path);
    assert_null(o);
}

static void reads_within_its_limit(void **state) {
    (void)state;
    const char *path = temp_path("g");
    char *text = (char *)(uintptr_t) "x";
    size_t n = 1;
    assert_int_equal(file_write(path, "12345", 5), QFW_OK);
    assert_int_equal(file_read(path, 5, &text, &n), QFW_OK);
    assert_int_equal(text[5], 0);
    mem_free(text);
    assert_error(file_read(path, 4, &text, &n), "E_DATA_LIMIT", EXIT_DATA, path);
    assert_null(text);
    assert_int_equal(n, 0);
}

static void refuses_what_is_no_file(void **state) {
    (void)state;
    char *text;
    size_t n;
    const char *missing = temp_path("missing"), *fifo = temp_path("fifo"), *loop = temp_path("lp");
    assert_int_equal(mkfifo(fifo, 0600), 0);
    assert_int_equal(symlink("lp", loop), 0);
    assert_error(file_read(missing, 9, &text, &n), "E_NOINPUT", EXIT_NOINPUT, missing);
    assert_error(file_read(temp_folder(), 9, &text, &n), "E_NOINPUT", EXIT_NOINPUT, "a folder");
    assert_error(file_read(fifo, 9, &text, &n), "E_NOINPUT", EXIT_NOINPUT, "a FIFO");
    assert_error(file_read(loop, 9, &text, &n), "E_NOINPUT", EXIT_NOINPUT, loop);
    assert_error(file_read("/dev/zero", 9, &text, &n), "E_NOINPUT", EXIT_NOINPUT, "a device");
}

static void notices_a_file_that_shrank(void **state) {
    (void)state;
    const char *path = temp_path("h");
    uint64_t size = 0;
    char data[8];
    assert_int_equal(file_write(path, "12345678", 8), QFW_OK);
    const int fd = file_open(path, "E_NOINPUT", &size);
    assert_true(fd >= 0);
    assert_int_equal(size, 8);
    assert_int_equal(file_pread(fd, path, 2, data, 6), QFW_OK);
    assert_memory_equal(data, "345678", 6);
    assert_int_equal(truncate(path, 5), 0);
    assert_error(file_pread(fd, path, 2, data, 6), "E_IO_SHRUNK", EXIT_IOERR, "byte 5, 3 more");
    close(fd);
}

static void copies_bytes(void **state) {
    (void)state;
    enum { BYTES = (1 << 20) + 17 }; /* more than one piece */
    char *data = mem_alloc(BYTES, 1), from[65], to[65];
    for (size_t i = 0; i < BYTES; i++) data[i] = (char)(i * 7 + i / 251);
    assert_int_equal(file_write(temp_path("from"), data, BYTES), QFW_OK);
    assert_int_equal(file_copy(temp_path("from"), temp_path("to")), QFW_OK);
    assert_int_equal(file_sha256(temp_path("from"), from), QFW_OK);
    assert_int_equal(file_sha256(temp_path("to"), to), QFW_OK);
    assert_string_equal(from, to);
    char *back = NULL;
    size_t n = 0;
    assert_int_equal(file_read(temp_path("to"), BYTES, &back, &n), QFW_OK);
    assert_int_equal(n, BYTES);
    assert_memory_equal(back, data, BYTES);
    mem_free(back);
    mem_free(data);
    assert_error(
        file_copy(temp_path("missing"), temp_path("to")), "E_NOINPUT", EXIT_NOINPUT, "missing");
    assert_int_equal(file_sha256(temp_path("to"), from), QFW_OK);
    assert_string_equal(from, to);
}

static void assert_sha(const char *text, size_t times, size_t piece, const char *hex) {
    char found[65];
    sha256 s;
    sha256_init(&s);
    for (size_t i = 0; i < times; i++)
        for (size_t at = 0; at < strlen(text); at += piece)
            sha256_add(&s, text + at, strlen(text) - at < piece ? strlen(text) - at : piece);
    sha256_hex(&s, found);
    assert_string_equal(found, hex);
}

/* The vectors of FIPS 180-4, whole and in pieces that straddle blocks. */
static void hashes_as_the_standard_says(void **state) {
    (void)state;
    const char *two_blocks = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    assert_sha("", 1, 1, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_sha("abc", 1, 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    for (size_t piece = 1; piece <= 56; piece++)
        assert_sha(two_blocks, 1, piece,
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    assert_sha("aaaaaaaaaa", 100000, 7,
        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

static void makes_and_removes_folders(void **state) {
    (void)state;
    assert_int_equal(dir_make(temp_path("x/y//z/")), QFW_OK);
    assert_true(dir_exists(temp_path("x/y/z")));
    assert_int_equal(dir_make(temp_path("x/y")), QFW_OK);
    assert_int_equal(file_write(temp_path("x/y/file"), "1", 1), QFW_OK);
    assert_error(dir_make(temp_path("x/y/file/z")), "E_OUT_CREATE", EXIT_OUTPUT, "x/y/file");
    assert_int_equal(file_write(temp_path("kept"), "1", 1), QFW_OK);
    assert_int_equal(symlink(temp_path("kept"), temp_path("x/link")), 0);
    assert_int_equal(symlink(temp_folder(), temp_path("x/up")), 0);
    assert_int_equal(dir_remove(temp_path("x")), QFW_OK);
    assert_false(dir_exists(temp_path("x")));
    assert_true(file_exists(temp_path("kept"))); /* links are removed, not followed */
    assert_int_equal(dir_remove(temp_path("x")), QFW_OK);
    assert_int_equal(dir_sync(temp_folder()), QFW_OK);
    assert_error(dir_sync(temp_path("x")), "E_IO_WRITE", EXIT_IOERR, "x");
}

static void assert_joined(const char *a, const char *b, const char *path) {
    char *found = path_join(a, b);
    assert_string_equal(found, path);
    mem_free(found);
}

static void joins_paths(void **state) {
    (void)state;
    assert_joined("a", "b", "a/b");
    assert_joined("a/", "b", "a/b");
    assert_joined("/", "b", "/b");
    assert_joined("", "b", "b");
    assert_joined("a", "/b", "/b");
}

/* Every allocation fails once: the file is as before, nothing leaks (ASan sees to that). */
static void survives_want_of_memory(void **state) {
    (void)state;
    const char *path = temp_path("m");
    assert_int_equal(file_write(path, "old", 3), QFW_OK);
    for (uint64_t k = 1;; k++) {
        mem_fail_at(k);
        const qfw_status status = file_write(path, "new", 3);
        mem_fail_at(0);
        if (status == QFW_OK) break;
        assert_int_equal(status, QFW_E_NOMEM);
        assert_true(k < 20);
    }
    assert_holds(path, "new");
    assert_false(file_exists(temp_path("m.tmp")));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_and_replaces),
        cmocka_unit_test(a_name_never_holds_half_a_file),
        cmocka_unit_test(a_kill_leaves_the_old_file),
        cmocka_unit_test(does_not_follow_what_lies_aside),
        cmocka_unit_test(a_full_disk_keeps_the_old_file),
        cmocka_unit_test(says_what_cannot_be_created),
        cmocka_unit_test(reads_within_its_limit),
        cmocka_unit_test(refuses_what_is_no_file),
        cmocka_unit_test(notices_a_file_that_shrank),
        cmocka_unit_test(copies_bytes),
        cmocka_unit_test(hashes_as_the_standard_says),
        cmocka_unit_test(makes_and_removes_folders),
        cmocka_unit_test(joins_paths),
        cmocka_unit_test(survives_want_of_memory),
    };
    return cmocka_run_group_tests(tests, temp_make, temp_drop);
}

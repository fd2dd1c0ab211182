/* test_io.c -- what is around the command is not as it should be: its standard files are closed or
 * full, the disk is full, folders and files may not be used. It says so, and loses nothing.
 *
 * A full disk is a limit on the size of files, which fails a write at the same places.
 */
#define _XOPEN_SOURCE 700
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/mem.h"
#include "files/file.h"

#include "../support/refusal.h"
#include "../support/temp.h"
#include "../support/test.h"
#include "../support/tiny.h"

static command c;

/* Run a line of shell in which $0 is qfw, $1 the INI, $3 a folder that may have plugins: its exit
 * code. */
static int shell(const char *line) {
    const char *const argv[] = {"sh", "-c", line, build_path("qfw"), temp_path("case/run.ini"),
        temp_path("case/code"), temp_path("plugins"), NULL};
    assert_int_equal(command_run(argv, &c), 0);
    if (strstr(c.err, "Sanitizer") || strstr(c.err, "runtime error:")) fail_msg("%s", c.err);
    return c.exit_code;
}

static void expect(const char *line, int exit_code, const char *regex) {
    const int code = shell(line);
    if (code != exit_code) fail_msg("%s: exit %d, wanted %d; %s", line, code, exit_code, c.err);
    if (!has_line(c.err, regex)) fail_msg("%s: said\n%s\nnot %s", line, c.err, regex);
}

static char *contents(const char *name, size_t *n) {
    char *text = NULL;
    assert_int_equal(file_read(temp_path(name), 64 << 20, &text, n), QFW_OK);
    return text;
}

/* Two steps, two checkpoints. */
static void make_case(void) {
    tiny_make("case");
    alter("run.ini", "max_steps = 1\n", "max_steps = 2\nsave_steps = 1\nlogging_steps = 1\n");
}

static char *whole;
static size_t n_whole;

static int setup(void **state) {
    if (temp_make(state)) return -1;
    make_case();
    trains("nothing wrong");
    whole = contents("case/out/adapter_model.safetensors", &n_whole);
    return 0;
}

static int teardown(void **state) {
    mem_free(whole);
    return temp_drop(state);
}

/* The run is there from end to end, and its log holds nothing else. */
static void expect_whole(const char *line) {
    size_t n = 0;
    char *adapter = contents("case/out/adapter_model.safetensors", &n);
    if (n != n_whole || memcmp(adapter, whole, n)) fail_msg("%s: another adapter", line);
    mem_free(adapter);
    char *log = contents("case/out/trainer_log.jsonl", &n);
    int lines = 0;
    for (const char *at = log; *at; at += strcspn(at, "\n") + 1, lines++)
        if (*at != '{') fail_msg("%s: trainer_log.jsonl holds %.60s", line, at);
    assert_int_equal(lines, 3);
    mem_free(log);
    assert_true(file_exists(temp_path("case/out/manifest.json")));
    assert_true(file_exists(temp_path("case/out/checkpoint-2/MANIFEST.json")));
}

/* --- standard files --- */

static void closed_and_full(void **state) {
    static const struct {
        const char *line;
        int exit_code;
        const char *regex;
    } rows[] = {
        {"exec \"$0\" --ini \"$1\" >&-", EXIT_IOERR, "stdout cannot be written"},
        {"exec \"$0\" --ini \"$1\" >/dev/full", EXIT_IOERR, "stdout cannot be written"},
        {"exec \"$0\" --ini \"$1\" 2>&-", EXIT_OK, ""},
        {"exec \"$0\" --ini \"$1\" 2>/dev/full", EXIT_OK, ""},
        {"exec \"$0\" --ini \"$1\" <&-", EXIT_OK, "^step 2/2 "},
        {"exec \"$0\" --ini \"$1\" <&- >&- 2>&-", EXIT_IOERR, ""},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        make_case();
        expect(rows[i].line, rows[i].exit_code, rows[i].regex);
        expect_whole(rows[i].line);
    }
    expect("exec \"$0\" help >&-", EXIT_IOERR, "stdout cannot be written");
    expect("exec \"$0\" plugin list >/dev/full", EXIT_IOERR, "stdout cannot be written");
}

/* Nobody reads any more: the run goes on. */
static void a_reader_that_went_away(void **state) {
    static const struct {
        const char *line;
        int exit_code;
    } rows[] = {
        {"{ \"$0\" --ini \"$1\"; echo $? >\"$2\"; } | :", EXIT_IOERR},
        {"{ \"$0\" --ini \"$1\" 2>&1 >/dev/null; echo $? >\"$2\"; } | :", EXIT_OK},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        size_t n = 0;
        make_case();
        assert_int_equal(shell(rows[i].line), 0);
        char *code = contents("case/code", &n);
        assert_int_equal(strtol(code, NULL, 10), rows[i].exit_code);
        mem_free(code);
        expect_whole(rows[i].line);
    }
}

/* --- a full disk --- */

/* Full at some file of a run's second half: what was published stays, what was begun goes. */
static void a_full_disk(void **state) {
    static const struct {
        const char *line, *regex;
    } rows[] = {
        {"ulimit -f 1; exec \"$0\" --ini \"$1\" --resume",
            "^qfw: error\\[E_IO_WRITE\\] /.*/out/resolved\\.ini\\.tmp: cannot be written: File "
            "too"},
        {"ulimit -f 8; exec \"$0\" --ini \"$1\" --resume",
            "^qfw: error\\[E_IO_WRITE\\] /.*/out/checkpoint-2\\.tmp/trainer\\.safetensors\\.tmp: "
            "cannot be written: File too large"},
    };
    (void)state;
    make_case();
    trains("before the disk is full");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_int_equal(dir_remove(temp_path("case/out/checkpoint-2")), QFW_OK);
        expect(rows[i].line, EXIT_IOERR, rows[i].regex);
        assert_true(file_exists(temp_path("case/out/checkpoint-1/MANIFEST.json")));
        assert_false(dir_exists(temp_path("case/out/checkpoint-2")));
        assert_false(dir_exists(temp_path("case/out/checkpoint-2.tmp")));
        assert_false(file_exists(temp_path("case/out/resolved.ini.tmp")));
        if (case_run("--resume")) fail_msg("%s", case_command.err);
        expect_whole(rows[i].line);
    }
}

/* --- what may not be used --- */

/* `line` with the rights of nobody in particular, who may not enter the build's folder where that
 * is below root's home. */
static const char *as_nobody(const char *line) {
    static char text[512];
    snprintf(text, sizeof text, "export QFW_PLUGIN_PATH=\"$3\"; exec %s%s",
        geteuid() ? "" : "setpriv --reuid=65534 --regid=65534 --clear-groups ", line);
    assert_int_equal(chmod(temp_folder(), 0755), 0);
    return text;
}

static void need_nobody(void) {
    static const char *const files[] = {
        "libqfw_backend_cpu.so", "libqfw_model_phi3.so", "libqfw_trainer_sft.so"};
    char copy[64];
    assert_int_equal(dir_make(temp_path("plugins")), QFW_OK);
    assert_int_equal(chmod(temp_path("plugins"), 0755), 0);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(copy, sizeof copy, "plugins/%s", files[i]);
        assert_int_equal(file_copy(build_path(files[i]), temp_path(copy)), QFW_OK);
        assert_int_equal(chmod(temp_path(copy), 0755), 0);
    }
    if (!shell(as_nobody("\"$0\" --version"))) return;
    print_message("no rights can be taken away here: %s", c.err);
    skip();
}

static void unreadable_inputs(void **state) {
    static const char *const files[] = {"run.ini", "rows.jsonl", "model/config.json",
        "model/tokenizer.json", "model/model.safetensors"};
    char regex[256];
    (void)state;
    need_nobody();
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        make_case();
        assert_int_equal(chmod(temp_path("case"), 0777), 0);
        assert_int_equal(chmod(temp_path(in_case(files[i])), 0), 0);
        snprintf(
            regex, sizeof regex, "^qfw: error\\[E_NOINPUT\\] .*/%s: .*Permission denied", files[i]);
        expect(as_nobody("\"$0\" --ini \"$1\" --dry-run"), EXIT_NOINPUT, regex);
        assert_false(dir_exists(temp_path("case/out")));
    }
}

static void unwritable_outputs(void **state) {
    (void)state;
    need_nobody();
    make_case();
    assert_int_equal(chmod(temp_path("case"), 0555), 0);
    expect(as_nobody("\"$0\" --ini \"$1\" --dry-run"), EXIT_OUTPUT,
        "^qfw: error\\[E_OUT_CREATE\\] /.*/case.*: .*(Permission denied|not writable|cannot be)");
    expect(as_nobody("\"$0\" --ini \"$1\""), EXIT_OUTPUT,
        "^qfw: error\\[E_OUT_CREATE\\] /.*/case.*: .*(Permission denied|not writable|cannot be)");
    assert_int_equal(chmod(temp_path("case"), 0755), 0);
    assert_int_equal(dir_make(temp_path("case/out")), QFW_OK);
    assert_int_equal(chmod(temp_path("case/out"), 0555), 0);
    expect(as_nobody("\"$0\" --ini \"$1\""), EXIT_OUTPUT,
        "^qfw: error\\[E_OUT_CREATE\\] /.*/case/out: .*Permission denied");
    assert_int_equal(rmdir(temp_path("case/out")), 0); /* nothing lies in it */
}

/* A limit on open files is named, wherever it is met. */
static void too_few_descriptors(void **state) {
    char line[128];
    int n_met = 0;
    (void)state;
    for (int n = 3; n < 20; n++) {
        make_case();
        snprintf(line, sizeof line, "ulimit -n %d; exec \"$0\" --ini \"$1\"", n);
        const int code = shell(line);
        if (code >= 128) fail_msg("%s: died with signal %d, %s", line, code - 128, c.err);
        if (code == EXIT_OK || code == 127) continue; /* 127: not even its libraries */
        n_met++;
        if (code != EXIT_MEMORY || !has_line(c.err, "^qfw: error\\[E_LIMIT[A-Z_]*\\] .*ulimit -n"))
            fail_msg("%s: exit %d, %s", line, code, c.err);
    }
    assert_true(n_met > 0);
}

/* A limit on addresses is met with an end and a sentence, wherever it is met. */
static void too_few_addresses(void **state) {
    enum { FROM = 15000, PAST = 90000, STEP = 2500 }; /* KiB */
    char line[160];
    int n_told = 0;
    (void)state;
    if (SANITIZED) skip();
    for (int n = FROM; n < PAST; n += STEP) {
        make_case();
        snprintf(line, sizeof line,
            "ulimit -v %d; exec timeout -s KILL 60 \"$0\" --ini \"$1\" --set run.threads=2", n);
        const int code = shell(line);
        if (code >= 127) fail_msg("%s: exit %d, %s", line, code, c.err);
        if (code != EXIT_OK && !has_line(c.err, "^qfw: error\\[E_[A-Z_]+\\] "))
            fail_msg("%s: exit %d, %s", line, code, c.err);
        n_told += code == EXIT_MEMORY;
    }
    assert_true(n_told > 0);
}

/* Rows are kept in memory: where there are too many, the line is named at which it ran out. */
static void more_rows_than_memory(void **state) {
    enum { COPIES = 300000 };
    static const char row[] = "{\"input_ids\": [5, 6, 7, 8], \"labels\": [-100, 6, 7, 8]}\n";
    (void)state;
    if (SANITIZED) skip();
    make_case();
    FILE *f = fopen(temp_path("case/rows.jsonl"), "w");
    assert_non_null(f);
    for (int i = 0; i < COPIES; i++) fputs(row, f);
    assert_int_equal(fclose(f), 0);
    expect("ulimit -v 60000; exec \"$0\" --ini \"$1\"", EXIT_MEMORY,
        "^qfw: error\\[E_MEM\\] /.*/rows\\.jsonl:[0-9]+: memory: [0-9]+ times [0-9]+ bytes are "
        "not");
    assert_false(dir_exists(temp_path("case/out")));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(closed_and_full),
        cmocka_unit_test(a_reader_that_went_away),
        cmocka_unit_test(a_full_disk),
        cmocka_unit_test(unreadable_inputs),
        cmocka_unit_test(unwritable_outputs),
        cmocka_unit_test(too_few_descriptors),
        cmocka_unit_test(too_few_addresses),
        cmocka_unit_test(more_rows_than_memory),
    };
    return cmocka_run_group_tests_name("faults/io", tests, setup, teardown);
}

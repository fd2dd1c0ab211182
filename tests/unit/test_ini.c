/* test_ini.c -- the files of ini/ against what their first lines expect, and input too large to
 * keep as files.
 *
 * Each of the leading lines "; CODE REGEX" of a file is one sentence of the exit code CODE that
 * must be told, in any order, and no other may be. "; 0 SECTION.KEY=VALUE" is a value that the file
 * must give.
 */
#define _POSIX_C_SOURCE 200809L
#include <dirent.h>
#include <regex.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/ini.h"
#include "base/mem.h"
#include "base/option.h"

#include <cmocka.h>

#define FOLDER   "tests/unit/ini"
#define FLOAT(k) QFW_OPTION(QFW_OPT_FLOAT, k, "1", 0, 0, NULL, "a number")
#define INT(k)   QFW_OPTION(QFW_OPT_INT, k, "1", 0, 0, NULL, "an integer")

/* A schema like that of a run, small enough to read here. */
static const qfw_option run_options[] = {
    QFW_OPTION(QFW_OPT_BYTES, "max_memory", "auto", 0, 0, NULL, "of the plan"),
    QFW_OPTION(QFW_OPT_BYTES, "max_line", "16MiB", 0, 0, NULL, "of a data file"),
};
static const qfw_option model_options[] = {
    QFW_OPTION_FLAGS(QFW_OPT_PATH, QFW_OPT_REQUIRED, "path", NULL, 0, 0, NULL, "a model folder"),
    QFW_OPTION(QFW_OPT_BOOL, "load_in_4bit", "false", 0, 0, NULL, "quantise"),
    QFW_OPTION(QFW_OPT_BOOL, "bnb_4bit_use_double_quant", "false", 0, 0, NULL, "quantise scales"),
    QFW_OPTION(QFW_OPT_ENUM, "bnb_4bit_quant_type", "fp4", 0, 0, "fp4|nf4", "the code"),
};
static const qfw_option adapter_options[] = {
    QFW_OPTION(QFW_OPT_INT, "r", "8", 1, 4096, NULL, "rank"),
    QFW_OPTION(QFW_OPT_LIST, "target_modules", "all-linear", 0, 0, NULL, "names"),
};
static const qfw_option data_options[] = {
    QFW_OPTION(QFW_OPT_PATH, "train", "", 0, 0, NULL, "JSONL"),
    QFW_OPTION(QFW_OPT_INT, "max_length", "1024", 2, 1 << 24, NULL, "tokens"),
    QFW_OPTION(QFW_OPT_STR, "source", "", 0, 0, NULL, "provenance"),
    QFW_OPTION(QFW_OPT_STR, "notes", "", 0, 0, NULL, "provenance"),
    QFW_OPTION(QFW_OPT_STR, "licence", "", 0, 0, NULL, "provenance"),
};
static const qfw_option trainer_options[] = {
    QFW_OPTION(QFW_OPT_STR, "use", "dpo", 0, 0, NULL, "a trainer"),
    QFW_OPTION(QFW_OPT_INT, "max_steps", "-1", -1, 1e12, NULL, "updates"),
    QFW_OPTION(QFW_OPT_FLOAT, "learning_rate", "2e-5", 0, 1e3, NULL, "at its peak"),
    QFW_OPTION(QFW_OPT_INT, "gradient_accumulation_steps", "1", 1, 65536, NULL, "passes"),
};
static const qfw_option dpo_options[] = {
    QFW_OPTION_FLAGS(QFW_OPT_FLOAT, QFW_OPT_LO_OPEN, "beta", "0.1", 0, 1e3, NULL, "of the loss"),
};
static const qfw_option number_options[] = {
    FLOAT("f0"),
    FLOAT("f1"),
    FLOAT("f2"),
    FLOAT("f3"),
    FLOAT("f4"),
    FLOAT("f5"),
    FLOAT("f6"),
    FLOAT("f7"),
    FLOAT("f8"),
    FLOAT("f9"),
    FLOAT("f10"),
    FLOAT("f11"),
    FLOAT("f12"),
    FLOAT("f13"),
    FLOAT("f14"),
    FLOAT("f15"),
    FLOAT("f16"),
    FLOAT("f17"),
    INT("i0"),
    INT("i1"),
    INT("i2"),
    INT("i3"),
    INT("i4"),
    INT("i5"),
    INT("i6"),
    INT("i7"),
    INT("i8"),
    INT("i9"),
};
static const qfw_option wide_options[] = {
    INT("kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk"), /* 49 */
};
#define SECTION(name, table)                                                                       \
    { name, table, sizeof(table) / sizeof(*(table)), NULL }
enum { N_SECTIONS = 8 };
static const schema_section schema[N_SECTIONS] = {
    SECTION("run", run_options),
    SECTION("model", model_options),
    SECTION("adapter", adapter_options),
    SECTION("data", data_options),
    SECTION("trainer", trainer_options),
    SECTION("trainer.dpo", dpo_options),
    SECTION("numbers", number_options),
    SECTION("sssssssssssssssssssssssssssssssssssssssssssssssss", wide_options),
};

static void check_file(const char *path, schema_section *sections, ini **out) {
    static const char *const others[] = {"trainer.kto"};
    memcpy(sections, schema, sizeof schema);
    if (ini_read(path, out) != QFW_OK) return;
    const qfw_status status = option_check(*out, sections, N_SECTIONS, others, 1);
    assert_int_equal(status, err_status());
}

/* "section.key=value" holds in i. */
static void assert_value(const ini *i, const char *path, char *expected) {
    char *value = strchr(expected, '='), *key;
    *value++ = 0;
    key = strrchr(expected, '.');
    *key++ = 0;
    const ini_entry *e = i ? ini_find(i, expected, key) : NULL;
    if (!e) fail_msg("%s: [%s] %s is not there: %s", path, expected, key, err_text(0));
    if (strcmp(e->value, value)) fail_msg("%s: [%s] %s is '%s'", path, expected, key, e->value);
}

static void assert_told(const char *path, const char *expected) {
    regex_t regex;
    if (regcomp(&regex, expected, REG_EXTENDED | REG_NOSUB)) fail_msg("%s: bad regex", path);
    int told = 0;
    for (uint32_t i = 0; i < err_count(); i++) told += !regexec(&regex, err_text(i), 0, NULL, 0);
    regfree(&regex);
    if (told == 1) return;
    for (uint32_t i = 0; i < err_count(); i++) print_error("%s\n", err_text(i));
    fail_msg("%s: told %d times: %s", path, told, expected);
}

static void run_case(const char *path) {
    static char line[16384];
    schema_section sections[N_SECTIONS];
    ini *i = NULL;
    uint32_t n_expected = 0;
    check_file(path, sections, &i);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    while (fgets(line, sizeof line, file)) {
        char *text = line + (strncmp(line, "\xef\xbb\xbf", 3) == 0 ? 3 : 0);
        text[strcspn(text, "\r\n")] = 0;
        if (text[0] != ';' || text[2] < '0' || text[2] > '9') break;
        char *expected;
        const long code = strtol(text + 1, &expected, 10);
        if (err_exit_code() != code)
            fail_msg("%s: exit code %d, wanted %ld: %s", path, err_exit_code(), code, err_text(0));
        if (code == 0)
            assert_value(i, path, expected + 1);
        else
            assert_told(path, expected + 1);
        n_expected++;
    }
    fclose(file);
    if (n_expected == 0) fail_msg("%s: its first line expects nothing", path);
    if (err_exit_code() != 0 && err_count() != n_expected) {
        for (uint32_t k = 0; k < err_count(); k++) print_error("%s\n", err_text(k));
        fail_msg("%s: %u problems told, wanted %u", path, err_count(), n_expected);
    }
    if (i) option_free(sections, N_SECTIONS);
    ini_destroy(i);
}

static void every_file_does_as_it_says(void **state) {
    (void)state;
    DIR *folder = opendir(FOLDER);
    int n = 0;
    assert_non_null(folder);
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        char path[512];
        if (!strstr(entry->d_name, ".ini")) continue;
        snprintf(path, sizeof path, FOLDER "/%s", entry->d_name);
        run_case(path);
        n++;
    }
    closedir(folder);
    assert_true(n >= 29);
}

/* The first problem of `text` is `name` at `place` ("x.ini:1:2:"), and nothing comes out. */
static void assert_refused(const char *text, size_t n, const char *name, const char *place) {
    ini *i = (ini *)&i;
    assert_int_equal(ini_parse_text(text, n, "x.ini", &i), QFW_E_CONFIG);
    assert_null(i);
    assert_string_equal(err_name(), name);
    if (!strstr(err_text(0), place)) fail_msg("'%s' is not in: %s", place, err_text(0));
    assert_int_equal(err_exit_code(), EXIT_CONFIG);
}

static void refuses_input_that_is_too_large(void **state) {
    (void)state;
    const size_t mib = 1u << 20;
    char *text = mem_alloc(mib + 1, 1), place[64];
    memset(text, 'x', mib + 1);
    memcpy(text, "[a]\nk = ", 8);
    text[8 + 100000] = '\n';
    assert_refused(text, 8 + 100001, "E_INI_LIMIT", "x.ini:2:8193: a line of 100004 bytes");
    text[8 + 100000] = 'x';
    text[4 + 8193] = '\n';
    assert_refused(text, 4 + 8194, "E_INI_LIMIT", "x.ini:2:8193: a line of 8193 bytes");
    text[4] = '#';
    text[4 + 8192] = '\n';
    ini *i = NULL;
    assert_int_equal(ini_parse_text(text, 4 + 8193, "x.ini", &i), QFW_OK);
    ini_destroy(i);
    assert_refused(text, mib + 1, "E_INI_LIMIT", "x.ini:1:1: a file of 1048577 bytes");
    memset(text, '\n', mib);
    assert_int_equal(ini_parse_text(text, mib, "x.ini", &i), QFW_OK);
    assert_int_equal(i->n, 0);
    ini_destroy(i);

    size_t n = (size_t)snprintf(text, mib, "[a]\n");
    for (int k = 0; k < 4096; k++) n += (size_t)snprintf(text + n, mib - n, "key%d = %d\n", k, k);
    assert_int_equal(ini_parse_text(text, n, "x.ini", &i), QFW_OK);
    assert_int_equal(i->n, 4096);
    assert_string_equal(ini_find(i, "a", "key4095")->value, "4095");
    ini_destroy(i);
    n += (size_t)snprintf(text + n, mib - n, "one_more = 1\n");
    snprintf(place, sizeof place, "x.ini:%d:1: more than 4096 keys", 4098);
    assert_refused(text, n, "E_INI_LIMIT", place);

    n = 0;
    for (int k = 0; k < 4097; k++) n += (size_t)snprintf(text + n, mib - n, "[s%d]\n", k);
    assert_refused(text, n, "E_INI_LIMIT", "x.ini:4097:1: more than 4096 sections");

    for (n = 0; n + 10 < mib;) n += (size_t)snprintf(text + n, mib - n, "garbage\n");
    assert_refused(text, n, "E_INI_SYNTAX", "x.ini:1:1: 'garbage' has no '='");
    assert_int_equal(err_count() + err_unsaid(), n / 8);
    mem_free(text);
}

/* What inih's 200 byte buffer holds and what it does not must read the same. */
static void lines_of_every_length_read_the_same(void **state) {
    (void)state;
    static const char *const tails[] = {"", "\t;c"};
    char text[1024], value[512];
    for (int n = 1; n < 450; n++)
        for (int tail = 0; tail < 2; tail++) {
            for (int k = 0; k < n; k++) value[k] = (char)('a' + k % 26);
            value[n] = 0;
            const int length =
                snprintf(text, sizeof text, "[s]\nkey \t= \t%s%s\nafter = 1\n", value, tails[tail]);
            ini *i = NULL;
            assert_int_equal(ini_parse_text(text, (size_t)length, "x.ini", &i), QFW_OK);
            assert_int_equal(i->n, 2);
            assert_string_equal(i->entries[0].key, "key");
            assert_string_equal(i->entries[0].value, value);
            assert_int_equal(i->entries[0].value_col, 9);
            assert_string_equal(i->entries[1].value, "1");
            assert_int_equal(i->entries[1].line, 3);
            ini_destroy(i);
        }
}

static void refuses_utf16_by_name(void **state) {
    (void)state;
    assert_refused("\xff\xfe[\0a\0]\0", 8, "E_INI_TEXT", "x.ini:1:1: the file is UTF-16");
    assert_refused("\xfe\xff\0[\0a\0]", 8, "E_INI_TEXT", "x.ini:1:1: the file is UTF-16");
    assert_refused("[\0a\0]\0", 6, "E_INI_TEXT", "x.ini:1:1: the file is UTF-16");
    assert_refused("\0[\0a\0]", 6, "E_INI_TEXT", "x.ini:1:1: the file is UTF-16");
}

static void accepts_an_empty_file(void **state) {
    (void)state;
    static const char *const empty[] = {"", "\n", "\xef\xbb\xbf", "; only a comment", "[a]"};
    for (size_t k = 0; k < sizeof empty / sizeof *empty; k++) {
        ini *i = NULL;
        assert_int_equal(ini_parse_text(empty[k], strlen(empty[k]), "x.ini", &i), QFW_OK);
        assert_int_equal(i->n, 0);
        assert_int_equal(i->n_sections, k == 4);
        ini_destroy(i);
    }
}

static void assert_no_input(const char *path, const char *why) {
    ini *i = (ini *)&i;
    assert_int_equal(ini_read(path, &i), QFW_E_IO);
    assert_null(i);
    assert_int_equal(err_exit_code(), EXIT_NOINPUT);
    if (!strstr(err_text(0), path) || !strstr(err_text(0), why)) fail_msg("%s", err_text(0));
}

/* C8: missing, a folder, a FIFO that nobody writes, unreadable. */
static void refuses_what_is_no_file(void **state) {
    (void)state;
    char folder[] = "/tmp/qfw-ini-XXXXXX", path[64];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/x.ini", folder);
    assert_no_input(path, "No such file");
    assert_no_input(folder, "a folder");
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_no_input(path, "no regular file");
    unlink(path);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fclose(file);
    chmod(path, 0);
    if (geteuid() != 0) assert_no_input(path, "Permission denied");
    chmod(path, 0600);
    assert_int_equal(truncate(path, 100 << 20), 0);
    ini *i = NULL;
    assert_int_equal(ini_read(path, &i), QFW_E_CONFIG);
    assert_int_equal(err_exit_code(), EXIT_CONFIG);
    assert_string_equal(err_name(), "E_INI_LIMIT");
    assert_non_null(strstr(err_text(0), "a file of 104857600 bytes"));
    unlink(path);
    rmdir(folder);
}

static ini *parse(const char *text) {
    ini *i = NULL;
    assert_int_equal(ini_parse_text(text, strlen(text), "conf/x.ini", &i), QFW_OK);
    return i;
}

static void set_replaces_and_adds(void **state) {
    (void)state;
    char place[128];
    ini *i = parse("[trainer.sft]\nbeta = 1\nmore = 2\n");
    assert_string_equal(ini_place(i, &i->entries[0], 0, place, sizeof place), "conf/x.ini:2:1");
    assert_string_equal(ini_place(i, &i->entries[0], 1, place, sizeof place), "conf/x.ini:2:8");
    assert_int_equal(ini_set(i, "trainer.sft.beta=0.5"), QFW_OK);
    assert_int_equal(ini_set(i, "run.output_dir= a b = c \t"), QFW_OK);
    assert_int_equal(ini_set(i, "run.empty="), QFW_OK);
    const ini_entry *e = ini_find(i, "trainer.sft", "beta");
    assert_string_equal(e->value, "0.5");
    assert_string_equal(ini_place(i, e, 1, place, sizeof place), "--set trainer.sft.beta");
    assert_string_equal(ini_find(i, "run", "output_dir")->value, "a b = c");
    assert_string_equal(ini_find(i, "run", "empty")->value, "");
    assert_string_equal(ini_find(i, "trainer.sft", "more")->value, "2");
    assert_null(ini_find(i, "trainer", "sft.more"));
    assert_int_equal(i->n, 4);
    assert_int_equal(i->n_sections, 2);
    ini_destroy(i);
}

static void set_refuses_other_forms(void **state) {
    (void)state;
    char *long_value = mem_printf("a.b=%05000d", 1);
    const char *const bad[] = {"", "=", "a", "a=b", ".a=b", "a.=b", "a b.c=d", "a.b", "a.b=c ;d",
        "a.b=c\nd", "a.b=\x1b[m", "a.b=\xff", long_value,
        "a.kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk=1",
        "ssssssssssssssssssssssssssssssssssssssssssssssssss.k=1", "-a:b.c=d"};
    ini *i = parse("[a]\nb = 1\n");
    for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) {
        if (ini_set(i, bad[k]) == QFW_OK) fail_msg("accepted: %s", bad[k]);
        assert_int_equal(err_exit_code(), EXIT_USAGE);
        assert_int_equal(i->n, 1);
        assert_int_equal(i->n_sections, 1);
    }
    assert_string_equal(ini_find(i, "a", "b")->value, "1");
    ini_destroy(i);
    mem_free(long_value);
}

/* Every allocation fails once: no leak, no crash, and the right sentence. */
static void running_out_of_memory_is_told(void **state) {
    (void)state;
    static const char text[] = "[a]\nb = 1\n[c]\nd = 2\ne = 3\nbad\n";
    for (uint64_t k = 1; k <= 30; k++) {
        ini *i = NULL;
        mem_fail_at(k);
        qfw_status status = ini_parse_text(text, sizeof text - 5, "x.ini", &i);
        if (status == QFW_OK) status = ini_set(i, "new.key=1");
        if (status == QFW_OK) {
            assert_true(k > 5);
            mem_fail_at(0);
            assert_string_equal(ini_find(i, "new", "key")->value, "1");
        } else {
            assert_int_equal(status, QFW_E_NOMEM);
            assert_int_equal(err_exit_code(), EXIT_MEMORY);
            assert_true(k < 30);
        }
        ini_destroy(i);
    }
    ini_destroy(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_file_does_as_it_says),
        cmocka_unit_test(refuses_input_that_is_too_large),
        cmocka_unit_test(lines_of_every_length_read_the_same),
        cmocka_unit_test(refuses_utf16_by_name),
        cmocka_unit_test(accepts_an_empty_file),
        cmocka_unit_test(refuses_what_is_no_file),
        cmocka_unit_test(set_replaces_and_adds),
        cmocka_unit_test(set_refuses_other_forms),
        cmocka_unit_test(running_out_of_memory_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

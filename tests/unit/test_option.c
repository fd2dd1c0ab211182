/* test_option.c -- numbers under any locale, types, what plugins read, and resolved.ini read
 * again. */
#define _POSIX_C_SOURCE 200809L
#include <float.h>
#include <locale.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/mem.h"
#include "base/option.h"

#include <cmocka.h>

static const qfw_option all_options[] = {
    QFW_OPTION(QFW_OPT_BOOL, "flag", "true", 0, 0, NULL, "a flag"),
    QFW_OPTION(QFW_OPT_INT, "count", "-5", -10, 10, NULL, "a count"),
    QFW_OPTION(QFW_OPT_INT, "big", "0", 0, 0, NULL, "any integer"),
    QFW_OPTION_FLAGS(QFW_OPT_FLOAT, QFW_OPT_LO_OPEN, "rate", "2e-4", 0, 1, NULL, "a rate"),
    QFW_OPTION(QFW_OPT_FLOAT, "free", "", 0, 0, NULL, "any number, or none"),
    QFW_OPTION(QFW_OPT_STR, "text", "a b", 0, 0, NULL, "text"),
    QFW_OPTION(QFW_OPT_STR, "none", "", 0, 0, NULL, "text, or none"),
    QFW_OPTION(QFW_OPT_PATH, "path", "out", 0, 0, NULL, "a path"),
    QFW_OPTION(QFW_OPT_PATH, "other", "", 0, 0, NULL, "a path, or none"),
    QFW_OPTION(QFW_OPT_BYTES, "memory", "auto", 0, 0, NULL, "bytes"),
    QFW_OPTION(QFW_OPT_ENUM, "kind", "adamw", 0, 0, "adamw|sgd|adamw8bit", "a kind"),
    QFW_OPTION(QFW_OPT_LIST, "names", "all-linear", 0, 0, NULL, "names"),
};
enum { N_OPTIONS = sizeof all_options / sizeof *all_options };
static const qfw_option needed_options[] = {
    QFW_OPTION_FLAGS(QFW_OPT_PATH, QFW_OPT_REQUIRED, "path", NULL, 0, 0, NULL, "a folder"),
    QFW_OPTION_FLAGS(QFW_OPT_INT, QFW_OPT_REQUIRED, "steps", NULL, 1, 9, NULL, "steps"),
};

/* One section "a" with all_options, checked against `text`. */
typedef struct checked {
    ini *i;
    schema_section section[1];
    qfw_status status;
} checked;

static checked check(const char *text, const char *path) {
    checked c = {.section = {{"a", all_options, N_OPTIONS, NULL}}};
    assert_int_equal(ini_parse_text(text, strlen(text), path, &c.i), QFW_OK);
    c.status = option_check(c.i, c.section, 1, NULL, 0);
    assert_non_null(c.section[0].cfg);
    return c;
}

static void release(checked *c) {
    option_free(c->section, 1);
    assert_null(c->section[0].cfg);
    ini_destroy(c->i);
}

static const char *const good_floats[] = {"0", "-0", "1", "+1", "1.5", ".5", "5.", "1e3", "1E-3",
    "2e-5", "1.7976931348623157e308", "5e-324", "0.1", "123456789.123456789", "0e999", "0.0e-999",
    "1e+10", "00012"};
static const char *const bad_floats[] = {"", " ", "1e", "1,5", "0x10", "0x1p3", "nan", "NaN", "inf",
    "-inf", "infinity", "1e999", "-1e999", "1e-999", " 5", "5 ", "5 apples", "1.2.3", ".", "e5",
    "+-1", "--1", "1e5.5", "1e+", "1_0", "1f", "\xd9\xa1"};

static void numbers_are_read_strictly(void) {
    for (size_t k = 0; k < sizeof good_floats / sizeof *good_floats; k++) {
        double got = 0;
        if (option_parse_f64(good_floats[k], &got) != QFW_OK) fail_msg("%s", good_floats[k]);
    }
    double got;
    assert_int_equal(option_parse_f64("1234.5", &got), QFW_OK);
    assert_true(got == 1234.5);
    assert_int_equal(option_parse_f64("2e-5", &got), QFW_OK);
    assert_true(got == 2e-5);
    assert_int_equal(option_parse_f64("5e-324", &got), QFW_OK);
    assert_true(got > 0.0);
    assert_int_equal(option_parse_f64("-1.7976931348623157e308", &got), QFW_OK);
    assert_true(got == -DBL_MAX);
    for (size_t k = 0; k < sizeof bad_floats / sizeof *bad_floats; k++) {
        got = 77;
        if (option_parse_f64(bad_floats[k], &got) == QFW_OK) fail_msg("'%s'", bad_floats[k]);
        assert_true(got == 77);
    }
}

static void reads_numbers(void **state) {
    (void)state;
    numbers_are_read_strictly();
}

/* Plugins may call setlocale; where a locale with a decimal comma is installed, it changes
 * nothing. */
static void reads_numbers_under_a_comma_locale(void **state) {
    (void)state;
    static const char *const names[] = {
        "de_DE.UTF-8", "de_DE.utf8", "de_DE", "fr_FR.UTF-8", "fr_FR", "nl_NL.UTF-8", "ru_RU.UTF-8"};
    const char *set = NULL;
    for (size_t k = 0; k < sizeof names / sizeof *names && !set; k++)
        set = setlocale(LC_ALL, names[k]);
    if (!set) skip();
    numbers_are_read_strictly();
    setlocale(LC_ALL, "C");
}

static void reads_integers(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int64_t value;
    } good[] = {{"0", 0}, {"-0", 0}, {"+7", 7}, {"007", 7}, {"9223372036854775807", INT64_MAX},
        {"-9223372036854775808", INT64_MIN}, {"-1", -1}};
    static const char *const bad[] = {"", "-", "+", "1.0", "1e3", "0x10", " 1", "1 ",
        "9223372036854775808", "-9223372036854775809", "99999999999999999999999", "1,000", "one"};
    for (size_t k = 0; k < sizeof good / sizeof *good; k++) {
        int64_t got = 77;
        assert_int_equal(option_parse_i64(good[k].text, &got), QFW_OK);
        assert_true(got == good[k].value);
    }
    for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) {
        int64_t got = 77;
        if (option_parse_i64(bad[k], &got) == QFW_OK) fail_msg("'%s'", bad[k]);
        assert_true(got == 77);
    }
}

static void defaults_hold(void **state) {
    (void)state;
    checked c = check("", "/conf/x.ini");
    const qfw_cfg *cfg = c.section[0].cfg;
    assert_int_equal(c.status, QFW_OK);
    assert_int_equal(cfg_int(cfg, "flag"), 1);
    assert_int_equal(cfg_int(cfg, "count"), -5);
    assert_true(cfg_real(cfg, "rate") == 2e-4);
    assert_true(cfg_real(cfg, "free") == 0.0);
    assert_string_equal(cfg_text(cfg, "text"), "a b");
    assert_string_equal(cfg_text(cfg, "none"), "");
    assert_string_equal(cfg_text(cfg, "path"), "/conf/out");
    assert_string_equal(cfg_text(cfg, "other"), "");
    assert_int_equal(cfg_int(cfg, "memory"), 0);
    assert_string_equal(cfg_text(cfg, "kind"), "adamw");
    for (int k = 0; k < N_OPTIONS; k++) assert_false(cfg_is_set(cfg, all_options[k].key));
    assert_int_equal(cfg_int(cfg, "absent"), 0);
    assert_string_equal(cfg_text(cfg, "absent"), "");
    assert_true(cfg_real(cfg, "absent") == 0.0);
    assert_false(cfg_is_set(cfg, "absent"));
    release(&c);
}

static void values_replace_defaults(void **state) {
    (void)state;
    checked c = check("[a]\nflag = false\ncount = 10\nbig = -9223372036854775808\nrate = 1\n"
                      "text = x = y\nmemory = 3 GiB\nkind = sgd\nnames = q_proj ,\tk_proj,v\n"
                      "path = /abs\nother = ../up\n",
        "/conf/x.ini");
    const qfw_cfg *cfg = c.section[0].cfg;
    assert_int_equal(c.status, QFW_OK);
    assert_int_equal(cfg_int(cfg, "flag"), 0);
    assert_int_equal(cfg_int(cfg, "count"), 10);
    assert_true(cfg_int(cfg, "big") == INT64_MIN);
    assert_true(cfg_real(cfg, "rate") == 1.0);
    assert_string_equal(cfg_text(cfg, "text"), "x = y");
    assert_true(cfg_int(cfg, "memory") == (int64_t)3 << 30);
    assert_string_equal(cfg_text(cfg, "kind"), "sgd");
    assert_string_equal(cfg_text(cfg, "names"), "q_proj,k_proj,v");
    assert_string_equal(cfg_text(cfg, "path"), "/abs");
    assert_string_equal(cfg_text(cfg, "other"), "/conf/../up");
    assert_true(cfg_is_set(cfg, "flag"));
    assert_false(cfg_is_set(cfg, "free"));
    release(&c);
}

static void bytes_have_units(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int64_t bytes; /* -1: refused */
    } rows[] = {{"0", 0}, {"auto", 0}, {"512", 512}, {"1KiB", 1024}, {"512MiB", 512 << 20},
        {"12GiB", (int64_t)12 << 30}, {"2TiB", (int64_t)2 << 40}, {"1 MiB", 1 << 20},
        {"8388607TiB", (int64_t)8388607 << 40}, {"8388608TiB", -1}, {"9223372036854775807KiB", -1},
        {"1kib", -1}, {"1GB", -1}, {"1G", -1}, {"1.5GiB", -1}, {"-1", -1}, {"+1", -1}, {"MiB", -1},
        {"", -1}, {"Auto", -1}, {"1  MiB", -1}, {"99999999999999999999999", -1}};
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
        char text[128];
        snprintf(text, sizeof text, "[a]\nmemory = %s\n", rows[k].text);
        checked c = check(text, "x.ini");
        if ((c.status == QFW_OK) != (rows[k].bytes >= 0)) fail_msg("'%s'", rows[k].text);
        if (c.status == QFW_OK) assert_true(cfg_int(c.section[0].cfg, "memory") == rows[k].bytes);
        release(&c);
    }
}

static void ranges_have_edges(void **state) {
    (void)state;
    static const struct {
        const char *line, *told; /* NULL: accepted */
    } rows[] = {{"count = 10", NULL}, {"count = -10", NULL},
        {"count = 11", "found 11, allowed: -10 .. 10"}, {"count = -11", "allowed: -10 .. 10"},
        {"rate = 1", NULL}, {"rate = 1e-300", NULL},
        {"rate = 0", "found 0, allowed: above 0, at most 1"},
        {"rate = 1.0000001", "above 0, at most 1"},
        {"kind = adam", "'adam', allowed: adamw | sgd | adamw8bit"},
        {"kind = adamw|sgd", "allowed:"}, {"kind =", "found '', allowed:"}, {"names =", NULL},
        {"names = a,", "an empty word"}, {"names = ,", "an empty word"},
        {"flag = 1", "wanted true or false"}, {"flag =", "wanted true or false"}, {"text =", NULL},
        {"free =", "found '', wanted a decimal"}};
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
        char text[128];
        snprintf(text, sizeof text, "[a]\n%s\n", rows[k].line);
        checked c = check(text, "x.ini");
        if ((c.status == QFW_OK) != !rows[k].told) fail_msg("'%s'", rows[k].line);
        if (rows[k].told && !strstr(err_text(0), rows[k].told)) fail_msg("%s", err_text(0));
        if (rows[k].told) assert_int_equal(err_exit_code(), EXIT_CONFIG);
        release(&c);
    }
}

/* After a bad value the default answers, so that the core can go on looking for problems. */
static void problems_add_up(void **state) {
    (void)state;
    checked c = check("[a]\ncount = x\n", "x.ini");
    assert_int_equal(c.status, QFW_E_CONFIG);
    assert_int_equal(cfg_int(c.section[0].cfg, "count"), -5);
    assert_true(cfg_is_set(c.section[0].cfg, "count"));
    (void)cfg_problem(c.i, c.section[0].cfg, "count", "is %d", 3);
    (void)cfg_problem(c.i, c.section[0].cfg, "rate", "is odd");
    assert_int_equal(err_count(), 3);
    assert_string_equal(err_text(1), "error[E_INI_VALUE] x.ini:2:9: a.count: is 3");
    assert_string_equal(err_text(2), "error[E_INI_VALUE] x.ini: a.rate: is odd");
    release(&c);
}

static void required_keys_are_required(void **state) {
    (void)state;
    ini *i = NULL;
    schema_section sections[] = {{"need", needed_options, 2, NULL}, {"", NULL, 0, NULL}};
    assert_int_equal(ini_parse_text("", 0, "x.ini", &i), QFW_OK);
    assert_int_equal(option_check(i, sections, 2, NULL, 0), QFW_E_CONFIG);
    assert_int_equal(err_count(), 2);
    assert_string_equal(err_name(), "E_INI_MISSING");
    assert_non_null(strstr(err_text(0), "x.ini: need.path: missing, wanted a path (a folder)"));
    assert_non_null(strstr(err_text(1), "need.steps: missing, wanted an integer"));
    assert_null(sections[1].cfg);
    option_free(sections, 2);
    err_clear();
    assert_int_equal(ini_set(i, "need.path=p"), QFW_OK);
    assert_int_equal(ini_set(i, "need.steps=0"), QFW_OK);
    assert_int_equal(option_check(i, sections, 2, NULL, 0), QFW_E_CONFIG);
    assert_int_equal(err_count(), 1);
    assert_non_null(strstr(err_text(0), "--set: need.steps: found 0, allowed: 1 .. 9"));
    option_free(sections, 2);
    ini_destroy(i);
}

static void paths_stand_in_the_ini_s_folder(void **state) {
    (void)state;
    char here[2048], wanted[4096];
    assert_non_null(getcwd(here, sizeof here));
    static const char *const rows[][3] = {{"x.ini", "w", "/w"}, {"c/x.ini", "w", "/c/w"},
        {"./x.ini", "~/w", "/./~/w"}, {"../x.ini", "$HOME", "/../$HOME"}};
    for (size_t k = 0; k < 4; k++) {
        char text[64];
        snprintf(text, sizeof text, "[a]\nother = %s\n", rows[k][1]);
        snprintf(wanted, sizeof wanted, "%s%s", here, rows[k][2]);
        checked c = check(text, rows[k][0]);
        assert_int_equal(c.status, QFW_OK);
        assert_string_equal(cfg_text(c.section[0].cfg, "other"), wanted);
        release(&c);
    }
    checked root = check("[a]\nother = w\n", "/x.ini");
    assert_string_equal(cfg_text(root.section[0].cfg, "other"), "/w");
    release(&root);
    checked odd = check("[a]\nother = w\npath = /p\n", "/a ;b/x.ini");
    assert_int_equal(odd.status, QFW_E_CONFIG);
    assert_non_null(strstr(err_text(0), "holds ' ;'"));
    release(&odd);
}

static void plugins_read_what_they_declared(void **state) {
    (void)state;
    checked c = check("", "x.ini");
    const qfw_cfg *cfg = c.section[0].cfg;
    int64_t i;
    double f;
    const char *s;
    assert_int_equal(cfg_i64(cfg, "flag", &i), QFW_OK);
    assert_int_equal(cfg_i64(cfg, "memory", &i), QFW_OK);
    assert_int_equal(cfg_i64(cfg, "count", &i), QFW_OK);
    assert_int_equal(i, -5);
    assert_int_equal(cfg_f64(cfg, "rate", &f), QFW_OK);
    assert_true(f == 2e-4);
    assert_int_equal(cfg_str(cfg, "kind", &s), QFW_OK);
    assert_string_equal(s, "adamw");
    assert_int_equal(cfg_str(cfg, "names", &s), QFW_OK);
    assert_int_equal(cfg_f64(cfg, "count", &f), QFW_E_INVALID);
    assert_int_equal(cfg_i64(cfg, "rate", &i), QFW_E_INVALID);
    assert_int_equal(cfg_str(cfg, "flag", &s), QFW_E_INVALID);
    assert_null(s);
    assert_int_equal(cfg_i64(cfg, "absent", &i), QFW_E_INVALID);
    assert_int_equal(cfg_i64(NULL, "absent", &i), QFW_E_INVALID);
    assert_int_equal(err_exit_code(), EXIT_INTERNAL);
    release(&c);
}

static void a_bad_default_is_the_plugin_s_fault(void **state) {
    (void)state;
    static const qfw_option bad[] = {
        QFW_OPTION(QFW_OPT_INT, "steps", "many", 0, 0, NULL, "steps"),
        QFW_OPTION(QFW_OPT_ENUM, "kind", "c", 0, 0, "a|b", "a kind"),
    };
    schema_section section = {"p", bad, 2, NULL};
    ini *i = NULL;
    assert_int_equal(ini_parse_text("", 0, "x.ini", &i), QFW_OK);
    assert_int_equal(option_check(i, &section, 1, NULL, 0), QFW_E_INTERNAL);
    assert_int_equal(err_count(), 2);
    assert_int_equal(err_exit_code(), EXIT_INTERNAL);
    option_free(&section, 1);
    ini_destroy(i);
}

/* resolved.ini, read from another folder, gives the very same values. */
static void assert_resolves(const char *text) {
    checked first = check(text, "/conf/x.ini");
    if (first.status != QFW_OK) fail_msg("%s", err_text(0));
    char *resolved = option_resolved(first.section, 1);
    checked again = check(resolved, "/elsewhere/resolved.ini");
    if (again.status != QFW_OK) fail_msg("%s", err_text(0));
    for (int k = 0; k < N_OPTIONS; k++) {
        const struct cfg_value *a = &first.section[0].cfg->values[k];
        const struct cfg_value *b = &again.section[0].cfg->values[k];
        assert_int_equal(a->i, b->i);
        assert_memory_equal(&a->f, &b->f, sizeof a->f);
        assert_string_equal(a->s, b->s);
    }
    char *twice = option_resolved(again.section, 1);
    assert_string_equal(resolved, twice);
    mem_free(twice);
    mem_free(resolved);
    release(&first);
    release(&again);
}

static void resolved_gives_the_same_run(void **state) {
    (void)state;
    assert_resolves("");
    assert_resolves("[a]\nflag = false\ncount = -1\nbig = 9223372036854775807\nrate = 0.1\n"
                    "free = -1.7976931348623157e308\ntext =;odd;  \nnone = x # y;z\npath = rel/p\n"
                    "other = /a b/c\nmemory = 12GiB\nkind = sgd\nnames = a ,b , c\n");
    assert_resolves("[a]\ntext =\nnames =\npath =\nfree = 5e-324\nmemory = auto\n");
    char *text = mem_printf("[a]\ntext = x%04095d\nnone = gr\xc3\xbc\xc3\x9f"
                            "e\n",
        7);
    assert_resolves(text);
    mem_free(text);
}

static void help_tells_every_key(void **state) {
    (void)state;
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    option_help(out, "a", all_options, N_OPTIONS);
    option_help(out, "need", needed_options, 2);
    fclose(out);
    for (int k = 0; k < N_OPTIONS; k++) {
        assert_non_null(strstr(text, all_options[k].key));
        assert_non_null(strstr(text, all_options[k].help));
    }
    assert_non_null(strstr(text, "[a]\n"));
    assert_non_null(strstr(text, "  count = -5\n      a count. integer, -10 .. 10.\n"));
    assert_non_null(strstr(text, "  kind = adamw\n      a kind. adamw | sgd | adamw8bit.\n"));
    assert_non_null(strstr(text, "  path  (required)\n      a folder. path.\n"));
    free(text);
}

/* A plugin's words do not reach the terminal as they are. */
static void help_shows_what_a_terminal_would_act_on(void **state) {
    (void)state;
    static const qfw_option strange[] = {
        QFW_OPTION(QFW_OPT_ENUM, "a\033[2J", "b\n", 0, 0, "b\n|\xff", "clears \033[31mthe screen")};
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    option_help(out, "s\033c", strange, 1);
    fclose(out);
    assert_string_equal(text, "[s\\x1bc]\n  a\\x1b[2J = b\\x0a\n      clears \\x1b[31mthe screen. "
                              "b\\x0a | \\xff.\n");
    free(text);
}

static void running_out_of_memory_is_told(void **state) {
    (void)state;
    int failures = 0;
    for (uint64_t k = 1; k < 100; k++) {
        ini *i = NULL;
        schema_section sections[] = {{"a", all_options, N_OPTIONS, NULL}, {"", NULL, 0, NULL}};
        assert_int_equal(ini_parse_text("[a]\nrate = x\n", 13, "x.ini", &i), QFW_OK);
        mem_fail_at(k);
        const qfw_status status = option_check(i, sections, 2, NULL, 0);
        mem_fail_at(0);
        if (status == QFW_E_NOMEM) {
            failures++;
            assert_int_equal(err_exit_code(), EXIT_MEMORY);
            assert_null(sections[0].cfg);
        } else {
            assert_int_equal(status, QFW_E_CONFIG);
        }
        option_free(sections, 2);
        ini_destroy(i);
    }
    assert_int_equal(failures, 2 + N_OPTIONS);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_numbers),
        cmocka_unit_test(reads_numbers_under_a_comma_locale),
        cmocka_unit_test(reads_integers),
        cmocka_unit_test(defaults_hold),
        cmocka_unit_test(values_replace_defaults),
        cmocka_unit_test(bytes_have_units),
        cmocka_unit_test(ranges_have_edges),
        cmocka_unit_test(problems_add_up),
        cmocka_unit_test(required_keys_are_required),
        cmocka_unit_test(paths_stand_in_the_ini_s_folder),
        cmocka_unit_test(plugins_read_what_they_declared),
        cmocka_unit_test(a_bad_default_is_the_plugin_s_fault),
        cmocka_unit_test(resolved_gives_the_same_run),
        cmocka_unit_test(help_tells_every_key),
        cmocka_unit_test(help_shows_what_a_terminal_would_act_on),
        cmocka_unit_test(running_out_of_memory_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* test_error.c -- the record of a thread: names, exit codes, escapes, limits. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/error.h"

#include <cmocka.h>

static void keeps_the_sentence(void **state) {
    (void)state;
    err_clear();
    assert_int_equal(err_count(), 0);
    assert_null(err_text(0));
    assert_string_equal(err_name(), "");
    assert_int_equal(err_status(), QFW_OK);
    assert_int_equal(err_exit_code(), EXIT_OK);
    assert_int_equal(err_fail("E_ST_SHORT", QFW_E_DATA, "size %d < %d", 5, 8), QFW_E_DATA);
    assert_int_equal(err_count(), 1);
    assert_string_equal(err_text(0), "error[E_ST_SHORT] size 5 < 8");
    assert_null(err_text(1));
    assert_string_equal(err_name(), "E_ST_SHORT");
    assert_int_equal(err_status(), QFW_E_DATA);
}

static void fail_replaces_and_also_adds(void **state) {
    (void)state;
    err_fail("E_ONE", QFW_E_IO, "one");
    err_fail("E_INI_TWO", QFW_E_CONFIG, "two");
    assert_int_equal(err_also("E_ST_THREE", QFW_E_DATA, "three"), QFW_E_DATA);
    assert_int_equal(err_count(), 2);
    assert_string_equal(err_text(0), "error[E_INI_TWO] two");
    assert_string_equal(err_text(1), "error[E_ST_THREE] three");
    assert_string_equal(err_name(), "E_INI_TWO");
    assert_int_equal(err_status(), QFW_E_CONFIG);
    assert_int_equal(err_exit_code(), EXIT_CONFIG);
    err_clear();
    err_also("E_ALONE", QFW_E_SHAPE, "alone");
    assert_string_equal(err_name(), "E_ALONE");
    assert_int_equal(err_status(), QFW_E_SHAPE);
    err_fail("E_AGAIN", QFW_E_IO, "<%s>", err_text(0));
    assert_string_equal(err_text(0), "error[E_AGAIN] <error[E_ALONE] alone>");
}

static void holds_and_joins(void **state) {
    (void)state;
    err_fail("E_INI_ONE", QFW_E_CONFIG, "one");
    err_hold();
    assert_int_equal(err_count(), 0);
    err_fail("E_PLUG_TRIED", QFW_E_UNSUPPORTED, "forgiven");
    err_fail("E_PLUG_TWO", QFW_E_UNSUPPORTED, "two");
    err_join();
    assert_int_equal(err_count(), 2);
    assert_string_equal(err_text(0), "error[E_INI_ONE] one");
    assert_string_equal(err_text(1), "error[E_PLUG_TWO] two");
    assert_int_equal(err_exit_code(), EXIT_CONFIG);
    err_hold();
    for (int i = 0; i < 51; i++) err_also("E_INI_X", QFW_E_CONFIG, "problem %d", i);
    err_join();
    assert_int_equal(err_count(), 50);
    assert_int_equal(err_unsaid(), 3);
}

static void sorts_by_line(void **state) {
    static const char *const sorted[] = {"x.ini:2:9: b", "x.ini:2:1: c", "x.ini:10:1: a",
        "x.ini: missing", "--set a.b: bad", "yx.ini:1:1: another"};
    static const int told[] = {2, 3, 0, 4, 5, 1};
    (void)state;
    err_clear();
    for (int i = 0; i < 6; i++) err_also("E_X", QFW_E_IO, "%s", sorted[told[i]]);
    err_sort("x.ini");
    for (uint32_t i = 0; i < 6; i++) assert_string_equal(err_text(i) + 11, sorted[i]);
}

static void counts_past_fifty(void **state) {
    (void)state;
    err_clear();
    for (int i = 0; i < 73; i++) err_also("E_INI_X", QFW_E_CONFIG, "problem %d", i);
    assert_int_equal(err_count(), 50);
    assert_int_equal(err_unsaid(), 23);
    assert_string_equal(err_text(49), "error[E_INI_X] problem 49");
    assert_null(err_text(50));
    err_fail("E_INI_X", QFW_E_CONFIG, "new");
    assert_int_equal(err_count(), 1);
    assert_int_equal(err_unsaid(), 0);
}

static void prefix_goes_before_the_last(void **state) {
    (void)state;
    err_clear();
    err_prefix("nothing to prefix");
    assert_int_equal(err_count(), 0);
    err_fail("E_A", QFW_E_DATA, "first");
    err_also("E_B", QFW_E_DATA, "[1] second");
    err_prefix("%s.safetensors", "model");
    err_prefix("load\x01");
    assert_string_equal(err_text(0), "error[E_A] first");
    assert_string_equal(err_text(1), "error[E_B] load\\x01: model.safetensors: [1] second");
    char wide[3000];
    memset(wide, 'w', sizeof wide);
    wide[sizeof wide - 1] = 0;
    err_prefix("%s", wide);
    assert_true(strlen(err_text(1)) <= 506);
    assert_memory_equal(err_text(1), "error[E_B] www", 14);
}

static void escapes_what_a_terminal_acts_on(void **state) {
    (void)state;
    err_fail("E_X", QFW_E_DATA, "a%sb", "\x1b[31m\n\r\t\x7f");
    assert_string_equal(err_text(0), "error[E_X] a\\x1b[31m\\x0a\\x0d\\x09\\x7f"
                                     "b");
    err_fail("E_X", QFW_E_DATA, "%s", "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80");
    assert_string_equal(err_text(0), "error[E_X] gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80");
    static const char *const broken[][2] = {
        {"\xc3", "\\xc3"},                            /* cut off */
        {"\xc3(", "\\xc3("},                          /* no continuation */
        {"\x80", "\\x80"},                            /* a continuation alone */
        {"\xc0\xaf", "\\xc0\\xaf"},                   /* overlong */
        {"\xe0\x80\xaf", "\\xe0\\x80\\xaf"},          /* overlong */
        {"\xed\xa0\x80", "\\xed\\xa0\\x80"},          /* a surrogate */
        {"\xf0\x80\x80\xaf", "\\xf0\\x80\\x80\\xaf"}, /* overlong */
        {"\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"}, /* past U+10FFFF */
        {"\xff", "\\xff"},
        {"\xc2\x9b"
         "1m",
            "\\xc2\\x9b"
            "1m"}, /* the 8-bit form of ESC [ */
    };
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        err_fail("E_X", QFW_E_DATA, "%s", broken[i][0]);
        assert_string_equal(err_text(0) + 11, broken[i][1]);
    }
}

static void cuts_at_512_bytes(void **state) {
    (void)state;
    char text[600] = "";
    /* Characters of each width at the edge: never half a character, never half an escape. */
    static const char *const units[] = {
        "a", "\xc3\xbc", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\x01"};
    for (size_t u = 0; u < 5; u++)
        for (size_t shift = 0; shift < 5; shift++) {
            size_t n = shift;
            memset(text, '.', sizeof text);
            while (n + 4 < sizeof text) {
                memcpy(text + n, units[u], strlen(units[u]));
                n += strlen(units[u]);
            }
            text[n] = 0;
            err_fail("E_X", QFW_E_DATA, "%s", text);
            const char *got = err_text(0);
            const size_t length = strlen(got);
            assert_in_range(length, 499, 506);
            assert_string_equal(got + length - 3, "...");
            const size_t unit = u == 4 ? 4 : strlen(units[u]);
            assert_int_equal((length - 3 - 11 - shift) % unit, 0);
        }
}

static void exit_code_by_longest_prefix(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int code;
    } rows[] = {
        {"E_ST_HDRLEN", 65},
        {"E_IDX_PATH", 65},
        {"E_JSON", 65},
        {"E_JSON_DUP", 65},
        {"E_CFG_TYPE", 65},
        {"E_MODEL_SHAPE", 65},
        {"E_TOK_ID", 65},
        {"E_DATA_FIELD", 65},
        {"E_QUANT_NAN", 65},
        {"E_NOINPUT", 66},
        {"E_USAGE", 64},
        {"E_INI_DUP", 78},
        {"E_CONFIG_X", 78},
        {"E_PLUG_ABI", 69},
        {"E_DEV_LOST", 69},
        {"E_DEV_MEM", 71},
        {"E_MEM", 71},
        {"E_LIMIT", 71},
        {"E_PLAN_MEMORY", 71},
        {"E_OUT_LOCKED", 73},
        {"E_IO_FULL", 74},
        {"E_CKPT_HASH", 65},
        {"E_SIGNAL", 75},
        {"E_NUM_LOSS", 80},
        {"E_INTERNAL", 70},
        {"E_PLUGIN", 70},
        {"", 70},
        {"X", 70},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        err_fail(rows[i].name, QFW_E_INTERNAL, "x");
        assert_int_equal(err_exit_code(), rows[i].code);
    }
}

static void nearest_word(void **state) {
    (void)state;
    static const char *const words[] = {
        "learning_rate", "lr_scheduler", "max_steps", NULL, "r", "alpha", "warmup_steps", "beta"};
    static const char *const asked[][2] = {{"learning_rat", "learning_rate"},
        {"learnign_rate", "learning_rate"}, {"max_step", "max_steps"}, {"mxa_steps", "max_steps"},
        {"bata", "beta"}, {"warmup", NULL}, {"dropout", NULL}, {"", NULL}, {"q", NULL},
        {"bxxa", NULL}, {"bet", "beta"}, {"beat", "beta"}, {"rr", "r"}, {"beta", "beta"}};
    for (size_t i = 0; i < sizeof asked / sizeof *asked; i++) {
        const char *got = err_nearest(asked[i][0], words, 8);
        if (asked[i][1]) {
            assert_non_null(got);
            assert_string_equal(got, asked[i][1]);
        } else {
            assert_null(got);
        }
    }
    char huge[4000];
    memset(huge, 'x', sizeof huge);
    huge[sizeof huge - 1] = 0;
    assert_null(err_nearest(huge, words, 8));
    assert_null(err_nearest("x", (const char *const *)words, 0));
}

static void *fail_in_thread(void *arg) {
    err_fail("E_THREAD", QFW_E_IO, "in the thread");
    *(int *)arg = strcmp(err_text(0), "error[E_THREAD] in the thread") == 0;
    return NULL;
}

static void each_thread_has_its_own(void **state) {
    (void)state;
    pthread_t thread;
    int seen = 0;
    err_fail("E_MAIN", QFW_E_DATA, "in main");
    assert_int_equal(pthread_create(&thread, NULL, fail_in_thread, &seen), 0);
    pthread_join(thread, NULL);
    assert_true(seen);
    assert_string_equal(err_text(0), "error[E_MAIN] in main");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keeps_the_sentence),
        cmocka_unit_test(fail_replaces_and_also_adds),
        cmocka_unit_test(holds_and_joins),
        cmocka_unit_test(sorts_by_line),
        cmocka_unit_test(counts_past_fifty),
        cmocka_unit_test(prefix_goes_before_the_last),
        cmocka_unit_test(escapes_what_a_terminal_acts_on),
        cmocka_unit_test(cuts_at_512_bytes),
        cmocka_unit_test(exit_code_by_longest_prefix),
        cmocka_unit_test(nearest_word),
        cmocka_unit_test(each_thread_has_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

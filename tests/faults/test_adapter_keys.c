/* test_adapter_keys.c -- an adapter's folder decides what the adapter is: an INI that says
 * otherwise is refused, and what a run leaves behind says what the folder said.
 */
#define _XOPEN_SOURCE 700
#include <stdio.h>

#include "base/error.h"
#include "base/mem.h"
#include "files/file.h"

#include "../support/refusal.h"
#include "../support/temp.h"
#include "../support/test.h"
#include "../support/tiny.h"

#define FIRST_KEYS                                                                                 \
    "r = 4\nlora_alpha = 12\nuse_rslora = true\nlora_dropout = 0.05\n"                             \
    "target_modules = down_proj, qkv_proj\n"

/* A case whose adapter/ is that of a first run with FIRST_KEYS; [adapter] then names it, and says
 * `keys`. */
static void make_case(const char *keys) {
    char text[256];
    tiny_make("case");
    alter("run.ini", "r = 4\n", FIRST_KEYS);
    trains("the first");
    assert_int_equal(rename(temp_path("case/out"), temp_path("case/adapter")), 0);
    snprintf(text, sizeof text, "path = adapter\n%s", keys);
    alter("run.ini", FIRST_KEYS, text);
}

static void other_values_are_refused(void **state) {
    static const struct {
        const char *key, *regex;
    } rows[] = {
        {"r = 8",
            "run\\.ini:10:5: adapter\\.r: 8, but the adapter in /.*/case/adapter has 4; hint"},
        {"lora_alpha = 16", "run\\.ini:10:14: adapter\\.lora_alpha: 16, but .*/adapter has 12; h"},
        {"use_rslora = false", "run\\.ini:10:14: adapter\\.use_rslora: false, but .* has true; h"},
        {"target_modules = all-linear",
            "run\\.ini:10:18: adapter\\.target_modules: all-linear, but .* has (down_proj,qkv_proj|"
            "qkv_proj,down_proj); hint"},
        {"target_modules = down_proj, q_proj, k_proj, v_proj",
            "adapter\\.target_modules: down_proj,q_proj,k_proj,v_proj, but .* has "},
        {"target_modules = down_proj, qkv_prj", "\"qkv_prj\" matches no module of model phi3"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char keys[128];
        snprintf(keys, sizeof keys, "%s\n", rows[i].key);
        make_case(keys);
        refused(rows[i].key, "--dry-run", EXIT_CONFIG, rows[i].regex);
    }
    make_case("r = 8\nlora_alpha = 16\n"); /* all of them in one run */
    refused("two", "--dry-run", EXIT_CONFIG, "adapter\\.r: 8, but");
    assert_true(has_line(case_command.err, "adapter\\.lora_alpha: 16, but"));
}

/* `name` of the run's output has a line like this. */
static void says(const char *name, const char *regex) {
    char *text = NULL;
    size_t n = 0;
    assert_int_equal(file_read(temp_path(in_case(name)), 1 << 20, &text, &n), QFW_OK);
    if (!has_line(text, regex)) fail_msg("%s says\n%s\nnot %s", name, text, regex);
    mem_free(text);
}

static void equal_values_and_none_are_the_folder_s(void **state) {
    static const char *const rows[] = {
        "", FIRST_KEYS, "r = 4\ntarget_modules = qkv_proj, down_proj\n"};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        make_case(rows[i]);
        trains(rows[i]);
        says("out/resolved.ini", "^r = 4$");
        says("out/resolved.ini", "^lora_alpha = 12$");
        says("out/resolved.ini", "^use_rslora = true$");
        says("out/resolved.ini", "^lora_dropout = 0\\.05$");
        says("out/resolved.ini", "^target_modules = (down_proj, ?qkv_proj|qkv_proj, ?down_proj)$");
        says("out/adapter_config.json", "\"r\": 4,");
        says("out/adapter_config.json", "\"lora_alpha\": 12,");
        says("out/adapter_config.json", "\"lora_dropout\": 0\\.05,");
        says("out/adapter_config.json", "\"use_rslora\": true,?");
    }
}

/* resolved.ini is an INI of the same run. */
static void resolved_ini_runs(void **state) {
    (void)state;
    make_case("");
    trains("from the folder");
    assert_int_equal(rename(temp_path("case/out/resolved.ini"), temp_path("case/run.ini")), 0);
    assert_int_equal(dir_remove(temp_path("case/out")), QFW_OK);
    trains("by its resolved.ini");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(other_values_are_refused),
        cmocka_unit_test(equal_values_and_none_are_the_folder_s),
        cmocka_unit_test(resolved_ini_runs),
    };
    return cmocka_run_group_tests_name("faults/adapter_keys", tests, temp_make, temp_drop);
}

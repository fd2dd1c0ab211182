/* test_chat_keys.c -- a chat template that the INI declares: rendered as it says, written back into
 * resolved.ini, and refused by key where it is none. */
#include "../support/refusal.h"
#include "../support/temp.h"
#include "../support/tiny.h"
#include "base/error.h"
#include "base/mem.h"
#include "files/file.h"

#include "../support/test.h"

static const char rows[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"ab\"}, {\"role\": "
                           "\"assistant\", \"content\": \"ba\"}]}\n";

static void make_case(const char *keys) {
    char text[1024];
    tiny_make("case");
    temp_text("case/rows.jsonl", rows);
    snprintf(text, sizeof text, "[data]\n%s", keys);
    alter("run.ini", "[data]\n", text);
}

/* In the tokenizer of tiny.h a is 0, b is 1, ab is 2 and <s> is 3. */
static const char declared[] = "chat_template = declared\nchat_start = <s>\nchat_user = "
                               "b{content}a\nchat_assistant = {content}a<s>\nchat_end = ab\n";

static void a_declared_template_renders(void **state) {
    (void)state;
    make_case(declared);
    assert_int_equal(case_run("--dry-run"), 0);
    /* "<s>", "bab" "a" with "ba" "a" as one text, "<s>", "ab" */
    assert_true(has_line(case_command.out, "^ *3 <s> +\\*1 b +\\*2 ab$"));
    assert_true(has_line(case_command.out, "^ *\\*2 ab +\\*0 a +\\*0 a$"));
    assert_true(has_line(case_command.out, "^ *\\*3 <s> +\\*2 ab$"));
    assert_true(has_line(case_command.out, "8 tokens, 7 trained"));
    trains("declared");
    char *text = NULL;
    size_t n = 0;
    assert_int_equal(file_read(temp_path("case/out/resolved.ini"), 1 << 20, &text, &n), QFW_OK);
    assert_non_null(strstr(text, "chat_user = b{content}a\n"));
    mem_free(text);
}

static void wrong_keys_are_refused(void **state) {
    static const struct {
        const char *keys, *regex;
    } cases[] = {
        {"chat_template = declared\nchat_user = u\nchat_assistant = {content}\n",
            "run\\.ini:12:[0-9]+: data\\.chat_user: found \\{content\\} 0 times, wanted it once"},
        {"chat_template = declared\nchat_user = {content}{content}\nchat_assistant = {content}\n",
            "data\\.chat_user: found \\{content\\} 2 times"},
        {"chat_template = declared\nchat_user = {content}\n", "data\\.chat_assistant: found"},
        {"chat_template = declared\nchat_system = s\nchat_user = {content}\nchat_assistant = "
         "{content}\n",
            "data\\.chat_system: found \\{content\\} 0 times"},
        {"chat_template = declared\nchat_end = {content}\nchat_user = {content}\nchat_assistant = "
         "{content}\n",
            "data\\.chat_end: found \\{content\\} 1 times, wanted it nowhere"},
        {"chat_template = declared\nchat_user = \\q{content}\nchat_assistant = {content}\n",
            "data\\.chat_user: found a backslash before 'q'"},
        {"chat_template = phi3-mini\nchat_user = {content}\n",
            "data\\.chat_user: it counts with chat_template = declared, which is phi3-mini"},
        {"chat_template = phi5\n", "data\\.chat_template: .*phi4-mini \\| declared"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        make_case(cases[i].keys);
        refused(cases[i].keys, "--dry-run", EXIT_CONFIG, cases[i].regex);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_declared_template_renders),
        cmocka_unit_test(wrong_keys_are_refused),
    };
    return cmocka_run_group_tests_name("faults/chat_keys", tests, temp_make, temp_drop);
}

/* test_chat.c -- chat templates: the bytes of the models' own Jinja, and what is refused. The ids
 * are compared in test_published.c. */
#include "../support/chats.h"
#include "../support/texts.h"
#include "base/error.h"

#include "../support/test.h"

static void test_texts(void **state) {
    (void)state;
    int specials = 0;
    qfw_doc *rows = golden_json("chat.json");
    const chat_template *mini = chat_by_name("phi3-mini"), *medium = chat_by_name("phi3-medium");
    assert_int_equal(chats_check(rows, mini, "mini", 0, NULL, &specials), 230);
    assert_int_equal(chats_check(rows, mini, "mini_prompt", 1, NULL, &specials), 40);
    assert_int_equal(chats_check(rows, medium, "medium", 0, NULL, &specials), 230);
    assert_int_equal(chats_check(rows, medium, "medium", 1, NULL, &specials), 230);
    json_destroy(rows);
}

/* --- pieces --- */

static const chat_message talk[] = {
    {"system", "S"}, {"user", "U"}, {"assistant", "A"}, {"user", "V"}, {"assistant", "<|end|>"}};

static void pieces(const chat_render *r, const char *wanted) {
    char shown[512] = "";
    for (size_t i = 0; i < r->n; i++) {
        strcat(shown, r->piece[i].special ? (r->piece[i].assistant ? "{" : "[")
                                          : (r->piece[i].assistant ? "<" : "("));
        strncat(shown, r->piece[i].text, r->piece[i].n);
    }
    for (char *p = shown; *p; p++)
        if (*p == '\n') *p = '/';
    assert_string_equal(shown, wanted);
}

static void test_pieces(void **state) {
    (void)state;
    const chat_template *mini = chat_by_name("phi3-mini"), *medium = chat_by_name("phi3-medium");
    chat_render r = {0};
    must(chat_apply(mini, talk, 5, "EOS", 0, CHAT_SYSTEM_ERROR, 0, &r));
    pieces(&r, "[<|system|>/(S[<|end|>/[<|user|>/(U[<|end|>/[<|assistant|>/<A{<|end|>/[<|user|>/(V"
               "[<|end|>/[<|assistant|>/<<|end|>{<|end|>/{EOS");
    chat_render_free(&r);
    must(chat_apply(mini, talk, 4, "EOS", 0, CHAT_SYSTEM_ERROR, 1, &r));
    pieces(&r, "[<|system|>/[S[<|end|>/[<|user|>/[U[<|end|>/[<|assistant|>/{A{<|end|>/[<|user|>/[V"
               "[<|end|>/[EOS");
    chat_render_free(&r);
    must(chat_apply(mini, talk + 1, 2, "EOS", 1, CHAT_SYSTEM_ERROR, 0, &r));
    pieces(&r, "[<|user|>/(U[<|end|>/[<|assistant|>/<A{<|end|>/[<|assistant|>/");
    chat_render_free(&r);
    must(chat_apply(medium, talk, 3, NULL, 0, CHAT_SYSTEM_FOLD, 0, &r));
    pieces(&r, "[<|user|>/(S(//(U[<|end|>/<|assistant|>/<A{<|end|>/");
    chat_render_free(&r);
}

static void refused(const chat_message *m, size_t n, size_t at, const char *text) {
    chat_problem problem;
    chat_render r = {0};
    const chat_template *medium = chat_by_name("phi3-medium");
    assert_false(chat_check(medium, m, n, CHAT_SYSTEM_ERROR, &problem));
    assert_int_equal(problem.message, at);
    if (!strstr(problem.text, text)) fail_msg("%s, wanted %s", problem.text, text);
    assert_int_equal(chat_apply(medium, m, n, NULL, 0, CHAT_SYSTEM_ERROR, 0, &r), QFW_E_DATA);
    assert_string_equal(err_name(), "E_DATA_FIELD");
    assert_null(r.piece);
    err_clear();
}

static void test_refused(void **state) {
    (void)state;
    static const chat_message tool[] = {{"user", "a"}, {"tool", "b"}};
    static const chat_message twice[] = {{"user", "a"}, {"assistant", "b"}, {"assistant", "c"}};
    static const chat_message users[] = {{"user", "a"}, {"user", "b"}};
    static const chat_message late[] = {{"user", "a"}, {"system", "b"}};
    chat_problem problem;
    refused(talk, 0, 0, "no messages");
    refused(tool, 2, 1, "found 'tool', wanted system, user or assistant");
    refused(twice, 3, 2, "found 'assistant', wanted user");
    refused(users, 2, 1, "found 'user', wanted assistant");
    refused(talk + 2, 1, 0, "found 'assistant', wanted user");
    refused(late, 2, 1, "a system turn may only be the first");
    refused(talk, 5, 0, "[data] system_turn = fold");
    assert_false(chat_check(chat_by_name("phi3-mini"), talk, 1, CHAT_SYSTEM_ERROR, &problem));
    assert_true(chat_check(chat_by_name("phi3-medium"), talk, 5, CHAT_SYSTEM_FOLD, &problem));
    chat_render r = {0};
    assert_int_equal(chat_apply(chat_by_name("phi3-mini"), talk, 3, NULL, 0, 0, 0, &r), QFW_E_DATA);
    assert_string_equal(err_name(), "E_TOK_SPECIAL"); /* mini ends in an EOS */
    err_clear();
}

static void test_names(void **state) {
    (void)state;
    assert_null(chat_by_name("phi3"));
    assert_null(chat_by_jinja("{{ messages }}"));
    assert_string_equal(chat_name(chat_by_name("phi3-medium")), "phi3-medium");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

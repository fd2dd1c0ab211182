/* test_chat.c -- chat templates: the bytes of the models' own Jinja, and what is refused. The ids
 * are compared in test_published.c. */
#include "../support/chats.h"
#include "../support/texts.h"
#include "base/error.h"

#include "../support/test.h"

/* Each template by its Jinja text, and what it makes of 600 conversations. */
static void test_texts(void **state) {
    (void)state;
    static const char *const names[] = {
        "phi3-mini", "phi3-medium", "phi3-april", "phi3.5", "phi4", "phi4-mini"};
    qfw_doc *rows = golden_json("chat.json");
    const json_node *templates = json_node_member(json_root(rows), "templates");
    assert_int_equal(json_node_count(templates), sizeof names / sizeof names[0]);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const json_node *of = json_node_member(templates, names[i]);
        const chat_template *c = chat_by_jinja(json_node_str(json_node_member(of, "jinja")));
        assert_non_null(c);
        assert_string_equal(chat_name(c), names[i]);
        assert_ptr_equal(c, chat_by_name(names[i]));
        chats_check(rows, c, 0, NULL, 0);
        chats_check(rows, c, 1, NULL, 0);
    }
    json_destroy(rows);
}

static void check_small(const char *name, const char *folder) {
    tokenizer *t = NULL;
    qfw_doc *rows = golden_json("chat.json");
    must(tokenizer_open(golden_path(folder), 0, &t));
    assert_true(chats_check(rows, chat_by_name(name), 0, t, 0) < 300);
    assert_true(chats_check(rows, chat_by_name(name), 1, t, 0) < 300);
    tokenizer_close(t);
    json_destroy(rows);
}

/* Phi-4's role tokens swallow the white space beside them, Phi-4-mini's do not. */
static void test_ids(void **state) {
    (void)state;
    check_small("phi4", "bytelevel_split");
    check_small("phi4-mini", "o200k");
}

/* The text of a file of its own ends in a line break; a tokenizer_config.json may write \n. */
static void test_spellings(void **state) {
    (void)state;
    qfw_doc *rows = golden_json("chat.json");
    const json_node *of =
        json_node_member(json_node_member(json_root(rows), "templates"), "phi3.5");
    const char *jinja = json_node_str(json_node_member(of, "jinja"));
    char text[2048], *to = text;
    for (const char *at = jinja; *at; at++) {
        if (*at == '\n') *to++ = '\\';
        *to++ = *at == '\n' ? 'n' : *at;
    }
    memcpy(to, "\n", 2);
    assert_true(strlen(text) > strlen(jinja) + 1);
    assert_ptr_equal(chat_by_jinja(text), chat_by_name("phi3.5"));
    memcpy(to, "\n\n", 3);
    assert_null(chat_by_jinja(text));
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
    must(chat_apply(mini, talk, 5, &(chat_opts){"BOS", "EOS", 0, CHAT_SYSTEM_ERROR, 0}, &r));
    pieces(&r, "[<|system|>/(S[<|end|>/[<|user|>/(U[<|end|>/[<|assistant|>/<A{<|end|>/[<|user|>/(V"
               "[<|end|>/[<|assistant|>/<<|end|>{<|end|>/{EOS");
    chat_render_free(&r);
    must(chat_apply(mini, talk, 4, &(chat_opts){"BOS", "EOS", 0, CHAT_SYSTEM_ERROR, 1}, &r));
    pieces(&r, "[<|system|>/[S[<|end|>/[<|user|>/[U[<|end|>/[<|assistant|>/{A{<|end|>/[<|user|>/[V"
               "[<|end|>/[EOS");
    chat_render_free(&r);
    must(chat_apply(mini, talk + 1, 2, &(chat_opts){"BOS", "EOS", 1, CHAT_SYSTEM_ERROR, 0}, &r));
    pieces(&r, "[<|user|>/(U[<|end|>/[<|assistant|>/<A{<|end|>/[<|assistant|>/");
    chat_render_free(&r);
    must(chat_apply(medium, talk, 3, &(chat_opts){"BOS", NULL, 0, CHAT_SYSTEM_FOLD, 0}, &r));
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
    assert_int_equal(
        chat_apply(medium, m, n, &(chat_opts){"BOS", NULL, 0, CHAT_SYSTEM_ERROR, 0}, &r),
        QFW_E_DATA);
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
    assert_int_equal(
        chat_apply(chat_by_name("phi3-mini"), talk, 3, &(chat_opts){"BOS", NULL, 0, 0, 0}, &r),
        QFW_E_DATA);
    assert_string_equal(err_name(), "E_TOK_SPECIAL"); /* mini ends in an EOS */
    err_clear();
    chat_opts no_bos = {.eos = "EOS"};
    const chat_template *april = chat_by_name("phi3-april");
    assert_int_equal(chat_apply(april, talk + 1, 2, &no_bos, &r), QFW_E_DATA);
    assert_string_equal(err_name(), "E_TOK_SPECIAL");
    err_clear();
}

static void test_declared(void **state) {
    (void)state;
    const chat_declaration d = {.start = "<s>",
        .system = "",
        .user = "U:{content}!",
        .assistant = "A:{content}.",
        .prompt = "A:",
        .end = "</s>"};
    chat_declaration other = d;
    chat_template *c = NULL, *second = NULL;
    chat_render r = {0};
    assert_int_equal(chat_contents("{content}{content"), 1);
    assert_int_equal(chat_contents("{content}{content}"), 2);
    must(chat_declare(&d, &c));
    assert_true(chat_is_declared(c));
    assert_false(chat_is_declared(chat_by_name("phi4")));
    must(chat_apply(c, talk + 1, 2, &(chat_opts){.allow_special = 0}, &r));
    pieces(&r, "[<s>[U:(U[![A:<A{.{</s>");
    chat_render_free(&r);
    must(chat_apply(c, talk, 2, &(chat_opts){.generation_prompt = 1, .system_policy = 1}, &r));
    pieces(&r, "[<s>[U:(S(//(U[![A:");
    chat_render_free(&r);
    assert_int_equal(chat_apply(c, talk, 2, &(chat_opts){.bos = NULL}, &r), QFW_E_DATA);
    err_clear();
    other.system = "S:{content}";
    must(chat_declare(&other, &second));
    assert_string_not_equal(chat_name(c), chat_name(second)); /* caches go by the name */
    must(chat_apply(second, talk, 2, &(chat_opts){.bos = NULL}, &r));
    pieces(&r, "[<s>[S:(S[U:(U[![</s>");
    chat_render_free(&r);
    chat_undeclare(c);
    chat_undeclare(second);
    chat_undeclare(NULL);
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
        cmocka_unit_test(test_ids),
        cmocka_unit_test(test_spellings),
        cmocka_unit_test(test_declared),
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

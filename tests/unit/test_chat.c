/* test_chat.c -- chat templates: the bytes of the models' own Jinja, the ids of the library, and
 * what is refused. */
#include "../support/texts.h"
#include "base/error.h"
#include "base/mem.h"
#include "text/chat.h"

#include "../support/test.h"

enum { MAX_TURNS = 16 };

static qfw_doc *fixture;

static int read_fixture(void **state) {
    (void)state;
    fixture = golden_json("chat.json");
    return 0;
}

static int free_fixture(void **state) {
    (void)state;
    json_destroy(fixture);
    return 0;
}

/* The messages of a row; system turns are left out where the fixture's template drops them. */
static size_t read_messages(const json_node *row, int without_system, chat_message *out) {
    const json_node *list = json_node_member(row, "messages");
    size_t n = 0;
    assert_true(json_node_count(list) <= MAX_TURNS);
    for (uint64_t i = 0; i < json_node_count(list); i++) {
        const json_node *m = json_node_item(list, i);
        out[n].role = json_node_str(json_node_member(m, "role"));
        out[n].content = json_node_str(json_node_member(m, "content"));
        if (!without_system || strcmp(out[n].role, "system")) n++;
    }
    return n;
}

static char *text_of(const chat_render *r) {
    size_t n = 0;
    for (size_t i = 0; i < r->n; i++) n += r->piece[i].n;
    char *text = mem_alloc(n + 1, 1);
    assert_non_null(text);
    n = 0;
    for (size_t i = 0; i < r->n; i++) {
        memcpy(text + n, r->piece[i].text, r->piece[i].n);
        n += r->piece[i].n;
    }
    return text;
}

static void check_ids(
    const tokenizer *t, const chat_render *r, const json_node *wanted, size_t row) {
    text_part part[4 * MAX_TURNS];
    ids got = {0};
    assert_true(r->n <= 4 * MAX_TURNS);
    for (size_t i = 0; i < r->n; i++)
        part[i] = (text_part){r->piece[i].text, r->piece[i].n, r->piece[i].special, 0};
    must(tokenizer_encode_parts(t, part, r->n, &got));
    if (strcmp(ids_text(&got), node_ids_text(wanted)))
        fail_msg("row %zu:\n  %s, wanted\n  %s", row, ids_text(&got), node_ids_text(wanted));
    ids_free(&got);
}

/* All rows of the fixture under `key`: the text, and the ids if there is a tokenizer. How many. */
static size_t check_rows(
    const chat_template *c, const char *key, int prompt, const tokenizer *t, int *specials) {
    const json_node *rows = json_node_member(json_root(fixture), "rows");
    size_t checked = 0;
    for (uint64_t i = 0; i < json_node_count(rows); i++) {
        const json_node *row = json_node_item(rows, i), *wanted = json_node_member(row, key);
        chat_message m[MAX_TURNS];
        chat_render r = {0};
        if (!wanted) continue;
        const int dropped = json_node_true(json_node_member(wanted, "system_dropped"));
        const size_t n = read_messages(row, dropped, m);
        must(chat_apply(c, m, n, "<|endoftext|>", prompt, CHAT_SYSTEM_ERROR, 0, &r));
        char *text = text_of(&r);
        assert_string_equal(text, json_node_str(json_node_member(wanted, "text")));
        if (t) check_ids(t, &r, json_node_member(wanted, "ids"), i);
        *specials += json_node_true(json_node_member(wanted, "special_in_content"));
        mem_free(text);
        chat_render_free(&r);
        checked++;
    }
    return checked;
}

static void test_texts(void **state) {
    (void)state;
    int specials = 0;
    assert_int_equal(check_rows(chat_by_name("phi3-mini"), "mini", 0, NULL, &specials), 230);
    assert_int_equal(check_rows(chat_by_name("phi3-mini"), "mini_prompt", 1, NULL, &specials), 40);
    assert_int_equal(check_rows(chat_by_name("phi3-medium"), "medium", 0, NULL, &specials), 230);
    assert_int_equal(check_rows(chat_by_name("phi3-medium"), "medium", 1, NULL, &specials), 230);
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

/* --- with the published tokenizers --- */

static void check_published(const char *folder, const char *name, const char *key) {
    tokenizer *t = NULL;
    int specials = 0;
    must(tokenizer_open(shared_tokenizer(folder), 0, &t));
    const chat_template *c = chat_by_jinja(tokenizer_chat_template(t));
    assert_non_null(c);
    assert_string_equal(chat_name(c), name);
    assert_int_equal(check_rows(c, key, 0, t, &specials), 230);
    assert_true(specials >= 30); /* contents in which special tokens are typed */
    tokenizer_close(t);
}

static void test_phi3_mini(void **state) {
    (void)state;
    check_published("phi-3-mini", "phi3-mini", "mini");
}

static void test_phi3_medium(void **state) {
    (void)state;
    check_published("phi-3-medium", "phi3-medium", "medium");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_names),
    };
    const struct CMUnitTest published[] = {
        cmocka_unit_test(test_phi3_mini),
        cmocka_unit_test(test_phi3_medium),
    };
    const int failed = cmocka_run_group_tests(tests, read_fixture, free_fixture);
    if (failed) return failed;
    if (!shared_tokenizer("phi-3-mini") || !shared_tokenizer("phi-3-medium")) return 77;
    return cmocka_run_group_tests(published, read_fixture, free_fixture);
}

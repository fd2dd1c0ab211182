/* test_published.c -- the two published Phi-3 tokenizers, where this machine has them: ids and
 * decoded texts of the tokenizers library, and ids of whole conversations. */
#include "../support/chats.h"
#include "../support/temp.h"
#include "../support/texts.h"
#include "base/error.h"
#include "text/tokenizer.h"

#include "../support/test.h"

/* --- some texts --- */

static void test_texts(void **state) {
    tokenizer *phi3 = NULL;
    (void)state;
    must(tokenizer_open(shared_tokenizer("phi-3-medium"), 32064, &phi3));
    encodes(phi3, "<|user|>\nHi<|end|>\n<|assistant|>\nYo<|end|>\n",
        "32010 6324 32007 32001 612 29877 32007");
    encodes(phi3, " Hello", "29871 15043");
    encodes(phi3, "a</s>\n b", "263 2 289");
    encodes(phi3, "x<|endoftext|>\ny", "921 32000 29871 13 29891");
    encodes(phi3, "<|assistant|>\n\n  code", "32001 775");
    encodes(phi3, "Hello world", "15043 3186");
    encodes(phi3, "\n\nA", "29871 13 13 29909");
    encodes(phi3, "\xf0\x9f\x98\x80", "29871 243 162 155 131");
    assert_int_equal(tokenizer_eos(phi3), 32000);
    assert_int_equal(tokenizer_bos(phi3), 1);
    assert_int_equal(tokenizer_pad(phi3), 32000);
    assert_false(tokenizer_adds_bos(phi3));
    assert_int_equal(tokenizer_size(phi3), 32011);
    tokenizer_close(phi3);
    const qfw_status status = tokenizer_open(shared_tokenizer("phi-3-medium"), 32000, &phi3);
    assert_error(status, "E_TOK_VOCAB", EXIT_DATA, "32011 tokens, .* vocab_size is 32000");
}

/* --- many --- */

static void check_lines(const char *name) {
    tokenizer *t = NULL;
    test_lines *lines = lines_read();
    qfw_doc *doc = golden_json("phi3.json");
    must(tokenizer_open(shared_tokenizer(name), 32064, &t));
    lines_match(lines, t, json_node_member(json_root(doc), name), 50);
    tokenizer_close(t);
    json_destroy(doc);
    lines_free(lines);
}

static void test_lines_mini(void **state) {
    (void)state;
    check_lines("phi-3-mini");
}

static void test_lines_medium(void **state) {
    (void)state;
    check_lines("phi-3-medium");
}

/* --- conversations --- */

static void check_chats(const char *folder, const char *name) {
    tokenizer *t = NULL;
    qfw_doc *rows = golden_json("chat.json");
    must(tokenizer_open(shared_tokenizer(folder), 0, &t));
    const chat_template *c = chat_by_jinja(tokenizer_chat_template(t));
    assert_non_null(c);
    assert_string_equal(chat_name(c), name);
    assert_true(chats_check(rows, c, 0, t, 1) >= 100); /* special tokens are typed in so many */
    assert_true(chats_check(rows, c, 1, t, 1) >= 100);
    tokenizer_close(t);
    json_destroy(rows);
}

static void test_chats_mini(void **state) {
    (void)state;
    check_chats("phi-3-mini", "phi3-mini");
}

static void test_chats_medium(void **state) {
    (void)state;
    check_chats("phi-3-medium", "phi3-medium");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_lines_mini),
        cmocka_unit_test(test_lines_medium),
        cmocka_unit_test(test_chats_mini),
        cmocka_unit_test(test_chats_medium),
    };
    if (!shared_tokenizer("phi-3-mini") || !shared_tokenizer("phi-3-medium")) return 77;
    return cmocka_run_group_tests(tests, NULL, NULL);
}

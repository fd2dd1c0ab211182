/* test_published.c -- the two published Phi-3 tokenizers, where this machine has them: ids and
 * decoded texts of the tokenizers library, and ids of whole conversations. */
#include "../support/chats.h"
#include "../support/temp.h"
#include "../support/texts.h"
#include "base/error.h"
#include "base/mem.h"
#include "files/file.h"
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

/* --- many: digests of groups of lines --- */

static test_lines *lines;

typedef struct group {
    sha256 ids, decoded;
} group;

static void add_line(const tokenizer *t, size_t line, const json_node *shown, group *g) {
    static const int32_t end = -1;
    char key[32], *text = NULL;
    size_t n = 0;
    ids got = {0};
    must(tokenizer_encode(t, lines->line[line], lines->bytes[line], 1, &got));
    snprintf(key, sizeof key, "%zu", line);
    const json_node *wanted = json_node_member(shown, key);
    if (wanted) assert_string_equal(ids_text(&got), node_ids_text(wanted));
    must(tokenizer_decode(t, got.id, got.n, 0, &text, &n));
    sha256_add(&g->ids, got.id, got.n * sizeof *got.id);
    sha256_add(&g->ids, &end, sizeof end);
    sha256_add(&g->decoded, text, n);
    sha256_add(&g->decoded, "\xff", 1);
    mem_free(text);
    ids_free(&got);
}

static void check_digest(sha256 *s, const json_node *list, size_t i, const char *what) {
    char hex[65];
    sha256_hex(s, hex);
    const char *wanted = json_node_str(json_node_item(list, i));
    if (!wanted || strcmp(hex, wanted))
        fail_msg("lines %zu to %zu: other %s", 50 * i, 50 * i + 49, what);
}

static void check_lines(const char *name) {
    lines = lines_read();
    tokenizer *t = NULL;
    must(tokenizer_open(shared_tokenizer(name), 32064, &t));
    qfw_doc *doc = golden_json("phi3.json");
    const json_node *all = json_node_member(json_root(doc), name);
    const json_node *shown = json_node_member(all, "ids");
    assert_int_equal(json_node_count(shown), 40);
    for (size_t i = 0; i < lines->n / 50; i++) {
        group g;
        sha256_init(&g.ids);
        sha256_init(&g.decoded);
        for (size_t k = 0; k < 50; k++) add_line(t, 50 * i + k, shown, &g);
        check_digest(&g.ids, json_node_member(all, "ids_sha256"), i, "ids");
        check_digest(&g.decoded, json_node_member(all, "decoded_sha256"), i, "decoded text");
    }
    json_destroy(doc);
    tokenizer_close(t);
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

static void check_chats(const char *folder, const char *name, const char *key) {
    tokenizer *t = NULL;
    int specials = 0;
    qfw_doc *rows = golden_json("chat.json");
    must(tokenizer_open(shared_tokenizer(folder), 0, &t));
    const chat_template *c = chat_by_jinja(tokenizer_chat_template(t));
    assert_non_null(c);
    assert_string_equal(chat_name(c), name);
    assert_int_equal(chats_check(rows, c, key, 0, t, &specials), 230);
    assert_true(specials >= 30); /* contents in which special tokens are typed */
    tokenizer_close(t);
    json_destroy(rows);
}

static void test_chats_mini(void **state) {
    (void)state;
    check_chats("phi-3-mini", "phi3-mini", "mini");
}

static void test_chats_medium(void **state) {
    (void)state;
    check_chats("phi-3-medium", "phi3-medium", "medium");
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

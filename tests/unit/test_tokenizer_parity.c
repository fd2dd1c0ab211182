/* test_tokenizer_parity.c -- ids and decoded texts of the tokenizers library, for small tokenizers
 * of three kinds. Those of published ones are compared in test_published.c. */
#include "../support/texts.h"
#include "base/error.h"
#include "base/mem.h"
#include "files/file.h"
#include "text/tokenizer.h"

#include "../support/test.h"

static test_lines *lines;

static int read_lines(void **state) {
    (void)state;
    lines = lines_read();
    return 0;
}

static int free_lines(void **state) {
    (void)state;
    lines_free(lines);
    return 0;
}

static void check_decoded(const tokenizer *t, const ids *v, size_t line, const char *decoded) {
    char *text = NULL;
    size_t n = 0;
    must(tokenizer_decode(t, v->id, v->n, 0, &text, &n));
    const char *wanted = decoded ? decoded : lines->line[line];
    const size_t n_wanted = decoded ? strlen(decoded) : lines->bytes[line];
    if (n != n_wanted || memcmp(text, wanted, n))
        fail_msg("line %zu decodes to \"%s\", wanted \"%s\"", line, text, wanted);
    mem_free(text);
}

static void check_small(const char *name) {
    char file[64];
    tokenizer *t = NULL;
    ids got = {0};
    snprintf(file, sizeof file, "%s/ids.json", name);
    qfw_doc *doc = golden_json(file);
    const json_node *rows = json_node_member(json_root(doc), "rows");
    must(tokenizer_open(golden_path(name), 0, &t));
    assert_true(json_node_count(rows) >= 280);
    for (uint64_t i = 0; i < json_node_count(rows); i++) {
        const json_node *row = json_node_item(rows, i);
        const size_t line = (size_t)json_node_i64(json_node_member(row, "line"));
        got.n = 0;
        must(tokenizer_encode(t, lines->line[line], lines->bytes[line], 1, &got));
        const char *wanted = node_ids_text(json_node_member(row, "ids"));
        if (strcmp(ids_text(&got), wanted))
            fail_msg("%s, line %zu, \"%s\":\n  %s, wanted\n  %s", name, line, lines->line[line],
                ids_text(&got), wanted);
        check_decoded(t, &got, line, json_node_str(json_node_member(row, "decoded")));
    }
    ids_free(&got);
    tokenizer_close(t);
    json_destroy(doc);
}

static void test_bytelevel(void **state) {
    (void)state;
    check_small("bytelevel");
}

static void test_bytelevel_split(void **state) {
    (void)state;
    check_small("bytelevel_split");
}

static void test_bytefallback(void **state) {
    (void)state;
    check_small("bytefallback");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytelevel),
        cmocka_unit_test(test_bytelevel_split),
        cmocka_unit_test(test_bytefallback),
    };
    return cmocka_run_group_tests(tests, read_lines, free_lines);
}

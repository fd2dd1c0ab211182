/* test_tokenizer_parity.c -- ids and decoded texts of the tokenizers library, for small tokenizers
 * of three kinds and, where they are on this machine, the two published ones. */
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

/* --- the small ones: all ids --- */

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

/* --- the published ones: digests of groups of lines --- */

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

static void check_published(const char *name) {
    const char *folder = shared_tokenizer(name);
    tokenizer *t = NULL;
    if (!folder) skip();
    must(tokenizer_open(folder, 32064, &t));
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
}

static void test_phi3_mini(void **state) {
    (void)state;
    check_published("phi-3-mini");
}

static void test_phi3_medium(void **state) {
    (void)state;
    check_published("phi-3-medium");
}

int main(void) {
    const struct CMUnitTest small[] = {
        cmocka_unit_test(test_bytelevel),
        cmocka_unit_test(test_bytelevel_split),
        cmocka_unit_test(test_bytefallback),
    };
    const struct CMUnitTest published[] = {
        cmocka_unit_test(test_phi3_mini),
        cmocka_unit_test(test_phi3_medium),
    };
    const int failed = cmocka_run_group_tests(small, read_lines, free_lines);
    if (failed) return failed;
    if (!shared_tokenizer("phi-3-mini") || !shared_tokenizer("phi-3-medium")) return 77;
    return cmocka_run_group_tests(published, read_lines, free_lines);
}

/* chats.c -- see chats.h. */
#include "chats.h"

#include "base/mem.h"
#include "files/file.h"
#include "texts.h"

#include "test.h"

enum { MAX_TURNS = 16 };

/* The messages of a row; system turns are left out where the fixture's template drops them. */
static size_t read_messages(const json_node *list, int without_system, chat_message *out) {
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

static void add_ids(const tokenizer *t, const chat_render *r, sha256 *to) {
    static const int32_t end = -1;
    text_part part[4 * MAX_TURNS];
    ids got = {0};
    assert_true(r->n <= 4 * MAX_TURNS);
    for (size_t i = 0; i < r->n; i++)
        part[i] = (text_part){r->piece[i].text, r->piece[i].n, r->piece[i].special, 0};
    must(tokenizer_encode_parts(t, part, r->n, &got));
    sha256_add(to, got.id, got.n * sizeof *got.id);
    sha256_add(to, &end, sizeof end);
    ids_free(&got);
}

static void check_digest(sha256 *s, const json_node *list, size_t i, const char *what) {
    char hex[65];
    sha256_hex(s, hex);
    const char *wanted = json_node_str(json_node_item(list, i));
    if (!wanted || strcmp(hex, wanted)) fail_msg("group %zu of rows: other %s", i, what);
}

static int is_listed(const json_node *list, uint64_t row) {
    for (uint64_t i = 0; i < json_node_count(list); i++)
        if ((uint64_t)json_node_i64(json_node_item(list, i)) == row) return 1;
    return 0;
}

/* Row `row` by template c into the digests of its text and, where t is not NULL, of its ids. */
static void add_row(const json_node *row, const chat_template *c, int dropped, int prompt,
    const tokenizer *t, sha256 *text, sha256 *id) {
    chat_message m[MAX_TURNS];
    chat_render r = {0};
    const size_t n = read_messages(row, dropped, m);
    const chat_opts o = {.bos = "<s>", .eos = "<|endoftext|>", .generation_prompt = prompt};
    must(chat_apply(c, m, n, &o, &r));
    char *said = text_of(&r);
    sha256_add(text, said, strlen(said));
    sha256_add(text, "\xff", 1);
    if (t) add_ids(t, &r, id);
    mem_free(said);
    chat_render_free(&r);
}

size_t chats_check(
    qfw_doc *fixture, const chat_template *c, int prompt, const tokenizer *t, int ids_of_specials) {
    const json_node *root = json_root(fixture), *rows = json_node_member(root, "rows");
    const json_node *of = json_node_member(json_node_member(root, "templates"), chat_name(c));
    const json_node *special = json_node_member(of, "special_in_content");
    const uint64_t group = (uint64_t)json_node_i64(json_node_member(root, "group"));
    const int dropped = json_node_true(json_node_member(of, "drops_system"));
    const uint64_t n = json_node_count(rows);
    assert_true(n >= 500 && n % group == 0);
    for (uint64_t g = 0; g < n / group; g++) {
        sha256 text, id;
        sha256_init(&text);
        sha256_init(&id);
        for (uint64_t i = g * group; i < (g + 1) * group; i++) {
            const int skipped = !ids_of_specials && is_listed(special, i);
            add_row(json_node_item(rows, i), c, dropped, prompt, skipped ? NULL : t, &text, &id);
        }
        check_digest(
            &text, json_node_member(of, prompt ? "prompt_text_sha256" : "text_sha256"), g, "text");
        if (t)
            check_digest(
                &id, json_node_member(of, prompt ? "prompt_ids_sha256" : "ids_sha256"), g, "ids");
    }
    return json_node_count(special);
}

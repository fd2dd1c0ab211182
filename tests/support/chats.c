/* chats.c -- see chats.h. */
#include "chats.h"

#include "base/mem.h"
#include "texts.h"

#include "test.h"

enum { MAX_TURNS = 16 };

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

size_t chats_check(qfw_doc *fixture, const chat_template *c, const char *key, int prompt,
    const tokenizer *t, int *specials) {
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

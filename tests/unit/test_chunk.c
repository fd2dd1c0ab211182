/* test_chunk.c -- chunks cover the text, fit, begin and end where they should, and take linear
 * time. */
#include "../support/temp.h"
#include "base/error.h"
#include "base/mem.h"
#include "serve/chunk.h"
#include "text/unicode.h"

#include <stdlib.h>

#include "../support/test.h"

/* A question of `limit` tokens; a token is four bytes of one word, or a blank. */
typedef struct ruler_state {
    int64_t limit;
    uint64_t measured; /* bytes */
} ruler_state;

static int64_t count_tokens(const char *text, size_t n) {
    int64_t tokens = 0, in_word = 0;
    for (size_t i = 0; i < n; i++) {
        const int blank = text[i] == ' ' || text[i] == '\n';
        tokens += blank || in_word % 4 == 0;
        in_word = blank ? 0 : in_word + 1;
    }
    return tokens;
}

static qfw_status tokens_of(void *arg, const char *text, size_t n, int64_t *tokens) {
    ((ruler_state *)arg)->measured += n;
    *tokens = count_tokens(text, n) + 1; /* a little more */
    return QFW_OK;
}

static qfw_status fits(void *arg, const char *text, size_t n, int *yes) {
    ruler_state *s = arg;
    s->measured += n;
    *yes = count_tokens(text, n) <= s->limit;
    return QFW_OK;
}

typedef struct cut {
    chunk *chunk;
    size_t n;
    ruler_state state;
} cut;

static cut cut_text(const char *text, int64_t room, int64_t overlap) {
    cut c = {.state = {.limit = room}};
    const chunk_ruler r = {tokens_of, fits, &c.state, room, overlap};
    assert_int_equal(chunk_text(text, strlen(text), &r, &c.chunk, &c.n), QFW_OK);
    return c;
}

/* Every chunk is `wanted` (up to NULL), its text whole. */
static void check_cut(const char *text, int64_t room, int64_t overlap, const char *const *wanted) {
    const cut c = cut_text(text, room, overlap);
    for (size_t i = 0; i < c.n; i++) {
        char got[512];
        snprintf(got, sizeof got, "%.*s", (int)(c.chunk[i].to - c.chunk[i].from),
            text + c.chunk[i].from);
        assert_non_null(wanted[i]);
        assert_string_equal(got, wanted[i]);
    }
    assert_null(wanted[c.n]);
    mem_free(c.chunk);
}

static void what_fits_is_whole(void **state) {
    (void)state;
    check_cut("", 4, 2, (const char *[]){"", NULL});
    check_cut("one. two.", 3, 2, (const char *[]){"one. two.", NULL}); /* alone they count 5 */
}

static void sections_come_first(void **state) {
    (void)state;
    check_cut("Worked here. Then there.\n\nLikes maps. Sings. Walks.", 16, 0,
        (const char *[]){"Worked here. Then there.\n\n", "Likes maps. Sings. Walks.", NULL});
    check_cut("Worked here. Then there.\nSKILLS\nJava. Sings. Walks.", 15, 0,
        (const char *[]){"Worked here. Then there.\n", "SKILLS\nJava. Sings. Walks.", NULL});
    check_cut("Worked here. Then there.\n# Skills\nJava. Sings. Walks.", 17, 0,
        (const char *[]){"Worked here. Then there.\n", "# Skills\nJava. Sings. Walks.", NULL});
    check_cut("Worked here. Then there.\nSkills:\nJava. Sings. Walks.", 15, 0,
        (const char *[]){"Worked here. Then there.\n", "Skills:\nJava. Sings. Walks.", NULL});
    /* A section that would leave the chunk less than half full does not end it. */
    check_cut("Me.\n\nWorked here. Then there. Then far away.", 14, 0,
        (const char *[]){"Me.\n\nWorked here. ", "Then there. Then far away.", NULL});
}

static void then_sentences_lines_words(void **state) {
    (void)state;
    check_cut("Aaaa bbbb. Cccc dddd! Eeee ffff?", 8, 0,
        (const char *[]){"Aaaa bbbb. ", "Cccc dddd! ", "Eeee ffff?", NULL});
    check_cut("He said \"no.\" Then 3.5 more (yes!) came", 11, 0,
        (const char *[]){"He said \"no.\" ", "Then 3.5 more (yes!) ", "came", NULL});
    check_cut("- aaaa\n- bbbb\n- cccc", 9, 0, (const char *[]){"- aaaa\n", "- bbbb\n- cccc", NULL});
    check_cut("aaaa bbbb cccc\ndddd eeee ffff", 9, 0,
        (const char *[]){"aaaa bbbb cccc\n", "dddd eeee ffff", NULL});
    check_cut("aaaa bbbb cccc dddd", 5, 0, (const char *[]){"aaaa bbbb ", "cccc dddd", NULL});
    check_cut("aaaaaaaabbbbbbbb", 3, 0, (const char *[]){"aaaaaaaa", "bbbbbbbb", NULL});
    check_cut("\u4e00\u4e00\u3002\u4e8c\u4e8c\u3002", 4, 0,
        (const char *[]){"\u4e00\u4e00\u3002", "\u4e8c\u4e8c\u3002", NULL});
}

static void whole_sentences_overlap(void **state) {
    (void)state;
    check_cut("Aaaa. Bbbb. Cccc. Dddd. Eeee.", 12, 4,
        (const char *[]){"Aaaa. Bbbb. Cccc. ", "Cccc. Dddd. Eeee.", NULL});
    check_cut("Aaaa. Bbbb. Cccc. Dddd. Eeee.", 12, 3, /* a sentence is longer */
        (const char *[]){"Aaaa. Bbbb. Cccc. ", "Dddd. Eeee.", NULL});
    check_cut("Aaaa. Bbbb\ncccc. Dddd. Eeee.", 11, 4, /* a line is not one */
        (const char *[]){"Aaaa. Bbbb\ncccc. ", "Dddd. Eeee.", NULL});
}

static void nothing_fits(void **state) {
    chunk *c;
    size_t n;
    ruler_state s = {.limit = 0};
    const chunk_ruler r = {tokens_of, fits, &s, 4, 0};
    (void)state;
    assert_error(chunk_text("\u4e00 b", 5, &r, &c, &n), "E_DATA_LONG", EXIT_DATA, "byte 0: .*fits");
    assert_null(c);
}

/* A text of words, marks, line ends and characters of several bytes. */
static char *random_text(unsigned seed, size_t words) {
    static const char *const pieces[] = {"Java", "a", "Zürich", "\u4e00\u4e8c", "e.g.", "3.5",
        "x11xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "\u20ac", "o\u0301"};
    static const char *const ends[] = {" ", " ", " ", " ", " ", "  ", ". ", "! ", "\n", "\n\n",
        ".\n- ", "\u3002", "\r\n", "\nSKILLS\n"};
    char *text = malloc(words * 80 + 1), *to = text;
    uint64_t x = seed * 0x9E3779B97F4A7C15u + 1;
    *to = 0;
    for (size_t i = 0; i < words; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        to += sprintf(to, "%s%s", pieces[(x >> 33) % 9], ends[(x >> 43) % 14]);
    }
    return text;
}

static void every_text(void **state) {
    (void)state;
    for (unsigned seed = 0; seed < 400; seed++) {
        char *text = random_text(seed, seed * 2);
        const int64_t room = 5 + seed % 61, overlap = seed % 3 ? room / 3 : 0;
        const cut c = cut_text(text, room, overlap), again = cut_text(text, room, overlap);
        size_t done = 0;
        for (size_t i = 0; i < c.n; i++) {
            const chunk k = c.chunk[i];
            assert_true(k.from <= done && k.to <= strlen(text));
            assert_true(k.to > done || c.n == 1);
            assert_true(count_tokens(text + k.from, k.to - k.from) <= room);
            assert_int_equal(utf8_check(text + k.from, k.to - k.from), k.to - k.from);
            if (k.from < done) /* the overlap */
                assert_true(count_tokens(text + k.from, done - k.from) <= (overlap ? overlap : -1));
            done = k.to;
        }
        assert_int_equal(done, strlen(text));
        assert_int_equal(again.n, c.n);
        assert_memory_equal(again.chunk, c.chunk, c.n * sizeof *c.chunk);
        mem_free(c.chunk);
        mem_free(again.chunk);
        free(text);
    }
}

/* What is measured grows with the text alone: also for one without any place to cut. */
static void time_is_linear(void **state) {
    enum { BYTES = 1 << 20 };
    char *text = random_text(7, 60000), *blob = malloc(BYTES + 1);
    (void)state;
    memset(blob, 'x', BYTES);
    blob[BYTES] = 0;
    cut c = cut_text(text, 500, 60);
    print_message("%zu bytes, %zu chunks, %.2f times measured\n", strlen(text), c.n,
        (double)c.state.measured / (double)strlen(text));
    assert_true(c.state.measured < 6 * strlen(text));
    mem_free(c.chunk);
    c = cut_text(blob, 500, 60);
    print_message("one word: %.2f times measured\n", (double)c.state.measured / BYTES);
    assert_true(c.state.measured < 20u * BYTES); /* halved until it fits */
    mem_free(c.chunk);
    free(text);
    free(blob);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_fits_is_whole),
        cmocka_unit_test(sections_come_first),
        cmocka_unit_test(then_sentences_lines_words),
        cmocka_unit_test(whole_sentences_overlap),
        cmocka_unit_test(nothing_fits),
        cmocka_unit_test(every_text),
        cmocka_unit_test(time_is_linear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* test_tokenizer.c -- what the fixtures do not reach: malformed files, flags of added tokens,
 * parts, hostile texts. */
#include "../support/temp.h"
#include "../support/texts.h"
#include "base/error.h"
#include "base/mem.h"
#include "files/file.h"
#include "text/parts.h"
#include "text/unicode.h"

#include "../support/test.h"

#include <stdlib.h>

/* --- a tokenizer.json, altered --- */

/* Write <small tokenizer>/tokenizer.json with `from`, which must stand there, made `to`. */
static const char *altered(const char *small, const char *from, const char *to) {
    char path[64], *text = NULL;
    size_t n = 0;
    snprintf(path, sizeof path, "%s/tokenizer.json", small);
    must(file_read(golden_path(path), 1 << 20, &text, &n));
    char *at = strstr(text, from);
    if (!at) fail_msg("%s does not stand in %s", from, path);
    char *made = calloc(n + strlen(to) + 1, 1);
    assert_non_null(made);
    memcpy(made, text, (size_t)(at - text));
    strcat(made, to);
    strcat(made, at + strlen(from));
    temp_text("tokenizer.json", made);
    free(made);
    mem_free(text);
    return temp_folder();
}

static void refused(
    const char *small, const char *from, const char *to, const char *name, const char *regex) {
    tokenizer *t = NULL;
    const qfw_status status = tokenizer_open(altered(small, from, to), 0, &t);
    assert_null(t);
    assert_error(status, name, EXIT_DATA, regex);
}

static void test_ids(void **state) {
    (void)state;
    refused("bytefallback", "\"<0x00>\": 3,", "\"<0x00>\": 623,", "E_TOK_ID",
        "tokenizer\\.json: token '<0x00>' has the id 623, wanted 0 \\.\\. 622: an eighth more "
        "than there are tokens, and 64");
    refused("bytefallback", "\"<0x00>\": 3,", "\"<0x00>\": -1,", "E_TOK_ID", "has the id -1");
    refused("bytefallback", "\"<0x00>\": 3,", "\"<0x00>\": 2147483647,", "E_TOK_ID", "2147483647");
    refused("bytefallback", "\"<0x00>\": 3,", "\"<0x00>\": 5000000000,", "E_TOK_ID", "5000000000");
    refused("bytefallback", "\"<0x00>\": 3,", "\"<0x00>\": 4,", "E_TOK_ID",
        "tokens '<0x0[01]>' and '<0x0[01]>' have one id, 4");
    refused("bytefallback", "\"<0x00>\": 3,", "\"<0x00>\": \"3\",", "E_TOK_ID", "not an integer");
    refused(
        "bytefallback", "\"id\": 496", "\"id\": 700", "E_TOK_ID", "<\\|user\\|>' has the id 700");
}

/* An id without a token is no text; what is behind it is as it was. */
static void test_holes(void **state) {
    static const int32_t three[] = {496, 5, 509};
    tokenizer *t = NULL;
    char *text = NULL;
    size_t n = 0;
    (void)state;
    assert_int_equal(
        tokenizer_open(altered("bytefallback", "\"id\": 496", "\"id\": 510"), 0, &t), QFW_OK);
    assert_int_equal(tokenizer_size(t), 511);
    assert_null(tokenizer_token(t, 496));
    assert_string_equal(tokenizer_token(t, 510), "<|user|>");
    assert_int_equal(tokenizer_id(t, "<|user|>"), 510);
    assert_int_equal(tokenizer_decode(t, three, 3, 0, &text, &n), QFW_OK);
    assert_int_equal(n, 1);
    mem_free(text);
    tokenizer_close(t);
}

#define FOUR "\xe2\x96\x81\xe2\x96\x81\xe2\x96\x81\xe2\x96\x81" /* four times this is the longest */

static void test_merges(void **state) {
    (void)state;
    refused("bytefallback", "\"merges\": [", "\"merges\": [[\"\xe2\x96\x81\", \"nope\"],",
        "E_TOK_MERGE", "model\\.merges\\[0\\]: '.*' \\+ 'nope': the right part is not in");
    refused("bytefallback", "\"merges\": [", "\"merges\": [[\"nope\", \"e\"],", "E_TOK_MERGE",
        "merges\\[0\\].*the left part is not in");
    refused("bytefallback", "\"merges\": [", "\"merges\": [[\"<unk>\", \"<s>\"],", "E_TOK_MERGE",
        "merges\\[0\\].*the result is not in");
    refused("bytefallback", "\"merges\": [",
        "\"merges\": [[\"<|endoftext|>\", \"<|placeholder1|>\"],", "E_TOK_MERGE", "merges\\[0\\]");
    refused("bytefallback", "\"merges\": [",
        "\"merges\": [[\"" FOUR FOUR FOUR FOUR "\", \"" FOUR FOUR FOUR FOUR "\"],", "E_TOK_MERGE",
        "merges\\[0\\].*the result is not in");
    refused("bytefallback", "\"merges\": [", "\"merges\": [\"a b c\",", "E_TOK_MERGE",
        "merges\\[0\\]: wanted \"a b\"");
    refused("bytefallback", "\"merges\": [", "\"merges\": [7,", "E_TOK_MERGE", "merges\\[0\\]");
    refused(
        "bytefallback", "\"merges\": [", "\"merges\": [[\"e\"],", "E_TOK_MERGE", "merges\\[0\\]");
    refused("bytefallback", "\"merges\": [", "\"merges\": {}, \"x\": [", "E_TOK_MERGE", "a list");
}

static void test_added(void **state) {
    (void)state;
    char *longest = malloc(1 << 20);
    assert_non_null(longest);
    refused("bytefallback", "\"content\": \"<|user|>\"", "\"content\": \"\"", "E_TOK_ADDED",
        "added_tokens\\[9\\]\\.content: 0 bytes");
    snprintf(longest, 20, "\"content\": \"");
    memset(longest + 12, 'x', (1 << 20) - 14);
    strcpy(longest + (1 << 20) - 2, "\"");
    refused("bytefallback", "\"content\": \"<|user|>\"", longest, "E_TOK_ADDED",
        "added_tokens\\[9\\]\\.content: 1048562 bytes, wanted 1");
    free(longest);
    refused("bytefallback", "\"content\": \"<s>\"", "\"content\": \"<q>\"", "E_TOK_ADDED",
        "'<s>' and '<q>' have one id, 1");
    refused("bytefallback", "\"id\": 1,", "\"id\": 2,", "E_TOK_ADDED",
        "'<s>' has the id 2 here and 1 in model\\.vocab");
    refused("bytefallback", "\"content\": \"<|user|>\"", "\"content\": \"<|end|>\"", "E_TOK_ADDED",
        "added_tokens\\[8\\] and \\[9\\] are one text");
}

static void test_unsupported(void **state) {
    (void)state;
    refused("bytefallback", "\"type\": \"Prepend\"", "\"type\": \"BertNormalizer\"",
        "E_TOK_UNSUPPORTED", "tokenizer\\.json: normalizer: 'BertNormalizer' is not supported");
    refused("bytefallback", "\"String\": \" \"", "\"Regex\": \" \"", "E_TOK_UNSUPPORTED",
        "normalizer: 'Replace whose pattern is not a String'");
    refused("bytefallback", "\"pre_tokenizer\": null",
        "\"pre_tokenizer\": {\"type\": \"Whitespace\"}", "E_TOK_UNSUPPORTED",
        "pre_tokenizer: 'Whitespace'");
    refused("bytefallback", "\"pre_tokenizer\": null",
        "\"pre_tokenizer\": {\"type\": \"Metaspace\", \"replacement\": \"__\"}",
        "E_TOK_UNSUPPORTED", "pre_tokenizer: 'Metaspace whose replacement is not one character'");
    refused("bytefallback", "\"pre_tokenizer\": null",
        "\"pre_tokenizer\": {\"type\": \"Metaspace\", \"replacement\": \"_\", "
        "\"prepend_scheme\": \"last\"}",
        "E_TOK_UNSUPPORTED", "pre_tokenizer: 'last'");
    refused("bytefallback", "\"pre_tokenizer\": null",
        "\"pre_tokenizer\": {\"type\": \"Metaspace\", \"replacement\": \"_\", "
        "\"add_prefix_space\": false}",
        "E_TOK_UNSUPPORTED", "add_prefix_space = false and a prepend_scheme but never");
    refused("bytelevel_split", "\"type\": \"Split\"",
        "\"type\": \"Metaspace\", \"replacement\": \"_\"", "E_TOK_UNSUPPORTED",
        "a step after ByteLevel or Metaspace");
    refused("bytefallback", "\"post_processor\": null",
        "\"post_processor\": {\"type\": \"BertProcessing\"}", "E_TOK_UNSUPPORTED",
        "post_processor: 'BertProcessing'");
    refused("bytefallback", "\"type\": \"ByteFallback\"", "\"type\": \"WordPiece\"",
        "E_TOK_UNSUPPORTED", "decoder: 'WordPiece'");
    refused("bytefallback", "\"type\": \"BPE\"", "\"type\": \"Unigram\"", "E_TOK_UNSUPPORTED",
        "model: 'Unigram'");
    refused("bytefallback", "\"dropout\": null", "\"dropout\": 0.1", "E_TOK_UNSUPPORTED",
        "model: 'BPE with dropout'");
    refused("bytefallback", "\"end_of_word_suffix\": null", "\"end_of_word_suffix\": \"</w>\"",
        "E_TOK_UNSUPPORTED", "model: 'end_of_word_suffix'");
    refused("bytelevel_split", "\"behavior\": \"Isolated\"", "\"behavior\": \"Contiguous\"",
        "E_TOK_UNSUPPORTED", "Split behavior");
    refused(
        "bytelevel_split", "{1,3}|", "{1,3}+|", "E_TOK_UNSUPPORTED", "pattern .* mean the same");
    refused("bytelevel_split", "{1,3}|", "{1,3}|\\\\h|", "E_TOK_UNSUPPORTED", "mean the same");
    refused("bytelevel_split", "{1,3}|", "{1,3}|$|", "E_TOK_UNSUPPORTED", "mean the same");
    refused("bytelevel_split", "{1,3}|", "{1,3}|(a|", "E_TOK_UNSUPPORTED", "pattern .*paren");
}

static void test_vocab_limit(void **state) {
    (void)state;
    tokenizer *t = NULL;
    must(tokenizer_open(golden_path("bytefallback"), 497, &t));
    assert_int_equal(tokenizer_size(t), 497);
    assert_int_equal(tokenizer_limit(t), 497);
    tokenizer_close(t);
    const qfw_status status = tokenizer_open(golden_path("bytefallback"), 496, &t);
    assert_null(t);
    assert_error(status, "E_TOK_VOCAB", EXIT_DATA, "497 tokens, .* vocab_size is 496");
    assert_error(
        tokenizer_open(temp_path("nowhere"), 0, &t), "E_NOINPUT", EXIT_NOINPUT, "tokenizer.json");
}

/* --- a tokenizer made here --- */

/* The tokens a, b, c, " ", ab, abc and the added tokens given, ids from 6 on. */
static tokenizer *open_tiny(const char *added, const char *rewrite) {
    char text[4096];
    tokenizer *t = NULL;
    snprintf(text, sizeof text,
        "{\"added_tokens\": [%s], \"normalizer\": %s, \"pre_tokenizer\": null, \"post_processor\": "
        "null, \"decoder\": null, \"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1, "
        "\"c\": 2, \" \": 3, \"ab\": 4, \"abc\": 5}, \"merges\": [\"a b\", \"ab c\"]}}",
        added, rewrite);
    temp_text("tokenizer.json", text);
    must(tokenizer_open(temp_folder(), 0, &t));
    return t;
}

static void test_flags(void **state) {
    (void)state;
    tokenizer *t =
        open_tiny("{\"id\": 6, \"content\": \"<x>\", \"special\": true, \"single_word\": "
                  "true}, {\"id\": 7, \"content\": \"<y>\", \"special\": true, "
                  "\"lstrip\": true}, {\"id\": 8, \"content\": \"<y>c\", \"special\": "
                  "true}, {\"id\": 9, \"content\": \"<\", \"special\": true},"
                  "{\"id\": 10, \"content\": \"x>\", \"special\": true}",
            "null");
    encodes(t, "abc", "5");
    encodes(t, "", "");
    encodes(t, "<x>", "6");
    encodes(t, "a <x> b", "0 3 6 3 1");
    encodes(t, "a  <y>a", "0 7 0");   /* white space in front is swallowed */
    encodes(t, "a  <y>c", "0 3 3 8"); /* the longest wins, and it strips nothing */
    encodes(t, "<y> <y>", "7 7");
    ids got = {0};
    /* <x> inside a word is passed over whole: "<" and "x>" are not found in it. What was found
     * before is not kept. */
    assert_error(tokenizer_encode(t, "<y>a<x>", 7, 1, &got), "E_TOK_UNKNOWN", EXIT_DATA,
        "'<' has no token, and the tokenizer has no unk_token");
    assert_int_equal(got.n, 0);
    ids_free(&got);
    tokenizer_close(t);
}

static void test_normalized_tokens(void **state) {
    (void)state;
    /* "q" is normalised to "ab": a token that is normalised is found there. */
    tokenizer *t = open_tiny("{\"id\": 6, \"content\": \"q\", \"special\": true, \"normalized\": "
                             "true}, {\"id\": 7, \"content\": \"bc\", \"special\": true}",
        "{\"type\": \"Replace\", \"pattern\": {\"String\": \"q\"}, \"content\": \"ab\"}");
    encodes(t, "qc", "6 2");
    encodes(t, "abc", "0 7");
    encodes(t, "cab", "2 6");
    const text_part plain[3] = {{"c", 1, 1, 0}, {"q", 1, 0, 1}, {"q", 1, 1, 0}};
    ids got = {0};
    must(tokenizer_encode_parts(t, plain, 3, &got));
    assert_string_equal(ids_text(&got), "2 4 6"); /* the plain q is text */
    assert_int_equal(got.mark[0], 0);
    assert_int_equal(got.mark[1], 1);
    assert_int_equal(got.mark[2], 0);
    ids_free(&got);
    tokenizer_close(t);
}

static void test_pretokenizers(void **state) {
    (void)state;
    tokenizer *t = NULL;
    ids with = {0}, without = {0};
    must(tokenizer_open(golden_path("bytelevel"), 0, &t));
    must(tokenizer_encode(t, " the", 4, 1, &with));
    tokenizer_close(t);
    (void)altered("bytelevel", "\"add_prefix_space\": false", "\"add_prefix_space\": true");
    must(tokenizer_open(temp_folder(), 0, &t));
    must(tokenizer_encode(t, "the", 3, 1, &without));
    assert_string_equal(ids_text(&without), ids_text(&with));
    without.n = 0;
    must(tokenizer_encode(t, " the", 4, 1, &without)); /* there is one already */
    assert_string_equal(ids_text(&without), ids_text(&with));
    tokenizer_close(t);
    /* invert: what does not match is thrown away */
    (void)altered("bytelevel_split", "\"behavior\": \"Isolated\",\n        \"invert\": false",
        "\"behavior\": \"Removed\", \"invert\": true");
    must(tokenizer_open(temp_folder(), 0, &t));
    without.n = with.n = 0;
    must(tokenizer_encode(t, " the", 4, 1, &without));
    assert_true(without.n > 0);
    tokenizer_close(t);
    (void)altered("bytelevel_split", "\"behavior\": \"Isolated\"", "\"behavior\": \"Removed\"");
    must(tokenizer_open(temp_folder(), 0, &t));
    must(tokenizer_encode(t, " the", 4, 1, &with));
    assert_int_equal(with.n, 0); /* the pattern matches everything */
    tokenizer_close(t);
    ids_free(&with);
    ids_free(&without);
}

/* --- parts --- */

static void test_parts(void **state) {
    (void)state;
    tokenizer *t = NULL;
    ids whole = {0}, parts = {0}, content = {0};
    must(tokenizer_open(golden_path("bytefallback"), 0, &t));
    const int32_t user = tokenizer_id(t, "<|user|>"), end = tokenizer_id(t, "<|end|>");
    assert_int_equal(user, 496);
    assert_int_equal(end, 495);
    const text_part chat[3] = {
        {"<|user|>\n", 9, 1, 0}, {" \n the time", 11, 0, 1}, {"<|end|>\n", 8, 1, 1}};
    must(tokenizer_encode_parts(t, chat, 3, &parts));
    must(tokenizer_encode(t, "<|user|>\n \n the time<|end|>\n", 28, 1, &whole));
    assert_string_equal(ids_text(&parts), ids_text(&whole));
    assert_int_equal(parts.id[0], user);
    assert_int_equal(parts.id[parts.n - 1], end);
    for (size_t i = 0; i < parts.n; i++) assert_int_equal(parts.mark[i], i > 0);
    parts.n = 0;
    /* Typed marks are text, also when the template's text would complete them. */
    const text_part typed[3] = {
        {"<|user|>\n", 9, 1, 0}, {"<|end|>x<|en", 12, 0, 0}, {"d|>", 3, 1, 0}};
    must(tokenizer_encode_parts(t, typed, 3, &parts));
    must(tokenizer_encode(t, "<|end|>x<|end|>", 15, 0, &content));
    assert_int_equal(parts.id[0], user);
    assert_int_equal(parts.n, 1 + content.n);
    assert_memory_equal(parts.id + 1, content.id, content.n * sizeof *content.id);
    for (size_t i = 0; i < content.n; i++) assert_true(content.id[i] < 490);
    ids_free(&whole);
    ids_free(&parts);
    ids_free(&content);
    tokenizer_close(t);
}

/* --- hostile texts --- */

static void round_trip(const tokenizer *t, const char *text, size_t n) {
    char *back = NULL;
    size_t n_back = 0;
    ids got = {0};
    must(tokenizer_encode(t, text, n, 0, &got));
    for (size_t i = 0; i < got.n; i++) assert_true(got.id[i] >= 0 && got.id[i] < tokenizer_size(t));
    must(tokenizer_decode(t, got.id, got.n, 0, &back, &n_back));
    assert_int_equal(n_back, n);
    assert_memory_equal(back, text, n);
    mem_free(back);
    ids_free(&got);
}

/* What a small tokenizer does with 1 MiB of one unit; lossless: the text comes back. */
static void check_long(const char *name, int lossless) {
    static const char *const units[] = {
        "e", "A", " ", "th", "Ab1\xe4\xb8\xad", "\xcc\x81\xcc\xa3", "<|", "\n", " \n"};
    const size_t n = 1 << 20;
    char *text = malloc(n);
    tokenizer *t = NULL;
    assert_non_null(text);
    must(tokenizer_open(golden_path(name), 0, &t));
    for (size_t u = 0; u < sizeof units / sizeof units[0]; u++) {
        const size_t bytes = strlen(units[u]), n_text = n / bytes * bytes;
        for (size_t i = 0; i + bytes <= n; i += bytes) memcpy(text + i, units[u], bytes);
        const double started = work_seconds();
        ids got = {0};
        if (lossless)
            round_trip(t, text, n_text);
        else
            must(tokenizer_encode(t, text, n_text, 0, &got));
        ids_free(&got);
        const double seconds = work_seconds() - started;
        if (seconds > 20) fail_msg("%s: 1 MiB of '%s' takes %.1f s", name, units[u], seconds);
    }
    tokenizer_close(t);
    free(text);
}

static void test_long_texts(void **state) {
    (void)state;
    check_long("bytefallback", 1);
    check_long("bytelevel", 1);
    check_long("bytelevel_split", 1);
    check_long("o200k", 1);
    check_long("qwen2", 0);
    check_long("llama2", 0);
    check_long("metaspace", 0);
}

static void test_all_bytes(void **state) {
    (void)state;
    static const char *const names[] = {
        "bytefallback", "bytelevel", "bytelevel_split", "llama3", "o200k"};
    char text[600];
    size_t n = 0;
    for (uint32_t c = 0; c < 0x100; c++) n += utf8_write(c, text + n);
    for (size_t k = 0; k < sizeof names / sizeof names[0]; k++) {
        tokenizer *t = NULL;
        must(tokenizer_open(golden_path(names[k]), 0, &t));
        round_trip(t, text, n);
        tokenizer_close(t);
    }
}

static void test_invalid_utf8(void **state) {
    (void)state;
    static const struct {
        const char *text;
        size_t at;
    } cases[] = {{"ab\xff", 2}, {"\xc3", 0}, {"a\xc0\x80", 1}, {"\xed\xa0\x80", 0},
        {"x\xf4\x90\x80\x80", 1}, {"\xe2\x96", 0}, {"\x80", 0}};
    tokenizer *t = NULL;
    ids got = {0};
    char regex[64];
    must(tokenizer_open(golden_path("bytelevel"), 0, &t));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *text = cases[i].text;
        snprintf(regex, sizeof regex, "is not UTF-8 \\(byte %zu of the text\\)", cases[i].at);
        assert_error(
            tokenizer_encode(t, text, strlen(text), 1, &got), "E_TOK_UTF8", EXIT_DATA, regex);
        assert_int_equal(got.n, 0);
    }
    ids_free(&got);
    tokenizer_close(t);
}

/* --- decoding --- */

static void test_decode(void **state) {
    (void)state;
    tokenizer *t = NULL;
    char *text = NULL;
    size_t n = 0;
    must(tokenizer_open(golden_path("bytefallback"), 0, &t));
    const int32_t bytes[] = {496, 3 + 0xc3, 3 + 0xa9, 3 + 0xff, 3 + 'a', 495};
    must(tokenizer_decode(t, bytes, 6, 1, &text, &n));
    assert_string_equal(
        text, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"); /* one broken run */
    mem_free(text);
    must(tokenizer_decode(t, bytes, 3, 0, &text, &n));
    assert_string_equal(text, "<|user|>\xc3\xa9");
    mem_free(text);
    tokenizer *wide = NULL; /* of a model with more rows than tokens */
    const int32_t beyond[] = {3 + 'a', 499, 3 + 'b'};
    must(tokenizer_open(golden_path("bytefallback"), 512, &wide));
    must(tokenizer_decode(wide, beyond, 3, 0, &text, &n));
    assert_string_equal(text, "ab");
    mem_free(text);
    tokenizer_close(wide);
    const int32_t none[] = {3, 497};
    assert_error(tokenizer_decode(t, none, 2, 0, &text, &n), "E_TOK_ID", EXIT_DATA,
        "497 is no token \\(ids\\[1\\]\\)");
    assert_null(text);
    tokenizer_close(t);
    must(tokenizer_open(golden_path("bytelevel"), 0, &t));
    ids got = {0};
    must(tokenizer_encode(t, "\xe4\xb8\xad!", 4, 0, &got));
    must(tokenizer_decode(t, got.id, got.n - 2, 0, &text, &n)); /* a character that is cut */
    assert_string_equal(text, "\xef\xbf\xbd");
    mem_free(text);
    ids_free(&got);
    tokenizer_close(t);
}

/* Bytes that are no UTF-8 through ByteLevel: one U+FFFD for each sequence that cannot go on. */
static void test_lossy(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t n_marks;
    } cases[] = {{"\xed\xa0\x80", 3}, {"\xe0\x80\x80", 3}, {"\xf0\x80\x80\x80", 4},
        {"\xf4\x90\x80\x80", 4}, {"\xf5\x80", 2}, {"\xf0\x9f\x98", 1}, {"\xe4\xb8", 1}, {"\xc3", 1},
        {"\xc3\xc3", 2}, {"\xe4\xb8\xe4\xb8", 2}, {"\x80\x80", 2}};
    tokenizer *t = NULL;
    must(tokenizer_open(golden_path("bytelevel"), 0, &t));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const size_t n = strlen(cases[i].bytes);
        int32_t id[8];
        char c[5], *text = NULL;
        size_t n_text = 0;
        for (size_t k = 0; k < n; k++) {
            c[utf8_write(char_of_byte((uint8_t)cases[i].bytes[k]), c)] = 0;
            id[k] = tokenizer_id(t, c);
        }
        must(tokenizer_decode(t, id, n, 0, &text, &n_text));
        assert_int_equal(n_text, 3 * cases[i].n_marks);
        for (size_t k = 0; k < n_text; k += 3) assert_memory_equal(text + k, "\xef\xbf\xbd", 3);
        mem_free(text);
    }
    tokenizer_close(t);
}

/* --- tokenizer_config.json --- */

static void test_config(void **state) {
    (void)state;
    tokenizer *t = NULL;
    (void)altered("bytefallback", "\"post_processor\": null",
        "\"post_processor\": {\"type\": \"Sequence\", \"processors\": [{\"type\": \"ByteLevel\"}, "
        "{\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"<s>\", "
        "\"type_id\": 0}}, {\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}], \"special_tokens\": "
        "{\"<s>\": {\"id\": \"<s>\", \"ids\": [1], \"tokens\": [\"<s>\"]}}}]}");
    temp_text("tokenizer_config.json",
        "{\"eos_token\": {\"content\": \"<|endoftext|>\"}, \"bos_token\": null, \"pad_token\": "
        "\"</s>\", \"chat_template\": [{\"name\": \"tool_use\", \"template\": \"t\"}, {\"name\": "
        "\"default\", \"template\": \"d\"}]}");
    must(tokenizer_open(temp_folder(), 0, &t));
    assert_int_equal(tokenizer_eos(t), 490);
    assert_int_equal(tokenizer_bos(t), 1);
    assert_int_equal(tokenizer_pad(t), 2);
    assert_true(tokenizer_adds_bos(t));
    assert_true(tokenizer_is_special(t, 490));
    assert_false(tokenizer_is_special(t, 2));
    assert_string_equal(tokenizer_chat_template(t), "d");
    assert_string_equal(tokenizer_token(t, 3), "<0x00>");
    assert_null(tokenizer_token(t, 497));
    assert_null(tokenizer_token(t, -1));
    tokenizer_close(t);
    temp_text("chat_template.jinja", "j");
    must(tokenizer_open(temp_folder(), 0, &t));
    assert_string_equal(tokenizer_chat_template(t), "j");
    tokenizer_close(t);
    temp_text("tokenizer_config.json", "{\"eos_token\": \"<eos>\"}");
    assert_error(tokenizer_open(temp_folder(), 0, &t), "E_TOK_SPECIAL", EXIT_DATA,
        "tokenizer_config\\.json: eos_token: '<eos>' is no token");
    temp_text("tokenizer_config.json", "{}");
    refused("bytefallback", "\"post_processor\": null",
        "\"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [{\"Sequence\": "
        "{\"id\": \"A\"}}, {\"SpecialToken\": {\"id\": \"</s>\"}}], \"special_tokens\": {}}",
        "E_TOK_UNSUPPORTED", "more than one token in front");
}

/* --- memory --- */

/* Whatever allocation fails: an error, no leak, no crash. */
static void test_no_memory(void **state) {
    (void)state;
    static const char text[] = "the <|user|>\n time<|end|> \xe4\xb8\xad";
    for (uint64_t k = 1;; k++) {
        tokenizer *t = NULL;
        ids got = {0};
        char *back = NULL;
        size_t n = 0;
        mem_fail_at(k);
        qfw_status status = tokenizer_open(golden_path("bytefallback"), 0, &t);
        if (status == QFW_OK) status = tokenizer_encode(t, text, sizeof text - 1, 1, &got);
        if (status == QFW_OK) status = tokenizer_decode(t, got.id, got.n, 0, &back, &n);
        mem_fail_at(0);
        if (status != QFW_OK) assert_string_equal(err_name(), "E_MEM");
        mem_free(back);
        ids_free(&got);
        tokenizer_close(t);
        if (status == QFW_OK) break;
        if (k > 40) k += 97; /* jansson's thousands: not each of them */
    }
    err_clear();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ids),
        cmocka_unit_test(test_holes),
        cmocka_unit_test(test_merges),
        cmocka_unit_test(test_added),
        cmocka_unit_test(test_unsupported),
        cmocka_unit_test(test_vocab_limit),
        cmocka_unit_test(test_flags),
        cmocka_unit_test(test_normalized_tokens),
        cmocka_unit_test(test_pretokenizers),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_long_texts),
        cmocka_unit_test(test_all_bytes),
        cmocka_unit_test(test_invalid_utf8),
        cmocka_unit_test(test_decode),
        cmocka_unit_test(test_lossy),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_config),
    };
    return cmocka_run_group_tests(tests, temp_make, temp_drop);
}

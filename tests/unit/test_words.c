/* test_words.c -- how a text is cut into words and a word merged into tokens, by tokenizers small
 * enough to do it by hand. */
#include "../support/temp.h"
#include "../support/texts.h"
#include "base/error.h"

#include "../support/test.h"

static void with_unk(const char *flags, const char *text, const char *wanted) {
    char json[1024];
    tokenizer *t = NULL;
    snprintf(json, sizeof json,
        "{\"added_tokens\": [], \"model\": {\"type\": \"BPE\", \"unk_token\": \"?\", %s, "
        "\"vocab\": {\"?\": 0, \"a\": 1, \"b\": 2, \"ab\": 3, \"<0x78>\": 4}, \"merges\": [\"a "
        "b\"]}}",
        flags);
    temp_text("tokenizer.json", json);
    must(tokenizer_open(temp_folder(), 0, &t));
    encodes(t, text, wanted);
    tokenizer_close(t);
}

static void test_unknown(void **state) {
    (void)state;
    with_unk("\"fuse_unk\": true", "xyab", "0 3");
    with_unk("\"fuse_unk\": true", "axyzbx", "1 0 2 0");
    with_unk("\"fuse_unk\": false", "axybx", "1 0 0 2 0");
    with_unk("\"fuse_unk\": true, \"byte_fallback\": true", "axb", "1 4 2");
    with_unk("\"fuse_unk\": true, \"byte_fallback\": true", "ayxzb", "1 4 0 2"); /* x overtakes y */
    with_unk("\"ignore_merges\": true", "?", "0");
}

/* Tokens that merges make, but not of their own text: another merge comes first, or a character of
 * theirs has no token. */
static void test_not_whole(void **state) {
    (void)state;
    tokenizer *t = NULL;
    temp_text("tokenizer.json",
        "{\"added_tokens\": [], \"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1, "
        "\"c\": 2, \"ab\": 3, \"bc\": 4, \"abc\": 5, \"xy\": 6, \"xyxy\": 7}, \"merges\": "
        "[\"b c\", \"a b\", \"ab c\", \"xy xy\"]}}");
    must(tokenizer_open(temp_folder(), 0, &t));
    encodes(t, "abc", "0 4");
    encodes(t, "ab", "3");
    ids got = {0};
    assert_error(tokenizer_encode(t, "xyxy", 4, 1, &got), "E_TOK_UNKNOWN", EXIT_DATA, "'x'");
    ids_free(&got);
    tokenizer_close(t);
}

/* Words are cut before a blank only where no merge reaches over that place. */
static void test_cuts(void **state) {
    (void)state;
    static const char *const merges[] = {"\"_ a\", \"_ _\", \"__ a\"", "\"a _\", \"_ _\""};
    for (size_t i = 0; i < 2; i++) {
        char text[1024], full[2048], *to = full;
        tokenizer *t = NULL;
        snprintf(text, sizeof text,
            "{\"added_tokens\": [], \"model\": {\"type\": \"BPE\", \"vocab\": {\"_\": 0, "
            "\"a\": 1, \"_a\": 2, \"a_\": 3, \"__\": 5, \"__a\": 4}, \"merges\": [%s]}, "
            "\"normalizer\": {\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, "
            "\"content\": \"_\"}}",
            merges[i]);
        for (const char *at = text; *at; at++)
            if (*at == '_') {
                memcpy(to, "\xe2\x96\x81", 3);
                to += 3;
            } else
                *to++ = *at;
        *to = 0;
        temp_text("tokenizer.json", full);
        must(tokenizer_open(temp_folder(), 0, &t));
        encodes(t, i ? "a  a  " : " a   ", i ? "3 0 3 0" : "2 5 0");
        tokenizer_close(t);
    }
}

static void test_ignore_merges(void **state) {
    (void)state;
    tokenizer *t = NULL;
    temp_text("tokenizer.json",
        "{\"added_tokens\": [], \"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"String\": "
        "\"-\"}, \"behavior\": \"Removed\", \"invert\": false}, \"model\": {\"ignore_merges\": "
        "true, "
        "\"vocab\": {\"a\": 0, \"b\": 1, \"-\": 2, \"aba\": 3}, \"merges\": []}}");
    must(tokenizer_open(temp_folder(), 0, &t));
    encodes(t, "aba-ab--aba", "3 0 1 3"); /* a whole word that is a token is one */
    tokenizer_close(t);
}

/* Metaspace, by pieces that its prefix and its cuts change: "_" is the blank. */
static void metaspace(const char *flags, const char *text, const char *wanted) {
    char json[1024];
    tokenizer *t = NULL;
    snprintf(json, sizeof json,
        "{\"added_tokens\": [{\"id\": 6, \"content\": \"<s>\", \"special\": true}], "
        "\"pre_tokenizer\": {\"type\": \"Metaspace\", \"replacement\": \"_\"%s}, "
        "\"model\": {\"type\": \"BPE\", \"vocab\": {\"_\": 0, \"a\": 1, \"_a\": 2, "
        "\"a_\": 3, \"b\": 4, \"__\": 5}, \"merges\": [\"a _\", \"_ a\", \"_ _\"]}}",
        flags);
    temp_text("tokenizer.json", json);
    must(tokenizer_open(temp_folder(), 0, &t));
    encodes(t, text, wanted);
    tokenizer_close(t);
}

static void test_metaspace(void **state) {
    (void)state;
    static const char never[] = ", \"add_prefix_space\": false, \"prepend_scheme\": \"never\"";
    static const char first[] = ", \"prepend_scheme\": \"first\"";
    static const char whole[] = ", \"prepend_scheme\": \"first\", \"split\": false";
    metaspace("", "a a<s>a", "2 2 6 2");
    metaspace("", " a", "2"); /* there is a blank already */
    metaspace("", "_a", "2");
    metaspace("", "a  a", "2 0 2"); /* words begin with their blank */
    metaspace(first, "a a<s>a", "2 2 6 1");
    metaspace(first, "<s>a", "6 1");
    metaspace(never, "a a<s>a", "1 2 6 1");
    metaspace(whole, "a a", "0 3 1"); /* one word: "a _" is the first merge */
    metaspace(whole, "a  a", "0 3 2");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unknown),
        cmocka_unit_test(test_not_whole),
        cmocka_unit_test(test_cuts),
        cmocka_unit_test(test_ignore_merges),
        cmocka_unit_test(test_metaspace),
    };
    return cmocka_run_group_tests(tests, temp_make, temp_drop);
}

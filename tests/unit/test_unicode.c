/* test_unicode.c -- UTF-8, properties, and the normal forms. */
#include "text/unicode.h"

#include "../support/temp.h"
#include "../support/texts.h"

#include "../support/test.h"

static void test_utf8(void **state) {
    (void)state;
    static const uint32_t edges[] = {
        0, 0x7f, 0x80, 0x7ff, 0x800, 0xd7ff, 0xe000, 0xffff, 0x10000, 0x10ffff};
    static const char *const bad[] = {"\x80", "\xc0\x80", "\xc1\xbf", "\xe0\x9f\xbf",
        "\xed\xa0\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80", "\xe4\xb8",
        "\xff"};
    char bytes[4];
    uint32_t c = 0;
    for (size_t i = 0; i < sizeof edges / sizeof edges[0]; i++) {
        const size_t n = utf8_write(edges[i], bytes);
        assert_int_equal(utf8_read(bytes, n, &c), n);
        assert_int_equal(c, edges[i]);
        assert_int_equal(utf8_check(bytes, n), n);
        if (n > 1) assert_int_equal(utf8_read(bytes, n - 1, &c), 0);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(utf8_read(bad[i], strlen(bad[i]), &c), 0);
        assert_int_equal(utf8_check(bad[i], strlen(bad[i])), 0);
    }
}

static void test_properties(void **state) {
    (void)state;
    static const uint32_t spaces[] = {9, 10, 11, 12, 13, 32, 0x85, 0xa0, 0x1680, 0x2000, 0x200a,
        0x2028, 0x2029, 0x202f, 0x205f, 0x3000};
    static const uint32_t others[] = {8, 14, 0x1c, 0x1f, 0x7f, 0x180e, 0x200b, 0x2060, 0xfeff, 'a'};
    static const uint32_t words[] = {
        'a', 'Z', '0', '_', 0xe9, 0x301, 0x4e2d, 0x660, 0x200d, 0x2160, 0x24b6, 0x203f};
    static const uint32_t not_words[] = {' ', '-', '<', 0xb2, 0xbd, 0x2028, 0x1f600};
    for (size_t i = 0; i < sizeof spaces / 4; i++) assert_true(unicode_is_space(spaces[i]));
    for (size_t i = 0; i < sizeof others / 4; i++) assert_false(unicode_is_space(others[i]));
    for (size_t i = 0; i < sizeof words / 4; i++) assert_true(unicode_is_word(words[i]));
    for (size_t i = 0; i < sizeof not_words / 4; i++) assert_false(unicode_is_word(not_words[i]));
}

/* --- normal forms --- */

static void normalizes(int form, const char *text, const char *wanted) {
    tagged in = {0}, out = {0};
    assert_int_equal(tagged_add(&in, text, strlen(text), 0), 0);
    must(unicode_normalize(tagged_all(&in), form, &out));
    assert_int_equal(tagged_add(&out, "", 1, 0), 0);
    if (strcmp(out.s, wanted))
        fail_msg("\"%s\" becomes \"%s\", wanted \"%s\"", text, out.s, wanted);
    tagged_free(&in);
    tagged_free(&out);
}

static void test_normal_forms(void **state) {
    (void)state;
    normalizes(UNICODE_NFC, "e\xcc\x81", "\xc3\xa9");
    normalizes(UNICODE_NFD, "\xc3\xa9", "e\xcc\x81");
    normalizes(UNICODE_NFC, "\xe1\x84\x92\xe1\x85\xa1\xe1\x86\xab", "\xed\x95\x9c"); /* Hangul */
    normalizes(UNICODE_NFD, "\xed\x95\x9c", "\xe1\x84\x92\xe1\x85\xa1\xe1\x86\xab");
    /* marks in order of class: 0323 (220) before 0301 (230) */
    normalizes(UNICODE_NFD, "q\xcc\x81\xcc\xa3", "q\xcc\xa3\xcc\x81");
    /* 0301 composes, 0300 with the result does not */
    normalizes(UNICODE_NFC, "a\xcc\x81\xcc\x80", "\xc3\xa1\xcc\x80");
    /* composition reaches over a mark of lower class */
    normalizes(UNICODE_NFC, "a\xcc\x90\xcc\x81", "a\xcc\x90\xcc\x81"); /* 0301 is blocked by 0310 */
    normalizes(UNICODE_NFC, "q\xcc\x81\xcc\xa3", "q\xcc\xa3\xcc\x81");
    normalizes(UNICODE_NFC, "a\xcc\xa5\xcc\x81", "\xe1\xb8\x81\xcc\x81");
    normalizes(UNICODE_NFC, "\xe0\xa5\x98", "\xe0\xa4\x95\xe0\xa4\xbc"); /* excluded: stays apart */
    normalizes(UNICODE_NFKC, "\xef\xac\x81\xe2\x91\xa0", "fi1");
    normalizes(UNICODE_NFC, "\xef\xac\x81", "\xef\xac\x81");
    normalizes(UNICODE_NFKD, "\xef\xb7\xba",
        "\xd8\xb5\xd9\x84\xd9\x89 \xd8\xa7\xd9\x84\xd9\x84\xd9\x87 "
        "\xd8\xb9\xd9\x84\xd9\x8a\xd9\x87 \xd9\x88\xd8\xb3\xd9\x84\xd9\x85");
}

static void test_many_marks(void **state) {
    (void)state;
    tagged in = {0}, out = {0};
    assert_int_equal(tagged_add(&in, "a", 1, 0), 0);
    for (size_t i = 0; i < 100000; i++)
        assert_int_equal(tagged_add(&in, i % 2 ? "\xcc\xa3" : "\xcc\x81", 2, 0), 0);
    const double started = work_seconds();
    must(unicode_normalize(tagged_all(&in), UNICODE_NFC, &out));
    assert_true(work_seconds() - started < 5);
    /* "a" with a dot below, then the other dots, then the accents */
    assert_memory_equal(out.s, "\xe1\xba\xa1\xcc\xa3", 5);
    assert_memory_equal(out.s + out.n - 2, "\xcc\x81", 2);
    tagged_free(&in);
    tagged_free(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_utf8),
        cmocka_unit_test(test_properties),
        cmocka_unit_test(test_normal_forms),
        cmocka_unit_test(test_many_marks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* test_json.c -- strict parsing with places, limits before memory, the doc table, the writer. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../support/temp.h"
#include "base/error.h"
#include "base/mem.h"
#include "files/json.h"

#include <cmocka.h>

static qfw_doc *parse(const char *text) {
    qfw_doc *d = NULL;
    assert_int_equal(json_parse(text, strlen(text), "c.json", 0, "E_JSON", NULL, &d), QFW_OK);
    assert_non_null(d);
    return d;
}

/* As assert_error, of the error that stands, with a part of its sentence word by word. */
static void assert_said(const char *name, int exit_code, const char *part) {
    if (!strstr(err_text(0), part)) fail_msg("%s\nlacks: %s", err_text(0), part);
    assert_error(err_status(), name, exit_code, "");
}

static void assert_refused(const char *text, size_t n, const char *part) {
    qfw_doc *d = (qfw_doc *)(uintptr_t)text;
    assert_int_equal(json_parse(text, n, "c.json", 0, "E_JSON", NULL, &d), QFW_E_DATA);
    assert_null(d);
    assert_said("E_JSON", EXIT_DATA, part);
}

static void refuses_with_a_place(void **state) {
    (void)state;
    static const struct {
        const char *text, *part;
    } cases[] = {
        {"", "c.json:1:1: '[' or '{' expected near end of file (byte 0)"},
        {"  \n 7", "c.json:2:2: '[' or '{' expected near '7' (byte 4)"},
        {"{\"a\": tru}", "c.json:1:9: invalid token near 'tru' (byte 8)"},
        {"{\"a\": NaN}", "invalid token"},
        {"{\"a\": 1}}", "c.json:1:9: end of file expected near '}' (byte 8)"},
        {"{\"a\": 1,}", "c.json:1:9:"},
        {"{\"a\": 01}", "c.json:1:7:"},
        {"{\"a\": 1e400}", "c.json:1:11: real number overflow near '1e400' (byte 10)"},
        {"{\"a\": 9223372036854775808}", "too big integer"},
        {"{\"a\": \"\\ud800\"}", "invalid Unicode '\\uD800'"},
        {"{\"a\": \"\\u0000\"}", "\\u0000 is not allowed"},
        {"{\"a\":\n  \"\xff\"}", "c.json:2:4: unable to decode byte 0xff near '\"' (byte 9)"},
        {"{\"\xc3\xa9\xc3\xa9\": x}", "c.json:1:8: invalid token near 'x' (byte 9)"},
        {"{\"a\": 1 /* b */}", "c.json:1:9:"},
        {"\xef\xbb\xbf{}", "c.json:1:1: a byte order mark"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_refused(cases[i].text, strlen(cases[i].text), cases[i].part);
    assert_refused("{\"a\":\0 1}", 9, "c.json:1:6:");
}

static void names_both_of_two_equal_keys(void **state) {
    (void)state;
    static const struct {
        const char *text, *part;
    } cases[] = {
        {"{\"a\":1,\n \"a\":2}", "c.json:2:2: key \"a\" stands twice, first at 1:2 (byte 9)"},
        {"{\"c\":0,\"b\":{\"c\":2,\"\\u0063\":3}}",
            "c.json:1:19: key \"\\u0063\" stands twice, first at 1:13 (byte 18)"},
        {"[{\"k\":[{\"k\":1},{\"z\":{\"k\":1}}],\"l\":\"k\",\"k\":1}]",
            "c.json:1:39: key \"k\" stands twice, first at 1:3 (byte 38)"},
        {"{\"a key of more than twenty letters\":1,\"a key of more than twenty letters\":[2]}",
            "c.json:1:40: key \"a key of more than twenty letters\" stands twice, first at 1:2"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_refused(cases[i].text, strlen(cases[i].text), cases[i].part);
}

static void names_the_line_of_a_row(void **state) {
    (void)state;
    qfw_doc *d = NULL;
    const char *bad = "{\"text\": ", *good = "{\"text\": 1}";
    const char *text = NULL;
    assert_int_equal(json_parse(bad, 9, "t.jsonl", 17, "E_DATA_JSON", NULL, &d), QFW_E_DATA);
    assert_said("E_DATA_JSON", EXIT_DATA, "t.jsonl:17:9: unexpected token near end of file");
    assert_int_equal(json_parse(good, 11, "t.jsonl", 18, "E_DATA_JSON", NULL, &d), QFW_OK);
    assert_int_equal(json_doc_api.str(d, "/text", &text), QFW_E_DATA);
    assert_said(
        "E_DATA_FIELD", EXIT_DATA, "t.jsonl:18: /text: found the integer 1, wanted a string");
    assert_int_equal((json_doc_api.fail)(d, "/text", QFW_E_DATA, "too odd"), QFW_E_DATA);
    assert_said("E_DATA_FIELD", EXIT_DATA, "t.jsonl:18: /text: too odd");
    json_destroy(d);
}

/* Refused by the scan, long before jansson would have built a tree of it. */
static void refuses_too_much_at_once(void **state) {
    (void)state;
    enum { BYTES = 50 << 20 };
    const uint64_t before = mem_count();
    const double start = work_seconds();
    char *text = malloc(BYTES);
    qfw_doc *d = NULL;
    memset(text, '[', BYTES);
    assert_refused(text, BYTES, "c.json:1:65: more than 64 levels of nesting (byte 64)");
    for (size_t i = 1; i < BYTES; i++) text[i] = i % 2 ? '0' : ',';
    const json_limits few = {.max_depth = 8, .max_values = 1000};
    assert_int_equal(json_parse(text, BYTES, "c.json", 0, "E_JSON", &few, &d), QFW_E_DATA);
    assert_said("E_JSON", EXIT_DATA, "c.json:1:2001: more than 1000 values (byte 2000)");
    free(text);
    assert_int_equal(mem_count(), before);
    assert_true(work_seconds() - start < 2);
}

static void holds_limits_exactly(void **state) {
    (void)state;
    const json_limits limits = {.max_depth = 2, .max_values = 6, .max_members = 2};
    const json_source from = {
        .file = "c.json", .byte = 8, .name = "E_JSON", .limit_name = "E_ST_LIMIT"};
    static const struct {
        const char *text, *part; /* part NULL: accepted */
    } cases[] = {
        {"{\"[{,:\\\"[[[\":[1,2,3],\"b\":4}", "more than 6 values (byte 32)"},
        {"{\"[{,:\\\"[[[\":[1,2],\"b\":4}", NULL},
        {"{\"a\":[[]]}", "more than 2 levels of nesting (byte 14)"},
        {"[[],[],[]]", NULL},
        {"{\"a\":1,\"b\":2}", NULL},
        {"{\"a\":1,\"b\":2,\"c\":3}", "more than 2 members of the root (byte 24)"},
        {"{\"a\":1,\"b\":{\"x\":1}}", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qfw_doc *d = NULL;
        const char *text = cases[i].text;
        const qfw_status status = json_parse_from(text, strlen(text), &from, &limits, &d);
        assert_int_equal(status, cases[i].part ? QFW_E_DATA : QFW_OK);
        if (cases[i].part) assert_said("E_ST_LIMIT", EXIT_DATA, cases[i].part);
        json_destroy(d);
    }
}

static void finds_places(void **state) {
    (void)state;
    qfw_doc *d =
        parse("{\"a\":{\"b/c\":[10,{\"~\":true}],\"\":null},\"x\":1.5,\"s\":\"t\",\"big\":-7}");
    const qfw_doc_api *api = &json_doc_api;
    int64_t i = 0;
    double f = 0;
    const char *s = NULL;
    assert_int_equal(api->kind(d, ""), QFW_DOC_OBJECT);
    assert_int_equal(api->count(d, ""), 4);
    assert_string_equal(api->key(d, "", 0), "a");
    assert_string_equal(api->key(d, "", 3), "big");
    assert_null(api->key(d, "", 4));
    assert_null(api->key(d, "/x", 0));
    assert_null(api->key(d, "/none", 0));
    assert_int_equal(api->kind(d, "/a/b~1c"), QFW_DOC_ARRAY);
    assert_int_equal(api->count(d, "/a/b~1c"), 2);
    assert_int_equal(api->i64(d, "/a/b~1c/0", &i), QFW_OK);
    assert_int_equal(i, 10);
    assert_int_equal(api->kind(d, "/a/b~1c/1/~0"), QFW_DOC_BOOL);
    assert_int_equal(api->i64(d, "/a/b~1c/1/~0", &i), QFW_OK);
    assert_int_equal(i, 1);
    assert_int_equal(api->kind(d, "/a/"), QFW_DOC_NULL);
    assert_int_equal(api->f64(d, "/x", &f), QFW_OK);
    assert_true(f == 1.5);
    assert_int_equal(api->f64(d, "/big", &f), QFW_OK);
    assert_true(f == -7);
    assert_int_equal(api->str(d, "/s", &s), QFW_OK);
    assert_string_equal(s, "t");
    static const char *const absent[] = {
        "/none", "a", "/a/b~1c/2", "/a/b~1c/00", "/a/b~1c/x", "/a/b~1c/", "/s/t", "/a/b~1c/-1"};
    for (size_t k = 0; k < sizeof absent / sizeof *absent; k++)
        assert_int_equal(api->kind(d, absent[k]), QFW_DOC_ABSENT);
    assert_string_equal(json_file(d), "c.json");
    json_destroy(d);
    json_destroy(NULL);
}

static void says_what_it_found(void **state) {
    (void)state;
    qfw_doc *d = parse("{\"i\":8.0,\"f\":\"3072\",\"s\":[1],\"o\":null,\"e\":1e3}");
    const qfw_doc_api *api = &json_doc_api;
    int64_t i;
    double f;
    const char *s;
    assert_int_equal(api->i64(d, "/i", &i), QFW_E_DATA);
    assert_said("E_JSON_TYPE", EXIT_DATA, "c.json: /i: found the number 8.0, wanted an integer");
    assert_int_equal(api->i64(d, "/e", &i), QFW_E_DATA);
    err_clear();
    assert_int_equal(api->f64(d, "/f", &f), QFW_E_DATA);
    assert_said("E_JSON_TYPE", EXIT_DATA, "/f: found the string \"3072\", wanted a number");
    assert_int_equal(api->str(d, "/s", &s), QFW_E_DATA);
    assert_null(s);
    assert_said("E_JSON_TYPE", EXIT_DATA, "/s: found an array, wanted a string");
    assert_int_equal(api->str(d, "/none", &s), QFW_E_DATA);
    assert_said("E_JSON_TYPE", EXIT_DATA, "/none: found nothing, wanted a string");
    assert_int_equal((api->fail)(d, "/i", QFW_E_DATA, "E_CFG_RANGE: 8, wanted 9"), QFW_E_DATA);
    assert_said("E_CFG_RANGE", EXIT_DATA, "] c.json: /i: 8, wanted 9");
    assert_int_equal((api->fail)(d, "", QFW_E_DATA, "E: x"), QFW_E_DATA);
    assert_said("E_JSON_VALUE", EXIT_DATA, "] c.json: E: x");
    json_destroy(d);
}

/* Keys by number stay in file order and cheap where there are very many. */
static void walks_large_objects(void **state) {
    (void)state;
    enum { N = 100000 };
    json_out *o = json_out_create(0);
    size_t n = 0;
    char name[32];
    json_open(o, NULL, '{');
    json_open(o, "vocab", '{');
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof name, "key %d", (i * 7919) % N);
        json_int(o, name, i);
    }
    json_close(o);
    json_close(o);
    const char *text = json_out_text(o, &n);
    assert_non_null(text);
    qfw_doc *d = parse(text);
    const double start = work_seconds();
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof name, "key %d", (i * 7919) % N);
        assert_string_equal(json_doc_api.key(d, "/vocab", (uint64_t)i), name);
    }
    assert_null(json_doc_api.key(d, "/vocab", N));
    const json_node *vocab = json_node_member(json_root(d), "vocab");
    int64_t i = 0;
    for (json_member m = json_first(vocab); m.key; m = json_next(vocab, m))
        assert_int_equal(json_node_i64(m.value), i++);
    assert_int_equal(i, N);
    assert_true(work_seconds() - start < 5);
    json_destroy(d);
    json_out_destroy(o);
}

/* Many large objects, so that their places in memory and in the text differ. */
static void tells_large_objects_apart(void **state) {
    (void)state;
    enum { N = 40, MEMBERS = 17 };
    json_out *o = json_out_create(0);
    size_t n = 0;
    char name[32];
    json_open(o, NULL, '{');
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof name, "o%d", i);
        json_open(o, name, '{');
        for (int k = 0; k < MEMBERS; k++) {
            snprintf(name, sizeof name, "%d.%d", i, k);
            json_int(o, name, k);
        }
        json_close(o);
    }
    json_close(o);
    qfw_doc *d = parse(json_out_text(o, &n));
    for (int i = N; i-- > 0;) {
        char ptr[32];
        snprintf(ptr, sizeof ptr, "/o%d", i);
        for (int k = MEMBERS; k-- > 0;) {
            snprintf(name, sizeof name, "%d.%d", i, k);
            assert_string_equal(json_doc_api.key(d, ptr, (uint64_t)k), name);
        }
    }
    assert_string_equal(json_doc_api.key(d, "", N - 1), "o39");
    json_destroy(d);
    json_out_destroy(o);
}

static void walks_nodes(void **state) {
    (void)state;
    qfw_doc *d = parse("{\"a\":[1,\"x\"],\"b\":{}}");
    const json_node *a = json_node_member(json_root(d), "a");
    assert_int_equal(json_node_kind(a), QFW_DOC_ARRAY);
    assert_int_equal(json_node_count(a), 2);
    assert_int_equal(json_node_i64(json_node_item(a, 0)), 1);
    assert_string_equal(json_node_str(json_node_item(a, 1)), "x");
    assert_null(json_node_item(a, 2));
    assert_null(json_node_str(json_node_item(a, 0)));
    assert_null(json_node_member(a, "a"));
    assert_null(json_first(json_node_member(json_root(d), "b")).key);
    assert_null(json_first(NULL).key);
    assert_int_equal(json_node_kind(NULL), QFW_DOC_ABSENT);
    assert_int_equal(json_node_count(NULL), 0);
    json_destroy(d);
}

static void assert_real(double value, const char *text) {
    json_out *o = json_out_create(0);
    size_t n = 0;
    json_float(o, NULL, value);
    assert_string_equal(json_out_text(o, &n), text);
    assert_int_equal(n, strlen(text));
    if (isfinite(value)) assert_true(strtod(text, NULL) == value);
    json_out_destroy(o);
}

static void writes_reals_as_python_does(void **state) {
    (void)state;
    assert_real(0.0001, "0.0001");
    assert_real(0.00012345, "0.00012345");
    assert_real(1e-05, "1e-05");
    assert_real(2.0, "2.0");
    assert_real(0.0, "0.0");
    assert_real(-0.0, "-0.0");
    assert_real(100, "100.0");
    assert_real(123.456, "123.456");
    assert_real(1e15, "1000000000000000.0");
    assert_real(9999999999999998.0, "9999999999999998.0");
    assert_real(1e16, "1e+16");
    assert_real(-1.5e-7, "-1.5e-07");
    assert_real(1e100, "1e+100");
    assert_real(1.0 / 3, "0.3333333333333333");
    assert_real(0.1 + 0.2, "0.30000000000000004");
    assert_real(5e-324, "5e-324");
    assert_real(1.7976931348623157e308, "1.7976931348623157e+308");
    assert_real((double)NAN, "null");
    assert_real((double)-INFINITY, "null");
}

static void writes_documents(void **state) {
    (void)state;
    size_t n = 0;
    for (int indent = 0; indent <= 2; indent += 2) {
        json_out *o = json_out_create(indent);
        json_open(o, NULL, '{');
        json_int(o, "i", INT64_MIN);
        json_open(o, "list", '[');
        json_bool(o, NULL, 1);
        json_str(o, NULL, NULL);
        json_open(o, NULL, '{');
        json_close(o);
        json_close(o);
        json_str(o, "s", "q\"\\\n\x01\x7f\xc2\x85\xc3\xa9\xff.");
        json_close(o);
        const char *text = json_out_text(o, &n);
        assert_string_equal(text,
            indent
                ? "{\n  \"i\": -9223372036854775808,\n  \"list\": [\n    true,\n    null,\n    {}\n"
                  "  ],\n  \"s\": \"q\\\"\\\\\\n\\u0001\\u007f\\u0085\xc3\xa9\\ufffd.\"\n}"
                : "{\"i\": -9223372036854775808, \"list\": [true, null, {}], "
                  "\"s\": \"q\\\"\\\\\\n\\u0001\\u007f\\u0085\xc3\xa9\\ufffd.\"}");
        assert_int_equal(n, strlen(text));
        json_destroy(parse(text));
        json_out_destroy(o);
    }
}

static void reports_a_failed_text(void **state) {
    (void)state;
    size_t n = 1;
    json_out *o = json_out_create(0);
    json_open(o, NULL, '[');
    assert_null(json_out_text(o, &n)); /* left open */
    assert_int_equal(n, 0);
    for (int i = 0; i < 100; i++) json_open(o, NULL, '[');
    for (int i = 0; i < 101; i++) json_close(o);
    assert_null(json_out_text(o, &n)); /* too deep */
    json_out_destroy(o);
    json_open(NULL, NULL, '{');
    json_str(NULL, "a", "b");
    json_float(NULL, "a", 1);
    json_close(NULL);
    assert_null(json_out_text(NULL, &n));
    json_out_destroy(NULL);
    err_clear();
}

/* Each allocation, jansson's too, fails once: E_MEM, no leak, and never called bad syntax. */
static void survives_want_of_memory(void **state) {
    (void)state;
    const char *text =
        "{\"a\":[1,2.5,\"long enough for a buffer\"],\"b\":{\"c\":null,\"\\u00e9\":1}}";
    for (uint64_t k = 1;; k++) {
        qfw_doc *d = NULL;
        mem_fail_at(k);
        const qfw_status status = json_parse(text, strlen(text), "c.json", 0, "E_JSON", NULL, &d);
        mem_fail_at(0);
        json_destroy(d);
        if (status == QFW_OK) break;
        assert_null(d);
        assert_int_equal(status, QFW_E_NOMEM);
        assert_string_equal(err_name(), "E_MEM");
        assert_true(k < 500);
    }
    for (uint64_t k = 1;; k++) {
        size_t n;
        mem_fail_at(k);
        json_out *o = json_out_create(2);
        json_open(o, NULL, '{');
        json_str(o, "key", "a value of some length");
        json_close(o);
        mem_fail_at(0);
        const char *out = json_out_text(o, &n);
        const int done = out != NULL;
        json_out_destroy(o);
        if (done) break;
        assert_string_equal(err_name(), "E_MEM");
        assert_true(k < 50);
    }
    err_clear();
}

static void reads_files(void **state) {
    (void)state;
    qfw_doc *d = (qfw_doc *)(uintptr_t) "x";
    assert_int_equal(json_read("/nonexistent/c.json", 100, NULL, &d), QFW_E_IO);
    assert_null(d);
    assert_said("E_NOINPUT", EXIT_NOINPUT, "/nonexistent/c.json: No such file");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_with_a_place),
        cmocka_unit_test(names_both_of_two_equal_keys),
        cmocka_unit_test(names_the_line_of_a_row),
        cmocka_unit_test(refuses_too_much_at_once),
        cmocka_unit_test(holds_limits_exactly),
        cmocka_unit_test(finds_places),
        cmocka_unit_test(says_what_it_found),
        cmocka_unit_test(walks_large_objects),
        cmocka_unit_test(tells_large_objects_apart),
        cmocka_unit_test(walks_nodes),
        cmocka_unit_test(writes_reals_as_python_does),
        cmocka_unit_test(writes_documents),
        cmocka_unit_test(reports_a_failed_text),
        cmocka_unit_test(survives_want_of_memory),
        cmocka_unit_test(reads_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

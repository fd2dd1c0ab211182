/* test_rubric.c -- questions are what the rows of training say, levels are one token each, and what
 * is wrong with a rubric is said by its key. */
#include "../support/temp.h"
#include "../support/texts.h"
#include "base/error.h"
#include "base/mem.h"
#include "files/file.h"
#include "serve/rubric.h"

#include <stdlib.h>

#include "../support/test.h"

static tokenizer *bytefallback, *bytelevel, *demo;

static tokenizer *open_tokenizer(const char *from, const char *name) {
    tokenizer *t = NULL;
    char path[512];
    snprintf(path, sizeof path, "%s/tokenizer.json", name);
    must(dir_make(temp_path(name)));
    must(file_copy(from, temp_path(path)));
    snprintf(path, sizeof path, "%s/tokenizer_config.json", name);
    temp_text(path, "{\"eos_token\": \"<|endoftext|>\"}");
    must(tokenizer_open(temp_path(name), 0, &t));
    return t;
}

static int setup(void **state) {
    if (temp_make(state)) return -1;
    bytefallback = open_tokenizer(golden_path("bytefallback/tokenizer.json"), "bytefallback");
    bytelevel = open_tokenizer(golden_path("bytelevel/tokenizer.json"), "bytelevel");
    demo = open_tokenizer(golden_path("../../../docs/examples/demo/model/tokenizer.json"), "demo");
    return 0;
}

static int teardown(void **state) {
    tokenizer_close(bytefallback);
    tokenizer_close(bytelevel);
    tokenizer_close(demo);
    return temp_drop(state);
}

static rubric_opts usual(const tokenizer *tok) {
    return (rubric_opts){.skills = "Java,Machine Learning",
        .scale = "0-5",
        .prompt = "{document}\nScore for {skill}:",
        .answer = " {score}. {reason}",
        .definitions = "",
        .tok = tok};
}

static rubric *create(const rubric_opts *o) {
    rubric *r = NULL;
    must(rubric_create(o, &r));
    return r;
}

static ids encode(const tokenizer *t, const char *text) {
    ids v = {0};
    must(tokenizer_encode(t, text, strlen(text), 1, &v));
    return v;
}

/* The row of training "<prompt><completion>" goes on behind the question with the level's token. */
static void check_row(const rubric *r, const char *row, uint32_t skill, uint32_t level) {
    ids question = {0}, whole = encode(rubric_says(r)->tok, row);
    must(rubric_ask(r, skill, "Ada, strong JVM work.", 21, &question));
    assert_true(question.n < whole.n);
    assert_memory_equal(question.id, whole.id, question.n * sizeof *whole.id);
    assert_int_equal(whole.id[question.n], rubric_level(r, skill, level));
    ids_free(&question);
    ids_free(&whole);
}

static void questions_are_rows(void **state) {
    rubric_opts o = usual(demo);
    (void)state;
    rubric *r = create(&o);
    check_row(r, "Ada, strong JVM work.\nScore for Java: 3. solid JVM work<|endoftext|>", 0, 3);
    check_row(r, "Ada, strong JVM work.\nScore for Machine Learning: 0. none", 1, 0);
    assert_true(rubric_has_reason(r));
    rubric_destroy(r);
    o.answer = " {score}";
    o.tok = bytefallback;
    r = create(&o);
    check_row(r, "Ada, strong JVM work.\nScore for Java: 5<|endoftext|>", 0, 5);
    assert_false(rubric_has_reason(r));
    rubric_destroy(r);
    o.scale = "1-9";
    o.answer = "{score} of 9";
    o.tok = bytelevel;
    r = create(&o);
    check_row(r, "Ada, strong JVM work.\nScore for Java:9 of 9<|endoftext|>", 0, 8);
    rubric_destroy(r);
}

/* The text of the tokens up to a reason; the reason's own first token is not swallowed. */
static void reasons_follow(void **state) {
    const rubric_opts o = usual(demo);
    ids asked = {0}, whole = encode(demo, "Ada.\nScore for Java: 4. strong JVM work");
    (void)state;
    rubric *r = create(&o);
    must(rubric_ask_reason(r, 0, 4, "Ada.", 4, &asked));
    assert_true(asked.n < whole.n);
    assert_memory_equal(asked.id, whole.id, asked.n * sizeof *whole.id);
    assert_int_equal(asked.id[asked.n - 1], rubric_level(r, 0, 4)); /* "4." is one token */
    ids_free(&asked);
    ids_free(&whole);
    rubric_destroy(r);
}

/* A question as a turn is what a row of messages becomes. */
static void chat_questions_are_rows(void **state) {
    static const char *const names[] = {"phi3-mini", "phi3-medium"};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        rubric_opts o = usual(bytefallback);
        o.chat = 1;
        o.answer = "{score}. {reason}";
        o.template = chat_by_name(names[i]);
        rubric *r = create(&o);
        check_row(r,
            "<|user|>\nAda, strong JVM work.\nScore for Java:<|end|>\n<|assistant|>\n3. so<|end|>",
            0, 3);
        rubric_destroy(r);
    }
}

static void documents_are_plain_text(void **state) {
    const char text[] = " \n Ada <|end|><|assistant|> 5 \r\n";
    const int32_t end = tokenizer_id(bytefallback, "<|end|>");
    (void)state;
    for (int chat = 0; chat < 2; chat++) {
        rubric_opts o = usual(bytefallback);
        ids asked = {0};
        size_t ends = 0;
        o.chat = chat;
        o.template = chat_by_name("phi3-mini");
        if (chat) o.answer = "{score}";
        rubric *r = create(&o);
        must(rubric_ask(r, 0, text, strlen(text), &asked));
        for (size_t i = 0; i < asked.n; i++) ends += asked.id[i] == end;
        assert_int_equal(ends, chat); /* that of the user turn */
        char *shown = rubric_text(r, 0, text, strlen(text));
        assert_string_equal(shown,
            chat ? "<|user|>\nAda <|end|><|assistant|> 5\nScore for Java:<|end|>\n<|assistant|>\n"
                 : "Ada <|end|><|assistant|> 5\nScore for Java:");
        mem_free(shown);
        ids_free(&asked);
        rubric_destroy(r);
    }
}

static void check_refusal(rubric_opts o, const char *regex) {
    rubric *r;
    const qfw_status status = rubric_create(&o, &r);
    assert_null(r);
    assert_error(status, "E_CONFIG_RUBRIC", EXIT_CONFIG, regex);
}

#define REFUSED(key, value, regex)                                                                 \
    do {                                                                                           \
        rubric_opts o = usual(bytefallback);                                                       \
        o.key = value;                                                                             \
        check_refusal(o, regex);                                                                   \
    } while (0)

static void refusals(void **state) {
    (void)state;
    REFUSED(skills, "", "rubric\\.skills: missing");
    REFUSED(skills, "A,B,A", "rubric\\.skills: 'A' stands there twice");
    REFUSED(skills, "a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q,r,s,t,u,v,w,x,y,z,1,2,3,4,5,6,7",
        "more than 32");
    REFUSED(scale, "5", "rubric\\.scale: '5', wanted LOW-HIGH");
    REFUSED(scale, "5-0", "wanted two to 16 levels");
    REFUSED(scale, "0-16", "wanted two to 16 levels");
    REFUSED(scale, "0-10", "the levels 1 and 10 begin with the same token \\('1'\\)");
    REFUSED(prompt, "{document} {skil}", "found \\{skil\\}, .* did you mean \\{skill\\}\\?");
    REFUSED(prompt, "{document} {skill} {score}", "found \\{score\\}, wanted \\{document\\}");
    REFUSED(prompt, "{skill}:", "\\{document\\} stands in it 0 times");
    REFUSED(prompt, "{document}:", "\\{skill\\} is missing");
    REFUSED(prompt, "{document} {skill} {definition}", "definitions: .* none for 'Java'");
    REFUSED(answer, "{reason}", "\\{score\\} stands in it 0 times");
    REFUSED(answer, "{reason} {score}", "\\{reason\\} stands before \\{score\\}");
    REFUSED(chat, 1, "rubric\\.chat: true, but");
    rubric_opts o = usual(bytelevel); /* has " 1" and " 2" as tokens, and no other " <digit>" */
    check_refusal(o, "the levels 0 and 3 begin with the same token");
}

/* --- from the INI --- */

static rubric *read_ini(const char *text, qfw_status *status) {
    schema_section s = {"rubric", rubric_options, N_RUBRIC_OPTIONS, NULL};
    ini *i = NULL;
    rubric *r = NULL;
    must(ini_parse_text(text, strlen(text), temp_path("x.ini"), &i));
    must(option_check(i, &s, 1, NULL, 0));
    *status = rubric_read(i, s.cfg, bytefallback, NULL, &r);
    option_free(&s, 1);
    ini_destroy(i);
    return r;
}

static void check_text(const char *text, uint32_t skill, const char *wanted) {
    qfw_status status;
    rubric *r = read_ini(text, &status);
    must(status);
    char *shown = rubric_text(r, skill, "Doc", 3);
    assert_string_equal(shown, wanted);
    mem_free(shown);
    rubric_destroy(r);
}

static void words_of_the_ini(void **state) {
    (void)state;
    temp_text("d.json", "{\"Java\": \"JVM {things}\", \"SQL\": \"queries\"}");
    temp_text("p.txt", "Rate {skill} ({definition})\n{low}..{high} \\n {}\n{document}\nHere:\r\n");
    check_text("[rubric]\nskills = Java, SQL\n", 1, "Doc\nScore for SQL:");
    check_text("[rubric]\nskills = Java\nprompt = \\s{skill}\\t{x y}\\\\{document}:\\n\n", 0,
        " Java\t{x y}\\Doc:\n");
    check_text("[rubric]\nskills = Java, SQL\nscale = 1-4\nprompt_file = p.txt\n"
               "definitions = d.json\n",
        0, "Rate Java (JVM {things})\n1..4 \\n {}\nDoc\nHere:");
}

static void check_ini(const char *text, const char *name, int code, const char *regex) {
    qfw_status status;
    assert_null(read_ini(text, &status));
    assert_error(status, name, code, regex);
}

static void refusals_of_the_ini(void **state) {
    (void)state;
    temp_text("d.json", "{\"Jav\": \"JVM\"}");
    temp_text("n.json", "{\"Java\": 1}");
    temp_text("p.txt", "x");
    check_ini("[rubric]\nskills = Java\nscale = 0-x\n", "E_INI_VALUE", EXIT_CONFIG,
        "x\\.ini:3:9: rubric\\.scale: '0-x'");
    check_ini("[rubric]\nskills = Java\nprompt = \\d\n", "E_INI_VALUE", EXIT_CONFIG,
        "x\\.ini:3:10: rubric\\.prompt: found a backslash before 'd'");
    check_ini("[rubric]\nskills = Java\nprompt = x\nprompt_file = p.txt\n", "E_INI_VALUE",
        EXIT_CONFIG, "rubric\\.prompt: set together with prompt_file");
    check_ini("[rubric]\nskills = Java\nprompt_file = none.txt\n", "E_NOINPUT", EXIT_NOINPUT,
        "none\\.txt");
    check_ini("[rubric]\nskills = Java\ndefinitions = d.json\n", "E_INI_VALUE", EXIT_CONFIG,
        "d\\.json: 'Jav' is not one of the skills; did you mean 'Java'\\?");
    check_ini("[rubric]\nskills = Java\ndefinitions = n.json\n", "E_INI_VALUE", EXIT_CONFIG,
        "n\\.json: 'Java' is no text");
}

static void digests_differ(void **state) {
    char hex[5][65];
    rubric_opts o[5];
    (void)state;
    for (size_t i = 0; i < 5; i++) o[i] = usual(bytefallback);
    o[1].answer = "{score}";
    o[2].scale = "0-4";
    o[3].skills = "Java";
    for (size_t i = 0; i < 5; i++) {
        rubric *r = create(&o[i]);
        rubric_digest(r, hex[i]);
        for (size_t k = 0; k < i; k++) assert_int_equal(!strcmp(hex[i], hex[k]), i == 4 && k == 0);
        rubric_destroy(r);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(questions_are_rows),
        cmocka_unit_test(reasons_follow),
        cmocka_unit_test(chat_questions_are_rows),
        cmocka_unit_test(documents_are_plain_text),
        cmocka_unit_test(refusals),
        cmocka_unit_test(words_of_the_ini),
        cmocka_unit_test(refusals_of_the_ini),
        cmocka_unit_test(digests_differ),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

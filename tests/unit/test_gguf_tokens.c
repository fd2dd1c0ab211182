/* test_gguf_tokens.c -- tokenizers in llama.cpp's terms: each pipeline under its name, the special
 * tokens from both files that may name them, and what is refused.
 */
#include "../support/temp.h"
#include "base/error.h"
#include "base/mem.h"
#include "export/gguf_model.h"
#include "files/file.h"
#include "files/json.h"

#include "../support/test.h"

#include <stdlib.h>

enum { VOCAB = 1024 };

/* A folder with a committed tokenizer.json, changed where `from` is not NULL, and the other file
 * where `names` is not. */
static void make_folder(const char *golden, const char *from, const char *to, const char *names) {
    char *path = mem_printf(
             "%s/tests/golden/tokenizer/%s/tokenizer.json", getenv("QFW_SOURCE"), golden),
         *text = NULL;
    size_t n = 0;
    assert_int_equal(dir_make(temp_path("t")), QFW_OK);
    dir_discard(temp_path("t"));
    assert_int_equal(dir_make(temp_path("t")), QFW_OK);
    assert_int_equal(file_read(path, 1 << 24, &text, &n), QFW_OK);
    const char *at = from ? strstr(text, from) : NULL;
    if (from && !at) fail_msg("%s: no %s", golden, from);
    char *changed = at ? mem_printf("%.*s%s%s", (int)(at - text), text, to, at + strlen(from))
                       : mem_strdup(text);
    temp_text("t/tokenizer.json", changed);
    if (names) temp_text("t/tokenizer_config.json", names);
    mem_free(changed);
    mem_free(text);
    mem_free(path);
}

static const char *name = "mine";

/* Only the keys of the tokenizer, as they are read back; NULL after a failure. */
static gguf_file *put(const char *config) {
    gguf_writer *w = NULL;
    gguf_file *f = NULL;
    qfw_doc *doc = NULL;
    assert_int_equal(json_parse(config, strlen(config), "config.json", 0, "E_JSON", NULL, &doc), 0);
    assert_int_equal(gguf_create(temp_path("t.gguf"), &w), QFW_OK);
    const gguf_source source = {.folder = temp_path("t"), .name = name, .config = doc};
    const qfw_status status = gguf_put_tokenizer(w, &source, VOCAB);
    json_destroy(doc);
    if (status != QFW_OK) {
        gguf_abort(w);
        return NULL;
    }
    assert_int_equal(gguf_begin(w), QFW_OK);
    assert_int_equal(gguf_finish(w), QFW_OK);
    if (gguf_open(temp_path("t.gguf"), &f)) fail_msg("%s", err_text(0));
    return f;
}

static gguf_file *must_put(const char *config) {
    gguf_file *f = put(config);
    if (!f) fail_msg("%s", err_text(0));
    return f;
}

static const char *text_of(const gguf_file *f, const char *key) {
    const gguf_key *k = gguf_find(f, key);
    return k ? k->text : "";
}

/* -1: not there. */
static int number_of(const gguf_file *f, const char *key) {
    const gguf_key *k = gguf_find(f, key);
    return k ? (int)k->number : -1;
}

static void pipelines_have_their_names(void **state) {
    static const struct {
        const char *golden, *model, *pre;
        int adds_bos;
    } rows[] = {{"llama2", "llama", "default", 0}, {"bytefallback", "llama", "default", 0},
        {"metaspace", "llama", "default", 0}, {"bytelevel", "gpt2", "gpt-2", 0},
        {"bytelevel_split", "gpt2", "dbrx", 0}, {"llama3", "gpt2", "llama-bpe", 1},
        {"o200k", "gpt2", "gpt-4o", 0}, {"qwen2", "gpt2", "qwen2", 0}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        make_folder(rows[i].golden, NULL, NULL, NULL);
        gguf_file *f = put("{}");
        if (!f) fail_msg("%s: %s", rows[i].golden, err_text(0));
        assert_string_equal(text_of(f, "tokenizer.ggml.model"), rows[i].model);
        assert_string_equal(text_of(f, "tokenizer.ggml.pre"), rows[i].pre);
        assert_int_equal(number_of(f, "tokenizer.ggml.add_bos_token"), rows[i].adds_bos);
        const int is_gpt2 = rows[i].model[0] == 'g';
        assert_int_equal(gguf_find(f, "tokenizer.ggml.merges") != NULL, is_gpt2);
        assert_int_equal(gguf_find(f, "tokenizer.ggml.scores") == NULL, is_gpt2);
        assert_int_equal(gguf_find(f, "tokenizer.ggml.tokens")->n, VOCAB);
        assert_int_equal(gguf_find(f, "tokenizer.ggml.token_type")->n, VOCAB);
        assert_string_equal(gguf_find(f, "tokenizer.ggml.tokens")->strings[VOCAB - 1], "[PAD1023]");
        gguf_close(f);
    }
}

static void special_tokens_have_two_sources(void **state) {
    (void)state;
    make_folder("llama2", NULL, NULL,
        "{\"bos_token\": \"<s>\", \"eos_token\": {\"content\": \"<|endoftext|>\"}, \"unk_token\": "
        "null, \"add_bos_token\": true, \"add_eos_token\": false}");
    gguf_file *f = must_put("{\"eos_token_id\": 2, \"pad_token_id\": 7, \"unk_token_id\": 1024, "
                            "\"mask_token_id\": [3]}");
    assert_int_equal(number_of(f, "tokenizer.ggml.bos_token_id"), 1);
    assert_int_equal(number_of(f, "tokenizer.ggml.eos_token_id"), 600); /* not config.json's */
    assert_int_equal(number_of(f, "tokenizer.ggml.padding_token_id"), 7);
    assert_int_equal(number_of(f, "tokenizer.ggml.unknown_token_id"), -1); /* none of the vocab */
    assert_int_equal(number_of(f, "tokenizer.ggml.mask_token_id"), -1);
    assert_int_equal(number_of(f, "tokenizer.ggml.add_bos_token"), 1);
    assert_int_equal(number_of(f, "tokenizer.ggml.add_eos_token"), 0);
    assert_null(gguf_find(f, "tokenizer.chat_template"));
    gguf_close(f);
}

/* As the tokenizer itself chooses it: the file, else the member, of a list the default. */
static void the_chat_template_travels(void **state) {
    (void)state;
    make_folder("llama2", NULL, NULL, "{\"chat_template\": \"{{ x }}\"}");
    gguf_file *f = must_put("{}");
    assert_string_equal(text_of(f, "tokenizer.chat_template"), "{{ x }}");
    gguf_close(f);
    make_folder("llama2", NULL, NULL,
        "{\"chat_template\": [{\"name\": \"rag\", \"template\": \"r\"}, {\"name\": \"default\", "
        "\"template\": \"{{ d }}\"}]}");
    f = must_put("{}");
    assert_string_equal(text_of(f, "tokenizer.chat_template"), "{{ d }}");
    gguf_close(f);
    temp_text("t/chat_template.jinja", "{{ file }}");
    f = must_put("{}");
    assert_string_equal(text_of(f, "tokenizer.chat_template"), "{{ file }}");
    gguf_close(f);
}

static void a_space_in_front_or_not(void **state) {
    (void)state;
    make_folder("llama2", NULL, NULL, NULL);
    gguf_file *f = must_put("{}");
    assert_null(gguf_find(f, "tokenizer.ggml.add_space_prefix"));
    gguf_close(f);
    make_folder("llama2", "\"prepend_scheme\":\"first\"", "\"prepend_scheme\":\"never\"", NULL);
    f = must_put("{}");
    assert_int_equal(number_of(f, "tokenizer.ggml.add_space_prefix"), 0);
    gguf_close(f);
}

/* llama.cpp looks for Phi-3 in it. */
static void the_name_says_who_strips(void **state) {
    static const struct {
        const char *golden, *name, *told;
        int strips;
    } rows[] = {{"llama2", "mine", "Phi-3 mine", 1}, {"llama2", "a-PHI-3-b", "a-PHI-3-b", 1},
        {"llama2", "phi3", "phi3", 1}, {"llama2", "mine", "mine", 0},
        {"llama2", "Phi-3", "Phi-3", 0}, {"bytelevel", "mine", "mine", 1}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *path = mem_strdup(temp_path("t/tokenizer.json")), *text = NULL;
        size_t n = 0;
        make_folder(rows[i].golden, NULL, NULL, NULL);
        assert_int_equal(file_read(path, 1 << 24, &text, &n), QFW_OK);
        for (char *at = text; !rows[i].strips && (at = strstr(at, "\"rstrip\":true")); at++)
            memcpy(at, "\"rstrip\":   0", 13);
        assert_int_equal(file_write(path, text, n), QFW_OK);
        name = rows[i].name;
        gguf_file *f = must_put("{}");
        assert_string_equal(text_of(f, "general.name"), rows[i].told);
        gguf_close(f);
        mem_free(text);
        mem_free(path);
    }
    name = "mine";
}

static void refused(const char *golden, const char *from, const char *to, const char *what) {
    make_folder(golden, from, to, NULL);
    gguf_file *f = put("{}");
    if (f) fail_msg("%s: %s was written, wanted: %s", golden, to, what);
    assert_error(err_status(), "E_GGUF_UNSUPPORTED", EXIT_DATA, what);
}

static void what_there_are_no_words_for(void **state) {
    (void)state;
    refused("llama2", "\"normalizer\":null", "\"normalizer\": {\"type\": \"NFKC\"}",
        "no words for this normalizer");
    refused("bytelevel", "\"normalizer\": null", "\"normalizer\": {\"type\": \"NFC\"}",
        "no words for this normalizer");
    refused("bytelevel", "\"add_prefix_space\": false", "\"add_prefix_space\": true",
        "no words for this pre_tokenizer");
    refused("llama3", "{1,3}", "{1,2}", "no words for this pre_tokenizer");
}

/* Whichever allocation fails, it is told, and nothing is kept (which a sanitizer would see). */
static void no_memory(void **state) {
    uint64_t k = 1, n_allocations = 0;
    qfw_doc *doc = NULL;
    qfw_status status = QFW_E_NOMEM;
    (void)state;
    make_folder("llama2", NULL, NULL, "{\"chat_template\": \"{{ x }}\"}");
    assert_int_equal(json_parse("{}", 2, "config.json", 0, "E_JSON", NULL, &doc), QFW_OK);
    char *folder = mem_strdup(temp_path("t"));
    const gguf_source source = {.folder = folder, .name = name, .config = doc};
    for (; status != QFW_OK; k += 1 + n_allocations / 100) {
        gguf_writer *w = NULL;
        const uint64_t before = mem_count();
        mem_fail_at(k);
        status = gguf_create(temp_path("t.gguf"), &w);
        if (status == QFW_OK) status = gguf_put_tokenizer(w, &source, VOCAB);
        if (status == QFW_OK) status = gguf_begin(w);
        mem_fail_at(0);
        gguf_abort(w);
        n_allocations = mem_count() - before;
        if (status != QFW_OK && status != QFW_E_NOMEM)
            fail_msg("%d at %d: %s", (int)status, (int)k, err_text(0));
        err_clear();
    }
    assert_true(k > 50);
    json_destroy(doc);
    mem_free(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pipelines_have_their_names),
        cmocka_unit_test(special_tokens_have_two_sources),
        cmocka_unit_test(the_chat_template_travels),
        cmocka_unit_test(a_space_in_front_or_not),
        cmocka_unit_test(the_name_says_who_strips),
        cmocka_unit_test(what_there_are_no_words_for),
        cmocka_unit_test(no_memory),
    };
    return cmocka_run_group_tests(tests, temp_make, temp_drop);
}

/* test_card.c -- README.md of a run: the front matter that the Hub reads, the recipe, data and
 * numbers of this run, and that whatever the INI says of the data stays text.
 */
#define _POSIX_C_SOURCE 200809L
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "../support/lab.h"
#include "base/error.h"
#include "base/mem.h"
#include "files/file.h"
#include "train/card_text.h"

#include <cmocka.h>

static const char qlora[] = "load_in_4bit = true\nbnb_4bit_quant_type = nf4\n"
                            "[adapter]\nr = 4\nlora_alpha = 8\nlora_dropout = 0.1\n";
static const char every_weight[] = "[adapter]\nuse = none\n";
static const char keys[] =
    "[data]\ntrain = rows.jsonl\neval = eval.jsonl\nmax_length = 128\n"
    "source = a | b <script>x</script> [l](http://x) `c` \"d\"\nlicence = CC-BY-4.0\n"
    "[trainer]\nmax_steps = 4\nlearning_rate = 1e-2\nper_device_train_batch_size = 4\n"
    "logging_steps = 1\neval_strategy = steps\neval_steps = 2\nsave_strategy = no\n";

static lab *open_run(const char *start) {
    char path[512];
    lab *l = lab_open("sft_curve/sft_curve.json");
    lab_model(l, lab_golden("sft_curve/config.json", path));
    lab_copy(l, lab_golden("sft_curve/rows.jsonl", path), "rows.jsonl");
    lab_write(l, "eval.jsonl",
        "{\"input_ids\": [5, 6, 7, 8], \"labels\": [-100, 6, 7, 8]}\n"
        "{\"input_ids\": [11, 12], \"labels\": [-100, 12]}\n");
    char *settings = mem_printf("%s%s", start, keys);
    lab_run(l, settings);
    run_close(l->r);
    l->r = NULL;
    mem_free(settings);
    return l;
}

static void train(const lab *l, const char *set) {
    const char *const sets[] = {"run.overwrite_output_dir=true", set};
    lab_ok(lab_main(l, &(run_flags){.set = sets, .n_set = set ? 2 : 1}, NULL));
}

static char *card_of(const lab *l) {
    size_t n;
    return lab_contents(l, "out/README.md", &n);
}

static void has(const char *card, const char *text) {
    if (!strstr(card, text)) fail_msg("the card lacks: %s\n%s", text, card);
}

/* A row of a table with what the log says. */
static void has_number(const char *card, const char *name, double value) {
    char *row = mem_printf("| %s | %.6g |\n", name, value);
    has(card, row);
    mem_free(row);
}

/* The last "key": value of the log. */
static double last_of(const lab *l, const char *key) {
    size_t n;
    char *log = lab_contents(l, "out/trainer_log.jsonl", &n), *at = log, *last = NULL;
    char *word = mem_printf("\"%s\": ", key);
    for (; (at = strstr(at, word)) != NULL; at++) last = at;
    assert_non_null(last);
    const double value = strtod(last + strlen(word), NULL);
    mem_free(word);
    mem_free(log);
    return value;
}

static void card_of_an_adapter(void **state) {
    (void)state;
    lab *l = open_run(qlora);
    train(l, NULL);
    char *card = card_of(l);
    char *front = mem_printf("---\nbase_model: \"%s/model\"\nlibrary_name: peft\n"
                             "license: cc-by-4.0\npipeline_tag: text-generation\ntags:\n"
                             "- \"base_model:adapter:%s/model\"\n- lora\n- \"sft\"\n- qfw\n---\n",
        l->folder, l->folder);
    assert_memory_equal(card, front, strlen(front));
    has(card, "| `adapter.r` | 4 |\n");
    has(card, "| `adapter.lora_alpha` | 8 |\n");
    has(card, "| `model.bnb_4bit_quant_type` | nf4 |\n");
    has(card, "| `trainer.learning_rate` | ");
    has(card, "| `trainer.sft.completion_only_loss` | auto |\n");
    has(card, "| updates | 4 |\n");
    has(card,
        "| source | a \\| b &lt;script&gt;x&lt;/script&gt; \\[l\\](http\\://x) \\`c\\` \"d\" |\n");
    has(card, "| generator | not said |\n");
    has(card, "| train | rows.jsonl |\n");
    has(card, "| eval rows | 2 |\n");
    has_number(card, "eval\\_loss", last_of(l, "eval_loss"));
    has_number(card, "loss of the last update", last_of(l, "loss"));
    has(card, "AutoPeftModelForCausalLM.from_pretrained(folder, "
              "quantization_config=BitsAndBytesConfig(\n    load_in_4bit=True, "
              "bnb_4bit_quant_type=\"nf4\", bnb_4bit_use_double_quant=False))");
    has(card, "## Intended use and limits");
    assert_null(strstr(card, "<script"));
    train(l, NULL); /* over its own */
    char *again = card_of(l);
    assert_string_equal(card, again);
    mem_free(again);
    mem_free(front);
    mem_free(card);
    lab_close(l);
}

/* Its hash stands in the manifest among the outputs. */
static void manifest_has_its_hash(void **state) {
    char hex[65];
    size_t n;
    (void)state;
    lab *l = open_run(qlora);
    train(l, NULL);
    char *path = mem_printf("%s/out/README.md", l->folder);
    lab_ok(file_sha256(path, hex));
    char *manifest = lab_contents(l, "out/manifest.json", &n);
    const char *at = strstr(manifest, path);
    assert_non_null(at);
    assert_non_null(strstr(at, hex));
    mem_free(manifest);
    mem_free(path);
    lab_close(l);
}

static void card_of_a_model(void **state) {
    (void)state;
    lab *l = open_run(every_weight);
    train(l, "data.licence=ours: \"all\" \\ # rights");
    char *card = card_of(l);
    has(card, "library_name: transformers\nlicense: other\n"
              "license_name: \"ours: \\\"all\\\" \\\\ # rights\"\npipeline_tag");
    has(card, "- \"base_model:finetune:");
    has(card, "AutoModelForCausalLM.from_pretrained(folder)");
    has(card, "| licence | ours\\: \"all\" \\\\ \\# rights |\n");
    assert_null(strstr(card, "- lora"));
    assert_null(strstr(card, "`adapter."));
    assert_null(strstr(card, "Peft"));
    mem_free(card);
    train(l, "model.init=random");
    card = card_of(l);
    assert_null(strstr(card, "base_model"));
    has(card, "trained from nothing");
    mem_free(card);
    lab_close(l);
}

/* The loss of eval.jsonl rises after update 2: its weights are left, and so are its numbers. */
static void numbers_are_of_the_best_weights(void **state) {
    static const char *const sets[] = {"trainer.save_strategy=steps", "trainer.save_steps=2",
        "trainer.load_best_model_at_end=true"};
    size_t n;
    (void)state;
    lab *l = open_run(every_weight);
    lab_ok(lab_main(l, &(run_flags){.set = sets, .n_set = 3}, NULL));
    char *card = card_of(l), *log = lab_contents(l, "out/trainer_log.jsonl", &n);
    const char *first = strstr(log, "\"eval_loss\": ");
    assert_non_null(first);
    has(card, "| evaluated after update | 2 |\n");
    has_number(card, "eval\\_loss", strtod(first + strlen("\"eval_loss\": "), NULL));
    mem_free(card);
    mem_free(log);
    lab_close(l);
}

static void another_readme_stays(void **state) {
    (void)state;
    lab *l = open_run(qlora);
    train(l, NULL);
    lab_write(l, "out/README.md", "mine\n");
    train(l, NULL);
    char *card = card_of(l);
    assert_string_equal(card, "mine\n");
    mem_free(card);
    lab_close(l);
}

/* What `put` writes of `text`. */
static void expect_text(int is_yaml, const char *text, const char *wanted) {
    char *said = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&said, &n);
    assert_non_null(f);
    if (is_yaml)
        card_yaml(f, "p:", text);
    else
        card_markdown(f, text);
    fclose(f);
    assert_string_equal(said, wanted);
    free(said);
}

static void any_text_stays_text(void **state) {
    (void)state;
    expect_text(1, "a\"b\\c: #\n- d\x7f", "\"p:a\\\"b\\\\c: #\\x0a- d\\x7f\"");
    expect_text(1, "\xff|\xC2\x85|\xE2\x80\xA8|\xC3\xA9",
        "\"p:\xEF\xBF\xBD|\xEF\xBF\xBD\xEF\xBF\xBD|\xEF\xBF\xBD|\xC3\xA9\"");
    expect_text(0, "a\n|b\xff", "a \\|b\xEF\xBF\xBD");
    expect_text(
        0, "www.x.org <a@b> ![i](j) *k*", "www\\.x.org &lt;a\\@b&gt; \\!\\[i\\](j) \\*k\\*");
    assert_string_equal(card_licence("Apache-2.0"), "apache-2.0");
    assert_null(card_licence("ours"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(card_of_an_adapter),
        cmocka_unit_test(manifest_has_its_hash),
        cmocka_unit_test(card_of_a_model),
        cmocka_unit_test(numbers_are_of_the_best_weights),
        cmocka_unit_test(another_readme_stays),
        cmocka_unit_test(any_text_stays_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

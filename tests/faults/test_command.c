/* test_command.c -- the command on an INI, data or numbers that are wrong, from the file to the
 * exit code: what is refused by a parser alone in the unit tests is here said to a person.
 *
 * The letters are those of cases.md.
 */
#define _XOPEN_SOURCE 700
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/mem.h"
#include "files/file.h"
#include "files/safetensors.h"

#include "../support/refusal.h"
#include "../support/temp.h"
#include "../support/test.h"
#include "../support/tiny.h"

/* --- the INI --- */

#define LR    "max_steps = 1\n"
#define AT_LR "/run\\.ini:15:17: trainer\\.learning_rate: found "
#define RATE(v)                                                                                    \
    { LR, LR "learning_rate = " v "\n", "E_INI_[A-Z]+\\] .*" AT_LR }

static void c_ini(void **state) {
    static const alteration rows[] = {/* C1 */
        {LR, LR "learning_rat = 1\n", "E_INI_UNKNOWN\\] .*/run\\.ini:15:1: .*'learning_rate'\\?"},
        {"[adapter]", "[adaptor]", "E_INI_UNKNOWN\\] .*/run\\.ini:8:1: section \\[adaptor\\].*"},
        {"r = 4", "lora_r = 4", "E_INI_UNKNOWN\\] .*/run\\.ini:9:1: key 'lora_r' .*'r'\\?"},
        /* C2 */
        {LR, LR LR, "E_INI_DUP\\] .*/run\\.ini:15:1: key 'max_steps' .*line 14"},
        {LR, LR "[run]\nthreads = 2\n[trainer]\n", "E_INI_DUP\\] .*/run\\.ini:16:1: .*line 3"},
        /* C3 */
        RATE("1e"), RATE("1,5"), RATE("0x10"), RATE("nan"), RATE("inf"), RATE("1e999"),
        RATE("5 apples"),
        {LR, LR "learning_rate = -1\n", "E_INI_RANGE\\] .*" AT_LR "-1, allowed: 0 \\.\\. 1000"},
        {LR, LR "learning_rate =\n", "E_INI_TYPE\\] .*/run\\.ini:15:[0-9]+: .*found ''"},
        /* C5 */
        {LR, LR "\tseed = 1\n", "E_INI_SYNTAX\\] .*/run\\.ini:15:1: an indented line"},
        {"r = 4", "r: 4", "E_INI_SYNTAX\\] .*/run\\.ini:9:2: ':' after a key"},
        {"r = 4", "r = 4 \033[2J", "E_INI_TEXT\\] .*/run\\.ini:9:7: control character 0x1b"},
        {"r = 4", "r = 4\xe9", "E_INI_TEXT\\] .*/run\\.ini:9:6: byte 0xe9"},
        /* C6 */
        {"output_dir = out\n", "", "E_INI_MISSING\\] .*/run\\.ini: run\\.output_dir: missing"},
        {LR, "gradient_accumulation_steps = 0\n", "E_INI_RANGE\\] .*/run\\.ini:14:31: .*found 0"},
        {LR, "max_steps = 0\n", "E_INI_[A-Z]+\\] .*/run\\.ini:14:13: .*max_steps: 0, wanted -1"},
        {"train = rows.jsonl\n", "", "E_INI_[A-Z]+\\] .*data\\.train: missing, .*task = train"},
        {LR, LR "eval_strategy = steps\n", "E_INI_[A-Z]+\\] .*:15:17: .*names no file"},
        {"[adapter]\n", "[adapter]\nuse = none\n", "E_INI_[A-Z]+\\] .*:7:16: .*packed weights"},
        {LR, LR "bf16 = true\nfp16 = true\n", "E_[A-Z_]+\\] .*/run\\.ini:16:8: .*beside bf16"},
        {"[adapter]\n", "bnb_4bit_compute_dtype = bfloat16\n[adapter]\n",
            "E_[A-Z_]+\\] .*:8:26: .*computes in fp32; hint: \\[trainer\\] bf16 = true"},
        /* C9 */
        {LR, LR "[trainer.dpo]\nbeta = 1\n", "E_INI_UNUSED\\] .*/run\\.ini:15:1: .*use = sft"},
        {LR, LR "beta = 0.1\n", "E_INI_UNKNOWN\\] .*/run\\.ini:15:1: key 'beta'"},
        {NULL, NULL, NULL}};
    (void)state;
    for (const alteration *row = rows; row->from; row++) {
        tiny_make("case");
        alter("run.ini", row->from, row->to);
        refused(row->to, NULL, EXIT_CONFIG, row->regex);
    }
}

static void c4_too_large(void **state) {
    enum { LINE = 1 << 20 };
    char *line = malloc(LINE + 64);
    (void)state;
    assert_non_null(line);
    memset(line, 'x', LINE);
    memcpy(line, "notes = ", 8);
    snprintf(line + LINE, 64, "\nmax_length = 128");
    tiny_make("case");
    alter("run.ini", "max_length = 128", line);
    refused("1 MB", NULL, EXIT_CONFIG, "E_INI_LIMIT\\] .*/run\\.ini:1:1: a file of [0-9]+ bytes");
    snprintf(line + 9000, 64, "\nmax_length = 128");
    tiny_make("case");
    alter("run.ini", "max_length = 128", line);
    refused(
        "9,000", NULL, EXIT_CONFIG, "E_INI_LIMIT\\] .*/run\\.ini:12:8193: a line of 9000 bytes");
    free(line);
    tiny_make("case");
    assert_int_equal(truncate(temp_path("case/run.ini"), 100 << 20), 0);
    refused("100 MiB", NULL, EXIT_CONFIG, "E_INI_LIMIT\\] .*/run\\.ini:1:1: a file of 104857600");
}

/* Marks of other systems are no fault. */
static void c5_marks(void **state) {
    (void)state;
    tiny_make("case");
    alter("run.ini", "", "\xef\xbb\xbf");
    alter("run.ini", "r = 4\n", "r = 4 ; small\r\n");
    assert_int_equal(case_run("--plan"), EXIT_OK);
    temp_write(in_case("run.ini"), "[\0r\0u\0n\0]\0\n", 12);
    refused("UTF-16", NULL, EXIT_CONFIG, "E_INI_TEXT\\] .*/run\\.ini:1:1: the file is UTF-16");
    temp_write(in_case("run.ini"), "[run]\nseed = 1\0002\n", 18);
    refused("NUL", NULL, EXIT_CONFIG, "E_INI_TEXT\\] .*/run\\.ini:2:9: .*NUL");
}

static void c6_all_in_one_run(void **state) {
    (void)state;
    tiny_make("case");
    alter("run.ini", "r = 4", "r = 0");
    alter("run.ini", "max_length = 128", "max_length = long");
    alter("run.ini", LR, "max_step = 1\n");
    refused("three", NULL, EXIT_CONFIG, "E_INI_RANGE\\] .*/run\\.ini:9:5: adapter\\.r: found 0");
    assert_true(has_line(case_command.err, "E_INI_TYPE\\] .*:12:14: data\\.max_length: .*'long'"));
    assert_true(has_line(case_command.err, "E_INI_UNKNOWN\\] .*:14:1: .*'max_steps'\\?"));
}

/* Of every kind at once: lines that cannot be read, plugins and files that are not there. */
static void c6_of_every_kind(void **state) {
    static const char *const wanted[] = {"E_INI_SYNTAX\\] .*:2:11: ':' after a key",
        "E_NOINPUT\\] .*:6:8: model\\.path: /.*/case/gone: No such file",
        "E_INI_RANGE\\] .*:9:5: adapter\\.r: found 0", "E_NOINPUT\\] .*:11:9: data\\.train: .*",
        "E_INI_DUP\\] .*:15:1: key 'max_steps'", "E_PLUG_NOTFOUND\\] .*:16:7: .*'sftt'"};
    (void)state;
    tiny_make("case");
    alter("run.ini", "output_dir = out", "output_dir: out");
    alter("run.ini", "path = model", "path = gone");
    alter("run.ini", "r = 4", "r = 0");
    alter("run.ini", "train = rows.jsonl", "train = gone.jsonl");
    alter("run.ini", LR, LR LR "use = sftt\n[trainer.sftt]\nbeta = 1\n");
    refused("all", "--set=adapter.lora_dropout=2", EXIT_CONFIG, wanted[0]);
    const char *at = case_command.err;
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        assert_true(has_line(at, wanted[i]));
        at = strchr(at, '\n') + 1;
    }
    assert_true(has_line(at, "E_INI_RANGE\\] --set: adapter\\.lora_dropout: found 2"));
    assert_null(strchr(strchr(at, '\n') + 1, '\n'));
}

static void c7_paths(void **state) {
    static const char *const kept[] = {"~/rows.jsonl", "$HOME/rows.jsonl"};
    char to[64], regex[128];
    (void)state;
    for (int i = 0; i < 2; i++) {
        tiny_make("case");
        snprintf(to, sizeof to, "train = %s", kept[i]);
        alter("run.ini", "train = rows.jsonl", to);
        snprintf(regex, sizeof regex, "E_NOINPUT\\] /.*/case/%s%s: No such file", i ? "\\" : "",
            kept[i]);
        refused(kept[i], "--dry-run", EXIT_NOINPUT, regex);
    }
}

static void c8_no_ini(void **state) {
    (void)state;
    tiny_make("case");
    assert_int_equal(unlink(temp_path("case/run.ini")), 0);
    refused("missing", NULL, EXIT_NOINPUT, "E_NOINPUT\\] /.*/run\\.ini: .*No such file");
    assert_int_equal(mkfifo(temp_path("case/run.ini"), 0600), 0);
    refused("a FIFO", NULL, EXIT_NOINPUT, "E_NOINPUT\\] /.*/run\\.ini: no regular file");
    assert_int_equal(unlink(temp_path("case/run.ini")), 0);
    assert_int_equal(dir_make(temp_path("case/run.ini")), QFW_OK);
    refused("a folder", NULL, EXIT_NOINPUT, "E_NOINPUT\\] /.*/run\\.ini: a folder");
    refused("a word", "--iny=x", EXIT_USAGE, "E_USAGE\\] .*'--iny=x'");
    refused("two", "--ini=x", EXIT_USAGE, "E_USAGE\\] --ini is given twice");
    tiny_make("case");
    refused("--set", "--set=seed", EXIT_USAGE, "E_USAGE\\] --set 'seed': .*section\\.key=value");
    refused(
        "--set", "--set=run.sed=1", EXIT_CONFIG, "E_INI_UNKNOWN\\] --set run\\.sed: .*'seed'\\?");
}

/* --- data --- */

static const char chat[] = "max_length = 128\nchat_template = phi3-mini";
#define ROW(text) "{\"messages\": [" text "]}\n"
#define USER      "{\"role\": \"user\", \"content\": \"a\"}"
#define OTHER     "{\"role\": \"user\", \"content\": \"ab\"}"
#define ANSWER    "{\"role\": \"assistant\", \"content\": \"a\"}"
#define IN(name)  "E_DATA_" name "\\] .*/rows\\.jsonl:"

static void d_rows(void **state) {
    static const struct {
        const char *rows, *regex;
    } rows[] = {
        /* D1 */
        {"", "E_DATA_EMPTY\\] .*/rows\\.jsonl: no row that can be used; lines: 0,"},
        {"\n \n\n", "E_DATA_EMPTY\\] .*/rows\\.jsonl: no row .*lines: 3, rows: 0,"},
        /* D2 */
        {"{\"input_ids\": [5, 6]}\n{\"input_ids\": [5, }\n", IN("JSON") "2:19: "},
        {"{\"input_ids\": [5, 6]}\n{\"input_ids\": [5", IN("JSON") "2:"},
        {"[5, 6]\n", IN("[A-Z]+") "1: .*object"},
        /* D3 */
        {"{\"text\": \"a\xff\"}\n", IN("JSON") "1:12: .*0xff"},
        {"{\"text\": \"\\ud800\"}\n", IN("JSON") "1:"},
        {"{\"input_ids\": [5, 6]}\n\xef\xbb\xbf{}\n", IN("JSON") "2:1"},
        /* D4 */
        {"{}\n", IN("FIELD") "1: .*\"messages\""},
        {"{\"prompt\": \"a\"}\n", IN("FIELD") "1: /completion: missing"},
        {"{\"text\": 5}\n", IN("FIELD") "1: /text: found .*wanted a string"},
        {"{\"input_ids\": [5, \"6\"]}\n", IN("FIELD") "1: /input_ids/1: found .*integer"},
        {"{\"input_ids\": [5, 6], \"labels\": [5]}\n", IN("FIELD") "1: /labels: .*as long"},
        {ROW(""), IN("FIELD") "1: /messages.*: no messages"},
        {ROW(USER ", {\"role\": \"tool\", \"content\": \"a\"}"),
            IN("FIELD") "1: /messages/1/role: .*'tool'"},
        {ROW(USER ", {\"role\": \"assistant\"}"),
            IN("FIELD") "1: /messages/1/content: found nothing"},
        {ROW(USER ", {\"role\": \"assistant\", \"content\": 1}"),
            IN("FIELD") "1: /messages/1/content: found .*wanted a string"},
        {"\n" ROW(USER ", " ANSWER ", " ANSWER), IN("FIELD") "2: /messages/2/role: .*wanted user"},
        {ROW(USER ", " USER), IN("FIELD") "1: /messages/1/role: .*wanted assistant"},
        /* D6 */
        {"{\"text\": \"a\", \"text\": \"a\"}\n", IN("JSON") "1:15: key \"text\" stands twice"},
        /* D7 */
        {"{\"input_ids\": [5, 6], \"labels\": [-100, -100]}\n", IN("UNTRAINED") "1: "},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        tiny_make("case");
        alter("run.ini", "max_length = 128", chat);
        temp_text("case/rows.jsonl", rows[i].rows);
        refused(rows[i].rows, "--dry-run", EXIT_DATA, rows[i].regex);
    }
}

static void d5_a_line_without_end(void **state) {
    (void)state;
    tiny_make("case");
    assert_int_equal(truncate(temp_path("case/rows.jsonl"), (off_t)1 << 30), 0);
    refused("1 GiB", "--dry-run", EXIT_DATA,
        "E_DATA_LIMIT\\] .*/rows\\.jsonl:4: a line of more than 16777216 bytes; hint: .*max_line");
}

static void d7_too_long(void **state) {
    (void)state;
    tiny_make("case");
    alter("run.ini", "max_length = 128", "max_length = 3");
    refused("a row", "--dry-run", EXIT_DATA,
        "E_DATA_LONG\\] .*/rows\\.jsonl:1: /input_ids: 4 tokens, at most 3 .*truncate or drop");
    alter("run.ini", "max_length = 3", "max_length = 2\noverlong = drop");
    assert_int_equal(case_run("--dry-run"), EXIT_OK);
    assert_true(has_line(case_command.err, "warning: .*rows\\.jsonl: 66\\.7 % OF THE ROWS"));
    temp_text("case/rows.jsonl", "{\"input_ids\": [5, 6, 7]}\n");
    refused("all rows", "--dry-run", EXIT_DATA,
        "E_DATA_EMPTY\\] .*/rows\\.jsonl: .*lines: 1, rows: 1, too long: 1,");
}

/* Keys that nothing reads are one warning; marks of other systems are none. */
static void d_accepted(void **state) {
    (void)state;
    tiny_make("case");
    temp_text("case/rows.jsonl", "\xef\xbb\xbf{\"input_ids\": [5, 6], \"id\": 1}\r\n"
                                 "{\"input_ids\": [7, 6], \"id\": 2}\r\n");
    assert_int_equal(case_run("--dry-run"), EXIT_OK);
    assert_true(has_line(case_command.err,
        "^qfw: warning: /.*/rows\\.jsonl: 2 of 2 rows have keys that nothing reads, first 'id'"));
    assert_true(has_line(case_command.out, "2 rows"));
    assert_false(dir_exists(temp_path("case/out")));
}

static void d8_pairs(void **state) {
    static const struct {
        const char *rows, *regex;
    } rows[] = {
        {"{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"b\"}\n", IN("PAIR") "1: "},
        {"{\"prompt\": \"a\", \"chosen\": \"b\"}\n", IN("FIELD") "1: .*rejected"},
        {"{\"prompt\": \"a\", \"chosen\": \"\", \"rejected\": \"b\"}\n",
            IN("PAIR") "1: /chosen: empty"},
        {"{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"\"}\n",
            IN("PAIR") "1: /rejected: empty"},
        {"{\"prompt\": [" USER "], \"chosen\": [" ANSWER "], \"rejected\": [" ANSWER "]}\n",
            IN("PAIR") "1: /rejected: the same as /chosen"},
        {"{\"chosen\": [" USER ", " ANSWER "], \"rejected\": [" OTHER ", " ANSWER "]}\n",
            IN("[A-Z]+") "1: .*prompt"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        tiny_make("case");
        alter("run.ini", "[trainer]\n", "[trainer]\nuse = dpo\n");
        temp_text("case/model/tokenizer_config.json", "{\"eos_token\": \"<s>\"}");
        temp_text("case/rows.jsonl", rows[i].rows);
        refused(rows[i].rows, "--dry-run", EXIT_DATA, rows[i].regex);
    }
}

/* --- numbers --- */

/* Element `at` of a tensor becomes `value`. */
static void set_weight(const char *name, int64_t at, float value) {
    st_file *f = NULL;
    assert_int_equal(st_open(temp_path("case/model/model.safetensors"), &f), QFW_OK);
    const st_tensor *t = st_find(f, name);
    assert_non_null(t);
    const long place = (long)t->begin + (long)at * 4;
    st_close(f);
    patch("model/model.safetensors", place, &value, sizeof value);
}

#define LAYER0 "model.layers.0."

/* A model whose feed-forward product overflows for token 11 alone, which is in row 3: column 5
 * carries it, from the embedding past the attention to a gate and an up of 1e30. */
static void make_overflow(void) {
    enum { WIDTH = 64, COLUMN = 5, TOKEN = 11, UP = 96 };
    tiny_make("case");
    alter("run.ini", "load_in_4bit = true\n", "");
    alter("run.ini", "r = 4\n", "r = 4\ntarget_modules = q_proj\n");
    alter("run.ini", "max_length = 128\n",
        "max_length = 128\ntrain_sampling_strategy = sequential\n");
    alter("run.ini", LR "per_device_train_batch_size = 2\n",
        "max_steps = 5\nper_device_train_batch_size = 1\nsave_steps = 1\nlogging_steps = 1\n");
    for (int i = 0; i < WIDTH; i++) {
        set_weight("model.embed_tokens.weight", i * WIDTH + COLUMN, i == TOKEN);
        set_weight(LAYER0 "self_attn.o_proj.weight", COLUMN * WIDTH + i, 0);
        set_weight(LAYER0 "mlp.gate_up_proj.weight", i, i == COLUMN ? 1e30f : 0);
        set_weight(LAYER0 "mlp.gate_up_proj.weight", UP * WIDTH + i, i == COLUMN ? 1e30f : 0);
    }
    set_weight(LAYER0 "post_attention_layernorm.weight", COLUMN, 1);
}

static char *contents(const char *name, size_t *n) {
    char *text = NULL;
    assert_int_equal(file_read(temp_path(name), 64 << 20, &text, n), QFW_OK);
    return text;
}

/* The run ends at step 3, before it reaches the weights; what steps 1 and 2 published stays. */
static void f1_a_loss_that_is_not_finite(void **state) {
    static const char file[] = "case/out/checkpoint-2/trainer.safetensors";
    static const char regex[] = "^qfw: error\\[E_NUM_LOSS\\] step 3: loss is nan; /.*/rows\\.jsonl "
                                "lines? 3; the weights are "
                                "those of step 2";
    size_t n = 0, n_again = 0;
    (void)state;
    make_overflow();
    if (case_run(NULL) != EXIT_NUMERIC || !has_line(case_command.err, regex))
        fail_msg("exit %d, %s", case_command.exit_code, case_command.err);
    assert_true(has_line(case_command.err, "^step 2/5 "));
    assert_true(has_line(case_command.err, "^step 3/5 \\| loss nan "));
    char *log = contents("case/out/trainer_log.jsonl", &n);
    assert_true(has_line(log, "^\\{\"loss\": (null|NaN), .*\"step\": 3\\}$"));
    mem_free(log);
    char *kept = contents(file, &n);
    assert_false(dir_exists(temp_path("case/out/checkpoint-3")));
    assert_false(file_exists(temp_path("case/out/adapter_model.safetensors")));
    assert_int_equal(case_run("--resume"), EXIT_NUMERIC);
    assert_true(has_line(case_command.err, "^resumed from /.*/checkpoint-2 at step 2$"));
    assert_true(has_line(case_command.err, regex));
    char *again = contents(file, &n_again);
    assert_true(n == n_again && !memcmp(kept, again, n));
    mem_free(kept);
    mem_free(again);
}

/* What may change is told, and what may not ends the run before anything is written. */
static void c10_a_resume_under_other_settings(void **state) {
    (void)state;
    tiny_make("case");
    alter("run.ini", "max_steps = 1\n", "max_steps = 4\nsave_steps = 2\n");
    trains("to the end");
    assert_int_equal(dir_remove(temp_path("case/out/checkpoint-4")), QFW_OK);
    assert_int_equal(remove(temp_path("case/out/manifest.json")), 0);
    alter("run.ini", "save_steps = 2\n", "save_steps = 3\neval_steps = 7\n");
    alter("run.ini", "r = 4\n", "r = 8\n");
    assert_int_equal(case_run("--resume"), EXIT_CONFIG);
    assert_true(has_line(case_command.err, "^qfw: error\\[E_CONFIG_RESUME\\] .*adapter\\.r was "
                                           "\"4\", now \"8\": that is another run"));
    alter("run.ini", "r = 8\n", "r = 4\n");
    assert_int_equal(case_run("--resume"), EXIT_OK);
    assert_true(
        has_line(case_command.err, "^resume: trainer\\.save_steps was \"2\", now \"3\": exact$"));
    assert_true(has_line(case_command.err,
        "^resume: trainer\\.eval_steps was \"0\", now \"7\": compatible: evaluations differ"));
    assert_false(has_line(case_command.err, "resume_from_checkpoint was"));
}

/* A rate of 0 moves nothing, and is told once. */
static void f7_a_loss_that_stands_still(void **state) {
    (void)state;
    tiny_make("case");
    temp_text("case/rows.jsonl", "{\"input_ids\": [5, 6, 7, 8], \"labels\": [-100, 6, 7, 8]}\n");
    alter("run.ini", "max_steps = 1\n", "max_steps = 60\nlearning_rate = 0\n");
    trains("nowhere");
    assert_true(has_line(case_command.err, "step 50: the loss has been 4\\.[0-9]+ for 50 steps"));
    assert_false(has_line(case_command.err, "step 51: the loss"));
}

/* A loss that is finite, but whose gradient's square is not. */
static void f2_a_gradient_that_is_not_finite(void **state) {
    (void)state;
    tiny_make("case");
    alter("run.ini", "load_in_4bit = true\n", "");
    for (int i = 0; i < 64; i++) set_weight("lm_head.weight", 6 * 64 + i, i % 2 ? 1e30f : -1e30f);
    assert_int_equal(case_run(NULL), EXIT_NUMERIC);
    if (!has_line(case_command.err, "^qfw: error\\[E_NUM_GRAD\\] step 1: the gradient norm is inf, "
                                    "its squares are too large; "
                                    "the weights are those of step 0"))
        fail_msg("%s", case_command.err);
    assert_false(dir_exists(temp_path("case/out/checkpoint-1")));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(c_ini),
        cmocka_unit_test(c4_too_large),
        cmocka_unit_test(c5_marks),
        cmocka_unit_test(c6_all_in_one_run),
        cmocka_unit_test(c6_of_every_kind),
        cmocka_unit_test(c7_paths),
        cmocka_unit_test(c8_no_ini),
        cmocka_unit_test(d_rows),
        cmocka_unit_test(d5_a_line_without_end),
        cmocka_unit_test(d7_too_long),
        cmocka_unit_test(d_accepted),
        cmocka_unit_test(d8_pairs),
        cmocka_unit_test(c10_a_resume_under_other_settings),
        cmocka_unit_test(f7_a_loss_that_stands_still),
        cmocka_unit_test(f1_a_loss_that_is_not_finite),
        cmocka_unit_test(f2_a_gradient_that_is_not_finite),
    };
    return cmocka_run_group_tests_name("faults/command", tests, temp_make, temp_drop);
}

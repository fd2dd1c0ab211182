/* test_dataset.c -- rows to examples: tokens, masks, limits; what is refused, with its place. */
#define _POSIX_C_SOURCE 200809L
#include "../support/temp.h"
#include "../support/texts.h"
#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "files/file.h"
#include "text/dataset.h"
#include "text/jsonl.h"

#include <stdlib.h>
#include <unistd.h>

#include "../support/test.h"

/* --- a trainer --- */

static uint32_t train = QFW_TRAIN_COMPLETION;
static qfw_status (*instead)(qfw_encoder *e); /* replaces what follows */

static int has(qfw_encoder *e, const char *ptr) {
    return json_doc_api.kind(encoder_api.row(e), ptr) != QFW_DOC_ABSENT;
}

static qfw_status test_encode(qfw_inst *inst, qfw_encoder *e) {
    (void)inst;
    if (instead) return instead(e);
    if (has(e, "/input_ids")) return encoder_api.tokens(e, "/input_ids", "/labels");
    if (has(e, "/chosen")) {
        QFW_TRY(encoder_api.pair(e, "/prompt", "/chosen", QFW_TRAIN_COMPLETION));
        return encoder_api.pair(e, "/prompt", "/rejected", QFW_TRAIN_COMPLETION);
    }
    if (has(e, "/prompt")) return encoder_api.pair(e, "/prompt", "/completion", train);
    if (has(e, "/conversations")) return encoder_api.messages(e, "/conversations", train);
    if (has(e, "/instruction"))
        return encoder_api.instruction(e, "/instruction", "/input", "/output", train);
    if (has(e, "/messages")) return encoder_api.messages(e, "/messages", train);
    return encoder_api.text(e, "/text");
}

static const qfw_trainer trainer = {.size = sizeof trainer, .encode = test_encode};

/* --- a set --- */

static tokenizer *tok;
static dataset_opts opts;

static int setup(void **state) {
    if (temp_make(state)) return -1;
    must(file_copy(golden_path("bytefallback/tokenizer.json"), temp_path("tokenizer.json")));
    temp_text("tokenizer_config.json", "{\"eos_token\": \"<|endoftext|>\"}");
    must(tokenizer_open(temp_folder(), 500, &tok));
    log_set_level(QFW_LOG_ERROR);
    return 0;
}

static int teardown(void **state) {
    tokenizer_close(tok);
    return temp_drop(state);
}

static int usual(void **state) {
    (void)state;
    opts = (dataset_opts){
        .tok = tok, .chat = chat_by_name("phi3-mini"), .max_length = 1024, .trainer = &trainer};
    train = QFW_TRAIN_COMPLETION;
    instead = NULL;
    return 0;
}

static qfw_status open_text(const char *text, dataset **out) {
    temp_text("rows.jsonl", text);
    return dataset_open(temp_path("rows.jsonl"), &opts, out);
}

static dataset *opened(const char *text) {
    dataset *d = NULL;
    must(open_text(text, &d));
    return d;
}

static void refused(const char *text, const char *name, const char *regex) {
    dataset *d = NULL;
    const qfw_status status = open_text(text, &d);
    assert_null(d);
    assert_error(status, name, EXIT_DATA, regex);
}

/* "the* |<|endoftext|>*": tokens of a sequence, those that are trained with a star. */
static const char *shown(const qfw_seq *s) {
    static char text[2][4096];
    static unsigned next;
    char *p = text[next++ % 2];
    size_t n = 0;
    for (uint32_t t = 0; t < s->n; t++)
        n += (size_t)snprintf(p + n, sizeof text[0] - n, "%s%s%s", t ? " " : "",
            tokenizer_token(tok, s->token[t]), s->trained[t] ? "*" : "");
    return p;
}

/* One row: its only sequence. */
static void becomes(const char *row, const char *wanted) {
    dataset *d = opened(row);
    assert_int_equal(dataset_count(d), 1);
    assert_int_equal(dataset_at(d, 0)->n_seqs, 1);
    const qfw_seq *s = &dataset_at(d, 0)->seq[0];
    uint32_t trained = 0;
    for (uint32_t t = 0; t < s->n; t++) trained += s->trained[t];
    assert_int_equal(trained, s->n_trained);
    assert_string_equal(shown(s), wanted);
    dataset_close(d);
}

#define B "\xe2\x96\x81" /* the blank of this vocabulary */

/* --- rows --- */

static void test_text(void **state) {
    (void)state;
    becomes("{\"text\": \"the year\"}", B "the " B "year* <|endoftext|>*");
    becomes("{\"text\": \"the year<|endoftext|>\"}", B "the " B "year* <|endoftext|>*");
    becomes("{\"text\": \"<|user|>\\n the<|end|>\"}", "<|user|> " B "the* <|end|>* <|endoftext|>*");
    becomes("{\"text\": \"<|endoftext|>the\"}", "<|endoftext|> " B "the* <|endoftext|>*");
}

static void test_pair(void **state) {
    (void)state;
    becomes("{\"prompt\": \"the\", \"completion\": \" year\"}", B "the " B "year* <|endoftext|>*");
    becomes("{\"prompt\": \"the \", \"completion\": \"year<|endoftext|>\"}",
        B "the " B "year* <|endoftext|>*"); /* the prompt's last token is another alone */
    becomes("{\"prompt\": \"the\", \"completion\": \"\"}", B "the <|endoftext|>*");
    train = QFW_TRAIN_ALL;
    becomes("{\"prompt\": \"the for\", \"completion\": \" year\"}",
        B "the " B "for* " B "year* <|endoftext|>*");
}

static const char talk[] =
    "{\"messages\": [{\"role\": \"user\", \"content\": \" the\"}, {\"role\": \"assistant\", "
    "\"content\": \"year\"}, {\"role\": \"user\", \"content\": \"for\"}, {\"role\": \"assistant\", "
    "\"content\": \"the</s>\"}]}";

static void test_messages(void **state) {
    (void)state;
    becomes(talk, "<|user|> " B "the <|end|> <|assistant|> " B "year* <|end|>* <|user|> " B "for "
                  "<|end|> <|assistant|> " B "the* <* /* s* >* <|end|>* <|endoftext|>*");
    train = QFW_TRAIN_ALL;
    opts.chat = chat_by_name("phi3-medium");
    opts.allow_special = 1;
    becomes(talk, "<|user|> " B "the* <|end|>* <|assistant|>* " B "year* <|end|>* <|user|>* " B
                  "for* <|end|>* <|assistant|>* " B "the* </s>* <|end|>*");
}

static void test_pair_of_messages(void **state) {
    (void)state;
    becomes(
        "{\"prompt\": [{\"role\": \"user\", \"content\": \"the\"}], \"completion\": [{\"role\": "
        "\"assistant\", \"content\": \"year\"}]}",
        "<|user|> " B "the <|end|> <|assistant|> " B "year* <|end|>* <|endoftext|>*");
    refused(
        "{\"prompt\": [{\"role\": \"user\", \"content\": \"the\"}], \"completion\": [{\"role\": "
        "\"user\", \"content\": \"year\"}]}",
        "E_DATA_FIELD", "rows.jsonl:1: /completion/0/role: .*wanted assistant");
    refused(
        "{\"prompt\": [{\"role\": \"user\", \"content\": \"the\"}, {\"role\": \"assistant\", "
        "\"content\": \"the\"}], \"completion\": [{\"role\": \"user\", \"content\": \"year\"}]}",
        "E_DATA_FIELD", "rows.jsonl:1: /completion/0/role: wanted assistant");
    refused("{\"prompt\": [{\"role\": \"user\", \"content\": \"the\"}], \"completion\": \"x\"}",
        "E_DATA_FIELD", "rows.jsonl:1: /completion: a string after a prompt that is a list");
    refused("{\"prompt\": \"the\", \"completion\": [{\"role\": \"user\", \"content\": \"year\"}]}",
        "E_DATA_FIELD", "rows.jsonl:1: /completion: found an array, wanted a string");
}

static void test_conversations(void **state) {
    (void)state;
    becomes(
        "{\"conversations\": [{\"from\": \"system\", \"value\": \"for\"}, {\"from\": \"human\", "
        "\"value\": \"the\"}, {\"from\": \"gpt\", \"value\": \"year\"}]}",
        "<|system|> " B "for <|end|> <|user|> " B "the <|end|> <|assistant|> " B
        "year* <|end|>* <|endoftext|>*");
    refused("{\"conversations\": [{\"from\": \"human\", \"value\": \"the\"}, {\"from\": "
            "\"function_call\", \"value\": \"x\"}]}",
        "E_DATA_FIELD", "rows.jsonl:1: /conversations/1/from: found 'function_call', wanted");
    refused("{\"conversations\": [{\"from\": \"gpt\", \"value\": \"the\"}]}", "E_DATA_FIELD",
        "rows.jsonl:1: /conversations/0/from: .*wanted user");
    refused("{\"conversations\": [{\"from\": \"human\", \"content\": \"the\"}]}", "E_DATA_FIELD",
        "rows.jsonl:1: /conversations/0/value: found nothing, wanted a string");
    refused("{\"messages\": [{\"role\": \"human\", \"content\": \"the\"}]}", "E_DATA_FIELD",
        "rows.jsonl:1: /messages/0/role: found 'human', wanted system, user or assistant");
}

static void test_instruction(void **state) {
    (void)state;
    static const char with_input[] =
        "{\"instruction\": \"the\", \"input\": \"for\", \"output\": \"year\"}";
    becomes("{\"instruction\": \"the\", \"input\": \"\", \"output\": \"year\"}",
        "<|user|> " B "the <|end|> <|assistant|> " B "year* <|end|>* <|endoftext|>*");
    becomes("{\"instruction\": \"the\", \"output\": \"year\"}",
        "<|user|> " B "the <|end|> <|assistant|> " B "year* <|end|>* <|endoftext|>*");
    becomes(with_input,
        "<|user|> " B "the <0x0A> f or <|end|> <|assistant|> " B "year* <|end|>* <|endoftext|>*");
    train = QFW_TRAIN_ALL;
    becomes(with_input, "<|user|> " B "the* <0x0A>* f* or* <|end|>* <|assistant|>* " B
                        "year* <|end|>* <|endoftext|>*");
    refused("{\"instruction\": \"the\", \"input\": 7, \"output\": \"year\"}", "E_DATA_FIELD",
        "rows.jsonl:1: /input: found the integer 7");
    opts.chat = NULL;
    refused(with_input, "E_DATA_FIELD", "rows.jsonl:1: /instruction: .*chat template is not one");
}

/* One form a file: rows of other keys, or of strings where the others have messages. */
static void test_mixed(void **state) {
    (void)state;
    refused("{\"text\": \"the\"}\n\n{\"text\": \"year\"}\n{\"prompt\": \"the\", \"completion\": "
            "\"year\"}\n",
        "E_DATA_MIXED", "rows.jsonl:4: .*than line 1: prompt, completion, there text; hint: one");
    refused(
        "{\"prompt\": \"the\", \"completion\": \"year\"}\n{\"prompt\": [{\"role\": \"user\", "
        "\"content\": \"a\"}], \"completion\": [{\"role\": \"assistant\", \"content\": \"b\"}]}",
        "E_DATA_MIXED",
        "rows.jsonl:2: .*than line 1: prompt, completion of messages, there prompt");
    dataset *d = opened("{\"input_ids\": [4, 5], \"labels\": [4, 5]}\n{\"input_ids\": [4, 5]}\n");
    assert_int_equal(dataset_count(d), 2);
    dataset_close(d);
}

static void test_tokens(void **state) {
    (void)state;
    becomes("{\"input_ids\": [4, 5, 6], \"labels\": [4, -100, 6]}", "<0x01> <0x02> <0x03>*");
    becomes("{\"input_ids\": [4, 5, 6]}", "<0x01> <0x02>* <0x03>*");
    dataset *d = opened("{\"input_ids\": [4, 499]}"); /* no token, but the model's */
    assert_int_equal(dataset_at(d, 0)->seq[0].token[1], 499);
    dataset_close(d);
    refused("{\"input_ids\": [4, 500]}", "E_DATA_FIELD",
        "rows.jsonl:1: /input_ids/1: 500 is no token, wanted 0 \\.\\. 499");
    refused("{\"input_ids\": [4, -1]}", "E_DATA_FIELD", "/input_ids/1: -1 is no token");
    refused("{\"input_ids\": [4, 1.5]}", "E_DATA_FIELD", "/input_ids/1: found .*wanted an integer");
    refused("{\"input_ids\": [4, 5], \"labels\": [4]}", "E_DATA_FIELD", "/labels: .* as long as");
    refused("{\"input_ids\": [4, 5], \"labels\": [4, 6]}", "E_DATA_FIELD", "/labels/1: .*neither");
    refused("{\"input_ids\": [4, 5], \"labels\": [4, -99]}", "E_DATA_FIELD", "/labels/1: -99");
    refused("{\"input_ids\": 4}", "E_DATA_FIELD", "/input_ids: wanted a list");
}

static void test_two_sequences(void **state) {
    (void)state;
    dataset *d = opened("{\"prompt\": \"the\", \"chosen\": \" year\", \"rejected\": \" for\"}\n\n"
                        "{\"prompt\": \"for\", \"chosen\": \" the year\", \"rejected\": \" for\"}");
    assert_int_equal(dataset_count(d), 2);
    const qfw_example *e = dataset_at(d, 1);
    assert_int_equal(e->n_seqs, 2);
    assert_int_equal(e->line, 3);
    assert_int_equal(e->index, 1);
    assert_string_equal(shown(&e->seq[0]), B "for " B "the* " B "year* <|endoftext|>*");
    assert_string_equal(shown(&e->seq[1]), B "for " B "for* <|endoftext|>*");
    assert_string_equal(shown(&dataset_at(d, 0)->seq[1]), B "the " B "for* <|endoftext|>*");
    assert_int_equal(dataset_facts(d)->max, 7);
    assert_int_equal(dataset_facts(d)->min, 6);
    dataset_close(d);
}

static void test_bos(void **state) {
    (void)state;
    char *text = NULL;
    size_t n = 0;
    tokenizer *other = NULL;
    must(file_read(golden_path("bytefallback/tokenizer.json"), 1 << 20, &text, &n));
    char *at = strstr(text, "\"post_processor\": null");
    assert_non_null(at);
    char *made =
        mem_printf("%.*s\"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": "
                   "[{\"SpecialToken\": {\"id\": \"<s>\"}}, {\"Sequence\": {\"id\": "
                   "\"A\"}}], \"special_tokens\": {\"<s>\": {\"ids\": [1]}}}%s",
            (int)(at - text), text, at + strlen("\"post_processor\": null"));
    must(dir_make(temp_path("bos")));
    temp_text("bos/tokenizer.json", made);
    temp_text("bos/tokenizer_config.json", "{\"eos_token\": \"<|endoftext|>\"}");
    must(tokenizer_open(temp_path("bos"), 0, &other));
    opts.tok = other;
    becomes("{\"text\": \"the\"}", "<s> " B "the* <|endoftext|>*");
    becomes(
        "{\"prompt\": \"the\", \"completion\": \" for\"}", "<s> " B "the " B "for* <|endoftext|>*");
    becomes("{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", "
            "\"content\": \"the\"}]}",
        "<|user|> " B "a <|end|> <|assistant|> " B "the* <|end|>* <|endoftext|>*");
    tokenizer_close(other);
    mem_free(made);
    mem_free(text);
}

static void test_no_eos(void **state) {
    (void)state;
    tokenizer *other = NULL;
    must(tokenizer_open(golden_path("bytefallback"), 0, &other));
    opts.tok = other;
    refused("{\"text\": \"the\"}", "E_TOK_SPECIAL", "rows.jsonl:1: /text: .*names no eos_token");
    refused(talk, "E_TOK_SPECIAL", "rows.jsonl:1: /messages: .*names no eos_token");
    tokenizer_close(other);
}

/* --- limits --- */

static void test_overlong(void **state) {
    (void)state;
    static const char rows[] = "{\"text\": \"the\"}\n{\"text\": \"the for the year\"}\n";
    opts.max_length = 3;
    refused(rows, "E_DATA_LONG",
        "rows.jsonl:2: /text: 5 tokens, at most 3 .*overlong = truncate or drop");
    opts.model_length = 3;
    refused(rows, "E_DATA_LONG",
        "5 tokens, at most 3 \\(the model's limit\\); hint: set overlong = truncate or drop");
    opts.overlong = OVERLONG_DROP;
    dataset *d = opened(rows);
    assert_int_equal(dataset_count(d), 1);
    assert_int_equal(dataset_facts(d)->dropped_long, 1);
    assert_int_equal(dataset_facts(d)->rows, 2);
    assert_int_equal(dataset_facts(d)->tokens, 2);
    dataset_close(d);
    opts.overlong = OVERLONG_TRUNCATE;
    d = opened(rows);
    assert_string_equal(shown(&dataset_at(d, 1)->seq[0]), B "the " B "for* <|endoftext|>*");
    assert_int_equal(dataset_at(d, 1)->seq[0].truncated, 2);
    assert_int_equal(dataset_at(d, 1)->seq[0].n_trained, 2);
    assert_int_equal(dataset_facts(d)->cut, 1);
    assert_int_equal(dataset_facts(d)->kept, 2);
    dataset_close(d);
    opts.max_length = 4; /* a chat of medium ends in <|end|>, which is kept; a token row has none */
    train = QFW_TRAIN_ALL;
    opts.chat = chat_by_name("phi3-medium");
    becomes(talk, "<|user|> " B "the* <|end|>* <|end|>*");
    becomes("{\"input_ids\": [4, 5, 6, 7, 8, 9]}", "<0x01> <0x02>* <0x03>* <0x04>*");
    becomes("{\"input_ids\": [4, 5, 6, 7, 8, 490]}", "<0x01> <0x02>* <0x03>* <|endoftext|>*");
}

static void test_untrained(void **state) {
    (void)state;
    static const char rows[] = "{\"input_ids\": [4, 5, 490]}\n"
                               "{\"input_ids\": [4, 5], \"labels\": [4, -100]}\n"
                               "{\"input_ids\": [4, 5, 6, 7, 8, 9, 490], \"labels\": [-100, -100, "
                               "-100, -100, -100, 9, 490]}\n"
                               "{\"input_ids\": [4, 5, 490], \"labels\": [-100, 5, 490]}\n";
    opts.max_length = 3;
    opts.overlong = OVERLONG_TRUNCATE;
    refused(rows, "E_DATA_UNTRAINED", "rows.jsonl:2: no token .*untrained = drop");
    refused("{\"text\": \"\"}", "E_DATA_UNTRAINED", "rows.jsonl:1");
    /* The prompt fills the row: only the end mark would be trained. */
    refused(strchr(strchr(rows, '\n') + 1, '\n'), "E_DATA_UNTRAINED",
        "rows.jsonl:2: .*4 tokens are cut off, past \\[data\\] max_length = 3");
    opts.drop_untrained = 1;
    dataset *d = opened(rows);
    assert_int_equal(dataset_count(d), 2);
    assert_int_equal(dataset_facts(d)->dropped_untrained, 2);
    assert_int_equal(dataset_at(d, 1)->line, 4);
    assert_int_equal(dataset_at(d, 1)->index, 1);
    assert_string_equal(shown(&dataset_at(d, 1)->seq[0]), "<0x01> <0x02>* <|endoftext|>*");
    dataset_close(d);
}

static void test_empty(void **state) {
    (void)state;
    refused("", "E_DATA_EMPTY", "rows.jsonl: no row that can be used; lines: 0, rows: 0");
    refused("\n \n\t\r\n", "E_DATA_EMPTY", "lines: 3, rows: 0");
    opts.max_length = 2;
    opts.overlong = OVERLONG_DROP;
    refused("{\"text\": \"the for\"}", "E_DATA_EMPTY", "lines: 1, rows: 1, too long: 1");
    dataset *d = NULL;
    assert_error(
        dataset_open(temp_path("none.jsonl"), &opts, &d), "E_NOINPUT", EXIT_NOINPUT, "none");
    assert_error(dataset_open(temp_folder(), &opts, &d), "E_NOINPUT", EXIT_NOINPUT, "a folder");
}

/* --- the file --- */

static void test_marks(void **state) {
    (void)state;
    dataset *d = opened("\xef\xbb\xbf{\"text\": \"the\"}\r\n \t\r\n  {\"text\": \"for\"} \r\n");
    assert_int_equal(dataset_count(d), 2);
    assert_int_equal(dataset_at(d, 1)->line, 3);
    assert_int_equal(dataset_facts(d)->blank, 1);
    assert_int_equal(dataset_facts(d)->lines, 3);
    dataset_close(d);
}

static void test_json(void **state) {
    (void)state;
    refused("{\"text\": \"a\"}\n{\"text\": }\n", "E_DATA_JSON", "rows.jsonl:2:10: ");
    refused("{\"text\": \"a\"}\n{\"text\": \"tr", "E_DATA_JSON", "rows.jsonl:2:");
    refused("{\"text\": \"a\xff\"}", "E_DATA_JSON", "rows.jsonl:1:12: .*0xff");
    refused("{\"text\": \"\\ud800\"}", "E_DATA_JSON", "rows.jsonl:1:");
    refused("{\"text\": \"a\\u0000\"}", "E_DATA_JSON", "rows.jsonl:1:");
    refused("{\"text\": \"a\"}\n\xef\xbb\xbf{\"text\": \"a\"}", "E_DATA_JSON", "rows.jsonl:2:1");
    refused("{\"text\": \"a\", \"text\": \"b\"}", "E_DATA_JSON", "rows.jsonl:1:.*twice");
    refused("[1]", "E_DATA_FIELD", "rows.jsonl:1: a row is an object");
    refused("7", "E_DATA_JSON", "rows.jsonl:1:");
}

static void test_fields(void **state) {
    (void)state;
    refused("{}", "E_DATA_FIELD", "rows.jsonl:1: /text: found nothing, wanted a string");
    refused("{\"text\": 7}", "E_DATA_FIELD", "rows.jsonl:1: /text: found the integer 7");
    refused("{\"prompt\": \"a\"}", "E_DATA_FIELD", "rows.jsonl:1: /completion: found nothing");
    refused("{\"messages\": []}", "E_DATA_FIELD", "rows.jsonl:1: /messages: no messages");
    refused("{\"messages\": {}}", "E_DATA_FIELD", "rows.jsonl:1: /messages: wanted a list");
    refused("{\"messages\": [{\"role\": \"user\"}]}", "E_DATA_FIELD",
        "/messages/0/content: found nothing, wanted a string");
    refused("{\"messages\": [{\"role\": 1, \"content\": \"\"}]}", "E_DATA_FIELD",
        "/messages/0/role: found the integer 1");
    refused("{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"tool\", "
            "\"content\": \"a\"}]}",
        "E_DATA_FIELD", "/messages/1/role: found 'tool', wanted system, user or assistant");
    refused("{\"messages\": [{\"role\": \"assistant\", \"content\": \"a\"}]}", "E_DATA_FIELD",
        "/messages/0/role: found 'assistant', wanted user");
    refused("{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"user\", "
            "\"content\": \"a\"}]}",
        "E_DATA_FIELD", "/messages/1/role: found 'user', wanted assistant");
    opts.chat = chat_by_name("phi3-medium");
    refused("{\"messages\": [{\"role\": \"system\", \"content\": \"a\"}, {\"role\": \"user\", "
            "\"content\": \"a\"}]}",
        "E_DATA_FIELD", "/messages/0/role: .* has no system turn .*system_turn = fold");
    opts.chat = NULL;
    refused(talk, "E_DATA_FIELD", "/messages: .*chat template is not one that is known");
}

static void test_long_line(void **state) {
    (void)state;
    dataset *d = NULL;
    opts.max_line = 32;
    refused("{\"text\": \"the\"}\n{\"text\": \"the year for the year for\"}\n", "E_DATA_LIMIT",
        "rows.jsonl:2: a line of more than 32 bytes; hint: \\[data\\] max_line");
    d = opened("{\"text\": \"the year for the ye\"} \n{\"text\": \"the\"}"); /* 32 bytes */
    assert_int_equal(dataset_count(d), 2);
    dataset_close(d);
    refused("{\"text\": \"the year for the yea\"} \n", "E_DATA_LIMIT", "rows.jsonl:1"); /* 33 */
    opts.max_line = 0;
    temp_text("sparse.jsonl", "{\"text\": \"the\"}\n");
    assert_int_equal(truncate(temp_path("sparse.jsonl"), 1 << 30), 0); /* 1 GiB of NUL */
    assert_error(dataset_open(temp_path("sparse.jsonl"), &opts, &d), "E_DATA_LIMIT", EXIT_DATA,
        "sparse.jsonl:2: a line of more than 16777216 bytes");
}

/* Lines of every length around the size of a read come out as they went in. */
static void test_line_ends(void **state) {
    (void)state;
    const size_t n_lines = 3000;
    jsonl *r = NULL;
    char *text = calloc(n_lines, 600), hex[65], wanted[65];
    const char *line = NULL;
    size_t n = 0, used = 0;
    assert_non_null(text);
    for (size_t i = 0; i < n_lines; i++) {
        memset(text + used, 'a' + (int)(i % 26), i * 7 % 500);
        used += i * 7 % 500;
        if (i + 1 < n_lines) text[used++] = '\n';
    }
    temp_write("lines", text, used);
    must(jsonl_open(temp_path("lines"), 500, &r));
    for (size_t i = 0; i < n_lines; i++) {
        must(jsonl_next(r, &line, &n));
        assert_int_equal(n, i * 7 % 500);
        assert_int_equal(jsonl_line(r), i + 1);
        for (size_t k = 0; k < n; k++) assert_int_equal(line[k], 'a' + (int)(i % 26));
    }
    assert_int_equal(jsonl_next(r, &line, &n), QFW_E_END);
    jsonl_sha256(r, hex);
    must(file_sha256(temp_path("lines"), wanted));
    assert_string_equal(hex, wanted);
    jsonl_close(r);
    free(text);
}

static qfw_status write_to_the_file(qfw_encoder *e) {
    FILE *f = fopen(temp_path("rows.jsonl"), "a");
    assert_non_null(f);
    assert_true(fputs("{}\n", f) >= 0);
    assert_int_equal(fclose(f), 0);
    return encoder_api.text(e, "/text");
}

static void test_changed(void **state) {
    (void)state;
    instead = write_to_the_file;
    refused("{\"text\": \"the\"}\n", "E_DATA_CHANGED", "rows.jsonl: it changed while it was read");
}

/* --- the trainer --- */

static qfw_status refuse(qfw_encoder *e) {
    (void)e;
    return QFW_E_UNSUPPORTED;
}

static qfw_status refuse_with_reason(qfw_encoder *e) {
    (void)e;
    return err_fail("E_DATA_PLUGIN", QFW_E_DATA, "I do not like it");
}

static qfw_status make_nothing(qfw_encoder *e) {
    (void)e;
    return QFW_OK;
}

static void test_trainer(void **state) {
    (void)state;
    dataset *d = NULL;
    instead = refuse;
    assert_error(
        open_text("{}", &d), "E_PLUG_TRAINER", EXIT_PLUGIN, "rows.jsonl:1: the trainer ref");
    instead = refuse_with_reason;
    refused("{}", "E_DATA_PLUGIN", "rows.jsonl:1: I do not like it");
    instead = make_nothing;
    assert_error(
        open_text("\n{}", &d), "E_PLUG_TRAINER", EXIT_PLUGIN, "rows.jsonl:2: .*no sequence");
}

/* --- facts --- */

static void test_facts(void **state) {
    (void)state;
    char *text = calloc(21, 64), sha[65];
    assert_non_null(text);
    /* rows of 2 .. 21 tokens, the longest first; keys that no one reads in three of them */
    for (int i = 20; i > 0; i--) {
        strcat(text, "{\"input_ids\": [4");
        for (int k = 0; k < i; k++) strcat(text, ",5");
        strcat(text, i % 7 ? "]}\n" : "], \"x\": 1, \"id\": 2}\n");
        text = realloc(text, strlen(text) + 128);
        assert_non_null(text);
    }
    dataset *d = opened(text);
    const dataset_report *f = dataset_facts(d);
    assert_int_equal(f->rows, 20);
    assert_int_equal(f->kept, 20);
    assert_int_equal(f->min, 2);
    assert_int_equal(f->p50, 11);
    assert_int_equal(f->p95, 20);
    assert_int_equal(f->max, 21);
    assert_int_equal(f->tokens, 230);
    assert_int_equal(f->trained, 210);
    assert_int_equal(f->extra_keys, 2);
    assert_int_equal(dataset_longest(d, 1), 21);
    assert_int_equal(dataset_longest(d, 3), 60);
    assert_int_equal(dataset_longest(d, 100), 230);
    must(file_sha256(temp_path("rows.jsonl"), sha));
    assert_string_equal(f->sha256, sha);
    dataset_close(d);
    free(text);
}

static void test_no_memory(void **state) {
    (void)state;
    temp_text("rows.jsonl", talk);
    for (uint64_t k = 1;; k++) {
        dataset *d = NULL;
        mem_fail_at(k);
        const qfw_status status = dataset_open(temp_path("rows.jsonl"), &opts, &d);
        mem_fail_at(0);
        if (status == QFW_OK) {
            dataset_close(d);
            break;
        }
        assert_null(d);
        assert_string_equal(err_name(), "E_MEM");
    }
    err_clear();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_text, usual),
        cmocka_unit_test_setup(test_pair, usual),
        cmocka_unit_test_setup(test_messages, usual),
        cmocka_unit_test_setup(test_pair_of_messages, usual),
        cmocka_unit_test_setup(test_conversations, usual),
        cmocka_unit_test_setup(test_instruction, usual),
        cmocka_unit_test_setup(test_mixed, usual),
        cmocka_unit_test_setup(test_tokens, usual),
        cmocka_unit_test_setup(test_two_sequences, usual),
        cmocka_unit_test_setup(test_bos, usual),
        cmocka_unit_test_setup(test_no_eos, usual),
        cmocka_unit_test_setup(test_overlong, usual),
        cmocka_unit_test_setup(test_untrained, usual),
        cmocka_unit_test_setup(test_empty, usual),
        cmocka_unit_test_setup(test_marks, usual),
        cmocka_unit_test_setup(test_json, usual),
        cmocka_unit_test_setup(test_fields, usual),
        cmocka_unit_test_setup(test_long_line, usual),
        cmocka_unit_test_setup(test_line_ends, usual),
        cmocka_unit_test_setup(test_changed, usual),
        cmocka_unit_test_setup(test_trainer, usual),
        cmocka_unit_test_setup(test_facts, usual),
        cmocka_unit_test_setup(test_no_memory, usual),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

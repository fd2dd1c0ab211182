/* test_score.c -- scores are what the model says of the whole question, whatever is scored beside
 * it; what is written survives a kill; long documents take no more memory than short ones.
 */
#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include "../support/command.h"
#include "../support/temp.h"
#include "../support/texts.h"
#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "files/file.h"
#include "serve/documents.h"
#include "serve/score_out.h"
#include "serve/score_task.h"
#include "serve/tasks.h"

#include "../support/test.h"

static const char usual_ini[] =
    "[run]\ntask = score\noutput_dir = out\n[model]\npath = model\ninit = random\n"
    "[adapter]\nuse = none\n[data]\nmax_length = 56\n"
    "[rubric]\nskills = Java, SQL, Cloud\nanswer = \\s{score}. {reason}\n"
    "[score]\ninput = in.jsonl\nmax_reason_tokens = 6\nchunk_overlap = 16\n";

static const char usual_rows[] =
    "{\"id\": \"ada\", \"text\": \"Ada lives near the coast, strong JVM work.\"}\n"
    "{\"id\": \"ben\", \"text\": \"Ben, expert Django sites. Ben repairs bicycles. Ben, solid JVM "
    "work. Ben likes long walks. Ben, early Terraform plans. Ben sings in a choir.\\n\\nBen, "
    "strong team guidance. Ben plays chess on Sundays. Ben holds a driving licence. Ben grew up "
    "on a farm. Ben, shaky query tuning.\"}\n"
    "\n"
    "{\"text\": \"Eva sings in a choir.\"}\n"
    "{\"id\": \"twin\", \"text\": \"Ada lives near the coast, strong JVM work.\"}\n"
    "{\"id\": 7, \"text\": \"Finn, novice schema design; collects old maps.\"}\n"
    "{\"id\": \"gia\", \"text\": \"\"}\n";

static int setup(void **state) {
    if (temp_make(state)) return -1;
    must(dir_make(temp_path("model")));
    must(file_copy(golden_path("../../../docs/examples/demo/model/config.json"),
        temp_path("model/config.json")));
    must(file_copy(golden_path("../../../docs/examples/demo/model/tokenizer.json"),
        temp_path("model/tokenizer.json")));
    must(file_copy(golden_path("../../../docs/examples/demo/model/tokenizer_config.json"),
        temp_path("model/tokenizer_config.json")));
    temp_text("run.ini", usual_ini);
    temp_text("in.jsonl", usual_rows);
    log_set_level(QFW_LOG_ERROR);
    return 0;
}

/* The task, with up to four --set; what it prints goes to log.txt. */
static qfw_status run_with(int resume, const char *const *set) {
    run_flags flags = {.ini_path = temp_path("run.ini"), .set = set, .resume = resume};
    while (set && set[flags.n_set]) flags.n_set++;
    FILE *out = fopen(temp_path("log.txt"), "w");
    assert_non_null(out);
    const qfw_status status = task_main(&flags, out);
    fclose(out);
    return status;
}

static char *contents(const char *name) {
    char *text = NULL;
    size_t n;
    must(file_read(temp_path(name), 64 << 20, &text, &n));
    return text;
}

static void check_contents(const char *name, const char *wanted) {
    char *found = contents(name);
    assert_string_equal(found, wanted);
    mem_free(found);
}

/* --- arithmetic --- */

static void a_reading(void **state) {
    const float logits[6] = {1, (float)log(2), (float)log(6), -3, (float)log(2), 2};
    const int32_t levels[3] = {1, 2, 4};
    reading r;
    (void)state;
    must(score_read(logits, 6, levels, (scale){3, 3}, &r));
    assert_true(fabs(r.p[0] - 0.2) < 1e-7 && fabs(r.p[1] - 0.6) < 1e-7);
    assert_true(fabs(r.p[2] - 0.2) < 1e-7 && r.p[3] == 0);
    assert_true(fabs(r.expected - 4) < 1e-7);
    assert_true(fabs(r.mass - 10 / (10 + exp(1) + exp(-3) + exp(2))) < 1e-7);
    const float huge[3] = {3e38f, -3e38f, -3e38f}, bad[3] = {0, 0, NAN};
    must(score_read(huge, 3, (const int32_t[]){1, 2}, (scale){0, 2}, &r));
    assert_true(r.p[0] == 0.5 && r.p[1] == 0.5 && r.mass == 0);
    assert_error(score_read(bad, 3, levels, (scale){0, 1}, &r), "E_NUM_LOGIT", EXIT_NUMERIC,
        "token 2 is not finite");
}

static rubric *make_rubric(void) {
    tokenizer *t = NULL;
    rubric *r = NULL;
    must(tokenizer_open(temp_path("model"), 0, &t));
    const rubric_opts o = {.skills = "A,=B",
        .scale = "0-2",
        .prompt = "{document} {skill}:",
        .answer = " {score}. {reason}",
        .definitions = "",
        .tok = t};
    must(rubric_create(&o, &r));
    return r;
}

static void drop_rubric(rubric *r) {
    tokenizer *t = (tokenizer *)(uintptr_t)rubric_says(r)->tok;
    rubric_destroy(r);
    tokenizer_close(t);
}

static void chunks_become_a_document(void **state) {
    static const reading evidence[6] = {{{0.5, 0.25, 0.25}, 0.5, 0.75}, {{1}, 9, 9},
        {{0.125, 0.375, 0.5}, 0.25, 1.375}, {{1}, 9, 9}, {{0.25, 0.125, 0.625}, 1, 1.375},
        {{1}, 9, 9}};
    static const chunk chunks[3] = {{0, 40}, {40, 60}, {60, 80}};
    (void)state;
    rubric *r = make_rubric();
    score_opts o = {.rubric = r, .aggregate = AGGREGATE_MAX_EVIDENCE, .abstain_below = 0.5};
    skill_score s;
    score_aggregate(&o, evidence, 2, chunks, 3, &s);
    assert_int_equal(s.chunk, 1); /* the first of equal ones */
    assert_memory_equal(&s.of, &evidence[2], sizeof s.of);
    assert_true(s.score == 2 && s.confidence == 0.5 && !s.abstained);
    o.aggregate = AGGREGATE_LAST;
    score_aggregate(&o, evidence, 2, chunks, 3, &s);
    assert_true(s.chunk == 2 && s.confidence == 0.625 && s.score == 2);
    o.aggregate = AGGREGATE_MEAN;
    score_aggregate(&o, evidence, 2, chunks, 3, &s);
    assert_true(s.chunk == 1 && s.of.mass == 0.5625 && s.of.expected == 1.0625);
    assert_true(s.of.p[0] == 0.34375 && s.of.p[1] == 0.25 && s.of.p[2] == 0.40625);
    assert_true(s.score == 2 && s.confidence == 0.40625 && s.abstained);
    o.aggregate = AGGREGATE_LAST;
    score_aggregate(&o, (const reading[]){{{0.4, 0.4, 0.2}, 1, 0.8}}, 1, chunks, 1, &s);
    assert_true(s.score == 0 && s.abstained); /* the lowest of equal ones */
    drop_rubric(r);
}

/* --- what the model says --- */

/* A run opened up to its engine. */
typedef struct stage {
    run *r;
    rubric *rub;
    score_opts o;
    engine *e;
} stage;

static void open_stage(stage *s, uint32_t n_slots) {
    const run_flags flags = {.ini_path = temp_path("run.ini")};
    must(run_start(&flags, &s->r));
    must(run_open_model(s->r));
    must(rubric_read(s->r->ini, run_cfg(s->r, SECTION_RUBRIC), s->r->tok, s->r->chat, &s->rub));
    s->o = score_settings(s->r, s->rub);
    s->o.n_slots = n_slots;
    const engine_opts eo = score_engine(&s->o);
    must(run_open_device(s->r));
    must(engine_plan(s->r, &eo, &s->e));
    must(run_load_weights(s->r));
    must(engine_alloc(s->e));
}

static void close_stage(stage *s) {
    engine_destroy(s->e);
    rubric_destroy(s->rub);
    run_close(s->r);
}

enum { MAX_KEPT = 256 };
typedef struct kept {
    size_t n, n_documents;
    reading evidence[MAX_KEPT];
    char text[MAX_KEPT][512], reason[MAX_KEPT][64];
    int32_t score[MAX_KEPT];
    uint32_t skill[MAX_KEPT];
    int decides[MAX_KEPT];
} kept;

static qfw_status keep(void *arg, const scored *d) {
    kept *k = arg;
    k->n_documents++;
    for (size_t i = 0; i < d->n_chunks * d->n_skills; i++, k->n++) {
        const size_t at = i / d->n_skills;
        const chunk c = d->chunks[at];
        const skill_score *s = &d->skills[i % d->n_skills];
        k->evidence[k->n] = d->evidence[i];
        k->skill[k->n] = (uint32_t)(i % d->n_skills);
        k->score[k->n] = s->score;
        k->decides[k->n] = s->chunk == at;
        snprintf(k->text[k->n], 512, "%.*s", (int)(c.to - c.from), d->text + c.from);
        snprintf(k->reason[k->n], 64, "%s", s->reason);
    }
    return QFW_OK;
}

/* Every question by itself, in a slot that holds nothing, and its reason word by word: the same
 * bits. */
static void check_alone(const stage *s, const kept *k, size_t i) {
    int32_t tokens[MAX_LEVELS];
    reading alone;
    ids q = {0};
    float *logits = calloc((size_t)engine_vocab(s->e), sizeof *logits);
    must(rubric_ask(s->rub, k->skill[i], k->text[i], strlen(k->text[i]), &q));
    engine_cut(s->e, 0, 0);
    const engine_append all = {0, q.id, (int64_t)q.n};
    must(engine_read(s->e, &all, 1, logits));
    for (uint32_t l = 0; l < 6; l++) tokens[l] = rubric_level(s->rub, k->skill[i], l);
    must(score_read(logits, engine_vocab(s->e), tokens, (scale){0, 6}, &alone));
    assert_memory_equal(&alone, &k->evidence[i], sizeof alone);
    free(logits);
    ids_free(&q);
}

static void check_reason(const stage *s, const kept *k, size_t i) {
    char *text = NULL;
    size_t n;
    ids q = {0}, said = {0};
    float *logits = calloc((size_t)engine_vocab(s->e), sizeof *logits);
    must(rubric_ask_reason(
        s->rub, k->skill[i], (uint32_t)k->score[i], k->text[i], strlen(k->text[i]), &q));
    for (int64_t more = 0; more < s->o.max_reason_tokens; more++) {
        engine_cut(s->e, 0, 0);
        const engine_append all = {0, q.id, (int64_t)q.n};
        must(engine_read(s->e, &all, 1, logits));
        int32_t best = 0;
        for (int32_t t = 1; t < engine_vocab(s->e); t++)
            if (logits[t] > logits[best]) best = t;
        if (!tokenizer_token(s->r->tok, best) || tokenizer_is_special(s->r->tok, best)) break;
        assert_int_equal(ids_add(&q, best, 0) | ids_add(&said, best, 0), 0);
    }
    must(tokenizer_decode(s->r->tok, said.id, said.n, 1, &text, &n));
    const char *from = text + strspn(text, " \n");
    assert_memory_equal(from, k->reason[i], strlen(k->reason[i]));
    assert_int_equal(
        strspn(from + strlen(k->reason[i]), " \n"), strlen(from + strlen(k->reason[i])));
    mem_free(text);
    free(logits);
    ids_free(&q);
    ids_free(&said);
}

static void scores_are_the_models(void **state) {
    static kept k;
    static const uint32_t slots[] = {1, 2, 5, 16};
    size_t said = 0;
    (void)state;
    for (size_t b = 0; b < sizeof slots / sizeof slots[0]; b++) {
        stage s;
        scorer *scoring = NULL;
        documents *in = NULL;
        document_in d;
        k.n = k.n_documents = 0;
        open_stage(&s, slots[b]);
        must(scorer_create(&s.o, s.e, keep, &k, &scoring));
        const documents_opts o = {temp_path("in.jsonl"), "id", "text", 0};
        must(documents_open(&o, &in));
        while (documents_next(in, &d) == QFW_OK)
            must(scorer_add(scoring, d.id, d.line, d.text, d.n));
        must(scorer_finish(scoring));
        assert_int_equal(k.n_documents, 6);
        assert_true(k.n >= 7 * 3); /* one document has several chunks */
        for (size_t i = 0; i < k.n; i++) {
            check_alone(&s, &k, i);
            if (!k.decides[i]) continue;
            check_reason(&s, &k, i);
            said += *k.reason[i] != 0;
        }
        documents_close(in);
        scorer_destroy(scoring);
        close_stage(&s);
    }
    assert_true(said > 4);
}

static void batches_and_threads_do_not_matter(void **state) {
    static const char *const batches[] = {"1", "3", "4", "32"};
    char *scores = NULL, *table = NULL;
    (void)state;
    for (size_t i = 0; i < 8; i++) {
        char size[64], threads[32];
        snprintf(size, sizeof size, "score.per_device_batch_size=%s", batches[i / 2]);
        snprintf(threads, sizeof threads, "run.threads=%zu", 1 + i % 2);
        must(run_with(0, (const char *[]){size, threads, "run.overwrite_output_dir=true", NULL}));
        if (i > 0) {
            check_contents("out/scores.jsonl", scores);
            check_contents("out/scores.csv", table);
            continue;
        }
        scores = contents("out/scores.jsonl");
        table = contents("out/scores.csv");
    }
    mem_free(scores);
    mem_free(table);
}

/* --- what is written --- */

static void a_kill_loses_nothing(void **state) {
    (void)state;
    must(run_with(0, (const char *[]){"run.overwrite_output_dir=true", NULL}));
    char *scores = contents("out/scores.jsonl"), *table = contents("out/scores.csv");
    const size_t n = strlen(scores);
    for (size_t left = 0; left <= n; left += n / 7) {
        temp_write("out/scores.jsonl", scores, left);
        unlink(temp_path("out/scores.csv"));
        must(run_with(1, NULL));
        check_contents("out/scores.jsonl", scores);
        check_contents("out/scores.csv", table);
    }
    temp_text("out/scores.jsonl", "");
    must(run_with(0, NULL));
    check_contents("out/scores.jsonl", scores);
    assert_error(run_with(0, NULL), "E_OUT_EXISTS", EXIT_OUTPUT, "holds scores already");
    assert_error(run_with(1, (const char *[]){"score.chunk_overlap=8", NULL}), "E_OUT_RESUME",
        EXIT_OUTPUT, "scores\\.jsonl:1: scored under other settings");
    temp_text("in.jsonl", "{\"id\": \"ada\", \"text\": \"\"}\n");
    assert_error(run_with(1, NULL), "E_OUT_RESUME", EXIT_OUTPUT,
        "document 1, 'ada', is not the one that was scored");
    temp_text("in.jsonl", "{\"id\": \"ada\", \"text\": \"Ada lives near the coast, strong JVM "
                          "work.\"}\n"); /* those after it are gone */
    assert_error(
        run_with(1, NULL), "E_OUT_RESUME", EXIT_OUTPUT, "document 2 .there is none. is not");
    char *other = contents("in.jsonl");
    other[8] = 'A'; /* the same texts under another id */
    temp_text("in.jsonl", other);
    free(other);
    assert_error(
        run_with(1, NULL), "E_OUT_RESUME", EXIT_OUTPUT, "document 1, '.*', is not the one");
    temp_text("in.jsonl", usual_rows);
    check_contents("out/scores.jsonl", scores);
    mem_free(scores);
    mem_free(table);
}

static void spreadsheets_get_text(void **state) {
    static const reading evidence[2] = {{{0.5, 0.25, 0.25}, 0.5, 0.75}, {{0, 1, 0}, 1, 1}};
    static const chunk whole = {0, 3};
    uint64_t n_done;
    score_out *o = NULL;
    (void)state;
    rubric *r = make_rubric();
    scored d = {.id = "a \"b\",\nc",
        .text = "Doc",
        .n = 3,
        .chunks = &whole,
        .n_chunks = 1,
        .n_skills = 2,
        .evidence = evidence};
    d.skills[0] = (skill_score){evidence[0], 0, 0.5, 1, 0, "@SUM(A1), \"x\""};
    d.skills[1] = (skill_score){evidence[1], 1, 1, 0, 0, "plain"};
    must(dir_make(temp_path("csv")));
    const score_out_opts oo = {temp_path("csv"), r, "0123", 0};
    must(score_out_open(&oo, &n_done, &o));
    must(score_out_add(o, &d));
    FILE *table = fopen(temp_path("table.txt"), "w");
    must(score_out_finish(o, table));
    fclose(table);
    score_out_close(o);
    check_contents("csv/scores.csv",
        "id,skill,score,expected,confidence,abstained,mass,p0,p1,p2,chunks,chunk,from,to,reason\r\n"
        "\"a \"\"b\"\",\nc\",A,0,0.750000,0.500000,1,0.500000,0.500000,0.250000,0.250000,1,0,0,3,"
        "\"'@SUM(A1), \"\"x\"\"\"\r\n"
        "\"a \"\"b\"\",\nc\",'=B,1,1.000000,1.000000,0,1.000000,0.000000,1.000000,0.000000,1,0,0,"
        "3,plain\r\n");
    check_contents("table.txt",
        "\n  skill  documents  abstained  mean score  expected        0      1      2\n"
        "  A              1          1        0.00      0.00        0      0      0\n"
        "  =B             1          0        1.00      1.00        0      1      0\n");
    drop_rubric(r);
}

/* --- what is read --- */

static void a_folder_is_its_files_by_name(void **state) {
    documents *in = NULL;
    document_in d;
    (void)state;
    must(dir_make(temp_path("in/sub")));
    temp_text("in/b.txt", "\xef\xbb\xbf"
                          "Ben");
    temp_text("in/B.txt", "");
    temp_text("in/a.txt", "Ada\n");
    temp_text("in/.hidden", "x");
    documents_opts o = {temp_path("in"), "id", "text", 0};
    must(documents_open(&o, &in));
    static const char *const wanted[][2] = {{"B.txt", ""}, {"a.txt", "Ada\n"}, {"b.txt", "Ben"}};
    for (size_t i = 0; i < 3; i++) {
        must(documents_next(in, &d));
        assert_string_equal(d.id, wanted[i][0]);
        assert_int_equal(d.n, strlen(wanted[i][1]));
        assert_memory_equal(d.text, wanted[i][1], d.n);
    }
    assert_int_equal(documents_next(in, &d), QFW_E_END);
    documents_close(in);
    temp_text("in/A.txt", "one\ntwo\nth\xffree");
    must(documents_open(&o, &in));
    assert_error(
        documents_next(in, &d), "E_DATA_UTF8", EXIT_DATA, "in/A\\.txt:3: byte 10 is not UTF-8");
    documents_close(in);
    o.path = temp_path("in/sub");
    assert_error(documents_open(&o, &in), "E_DATA_EMPTY", EXIT_DATA, "a folder without a file");
    o.path = temp_path("none.jsonl");
    assert_error(documents_open(&o, &in), "E_NOINPUT", EXIT_NOINPUT, "none\\.jsonl");
}

static void check_row(const char *row, const char *name, const char *regex) {
    documents *in = NULL;
    document_in d;
    char text[256];
    snprintf(text, sizeof text, "{\"text\": \"ok\"}\n%s\n", row);
    temp_text("bad.jsonl", text);
    const documents_opts o = {temp_path("bad.jsonl"), "id", "text", 0};
    must(documents_open(&o, &in));
    must(documents_next(in, &d));
    assert_string_equal(d.id, "1");
    assert_error(documents_next(in, &d), name, EXIT_DATA, regex);
    documents_close(in);
}

static void wrong_rows_are_named(void **state) {
    (void)state;
    check_row("{\"id\": 1}", "E_DATA_FIELD", "bad\\.jsonl:2: 'text': missing");
    check_row("{\"text\": 1}", "E_DATA_FIELD", "bad\\.jsonl:2: 'text': no text");
    check_row("{\"text\": \"\", \"id\": []}", "E_DATA_FIELD", "bad\\.jsonl:2: 'id': neither");
    check_row("[\"text\"]", "E_DATA_FIELD", "bad\\.jsonl:2: .*an object");
    check_row("{\"text\": \"a", "E_DATA_JSON", "bad\\.jsonl:2");
    check_row("{\"text\": \"\", \"id\": \"1\"}", "E_DATA_FIELD",
        "bad\\.jsonl:2: 'id': '1' is the id of line 1, too; hint: .* id_field");
    documents *in = NULL;
    document_in d;
    const documents_opts o = {temp_path("bad.jsonl"), "id", "text", 0};
    temp_text("bad.jsonl", "\n \n");
    must(documents_open(&o, &in));
    assert_error(documents_next(in, &d), "E_DATA_EMPTY", EXIT_DATA, "a file without a row");
    documents_close(in);
    char *many = malloc(64 * 1000), *to = many; /* all told apart */
    assert_non_null(many);
    for (int i = 0; i < 1000; i++)
        to += snprintf(to, 64, "{\"id\": \"r%d\", \"text\": \"x\"}\n", i);
    temp_text("bad.jsonl", many);
    free(many);
    must(documents_open(&o, &in));
    for (int i = 0; i < 1000; i++) must(documents_next(in, &d));
    assert_int_equal(documents_next(in, &d), QFW_E_END);
    documents_close(in);
}

static void no_room_is_said(void **state) {
    (void)state;
    assert_error(run_with(0, (const char *[]){"data.max_length=24", NULL}), "E_CONFIG_ROOM",
        EXIT_CONFIG, "max_length: 24 tokens, of which the question takes .* wanted at least 16");
}

static void a_forgotten_adapter_is_said(void **state) {
    (void)state;
    assert_error(run_with(0, (const char *[]){"adapter.use=lora", NULL}), "E_INI_VALUE",
        EXIT_CONFIG, "adapter\\.path: missing, so that the base model alone would score");
}

static void a_dry_run_writes_nothing(void **state) {
    const run_flags flags = {.ini_path = temp_path("run.ini"),
        .set =
            (const char *[]){"run.output_dir=none", "score.input=cut.jsonl", "data.max_length=40"},
        .n_set = 3,
        .dry_run = 1};
    (void)state;
    temp_text("cut.jsonl",
        "{\"id\": \"a\\u0007b\", \"text\": \"Ben likes maps.\\n\\nBen repairs "
        "bicycles. Ben likes long walks. Ben sings in a choir. Ben plays chess on "
        "Sundays. Ben grew up on a farm.\"}\n{\"text\": \"Eva.\"}\n");
    FILE *out = fopen(temp_path("log.txt"), "w");
    must(task_main(&flags, out));
    fclose(out);
    char *text = contents("log.txt");
    static const char *const lines[] = {"\nDocument 'a\\x07b': 133 bytes, 4 chunks\n",
        "\n  chunk 0: bytes 0 to 61\n  chunk 1: bytes 39 to 83\n",
        "\n  | Ben likes maps.\n  | \n  | Ben repairs bicycles. ", "\n  | Score for Java:\n",
        "\n2 documents, 1 in one chunk; 5 chunks, 4 at most; 3 skills\n", "\nPlan for cpu"};
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
        if (!strstr(text, lines[i])) fail_msg("%s\nlacks\n%s", text, lines[i]);
    mem_free(text);
    assert_false(dir_exists(temp_path("none")));
}

/* --- long documents --- */

static void write_long(const char *name, size_t words) {
    FILE *f = fopen(temp_path(name), "w");
    assert_non_null(f);
    fprintf(f, "{\"id\": \"long\", \"text\": \"");
    for (size_t i = 0; i < words; i += 5)
        fprintf(f, "%s plays chess on Sundays.%s", i % 35 ? "Ben" : "Ada, who",
            i % 100 ? " " : "\\n\\n");
    fprintf(f, "\"}\n");
    fclose(f);
}

static int64_t peak_of(const char *input) {
    static command c;
    char set[600];
    snprintf(set, sizeof set, "score.input=%s", temp_path(input));
    const char *argv[] = {build_path("qfw"), "--ini", temp_path("run.ini"), "--set", set, "--set",
        "run.overwrite_output_dir=true", "--set", "rubric.skills=Java", "--set",
        "data.max_length=200", "--set", "score.max_reason_tokens=0", NULL};
    assert_int_equal(command_run(argv, &c), 0);
    if (c.exit_code) fail_msg("exit %d: %s", c.exit_code, c.err);
    assert_non_null(strstr(c.err, "it would say something else")); /* fresh weights */
    print_message(
        "%s: %.1f s, %.1f MiB at the peak\n", input, c.seconds, (double)c.peak / (1 << 20));
    return c.peak;
}

static void length_takes_no_memory(void **state) {
    (void)state;
    setenv("ASAN_OPTIONS", "quarantine_size_mb=1", 1);
    write_long("short.jsonl", 4000); /* takes all slots, too */
    write_long("long.jsonl", 20000);
    const int64_t few = peak_of("short.jsonl"), many = peak_of("long.jsonl");
    assert_true(many < few + (4 << 20));
    unsetenv("ASAN_OPTIONS");
    char *scores = contents("out/scores.jsonl");
    assert_non_null(strstr(scores, "\"id\": \"long\""));
    mem_free(scores);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(length_takes_no_memory), /* first: while this program is small */
        cmocka_unit_test(a_reading),
        cmocka_unit_test(chunks_become_a_document),
        cmocka_unit_test(scores_are_the_models),
        cmocka_unit_test(batches_and_threads_do_not_matter),
        cmocka_unit_test(a_kill_loses_nothing),
        cmocka_unit_test(spreadsheets_get_text),
        cmocka_unit_test(a_folder_is_its_files_by_name),
        cmocka_unit_test(wrong_rows_are_named),
        cmocka_unit_test(no_room_is_said),
        cmocka_unit_test(a_forgotten_adapter_is_said),
        cmocka_unit_test(a_dry_run_writes_nothing),
    };
    return cmocka_run_group_tests(tests, setup, temp_drop);
}

/* test_tasks.c -- the life of the tasks that serve: who else writes there, words that they cannot
 * follow, dry runs, and signals.
 */
#define _POSIX_C_SOURCE 200809L
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/error.h"
#include "base/mem.h"
#include "files/file.h"

#include "../support/command.h"
#include "../support/refusal.h"
#include "../support/running.h"
#include "../support/temp.h"
#include "../support/test.h"

static command c;

enum { ROWS = 400 };

static const char ini[] =
    "[run]\noutput_dir = out\nthreads = 1\n[model]\npath = model\ninit = random\n"
    "[adapter]\nuse = none\n[data]\nmax_length = 200\n"
    "[rubric]\nskills = Java, SQL\nscale = 0-5\nprompt = {document}\\nScore for {skill}:\n"
    "answer = \\s{score}. {reason}\n[score]\ninput = set.jsonl\nmax_reason_tokens = 40\n"
    "[generate]\ninput = prompts.jsonl\nmax_new_tokens = 100\nper_device_batch_size = 2\n"
    "[pairs]\nset = set.jsonl\nsamples = 8\nmax_new_tokens = 60\n"
    "[evaluate]\nset = set.jsonl\n";

static const char *const tasks[] = {"generate", "score", "evaluate", "pairs"};
enum { TASKS = 4 };

static void copy_model(const char *name) {
    char *from = mem_printf("%s/docs/examples/demo/model/%s", getenv("QFW_SOURCE"), name);
    char *to = mem_printf("model/%s", name);
    assert_int_equal(file_copy(from, temp_path(to)), QFW_OK);
    mem_free(from);
    mem_free(to);
}

static int make_all(void **state) {
    if (temp_make(state)) return -1;
    assert_int_equal(dir_make(temp_path("model")), QFW_OK);
    copy_model("config.json");
    copy_model("tokenizer.json");
    copy_model("tokenizer_config.json");
    temp_text("run.ini", ini);
    FILE *set = fopen(temp_path("set.jsonl"), "w"),
         *prompts = fopen(temp_path("prompts.jsonl"), "w");
    for (int i = 0; i < ROWS; i++) {
        fprintf(set, "{\"text\": \"Ada built %d services.\", \"expected\": {\"Java\": 3}}\n", i);
        fprintf(prompts, "{\"prompt\": \"Ada built %d\"}\n", i);
    }
    assert_int_equal(fclose(set), 0);
    assert_int_equal(fclose(prompts), 0);
    return 0;
}

static int clear(void **state) {
    (void)state;
    return dir_exists(temp_path("out")) && dir_remove(temp_path("out")) != QFW_OK;
}

/* The words of a task's command, in turn for two tasks at a time. */
static const char *const *words(const char *task, const char *word) {
    static char set[64], path[600];
    static const char *argv[7];
    snprintf(set, sizeof set, "run.task=%s", task);
    snprintf(path, sizeof path, "%s", temp_path("run.ini"));
    const char *const all[] = {build_path("qfw"), "--ini", path, "--set", set, word, NULL};
    memcpy(argv, all, sizeof all);
    return argv;
}

static void expect(const char *task, const char *word, int exit_code, const char *regex) {
    assert_int_equal(command_run(words(task, word), &c), 0);
    if (c.exit_code != exit_code || !has_line(c.err, regex))
        fail_msg("%s %s: exit %d, wanted %d\n%snot %s", task, word ? word : "", c.exit_code,
            exit_code, c.err, regex);
}

static void words_that_do_nothing(void **state) {
    (void)state;
    for (int i = 0; i < TASKS; i++) {
        expect(tasks[i], "--profile", EXIT_USAGE, "E_USAGE\\] --profile: task = .* has no profile");
        if (i == 1) continue; /* score goes on */
        expect(tasks[i], "--resume", EXIT_USAGE, "E_USAGE\\] --resume: task = .* cannot go on");
        expect(tasks[i], "--set=run.resume_from_checkpoint=auto", EXIT_USAGE,
            "E_USAGE\\] \\[run\\] resume_from_checkpoint: task = .* cannot go on");
    }
    assert_false(dir_exists(temp_path("out")));
}

static void dry_runs_look_at_the_output(void **state) {
    static const char *const files[] = {
        "generations.jsonl", "scores.jsonl", "evaluation-base.json", "pairs.jsonl"};
    (void)state;
    for (int i = 0; i < TASKS; i++) {
        expect(tasks[i], "--dry-run", 0, "^|");
        assert_false(dir_exists(temp_path("out")));
        assert_int_equal(dir_make(temp_path("out")), QFW_OK);
        char *name = mem_printf("out/%s", files[i]);
        temp_text(name, "x");
        expect(tasks[i], "--dry-run", EXIT_OUTPUT,
            "E_OUT_EXISTS\\] .*/out: it holds .* already; hint");
        expect(tasks[i], NULL, EXIT_OUTPUT, "E_OUT_EXISTS\\] .*/out: it holds .* already; hint");
        mem_free(name);
        assert_int_equal(dir_remove(temp_path("out")), QFW_OK);
        temp_text("file", "x");
        expect(tasks[i], "--set=run.output_dir=file/out", EXIT_OUTPUT, "E_OUT_[A-Z]+\\] .*/file");
    }
}

/* A second run into the folder is told who holds it; a signal ends the first soon. */
static void one_at_a_time_and_signals(void **state) {
    static const char *const says[] = {
        "(after [0-9]+ of 400 rows, which are written|by a signal; nothing was written); hint: the",
        "by a signal; [0-9]+ documents are scored and written; hint: --resume goes on",
        "by a signal; nothing was written; hint: the same command",
        "(after [0-9]+ questions, whose [0-9]+ pairs are written|by a signal; nothing was "
        "written); "
        "hint: the"};
    (void)state;
    for (int i = 0; i < TASKS; i++) {
        running p;
        running_start(&p, words(tasks[i], NULL), 0);
        running_wait_file(&p, temp_path("out/.lock"));
        expect(tasks[(i + 1) % TASKS], NULL, EXIT_OUTPUT,
            "E_OUT_LOCKED\\] .*/out: another run writes there \\(process [0-9]+ on ");
        running_signal(&p, SIGTERM);
        assert_int_equal(running_end(&p), EXIT_SIGNAL);
        char *text = NULL;
        size_t n = 0;
        assert_int_equal(file_read(p.err, 1 << 20, &text, &n), QFW_OK);
        char *regex = mem_printf("^qfw: error\\[E_SIGNAL\\] stopped (%s|after .* of .* weights, "
                                 "before the first step; nothing was written)",
            says[i]);
        if (!has_line(text, regex)) fail_msg("%s said\n%s\nnot %s", tasks[i], text, regex);
        mem_free(regex);
        mem_free(text);
        assert_false(file_exists(temp_path("out/.lock")));
        if (dir_exists(temp_path("out"))) assert_int_equal(dir_remove(temp_path("out")), QFW_OK);
    }
}

/* What was finished before the signal is kept, whole rows in their order. */
static void generate_keeps_what_is_done(void **state) {
    char *text = NULL;
    size_t n = 0;
    running p;
    (void)state;
    running_start(&p, words("generate", NULL), 0);
    running_wait_file(&p, temp_path("out/.lock"));
    running_wait_caught(&p, SIGTERM);
    struct timespec wait = {1, 500000000};
    nanosleep(&wait, NULL);
    running_signal(&p, SIGTERM);
    assert_int_equal(running_end(&p), EXIT_SIGNAL);
    if (!file_exists(temp_path("out/generations.jsonl"))) return; /* none was done */
    assert_int_equal(file_read(temp_path("out/generations.jsonl"), 1 << 24, &text, &n), QFW_OK);
    uint64_t lines = 0;
    for (const char *at = text; *at; at = strchr(at, '\n') + 1) {
        char wanted[32];
        snprintf(wanted, sizeof wanted, "{\"line\": %llu,", (unsigned long long)++lines);
        assert_int_equal(strncmp(at, wanted, strlen(wanted)), 0);
    }
    assert_true(lines > 0 && lines < ROWS);
    mem_free(text);
}

/* The pairs of the groups that were whole are kept. */
static void pairs_keeps_what_is_done(void **state) {
    char *text = NULL;
    size_t n = 0;
    running p;
    (void)state;
    running_start(&p, words("pairs", "--set=pairs.samples=1"), 0);
    running_wait_file(&p, temp_path("out/pairs.jsonl.tmp"));
    const struct timespec wait = {0, 10000000};
    for (int i = 0; i < RUNNING_SECONDS * 100 && !n; i++) { /* until the first pair */
        nanosleep(&wait, NULL);
        if (file_read(temp_path("out/pairs.jsonl.tmp"), 1 << 24, &text, &n) == QFW_OK)
            mem_free(text);
    }
    assert_true(n > 0);
    running_signal(&p, SIGTERM);
    assert_int_equal(running_end(&p), EXIT_SIGNAL);
    assert_int_equal(file_read(p.err, 1 << 20, &text, &n), QFW_OK);
    assert_true(has_line(text, "E_SIGNAL\\] stopped after [0-9]+ questions, whose [0-9]+ pairs"));
    mem_free(text);
    assert_int_equal(file_read(temp_path("out/pairs.jsonl"), 1 << 24, &text, &n), QFW_OK);
    assert_true(n > 0 && text[n - 1] == '\n');
    mem_free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(words_that_do_nothing, clear),
        cmocka_unit_test_setup(dry_runs_look_at_the_output, clear),
        cmocka_unit_test_setup(one_at_a_time_and_signals, clear),
        cmocka_unit_test_setup(generate_keeps_what_is_done, clear),
        cmocka_unit_test_setup(pairs_keeps_what_is_done, clear),
    };
    return cmocka_run_group_tests(tests, make_all, temp_drop);
}

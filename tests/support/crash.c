/* crash.c -- see crash.h. */
#define _POSIX_C_SOURCE 200809L
#include "crash.h"

#include <dirent.h>
#include <stdlib.h>

#include "base/mem.h"
#include "files/file.h"
#include "refusal.h"
#include "temp.h"
#include "tiny.h"

#include "test.h"

enum { FILES = 5, MOST_BYTES = 64 << 20, NAME_BYTES = 96 };

static const char *const file_names[FILES] = {"adapter_model.safetensors", "adapter_config.json",
    "checkpoint-%d/trainer.safetensors", "checkpoint-%d/trainer_state.json",
    "checkpoint-%d/adapter_model.safetensors"};

static struct {
    int steps;
    long calls;
    double seconds;
    char *file[FILES], *log, *said, *names, *lines;
    size_t n[FILES], n_log;
} whole;

static char *text_now;

static char *contents(const char *name, size_t *n) {
    char *text = NULL;
    assert_int_equal(file_read(temp_path(name), MOST_BYTES, &text, n), QFW_OK);
    return text;
}

static char *file_now(int i, size_t *n) {
    char name[NAME_BYTES] = "case/out/";
    const size_t at = strlen(name);
    const char *mark = strstr(file_names[i], "%d");
    if (mark)
        snprintf(name + at, sizeof name - at, "%.*s%d%s", (int)(mark - file_names[i]),
            file_names[i], whole.steps, mark + 2);
    else
        snprintf(name + at, sizeof name - at, "%s", file_names[i]);
    return contents(name, n);
}

static int is_checkpoint(const char *name) {
    static const char before[] = "checkpoint-";
    const size_t n = sizeof before - 1;
    return !strncmp(name, before, n) && name[n] && !name[n + strspn(name + n, "0123456789")];
}

static int compare_names(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* What lies in the output folder, by name, one a line; a checkpoint without its step, which is
 * another where a signal asked for it. */
static char *names_now(void) {
    enum { MOST = 64 };
    char *name[MOST], *text = mem_alloc(MOST, 256);
    size_t n = 0;
    DIR *dir = opendir(temp_path("case/out"));
    assert_non_null(dir);
    assert_non_null(text);
    for (struct dirent *d; n < MOST && (d = readdir(dir)) != NULL;)
        name[n++] = mem_strdup(is_checkpoint(d->d_name) ? "checkpoint" : d->d_name);
    closedir(dir);
    qsort(name, n, sizeof *name, compare_names);
    for (size_t i = 0; i < n; i++) {
        strcat(strcat(text, name[i]), "\n");
        mem_free(name[i]);
    }
    return text;
}

/* trainer_log.jsonl but for the lines that tell times. */
static char *lines_now(void) {
    size_t n = 0, kept = 0;
    char *log = contents("case/out/trainer_log.jsonl", &n);
    for (char *line = log; *line;) {
        const size_t length = strcspn(line, "\n") + 1;
        const char *timed = strstr(line, "_runtime\"");
        if (!timed || timed > line + length) memmove(log + kept, line, length), kept += length;
        line += length;
    }
    log[kept] = 0;
    return log;
}

static void set_number(const char *name, long value) {
    char text[32];
    snprintf(text, sizeof text, "%ld", value);
    setenv(name, text, 1);
}

void crash_start(running *p, const char *word, const fault *f) {
    static const char *const names[] = {"LD_PRELOAD", "QFW_SHIM_FOLDER", "QFW_SHIM_KILL",
        "QFW_SHIM_FAIL", "QFW_SHIM_ERRNO", "QFW_SHIM_SHORT", "QFW_SHIM_STICKY"};
    const char *const argv[] = {build_path("qfw"), "--ini", temp_path("case/run.ini"), word, NULL};
    if (SANITIZED) setenv("ASAN_OPTIONS", "verify_asan_link_order=0", 1);
    setenv(names[0], build_path("tests/faults/shim.so"), 1);
    setenv(names[1], temp_path("case/out"), 1);
    set_number(names[2], f->kill);
    set_number(names[3], f->fail);
    set_number(names[4], f->error);
    set_number(names[5], f->is_short);
    set_number(names[6], f->is_sticky);
    running_start(p, argv, 0);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) unsetenv(names[i]);
}

int crash_end(running *p) {
    size_t n = 0;
    const int code = running_end(p);
    mem_free(text_now);
    text_now = contents("stderr", &n);
    if (strstr(text_now, "Sanitizer") || strstr(text_now, "runtime error:"))
        fail_msg("%s", text_now);
    return code;
}

int crash_run(const char *word, const fault *f) {
    running p;
    crash_start(&p, word, f);
    return crash_end(&p);
}

const char *crash_text(void) { return text_now; }

int64_t crash_published(const char *text, size_t n) {
    static const char said[] = "checkpoint /", before[] = "/checkpoint-";
    int64_t last = 0;
    for (size_t at = 0; at < n;) {
        const char *end = memchr(text + at, '\n', n - at);
        if (!end) break; /* it was not said to the end */
        const char *name = strstr(text + at, before);
        if (!strncmp(text + at, said, sizeof said - 1) && name && name < end)
            last = strtoll(name + sizeof before - 1, NULL, 10);
        at = (size_t)(end - text) + 1;
    }
    return last;
}

/* The step that the last run began after. */
static int64_t started(void) {
    const char *said = strstr(text_now, "resumed from "),
               *at = said ? strstr(said, " at step ") : 0;
    if (at) return strtoll(at + 9, NULL, 10);
    return strstr(text_now, "starting at step 1") ? 0 : whole.steps;
}

void crash_ends_the_same(const char *what, int64_t published) {
    const fault none = {0};
    size_t n = 0;
    if (crash_run("--resume", &none)) fail_msg("%s: not resumed: %s", what, text_now);
    if (started() < published)
        fail_msg("%s: step %lld was published, it began after %lld: %s", what, (long long)published,
            (long long)started(), text_now);
    for (int i = 0; i < FILES; i++) {
        char *now = file_now(i, &n);
        if (n != whole.n[i] || memcmp(now, whole.file[i], n))
            fail_msg("%s: another %s", what, file_names[i]);
        mem_free(now);
    }
    char *names = names_now(), *lines = lines_now();
    if (strcmp(names, whole.names)) fail_msg("%s: it holds\n%s", what, names);
    if (strcmp(lines, whole.lines)) fail_msg("%s: the log holds\n%s", what, lines);
    mem_free(names);
    mem_free(lines);
}

void crash_clear(void) { assert_int_equal(dir_remove(temp_path("case/out")), QFW_OK); }

int crash_may_fail(long n) {
    char kind = 0, path[512] = "";
    for (size_t at = 0; at < whole.n_log && n > 0; n--) {
        size_t bytes = 0;
        assert_int_equal(sscanf(whole.log + at, "%c %*d %*d %zu %511s", &kind, &bytes, path), 3);
        at += strcspn(whole.log + at, "\n") + 1 + bytes;
    }
    const char *name = strrchr(path, '/') + 1, *end = strstr(name, ".tmp");
    if (!strcmp(name, ".lock")) return 1;
    if (kind == 'E') return !end || !strncmp(name, "checkpoint-", 11); /* a folder, or the log */
    return kind == 'U' || kind == 'D';
}

/* Each call of the shim's log is a line, then data. */
static long count_calls(void) {
    long n = 0;
    for (size_t at = 0; at < whole.n_log; n++) {
        size_t bytes = 0;
        assert_int_equal(sscanf(whole.log + at, "%*c %*d %*d %zu", &bytes), 1);
        at += strcspn(whole.log + at, "\n") + 1 + bytes;
    }
    return n;
}

/* Enough that a signal meets an evaluation. */
static void make_eval(void) {
    enum { COPIES = 400 };
    static const char row[] = "{\"input_ids\": [5, 6, 7, 8], \"labels\": [-100, 6, 7, 8]}\n";
    FILE *f = fopen(temp_path("case/eval.jsonl"), "w");
    assert_non_null(f);
    for (int i = 0; i < COPIES; i++) fputs(row, f);
    assert_int_equal(fclose(f), 0);
    alter("run.ini", "train = rows.jsonl\n", "train = rows.jsonl\neval = eval.jsonl\n");
}

void crash_make(int steps, int save_steps, const char *keys) {
    const fault none = {0};
    size_t n = 0;
    char text[256];
    crash_drop();
    tiny_make("case");
    snprintf(text, sizeof text,
        "max_steps = %d\nsave_steps = %d\nlearning_rate = 1e-2\nlogging_steps = 1\n"
        "gradient_accumulation_steps = 2\nsave_total_limit = 2\n%s",
        steps, save_steps, keys ? keys : "");
    if (keys) make_eval();
    alter("run.ini", "max_steps = 1\n", text);
    alter("run.ini", "r = 4\n", "r = 4\nlora_dropout = 0.1\n");
    whole.steps = steps;
    setenv("QFW_SHIM_LOG", temp_path("calls"), 1);
    const double before = clock_seconds();
    const int code = crash_run(NULL, &none);
    whole.seconds = clock_seconds() - before;
    unsetenv("QFW_SHIM_LOG");
    if (code) fail_msg("undisturbed: exit %d, %s", code, text_now);
    for (int i = 0; i < FILES; i++) whole.file[i] = file_now(i, &whole.n[i]);
    whole.said = contents("stderr", &n);
    whole.log = contents("calls", &whole.n_log);
    whole.names = names_now();
    whole.lines = lines_now();
    whole.calls = count_calls();
    assert_int_equal(crash_published(whole.said, n), steps);
    const char *first = strstr(whole.names, "checkpoint\n"); /* save_total_limit = 2 */
    assert_non_null(first);
    assert_true(
        strstr(first, "checkpoint\ncheckpoint\n") && !strstr(first, "t\ncheckpoint\ncheckpoint\n"));
}

void crash_drop(void) {
    for (int i = 0; i < FILES; i++) mem_free(whole.file[i]);
    mem_free(whole.log);
    mem_free(whole.said);
    mem_free(whole.names);
    mem_free(whole.lines);
    mem_free(text_now);
    text_now = NULL;
    memset(&whole, 0, sizeof whole);
}

long crash_calls(void) { return whole.calls; }
double crash_seconds(void) { return whole.seconds; }

const char *crash_log(size_t *n) {
    *n = whole.n_log;
    return whole.log;
}

const char *crash_said(void) { return whole.said; }

enum { SLOWNESS = SANITIZED ? 3 : 1 };

int crash_count(int all, int some) { return getenv("QFW_TEST_LONG") ? all : 1 + some / SLOWNESS; }

int crash_every(int n) { return getenv("QFW_TEST_LONG") ? 1 : n * SLOWNESS; }

uint64_t crash_random(uint64_t n) {
    static uint64_t state = 42;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (state >> 33) % n;
}

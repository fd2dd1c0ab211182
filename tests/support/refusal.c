/* refusal.c -- see refusal.h. */
#define _XOPEN_SOURCE 700
#include "refusal.h"

#include <ftw.h>
#include <regex.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/error.h"
#include "base/mem.h"
#include "files/file.h"
#include "temp.h"
#include "tiny.h"

#include "test.h"

/* A machine that is busy with other things too costs SLACK times the time. */
enum { SLACK = 10, MOST_SECONDS = SANITIZED ? 20 : 2, MOST_BYTES = 64 << 20, LINE_BYTES = 512 };

command case_command;
static command *const c = &case_command;

int has_line(const char *text, const char *regex) {
    regex_t compiled;
    assert_int_equal(regcomp(&compiled, regex, REG_EXTENDED | REG_NOSUB | REG_NEWLINE), 0);
    const int unlike = regexec(&compiled, text, 0, NULL, 0);
    regfree(&compiled);
    return !unlike;
}

int case_run(const char *word) {
    const char *const argv[] = {build_path("qfw"), "--ini", temp_path("case/run.ini"), word, NULL};
    assert_int_equal(command_run(argv, c), 0);
    if (strstr(c->err, "Sanitizer") || strstr(c->err, "runtime error:")) fail_msg("%s", c->err);
    return c->exit_code;
}

/* --- what is left behind --- */

static uint64_t entries;

static int add_entry(const char *path, const struct stat *st, int kind, struct FTW *at) {
    uint64_t hash = (uint64_t)kind + 1;
    (void)st;
    (void)at;
    for (; *path; path++) hash = (hash ^ (unsigned char)*path) * 1099511628211u;
    entries += hash;
    return 0;
}

/* The names and kinds of all that the folder holds, as one number. */
static uint64_t holdings(void) {
    enum { DESCRIPTORS = 8 };
    entries = 0;
    assert_int_equal(nftw(temp_path("case"), add_entry, DESCRIPTORS, FTW_PHYS), 0);
    return entries;
}

/* --- the two ends --- */

static void check_refusal(
    const char *what, const char *word, int exit_code, int64_t most_bytes, const char *regex) {
    const uint64_t before = holdings();
    if (case_run(word) != exit_code)
        fail_msg("%s: exit %d, wanted %d; %s", what, c->exit_code, exit_code, c->err);
    if (!has_line(c->err, regex)) fail_msg("%s: said\n%s\nnot %s", what, c->err, regex);
    for (const char *at = c->err; *at; at += strcspn(at, "\n") + 1) {
        const size_t n = strcspn(at, "\n");
        if (strncmp(at, "qfw: ", 5) || !at[n] || n >= LINE_BYTES) fail_msg("%s: %s", what, at);
    }
    if (c->busy > MOST_SECONDS || c->seconds > SLACK * MOST_SECONDS)
        fail_msg("%s: took %g s, %g of them busy", what, c->seconds, c->busy);
    if (!SANITIZED && c->peak > most_bytes)
        fail_msg("%s: held %lld bytes", what, (long long)c->peak);
    if (holdings() != before) fail_msg("%s: something was left in the folder", what);
}

void refused(const char *what, const char *word, int exit_code, const char *regex) {
    check_refusal(what, word, exit_code, MOST_BYTES, regex);
}

void refused_text(const char *what, const char *word, int64_t bytes, const char *regex) {
    check_refusal(what, word, EXIT_DATA, MOST_BYTES + 2 * bytes, regex);
}

void trains(const char *what) {
    if (case_run(NULL)) fail_msg("%s: exit %d, %s", what, c->exit_code, c->err);
    assert_true(file_exists(temp_path("case/out/adapter_model.safetensors")));
}

/* --- altering --- */

const char *in_case(const char *file) {
    static char path[4][128];
    static unsigned next;
    char *p = path[next++ % 4];
    snprintf(p, sizeof path[0], "case/%s", file);
    return p;
}

void alter(const char *file, const char *from, const char *to) {
    char *text = NULL;
    size_t n = 0, at = 0;
    const size_t n_from = strlen(from), n_to = strlen(to);
    assert_int_equal(file_read(temp_path(in_case(file)), 1 << 20, &text, &n), QFW_OK);
    while (at + n_from <= n && memcmp(text + at, from, n_from) != 0) at++;
    if (at + n_from > n) fail_msg("%s does not stand in %s", from, file);
    char *made = malloc(n + n_to);
    assert_non_null(made);
    memcpy(made, text, at);
    memcpy(made + at, to, n_to);
    memcpy(made + at + n_to, text + at + n_from, n - at - n_from);
    temp_write(in_case(file), made, n - n_from + n_to);
    free(made);
    mem_free(text);
}

void patch(const char *file, long at, const void *bytes, size_t n) {
    FILE *f = fopen(temp_path(in_case(file)), "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, at, at < 0 ? SEEK_END : SEEK_SET), 0);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

void each_refused(const char *file, const char *word, const alteration *list) {
    for (; list->from; list++) {
        tiny_make("case");
        alter(file, list->from, list->to);
        refused(list->to, word, EXIT_DATA, list->regex);
    }
}

/* ini.c -- libFuzzer target: any bytes as an INI, checked against a schema, and resolved.ini read
 * again.
 *
 * Beyond not crashing: what is accepted must come out of resolved.ini with the same values, and
 * what is refused must say so with an exit code of its own.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "base/option.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const qfw_option options[] = {
    QFW_OPTION(QFW_OPT_PATH, "path", "weights", 0, 0, NULL, "a path"),
    QFW_OPTION(QFW_OPT_BOOL, "load_in_4bit", "false", 0, 0, NULL, "a flag"),
    QFW_OPTION(QFW_OPT_INT, "max_steps", "-1", -1, 1e12, NULL, "an integer"),
    QFW_OPTION_FLAGS(
        QFW_OPT_FLOAT, QFW_OPT_LO_OPEN, "learning_rate", "2e-5", 0, 1e3, NULL, "a number"),
    QFW_OPTION(QFW_OPT_BYTES, "max_memory", "auto", 0, 0, NULL, "bytes"),
    QFW_OPTION(QFW_OPT_ENUM, "use", "sft", 0, 0, "sft|dpo", "a word"),
    QFW_OPTION(QFW_OPT_LIST, "target_modules", "all-linear", 0, 0, NULL, "words"),
    QFW_OPTION(QFW_OPT_STR, "source", "", 0, 0, NULL, "text"),
};
enum { N_OPTIONS = sizeof options / sizeof *options, N_SECTIONS = 2 };

static void expect(int holds) {
    if (!holds) abort();
}

/* Check i; NULL when it is refused. */
static ini *checked(const char *text, size_t n, const char *path, schema_section *sections) {
    static const char *const others[] = {"trainer.kto"};
    ini *i = NULL;
    sections[0] = (schema_section){"model", options, N_OPTIONS, NULL};
    sections[1] = (schema_section){"trainer", options, N_OPTIONS, NULL};
    qfw_status status = ini_parse_text(text, n, path, &i);
    if (status == QFW_OK) status = option_check(i, sections, N_SECTIONS, others, 1);
    if (status == QFW_OK) return i;
    expect(err_status() == status && err_exit_code() == EXIT_CONFIG && err_count() > 0);
    for (uint32_t k = 0; k < err_count(); k++) expect(strlen(err_text(k)) <= 506);
    if (i) option_free(sections, N_SECTIONS);
    ini_destroy(i);
    return NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    schema_section first[N_SECTIONS], again[N_SECTIONS];
    ini *i = checked((const char *)data, size, "/conf/fuzz.ini", first);
    if (!i) return 0;
    char *text = option_resolved(first, N_SECTIONS);
    ini *resolved = checked(text, strlen(text), "/out/resolved.ini", again);
    expect(resolved != NULL);
    for (int s = 0; s < N_SECTIONS; s++)
        for (int o = 0; o < N_OPTIONS; o++) {
            const struct cfg_value *a = &first[s].cfg->values[o], *b = &again[s].cfg->values[o];
            expect(a->i == b->i && memcmp(&a->f, &b->f, sizeof a->f) == 0 && !strcmp(a->s, b->s));
        }
    mem_free(text);
    option_free(first, N_SECTIONS);
    option_free(again, N_SECTIONS);
    ini_destroy(i);
    ini_destroy(resolved);
    return 0;
}

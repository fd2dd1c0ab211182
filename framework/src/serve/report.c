/* report.c -- see report.h: the page around its sections. */
#define _POSIX_C_SOURCE 200809L
#include <stdlib.h>

#include "base/error.h"
#include "base/mem.h"
#include "files/file.h"
#include "serve/html.h"
#include "serve/report_parts.h"

typedef struct section {
    const char *id, *title;
} section;

enum {
    COMPARISON,
    SKILLS,
    CALIBRATION,
    CONFUSION,
    SENSITIVITY,
    WORST,
    TRAINING,
    DATA,
    MEMORY,
    N_SECTIONS
};
static const section sections[N_SECTIONS] = {
    [COMPARISON] = {"comparison", "Comparison"},
    [SKILLS] = {"skills", "Scores by skill"},
    [CALIBRATION] = {"calibration", "Calibration"},
    [CONFUSION] = {"confusion", "Confusion"},
    [SENSITIVITY] = {"sensitivity", "Sensitivity"},
    [WORST] = {"worst", "Worst cases"},
    [TRAINING] = {"training", "Training"},
    [DATA] = {"data", "Data"},
    [MEMORY] = {"memory", "Plan and measured peak"},
};

static void put_head(const report_input *in, const run_record *runs, FILE *out) {
    const char *title = in->title && *in->title ? in->title : "qfw report";
    fputs("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>",
        out);
    html_text(out, title);
    fputs("</title>\n<style>\n", out);
    report_style(out);
    fputs("</style>\n</head>\n<body>\n<header>\n<h1>", out);
    html_text(out, title);
    fputs("</h1>\n<p class=\"result\">", out);
    report_sentence(in, runs, out);
    fputs("</p>\n<nav aria-label=\"Sections\"><ul>\n", out);
    for (uint32_t i = 0; i < N_SECTIONS; i++)
        fprintf(out, "<li><a href=\"#%s\">%s</a></li>\n", sections[i].id, sections[i].title);
    fputs("</ul></nav>\n</header>\n<main>\n", out);
}

static qfw_status put_section(
    uint32_t which, const report_input *in, const run_record *runs, FILE *out) {
    const evaluation *const *list = in->evaluations;
    const uint32_t n = in->n_evaluations;
    qfw_status status = QFW_OK;
    fprintf(out, "<section id=\"%s\">\n<h2>%s</h2>\n", sections[which].id, sections[which].title);
    switch (which) {
    case COMPARISON: status = report_comparison(list, n, out); break;
    case SKILLS: report_skills(list, n, out); break;
    case CALIBRATION: status = report_calibration(list, n, out); break;
    case CONFUSION: report_confusion(list, n, out); break;
    case SENSITIVITY: report_sensitivity(list, n, out); break;
    case WORST: report_worst(list, n, out); break;
    case TRAINING: status = report_curves(runs, in->n_runs, out); break;
    case DATA: report_data(runs, in->n_runs, out); break;
    default: report_memory(runs, in->n_runs, out); break;
    }
    fputs("</section>\n", out);
    return status;
}

static qfw_status put_page(const report_input *in, const run_record *runs, FILE *out) {
    put_head(in, runs, out);
    for (uint32_t i = 0; i < N_SECTIONS; i++) QFW_TRY(put_section(i, in, runs, out));
    fputs("</main>\n<footer><p>Made by qfw " QFW_VERSION ". Nothing here is loaded from "
          "elsewhere.</p></footer>\n</body>\n</html>\n",
        out);
    return QFW_OK;
}

static qfw_status write_page(const report_input *in, const run_record *runs, const char *path) {
    char *page = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&page, &n);
    if (!f) return err_fail("E_MEM", QFW_E_NOMEM, "%s: no memory for the report", path);
    qfw_status status = put_page(in, runs, f);
    const int lost = ferror(f);
    if ((fclose(f) || lost) && status == QFW_OK)
        status = err_fail("E_MEM", QFW_E_NOMEM, "%s: no memory for the report", path);
    if (status == QFW_OK) status = file_write(path, page, n);
    free(page);
    return status;
}

qfw_status report_write(const report_input *in, const char *path) {
    run_record *runs = mem_alloc(in->n_runs + 1, sizeof *runs);
    qfw_status status = runs ? QFW_OK : QFW_E_NOMEM;
    uint32_t n = 0;
    while (status == QFW_OK && n < in->n_runs) {
        status = run_record_read(in->run_folders[n], &runs[n]);
        if (status == QFW_OK) n++;
    }
    if (status == QFW_OK) status = write_page(in, runs, path);
    while (n > 0) run_record_free(&runs[--n]);
    mem_free(runs);
    return status;
}

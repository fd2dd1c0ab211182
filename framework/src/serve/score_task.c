/* score_task.c -- see score_task.h: everything that can be wrong is found before a weight is
 * read. */
#define _POSIX_C_SOURCE 200809L
#include "serve/score_task.h"

#include <inttypes.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/process.h"
#include "files/file.h"
#include "serve/documents.h"
#include "serve/generate_task.h"
#include "serve/score_out.h"
#include "train/outputs.h"
#include "train/progress.h"

enum { PASS_TOKENS = 1024 };

/* What the task holds. */
typedef struct scoring {
    run *r;
    FILE *out;
    rubric *rubric;
    score_opts o;
    engine *e;
    documents *in;
    scorer *scorer;
    score_out *results;
    uint64_t n_done, n_scored, n_chunks, n_bytes, started_ns;
} scoring;

static const char *text_of(const run *r, uint32_t section, const char *key) {
    return cfg_text(run_cfg(r, section), key);
}

static int resumes(const run *r) {
    return strcmp(text_of(r, SECTION_RUN, "resume_from_checkpoint"), "none") != 0;
}

/* --- settings --- */

score_opts score_settings(const run *r, const rubric *rub) {
    const qfw_cfg *c = run_cfg(r, SECTION_SCORE);
    const int64_t max_length = cfg_int(run_cfg(r, SECTION_DATA), "max_length");
    const char *aggregate = cfg_text(c, "aggregate");
    return (score_opts){.rubric = rub,
        .tok = r->tok,
        .n_slots = (uint32_t)cfg_int(c, "per_device_batch_size"),
        .max_length = max_length < r->facts.max_positions ? max_length : r->facts.max_positions,
        .chunk_overlap = cfg_int(c, "chunk_overlap"),
        .max_reason_tokens = cfg_int(c, "max_reason_tokens"),
        .aggregate = !strcmp(aggregate, "mean")   ? AGGREGATE_MEAN
                     : !strcmp(aggregate, "last") ? AGGREGATE_LAST
                                                  : AGGREGATE_MAX_EVIDENCE,
        .abstain_below = cfg_real(c, "abstain_below")};
}

engine_opts score_engine(const score_opts *o) {
    const int64_t all = (int64_t)o->n_slots * o->max_length;
    return (engine_opts){o->n_slots, o->max_length, all < PASS_TOKENS ? all : PASS_TOKENS};
}

/* A forgotten adapter would score the base model, and nothing would say so. */
static qfw_status check_adapter(const run *r) {
    const qfw_cfg *c = run_cfg(r, SECTION_ADAPTER);
    if (!strcmp(cfg_text(c, "use"), "none") || *cfg_text(c, "path")) return QFW_OK;
    return cfg_problem(r->ini, c, "path",
        "missing, so that the base model alone would score; wanted the folder of an adapter; hint: "
        "use = none scores with the base model");
}

static void add_text(sha256 *s, const char *text) { sha256_add(s, text, strlen(text) + 1); }

/* Every value of a section that a score depends on. */
static void add_section(sha256 *s, const qfw_cfg *c) {
    for (uint64_t i = 0; c && i < c->n; i++) {
        if (!strcmp(c->options[i].key, "per_device_batch_size")) continue;
        add_text(s, c->options[i].key);
        add_text(s, c->values[i].s);
    }
}

/* A digest of what scores depend on. Of the base model's weights it knows only the path. */
static qfw_status digest_settings(const scoring *k, char hex[65]) {
    static const uint32_t sections[] = {
        SECTION_MODEL, SECTION_MODEL_OWN, SECTION_ADAPTER, SECTION_SCORE};
    const run *r = k->r;
    const char *folder = text_of(r, SECTION_ADAPTER, "path");
    char number[32], rubric_hex[65];
    sha256 s;
    sha256_init(&s);
    for (size_t i = 0; i < sizeof sections / sizeof sections[0]; i++)
        add_section(&s, r->sections[sections[i]].cfg);
    rubric_digest(k->rubric, rubric_hex);
    add_text(&s, rubric_hex);
    snprintf(number, sizeof number, "%" PRId64, k->o.max_length);
    add_text(&s, number);
    if (*folder) {
        char *path = path_join(folder, "adapter_model.safetensors");
        const qfw_status status = path ? file_sha256(path, rubric_hex) : QFW_E_NOMEM;
        mem_free(path);
        if (status != QFW_OK) return status;
        add_text(&s, rubric_hex);
    }
    sha256_hex(&s, hex);
    hex[16] = 0;
    return QFW_OK;
}

static qfw_status open_documents(const scoring *k, documents **out) {
    const qfw_cfg *c = run_cfg(k->r, SECTION_SCORE);
    const documents_opts o = {.path = cfg_text(c, "input"),
        .id_field = cfg_text(c, "id_field"),
        .text_field = cfg_text(c, "text_field"),
        .max_bytes = (uint64_t)cfg_int(run_cfg(k->r, SECTION_DATA), "max_line")};
    return documents_open(&o, out);
}

/* --- a dry run --- */

/* Text of a stranger, a line at a time, with nothing in it that a terminal would act on. */
static void print_text(FILE *out, const char *text) {
    for (const char *end; *text; text = end) {
        char line[2048], shown[2048];
        const size_t n = strcspn(text, "\n");
        snprintf(line, sizeof line, "%.*s", (int)n, text);
        err_escape(shown, sizeof shown, line);
        fprintf(out, "  | %s\n", shown);
        end = text + n + (text[n] != 0);
    }
}

static qfw_status print_first(const scoring *k, const document_in *d) {
    chunk *chunks = NULL;
    size_t n = 0;
    char name[256];
    QFW_TRY(scorer_chunks(k->scorer, d->text, d->n, &chunks, &n));
    err_escape(name, sizeof name, d->id);
    fprintf(
        k->out, "\nDocument '%s': %zu bytes, %zu %s\n", name, d->n, n, n == 1 ? "chunk" : "chunks");
    for (size_t i = 0; i < n && n > 1; i++)
        fprintf(k->out, "  chunk %zu: bytes %zu to %zu\n", i, chunks[i].from, chunks[i].to);
    char *text = rubric_text(k->rubric, 0, d->text + chunks[0].from, chunks[0].to - chunks[0].from);
    mem_free(chunks);
    if (!text) return QFW_E_NOMEM;
    fprintf(k->out, "The first question, before the score:\n");
    print_text(k->out, text);
    mem_free(text);
    return QFW_OK;
}

/* Read and cut all documents, show the first. */
static qfw_status check_documents(const scoring *k) {
    documents *in = NULL;
    document_in d;
    uint64_t n_documents = 0, n_chunks = 0, most = 0, of_first = 0;
    QFW_TRY(open_documents(k, &in));
    qfw_status status = QFW_OK;
    while (status == QFW_OK && (status = documents_next(in, &d)) == QFW_OK) {
        chunk *chunks = NULL;
        size_t n = 0;
        status = n_documents++ ? QFW_OK : print_first(k, &d);
        if (status == QFW_OK) status = scorer_chunks(k->scorer, d.text, d.n, &chunks, &n);
        mem_free(chunks);
        n_chunks += n;
        if (n > most) most = n;
        of_first += n == 1;
    }
    documents_close(in);
    if (status != QFW_E_END) return status;
    fprintf(k->out,
        "\n%" PRIu64 " documents, %" PRIu64 " in one chunk; %" PRIu64 " chunks, %" PRIu64
        " at most; %u skills\n",
        n_documents, of_first, n_chunks, most, rubric_skills(k->rubric));
    return QFW_OK;
}

/* All documents once, before anything is written or loaded: no run dies of row 90,000. */
static qfw_status read_through(const scoring *k) {
    documents *in = NULL;
    document_in d;
    QFW_TRY(open_documents(k, &in));
    qfw_status status = QFW_OK;
    while (status == QFW_OK) status = documents_next(in, &d);
    documents_close(in);
    return status == QFW_E_END ? QFW_OK : status;
}

/* --- a run --- */

static const output_mark output_marks[] = {
    {"scores.jsonl", "scores", 1}, {"trainer_log.jsonl", "a training run", 0}, {NULL, NULL, 0}};
static const output_kind score_output = {output_marks, 1, 0};

/* Go past the documents that an earlier run scored. */
static qfw_status skip_done(scoring *k) {
    document_in d = {.id = ""};
    for (uint64_t i = 0; i < k->n_done; i++) {
        const qfw_status status = documents_next(k->in, &d);
        if (status != QFW_OK && status != QFW_E_END) return status;
        if (status == QFW_OK && score_out_is(k->results, i, d.id, d.text, d.n)) continue;
        return err_fail("E_OUT_RESUME", QFW_E_CONFIG,
            "%s: document %" PRIu64 "%s%.80s%s is not the one that was scored; hint: the input has "
            "changed: another output_dir",
            text_of(k->r, SECTION_SCORE, "input"), i + 1, status == QFW_OK ? ", '" : "",
            status == QFW_OK ? d.id : " (there is none)", status == QFW_OK ? "'," : "");
    }
    if (k->n_done)
        log_line(QFW_LOG_INFO, "going on after %" PRIu64 " documents that are scored", k->n_done);
    return QFW_OK;
}

static qfw_status take_scores(void *arg, const scored *d) {
    scoring *k = arg;
    char text[160], count[32];
    QFW_TRY(score_out_add(k->results, d));
    k->n_scored++;
    k->n_chunks += d->n_chunks;
    k->n_bytes += d->n;
    snprintf(text, sizeof text, "%s documents scored, %.1f a second",
        format_count(k->n_done + k->n_scored, count),
        (double)k->n_scored / ((double)(clock_ns() - k->started_ns) * 1e-9));
    log_status(text);
    return QFW_OK;
}

static qfw_status score_documents(scoring *k) {
    document_in d;
    qfw_status status = skip_done(k);
    k->started_ns = clock_ns();
    while (status == QFW_OK && (status = documents_next(k->in, &d)) == QFW_OK)
        status = scorer_add(k->scorer, d.id, d.line, d.text, d.n);
    if (status == QFW_E_END) status = scorer_finish(k->scorer);
    log_status(NULL);
    return status;
}

static void print_summary(const scoring *k) {
    char documents_text[32], chunks[32], spent[32], peak[32];
    const double seconds = (double)(clock_ns() - k->started_ns) * 1e-9;
    fprintf(k->out, "\nDone: %s documents in %s chunks, %u skills, in %s; %s at the peak\n",
        format_count(k->n_scored, documents_text), format_count(k->n_chunks, chunks),
        rubric_skills(k->rubric), format_time(seconds, spent), format_bytes(process_peak(), peak));
    fprintf(k->out, "  written to %s\n", text_of(k->r, SECTION_RUN, "output_dir"));
    fprintf(k->out, "    %-16s %s\n", "scores.jsonl", "all that is known of every score");
    fprintf(k->out, "    %-16s %s\n", "scores.csv", "a row a document and skill");
    fprintf(k->out, "    %-16s %s\n", "resolved.ini", "all its settings");
}

static qfw_status score(scoring *k) {
    char settings[65];
    const char *folder = text_of(k->r, SECTION_RUN, "output_dir");
    QFW_TRY(output_claim(k->r, &score_output));
    QFW_TRY(digest_settings(k, settings));
    const score_out_opts o = {folder, k->rubric, settings, resumes(k->r)};
    QFW_TRY(score_out_open(&o, &k->n_done, &k->results));
    QFW_TRY(serve_load(k->r, k->e));
    QFW_TRY(outputs_resolved(k->r, folder));
    scorer_destroy(k->scorer);
    k->scorer = NULL;
    QFW_TRY(scorer_create(&k->o, k->e, take_scores, k, &k->scorer));
    const qfw_status status = score_documents(k);
    if (status == QFW_E_CANCELLED)
        return err_fail("E_SIGNAL", QFW_E_CANCELLED,
            "stopped by a signal; %" PRIu64 " documents are scored and written; hint: --resume "
            "goes on after them",
            k->n_done + k->n_scored);
    QFW_TRY(status);
    QFW_TRY(score_out_finish(k->results, k->out));
    print_summary(k);
    return QFW_OK;
}

/* Settings, rubric, input and plan; then, unless only that is wanted, the scores. */
static qfw_status prepare_and_score(scoring *k) {
    run *r = k->r;
    QFW_TRY(check_adapter(r));
    QFW_TRY(run_open_model(r));
    QFW_TRY(rubric_read(r->ini, run_cfg(r, SECTION_RUBRIC), r->tok, r->chat, &k->rubric));
    k->o = score_settings(r, k->rubric);
    QFW_TRY(scorer_create(&k->o, NULL, NULL, NULL, &k->scorer));
    QFW_TRY(open_documents(k, &k->in));
    QFW_TRY(r->flags.dry_run ? check_documents(k) : read_through(k));
    const engine_opts eo = score_engine(&k->o);
    QFW_TRY(run_open_device(r));
    QFW_TRY(engine_plan(r, &eo, &k->e));
    QFW_TRY(serve_plan(r, k->e, k->out));
    if (r->flags.plan_only) return QFW_OK;
    return r->flags.dry_run ? output_check(r, &score_output) : score(k);
}

qfw_status score_task(run *r, FILE *out) {
    scoring k = {.r = r, .out = out};
    const qfw_status status = prepare_and_score(&k);
    log_status(NULL);
    scorer_destroy(k.scorer);
    score_out_close(k.results);
    documents_close(k.in);
    engine_destroy(k.e);
    rubric_destroy(k.rubric);
    return status;
}

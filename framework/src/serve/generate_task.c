/* generate_task.c -- rows as prompts, in the order of the file, some passes' worth at a time. */
#include "serve/generate_task.h"

#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "files/file.h"
#include "files/json.h"
#include "train/outputs.h"
#include "train/progress.h"

/* --- what all generating tasks share --- */

sampling sampling_read(const run *r) {
    const qfw_cfg *c = run_cfg(r, SECTION_GENERATE);
    return (sampling){.do_sample = (uint32_t)cfg_int(c, "do_sample"),
        .top_k = (uint32_t)cfg_int(c, "top_k"),
        .temperature = cfg_real(c, "temperature"),
        .top_p = cfg_real(c, "top_p"),
        .repetition_penalty = cfg_real(c, "repetition_penalty"),
        .seed = r->seed};
}

static void add_stop(int32_t stops[MAX_STOPS], uint32_t *n, int64_t id) {
    if (id < 0 || id > INT32_MAX || *n == MAX_STOPS) return;
    for (uint32_t i = 0; i < *n; i++)
        if (stops[i] == id) return;
    stops[(*n)++] = (int32_t)id;
}

/* eos_token_id: a number or a list of them. */
static void add_eos(const qfw_doc *d, int32_t stops[MAX_STOPS], uint32_t *n) {
    const json_node *eos = json_node_member(json_root(d), "eos_token_id");
    if (json_node_kind(eos) == QFW_DOC_INT) add_stop(stops, n, json_node_i64(eos));
    for (uint64_t i = 0; json_node_kind(eos) == QFW_DOC_ARRAY && i < json_node_count(eos); i++)
        add_stop(stops, n, json_node_i64(json_node_item(eos, i)));
}

static qfw_status add_named(const run *r, int32_t stops[MAX_STOPS], uint32_t *n) {
    const qfw_cfg *c = run_cfg(r, SECTION_GENERATE);
    for (const char *at = cfg_text(c, "stop_tokens"); *at;) {
        char token[256];
        const size_t len = strcspn(at, ",");
        snprintf(token, sizeof token, "%.*s", (int)len, at);
        at += len + (at[len] == ',');
        if (tokenizer_id(r->tok, token) < 0)
            return cfg_problem(r->ini, c, "stop_tokens",
                "\"%s\" is no token of the model; hint: tokens as tokenizer.json writes them, "
                "where "
                "a blank in front is \xe2\x96\x81 or \xc4\xa0",
                token);
        add_stop(stops, n, tokenizer_id(r->tok, token));
    }
    return QFW_OK;
}

qfw_status stops_read(const run *r, int32_t stops[MAX_STOPS], uint32_t *n) {
    char *path = path_join(cfg_text(run_cfg(r, SECTION_MODEL), "path"), "generation_config.json");
    qfw_doc *d = NULL;
    *n = 0;
    qfw_status status = path ? QFW_OK : QFW_E_NOMEM;
    if (status == QFW_OK && file_exists(path)) status = json_read(path, 1 << 20, NULL, &d);
    if (status == QFW_OK) {
        if (d) add_eos(d, stops, n);
        add_eos(r->model_config, stops, n);
        add_stop(stops, n, tokenizer_eos(r->tok));
        status = add_named(r, stops, n);
    }
    json_destroy(d);
    mem_free(path);
    return status;
}

qfw_status serve_plan(run *r, const engine *e, FILE *out) {
    const plan_need need = engine_need(e);
    plan_measure(r);
    plan_print(r, &need, out);
    fflush(out);
    return plan_check(r, &need);
}

qfw_status serve_load(run *r, engine *e) {
    const plan *plans[4];
    QFW_TRY(run_load_weights(r));
    QFW_TRY(engine_alloc(e));
    return plan_seal(r->store, plans, engine_plans(e, plans, 4));
}

/* --- rows --- */

/* A row's "prompt", or its "messages". */
static qfw_status encode_row(qfw_inst *unused, qfw_encoder *e) {
    const qfw_doc *row = encoder_api.row(e);
    (void)unused;
    if (json_doc_api.kind(row, "/prompt") != QFW_DOC_ABSENT)
        return encoder_api.prompt(e, "/prompt");
    if (json_doc_api.kind(row, "/messages") != QFW_DOC_ABSENT)
        return encoder_api.prompt(e, "/messages");
    return json_doc_api.fail(row, "", QFW_E_DATA,
        "E_DATA_FIELD: missing; a row to be continued has \"prompt\" or \"messages\"");
}

static const qfw_trainer prompt_rows = {.size = sizeof prompt_rows, .encode = encode_row};

typedef struct job {
    run *r;
    dataset *rows;
    engine *e;
    sampling s;
    int32_t stops[MAX_STOPS];
    uint32_t n_stops;
    generation *group; /* of rows that are continued together */
    size_t group_rows;
    int32_t *tokens; /* [group_rows, max_new] */
    int64_t max_new;
    uint64_t n_tokens, n_done; /* tokens generated; rows written */
} job;

static qfw_status open_rows(job *j, FILE *out) {
    dataset_opts o = run_dataset_opts(j->r);
    o.trainer = &prompt_rows;
    QFW_TRY(dataset_open(cfg_text(run_cfg(j->r, SECTION_GENERATE), "input"), &o, &j->rows));
    dataset_print_report(j->rows, "input", out);
    return QFW_OK;
}

static qfw_status plan_job(job *j, FILE *out) {
    run *r = j->r;
    const qfw_cfg *c = run_cfg(r, SECTION_GENERATE);
    const uint32_t slots = (uint32_t)cfg_int(c, "per_device_batch_size");
    const int64_t longest = (int64_t)dataset_longest(j->rows, 1);
    const uint64_t n = dataset_count(j->rows);
    engine_opts o = {.n_slots = n < slots ? (uint32_t)n : slots, .pass_rows = 512};
    j->max_new = cfg_int(c, "max_new_tokens");
    o.slot_tokens = longest + j->max_new;
    if (o.slot_tokens > r->facts.max_positions) o.slot_tokens = r->facts.max_positions;
    if (o.pass_rows > (int64_t)o.n_slots * longest) o.pass_rows = (int64_t)o.n_slots * longest;
    j->s = sampling_read(r);
    QFW_TRY(stops_read(r, j->stops, &j->n_stops));
    QFW_TRY(run_open_device(r));
    QFW_TRY(engine_plan(r, &o, &j->e));
    return serve_plan(r, j->e, out);
}

static qfw_status take_groups(job *j) {
    const uint64_t n = dataset_count(j->rows);
    j->group_rows = (size_t)engine_slots(j->e) * 16;
    if (j->group_rows > n) j->group_rows = (size_t)n;
    j->group = mem_alloc(j->group_rows, sizeof *j->group);
    j->tokens = mem_alloc(j->group_rows * (size_t)j->max_new, sizeof *j->tokens);
    return j->group && j->tokens ? QFW_OK : QFW_E_NOMEM;
}

static qfw_status text_of(const job *j, const int32_t *id, int64_t n, int special, char **text) {
    size_t bytes = 0;
    return tokenizer_decode(j->r->tok, id, (size_t)n, !special, text, &bytes);
}

static qfw_status say_row(const job *j, const generation *g, uint64_t line, json_out *o) {
    char *prompt = NULL, *completion = NULL;
    qfw_status status = text_of(j, g->prompt, g->n_prompt, 1, &prompt);
    if (status == QFW_OK) status = text_of(j, g->tokens, g->n_tokens, 0, &completion);
    json_open(o, NULL, '{');
    json_int(o, "line", (int64_t)line);
    json_str(o, "prompt", prompt);
    json_str(o, "completion", completion);
    json_int(o, "n_tokens", g->n_tokens);
    json_str(o, "finish", g->stopped ? "stop" : "length");
    json_float(o, "mean_logprob", g->mean_logp);
    json_close(o);
    mem_free(prompt);
    mem_free(completion);
    return status;
}

static qfw_status write_row(const job *j, const generation *g, uint64_t line, file_out *file) {
    json_out *o = json_out_create(0);
    size_t n = 0;
    qfw_status status = say_row(j, g, line, o);
    const char *text = status == QFW_OK ? json_out_text(o, &n) : NULL;
    if (status == QFW_OK && !text) status = QFW_E_NOMEM;
    if (status == QFW_OK) status = file_out_write(file, text, n);
    if (status == QFW_OK) status = file_out_write(file, "\n", 1);
    json_out_destroy(o);
    return status;
}

static qfw_status run_group(job *j, uint64_t first, size_t n, file_out *file) {
    for (size_t i = 0; i < n; i++) {
        const qfw_seq *prompt = &dataset_at(j->rows, first + i)->seq[0];
        j->group[i] = (generation){.prompt = prompt->token,
            .n_prompt = prompt->n,
            .key = first + i,
            .max_new = j->max_new,
            .tokens = j->tokens + i * (size_t)j->max_new};
    }
    const qfw_status status = generate_all(j->e, &j->s, j->stops, j->n_stops, j->group, n);
    if (status != QFW_OK && status != QFW_E_CANCELLED) return status;
    for (size_t i = 0; i < n && j->group[i].done; i++) { /* all, or what came before a signal */
        QFW_TRY(write_row(j, &j->group[i], dataset_at(j->rows, first + i)->line, file));
        j->n_tokens += (uint64_t)j->group[i].n_tokens;
        j->n_done++;
    }
    return status;
}

static qfw_status run_groups(job *j, file_out *file) {
    char status[96];
    const uint64_t n = dataset_count(j->rows);
    for (uint64_t first = 0; first < n; first += j->group_rows) {
        const size_t count = n - first < j->group_rows ? (size_t)(n - first) : j->group_rows;
        const qfw_status done = run_group(j, first, count, file);
        if (done != QFW_OK) return done;
        snprintf(status, sizeof status, "%llu of %llu rows", (unsigned long long)(first + count),
            (unsigned long long)n);
        log_status(status);
    }
    log_status(NULL);
    return QFW_OK;
}

static const output_mark output_marks[] = {{"generations.jsonl", "generations", 1},
    {"trainer_log.jsonl", "a training run", 0}, {NULL, NULL, 0}};
static const output_kind generate_output = {output_marks, 0, 0};

static qfw_status write_all(job *j, FILE *out) {
    const char *folder = cfg_text(run_cfg(j->r, SECTION_RUN), "output_dir");
    char rows[32], tokens[32], spent[32], rate[32];
    file_out *file = NULL;
    QFW_TRY(output_claim(j->r, &generate_output));
    QFW_TRY(take_groups(j));
    char *path = path_join(folder, "generations.jsonl");
    qfw_status status = path ? file_out_open(path, &file) : QFW_E_NOMEM;
    const uint64_t began = clock_ns();
    if (status == QFW_OK) status = serve_load(j->r, j->e);
    if (status == QFW_OK) status = run_groups(j, file);
    const int is_stopped = status == QFW_E_CANCELLED && j->n_done > 0;
    if (status == QFW_OK || is_stopped)
        status = file_out_finish(file);
    else
        file_out_abort(file);
    const double seconds = (double)(clock_ns() - began) * 1e-9;
    if (status == QFW_OK) status = outputs_resolved(j->r, folder);
    if (status == QFW_OK && !is_stopped)
        fprintf(out, "\nDone: %s rows, %s tokens in %s: %s tokens/s\n  written to %s\n",
            format_count(j->n_done, rows), format_count(j->n_tokens, tokens),
            format_time(seconds, spent),
            format_count((uint64_t)((double)j->n_tokens / seconds), rate), path);
    mem_free(path);
    if (status == QFW_OK && is_stopped)
        status = err_fail("E_SIGNAL", QFW_E_CANCELLED,
            "stopped after %llu of %llu rows, which are written; hint: the same command with "
            "--set run.overwrite_output_dir=true begins anew",
            (unsigned long long)j->n_done, (unsigned long long)dataset_count(j->rows));
    return status;
}

static qfw_status run_job(job *j, FILE *out) {
    QFW_TRY(run_open_model(j->r));
    QFW_TRY(open_rows(j, out));
    QFW_TRY(plan_job(j, out));
    if (j->r->flags.plan_only) return QFW_OK;
    return j->r->flags.dry_run ? output_check(j->r, &generate_output) : write_all(j, out);
}

qfw_status generate_task(run *r, FILE *out) {
    job j = {.r = r};
    const qfw_status status = run_job(&j, out);
    engine_destroy(j.e);
    dataset_close(j.rows);
    mem_free(j.group);
    mem_free(j.tokens);
    return status;
}

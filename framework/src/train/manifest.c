/* manifest.c -- manifest.json of a run: what went in and what came out, by hash. */
#define _POSIX_C_SOURCE 200809L
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/process.h"
#include "export/full.h"
#include "files/file.h"
#include "files/json.h"
#include "files/safetensors.h"
#include "plugin/loader.h"
#include "train/best.h"
#include "train/fit.h"
#include "train/outputs.h"

/* An object of one file; nothing where it does not exist. */
static qfw_status say_file(json_out *o, const char *path) {
    char hex[65];
    struct stat s;
    if (stat(path, &s)) return QFW_OK;
    if (s.st_size > 1 << 30) log_line(QFW_LOG_INFO, "hashing %s for manifest.json", path);
    QFW_TRY(file_sha256(path, hex));
    json_open(o, NULL, '{');
    json_str(o, "path", path);
    json_int(o, "bytes", (int64_t)s.st_size);
    json_str(o, "sha256", hex);
    json_close(o);
    return QFW_OK;
}

static qfw_status say_file_of(json_out *o, const char *folder, const char *name) {
    char *path = path_join(folder, name);
    const qfw_status status = path ? say_file(o, path) : QFW_E_NOMEM;
    mem_free(path);
    return status;
}

/* Rows that were left out because they are wrong. */
static void say_problems(json_out *o, const dataset *d) {
    const char *text = NULL;
    uint64_t line = 0;
    json_open(o, "left_out", '[');
    for (uint32_t i = 0; (text = dataset_problem(d, i, &line)); i++) {
        json_open(o, NULL, '{');
        json_int(o, "line", (int64_t)line);
        json_str(o, "why", text);
        json_close(o);
    }
    json_close(o);
}

static void say_lengths(json_out *o, const dataset *d) {
    dataset_bin b;
    json_open(o, "lengths", '[');
    for (uint32_t i = 0; dataset_length_bin(d, i, &b); i++) {
        json_open(o, NULL, '{');
        json_int(o, "from", (int64_t)b.from);
        json_int(o, "to", (int64_t)b.to);
        json_int(o, "rows", (int64_t)b.rows);
        json_close(o);
    }
    json_close(o);
}

/* The hash is of what was read, whatever the file holds by now. */
static void say_rows(json_out *o, const char *key, const char *path, const dataset *d) {
    const dataset_report *facts = dataset_facts(d);
    json_open(o, key, '{');
    json_str(o, "path", path);
    json_int(o, "rows", (int64_t)facts->rows);
    json_int(o, "kept", (int64_t)facts->kept);
    json_int(o, "tokens", (int64_t)facts->tokens);
    json_int(o, "trained", (int64_t)facts->trained);
    json_str(o, "sha256", facts->sha256);
    json_int(o, "cut", (int64_t)facts->cut);
    json_int(o, "dropped_long", (int64_t)facts->dropped_long);
    json_int(o, "dropped_untrained", (int64_t)facts->dropped_untrained);
    json_int(o, "errors", (int64_t)facts->errors);
    json_int(o, "duplicates", (int64_t)facts->duplicates);
    say_lengths(o, d);
    say_problems(o, d);
    json_close(o);
}

static void say_near(json_out *o, const char *key, const near_list *l) {
    json_open(o, key, '{');
    json_int(o, "rows", (int64_t)l->rows);
    json_int(o, "of", (int64_t)l->of);
    json_open(o, "worst", '[');
    for (uint32_t i = 0; i < l->n_worst; i++) {
        json_open(o, NULL, '{');
        json_int(o, "line", (int64_t)l->worst[i].line);
        json_int(o, "train_line", (int64_t)l->worst[i].train_line);
        json_float(o, "jaccard", l->worst[i].jaccard);
        json_close(o);
    }
    json_close(o);
    json_close(o);
}

static void say_data(const run *r, json_out *o) {
    static const char *const notes[] = {"source", "generator", "licence", "notes"};
    const qfw_cfg *d = run_cfg(r, SECTION_DATA);
    json_open(o, "data", '{');
    say_rows(o, "train", cfg_text(d, "train"), r->train);
    if (r->eval) say_rows(o, "eval", cfg_text(d, "eval"), r->eval);
    if (r->near.threshold > 0) {
        json_float(o, "near_duplicate", r->near.threshold);
        say_near(o, "near_duplicates", &r->near.train);
        if (r->eval) say_near(o, "leakage", &r->near.eval);
    }
    for (size_t i = 0; i < sizeof notes / sizeof notes[0]; i++)
        json_str(o, notes[i], cfg_text(d, notes[i]));
    json_close(o);
}

/* The safetensors that the weights were read from. */
static qfw_status say_shards(const char *folder, json_out *o) {
    st_file *f = NULL;
    QFW_TRY(st_open_folder(folder, &f));
    qfw_status status = QFW_OK;
    for (uint32_t i = 0; status == QFW_OK && i < st_count(f); i++) {
        uint32_t first = 0; /* tensor of the same file */
        while (st_at(f, first)->shard != st_at(f, i)->shard) first++;
        if (first == i) status = say_file(o, st_at(f, i)->file);
    }
    st_close(f);
    return status;
}

/* Everything of a model or adapter folder that decides what was trained. */
static qfw_status say_base(const run *r, json_out *o) {
    static const char *const files[] = {"config.json", "tokenizer.json", "tokenizer_config.json"};
    const qfw_cfg *model = run_cfg(r, SECTION_MODEL);
    const char *folder = cfg_text(model, "path");
    const char *adapter = cfg_text(run_cfg(r, SECTION_ADAPTER), "path");
    json_open(o, "base_model", '{');
    json_str(o, "path", folder);
    json_str(o, "init", cfg_text(model, "init"));
    json_open(o, "files", '[');
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        QFW_TRY(say_file_of(o, folder, files[i]));
    if (strcmp(cfg_text(model, "init"), "random")) QFW_TRY(say_shards(folder, o));
    if (*adapter) QFW_TRY(say_file_of(o, adapter, "adapter_config.json"));
    if (*adapter) QFW_TRY(say_file_of(o, adapter, "adapter_model.safetensors"));
    json_close(o);
    json_close(o);
    return QFW_OK;
}

static qfw_status say_plugin(json_out *o, const qfw_component *c, const plugin *p) {
    char hex[65];
    if (p) QFW_TRY(file_sha256(p->path, hex));
    json_open(o, NULL, '{');
    json_str(o, "kind", plugin_kind_name(c->kind));
    json_str(o, "name", c->name);
    json_str(o, "version", p ? p->desc->version : NULL); /* null: built in */
    json_str(o, "path", p ? p->path : NULL);
    json_str(o, "sha256", p ? hex : NULL);
    json_close(o);
    return QFW_OK;
}

static qfw_status say_plugins(const run *r, json_out *o) {
    json_open(o, "plugins", '[');
    QFW_TRY(say_plugin(o, r->backend, r->backend_file));
    QFW_TRY(say_plugin(o, r->model_component, r->model_file));
    QFW_TRY(say_plugin(o, r->trainer_component, r->trainer_file));
    QFW_TRY(say_plugin(o, r->optimizer_component, r->optimizer_file));
    json_close(o);
    return QFW_OK;
}

/* What the run wrote. Shards of a large model stand in its index. */
static qfw_status say_outputs(json_out *o, const char *folder) {
    static const char *const files[] = {"adapter_model.safetensors", "adapter_config.json",
        "model.safetensors", "model.safetensors.index.json", "trainer_log.jsonl", "resolved.ini",
        "README.md"};
    json_open(o, "outputs", '[');
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        QFW_TRY(say_file_of(o, folder, files[i]));
    for (size_t i = 0; full_files[i]; i++) QFW_TRY(say_file_of(o, folder, full_files[i]));
    json_close(o);
    return QFW_OK;
}

static void say_run(const run *r, const progress *p, json_out *o) {
    char now[32] = "";
    const time_t t = time(NULL);
    struct tm utc;
    const plan_need need = train_need(r);
    if (gmtime_r(&t, &utc)) strftime(now, sizeof now, "%Y-%m-%dT%H:%M:%SZ", &utc);
    json_str(o, "qfw", r->host->version);
    json_str(o, "finished", now);
    json_str(o, "device", r->dev.info.name);
    json_int(o, "seed", (int64_t)r->seed);
    json_int(o, "steps", (int64_t)p->step);
    json_int(o, "num_tokens", (int64_t)p->num_tokens);
    json_float(o, "first_loss", p->first_loss);
    json_float(o, "last_loss", p->last_loss);
    if (best_is_kept(r) && p->best_step) {
        json_int(o, "best_global_step", (int64_t)p->best_step);
        json_str(o, "metric_for_best_model", best_metric(r));
        json_float(o, "best_metric", p->best_value);
    }
    json_str(o, "gradient_checkpointing", fit_recompute_name(r));
    json_int(o, "passes_of_a_batch", r->passes);
    json_int(o, "plan_bytes", (int64_t)plan_total(r, &need));
    if (plan_is_host(r)) /* else the plan is the device's, and says nothing of the process */
        json_int(o, "process_peak_bytes", (int64_t)process_peak());
}

static qfw_status say_all(const run *r, const char *folder, const progress *p, json_out *o) {
    json_open(o, NULL, '{');
    say_run(r, p, o);
    say_data(r, o);
    QFW_TRY(say_base(r, o));
    QFW_TRY(say_plugins(r, o));
    QFW_TRY(say_outputs(o, folder));
    json_close(o);
    return QFW_OK;
}

qfw_status outputs_manifest(const run *r, const char *folder, const progress *p) {
    size_t n = 0;
    json_out *o = json_out_create(2);
    qfw_status status = say_all(r, folder, p, o);
    json_end_line(o);
    const char *text = status == QFW_OK ? json_out_text(o, &n) : NULL;
    char *path = text ? path_join(folder, "manifest.json") : NULL;
    if (status == QFW_OK) status = path ? file_write(path, text, n) : QFW_E_NOMEM;
    mem_free(path);
    json_out_destroy(o);
    return status;
}

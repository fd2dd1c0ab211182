/* run.c -- one run from the INI to the summary, in the order in which things can go wrong
 * cheaply: the steps of every task, and the task `train`. */
#define _POSIX_C_SOURCE 200809L
#include "train/run.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/parallel.h"
#include "base/process.h"
#include "files/file.h"
#include "files/json.h"
#include "plugin/host.h"
#include "plugin/loader.h"
#include "train/best.h"
#include "train/bnb.h"
#include "train/checkpoint.h"
#include "train/fit.h"
#include "train/outputs.h"
#include "train/packing.h"
#include "train/profile.h"
#include "train/reference.h"

static const char *text_of(const run *r, uint32_t section, const char *key) {
    return cfg_text(run_cfg(r, section), key);
}

/* A plugin that refused its settings names the key: say where the INI has it. */
static qfw_status created(const run *r, uint32_t own, qfw_status status) {
    const qfw_cfg *c = r->sections[own].cfg;
    char key[128], place[512];
    for (uint64_t i = 0; status == QFW_E_CONFIG && c && i < c->n; i++) {
        const ini_entry *e = c->values[i].entry;
        snprintf(key, sizeof key, "%s.%s:", c->section, c->options[i].key);
        if (e && strstr(err_text(0), key))
            err_prefix("%s", ini_place_named(r->ini, e, place, sizeof place));
    }
    return status;
}

/* What was asked for must be possible; the default gives way. */
static qfw_status fit_max_length(const run *r) {
    qfw_cfg *data = r->sections[SECTION_DATA].cfg;
    const long long wanted = cfg_int(data, "max_length"), most = r->facts.max_positions;
    char text[32];
    if (wanted <= most) return QFW_OK;
    if (cfg_is_set(data, "max_length"))
        return cfg_problem(r->ini, data, "max_length",
            "%lld, but the model is made for at most %lld positions", wanted, most);
    snprintf(text, sizeof text, "%lld", most);
    return cfg_replace(data, "max_length", text);
}

static qfw_status open_model(run *r) {
    const char *folder = text_of(r, SECTION_MODEL, "path");
    char *path = path_join(folder, "config.json");
    qfw_status status = path ? json_read(path, 16 << 20, NULL, &r->model_config) : QFW_E_NOMEM;
    mem_free(path);
    if (status != QFW_OK) return status;
    QFW_TRY(bnb_read_config(r));
    r->model = r->model_component->iface;
    status = r->model->create(
        r->host, r->sections[SECTION_MODEL_OWN].cfg, r->model_config, &r->model_inst);
    QFW_TRY(created(r, SECTION_MODEL_OWN, status));
    QFW_TRY(weights_describe(r));
    return fit_max_length(r);
}

/* The turns first. */
static const char *const chat_keys[] = {
    "chat_system", "chat_user", "chat_assistant", "chat_start", "chat_prompt", "chat_end"};
enum { N_CHAT_KEYS = sizeof chat_keys / sizeof chat_keys[0], N_TURNS = 3 };

/* The template that the keys declare; all that is wrong with them at once. */
static qfw_status declare_chat(run *r) {
    const qfw_cfg *data = run_cfg(r, SECTION_DATA);
    char *text[N_CHAT_KEYS] = {NULL};
    qfw_status status = QFW_OK, one;
    err_clear();
    for (size_t i = 0; i < N_CHAT_KEYS; i++) {
        one = cfg_unescaped(r->ini, data, chat_keys[i], &text[i]);
        const size_t n = one == QFW_OK ? chat_contents(text[i]) : 0;
        const int is_turn = i < N_TURNS && (i > 0 || *cfg_text(data, chat_keys[i]));
        if (one == QFW_OK && n != (size_t)is_turn)
            one = cfg_problem(r->ini, data, chat_keys[i], "found {content} %zu times, wanted it %s",
                n, is_turn ? "once" : "nowhere");
        if (status == QFW_OK) status = one;
    }
    const chat_declaration d = {.system = text[0],
        .user = text[1],
        .assistant = text[2],
        .start = text[3],
        .prompt = text[4],
        .end = text[5]};
    if (status == QFW_OK) status = chat_declare(&d, &r->declared_chat);
    for (size_t i = 0; i < N_CHAT_KEYS; i++) mem_free(text[i]);
    r->chat = r->declared_chat;
    return status;
}

/* A run that has its template from elsewhere has no use for the keys. */
static qfw_status drop_chat_keys(run *r) {
    qfw_cfg *data = r->sections[SECTION_DATA].cfg;
    for (size_t i = 0; i < N_CHAT_KEYS; i++) {
        if (*cfg_text(data, chat_keys[i]))
            return cfg_problem(r->ini, data, chat_keys[i],
                "it counts with chat_template = declared, which is %s",
                cfg_text(data, "chat_template"));
        cfg_drop(data, chat_keys[i]);
    }
    return QFW_OK;
}

static qfw_status open_text(run *r) {
    const char *wanted = text_of(r, SECTION_DATA, "chat_template");
    QFW_TRY(tokenizer_open(text_of(r, SECTION_MODEL, "path"), r->facts.vocab, &r->tok));
    if (!strcmp(wanted, "declared")) return declare_chat(r);
    QFW_TRY(drop_chat_keys(r));
    if (strcmp(wanted, "auto")) {
        r->chat = chat_by_name(wanted);
    } else if (tokenizer_chat_template(r->tok)) {
        r->chat = chat_by_jinja(tokenizer_chat_template(r->tok));
    }
    return QFW_OK;
}

dataset_opts run_dataset_opts(const run *r) {
    const qfw_cfg *d = run_cfg(r, SECTION_DATA);
    const char *overlong = cfg_text(d, "overlong");
    return (dataset_opts){.tok = r->tok,
        .host = r->host,
        .chat = r->chat,
        .system_policy =
            !strcmp(cfg_text(d, "system_turn"), "fold") ? CHAT_SYSTEM_FOLD : CHAT_SYSTEM_ERROR,
        .allow_special = (int)cfg_int(d, "special_tokens_in_content"),
        .max_length = cfg_int(d, "max_length"),
        .model_length = r->facts.max_positions,
        .overlong = !strcmp(overlong, "error")      ? OVERLONG_ERROR
                    : !strcmp(overlong, "truncate") ? OVERLONG_TRUNCATE
                                                    : OVERLONG_DROP,
        .drop_untrained = !strcmp(cfg_text(d, "untrained"), "drop"),
        .max_line = (uint64_t)cfg_int(d, "max_line")};
}

static qfw_status open_set(run *r, const char *key, dataset **out) {
    dataset_opts o = run_dataset_opts(r);
    o.trainer = r->trainer;
    o.trainer_inst = r->trainer_inst;
    o.skip_errors = !strcmp(text_of(r, SECTION_DATA, "on_error"), "skip");
    o.max_errors = (uint64_t)cfg_int(run_cfg(r, SECTION_DATA), "max_errors");
    o.shingles = cfg_real(run_cfg(r, SECTION_DATA), "near_duplicate") > 0;
    return dataset_open(cfg_text(run_cfg(r, SECTION_DATA), key), &o, out);
}

/* Rows that say nearly the same, in train and across to eval. */
static qfw_status find_near(run *r, FILE *out) {
    const qfw_cfg *d = run_cfg(r, SECTION_DATA);
    const double threshold = cfg_real(d, "near_duplicate");
    if (threshold <= 0) return QFW_OK;
    QFW_TRY(near_find(r->train, r->eval, threshold, &r->near));
    near_print(&r->near, out);
    return near_check(&r->near, r->train, r->eval, cfg_real(d, "max_near_duplicates"),
        cfg_real(d, "max_leakage"));
}

static qfw_status open_data(run *r, FILE *out) {
    r->trainer = r->trainer_component->iface;
    if (r->trainer->flags & QFW_TRAINER_NEEDS_REF &&
        !strcmp(text_of(r, SECTION_ADAPTER, "use"), "none"))
        return cfg_problem(r->ini, run_cfg(r, SECTION_ADAPTER), "use",
            "none, but trainer %s compares with the model that it starts from: that must be "
            "frozen; "
            "hint: lora",
            r->trainer_component->name);
    QFW_TRY(created(r, SECTION_TRAINER_OWN,
        r->trainer->create(r->host, r->sections[SECTION_TRAINER_OWN].cfg, &r->trainer_inst)));
    QFW_TRY(open_set(r, "train", &r->train));
    dataset_print_report(r->train, "train", out);
    QFW_TRY(packing_create(r, r->train, &r->units));
    packing_print(r, out);
    if (*text_of(r, SECTION_DATA, "eval")) {
        QFW_TRY(open_set(r, "eval", &r->eval));
        dataset_print_report(r->eval, "eval", out);
    }
    QFW_TRY(find_near(r, out));
    for (uint64_t i = 0; i < (r->flags.n_rows ? r->flags.n_rows : 1); i++)
        dataset_print_row(r->train, i, out, isatty(fileno(out)));
    return QFW_OK;
}

/* Updates of the run, as transformers counts them. */
static void count_steps(run *r) {
    const qfw_cfg *t = run_cfg(r, SECTION_TRAINER);
    r->passes = 1;
    r->batch_size = (uint32_t)cfg_int(t, "per_device_train_batch_size");
    r->eval_batch_size = (uint32_t)cfg_int(t, "per_device_eval_batch_size");
    r->accumulation = (uint32_t)cfg_int(t, "gradient_accumulation_steps");
    const uint64_t micros = (r->units->n + r->batch_size - 1) / r->batch_size;
    r->steps_per_epoch = (micros + r->accumulation - 1) / r->accumulation;
    r->max_steps =
        cfg_int(t, "max_steps") > 0
            ? (uint64_t)cfg_int(t, "max_steps")
            : (uint64_t)ceil(cfg_real(t, "num_train_epochs") * (double)r->steps_per_epoch);
}

static qfw_status open_device(run *r) {
    const qfw_backend *be = r->backend->iface;
    const qfw_cfg *own = r->sections[SECTION_BACKEND_OWN].cfg;
    r->dev = (device){
        .be = be, .host = r->host, .name = r->backend->name, .info = {.size = sizeof r->dev.info}};
    const uint32_t i =
        (uint32_t)cfg_int(own, "device"); /* 0 where a backend declares no such key */
    QFW_TRY(be->device_info(r->host, i, &r->dev.info));
    return created(r, SECTION_BACKEND_OWN, be->create(r->host, own, i, &r->dev.inst));
}

static qfw_status open_optimizer(run *r) {
    const int built_in = !r->optimizer_file;
    r->optimizer = r->optimizer_component->iface;
    return created(r, SECTION_OPTIMIZER_OWN,
        r->optimizer->create(r->host,
            built_in ? run_cfg(r, SECTION_OPTIMIZER) : r->sections[SECTION_OPTIMIZER_OWN].cfg,
            &r->optimizer_inst));
}

qfw_status run_open_model(run *r) {
    QFW_TRY(parallel_start((uint32_t)cfg_int(run_cfg(r, SECTION_RUN), "threads")));
    const qfw_cfg *trainer = run_cfg(r, SECTION_TRAINER);
    r->seed = (uint64_t)cfg_int(run_cfg(r, SECTION_RUN), "seed");
    r->compute = cfg_int(trainer, "bf16") ? QFW_BF16 : cfg_int(trainer, "fp16") ? QFW_F16 : QFW_F32;
    QFW_TRY(open_model(r));
    return open_text(r);
}

qfw_status run_open_device(run *r) {
    QFW_TRY(open_device(r));
    QFW_TRY(store_create(&r->dev, &r->store));
    QFW_TRY(weights_declare(r));
    return adapters_declare(r);
}

static void print_steps(const run *r, FILE *out) {
    char steps[32], epoch[32];
    const char *unit = cfg_int(run_cfg(r, SECTION_DATA), "packing") ? "pack" : "row";
    fprintf(out, "  %s step%s, %s an epoch; %u %s%s a pass, %u pass%s a step\n",
        format_count(r->max_steps, steps), r->max_steps == 1 ? "" : "s",
        format_count(r->steps_per_epoch, epoch), r->batch_size, unit, r->batch_size == 1 ? "" : "s",
        r->accumulation, r->accumulation == 1 ? "" : "es");
    if (r->passes > 1)
        fprintf(out, "  a batch of %u %ss is taken in %u passes: in one it would not fit\n",
            r->batch_size * r->passes, unit, r->passes);
}

/* Everything that can be known before memory is taken. */
qfw_status train_prepare(run *r, FILE *out) {
    QFW_TRY(run_open_model(r));
    QFW_TRY(open_data(r, out));
    count_steps(r);
    QFW_TRY(open_optimizer(r));
    QFW_TRY(run_open_device(r));
    if (r->trainer->flags & QFW_TRAINER_NEEDS_REF) QFW_TRY(adapters_declare_reference(r));
    QFW_TRY(trainables_declare(r));
    QFW_TRY(fit_plan(r));
    QFW_TRY(best_check(r));
    const plan_need need = train_need(r);
    plan_print(r, &need, out);
    print_steps(r, out);
    fflush(out); /* before the lines of the log, where both go to one file */
    return fit_check(r);
}

static void print_file(FILE *out, const char *name, const char *what) {
    fprintf(out, "    %-28s %s\n", name, what);
}

static void print_outputs(const run *r, const progress *p, FILE *out) {
    char name[64];
    const int saves = strcmp(cfg_text(run_cfg(r, SECTION_TRAINER), "save_strategy"), "no") != 0;
    fprintf(out, "  written to %s\n", text_of(r, SECTION_RUN, "output_dir"));
    if (r->n_loras)
        print_file(out, "adapter_model.safetensors", "the adapter, as PEFT loads it");
    else
        print_file(out, "model*.safetensors", "the model, as transformers loads it");
    print_file(out, "trainer_log.jsonl", "the numbers of the run");
    if (!strcmp(text_of(r, SECTION_TRAINER, "report_to"), "tensorboard"))
        print_file(out, "runs/", "the same for TensorBoard");
    print_file(out, "resolved.ini", "all its settings");
    if (outputs_has_card(r)) print_file(out, "README.md", "the model card");
    print_file(out, "manifest.json", "what went in and came out, by hash");
    if (r->flags.profile)
        print_file(out, "profile.json", "a trace for ui.perfetto.dev or chrome://tracing");
    snprintf(name, sizeof name, "checkpoint-%llu", (unsigned long long)p->step);
    if (saves) print_file(out, name, "the last checkpoint");
}

static void print_summary(const run *r, const progress *p, FILE *out) {
    const plan_need need = train_need(r);
    char spent[32], peak[32], planned[32], steps[32], tokens[32], rate[32];
    const double seconds = (double)(p->spent_ns ? p->spent_ns : 1) * 1e-9;
    const uint64_t n = p->num_tokens - p->started_tokens;
    fprintf(out, "\nDone: %s step%s, %s tokens in %s: %s tokens/s\n",
        format_count(p->step - p->started_step, steps), p->step - p->started_step == 1 ? "" : "s",
        format_count(n, tokens), format_time(seconds, spent),
        format_count((uint64_t)((double)n / seconds), rate));
    fprintf(out, "  loss       %.4f first, %.4f last", p->first_loss, p->last_loss);
    if (!isnan(p->last_eval_loss)) fprintf(out, ", %.4f on the eval rows", p->last_eval_loss);
    if (p->is_over)
        fprintf(out, "\n  stopped    early: eval_%s did not improve in %llu evaluation%s",
            best_metric(r), (unsigned long long)p->worse, p->worse == 1 ? "" : "s");
    if (best_is_kept(r) && p->best_step)
        fprintf(out, "\n  best       eval_%s %.4f after step %llu: what is written is of that step",
            best_metric(r), p->best_value, (unsigned long long)p->best_step);
    format_bytes(process_peak(), peak);
    format_bytes(plan_total(r, &need), planned);
    if (plan_is_host(r))
        fprintf(out, "\n  memory     %s at the peak, %s planned\n", peak, planned);
    else
        fprintf(out, "\n  memory     %s planned on %s, this process %s at the peak\n", planned,
            r->dev.name, peak);
    print_outputs(r, p, out);
}

qfw_status run_load_weights(run *r) {
    QFW_TRY(weights_open(r));
    QFW_TRY(store_alloc(r->store));
    QFW_TRY(weights_load(r));
    return adapters_init(r);
}

qfw_status run_load_adapters(run *r) {
    QFW_TRY(store_alloc(r->store));
    return adapters_init(r);
}

qfw_status train_load(run *r) {
    QFW_TRY(run_load_weights(r));
    QFW_TRY(graphs_alloc(r));
    if (r->judge) QFW_TRY(r->judge->alloc(r->judge_inst));
    return reference_prepare(r);
}

/* Where the run starts: the checkpoint that it goes on from (mem_free) and its place; NULL and
 * zeros for the beginning. */
static qfw_status find_place(run *r, char **from, progress *p) {
    QFW_TRY(checkpoint_find(r, from));
    if (!*from && strcmp(text_of(r, SECTION_RUN, "resume_from_checkpoint"), "none"))
        log_line(QFW_LOG_INFO, "%s holds no checkpoint to resume from: starting at step 1",
            text_of(r, SECTION_RUN, "output_dir"));
    if (!*from) return QFW_OK;
    QFW_TRY(checkpoint_place(r, *from, p));
    return fit_passes(r, p->passes);
}

/* Everything that can be known without memory and without writing. */
static qfw_status dry_run(run *r) {
    progress p = {0};
    char *from = NULL;
    qfw_status status = find_place(r, &from, &p);
    if (status == QFW_OK) status = weights_open(r);
    mem_free(from);
    return status;
}

static qfw_status train_from(run *r, const char *from, progress *p, FILE *out) {
    const char *folder = text_of(r, SECTION_RUN, "output_dir");
    QFW_TRY(train_load(r));
    QFW_TRY(output_begin(r));
    QFW_TRY(outputs_resolved(r, folder));
    QFW_TRY(train_loop(r, from, p));
    if (best_is_kept(r)) QFW_TRY(checkpoint_load_best(r, p));
    QFW_TRY(outputs_weights(r, folder));
    QFW_TRY(outputs_card(r, folder, p));
    QFW_TRY(outputs_manifest(r, folder, p));
    if (r->flags.profile) QFW_TRY(profile_write(r, p, out));
    print_summary(r, p, out);
    return QFW_OK;
}

static const output_mark train_marks[] = {{"trainer_log.jsonl", "a run", 1},
    {"model.safetensors*", "a model", 0}, {"model-0*", "a model", 0},
    {"adapter_model*", "an adapter", 0}, {NULL, NULL, 0}};
static const output_kind train_output = {train_marks, 1, 1};

/* The folder is claimed first: that it cannot be is said before the weights are read. */
static qfw_status train(run *r, FILE *out) {
    progress p = {0};
    char *from = NULL;
    QFW_TRY(output_claim(r, &train_output));
    qfw_status status = find_place(r, &from, &p);
    if (status == QFW_OK && from && (p.step == r->max_steps || p.is_over) && output_is_whole(r))
        fprintf(out, "\nNothing left to do: %s is of the last step\n", from);
    else if (status == QFW_OK)
        status = train_from(r, from, &p, out);
    mem_free(from);
    return status;
}

void run_close(run *r) {
    if (!r) return;
    output_release(r);
    if (r->judge) r->judge->close(r->judge_inst);
    graphs_destroy(r->graphs);
    st_close(r->files);
    store_destroy(r->store);
    for (uint32_t i = 0; i < r->n_loras + r->n_reference_loras; i++)
        mem_free((void *)r->loras[i].module);
    mem_free(r->loras);
    mem_free(r->weights);
    mem_free(r->trainables);
    if (r->dev.be) r->dev.be->destroy(r->dev.inst);
    if (r->optimizer) r->optimizer->destroy(r->optimizer_inst);
    packing_destroy(r->units);
    dataset_close(r->train);
    dataset_close(r->eval);
    if (r->trainer) r->trainer->destroy(r->trainer_inst);
    if (r->model) r->model->destroy(r->model_inst);
    tokenizer_close(r->tok);
    chat_undeclare(r->declared_chat);
    json_destroy(r->model_config);
    option_free(r->sections, MAX_SECTIONS);
    ini_destroy(r->ini);
    mem_free(r);
    parallel_stop();
}

qfw_status run_start(const run_flags *flags, run **opened) {
    run *r = *opened = mem_alloc(1, sizeof *r);
    if (!r) return QFW_E_NOMEM;
    r->flags = *flags;
    r->lock.fd = -1;
    r->host = host_table();
    host_register("qfw.doc/1", &json_doc_api);
    host_register("qfw.encoder/1", &encoder_api);
    plugin_set_host(r->host);
    const qfw_status status = settings_read(r);
    if (status == QFW_OK) return status;
    run_close(r);
    *opened = NULL;
    return status;
}

qfw_status train_task(run *r, FILE *out) {
    if (!r->flags.plan_only) QFW_TRY(output_check(r, &train_output)); /* before data is read */
    QFW_TRY(train_prepare(r, out));
    if (r->flags.plan_only) return QFW_OK;
    return r->flags.dry_run ? dry_run(r) : train(r, out);
}

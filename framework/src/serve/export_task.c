/* export_task.c -- see export_task.h. The error is measured with the model that is written, read
 * again as any program would read it.
 */
#include "serve/export_task.h"

#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "serve/engine.h"
#include "serve/generate_task.h"
#include "train/merge.h"
#include "train/outputs.h"
#include "train/progress.h"
#include "train/to_gguf.h"

enum { PROBED_ROWS = 32, PROBED_TOKENS = 8, PASS_TOKENS = 512 };

/* The first rows of [data] eval, and the logits that tell some of the trained tokens of each. */
typedef struct probe {
    dataset *rows;
    uint32_t n, n_tokens;
    int64_t vocab;
    float *logits; /* [n_tokens, vocab] */
} probe;

static void close_probe(probe *p) {
    dataset_close(p->rows);
    mem_free(p->logits);
}

/* Place of the i-th token to tell, spread over those that are trained; 0: there are no more. */
static int64_t told_token(const qfw_seq *s, uint32_t i) {
    const uint32_t n = s->n_trained < PROBED_TOKENS ? s->n_trained : PROBED_TOKENS;
    if (i >= n) return 0;
    const uint32_t wanted = (uint32_t)((uint64_t)(i + 1) * s->n_trained / n); /* counted from 1 */
    uint32_t seen = 0;
    for (int64_t t = 1; t < s->n; t++)
        if (s->trained[t] && ++seen == wanted) return t;
    return 0;
}

static uint32_t count_told(const probe *p) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < p->n; i++)
        for (uint32_t k = 0; told_token(&dataset_at(p->rows, i)->seq[0], k); k++) n++;
    return n;
}

static qfw_status open_probe(run *r, probe *p) {
    const char *path = cfg_text(run_cfg(r, SECTION_DATA), "eval");
    if (!*path) return QFW_OK;
    r->trainer = r->trainer_component->iface;
    QFW_TRY(r->trainer->create(r->host, r->sections[SECTION_TRAINER_OWN].cfg, &r->trainer_inst));
    dataset_opts o = run_dataset_opts(r);
    o.trainer = r->trainer;
    o.trainer_inst = r->trainer_inst;
    QFW_TRY(dataset_open(path, &o, &p->rows));
    const uint64_t n = dataset_count(p->rows);
    p->n = n < PROBED_ROWS ? (uint32_t)n : PROBED_ROWS;
    p->n_tokens = count_told(p);
    p->vocab = r->facts.vocab;
    p->logits = mem_alloc(p->n_tokens * (size_t)p->vocab, sizeof *p->logits);
    return p->logits ? QFW_OK : QFW_E_NOMEM;
}

static qfw_status plan_engine(run *r, const probe *p, engine **e) {
    engine_opts o = {.n_slots = 1, .slot_tokens = 1, .pass_rows = PASS_TOKENS};
    for (uint32_t i = 0; i < p->n; i++)
        if (dataset_at(p->rows, i)->seq[0].n > o.slot_tokens)
            o.slot_tokens = dataset_at(p->rows, i)->seq[0].n;
    if (o.pass_rows > o.slot_tokens) o.pass_rows = o.slot_tokens;
    return engine_plan(r, &o, e);
}

static qfw_status read_logits(engine *e, const probe *p, float *logits) {
    for (uint32_t i = 0; i < p->n; i++) {
        const qfw_seq *s = &dataset_at(p->rows, i)->seq[0];
        int64_t read = 0, token;
        engine_forget(e);
        for (uint32_t k = 0; (token = told_token(s, k)) > 0; k++, logits += p->vocab) {
            const engine_append a = {0, s->token + read, token - read};
            QFW_TRY(engine_read(e, &a, 1, logits));
            read = token;
        }
    }
    return QFW_OK;
}

/* --- the model that was written --- */

static int64_t top_of(const float *logits, int64_t n) {
    int64_t top = 0;
    for (int64_t i = 1; i < n; i++)
        if (logits[i] > logits[top]) top = i;
    return top;
}

static void print_error(const probe *p, const float *now, FILE *out) {
    double worst = 0, largest = 0, sum = 0;
    uint32_t same = 0;
    const size_t n = p->n_tokens * (size_t)p->vocab;
    for (size_t i = 0; i < n; i++) {
        const double off = fabs((double)now[i] - (double)p->logits[i]);
        worst = fmax(worst, off);
        largest = fmax(largest, fabs((double)p->logits[i]));
        sum += off;
    }
    for (uint32_t i = 0; i < p->n_tokens; i++)
        same += top_of(now + i * p->vocab, p->vocab) == top_of(p->logits + i * p->vocab, p->vocab);
    fprintf(out,
        "  error      against base and adapter as trained, at %u tokens of %u rows of [data] "
        "eval:\n"
        "             logits off by %.2e at most, %.2e on average (largest logit %.1f); the same "
        "next token in %u of %u\n",
        p->n_tokens, p->n, worst, sum / (double)n, largest, same, p->n_tokens);
}

static qfw_status measure_with(run *r, const probe *p, FILE *out) {
    engine *e = NULL;
    float *now = mem_alloc(p->n_tokens * (size_t)p->vocab, sizeof *now);
    qfw_status status = now ? run_open_model(r) : QFW_E_NOMEM;
    if (status == QFW_OK) status = run_open_device(r);
    if (status == QFW_OK) status = plan_engine(r, p, &e);
    if (status == QFW_OK) {
        const plan_need need = engine_need(e);
        status = plan_check(r, &need);
    }
    if (status == QFW_OK) status = serve_load(r, e);
    if (status == QFW_OK) status = read_logits(e, p, now);
    if (status == QFW_OK) print_error(p, now, out);
    engine_destroy(e);
    mem_free(now);
    return status;
}

/* A model that does not fit unquantised is written all the same. */
static qfw_status measure(const run_flags *flags, const char *merged, const char *folder,
    const char *rows, const probe *p, FILE *out) {
    enum { MORE = 10 };
    const int is_packed = !strcmp(merged, "requant");
    run *r = NULL;
    char *path = mem_printf("model.path=%s", folder),
         *input = mem_printf("generate.input=%s", rows);
    const char **set = mem_alloc(flags->n_set + MORE, sizeof *set);
    qfw_status status = path && input && set ? QFW_OK : QFW_E_NOMEM;
    if (status == QFW_OK) {
        const char *const more[MORE] = {path, input, "run.task=generate", "export.merged=none",
            "export.gguf=none", "export.gguf_adapter=false",
            is_packed ? "model.load_in_4bit=true" : "model.load_in_4bit=false", "adapter.use=none",
            "adapter.path=", "optimizer.loraplus_lr_ratio=1"};
        run_flags again = *flags;
        for (uint32_t i = 0; i < flags->n_set; i++) set[i] = flags->set[i];
        for (uint32_t i = 0; i < MORE; i++) set[again.n_set++] = more[i];
        again.set = set;
        status = run_start(&again, &r);
    }
    if (status == QFW_OK) status = measure_with(r, p, out);
    if (status == QFW_E_NOMEM && !strcmp(err_name(), "E_PLAN_MEMORY")) {
        fprintf(out, "  error      not measured: %s\n", err_text(0));
        err_clear();
        status = QFW_OK;
    }
    run_close(r);
    mem_free(set);
    mem_free(path);
    mem_free(input);
    return status;
}

/* --- the task --- */

static const output_mark export_marks[] = {{"model.safetensors*", "a model", 1},
    {"model-0*", "a model", 1}, {"adapter_model*", "an adapter", 0},
    {"model-f16.gguf", "a model", 1}, {"model-q8_0.gguf", "a model", 1},
    {"adapter.gguf", "an adapter", 1}, {"trainer_log.jsonl", "a training run", 0}, {NULL, NULL, 0}};
static const output_kind export_output = {export_marks, 0, 1};

static qfw_status write_model(run *r, probe *p, engine *e, FILE *out) {
    const char *folder = cfg_text(run_cfg(r, SECTION_RUN), "output_dir");
    const char *merged = cfg_text(run_cfg(r, SECTION_EXPORT), "merged");
    const uint64_t began = clock_ns();
    char spent[32];
    QFW_TRY(output_claim(r, &export_output));
    if (e) {
        QFW_TRY(serve_load(r, e));
        QFW_TRY(read_logits(e, p, p->logits));
    } else {
        QFW_TRY(run_load_adapters(r));
    }
    const int is_merged = strcmp(merged, "none") != 0;
    const int mode = !strcmp(merged, "requant")   ? MERGE_REQUANT
                     : !strcmp(merged, "dequant") ? MERGE_DEQUANT
                     : !is_merged && r->is_bnb    ? MERGE_DEQUANT
                                                  : MERGE_BASE16;
    if (is_merged) QFW_TRY(merge_write(r, mode, folder));
    if (is_merged)
        fprintf(out,
            "\nDone: base and adapter merged (%s) in %s\n  written to %s, as transformers "
            "loads it\n",
            merged, format_time((double)(clock_ns() - began) * 1e-9, spent), folder);
    else
        fprintf(out, "\nDone: exported\n");
    QFW_TRY(to_gguf(r, mode, folder, out));
    return outputs_resolved(r, folder);
}

static qfw_status prepare(run *r, probe *p, engine **e, FILE *out) {
    QFW_TRY(run_open_model(r));
    QFW_TRY(open_probe(r, p));
    QFW_TRY(run_open_device(r));
    if (p->n) {
        QFW_TRY(plan_engine(r, p, e));
        QFW_TRY(serve_plan(r, *e, out));
    }
    return QFW_OK;
}

qfw_status export_task(run *r, FILE *out) {
    probe p = {.rows = NULL};
    engine *e = NULL;
    const int stops = r->flags.plan_only || r->flags.dry_run;
    char *folder = mem_strdup(cfg_text(run_cfg(r, SECTION_RUN), "output_dir"));
    qfw_status status = folder ? prepare(r, &p, &e, out) : QFW_E_NOMEM;
    if (status == QFW_OK && r->flags.dry_run) status = output_check(r, &export_output);
    if (status == QFW_OK && !stops) status = write_model(r, &p, e, out);
    engine_destroy(e);
    store_destroy(r->store); /* one model at a time */
    r->store = NULL;
    const int is_merged = strcmp(cfg_text(run_cfg(r, SECTION_EXPORT), "merged"), "none") != 0;
    if (status == QFW_OK && !stops && is_merged && p.n)
        status = measure(&r->flags, cfg_text(run_cfg(r, SECTION_EXPORT), "merged"), folder,
            cfg_text(run_cfg(r, SECTION_DATA), "eval"), &p, out);
    if (status == QFW_OK && !stops && is_merged && !p.n)
        fprintf(out, "  error      not measured: [data] eval names no rows\n");
    close_probe(&p);
    mem_free(folder);
    return status;
}

qfw_status export_trained(const run_flags *flags, const char *trained, int is_adapter, FILE *out) {
    enum { MORE = 5 };
    run *r = NULL;
    char *path = mem_printf("%s.path=%s", is_adapter ? "adapter" : "model", trained);
    char *to = mem_printf("run.output_dir=%s/merged", trained);
    const char **set = mem_alloc(flags->n_set + MORE, sizeof *set);
    qfw_status status = path && to && set ? QFW_OK : QFW_E_NOMEM;
    if (status == QFW_OK) {
        run_flags again = *flags;
        for (uint32_t i = 0; i < flags->n_set; i++) set[i] = flags->set[i];
        set[again.n_set++] = "run.task=export";
        set[again.n_set++] = "run.overwrite_output_dir=true";
        set[again.n_set++] = path;
        set[again.n_set++] = to;
        set[again.n_set++] = "model.init=pretrained";
        again.set = set;
        again.resume = 0;
        status = run_start(&again, &r);
    }
    if (status == QFW_OK) status = export_task(r, out);
    run_close(r);
    mem_free(set);
    mem_free(to);
    mem_free(path);
    return status;
}

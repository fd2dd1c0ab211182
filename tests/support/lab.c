/* lab.c -- see lab.h. */
#define _POSIX_C_SOURCE 200809L
#include "lab.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "files/file.h"
#include "serve/tasks.h"

#include <cmocka.h>

void lab_ok(qfw_status status) {
    if (status == QFW_OK) return;
    for (uint32_t i = 0; err_text(i); i++) print_error("%s\n", err_text(i));
    assert_int_equal(status, QFW_OK);
}

const char *lab_golden(const char *path, char buf[512]) {
    const char *source = getenv("QFW_SOURCE");
    snprintf(buf, 512, "%s/tests/golden/%s", source ? source : ".", path);
    return buf;
}

static void read_rules(lab *l) {
    const uint64_t n = json_doc_api.count(l->fixture, "/synth");
    assert_true(n < LAB_RULES);
    for (uint64_t i = 0; i < n; i++) {
        char ptr[64];
        snprintf(ptr, sizeof ptr, "/synth/%llu/match", (unsigned long long)i);
        lab_ok(json_doc_api.str(l->fixture, ptr, &l->rules[i].match));
        snprintf(ptr, sizeof ptr, "/synth/%llu/base", (unsigned long long)i);
        l->rules[i].base = lab_number(l, ptr);
        snprintf(ptr, sizeof ptr, "/synth/%llu/scale", (unsigned long long)i);
        const int named = json_doc_api.kind(l->fixture, ptr) == QFW_DOC_STRING;
        l->rules[i].scale = named ? -1 : lab_number(l, ptr);
    }
}

lab *lab_open(const char *fixture) {
    char path[512];
    lab *l = calloc(1, sizeof *l);
    assert_non_null(l);
    l->model = "phi3";
    log_set_level(QFW_LOG_ERROR);
    snprintf(l->folder, sizeof l->folder, "/tmp/qfw-lab-XXXXXX");
    assert_non_null(mkdtemp(l->folder));
    if (!fixture) return l;
    lab_ok(json_read(lab_golden(fixture, path), 16 << 20, NULL, &l->fixture));
    read_rules(l);
    return l;
}

void lab_close(lab *l) {
    run_close(l->r);
    json_destroy(l->fixture);
    lab_ok(dir_remove(l->folder));
    free(l);
}

double lab_number(const lab *l, const char *ptr) {
    double value = 0;
    lab_ok(json_doc_api.f64(l->fixture, ptr, &value));
    return value;
}

void lab_write(const lab *l, const char *name, const char *text) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", l->folder, name);
    lab_ok(file_write(path, text, strlen(text)));
}

void lab_copy(const lab *l, const char *from, const char *name) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", l->folder, name);
    lab_ok(file_copy(from, path));
}

void lab_model(const lab *l, const char *config) {
    char path[512];
    snprintf(path, sizeof path, "%s/model", l->folder);
    lab_ok(dir_make(path));
    lab_copy(l, config, "model/config.json");
    lab_write(l, "model/tokenizer.json",
        "{\"version\": \"1.0\", \"truncation\": null, \"padding\": null, \"added_tokens\": [], "
        "\"normalizer\": null, \"pre_tokenizer\": null, \"post_processor\": null, \"decoder\": "
        "null, "
        "\"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": null, "
        "\"continuing_subword_prefix\": null, \"end_of_word_suffix\": null, \"fuse_unk\": false, "
        "\"byte_fallback\": false, \"vocab\": {\"a\": 0, \"b\": 1}, \"merges\": []}}");
}

/* model/model.safetensors with every weight that the model describes, fused as it describes them.
 */
static void write_weights(const lab *l) {
    char path[512];
    st_writer *w = NULL;
    const run *r = l->r;
    snprintf(path, sizeof path, "%s/model/model.safetensors", l->folder);
    lab_ok(st_writer_create(path, &w));
    for (uint32_t i = 0; i < r->n_weights; i++) {
        const qfw_param_desc *d = &r->weights[i].desc;
        if (!r->weights[i].tied) lab_ok(st_writer_add(w, d->name, QFW_F32, d->rank, d->dim));
    }
    for (uint32_t i = 0; i < r->n_weights; i++) {
        const qfw_param_desc *d = &r->weights[i].desc;
        const int64_t n = d->dim[0] * (d->rank > 1 ? d->dim[1] : 1);
        if (r->weights[i].tied) continue;
        float *data = calloc((size_t)n, sizeof *data);
        assert_non_null(data);
        synth_tensor(l->rules, d->name, d->dim[d->rank - 1], data, n);
        lab_ok(st_writer_data(w, data, (uint64_t)n * sizeof *data));
        free(data);
    }
    lab_ok(st_writer_finish(w));
}

qfw_status lab_start(const run_flags *flags, FILE *out, run **r) {
    qfw_status status = run_start(flags, r);
    if (status == QFW_OK) status = train_prepare(*r, out);
    if (status == QFW_OK) return status;
    run_close(*r);
    *r = NULL;
    return status;
}

void lab_run(lab *l, const char *settings) {
    char *text = mem_printf("[run]\noutput_dir = %s/out\n[model]\nuse = %s\npath = %s/model\n%s",
        l->folder, l->model, l->folder, settings);
    char *path = mem_printf("%s/run.ini", l->folder);
    FILE *nowhere = fopen("/dev/null", "w");
    lab_write(l, "run.ini", text);
    const run_flags flags = {.ini_path = path};
    lab_ok(lab_start(&flags, nowhere, &l->r));
    fclose(nowhere);
    write_weights(l);
    lab_ok(train_load(l->r));
    mem_free(text);
    mem_free(path);
}

qfw_status lab_main(const lab *l, const run_flags *with, FILE *out) {
    char *path = mem_printf("%s/run.ini", l->folder);
    FILE *nowhere = out ? NULL : fopen("/dev/null", "w");
    run_flags flags = *with;
    flags.ini_path = path;
    flags.process_bytes = 16 << 20; /* what a sanitizer keeps in the same process is no matter */
    const qfw_status status = task_main(&flags, out ? out : nowhere);
    if (nowhere) fclose(nowhere);
    mem_free(path);
    return status;
}

char *lab_contents(const lab *l, const char *name, size_t *n) {
    char *path = mem_printf("%s/%s", l->folder, name), *text = NULL;
    lab_ok(file_read(path, 64 << 20, &text, n));
    mem_free(path);
    return text;
}

static void set_adapter(lab *l, store_entry *e, int zero) {
    char name[320];
    const int64_t n = qfw_tensor_count(&e->t);
    float *data = calloc((size_t)n, sizeof *data);
    assert_non_null(data);
    snprintf(name, sizeof name, "base_model.model.%s", e->name);
    if (!zero) synth_tensor(l->rules, name, e->t.dim[1], data, n);
    lab_ok(store_write(l->r->store, e, data));
    free(data);
}

void lab_adapters(lab *l, int zero_b) {
    for (uint32_t i = 0; i < l->r->n_loras; i++) {
        set_adapter(l, l->r->loras[i].a, 0);
        set_adapter(l, l->r->loras[i].b, zero_b);
    }
}

double lab_relative(const float *a, const float *b, int64_t n) {
    double worst = 0, largest = 0;
    for (int64_t i = 0; i < n; i++) {
        const double difference = fabs((double)a[i] - (double)b[i]);
        if (!(difference <= worst)) worst = difference; /* NaN counts */
        if (fabs((double)b[i]) > largest) largest = fabs((double)b[i]);
    }
    return worst / (largest > 0 ? largest : 1);
}

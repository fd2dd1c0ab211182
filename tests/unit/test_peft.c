/* test_peft.c -- slices and fused modules are one function; folders of PEFT's own and of ours. */
#include <math.h>
#include <stdlib.h>

#include "../support/synth.h"
#include "../support/temp.h"
#include "../support/testbackend.h"
#include "base/error.h"
#include "base/mem.h"
#include "export/peft.h"
#include "files/file.h"
#include "files/json.h"
#include "files/safetensors.h"

#include "../support/test.h"

/* --- slices and fused modules --- */

enum { IN = 24, OUT = 40, MAX_R = 12 };

/* scale * b a of one LoRA, added to its rows of w [OUT,IN]. */
static void add_product(const peft_slice *s, double *w) {
    for (int64_t i = 0; i < s->rows; i++)
        for (int64_t j = 0; j < IN; j++) {
            double sum = 0;
            for (int64_t k = 0; k < s->r; k++)
                sum += (double)s->b[i * s->r + k] * (double)s->a[k * IN + j];
            w[(s->row0 + i) * IN + j] += s->scale * sum;
        }
}

typedef struct filled {
    float a[MAX_R * IN], b[OUT * MAX_R];
} filled;

static peft_slice fill(filled *f, const char *name, int64_t r, int64_t row0, int64_t rows) {
    char part[64];
    snprintf(part, sizeof part, "%s.a", name);
    synth_fill(part, 0, 1, f->a, r * IN);
    snprintf(part, sizeof part, "%s.b", name);
    synth_fill(part, 0, 1, f->b, rows * r);
    return (peft_slice){f->a, f->b, r, row0, rows, 2.0};
}

static void fused_slices_are_the_same_function(void **state) {
    (void)state;
    static filled q, k, v;
    static float a[MAX_R * IN], b[OUT * MAX_R];
    static double apart[OUT * IN], fused[OUT * IN];
    /* Rows 8..15 have no LoRA; ranks differ. */
    const peft_slice slices[] = {
        fill(&q, "q", 4, 0, 8), fill(&k, "k", 2, 16, 4), fill(&v, "v", 6, 20, 20)};
    for (int i = 0; i < 3; i++) add_product(&slices[i], apart);
    memset(b, 0x7f, sizeof b);
    peft_fuse(slices, 3, IN, OUT, 2.0, a, b);
    const peft_slice whole = {a, b, 12, 0, OUT, 2.0};
    add_product(&whole, fused);
    assert_memory_equal(fused, apart, sizeof fused); /* exactly: the zeros add nothing */
    assert_true(fabs(apart[0]) > 0.01);
    for (int i = 8 * IN; i < 16 * IN; i++) assert_true(fused[i] == 0);
    /* k's block: rows 16..19, columns 4..5. */
    assert_memory_equal(&b[16 * 12 + 4], k.b, 2 * sizeof *b);
    assert_true(b[16 * 12 + 3] == 0 && b[16 * 12 + 6] == 0);
    assert_memory_equal(&a[4 * IN], k.a, 2 * IN * sizeof *a);
}

static void unequal_scales_go_into_b(void **state) {
    (void)state;
    static filled gate, up;
    static float a[MAX_R * IN], b[OUT * MAX_R];
    static double apart[OUT * IN], fused[OUT * IN];
    peft_slice slices[] = {fill(&gate, "gate", 4, 0, 20), fill(&up, "up", 4, 20, 20)};
    slices[1].scale = 0.5;
    for (int i = 0; i < 2; i++) add_product(&slices[i], apart);
    peft_fuse(slices, 2, IN, OUT, 2.0, a, b);
    const peft_slice whole = {a, b, 8, 0, OUT, 2.0};
    add_product(&whole, fused);
    assert_memory_equal(fused, apart, sizeof fused); /* a quarter is exact */
    slices[1].scale = 0.3;
    memset(apart, 0, sizeof apart);
    memset(fused, 0, sizeof fused);
    for (int i = 0; i < 2; i++) add_product(&slices[i], apart);
    peft_fuse(slices, 2, IN, OUT, 2.0, a, b);
    add_product(&whole, fused);
    for (int i = 0; i < OUT * IN; i++)
        assert_true(fabs(fused[i] - apart[i]) <= 1e-6 * (1 + fabs(apart[i])));
}

static void split_parts_are_the_same_function(void **state) {
    (void)state;
    static filled f;
    static double whole[OUT * IN], parts[OUT * IN];
    const peft_slice all = fill(&f, "all", 5, 0, OUT);
    const int64_t border[] = {0, 8, 20, OUT};
    add_product(&all, whole);
    for (int i = 0; i < 3; i++) {
        const peft_slice part = peft_split(&all, border[i], border[i + 1] - border[i]);
        assert_int_equal(part.r, 5);
        assert_ptr_equal(part.a, all.a);
        add_product(&part, parts);
    }
    assert_memory_equal(parts, whole, sizeof parts);
    const peft_slice tail = peft_split(&all, 8, 32), end = peft_split(&tail, 20, 20);
    assert_ptr_equal(end.b, all.b + 20 * 5); /* a part can be split on */
}

/* --- our folders --- */

enum { LAYERS = 2, WIDTH = 16, QKV = 32, MAX_LORAS = 16 };

typedef struct bench {
    test_device d;
    store *s;
    lora loras[MAX_LORAS];
    char names[MAX_LORAS][3][64];
    char params[LAYERS * 2][64];
    uint32_t n;
} bench;

/* Two layers with qkv_proj [32,16] and o_proj [16,16]. */
static void bench_open(bench *t) {
    static const char *const leaf[] = {"qkv_proj", "o_proj"};
    memset(t, 0, sizeof *t);
    test_device_storage(&t->d);
    assert_int_equal(store_create(&t->d.dev, &t->s), QFW_OK);
    for (int i = 0; i < LAYERS * 2; i++) {
        const int64_t dim[] = {i % 2 ? WIDTH : QKV, WIDTH};
        store_entry *e;
        snprintf(t->params[i], sizeof t->params[i], "model.layers.%d.self_attn.%s.weight", i / 2,
            leaf[i % 2]);
        assert_int_equal(
            store_add(t->s, t->params[i], QFW_MEM_FROZEN, QFW_F32, 2, dim, 0, 0, &e), QFW_OK);
    }
}

static void bench_lora(
    bench *t, int layer, const char *name, int64_t r, double scale, int64_t row0, int64_t rows) {
    lora *l = &t->loras[t->n];
    char(*names)[64] = t->names[t->n++];
    const int64_t a[] = {r, WIDTH}, b[] = {rows, r};
    snprintf(names[0], sizeof names[0], "model.layers.%d.self_attn.%s", layer, name);
    snprintf(names[1], sizeof names[1], "%.40s.lora_A", names[0]);
    snprintf(names[2], sizeof names[2], "%.40s.lora_B", names[0]);
    *l = (lora){.param = t->params[2 * layer + (name[0] == 'o')],
        .module = names[0],
        .row0 = row0,
        .rows = rows,
        .scale = (float)scale,
        .which = QFW_ADAPTER_POLICY};
    assert_int_equal(store_add(t->s, names[1], QFW_MEM_RUN, QFW_F32, 2, a, 0, 0, &l->a), QFW_OK);
    assert_int_equal(store_add(t->s, names[2], QFW_MEM_RUN, QFW_F32, 2, b, 0, 0, &l->b), QFW_OK);
}

static void write_entry(store *s, store_entry *e, const char *name) {
    float data[QKV * WIDTH];
    synth_fill(name, 0, 1, data, qfw_tensor_count(&e->t));
    assert_int_equal(store_write(s, e, data), QFW_OK);
}

static void bench_fill(bench *t) {
    assert_int_equal(store_alloc(t->s), QFW_OK);
    for (uint32_t i = 0; i < t->n; i++) {
        write_entry(t->s, t->loras[i].a, t->names[i][1]);
        write_entry(t->s, t->loras[i].b, t->names[i][2]);
    }
}

/* The whole update of one weight, from the LoRAs and from the written module. */
static void assert_same_function(bench *t, peft *p, const char *param) {
    static float a[MAX_R * WIDTH], b[QKV * MAX_R];
    double apart[QKV * WIDTH] = {0}, fused[QKV * WIDTH] = {0};
    for (uint32_t i = 0; i < t->n; i++) {
        const lora *l = &t->loras[i];
        const int64_t r = l->a->t.dim[0];
        if (strcmp(l->param, param)) continue;
        assert_int_equal(store_read(t->s, l->a, a), QFW_OK);
        assert_int_equal(store_read(t->s, l->b, b), QFW_OK);
        for (int64_t x = 0; x < l->rows * WIDTH; x++)
            for (int64_t k = 0; k < r; k++)
                apart[l->row0 * WIDTH + x] += (double)l->scale * (double)b[x / WIDTH * r + k] *
                                              (double)a[k * WIDTH + x % WIDTH];
    }
    for (uint32_t i = 0; i < peft_count(p); i++) {
        const peft_module *m = peft_at(p, i);
        if (strncmp(m->name, param, strlen(m->name))) continue;
        assert_int_equal(m->in, WIDTH);
        assert_int_equal(peft_read(p, i, a, b), QFW_OK);
        for (int64_t x = 0; x < m->out * WIDTH; x++)
            for (int64_t k = 0; k < m->r; k++)
                fused[x] +=
                    m->scale * (double)b[x / WIDTH * m->r + k] * (double)a[k * WIDTH + x % WIDTH];
    }
    assert_true(fabs(apart[0]) > 1e-3);
    for (int x = 0; x < QKV * WIDTH; x++) assert_true(fabs(fused[x] - apart[x]) < 1e-6);
}

static peft *write_and_open(bench *t, const peft_info *info) {
    peft *p = NULL;
    bench_fill(t);
    assert_int_equal(peft_write(temp_folder(), info, t->s, t->loras, t->n), QFW_OK);
    assert_int_equal(peft_open(temp_folder(), &p), QFW_OK);
    for (int i = 0; i < LAYERS * 2; i++) assert_same_function(t, p, t->params[i]);
    return p;
}

static void assert_config(const char *const pairs[][2]) {
    qfw_doc *d = NULL;
    char found[128];
    assert_int_equal(json_read(temp_path("adapter_config.json"), 1 << 20, NULL, &d), QFW_OK);
    for (; **pairs; pairs++) {
        int64_t i;
        double f;
        const char *s;
        switch (json_doc_api.kind(d, (*pairs)[0])) {
        case QFW_DOC_INT:
        case QFW_DOC_BOOL:
            assert_int_equal(json_doc_api.i64(d, (*pairs)[0], &i), QFW_OK);
            snprintf(found, sizeof found, "%lld", (long long)i);
            break;
        case QFW_DOC_REAL:
            assert_int_equal(json_doc_api.f64(d, (*pairs)[0], &f), QFW_OK);
            snprintf(found, sizeof found, "%.17g", f);
            break;
        case QFW_DOC_STRING:
            assert_int_equal(json_doc_api.str(d, (*pairs)[0], &s), QFW_OK);
            snprintf(found, sizeof found, "%s", s);
            break;
        default:
            snprintf(found, sizeof found, "kind %u of %d", json_doc_api.kind(d, (*pairs)[0]),
                (int)json_doc_api.count(d, (*pairs)[0]));
        }
        assert_string_equal(found, (*pairs)[1]);
    }
    json_destroy(d);
}

static void writes_slices_on_the_fused_module(void **state) {
    (void)state;
    bench t;
    bench_open(&t);
    for (int i = 0; i < LAYERS; i++) {
        bench_lora(&t, i, "q_proj", 4, 2, 0, 16);
        bench_lora(&t, i, "k_proj", 4, 2, 16, 8);
        bench_lora(&t, i, "v_proj", 4, 2, 24, 8);
        bench_lora(&t, i, "o_proj", 4, 2, 0, WIDTH);
    }
    const peft_info info = {"models/phi", 4, 8, 0.05, 0};
    peft *p = write_and_open(&t, &info);
    assert_int_equal(peft_count(p), 4);
    assert_string_equal(peft_at(p, 1)->name, "model.layers.0.self_attn.qkv_proj");
    assert_int_equal(peft_at(p, 1)->r, 12);
    assert_int_equal(peft_at(p, 1)->out, QKV);
    assert_true(peft_at(p, 1)->scale == 2 && peft_at(p, 0)->scale == 2);
    assert_true(peft_about(p).lora_dropout == 0.05);
    static const char *const config[][2] = {{"/r", "4"}, {"/lora_alpha", "8"},
        {"/base_model_name_or_path", "models/phi"}, {"/rank_pattern", "kind 7 of 1"},
        {"/rank_pattern/qkv_proj", "12"}, {"/alpha_pattern/qkv_proj", "24"},
        {"/alpha_pattern", "kind 7 of 1"}, {"/target_modules", "kind 6 of 2"},
        {"/target_modules/0", "qkv_proj"}, {"/target_modules/1", "o_proj"}, {"/use_rslora", "0"},
        {"/peft_type", "LORA"}, {"/task_type", "CAUSAL_LM"}, {"/modules_to_save", "kind 1 of 0"},
        {"", "kind 7 of 24"}, {NULL}};
    assert_config(config);
    peft_close(p);
    store_destroy(t.s);
}

static void writes_rslora(void **state) {
    (void)state;
    bench t;
    bench_open(&t);
    for (int i = 0; i < LAYERS; i++) {
        bench_lora(&t, i, "q_proj", 4, 4, 0, 16); /* 8 / sqrt(4) */
        bench_lora(&t, i, "k_proj", 4, 4, 16, 8);
        bench_lora(&t, i, "v_proj", 4, 4, 24, 8);
        bench_lora(&t, i, "o_proj", 4, 4, 0, WIDTH);
    }
    const peft_info info = {"b", 4, 8, 0, 1};
    peft *p = write_and_open(&t, &info);
    /* 8 * sqrt(3), so that alpha / sqrt(12) is 4 */
    static const char *const config[][2] = {{"/alpha_pattern/qkv_proj", "13.856406460551018"},
        {"/rank_pattern/qkv_proj", "12"}, {"/use_rslora", "1"}, {NULL}};
    assert_config(config);
    assert_true(fabs(peft_at(p, 1)->scale - 4) < 1e-12);
    peft_close(p);
    store_destroy(t.s);
}

/* alpha / r that a float cannot hold: B is still written with the bits that were trained. */
static void keeps_the_bits_of_b(void **state) {
    (void)state;
    static const double alphas[] = {10, 10.1, 7, 0.7};
    for (int i = 0; i < 4; i++) {
        bench t;
        float a[3 * WIDTH], b[QKV * 3], trained[QKV * 3];
        bench_open(&t);
        bench_lora(&t, 0, "qkv_proj", 3, alphas[i] / 3, 0, QKV);
        const peft_info info = {"b", 3, alphas[i], 0, 0};
        bench_fill(&t);
        peft *p = NULL;
        assert_int_equal(peft_write(temp_folder(), &info, t.s, t.loras, 1), QFW_OK);
        assert_int_equal(peft_open(temp_folder(), &p), QFW_OK);
        assert_true(peft_at(p, 0)->scale == alphas[i] / 3);
        assert_int_equal(peft_read(p, 0, a, b), QFW_OK);
        assert_int_equal(store_read(t.s, t.loras[0].b, trained), QFW_OK);
        assert_memory_equal(b, trained, sizeof b);
        peft_close(p);
        store_destroy(t.s);
    }
}

/* Ranks and scales that differ inside a weight and between layers; a layer without an adapter. */
static void names_modules_that_differ(void **state) {
    (void)state;
    bench t;
    bench_open(&t);
    bench_lora(&t, 0, "q_proj", 4, 2, 0, 16);
    bench_lora(&t, 0, "v_proj", 2, 0.5, 24, 8);
    bench_lora(&t, 1, "qkv_proj", 4, 2, 0, QKV);
    bench_lora(&t, 1, "o_proj", 4, 1.0 / 3, 0, WIDTH);
    bench_lora(&t, 0, "o_proj", 4, 2, 0, WIDTH);
    t.loras[4].which = QFW_ADAPTER_REFERENCE; /* not written */
    const peft_info info = {"b", 4, 8, 0, 0};
    bench_fill(&t);
    peft *p = NULL;
    assert_int_equal(peft_write(temp_folder(), &info, t.s, t.loras, t.n), QFW_OK);
    assert_int_equal(peft_open(temp_folder(), &p), QFW_OK);
    t.n--;
    assert_int_equal(peft_count(p), 3);
    assert_same_function(&t, p, t.params[0]);
    assert_same_function(&t, p, t.params[2]);
    assert_same_function(&t, p, t.params[3]);
    static const char *const config[][2] = {
        {"/rank_pattern/model.layers.0.self_attn.qkv_proj", "6"}, {"/rank_pattern", "kind 7 of 1"},
        {"/alpha_pattern/model.layers.0.self_attn.qkv_proj", "12"},
        {"/alpha_pattern", "kind 7 of 2"}, {"/target_modules", "kind 6 of 3"},
        {"/target_modules/1", "model.layers.1.self_attn.qkv_proj"},
        {"/target_modules/2", "model.layers.1.self_attn.o_proj"}, {NULL}};
    assert_config(config);
    peft_close(p);
    store_destroy(t.s);
}

static void survives_want_of_memory(void **state) {
    (void)state;
    bench t;
    bench_open(&t);
    bench_lora(&t, 0, "q_proj", 4, 2, 0, 16);
    bench_lora(&t, 0, "k_proj", 4, 2, 16, 8);
    bench_fill(&t);
    const peft_info info = {"b", 4, 8, 0, 0};
    for (uint64_t k = 1;; k++) {
        peft *p = NULL;
        mem_fail_at(k);
        qfw_status status = peft_write(temp_folder(), &info, t.s, t.loras, t.n);
        if (status == QFW_OK) status = peft_open(temp_folder(), &p);
        mem_fail_at(0);
        peft_close(p);
        if (status == QFW_OK) break;
        assert_null(p);
        assert_error(status, "E_MEM", EXIT_MEMORY, ".");
        assert_true(k < 2000);
    }
    store_destroy(t.s);
}

/* --- PEFT's folders --- */

static void reads_what_peft_wrote(void **state) {
    (void)state;
    static const struct {
        const char *folder, *first, *second;
        int64_t r_first, r_second, in_first;
        double scale_first, scale_second;
    } cases[] = {
        {"plain", "self_attn.o_proj", "self_attn.qkv_proj", 8, 8, 128, 2, 2},
        {"pattern", "self_attn.o_proj", "self_attn.qkv_proj", 4, 12, 128, 2, 2},
        {"rslora_bf16", "mlp.down_proj", "self_attn.o_proj", 4, 4, 256, 4, 4},
    };
    static float a[12 * 256], b[256 * 12], wanted[12 * 256];
    for (size_t i = 0; i < 3; i++) {
        char name[128];
        peft *p = NULL;
        snprintf(name, sizeof name, "tests/golden/peft_io/%s", cases[i].folder);
        assert_int_equal(peft_open(name, &p), QFW_OK);
        assert_int_equal(peft_count(p), 4);
        for (uint32_t m = 0; m < 4; m++) {
            const peft_module *module = peft_at(p, m);
            snprintf(name, sizeof name, "model.layers.%u.%s", m / 2,
                m % 2 ? cases[i].second : cases[i].first);
            assert_string_equal(module->name, name);
            assert_int_equal(module->r, m % 2 ? cases[i].r_second : cases[i].r_first);
            assert_int_equal(module->in, m % 2 ? 128 : cases[i].in_first);
            assert_int_equal(module->out, strstr(name, "qkv") ? 256 : 128);
            assert_true(module->scale == (m % 2 ? cases[i].scale_second : cases[i].scale_first));
            assert_int_equal(peft_read(p, m, a, b), QFW_OK);
            snprintf(name, sizeof name, "base_model.model.%s.lora_A.weight", module->name);
            synth_fill(name, 0, 1 / sqrt((double)module->in), wanted, module->r * module->in);
            for (int64_t k = 0; k < module->r * module->in; k++)
                assert_true(fabsf(a[k] - wanted[k]) <= (i == 2 ? 1e-2f * fabsf(wanted[k]) : 0));
            snprintf(name, sizeof name, "base_model.model.%s.lora_B.weight", module->name);
            synth_fill(name, 0, 0.05, wanted, module->r * module->out);
            for (int64_t k = 0; k < module->r * module->out; k++)
                assert_true(fabsf(b[k] - wanted[k]) <= (i == 2 ? 1e-2f * fabsf(wanted[k]) : 0));
        }
        peft_close(p);
    }
}

typedef struct part {
    const char *name;
    int64_t dim[2];
} part;

static void make_folder(const char *config, const part *parts) {
    st_writer *w = NULL;
    static const float zeros[64];
    temp_text("adapter_config.json", config);
    assert_int_equal(st_writer_create(temp_path("adapter_model.safetensors"), &w), QFW_OK);
    for (const part *x = parts; x->name; x++)
        assert_int_equal(st_writer_add(w, x->name, QFW_F32, 2, x->dim), QFW_OK);
    for (const part *x = parts; x->name; x++)
        assert_int_equal(
            st_writer_data(w, zeros, (uint64_t)(x->dim[0] * x->dim[1]) * sizeof *zeros), QFW_OK);
    assert_int_equal(st_writer_finish(w), QFW_OK);
}

static qfw_status open_folder(void) {
    peft *p = NULL;
    const qfw_status status = peft_open(temp_folder(), &p);
    if (status != QFW_OK) assert_null(p);
    peft_close(p);
    return status;
}

#define KEY(module, which) "base_model.model." module ".lora_" which ".weight"
static const part two_parts[] = {{KEY("m", "A"), {8, 2}}, {KEY("m", "B"), {3, 8}}, {NULL, {0, 0}}};

static void takes_defaults_and_raw_names(void **state) {
    (void)state;
    static const part raw[] = {{"base_model.model.m.lora_A.default.weight", {8, 2}},
        {"base_model.model.m.lora_B.default.weight", {3, 8}}, {NULL, {0, 0}}};
    peft *p = NULL;
    make_folder("{}", raw);
    assert_int_equal(peft_open(temp_folder(), &p), QFW_OK);
    assert_string_equal(peft_at(p, 0)->name, "m");
    assert_int_equal(peft_at(p, 0)->r, 8);
    assert_true(peft_at(p, 0)->scale == 1);
    peft_close(p);
}

/* Patterns match a whole name, or its end after a dot; the first that matches counts. */
static void looks_up_patterns_as_peft_does(void **state) {
    (void)state;
    static const part parts[] = {{KEY("x.qkv", "A"), {4, 2}}, {KEY("x.qkv", "B"), {3, 4}},
        {KEY("y.qkv", "A"), {5, 2}}, {KEY("y.qkv", "B"), {3, 5}}, {KEY("y.xqkv", "A"), {8, 2}},
        {KEY("y.xqkv", "B"), {3, 8}}, {NULL, {0, 0}}};
    peft *p = NULL;
    make_folder(
        "{\"rank_pattern\":{\"y.qkv\":5,\"qkv\":4},\"alpha_pattern\":{\"qkv\":20,\"y.qkv\":1}}",
        parts);
    assert_int_equal(peft_open(temp_folder(), &p), QFW_OK);
    assert_true(peft_at(p, 0)->scale == 5);
    assert_true(peft_at(p, 1)->scale == 4);
    assert_true(peft_at(p, 2)->scale == 1);
    peft_close(p);
}

static void refuses_what_is_not_plain_lora(void **state) {
    (void)state;
    static const struct {
        const char *config, *name, *regex;
    } cases[] = {
        {"{\"peft_type\":\"IA3\"}", "E_CFG_UNSUPPORTED", "/peft_type: "},
        {"{\"use_dora\":true}", "E_CFG_UNSUPPORTED", "/use_dora: "},
        {"{\"bias\":\"all\"}", "E_CFG_UNSUPPORTED", "/bias: "},
        {"{\"fan_in_fan_out\":true}", "E_CFG_UNSUPPORTED", "/fan_in_fan_out: "},
        {"{\"modules_to_save\":[\"lm_head\"]}", "E_CFG_UNSUPPORTED", "/modules_to_save: "},
        {"{\"trainable_token_indices\":[1]}", "E_CFG_UNSUPPORTED", "/trainable_token_indices: "},
        {"{\"init_lora_weights\":\"pissa\"}", "E_CFG_UNSUPPORTED", "/init_lora_weights: "},
        {"{\"rank_pattern\":{\".*q\":4}}", "E_CFG_UNSUPPORTED", "/rank_pattern/.*regular"},
        {"{\"rank_pattern\":[4]}", "E_CFG_TYPE", "/rank_pattern: "},
        {"{\"rank_pattern\":{\"m\":\"4\"}}", "E_JSON_TYPE", "/rank_pattern/m: "},
        {"{\"r\":0}", "E_CFG_RANGE", "/r: 0"},
        {"{\"lora_alpha\":-1}", "E_CFG_RANGE", "/lora_alpha: -1"},
        {"{\"lora_dropout\":1.5}", "E_CFG_RANGE", "/lora_dropout: 1.5"},
        {"{\"use_rslora\":\"yes\"}", "E_JSON_TYPE", "/use_rslora: .*\"yes\""},
        {"{\"r\":8,\"r\":8}", "E_JSON", "key \"r\" stands twice"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char regex[128];
        make_folder(cases[i].config, two_parts);
        snprintf(regex, sizeof regex, "adapter_config.json:.*%s", cases[i].regex);
        assert_error(open_folder(), cases[i].name, EXIT_DATA, regex);
    }
    /* Said, but off. */
    make_folder(
        "{\"use_dora\":false,\"bias\":\"none\",\"modules_to_save\":null,\"loftq_config\":{},"
        "\"init_lora_weights\":\"gaussian\",\"target_parameters\":[],\"rank_pattern\":{}}",
        two_parts);
    assert_int_equal(open_folder(), QFW_OK);
}

static void lists_all_that_is_wrong_with_the_tensors(void **state) {
    (void)state;
    static const part parts[] = {{KEY("a", "A"), {8, 2}}, {KEY("b", "B"), {3, 8}},
        {KEY("c", "A"), {4, 2}}, {KEY("c", "B"), {3, 4}},
        {"base_model.layers.0.x.lora_A.weight", {8, 2}},
        {"base_model.model.lm_head.weight", {8, 2}}, {NULL, {0, 0}}};
    make_folder("{}", parts);
    assert_int_equal(open_folder(), QFW_E_DATA);
    assert_int_equal(err_count(), 5);
    assert_non_null(strstr(err_text(0), "[E_MODEL_EXTRA]"));
    assert_non_null(strstr(err_text(0), "\"base_model.layers.0.x.lora_A.weight\": no LoRA tensor"));
    assert_non_null(strstr(err_text(1), "\"base_model.model.lm_head.weight\": no LoRA tensor"));
    assert_non_null(strstr(err_text(2), "[E_MODEL_MISSING]"));
    assert_non_null(strstr(err_text(2), "module \"a\": lora_B is missing"));
    assert_non_null(strstr(err_text(3), "module \"b\": lora_A is missing"));
    assert_non_null(strstr(err_text(4), "[E_MODEL_SHAPE]"));
    assert_error(err_status(), "E_MODEL_EXTRA", EXIT_DATA, "adapter_model.safetensors: tensor");
    static const part twice[] = {{KEY("m", "A"), {8, 2}}, {KEY("m", "B"), {3, 8}},
        {"base_model.model.m.lora_A.default.weight", {8, 2}}, {NULL, {0, 0}}};
    make_folder("{}", twice);
    assert_error(open_folder(), "E_MODEL_EXTRA", EXIT_DATA, "m.lora_A.weight\": the same as");
    static const part none[] = {{NULL, {0, 0}}};
    make_folder("{}", none);
    assert_error(open_folder(), "E_MODEL_MISSING", EXIT_DATA, "no tensors");
    make_folder("{\"rank_pattern\":{\"m\":4}}", two_parts);
    assert_error(open_folder(), "E_MODEL_SHAPE", EXIT_DATA,
        "\"m\": lora_A is \\[8, 2\\], lora_B is \\[3, 8\\], wanted \\[4, in\\] and \\[out, 4\\]");
    static const part uneven[] = {{KEY("m", "A"), {8, 2}}, {KEY("m", "B"), {3, 4}}, {NULL, {0, 0}}};
    make_folder("{}", uneven);
    assert_error(open_folder(), "E_MODEL_SHAPE", EXIT_DATA, "lora_B is \\[3, 4\\], wanted");
    assert_int_equal(dir_remove(temp_path("adapter_config.json")), QFW_OK);
    assert_error(open_folder(), "E_NOINPUT", EXIT_NOINPUT, "adapter_config.json: No such file");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fused_slices_are_the_same_function),
        cmocka_unit_test(unequal_scales_go_into_b),
        cmocka_unit_test(split_parts_are_the_same_function),
        cmocka_unit_test(writes_slices_on_the_fused_module),
        cmocka_unit_test(writes_rslora),
        cmocka_unit_test(keeps_the_bits_of_b),
        cmocka_unit_test(names_modules_that_differ),
        cmocka_unit_test(survives_want_of_memory),
        cmocka_unit_test(reads_what_peft_wrote),
        cmocka_unit_test(takes_defaults_and_raw_names),
        cmocka_unit_test(looks_up_patterns_as_peft_does),
        cmocka_unit_test(refuses_what_is_not_plain_lora),
        cmocka_unit_test(lists_all_that_is_wrong_with_the_tensors),
    };
    return cmocka_run_group_tests(tests, temp_make, temp_drop);
}

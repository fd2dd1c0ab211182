/* test_full.c -- whole models: names and rows of the sources, shards, and the files beside. */
#include "../support/synth.h"
#include "../support/temp.h"
#include "../support/testbackend.h"
#include "base/error.h"
#include "base/mem.h"
#include "export/full.h"
#include "files/file.h"
#include "files/safetensors.h"

#include "../support/test.h"

enum { WEIGHTS = 3 };

/* embed [6,4]; fused [10,4], written as two; norm [4]. */
static const qfw_source embed_source[] = {{"embed", 0, 6, 0, 0}};
static const qfw_source fused_source[] = {
    {"fused", 0, 10, 1, 0}, {"upper", 0, 7, 0, 0}, {"lower", 7, 3, 0, 0}};
static const qfw_source norm_source[] = {{"norm", 0, 4, 0, 0}};
static const qfw_param_desc descs[WEIGHTS] = {
    {.size = sizeof(qfw_param_desc),
        .rank = 2,
        .dim = {6, 4, 1, 1},
        .name = "embed",
        .sources = embed_source,
        .n_sources = 1},
    {.size = sizeof(qfw_param_desc),
        .rank = 2,
        .dim = {10, 4, 1, 1},
        .name = "fused",
        .sources = fused_source,
        .n_sources = 3},
    {.size = sizeof(qfw_param_desc),
        .rank = 1,
        .dim = {4, 1, 1, 1},
        .name = "norm",
        .sources = norm_source,
        .n_sources = 1},
};

typedef struct bench {
    test_device d;
    store *s;
    full_weight weights[WEIGHTS];
    float values[WEIGHTS][40];
} bench;

static void bench_open(bench *t) {
    store_entry *e[WEIGHTS];
    memset(t, 0, sizeof *t);
    test_device_storage(&t->d);
    assert_int_equal(store_create(&t->d.dev, &t->s), QFW_OK);
    for (int i = 0; i < WEIGHTS; i++) {
        assert_int_equal(store_add(t->s, descs[i].name, QFW_MEM_RUN, QFW_F32, descs[i].rank,
                             descs[i].dim, 0, 0, &e[i]),
            QFW_OK);
        t->weights[i] = (full_weight){&descs[i], e[i], 0, 0};
    }
    assert_int_equal(store_alloc(t->s), QFW_OK);
    for (int i = 0; i < WEIGHTS; i++) {
        synth_fill(descs[i].name, 0, 1, t->values[i], 40);
        assert_int_equal(store_write(t->s, e[i], t->values[i]), QFW_OK);
    }
}

static void assert_tensor(
    st_file *f, const char *name, int64_t rows, const float *values, const char *file) {
    const st_tensor *t = st_find(f, name);
    float found[40];
    assert_non_null(t);
    assert_int_equal(t->dtype, QFW_F32);
    assert_int_equal(t->dim[0], rows);
    assert_int_equal(t->rank, t->dim[1] ? 2 : 1);
    assert_non_null(strstr(t->file, file));
    assert_int_equal(st_read_f32(f, t, 0, rows, found), QFW_OK);
    assert_memory_equal(found, values, t->bytes);
}

static void assert_model(const bench *t, const char *first, const char *second, const char *third) {
    st_file *f = NULL;
    assert_int_equal(st_open_folder(temp_folder(), &f), QFW_OK);
    assert_int_equal(st_count(f), 4);
    assert_string_equal(st_metadata(f, "format"), "pt");
    assert_tensor(f, "embed", 6, t->values[0], first);
    assert_tensor(f, "upper", 7, t->values[1], second);
    assert_tensor(f, "lower", 3, t->values[1] + 28, second);
    assert_tensor(f, "norm", 4, t->values[2], third);
    st_close(f);
}

static void writes_one_file(void **state) {
    (void)state;
    bench t;
    bench_open(&t);
    assert_int_equal(full_write(temp_folder(), t.s, t.weights, WEIGHTS, FULL_SHARD_BYTES), QFW_OK);
    assert_model(&t, "/model.safetensors", "/model.safetensors", "/model.safetensors");
    store_destroy(t.s);
}

/* 96, 160 and 16 bytes: shards hold what fits, one that is too large stands alone; what an earlier
 * write left is not in the way, whichever form it had. */
static void writes_shards(void **state) {
    (void)state;
    bench t;
    bench_open(&t);
    static const char two_of_two[] = "/model-00002-of-00002.safetensors";
    assert_int_equal(full_write(temp_folder(), t.s, t.weights, WEIGHTS, 176), QFW_OK);
    assert_false(file_exists(temp_path("model.safetensors")));
    assert_model(&t, "/model-00001-of-00002.safetensors", two_of_two, two_of_two);
    char *index = NULL;
    size_t n = 0;
    assert_int_equal(
        file_read(temp_path("model.safetensors.index.json"), 4096, &index, &n), QFW_OK);
    assert_string_equal(index,
        "{\n  \"metadata\": {\n    \"total_size\": 272\n  },\n  \"weight_map\": {\n"
        "    \"embed\": \"model-00001-of-00002.safetensors\",\n"
        "    \"upper\": \"model-00002-of-00002.safetensors\",\n"
        "    \"lower\": \"model-00002-of-00002.safetensors\",\n"
        "    \"norm\": \"model-00002-of-00002.safetensors\"\n  }\n}");
    mem_free(index);
    assert_int_equal(full_write(temp_folder(), t.s, t.weights, WEIGHTS, 10), QFW_OK);
    assert_model(&t, "/model-00001-of-00003.safetensors", "/model-00002-of-00003.safetensors",
        "/model-00003-of-00003.safetensors");
    assert_int_equal(full_write(temp_folder(), t.s, t.weights, WEIGHTS, 272), QFW_OK);
    assert_false(file_exists(temp_path("model.safetensors.index.json")));
    assert_model(&t, "/model.safetensors", "/model.safetensors", "/model.safetensors");
    store_destroy(t.s);
}

static void refuses_packed_weights(void **state) {
    (void)state;
    test_device d;
    store *s = NULL;
    store_entry *e = NULL;
    const int64_t dim[] = {64, 64};
    test_device_storage(&d);
    assert_int_equal(store_create(&d.dev, &s), QFW_OK);
    assert_int_equal(store_add(s, "embed", QFW_MEM_FROZEN, QFW_NF4, 2, dim, 64, 0, &e), QFW_OK);
    const full_weight w = {&descs[0], e, 0, 0};
    const qfw_status status = full_write(temp_folder(), s, &w, 1, 1 << 20);
    assert_int_equal(status, QFW_E_UNSUPPORTED);
    assert_error(status, "E_UNSUPPORTED", EXIT_INTERNAL, "embed: .* nf4 cannot be written");
    store_destroy(s);
}

static void copies_the_files_beside(void **state) {
    (void)state;
    static const char *const names[] = {"config.json", "tokenizer.json", "chat_template.jinja"};
    char path[64], *text = NULL;
    size_t n = 0;
    assert_int_equal(dir_make(temp_path("from")), QFW_OK);
    assert_int_equal(dir_make(temp_path("to")), QFW_OK);
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "from/%s", names[i]);
        temp_text(path, names[i]);
    }
    temp_text("from/pytorch_model.bin", "x");
    assert_int_equal(full_copy_files(temp_path("from"), temp_path("to"), 0), QFW_OK);
    assert_false(file_exists(temp_path("to/config.json")));
    assert_int_equal(full_copy_files(temp_path("from"), temp_path("to"), 1), QFW_OK);
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "to/%s", names[i]);
        assert_int_equal(file_read(temp_path(path), 99, &text, &n), QFW_OK);
        assert_string_equal(text, names[i]);
        mem_free(text);
    }
    assert_false(file_exists(temp_path("to/pytorch_model.bin")));
    assert_false(file_exists(temp_path("to/generation_config.json")));
}

static void survives_want_of_memory(void **state) {
    (void)state;
    bench t;
    bench_open(&t);
    for (uint64_t k = 1;; k++) {
        mem_fail_at(k);
        const qfw_status status = full_write(temp_folder(), t.s, t.weights, WEIGHTS, 10);
        mem_fail_at(0);
        if (status == QFW_OK) break;
        assert_error(status, "E_MEM", EXIT_MEMORY, ".");
        assert_true(k < 2000);
    }
    store_destroy(t.s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_one_file),
        cmocka_unit_test(writes_shards),
        cmocka_unit_test(refuses_packed_weights),
        cmocka_unit_test(copies_the_files_beside),
        cmocka_unit_test(survives_want_of_memory),
    };
    return cmocka_run_group_tests(tests, temp_make, temp_drop);
}

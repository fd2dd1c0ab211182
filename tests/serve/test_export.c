/* test_export.c -- base and adapter merged: by the command after a training run and by the task
 * export; the sums, the files, the error that is printed, and what is refused.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../support/command.h"
#include "../support/temp.h"
#include "base/error.h"
#include "base/mem.h"
#include "export/peft.h"
#include "files/file.h"
#include "files/safetensors.h"

#include "../support/test.h"

static command c;

static const char base_keys[] =
    "[run]\noutput_dir = base\nthreads = 1\n[model]\npath = model\ninit = random\n"
    "[adapter]\nuse = none\n[data]\ntrain = rows.jsonl\nmax_length = 64\n"
    "[trainer]\nmax_steps = 3\nper_device_train_batch_size = 4\nlearning_rate = 2e-3\n"
    "save_strategy = no\n";

static const char adapter_keys[] =
    "[run]\noutput_dir = ad\nthreads = 1\n[model]\npath = base\nload_in_4bit = true\n"
    "bnb_4bit_quant_type = nf4\nbnb_4bit_use_double_quant = true\n"
    "[adapter]\nr = 8\nlora_alpha = 16\ntarget_modules = q_proj, v_proj, down_proj\n"
    "[data]\ntrain = rows.jsonl\neval = rows.jsonl\nmax_length = 64\n"
    "[trainer]\nmax_steps = 6\nper_device_train_batch_size = 4\nlearning_rate = 1e-2\n"
    "save_strategy = no\n[export]\nmerged = dequant\n";

static const char export_keys[] =
    "[run]\ntask = export\noutput_dir = m16\nthreads = 1\n[model]\npath = base\n"
    "load_in_4bit = true\nbnb_4bit_quant_type = nf4\n[adapter]\npath = ad\n"
    "[data]\neval = rows.jsonl\nmax_length = 64\n[export]\nmerged = base16\n";

static void run_ini(const char *name, const char *word) {
    char *path = mem_strdup(temp_path(name));
    const char *argv[] = {build_path("qfw"), "--ini", path, word, NULL};
    assert_int_equal(command_run(argv, &c), 0);
    mem_free(path);
}

static int make_all(void **state) {
    static const char *const names[] = {"config.json", "tokenizer.json", "tokenizer_config.json"};
    char rows[4096] = "";
    if (temp_make(state)) return -1;
    assert_int_equal(dir_make(temp_path("model")), QFW_OK);
    for (int i = 0; i < 3; i++) {
        char *from = mem_printf("%s/docs/examples/demo/model/%s", getenv("QFW_SOURCE"), names[i]);
        char *to = mem_printf("model/%s", names[i]);
        assert_int_equal(file_copy(from, temp_path(to)), QFW_OK);
        mem_free(from);
        mem_free(to);
    }
    for (int i = 0; i < 12; i++) {
        const size_t at = strlen(rows);
        snprintf(rows + at, sizeof rows - at, "{\"text\": \"Ada built %d services, %d tables.\"}\n",
            i, i * i);
    }
    temp_text("rows.jsonl", rows);
    temp_text("base.ini", base_keys);
    temp_text("ad.ini", adapter_keys);
    temp_text("export.ini", export_keys);
    run_ini("base.ini", NULL);
    return c.exit_code;
}

/* "logits off by X at most" */
static double printed_error(void) {
    const char *at = strstr(c.out, "logits off by ");
    if (!at) fail_msg("%s%s", c.out, c.err);
    return strtod(at + 14, NULL);
}

static void merged_after_training(void **state) {
    (void)state;
    run_ini("ad.ini", NULL);
    if (c.exit_code) fail_msg("%s", c.err);
    assert_true(printed_error() < 1e-4); /* the base as trained, to fp32's rounding */
    assert_non_null(strstr(c.out, "at 96 tokens of 12 rows"));
    assert_non_null(strstr(c.out, "the same next token in 96 of 96"));
    assert_true(file_exists(temp_path("ad/merged/model.safetensors")));
    assert_true(file_exists(temp_path("ad/merged/config.json")));
    assert_true(file_exists(temp_path("ad/merged/tokenizer.json")));
    assert_true(file_exists(temp_path("ad/adapter_model.safetensors")));
    /* A run elsewhere does not write over a model that it finds below its folder. */
    assert_int_equal(dir_make(temp_path("ad2/merged")), QFW_OK);
    temp_text("ad2/merged/model.safetensors", "mine");
    run_ini("ad.ini", "--set=run.output_dir=ad2");
    assert_int_equal(c.exit_code, EXIT_OUTPUT);
    assert_non_null(strstr(c.err, "ad2/merged: it holds a model already"));
}

static float *read_all(st_file *f, const char *name, int64_t *n) {
    const st_tensor *t = st_find(f, name);
    assert_non_null(t);
    *n = t->dim[0] * (t->rank > 1 ? t->dim[1] : 1);
    float *values = malloc((size_t)*n * sizeof *values);
    assert_int_equal(st_read_f32(f, t, 0, t->dim[0], values), QFW_OK);
    return values;
}

/* merged - base = scale * B A, module by module, and nothing else has changed. */
static void sums_are_right(void **state) {
    st_file *base = NULL, *merged = NULL;
    peft *p = NULL;
    (void)state;
    run_ini("export.ini", NULL);
    if (c.exit_code) fail_msg("%s", c.err);
    assert_true(printed_error() > 1e-4); /* another base than the one that was trained on */
    assert_int_equal(st_open_folder(temp_path("base"), &base), QFW_OK);
    assert_int_equal(st_open_folder(temp_path("m16"), &merged), QFW_OK);
    assert_int_equal(peft_open(temp_path("ad"), &p), QFW_OK);
    assert_int_equal(st_count(base), st_count(merged));
    for (uint32_t i = 0; i < st_count(base); i++) {
        const char *name = st_at(base, i)->name;
        int64_t n = 0, same = 0;
        uint32_t k = 0;
        float *w = read_all(base, name, &n), *m = read_all(merged, name, &same);
        assert_int_equal(n, same);
        assert_int_equal(st_at(base, i)->dtype, st_at(merged, i)->dtype);
        while (k < peft_count(p) && strncmp(peft_at(p, k)->name, name, strlen(name) - 7)) k++;
        if (k == peft_count(p)) {
            assert_memory_equal(w, m, (size_t)n * sizeof *w);
        } else {
            const peft_module *l = peft_at(p, k);
            float *a = malloc((size_t)(l->r * l->in) * sizeof *a);
            float *b = malloc((size_t)(l->out * l->r) * sizeof *b);
            double moved = 0;
            assert_int_equal(peft_read(p, k, a, b), QFW_OK);
            for (int64_t j = 0; j < n; j++) {
                double sum = 0;
                for (int64_t r = 0; r < l->r; r++)
                    sum += (double)b[j / l->in * l->r + r] * (double)a[r * l->in + j % l->in];
                const double wanted = (double)w[j] + l->scale * sum;
                assert_true(fabs((double)m[j] - wanted) <= 1e-6);
                moved = fmax(moved, fabs((double)m[j] - (double)w[j]));
            }
            assert_true(moved > 1e-4);
            free(a);
            free(b);
        }
        free(w);
        free(m);
    }
    peft_close(p);
    st_close(base);
    st_close(merged);
}

/* Three steps on a base folder, as the INI says or with what `more` adds; the log of them. */
static char *steps_on(const char *base, const char *more) {
    char *text =
        mem_printf("[run]\noutput_dir = on_%s\nthreads = 1\n[model]\npath = %s\n%s[adapter]\n"
                   "r = 4\n[data]\ntrain = rows.jsonl\nmax_length = 64\n[trainer]\n"
                   "max_steps = 3\nlogging_steps = 1\nsave_strategy = no\n",
            base, base, more);
    char *path = mem_printf("on_%s/trainer_log.jsonl", base), *log = NULL;
    size_t n = 0;
    temp_text("on.ini", text);
    run_ini("on.ini", NULL);
    if (c.exit_code) fail_msg("%s", c.err);
    assert_int_equal(file_read(temp_path(path), 1 << 20, &log, &n), QFW_OK);
    char *end = strstr(log, "{\"train_runtime\"");
    assert_non_null(end);
    *end = 0;
    mem_free(path);
    mem_free(text);
    return log;
}

/* The sum quantised again is what quantising the plain sum gives; and a checkpoint that is
 * quantised already trains as the plain one that is quantised at load. */
static void requantised_is_quantised(void **state) {
    (void)state;
    temp_text("rq.ini", export_keys);
    run_ini("rq.ini", "--set=export.merged=dequant");
    if (!c.exit_code) fail_msg("m16 was to be refused: %s", c.out);
    const char *const pairs[][2] = {{"dequant", "plain"}, {"requant", "packed"}};
    for (int i = 0; i < 2; i++) {
        char *text =
            mem_printf("[run]\ntask = export\noutput_dir = %s\n[model]\npath = base\n"
                       "load_in_4bit = true\nbnb_4bit_quant_type = nf4\n"
                       "bnb_4bit_use_double_quant = true\n[adapter]\npath = ad\n"
                       "[data]\neval = rows.jsonl\nmax_length = 64\n[export]\nmerged = %s\n",
                pairs[i][1], pairs[i][0]);
        temp_text("rq.ini", text);
        run_ini("rq.ini", NULL);
        if (c.exit_code) fail_msg("%s", c.err);
        assert_true(i ? printed_error() > 1e-4 : printed_error() < 1e-4);
        mem_free(text);
    }
    char *plain = steps_on("plain", "load_in_4bit = true\nbnb_4bit_quant_type = nf4\n"
                                    "bnb_4bit_use_double_quant = true\n");
    char *packed = steps_on("packed", "");
    assert_string_equal(plain, packed);
    mem_free(plain);
    mem_free(packed);
}

static void on_packed(const char *keys, int exit_code, const char *says) {
    char *text = mem_printf("[run]\noutput_dir = never\n[model]\npath = packed\n%s[data]\n"
                            "train = rows.jsonl\nmax_length = 64\n",
        keys);
    temp_text("never.ini", text);
    run_ini("never.ini", "--dry-run");
    if (c.exit_code != exit_code || !strstr(c.err, says))
        fail_msg("%s: exit %d, %s, wanted %s", keys, c.exit_code, c.err, says);
    mem_free(text);
}

/* Bytes of the checkpoint's header changed, as many for as many. */
static void alter_header(const char *from, const char *to) {
    char *data = NULL;
    size_t n = 0, found = 0;
    assert_int_equal(strlen(from), strlen(to));
    assert_int_equal(file_read(temp_path("packed/model.safetensors"), 1 << 26, &data, &n), QFW_OK);
    for (size_t i = 8; i + strlen(from) < n && !found; i++)
        if (!memcmp(data + i, from, strlen(from))) {
            memcpy(data + i, to, strlen(to));
            found = i;
        }
    assert_true(found > 0);
    assert_int_equal(file_write(temp_path("packed/model.safetensors"), data, n), QFW_OK);
    mem_free(data);
}

static void packed_checkpoints_that_are_wrong(void **state) {
    static const char part[] = "down_proj.weight.nested_absmax",
                      other[] = "down_proj.weight.nested_absmin";
    (void)state;
    on_packed(
        "load_in_4bit = false\n", EXIT_CONFIG, "never.ini:5:16: model.load_in_4bit: false, but");
    on_packed("bnb_4bit_quant_type = fp4\n", EXIT_CONFIG, "model.bnb_4bit_quant_type: fp4, but");
    on_packed("[adapter]\nuse = none\n", EXIT_CONFIG, "packed weights cannot be trained");
    alter_header(part, other);
    on_packed("", EXIT_DATA, "mlp.down_proj.weight.nested_absmax is missing");
    assert_non_null(strstr(c.err, "nested_absmin: a tensor that the model does not have"));
    alter_header(other, part);
    alter_header(
        "\"quant_type\": \"nf4\", \"blocksize\": 64", "\"quant_type\": \"nf4\", \"blocksize\": 96");
    on_packed("", EXIT_DATA, "nf4, blocks of 96, shape [");
    alter_header(
        "\"quant_type\": \"nf4\", \"blocksize\": 96", "\"quant_type\": \"nf4\", \"blocksize\": 64");
    on_packed("", 0, "");
    alter_header("\"U8\", \"shape\": [8192, 1]", "\"BF16\", \"shape\": [4096 ]");
    on_packed("", 0, ""); /* bnb_4bit_quant_storage is a name */
}

static void refused(const char *word, int exit_code, const char *says) {
    run_ini("export.ini", word);
    if (c.exit_code != exit_code || !strstr(c.err, says))
        fail_msg("%s: exit %d, %s, wanted %s", word ? word : "", c.exit_code, c.err, says);
}

static void what_cannot_be_merged(void **state) {
    (void)state;
    refused(NULL, EXIT_OUTPUT, "it holds a model already");
    refused("--set=run.output_dir=base", EXIT_OUTPUT, "it is [model] path, too");
    refused("--set=run.output_dir=ad", EXIT_OUTPUT, "it is [adapter] path, too");
    refused("--set=export.merged=none", EXIT_CONFIG, "export.merged: none, and task = export");
    refused("--set=model.load_in_4bit=false", EXIT_OUTPUT, "it holds a model already");
    refused(
        "--set=adapter.path=", EXIT_CONFIG, "adapter.path: missing, and task = export needs it");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merged_after_training),
        cmocka_unit_test(sums_are_right),
        cmocka_unit_test(requantised_is_quantised),
        cmocka_unit_test(packed_checkpoints_that_are_wrong),
        cmocka_unit_test(what_cannot_be_merged),
    };
    return cmocka_run_group_tests(tests, make_all, temp_drop);
}

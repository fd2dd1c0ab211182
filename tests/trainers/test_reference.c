/* test_reference.c -- the reference of a preference loss: computed in each pass or once before the
 * first step, with prompts shared or apart, it is the same; and what a resume and a kept file are
 * held to.
 */
#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "../support/dpolab.h"
#include "base/error.h"
#include "base/mem.h"
#include "files/file.h"
#include "train/reference.h"

#include <cmocka.h>

enum { PAIRS = 4 };

/* --- shared prompts --- */

typedef struct window {
    double loss;
    int64_t rows, n;
    float *grads;
} window;

/* The first PAIRS rows as one micro-batch, with the policy moved away from the reference. */
static window run_window(lab *l) {
    const qfw_example *rows[PAIRS];
    const graphs *gs = l->r->graphs;
    window w = {0};
    batch *b = NULL;
    pass_result res;
    for (uint32_t i = 0; i < PAIRS; i++) {
        qfw_example *e = dataset_at(l->r->train, i);
        e->ordinal = (int32_t)i;
        rows[i] = e;
    }
    for (uint32_t i = 0; i < l->r->n_trainables; i++)
        w.n += qfw_tensor_count(&l->r->trainables[i].grad->t);
    lab_ok(batch_create(PAIRS, (uint32_t)(gs->n_segments[PASS_TRAIN] / gs->n_examples[PASS_TRAIN]),
        gs->max_rows[PASS_TRAIN], &b));
    lab_ok(batch_fill(b, l->r, rows, PAIRS, 1));
    lab_ok(graphs_run(l->r, PASS_TRAIN, b, 1.0 / PAIRS, &res));
    w.loss = res.loss;
    w.rows = b->pub.n_tokens;
    batch_destroy(b);
    float *to = w.grads = malloc((size_t)w.n * sizeof *w.grads);
    for (uint32_t i = 0; i < l->r->n_trainables; i++) {
        lab_ok(store_read(l->r->store, l->r->trainables[i].grad, to));
        to += qfw_tensor_count(&l->r->trainables[i].grad->t);
    }
    return w;
}

static void expect_alike(const window *a, const window *b, const char *what) {
    const double loss = fabs(a->loss - b->loss) / fabs(b->loss);
    const double grads = lab_relative(a->grads, b->grads, b->n);
    print_message("%s: %lld rows for %lld, loss off by %.1e, gradients by %.1e\n", what,
        (long long)a->rows, (long long)b->rows, loss, grads);
    assert_true(loss <= 1e-5);
    assert_true(grads <= 1e-5);
}

static window open_window(lab *l, const char *trainer, const char *dpo) {
    char *keys = mem_printf("per_device_train_batch_size = 4\n%s", trainer);
    dpolab_run(l, "rows.jsonl", keys, dpo);
    dpolab_move_policy(l);
    mem_free(keys);
    return run_window(l);
}

/* With dropout on, too: the prompt's mask is that of the pair. */
static void shared_prompt_is_the_same(void **state) {
    static const char *const keys[] = {"", "disable_dropout = false\n", "ld_alpha = 0.5\n",
        "loss_type = sigmoid, sft, aot\n", "precompute_ref_log_probs = true\n"};
    double plain = 0;
    (void)state;
    lab *l = dpolab_open();
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        char *shared = mem_printf("%sshare_prompt = true\n", keys[i]);
        char *apart = mem_printf("%sshare_prompt = false\n", keys[i]);
        window a = open_window(l, "", shared), b = open_window(l, "", apart);
        expect_alike(&a, &b, *keys[i] ? keys[i] : "plain\n");
        assert_true(a.rows < b.rows);
        if (i == 0) plain = a.loss;
        if (i > 0 && i < 4) assert_true(a.loss != plain); /* the key does something */
        free(a.grads);
        free(b.grads);
        mem_free(shared);
        mem_free(apart);
    }
    lab_close(l);
}

static size_t write_ids(char *at, size_t room, const char *name, int n, int first, int labels) {
    size_t used = (size_t)snprintf(at, room, "\"%s\": [", name);
    for (int i = 0; i < n; i++)
        used += (size_t)snprintf(at + used, room - used, "%s%d", i ? ", " : "",
            labels && i < first ? QFW_IGNORE_LABEL : (i * i * 7 + (i < first ? 0 : n)) % 250);
    return used + (size_t)snprintf(at + used, room - used, "]");
}

/* Four pairs of token ids; of the second, one side is longer than 32. */
static void write_token_rows(const lab *l) {
    static const int sizes[PAIRS][3] = {{12, 20, 26}, {24, 28, 40}, {30, 44, 40}, {25, 32, 31}};
    char text[16384];
    size_t n = 0;
    for (int i = 0; i < PAIRS; i++) {
        static const char *const names[2][2] = {
            {"chosen_ids", "chosen_labels"}, {"rejected_ids", "rejected_labels"}};
        for (int side = 0; side < 2; side++)
            for (int labels = 0; labels < 2; labels++) {
                n += (size_t)snprintf(text + n, sizeof text - n, side || labels ? ", " : "{");
                n += write_ids(text + n, sizeof text - n, names[side][labels], sizes[i][1 + side],
                    sizes[i][0], labels);
            }
        n += (size_t)snprintf(text + n, sizeof text - n, "}\n");
    }
    lab_write(l, "ids.jsonl", text);
}

/* `config` with the reference being the bare model. */
static window open_ids(const char *config, const char *share, lab **out) {
    char path[512];
    lab *l = *out = lab_open("dpo/dpo.json");
    char *settings =
        mem_printf("[adapter]\nr = 4\ntarget_modules = qkv_proj\n[data]\ntrain = ids.jsonl\n"
                   "[trainer]\nuse = dpo\nper_device_train_batch_size = 4\n[trainer.dpo]\n"
                   "share_prompt = %s\n",
            share);
    lab_model(l, lab_golden(config, path));
    write_token_rows(l);
    lab_run(l, settings);
    lab_adapters(l, 0);
    mem_free(settings);
    return run_window(l);
}

/* Under a window, places are counted through the prompt; and with two sets of rotary factors a pair
 * of which one side is long and one is not has no rows alike. */
static void shared_prompt_keeps_places(void **state) {
    static const struct {
        const char *config;
        int64_t saved;
    } cases[] = {{"logits/window/config.json", 11 + 23 + 29 + 24},
        {"logits/longrope_short/config.json", 11 + 29 + 24}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        lab *shared, *apart;
        window a = open_ids(cases[i].config, "true", &shared);
        window b = open_ids(cases[i].config, "false", &apart);
        expect_alike(&a, &b, cases[i].config);
        assert_int_equal(b.rows - a.rows, cases[i].saved);
        free(a.grads);
        free(b.grads);
        lab_close(shared);
        lab_close(apart);
    }
}

/* Rows of a batch: where prompts are shared, the layout that is documented. */
static void shared_rows_stand_once(void **state) {
    const qfw_example *rows[2];
    batch *b = NULL;
    (void)state;
    lab *l = dpolab_open();
    dpolab_run(l, "rows.jsonl", "per_device_train_batch_size = 2\n", "share_prompt = true\n");
    for (uint32_t i = 0; i < 2; i++) rows[i] = dataset_at(l->r->train, i);
    lab_ok(batch_create(2, 3, l->r->graphs->max_rows[PASS_TRAIN], &b));
    lab_ok(batch_fill(b, l->r, rows, 2, 0));
    for (int i = 0; i < 2; i++) {
        const qfw_seq *w = &rows[i]->seq[0], *r = &rows[i]->seq[1];
        const int32_t *chosen = b->segments + 10 * i, *rejected = chosen + 5;
        const int32_t *prompt = b->segments + 5 * (4 + i);
        const int32_t shared = (int32_t)(w->n - w->n_trained - 1); /* all before the last one */
        assert_int_equal(prompt[1] - prompt[0], shared);
        assert_int_equal(prompt[3] - prompt[2], 0);
        assert_int_equal(chosen[0], prompt[1]);
        assert_int_equal(chosen[1] - chosen[0], (int32_t)w->n_trained + 1);
        assert_int_equal(rejected[0], chosen[1]);
        assert_int_equal(rejected[1] - rejected[0], (int32_t)r->n_trained + 1);
        assert_int_equal(chosen[2], prompt[0]);
        assert_int_equal(chosen[3], prompt[1]);
        assert_int_equal(rejected[2], prompt[0]);
        assert_int_equal(rejected[3], prompt[1]);
        assert_int_equal(b->positions[rejected[0]], shared);
        assert_int_equal(b->labels[chosen[0]], w->token[shared + 1]);
        assert_int_equal(b->labels[rejected[0]], r->token[shared + 1]);
        for (int32_t n = prompt[0]; n < prompt[1]; n++)
            assert_int_equal(b->labels[n], QFW_IGNORE_LABEL);
    }
    assert_int_equal(
        b->seen, rows[0]->seq[0].n + rows[0]->seq[1].n + rows[1]->seq[0].n + rows[1]->seq[1].n);
    batch_destroy(b);
    lab_close(l);
}

/* --- kept log-probabilities --- */

static const char short_run[] =
    "per_device_train_batch_size = 4\ngradient_accumulation_steps = 2\nmax_steps = 8\n"
    "learning_rate = 1e-3\nlr_scheduler_type = cosine\nwarmup_steps = 2\nlogging_steps = 2\n"
    "save_steps = 3\neval_strategy = steps\neval_steps = 4\n";

/* run.ini for lab_main; the model's weights are there already. */
static void write_ini(const lab *l, const char *dpo) {
    char *settings = dpolab_settings(l, "rows.jsonl", short_run, dpo);
    char *text = mem_printf("[run]\noutput_dir = %s/out\noverwrite_output_dir = true\n[model]\n"
                            "use = phi3\npath = %s/model\n%s",
        l->folder, l->folder, settings);
    lab_write(l, "run.ini", text);
    mem_free(text);
    mem_free(settings);
}

static qfw_status run_all(const lab *l, const char *dpo, int resume) {
    char *eval = mem_printf("data.eval=%s/rows.jsonl", l->folder);
    const char *const set[] = {eval};
    const run_flags flags = {.set = set, .n_set = 1, .resume = resume};
    write_ini(l, dpo);
    const qfw_status status = lab_main(l, &flags, NULL);
    mem_free(eval);
    return status;
}

/* The values of every line of the log but what time makes of them. */
static char *log_values(const lab *l) {
    size_t n;
    char *text = lab_contents(l, "out/trainer_log.jsonl", &n), *to = text;
    for (char *at = text; *at;) {
        const char *name = strstr(at, "_runtime"), *line = strchr(at, '\n');
        const size_t length = (size_t)(line - at) + 1;
        if (!name || name > line) {
            memmove(to, at, length);
            to += length;
        }
        at += length;
    }
    *to = 0;
    return text;
}

static void expect_same_run(const lab *l, const char *one, const char *other) {
    size_t n[2];
    char *adapter[2], *values[2];
    lab_ok(run_all(l, one, 0));
    adapter[0] = lab_contents(l, "out/adapter_model.safetensors", &n[0]);
    values[0] = log_values(l);
    lab_ok(run_all(l, other, 0));
    adapter[1] = lab_contents(l, "out/adapter_model.safetensors", &n[1]);
    values[1] = log_values(l);
    assert_int_equal(n[0], n[1]);
    assert_memory_equal(adapter[0], adapter[1], n[0]);
    assert_string_equal(values[0], values[1]);
    assert_non_null(strstr(values[0], "rewards/margins"));
    for (int i = 0; i < 2; i++) {
        mem_free(adapter[i]);
        mem_free(values[i]);
    }
}

static void kept_is_the_same_bit_for_bit(void **state) {
    (void)state;
    lab *l = dpolab_open();
    expect_same_run(
        l, "share_prompt = false\n", "share_prompt = false\nprecompute_ref_log_probs = true\n");
    expect_same_run(
        l, "share_prompt = true\n", "share_prompt = true\nprecompute_ref_log_probs = true\n");
    lab_close(l);
}

static uint64_t inode_of(const lab *l, const char *name) {
    struct stat s;
    char *path = mem_printf("%s/%s", l->folder, name);
    assert_int_equal(stat(path, &s), 0);
    mem_free(path);
    return (uint64_t)s.st_ino;
}

static void change_byte(const lab *l, const char *name, long from_end) {
    char *path = mem_printf("%s/%s", l->folder, name);
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    fseek(f, -from_end, SEEK_END);
    const int c = fgetc(f);
    fseek(f, -from_end, SEEK_END);
    fputc(c ^ 0x01, f);
    fclose(f);
    mem_free(path);
}

/* Another run with the same model, adapter and rows reads the file; with others it does not. */
static void kept_file_is_checked(void **state) {
    static const char keys[] =
        "precompute_ref_log_probs = true\nref_cache = kept/ref.safetensors\n";
    static const char name[] = "kept/ref.safetensors";
    size_t n, n_now;
    (void)state;
    lab *l = dpolab_open();
    lab_ok(run_all(l, keys, 0));
    char *whole = lab_contents(l, name, &n), *now;
    uint64_t inode = inode_of(l, name);
    lab_ok(run_all(l, keys, 0));
    assert_true(inode_of(l, name) == inode);
    change_byte(l, name, 5);
    lab_ok(run_all(l, keys, 0));
    now = lab_contents(l, name, &n_now);
    assert_int_equal(n_now, n);
    assert_memory_equal(now, whole, n);
    mem_free(now);
    change_byte(l, "sft/adapter_model.safetensors", 5);
    inode = inode_of(l, name);
    lab_ok(run_all(l, keys, 0));
    assert_true(inode_of(l, name) != inode);
    mem_free(whole);
    lab_close(l);
}

/* What is no such file is not written over. */
static void another_file_is_kept(void **state) {
    static const char *const names[] = {"rows.txt", "sft/adapter_model.safetensors"};
    (void)state;
    lab *l = dpolab_open();
    lab_write(l, "rows.txt", "{\"prompt\": \"a\"}\n");
    for (int i = 0; i < 2; i++) {
        size_t n, n_now;
        char *keys = mem_printf("precompute_ref_log_probs = true\nref_cache = %s\n", names[i]);
        char *before = lab_contents(l, names[i], &n), *now;
        assert_int_not_equal(run_all(l, keys, 0), QFW_OK);
        assert_string_equal(err_name(), "E_OUT_EXISTS");
        assert_non_null(strstr(err_text(0), "it is no file of log-probabilities"));
        err_clear();
        now = lab_contents(l, names[i], &n_now);
        assert_int_equal(n, n_now);
        assert_memory_equal(before, now, n);
        mem_free(before);
        mem_free(now);
        mem_free(keys);
    }
    lab_close(l);
}

/* --- resume --- */

static void drop(const lab *l, const char *name) {
    char *path = mem_printf("%s/%s", l->folder, name);
    lab_ok(dir_remove(path));
    mem_free(path);
}

static void expect_resumes(const lab *l, const char *dpo) {
    size_t n, n_now;
    lab_ok(run_all(l, dpo, 0));
    char *before = lab_contents(l, "out/adapter_model.safetensors", &n);
    char *values = log_values(l);
    drop(l, "out/checkpoint-8");
    drop(l, "out/checkpoint-6");
    lab_ok(run_all(l, dpo, 1));
    char *now = lab_contents(l, "out/adapter_model.safetensors", &n_now);
    char *values_now = log_values(l);
    assert_int_equal(n, n_now);
    assert_memory_equal(now, before, n);
    assert_string_equal(values_now, values);
    mem_free(now);
    mem_free(before);
    mem_free(values);
    mem_free(values_now);
}

static void resumed_is_uninterrupted(void **state) {
    static const char stored[] = "precompute_ref_log_probs = true\n";
    (void)state;
    lab *l = dpolab_open();
    expect_resumes(l, "");
    expect_resumes(l, stored);
    /* Without the file the reference is that of the start, not the policy of the checkpoint. */
    char *path = mem_printf("%s/out/ref_logps.safetensors", l->folder);
    size_t n, n_now;
    char *before = lab_contents(l, "out/ref_logps.safetensors", &n);
    remove(path);
    drop(l, "out/checkpoint-8");
    lab_ok(run_all(l, stored, 1));
    char *now = lab_contents(l, "out/ref_logps.safetensors", &n_now);
    assert_int_equal(n, n_now);
    assert_memory_equal(now, before, n);
    mem_free(before);
    mem_free(now);
    mem_free(path);
    lab_close(l);
}

static void another_reference_is_refused(void **state) {
    (void)state;
    lab *l = dpolab_open();
    lab_ok(run_all(l, "", 0));
    drop(l, "out/checkpoint-8");
    change_byte(l, "sft/adapter_model.safetensors", 5);
    assert_int_not_equal(run_all(l, "", 1), QFW_OK);
    assert_non_null(err_text(0));
    assert_string_equal(err_name(), "E_REF_CHANGED");
    assert_non_null(strstr(err_text(0), "sft"));
    lab_close(l);
}

/* --- the plan --- */

static char *plan_text(const lab *l, const char *dpo) {
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    const run_flags flags = {.plan_only = 1};
    char *settings = dpolab_settings(l, "rows.jsonl", "", dpo);
    char *text_ini =
        mem_printf("[run]\noutput_dir = %s/plan\n[model]\nuse = phi3\npath = %s/model\n%s",
            l->folder, l->folder, settings);
    lab_write(l, "run.ini", text_ini);
    lab_ok(lab_main(l, &flags, out));
    fclose(out);
    mem_free(text_ini);
    mem_free(settings);
    return text;
}

static void plan_says_what_is_computed(void **state) {
    (void)state;
    lab *l = dpolab_open();
    char *passes = plan_text(l, ""), *kept = plan_text(l, "precompute_ref_log_probs = true\n");
    char *apart = plan_text(l, "share_prompt = false\n");
    assert_non_null(strstr(passes, "in every pass"));
    assert_null(strstr(kept, "in every pass"));
    assert_non_null(strstr(kept, "once, before the first step"));
    assert_non_null(strstr(passes, "prompts shared"));
    assert_null(strstr(apart, "prompts shared"));
    free(passes);
    free(kept);
    free(apart);
    lab_close(l);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shared_prompt_is_the_same),
        cmocka_unit_test(shared_prompt_keeps_places),
        cmocka_unit_test(shared_rows_stand_once),
        cmocka_unit_test(kept_is_the_same_bit_for_bit),
        cmocka_unit_test(kept_file_is_checked),
        cmocka_unit_test(another_file_is_kept),
        cmocka_unit_test(resumed_is_uninterrupted),
        cmocka_unit_test(another_reference_is_refused),
        cmocka_unit_test(plan_says_what_is_computed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* test_fit.c -- the quickest plan that fits: what auto chooses under a limit, that every change
 * which a refusal names does fit, and that a resume goes on in the same passes. */
#include "../support/lab.h"
#include "base/error.h"
#include "base/mem.h"
#include "files/file.h"
#include "files/json.h"

#include <stdlib.h>
#include <string.h>

#include "../support/test.h"

static const char settings[] =
    "load_in_4bit = true\nbnb_4bit_quant_type = nf4\ninit = random\n"
    "[adapter]\nuse = lora\nr = 4\nlora_alpha = 8\nlora_dropout = 0.1\n"
    "target_modules = q_proj, k_proj, v_proj, o_proj\n"
    "[data]\ntrain = rows.jsonl\nmax_length = 128\n"
    "[trainer]\nmax_steps = 4\nlearning_rate = 1e-2\nper_device_train_batch_size = 32\n"
    "save_steps = 2\nlogging_steps = 1\n";

/* 40 rows of 120 tokens. */
static void write_rows(lab *l) {
    enum { ROWS = 40, TOKENS = 120 };
    static char text[ROWS * (TOKENS * 5 + 32)];
    size_t n = 0;
    for (int row = 0; row < ROWS; row++) {
        n += (size_t)snprintf(text + n, sizeof text - n, "{\"input_ids\": [1");
        for (int i = 1; i < TOKENS; i++)
            n += (size_t)snprintf(text + n, sizeof text - n, ",%d", (i * 7 + row * 13) % 250);
        n += (size_t)snprintf(text + n, sizeof text - n, "]}\n");
    }
    lab_write(l, "rows.jsonl", text);
}

static lab *open_lab(void) {
    char path[512];
    lab *l = lab_open("sft_curve/sft_curve.json");
    lab_model(l, lab_golden("sft_curve/config.json", path));
    write_rows(l);
    lab_run(l, settings);
    run_close(l->r);
    l->r = NULL;
    return l;
}

/* What the run prints; free(). */
static char *printed(const lab *l, const char *const *set, uint32_t n, int only, qfw_status *s) {
    FILE *f = tmpfile();
    assert_non_null(f);
    *s = lab_main(l, &(run_flags){.set = set, .n_set = n, .plan_only = only}, f);
    const long bytes = ftell(f);
    char *text = calloc((size_t)bytes + 1, 1);
    assert_non_null(text);
    rewind(f);
    assert_int_equal(fread(text, 1, (size_t)bytes, f), bytes);
    fclose(f);
    return text;
}

/* The MiB of a plan that a setting leads to. */
static double peak(const lab *l, const char *const *set, uint32_t n) {
    double mib = 0;
    qfw_status status;
    char *text = printed(l, set, n, 1, &status);
    lab_ok(status);
    assert_int_equal(sscanf(strstr(text, "  peak "), "  peak %lf MiB", &mib), 1);
    free(text);
    return mib;
}

static double peak_of(const lab *l, const char *mode) {
    char key[64];
    const char *const set[] = {key};
    snprintf(key, sizeof key, "trainer.gradient_checkpointing=%s", mode);
    return peak(l, set, 1);
}

/* Under a limit of so many MiB, the plan's text has `what`. */
static void expect_choice(const lab *l, double mib, const char *what) {
    char limit[64];
    const char *const set[] = {limit};
    qfw_status status;
    snprintf(limit, sizeof limit, "run.max_memory=%.0fMiB", mib);
    char *text = printed(l, set, 1, 1, &status);
    lab_ok(status);
    if (!strstr(text, what)) fail_msg("%s: no '%s' in:\n%s", limit, what, text);
    free(text);
}

static void auto_takes_the_quickest_that_fits(void **state) {
    (void)state;
    lab *l = open_lab();
    const double none = peak_of(l, "none"), selective = peak_of(l, "selective");
    const double full = peak_of(l, "full");
    print_message("none %.2f, selective %.2f, full %.2f MiB\n", none, selective, full);
    assert_true(full + 4 < selective && selective + 4 < none);
    expect_choice(l, none + 3, "gradient_checkpointing = none");
    expect_choice(l, (selective + none) / 2, "gradient_checkpointing = selective");
    expect_choice(l, (full + selective) / 2, "gradient_checkpointing = full");
    expect_choice(l, (full + selective) / 2, "32 rows a pass, 1 pass a step");
    expect_choice(l, full - 2, "16 rows a pass, 2 passes a step");
    expect_choice(l, full - 2, "a batch of 32 rows is taken in 2 passes");
    lab_close(l);
}

/* The settings of the change at `text`, "a = 1 with b = 2: 3.00 MiB", as --set takes them. */
static uint32_t change_at(char *text, char set[4][128]) {
    static const char *const seps[] = {" with ", ", "};
    uint32_t n = 0;
    char *end = strchr(text, ':');
    assert_non_null(end);
    *end = '\0';
    while (text && n < 4) {
        char *next = NULL;
        for (size_t i = 0; i < 2; i++) {
            char *at = strstr(text, seps[i]);
            if (!at) continue;
            *at = '\0';
            next = at + strlen(seps[i]);
        }
        char *is = strstr(text, " = ");
        assert_non_null(is);
        *is = '\0';
        snprintf(set[n++], 128, "%s.%.40s=%.40s",
            strncmp(text, "max_length", 10) && strncmp(text, "overlong", 8) ? "trainer" : "data",
            text, is + 3);
        text = next;
    }
    return n;
}

/* Every change in the hint, made, has the plan pass; returns how many there are. */
static int each_change_fits(const lab *l, const char *limit, const char *mode) {
    char text[2048], set[4][128];
    int count = 0;
    snprintf(text, sizeof text, "%s", strstr(err_text(0), "hint: ") + 6);
    err_clear();
    for (char *at = text, *next; at; at = next) {
        next = strstr(at, "; or ");
        if (next) {
            *next = '\0';
            next += 5;
        }
        if (strstr(at, "bnb_4bit_use_double_quant")) continue;
        const uint32_t n = change_at(at, set);
        const char *const all[] = {limit, mode, set[0], set[1], set[2]};
        qfw_status status;
        assert_in_range(n, 1, 3);
        char *out = printed(l, all, 2 + n, 1, &status);
        if (status != QFW_OK) fail_msg("%s: %s", set[0], err_text(0));
        free(out);
        count++;
    }
    return count;
}

static void what_a_refusal_names_does_fit(void **state) {
    static const char none[] = "trainer.gradient_checkpointing=none";
    char limit[64];
    const char *const set[] = {limit, none};
    qfw_status status;
    (void)state;
    lab *l = open_lab();
    const double selective = peak_of(l, "selective"), full = peak_of(l, "full");
    const double limits[] = {selective + 3, (selective + full) / 2, full - 2};
    for (int i = 0; i < 3; i++) {
        snprintf(limit, sizeof limit, "run.max_memory=%.0fMiB", limits[i]);
        free(printed(l, set, 2, 0, &status)); /* there are no weights: it is refused before */
        assert_int_equal(status, QFW_E_NOMEM);
        assert_non_null(strstr(err_text(0), "E_PLAN_MEMORY"));
        assert_true(!strstr(err_text(0), "gradient_checkpointing = selective: ") == (i > 0));
        assert_true(!strstr(err_text(0), "gradient_checkpointing = full: ") == (i != 1));
        assert_non_null(strstr(err_text(0), "per_device_train_batch_size = "));
        assert_non_null(strstr(err_text(0), "max_length = "));
        assert_true(each_change_fits(l, limit, none) >= 2);
    }
    lab_close(l);
}

static int64_t passes_of(const lab *l) {
    char *path = mem_printf("%s/out/manifest.json", l->folder);
    qfw_doc *d = NULL;
    int64_t n = 0;
    lab_ok(json_read(path, 16 << 20, NULL, &d));
    lab_ok(json_doc_api.i64(d, "/passes_of_a_batch", &n));
    json_destroy(d);
    mem_free(path);
    return n;
}

/* A run split by a limit goes on split where there is room enough, to the same bits. */
static void a_resume_keeps_the_passes(void **state) {
    char limit[64];
    const char *const tight[] = {limit};
    const char *const again[] = {"run.resume_from_checkpoint=auto"};
    qfw_status status;
    size_t n, m;
    (void)state;
    lab *l = open_lab();
    snprintf(limit, sizeof limit, "run.max_memory=%.0fMiB", peak_of(l, "full") - 2);
    free(printed(l, tight, 1, 0, &status));
    lab_ok(status);
    assert_int_equal(passes_of(l), 2);
    char *whole = lab_contents(l, "out/adapter_model.safetensors", &n);
    char *last = mem_printf("%s/out/checkpoint-4", l->folder);
    lab_ok(dir_remove(last));
    free(printed(l, again, 1, 0, &status));
    lab_ok(status);
    assert_int_equal(passes_of(l), 2);
    char *resumed = lab_contents(l, "out/adapter_model.safetensors", &m);
    assert_int_equal(n, m);
    assert_memory_equal(whole, resumed, n);
    mem_free(whole);
    mem_free(last);
    mem_free(resumed);
    lab_close(l);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(auto_takes_the_quickest_that_fits),
        cmocka_unit_test(what_a_refusal_names_does_fit),
        cmocka_unit_test(a_resume_keeps_the_passes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

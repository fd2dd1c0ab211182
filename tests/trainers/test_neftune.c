/* test_neftune.c -- noise on embeddings: its size and distribution, that it follows rows and not
 * batches, and that only training has it.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "../support/curve.h"
#include "base/mem.h"
#include "files/file.h"
#include "train/neftune.h"

#include <cmocka.h>

enum { ROWS = 8, WIDTH = 128 };

static lab *open_lab(const char *trainer_keys) {
    char path[512];
    lab *l = lab_open("sft_curve/sft_curve.json");
    lab_model(l, lab_golden("sft_curve/config.json", path));
    lab_copy(l, lab_golden("sft_curve/rows.jsonl", path), "rows.jsonl");
    char *settings = mem_printf(
        "load_in_4bit = true\n[adapter]\nuse = lora\nr = 8\ntarget_modules = q_proj, down_proj\n"
        "[data]\ntrain = rows.jsonl\neval = rows.jsonl\nmax_length = 128\n"
        "[trainer]\nmax_steps = 3\nlearning_rate = 1e-2\nlogging_steps = 1\nsave_strategy = no\n"
        "eval_strategy = steps\neval_steps = 100\neval_on_start = true\n%s",
        trainer_keys);
    lab_run(l, settings);
    lab_adapters(l, 1);
    mem_free(settings);
    return l;
}

/* Noise of the first rows of the set, laid out together or one by one. */
static float *noise_of(const lab *l, uint32_t together, int64_t *n_tokens) {
    const run *r = l->r;
    const int64_t room = r->graphs->max_rows[PASS_TRAIN];
    const qfw_example *rows[ROWS];
    float *noise = malloc((size_t)(ROWS * room * WIDTH) * sizeof *noise), *to = noise;
    batch *b = NULL;
    *n_tokens = 0;
    lab_ok(batch_create(ROWS, 1, room, &b));
    for (uint32_t i = 0; i < ROWS; i++) {
        qfw_example *e = dataset_at(r->train, i);
        e->ordinal = (int32_t)(100 + i);
        rows[i] = e;
    }
    for (uint32_t at = 0; at < ROWS; at += together) {
        lab_ok(batch_fill(b, r, rows + at, together, 1));
        float *padded = malloc((size_t)((b->pub.n_tokens + 3) * WIDTH) * sizeof *padded);
        neftune_fill(r, b, b->pub.n_tokens + 3, WIDTH, padded);
        for (int64_t i = b->pub.n_tokens * WIDTH; i < (b->pub.n_tokens + 3) * WIDTH; i++)
            assert_true(padded[i] == 0);
        memcpy(to, padded, (size_t)(b->pub.n_tokens * WIDTH) * sizeof *to);
        to += b->pub.n_tokens * WIDTH;
        *n_tokens += b->pub.n_tokens;
        free(padded);
    }
    batch_destroy(b);
    return noise;
}

static void follows_rows_not_batches(void **state) {
    int64_t n, same;
    (void)state;
    lab *l = open_lab("neftune_noise_alpha = 5\nper_device_train_batch_size = 8\n");
    float *together = noise_of(l, ROWS, &n), *alone = noise_of(l, 1, &same);
    assert_int_equal(n, same);
    assert_memory_equal(together, alone, (size_t)(n * WIDTH) * sizeof *alone);
    free(together);
    free(alone);
    lab_close(l);
}

/* U(-size, size), size = 5 / sqrt(tokens * width) for each row. */
static void is_uniform_of_the_right_size(void **state) {
    double sum = 0, squares = 0, most = 0;
    int64_t n, at = 0;
    (void)state;
    lab *l = open_lab("neftune_noise_alpha = 5\nper_device_train_batch_size = 8\n");
    float *noise = noise_of(l, ROWS, &n);
    for (uint32_t i = 0; i < ROWS; i++) {
        const int64_t values = (int64_t)dataset_at(l->r->train, i)->seq[0].n * WIDTH;
        const double size = 5 / sqrt((double)values);
        for (int64_t k = 0; k < values; k++, at++) {
            const double x = (double)noise[at] / size;
            assert_true(fabs(x) <= 1 + 1e-6);
            sum += x;
            squares += x * x;
            most = fmax(most, fabs(x));
        }
    }
    const double count = (double)(n * WIDTH);
    assert_true(at == n * WIDTH);
    assert_true(fabs(sum / count) < 4 / sqrt(3 * count)); /* four standard errors */
    assert_true(fabs(squares / count - 1.0 / 3) < 4 * sqrt(4.0 / 45 / count));
    assert_true(most > 0.999);
    free(noise);
    lab_close(l);
}

static void only_training_has_it(void **state) {
    static const char *const keys[] = {"neftune_noise_alpha = 0\n", "neftune_noise_alpha = 15\n",
        "neftune_noise_alpha = 15\ngradient_checkpointing = none\n"};
    double loss[3], eval[3];
    (void)state;
    for (int i = 0; i < 3; i++) {
        size_t n;
        curve c;
        lab *l = open_lab(keys[i]);
        curve_train(l, &c);
        char *log = lab_contents(l, "out/trainer_log.jsonl", &n);
        loss[i] = c.loss[0];
        eval[i] = strtod(strstr(log, "\"eval_loss\": ") + 13, NULL);
        mem_free(log);
        lab_close(l);
    }
    assert_true(eval[0] == eval[1]);
    assert_true(loss[0] < loss[1] || loss[0] > loss[1]);
    assert_true(loss[1] == loss[2]); /* recomputed with the same noise */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(follows_rows_not_batches),
        cmocka_unit_test(is_uniform_of_the_right_size),
        cmocka_unit_test(only_training_has_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

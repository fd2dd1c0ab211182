/* test_parity_dpo.c -- the dpo trainer against TRL's DPOTrainer (tests/parity/README.md, dpo):
 * tokens of rows, the value and the gradient of every loss, and 50 steps of training.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "../support/curve.h"
#include "../support/dpolab.h"
#include "base/mem.h"

#include <cmocka.h>

enum { PAIRS = 4, PTR_BYTES = 128, STEPS = 50 };

/* --- tokens --- */

static uint64_t count_ids(const lab *l, const char *set, uint64_t row, const char *part) {
    char ptr[PTR_BYTES];
    snprintf(ptr, sizeof ptr, "/sets/%s/%llu/%s", set, (unsigned long long)row, part);
    return json_doc_api.count(l->fixture, ptr);
}

static double id_at(const lab *l, const char *set, uint64_t row, const char *part, uint64_t i) {
    char ptr[PTR_BYTES];
    snprintf(ptr, sizeof ptr, "/sets/%s/%llu/%s/%llu", set, (unsigned long long)row, part,
        (unsigned long long)i);
    return lab_number(l, ptr);
}

static void compare_sequence(
    const lab *l, const char *set, uint64_t row, const char *part, const qfw_seq *s) {
    const uint64_t n_prompt = count_ids(l, set, row, "prompt_ids");
    assert_int_equal(s->n, n_prompt + count_ids(l, set, row, part));
    for (uint64_t t = 0; t < s->n; t++) {
        const int in_prompt = t < n_prompt;
        const double id = in_prompt ? id_at(l, set, row, "prompt_ids", t)
                                    : id_at(l, set, row, part, t - n_prompt);
        assert_true(s->token[t] == (int32_t)id);
        assert_int_equal(s->trained[t], !in_prompt && t > 0);
    }
}

static void tokens_match_trl(void **state) {
    static const char *const sets[] = {
        "rows", "ended", "implicit", "messages", "implicit_messages"};
    (void)state;
    lab *l = dpolab_open();
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++) {
        char file[64], ptr[PTR_BYTES];
        snprintf(file, sizeof file, "%s.jsonl", sets[i]);
        dpolab_run(l, file, "", "");
        snprintf(ptr, sizeof ptr, "/sets/%s", sets[i]);
        const uint64_t n = json_doc_api.count(l->fixture, ptr);
        assert_int_equal(dataset_count(l->r->train), n);
        for (uint64_t row = 0; row < n; row++) {
            const qfw_example *e = dataset_at(l->r->train, row);
            assert_int_equal(e->n_seqs, 2);
            compare_sequence(l, sets[i], row, "chosen_ids", &e->seq[0]);
            compare_sequence(l, sets[i], row, "rejected_ids", &e->seq[1]);
        }
    }
    lab_close(l);
}

/* --- losses --- */

static const char *case_text(const lab *l, uint64_t i, const char *key) {
    char ptr[PTR_BYTES];
    const char *text = NULL;
    snprintf(ptr, sizeof ptr, "/losses/%llu/%s", (unsigned long long)i, key);
    lab_ok(json_doc_api.str(l->fixture, ptr, &text));
    return text;
}

static double case_number(const lab *l, uint64_t i, const char *key) {
    char ptr[PTR_BYTES * 4];
    snprintf(ptr, sizeof ptr, "/losses/%llu/%s", (unsigned long long)i, key);
    return lab_number(l, ptr);
}

/* [trainer.dpo] as the case has it. */
static char *case_keys(const lab *l, uint64_t i) {
    char types[256] = "", weights[256] = "", key[64];
    snprintf(key, sizeof key, "/losses/%llu/loss_type", (unsigned long long)i);
    const uint64_t n = json_doc_api.count(l->fixture, key);
    for (uint64_t k = 0; k < n; k++) {
        snprintf(key, sizeof key, "loss_type/%llu", (unsigned long long)k);
        const char *type = case_text(l, i, key);
        snprintf(types + strlen(types), sizeof types - strlen(types), "%s%s", k ? ", " : "", type);
        snprintf(key, sizeof key, "loss_weights/%llu", (unsigned long long)k);
        snprintf(weights + strlen(weights), sizeof weights - strlen(weights), "%s%g", k ? ", " : "",
            case_number(l, i, key));
    }
    snprintf(key, sizeof key, "/losses/%llu/ld_alpha", (unsigned long long)i);
    const int has_tail = json_doc_api.kind(l->fixture, key) != QFW_DOC_ABSENT;
    return mem_printf("loss_type = %s\nloss_weights = %s\nlabel_smoothing = %g\nbeta = %g\n"
                      "f_divergence_type = %s\nld_alpha = %g\n",
        types, weights, case_number(l, i, "label_smoothing"), case_number(l, i, "beta"),
        case_text(l, i, "f_divergence_type"), has_tail ? case_number(l, i, "ld_alpha") : 1.0);
}

/* The first PAIRS rows as one micro-batch; the gradients are in the store then. */
static double run_pairs(lab *l) {
    const qfw_example *rows[PAIRS];
    batch *b = NULL;
    pass_result res;
    for (uint32_t i = 0; i < PAIRS; i++) rows[i] = dataset_at(l->r->train, i);
    for (uint32_t i = 0; i < l->r->n_trainables; i++)
        lab_ok(store_zero(l->r->store, l->r->trainables[i].grad));
    const graphs *gs = l->r->graphs;
    lab_ok(batch_create(PAIRS, (uint32_t)(gs->n_segments[PASS_TRAIN] / gs->n_examples[PASS_TRAIN]),
        gs->max_rows[PASS_TRAIN], &b));
    lab_ok(batch_fill(b, l->r, rows, PAIRS, 1));
    lab_ok(graphs_run(l->r, PASS_TRAIN, b, 1.0 / PAIRS, &res));
    batch_destroy(b);
    return res.loss;
}

/* Whole gradients of the first adapted weight, norms of all. */
static double compare_gradients(const lab *l, uint64_t i, const st_file *f, double *worst_norm) {
    double worst = 0;
    for (uint32_t k = 0; k < l->r->n_trainables; k++) {
        const trainable *t = &l->r->trainables[k];
        const int64_t n = qfw_tensor_count(&t->grad->t);
        char name[320], key[320];
        float *grad = malloc((size_t)n * sizeof *grad), *wanted = malloc((size_t)n * sizeof *grad);
        double sum = 0;
        lab_ok(store_read(l->r->store, t->grad, grad));
        for (int64_t v = 0; v < n; v++) sum += (double)grad[v] * (double)grad[v];
        snprintf(key, sizeof key, "grad_norms/base_model.model.%s", t->param->name);
        const double norm = case_number(l, i, key);
        *worst_norm = fmax(*worst_norm, fabs(sqrt(sum) - norm) / norm);
        snprintf(
            name, sizeof name, "%s/base_model.model.%s", case_text(l, i, "name"), t->param->name);
        const st_tensor *tensor = st_find(f, name);
        if (tensor) {
            lab_ok(st_read_f32((st_file *)(uintptr_t)f, tensor, 0, tensor->dim[0], wanted));
            worst = fmax(worst, lab_relative(grad, wanted, n));
        }
        free(grad);
        free(wanted);
    }
    return worst;
}

static void losses_match_trl(void **state) {
    char path[512];
    st_file *f = NULL;
    (void)state;
    lab *l = dpolab_open();
    lab_ok(st_open(lab_golden("dpo/grads.safetensors", path), &f));
    const uint64_t n = json_doc_api.count(l->fixture, "/losses");
    assert_true(n > 15);
    for (uint64_t i = 0; i < n; i++) {
        char *keys = case_keys(l, i);
        double norm = 0;
        dpolab_run(l, "rows.jsonl", "per_device_train_batch_size = 4\n", keys);
        dpolab_move_policy(l);
        const double wanted = case_number(l, i, "loss"), loss = run_pairs(l);
        const double off = fabs(loss - wanted) / fabs(wanted),
                     grad = compare_gradients(l, i, f, &norm);
        print_message("%-26s %.7f: off by %.1e, gradient by %.1e, norms by %.1e\n",
            case_text(l, i, "name"), loss, off, grad, norm);
        assert_true(off <= 1e-5);
        assert_true(grad <= 1e-4);
        assert_true(norm <= 1e-4);
        mem_free(keys);
    }
    st_close(f);
    lab_close(l);
}

/* --- the curve --- */

/* What TRL logs, with the part of its largest value that it may be off by. */
static const struct logged {
    const char *key;
    double bar;
} logged[] = {{"loss", 1e-5}, {"grad_norm", 1e-4}, {"learning_rate", 0}, {"epoch", 1e-12},
    {"num_tokens", 0}, {"rewards/chosen", 1e-4}, {"rewards/rejected", 1e-4},
    {"rewards/margins", 1e-4}, {"rewards/accuracies", 0}, {"logps/chosen", 1e-5},
    {"logps/rejected", 1e-5}, {"logits/chosen", 1e-4}, {"logits/rejected", 1e-4}, {"entropy", 1e-5},
    {"mean_token_accuracy", 0}};
enum { LOGGED = sizeof logged / sizeof logged[0] };

/* "/rewards~1chosen": a JSON pointer into a line of the log. */
static double value_of(const qfw_doc *d, const char *base, const char *key) {
    char ptr[PTR_BYTES];
    double value = 0;
    size_t n = (size_t)snprintf(ptr, sizeof ptr, "%s/", base);
    for (const char *c = key; *c; c++) {
        if (*c == '/')
            n += (size_t)snprintf(ptr + n, sizeof ptr - n, "~1");
        else
            ptr[n++] = *c;
    }
    ptr[n] = 0;
    lab_ok(json_doc_api.f64(d, ptr, &value));
    return value;
}

static int read_log(const lab *l, double value[STEPS][LOGGED]) {
    size_t n;
    int step = 0;
    char *text = lab_contents(l, "out/trainer_log.jsonl", &n);
    for (char *at = text; *at; at = strchr(at, '\n') + 1) {
        qfw_doc *d = NULL;
        lab_ok(json_parse(at, strcspn(at, "\n"), "log", 1, "E_JSON", NULL, &d));
        if (json_doc_api.kind(d, "/loss") != QFW_DOC_ABSENT) {
            assert_true(step < STEPS);
            for (int k = 0; k < LOGGED; k++) value[step][k] = value_of(d, "", logged[k].key);
            step++;
        }
        json_destroy(d);
    }
    mem_free(text);
    return step;
}

static void train_curve(lab *l, const char *more) {
    char keys[512];
    curve c;
    snprintf(keys, sizeof keys, "beta = %.17g\n%s", lab_number(l, "/train/beta"), more);
    char *trainer =
        mem_printf("per_device_train_batch_size = %.0f\ngradient_accumulation_steps = %.0f\n"
                   "max_steps = %.0f\nlearning_rate = %.17g\nlr_scheduler_type = cosine\n"
                   "warmup_steps = %.0f\nlogging_steps = 1\nsave_strategy = no\n[optimizer]\n"
                   "weight_decay = %.17g\n",
            lab_number(l, "/train/per_device_train_batch_size"),
            lab_number(l, "/train/gradient_accumulation_steps"), lab_number(l, "/train/max_steps"),
            lab_number(l, "/train/learning_rate"), lab_number(l, "/train/warmup_steps"),
            lab_number(l, "/train/weight_decay"));
    dpolab_run(l, "rows.jsonl", trainer, keys);
    curve_train(l, &c);
    mem_free(trainer);
}

static void compare_curve(const lab *l, double value[STEPS][LOGGED]) {
    for (int k = 0; k < LOGGED; k++) {
        double worst = 0, largest = 0;
        for (int s = 0; s < STEPS; s++) {
            char ptr[PTR_BYTES];
            snprintf(ptr, sizeof ptr, "/steps/%d", s);
            const double wanted = value_of(l->fixture, ptr, logged[k].key);
            worst = fmax(worst, fabs(value[s][k] - wanted));
            largest = fmax(largest, fabs(wanted));
        }
        print_message("%-20s off by %.1e at most, of %.3g\n", logged[k].key, worst, largest);
        assert_true(worst <= logged[k].bar * largest);
    }
}

static void training_matches_trl(void **state) {
    static double value[STEPS][LOGGED];
    (void)state;
    lab *l = dpolab_open();
    train_curve(l, "");
    assert_int_equal(read_log(l, value), STEPS);
    compare_curve(l, value);
    assert_true(fabs(value[0][0] - log(2)) < 1e-7);
    for (int k = 0; k < LOGGED; k++) /* rewards are exactly 0 at first */
        if (!strncmp(logged[k].key, "rewards/", 8)) assert_true(value[0][k] == 0);
    lab_close(l);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_match_trl),
        cmocka_unit_test(losses_match_trl),
        cmocka_unit_test(training_matches_trl),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

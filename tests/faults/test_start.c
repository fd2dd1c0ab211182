/* test_start.c -- what keeps a run from starting is said before it starts, and by --dry-run too;
 * output_dir belongs to one run at a time.
 *
 * The letters are those of cases.md.
 */
#define _DEFAULT_SOURCE
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/error.h"
#include "base/mem.h"
#include "files/file.h"

#include "../support/refusal.h"
#include "../support/temp.h"
#include "../support/test.h"
#include "../support/tiny.h"

/* Refused in the same words with --dry-run and without, but not with --plan. */
static void cannot_start(const char *what, int exit_code, const char *regex) {
    refused(what, "--dry-run", exit_code, regex);
    refused(what, NULL, exit_code, regex);
    assert_int_equal(case_run("--plan"), EXIT_OK);
}

static void a_model_that_cannot_be_read(void **state) {
    (void)state;
    tiny_make("case");
    assert_int_equal(case_run("--dry-run"), EXIT_OK);
    assert_false(dir_exists(temp_path("case/out")));
    assert_int_equal(unlink(temp_path("case/model/model.safetensors")), 0);
    cannot_start("no weights", EXIT_NOINPUT, "E_[A-Z_]+\\] .*/model.*safetensors");
    tiny_make("case");
    alter("model/config.json", "\"intermediate_size\": 96", "\"intermediate_size\": 128");
    cannot_start("shapes", EXIT_DATA, "E_MODEL_SHAPE\\] .*gate_up_proj.*: shape \\[192, 64\\]");
    tiny_make("case");
    alter("model/config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3");
    cannot_start("layers", EXIT_DATA, "E_MODEL_MISSING\\] .*model\\.layers\\.2\\.");
}

static void an_output_that_cannot_be(void **state) {
    (void)state;
    tiny_make("case");
    temp_text("case/out", "a file");
    cannot_start("a file", EXIT_OUTPUT, "E_OUT_CREATE\\] .*/out: ");
    alter("run.ini", "output_dir = out", "output_dir = out/of/it");
    cannot_start("below a file", EXIT_OUTPUT, "E_OUT_CREATE\\] .*/out.*: ");
}

static void k4_an_output_that_holds_a_run(void **state) {
    (void)state;
    tiny_make("case");
    trains("the first");
    assert_true(
        has_line(case_command.out, "^  1 step, ") && has_line(case_command.out, "^Done: 1 step, "));
    assert_false(file_exists(temp_path("case/out/.lock")));
    cannot_start("again", EXIT_OUTPUT, "E_OUT_EXISTS\\] .*/out: it holds a run already");
    assert_int_equal(case_run("--resume"), EXIT_OK);
    assert_true(has_line(case_command.out, "^Nothing left to do: .*/out/checkpoint-1 "));
}

/* Weights that this run did not make, and those that it reads. */
static void weights_are_not_overwritten(void **state) {
    static const char *const names[] = {"model.safetensors", "model-00001-of-00002.safetensors",
        "model.safetensors.index.json", "adapter_model.safetensors"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        tiny_make("case");
        char *name = mem_printf("case/out/%s", names[i]);
        assert_int_equal(dir_make(temp_path("case/out")), QFW_OK);
        temp_text(name, "somebody's");
        cannot_start(
            names[i], EXIT_OUTPUT, "E_OUT_EXISTS\\] .*/out: it holds an? (model|adapter) al");
        assert_int_equal(case_run("--resume"), EXIT_OUTPUT);
        assert_int_equal(case_run("--dry-run"), EXIT_OUTPUT);
        assert_int_equal(case_run("--set=run.overwrite_output_dir=true"), EXIT_OK);
        mem_free(name);
    }
    tiny_make("case");
    alter("run.ini", "output_dir = out", "output_dir = model\noverwrite_output_dir = true");
    cannot_start(
        "in place", EXIT_OUTPUT, "E_OUT_INPUT\\] .*/model: it is \\[model\\] path, too, .*");
}

static void a_checkpoint_that_is_not_there(void **state) {
    (void)state;
    tiny_make("case");
    alter("run.ini", "threads = 1", "threads = 1\nresume_from_checkpoint = /nope");
    cannot_start("/nope", EXIT_NOINPUT, "E_NOINPUT\\] /nope/MANIFEST\\.json: No such file");
    tiny_make("case");
    assert_int_equal(case_run("--resume"), EXIT_OK);
    assert_true(has_line(case_command.err, "/out holds no checkpoint to resume from"));
}

static void k1_two_runs(void **state) {
    (void)state;
    tiny_make("case");
    assert_int_equal(dir_make(temp_path("case/out")), QFW_OK);
    temp_text("case/out/.lock", "process 7 on elsewhere");
    const int other = open(temp_path("case/out/.lock"), O_RDWR | O_CLOEXEC);
    assert_true(other >= 0 && !flock(other, LOCK_EX | LOCK_NB));
    refused("locked", NULL, EXIT_OUTPUT,
        "E_OUT_LOCKED\\] .*/out: another run writes there \\(process 7 on elsewhere\\); hint: ");
    close(other); /* as when its holder is killed: the file stays, and keeps nobody out */
    trains("unlocked");
    assert_false(file_exists(temp_path("case/out/.lock")));
}

static void what_a_killed_run_left(void **state) {
    (void)state;
    tiny_make("case");
    assert_int_equal(dir_make(temp_path("case/out/checkpoint-9.tmp")), QFW_OK);
    assert_int_equal(dir_make(temp_path("case/out/checkpoint-x.tmp")), QFW_OK);
    temp_text("case/out/checkpoint-9.tmp/trainer.safetensors", "half");
    temp_text("case/out/checkpoint-x.tmp/mine", "not ours");
    trains("over it");
    assert_false(dir_exists(temp_path("case/out/checkpoint-9.tmp")));
    assert_true(dir_exists(temp_path("case/out/checkpoint-x.tmp")));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_model_that_cannot_be_read),
        cmocka_unit_test(an_output_that_cannot_be),
        cmocka_unit_test(k4_an_output_that_holds_a_run),
        cmocka_unit_test(weights_are_not_overwritten),
        cmocka_unit_test(a_checkpoint_that_is_not_there),
        cmocka_unit_test(k1_two_runs),
        cmocka_unit_test(what_a_killed_run_left),
    };
    return cmocka_run_group_tests_name("faults/start", tests, temp_make, temp_drop);
}

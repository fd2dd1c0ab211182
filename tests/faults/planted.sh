#!/bin/sh
# planted.sh [NAME...] -- the crash tests' own test. Each defect below is planted in a copy of the
# sources, the command is built from it, and the named test must fail. A defect that changes nothing
# any more is a failure, too.
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
tests=$(cd "${QFW_BUILD:-$root/build}/tests/faults" && pwd) || exit 2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/build"
(cd "$root" && cp -R CMakeLists.txt LICENSE framework plugins models trainers "$work") || exit 2
failed=0 caught=0
only=" $* "

build() {
    cmake -S "$work" -B "$work/build" -DQFW_TESTS=OFF >"$work/said" 2>&1 &&
        cmake --build "$work/build" -j 2 --target qfw >>"$work/said" 2>&1
}

run_test() { # PROGRAM TEST: with some of its points, and if they miss the defect with all
    for how in "-u QFW_TEST_LONG" QFW_TEST_LONG=1; do
        env $how QFW_BUILD="$work/build" QFW_PLUGIN_PATH="$work/build" \
            "$tests/test_$1" "$2" >"$work/said" 2>&1 || return 1
    done
}

# plant NAME FILE PROGRAM TEST SED...: with these changes to FILE, the test of the program fails.
plant() {
    name=$1 file=$work/framework/src/$2 program=$3 test=$4
    shift 4
    case $only in "  " | *" $name "*) ;; *) return ;; esac
    cp -p "$file" "$work/before"
    for change; do
        cp "$file" "$work/last"
        sed -i "$change" "$file"
        cmp -s "$file" "$work/last" && {
            echo "$name: '$change' changes nothing: plant it anew"
            failed=1
        }
    done
    if ! build; then
        echo "$name: does not build"
        cat "$work/said"
        failed=1
    elif run_test "$program" "$test"; then
        echo "$name: missed by test_$program $test"
        failed=1
    elif ! grep -q "FAILED.*$test" "$work/said"; then
        echo "$name: test_$program $test did not run"
        failed=1
    else
        echo "$name: caught by test_$program $test: $(sed -n 's/^ERROR: //p' "$work/said" |
            head -n 1 | cut -c 1-100)"
        caught=$((caught + 1))
    fi
    cp "$work/before" "$file"
}

build || { cat "$work/said"; exit 1; }
mkdir "$work/build/tests" && ln -s "$tests" "$work/build/tests/faults"
for plugin in "$tests"/../../libqfw_*.so; do ln -s "$plugin" "$work/build/"; done

files=files/file.c checkpoint=train/checkpoint.c
plant file-not-synced $files power the_power_fails \
    's/if (fsync(o->fd) != 0) status =/if (o->fd < 0) status =/'
plant no-folder-synced $files power the_power_fails \
    's/const int failed = fsync(fd) != 0 && errno != EINVAL;/const int failed = 0;/'
plant published-before-its-folder-is-synced $checkpoint power the_power_fails \
    's/QFW_TRY(dir_sync(folder));//'
plant log-not-synced train/step.c power the_power_fails \
    's/QFW_TRY(trainer_log_sync(l->log));//'
plant dropped-before-it-is-published $checkpoint crash killed_at_every_call \
    's/^ *if (status == QFW_OK) status = publish(/  (void)drop(r, (int64_t)p->step, 0, 0, -1);\n&/'
plant drops-the-newest-too $checkpoint crash killed_at_every_call \
    's/steps\[i\] > last ?/steps[i] >= last ?/'
plant keeps-one-too-many $checkpoint crash killed_at_every_call \
    's/kept++ < limit/kept++ <= limit/'
plant left-over-not-dropped train/step.c crash killed_at_every_call \
    's/QFW_TRY(checkpoint_prune(r, &l->p));//'
plant half-a-save-not-swept $checkpoint crash a_save_that_nobody_repeats \
    's/if (aside < 0) return QFW_OK;/if (aside < INT64_MAX) return QFW_OK;/'
plant hash-not-compared train/outputs.c crash a_flipped_bit \
    's/if (status == QFW_OK && strcmp(hex, wanted))/if (status == QFW_OK \&\& !*wanted)/'
plant manifest-not-last $checkpoint crash a_changed_file \
    '/^ *QFW_TRY(manifest_write_all(folder));$/d' \
    's/^ *QFW_TRY(outputs_resolved(r, folder));$/&\n    QFW_TRY(manifest_write_all(folder));/'
plant oldest-first $checkpoint crash killed_at_every_call \
    's/(\*steps)\[at - 1\] < step/(*steps)[at - 1] > step/'
plant optimizer-left-out $checkpoint crash killed_at_every_call \
    's/s < t->spec.n; s++/s < 0; s++/'
plant log-not-cut-back train/progress.c crash killed_at_every_call \
    's/if (append) QFW_TRY(cut_log(l->path, keep_step));/(void)cut_log;/'
plant written-in-place $files crash killed_again \
    's/mem_printf("%s.tmp", path)/mem_strdup(path)/'
plant replaced-before-its-successor-stands $checkpoint crash killed_while_it_replaces \
    's/QFW_TRY(rename_folder(path, before));/QFW_TRY(dir_remove(path));/'
plant error-of-write-ignored $files io_errors refused_at_every_call \
    's/if (put <= 0) return write_failed.*$/if (put <= 0) return QFW_OK;/'
plant error-of-sync-ignored $files io_errors refused_at_every_call \
    's/if (fsync(o->fd) != 0) status = .*$/(void)!fsync(o->fd);/'
plant error-of-close-ignored $files io_errors refused_at_every_call \
    's/if (close(o->fd) != 0 && status == QFW_OK) status = .*$/(void)close(o->fd);/'
plant error-of-rename-ignored $checkpoint io_errors refused_at_every_call \
    's/if (!rename(from, to)) return QFW_OK;/if (!rename(from, to) || *to) return QFW_OK;/'
plant interruption-not-retried $files io_errors refused_at_every_call \
    's/if (put < 0 && errno == EINTR) continue;//'
plant short-write-taken-for-whole $files io_errors refused_at_every_call \
    's/done += (size_t)put;/done = n;/'
plant lock-not-taken train/claim.c io_errors one_run_at_a_time \
    's/if (flock(\*fd, LOCK_EX | LOCK_NB) && /if (flock(*fd, LOCK_UN) \&\& /'
echo "$caught defects caught"
exit $failed

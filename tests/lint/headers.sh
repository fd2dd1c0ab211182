#!/bin/sh
# headers.sh [ROOT] -- every public header compiles alone, as C11 and as C++17, with each compiler
# that is here, and with enums as small as they get: a plugin's author chooses none of ours.
cd "${1:-.}" || exit 2
bad=0
check() { # HEADER COMPILER LANGUAGE STANDARD [flag]
    header=$1 what="$2 $4 ${5:-}"
    command -v "$2" >/dev/null || return 0
    printf '#include "qfw/%s"\n#include "qfw/%s"\n' "$header" "$header" |
        "$2" -x "$3" -std="$4" ${5:+"$5"} -Iframework/include -fsyntax-only \
            -Wall -Wextra -Wpedantic -Wundef -Werror - >"$report" 2>&1 && return 0
    echo "framework/include/qfw/$header:1: $what: $(grep -m 1 -E 'error' "$report")"
    bad=1
}
report=$(mktemp)
trap 'rm -f "$report"' EXIT
for path in framework/include/qfw/*.h; do
    for flag in "" -fshort-enums; do
        for cc in gcc clang; do check "${path##*/}" $cc c c11 $flag; done
        for cxx in g++ clang++; do check "${path##*/}" $cxx c++ c++17 $flag; done
    done
done
exit $bad

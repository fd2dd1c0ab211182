#!/bin/sh
# plugins.sh [ROOT] -- the plugins of docs/examples/plugins compile against the SDK alone, with each
# compiler that is here; and what a page of docs/ quotes as C stands in the file named in front of
# the block: "<!-- plugins/orpo.c -->", an example, or "<!-- framework/src/ops/scale.c -->".
sdk=$(cd "$(dirname "$0")/../../framework/include" && pwd) || exit 2
cd "${1:-.}" || exit 2
bad=0
report=$(mktemp)
trap 'rm -f "$report"' EXIT
for source in docs/examples/plugins/*.c; do
    for cc in gcc clang; do
        command -v $cc >/dev/null || continue
        $cc -std=c11 -fsyntax-only -I "$sdk" -Wall -Wextra -Wpedantic -Wshadow -Wconversion \
            -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wundef -Wdouble-promotion -Werror \
            "$source" >"$report" 2>&1 && continue
        sed -n "s,^\($source:[0-9]*\):[0-9:]* \(fatal \)*error,\1: $cc,p" "$report"
        bad=1
    done
    awk '/^#include "/ && !/"qfw\// { print FILENAME ":" FNR ": not of the SDK"; bad = 1 }
        END { exit bad }' "$source" || bad=1
done
for page in docs/*.md; do
    awk '
    function read_whole(path,   line, text) {
        while ((getline line < path) > 0) text = text line "\n"
        close(path)
        return text
    }
    /^<!-- plugins\/[a-z_]*\.c -->$/ { path = "docs/examples/" $2; next }
    /^<!-- (framework|tests)\/[a-z0-9_\/]*\.[ch] -->$/ { path = $2; next }
    /^```c$/ && path != "" { block = ""; start = FNR + 1; inside = 1; next }
    /^```$/ && inside {
        if (!index(read_whole(path), block)) {
            print FILENAME ":" start ": this does not stand in " path; bad = 1
        }
        inside = 0; path = ""
    }
    inside { block = block $0 "\n" }
    END { exit bad }' "$page" || bad=1
done
exit $bad

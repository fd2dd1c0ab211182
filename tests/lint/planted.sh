#!/bin/sh
# planted.sh -- the lints' own test. In tests/lint/planted every line that a lint must report says
# "breach"; a lint that reports one line less, or one more, has failed.
set -u
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -R "$here/planted/." "$work"
failed=0

compare() { # LINT PLACE: what it reports is what is marked there, as file:line
    (cd "$2" && grep -rn breach . | sed 's,^\./,,; s,\.mark:,:,' | cut -d: -f1,2) |
        LC_ALL=C sort -u >"$work/wanted"
    sh "$here/$1.sh" "$2" >"$work/said" 2>&1
    status=$?
    if [ $status -eq 77 ]; then echo "$1: skipped"; return; fi
    cut -d: -f1,2 "$work/said" | LC_ALL=C sort -u >"$work/got"
    if [ $status -eq 1 ] && [ -s "$work/wanted" ] && cmp -s "$work/wanted" "$work/got"; then
        echo "$1: caught all $(wc -l <"$work/wanted") breaches, and nothing else"
    else
        echo "$1: exit status $status; missed (-) or invented (+):"
        diff -U 0 "$work/wanted" "$work/got" | sed 1,2d
        cat "$work/said"
        failed=1
    fi
}

repeat() { # COUNT LINE
    awk -v n="$1" -v line="$2" 'BEGIN { for (i = 0; i < n; i++) print line }'
}

# Long files are made here, not kept.
plant_lengths() {
    src=$work/lengths/framework/src/base
    mkdir -p "$src" "$work/lengths/tests/lint"
    {
        echo "/* functions.c -- 80 lines are as many as a function may have. */"
        echo "static int fits(int a) {"; repeat 78 "    a++;"; echo "}"
        echo "static int too_long(int a) { /* breach */"; repeat 79 "    a++;"; echo "}"
        echo "qfw_status too_long_over_two_lines(int a, /* breach */"; echo "    int b) {"
        repeat 78 "    a++;"; echo "}"
        echo "static int excused(int a) {"; repeat 79 "    a++;"; echo "}"
        echo "static const int table[] = {"; repeat 118 "    1,"; echo "};"
    } >"$src/functions.c"
    {
        echo "static const int table[] = { /* breach */"; repeat 119 "    1,"; echo "};"
    } >"$src/table.c"
    { echo "/* breach */"; repeat 600 "int x;"; } >"$src/long.c"
    { echo "/* the longest that may be */"; repeat 599 "int x;"; } >"$src/fits.c"
    { echo "/* breach */"; repeat 200 "int x;"; } >"$src/long.h"
    {
        printf '/* %094d */\n' 0
        printf '/* breach %088d */\n' 0
        printf '/* %090d \303\251\303\250 */\n' 0
    } >"$src/columns.c"
    {
        echo "framework/src/base/functions.c excused 81 a planted function with a reason"
        echo "framework/src/base/functions.c nobody 90 breach: nothing needs this"
        echo "framework/src/base/functions.c breach: no limit, no reason"
    } >"$work/lengths/tests/lint/exceptions.txt"
}

plant_symbols() {
    for source in "$work"/symbols/*.c; do
        module="-shared -fPIC -fvisibility=hidden" built=${source%.c}.so
        case $source in
        */qfw.c) module=-rdynamic built=${source%.c} ;;
        *_library.c) module="$module -Wl,--no-as-needed -ljansson" ;;
        esac
        "${CC:-cc}" -w -Wl,-z,now -o "$built" "$source" $module -lm || exit 1
        grep breach "$source" >"$built.mark" # the report names the file that was built
        rm "$source"
    done
}

plant_clang() { # a command as CMake writes it, of a build with another compiler
    cat >"$work/clang/compile_commands.json" <<'END'
[
{
  "directory": ".",
  "command": "/usr/bin/ccache /usr/bin/cc -DTEXT=\\\"0.1\\\" -Wdouble-promotion -o n.o -c narrow.c",
  "file": "narrow.c"
}
]
END
}

# Another order of members, another number, another argument: each is another ABI.
try_layout() {
    mkdir -p "$work/layout/framework" "$work/layout/tests"
    for change in \
        's/uint32_t size, dtype, rank, flags;/uint32_t size, rank, dtype, flags;/' \
        's/QFW_E_SHAPE = -2,/QFW_E_SHAPE = -40,/' \
        's/const char \*key, double \*out/const char *key, float *out/'; do
        rm -rf "$work/layout/framework/include"
        cp -R "$root/framework/include" "$work/layout/framework/"
        cp -R "$root/tests/abi" "$work/layout/tests/"
        cat "$work"/layout/framework/include/qfw/*.h >"$work/before"
        sed -i "$change" "$work"/layout/framework/include/qfw/*.h
        cat "$work"/layout/framework/include/qfw/*.h | cmp -s - "$work/before" && {
            echo "layout: '$change' changes nothing: plant it anew"; failed=1; continue
        }
        sh "$here/layout.sh" "$work/layout" >/dev/null 2>&1
        case $? in
        1) echo "layout: caught $change" ;;
        77) echo "layout: skipped" ;;
        *) echo "layout: missed $change"; failed=1 ;;
        esac
    done
}

compare layers "$work/layers"
compare words "$work/words"
compare headers "$work/headers"
compare plugins "$work/plugins"
cp "$root/.clang-format" "$work/format/"
compare faults "$work/faults"
compare format "$work/format"
plant_lengths
compare lengths "$work/lengths"
plant_clang
compare clang "$work/clang"
plant_symbols
compare symbols "$work/symbols"
try_layout
exit $failed

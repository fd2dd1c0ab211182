#!/bin/sh
# layout.sh [ROOT] [--update] -- the SDK's structs and numbers, member by member, are what
# tests/abi/layout.golden says: with gcc, with clang, and with short enums. The program that
# prints them is made from the preprocessed headers, so nothing can be left out of it.
cd "${1:-.}" || exit 2
golden=tests/abi/layout.golden
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for header in framework/include/qfw/*.h; do
    echo "#include \"qfw/${header##*/}\""
done >"$work/all.h"

layout() { # COMPILER [flag]
    "$1" ${2:+"$2"} -std=c11 -Iframework/include -E "$work/all.h" >"$work/all.i" &&
        awk -f tests/abi/layout.awk "$work/all.i" >"$work/layout.c" &&
        "$1" ${2:+"$2"} -std=c11 -Iframework/include -I"$work" -o "$work/layout" "$work/layout.c" &&
        "$work/layout"
}

[ "$(getconf LONG_BIT)" = 64 ] || exit 77
tried=0 bad=0
for cc in gcc clang; do
    command -v $cc >/dev/null || continue
    for flag in "" -fshort-enums; do
        tried=1
        layout $cc $flag >"$work/$cc" || { echo "layout: $cc $flag cannot build it"; exit 1; }
        [ "${2:-}" != --update ] || cp "$work/$cc" $golden
        diff -u $golden "$work/$cc" || { echo "layout: $cc $flag differs from $golden"; bad=1; }
    done
done
[ $tried = 1 ] || exit 77
[ $bad = 0 ] || echo "layout: if the ABI was meant to change: sh tests/lint/layout.sh . --update"
exit $bad

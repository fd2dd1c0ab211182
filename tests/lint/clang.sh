#!/bin/sh
# clang.sh [BUILD] -- clang warns of nothing in what the build compiles with another compiler: the
# commands of compile_commands.json, run with clang as far as its warnings go.
cd "${1:-${QFW_BUILD:-build}}" || exit 2
command -v clang >/dev/null || exit 77
[ -e compile_commands.json ] || exit 77
said=$(sed -n 's/^ *"command": "\(.*\)",*$/\1/p' compile_commands.json |
    sed -E 's/\\(.)/\1/g; s/ -o [^ ]* -c / /
        s/^([^ ]*ccache )?[^ ]* /clang -Werror -fsyntax-only /' |
    xargs -d '\n' -n 1 -P "$(getconf _NPROCESSORS_ONLN)" sh -c 2>&1)
[ -z "$said" ] || { echo "$said" | grep -E ': (fatal )?error: ' || echo "$said"; exit 1; }

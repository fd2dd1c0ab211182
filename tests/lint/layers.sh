#!/bin/sh
# layers.sh [ROOT] -- who may include whom. Prints every breach and fails if there is one.
cd "${1:-.}" || exit 2
find framework plugins models trainers tests \( -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' \) \
    ! -path 'tests/lint/planted/*' 2>/dev/null \
    -exec grep -HnE '^[ \t]*#[ \t]*(include|import)' {} + |
LC_ALL=C awk '
BEGIN {
    split("assert complex ctype errno fenv float inttypes limits locale math setjmp signal" \
        " stdalign stdarg stdatomic stdbool stddef stdint stdio stdlib stdnoreturn string tgmath" \
        " time uchar wchar wctype", names, " ")
    for (i in names) libc["<" names[i] ".h>"]
    split("dirent dlfcn elf fcntl ftw glob libgen link poll pthread regex sched semaphore spawn" \
        " strings syslog termios unistd sys/ immintrin xmmintrin", names, " ")
    for (i in names) posix[names[i]]
    sdk["<stdarg.h>"]; sdk["<stddef.h>"]; sdk["<stdint.h>"]; sdk["<stdio.h>"]
    vendor["<ini.h>"]; vendor["<jansson.h>"]; vendor["<pcre2.h>"]; vendor["<utf8proc.h>"]
    vendor["<plot.h>"]
}
function bad(why) { print file ":" line ": " inc ": " why; breaches++ }
function exists(path,   got, ignored) {
    if (!(path in seen)) { got = (getline ignored < path); close(path); seen[path] = got >= 0 }
    return seen[path]
}
function system_header(   stem) { # <sys/...> by its folder, the others by their name
    if (inc in libc) return 1
    stem = inc; gsub(/[<>]|\.h>$/, "", stem); sub(/\/.*/, "/", stem)
    return stem in posix
}
{
    split($0, part, ":"); file = part[1]; line = part[2]
    folder = file; sub(/\/[^\/]*$/, "", folder)
    inc = $0; sub(/^[^#]*#[ \t]*(include|import)[ \t]*/, "", inc)
    match(inc, /^("[^"]*"|<[^>]*>)/); inc = RSTART ? substr(inc, 1, RLENGTH) : inc
    name = substr(inc, 2, length(inc) - 2)
    sdk_file = file ~ /^framework\/include\//
    plugin = file ~ /^(plugins|models|trainers)\// || file ~ /^tests\/badplugins\/[^\/]*$/ &&
        file !~ /\/test_/
    inside = file ~ /^framework\/(src|cli)\// || file ~ /^tests\// && !plugin

    if (inc !~ /^["<]/) bad("an include names its file, not a macro")
    else if (inc ~ /^"/) {
        if (name !~ /\.(h|cuh)"?$/) bad("only headers are included")
        else if (name ~ /^qfw\//) {
            if (!exists("framework/include/" name)) bad("no such public header")
        } else if (sdk_file) bad("a public header includes only qfw/ and <std{arg,def,int,io}.h>")
        else if (name !~ /\//) {
            if (!exists(folder "/" name)) bad("no such file in this folder")
        } else if (name ~ /^\.\.\/support\/[^\/]*$/ && file ~ /^tests\//) ;
        else if (name ~ /^[a-z0-9_]+\/[^\/]*$/ && inside) {
            if (!exists("framework/src/" name)) bad("no such file in framework/src")
        } else bad("a quoted include is qfw/... or a file in the same folder")
    } else if (sdk_file) {
        if (!(inc in sdk)) bad("a public header includes only qfw/ and <std{arg,def,int,io}.h>")
    } else if (inc in vendor) {
        if (file !~ /^framework\/src\/.*\.c$/) bad("only one core file may see it")
        else if (inc in wrapper && wrapper[inc] != file) bad("already wrapped by " wrapper[inc])
        else wrapper[inc] = file
    } else if (file ~ /^(models|trainers)\//) {
        if (!(inc in libc)) bad("models and trainers see only libc and libm")
    } else if (file ~ /^plugins\//) {
        if (name ~ /^(cmocka|qfw\/)/) bad("not a vendor SDK")
    } else if (!system_header() && !(inc == "<cmocka.h>" && file ~ /^tests\//)) {
        bad("only plugins/ may see a vendor SDK")
    }
}
END { exit breaches > 0 }'

#!/bin/sh
# lengths.sh [ROOT] -- lines of 100 columns, functions of 80 lines, tables of 120, files of 600,
# headers of 200. tests/lint/exceptions.txt allows more, by name and with a reason.
cd "${1:-.}" || exit 2
find framework plugins models trainers tests \
    \( -name '*.[ch]' -o -name '*.cu' -o -name '*.comp' -o -name '*.sh' -o -name '*.cmake' \
    -o -name CMakeLists.txt \) ! -path 'tests/lint/planted/*' 2>/dev/null | LC_ALL=C sort |
LC_ALL=C awk '
function bad(line, why) { print file ":" line ": " why; breaches++ }
function limit(rule, usual,   key) { # what this file, or this function of it, may have
    key = file " " rule
    if (!(key in allowed)) return usual
    used[key]
    return allowed[key]
}
function read_exceptions(path,   row, f) {
    while ((getline row < path) > 0) {
        rows++
        if (row ~ /^#/ || row == "") continue
        if (split(row, f, " ") < 4 || f[3] !~ /^[0-9]+$/) {
            print path ":" rows ": not \"path rule limit reason\""; breaches++; continue
        }
        allowed[f[1] " " f[2]] = f[3] + 0; at[f[1] " " f[2]] = rows
    }
    close(path)
}
function block_end(   n, is_function, name, most) {
    n = line - start + 1
    is_function = head ~ /\)[ \t]*\{/
    name = head; sub(/\(.*/, "", name); sub(/.*[ *]/, "", name)
    most = is_function ? limit(name, 80) : 120
    if (n > most)
        bad(start, (is_function ? "function " name : "table") " has " n " lines, of " most)
    start = 0
}
function check(path,   text, code, wide, continued) {
    file = path; line = start = continued = 0
    code = path ~ /\.(c|h|cu|comp)$/
    while ((getline text < path) > 0) {
        line++
        wide = text; gsub(/[\200-\277]/, "", wide) # a character counts once, whatever its bytes
        if (length(wide) > 100) bad(line, length(wide) " columns, of 100")
        if (!code) continue
        if (continued || text ~ /^#/) { continued = text ~ /\\$/; continue }
        if (!start && text ~ /^[A-Za-z_]/) { start = line; head = "" }
        if (!start) continue
        sub(/[ \t]*\/[*\/].*$/, "", text)
        if (head !~ /\{$/) head = head " " text
        if (text ~ /^\}/ || text ~ /^[A-Za-z_].*\{.*\}$/) block_end()
        else if (head !~ /\{$/ && text ~ /;$/) start = 0
    }
    close(path)
    most = path ~ /\.h$/ ? limit("header", 200) : limit("file", 600)
    if (line > most) bad(1, line " lines, of " most)
}
BEGIN { exceptions = "tests/lint/exceptions.txt"; read_exceptions(exceptions) }
{ check($0) }
END {
    for (key in allowed) if (!(key in used)) {
        print exceptions ":" at[key] ": " key ": nothing needs this exception any more"; breaches++
    }
    exit breaches > 0
}'

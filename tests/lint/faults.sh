#!/bin/sh
# faults.sh [ROOT] -- tests/faults/cases.md has a row for every case, and what a row names exists:
# an INI, or functions that their file defines and runs.
cd "${1:-.}/tests" || exit 2
LC_ALL=C awk -F '|' '
BEGIN {
    page = "faults/cases.md"
    last["A"] = 20; last["I"] = 4; last["B"] = 5; last["T"] = 8; last["C"] = 10; last["D"] = 10
    last["E"] = 6; last["K"] = 4
    while ((getline < page) > 0) {
        line++
        if ($0 ~ /^\| [A-Z][0-9]+ /) check_row($2, $4)
    }
    line = 1
    for (group in last) for (i = 1; i <= last[group]; i++)
        if (!(group i in seen)) bad("no row for " group i)
    exit breaches > 0
}
function bad(why) { print "tests/" page ":" line ": " why; breaches++ }
function trim(s) { gsub(/^ +| +$/, "", s); return s }
function check_row(name, tests,   n, i, part) {
    name = trim(name); tests = trim(tests); seen[name] = 1
    if (substr(name, 2) + 0 > last[substr(name, 1, 1)]) bad("no such case: " name)
    if (tests ~ /^Does not apply yet: .../) return
    n = split(tests, part, ";")
    if (!n) bad(name " has no test")
    for (i = 1; i <= n; i++) check_file(trim(part[i]))
}
function check_file(text,   file, names, n, i, name) {
    if (!match(text, /^`[^`]+`/)) { bad("no `file` in \"" text "\""); return }
    file = substr(text, 2, RLENGTH - 2)
    names = trim(substr(text, RLENGTH + 1))
    if (!read_file(file)) { bad("no file tests/" file); return }
    n = split(names, name, ",")
    if (!n && file !~ /\.ini$/) bad("no function of " file " is named")
    for (i = 1; i <= n; i++)
        if (!((file, trim(name[i])) in runs)) bad(file " runs no test " trim(name[i]))
}
function read_file(file,   text, got) { # runs[file, name]: defined, and in its list
    if (file in is_read) return is_read[file]
    is_read[file] = 0
    while ((got = (getline text < file)) > 0) {
        is_read[file] = 1
        if (match(text, /^static void [a-z0-9_]+\(void \*\*state\)/))
            defined[file, substr(text, 13, index(text, "(") - 13)] = 1
        else if (match(text, /(cmocka_unit_test[a-z_]*|TEST)\([a-z0-9_]+/)) {
            text = substr(text, RSTART, RLENGTH)
            sub(/.*\(/, "", text)
            if ((file, text) in defined) runs[file, text] = 1
        }
    }
    close(file)
    return is_read[file]
}'

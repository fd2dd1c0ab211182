#!/bin/sh
# words.sh [ROOT] -- calls and words that have no place where they stand, and files at the top level
# that do not belong there.
cd "${1:-.}" || exit 2
{
    if [ -e .git ]; then git ls-files | sed 's,/.*,,' | sort -u; else ls -A; fi | sed 's/^/top /'
    find framework plugins models trainers tests -name '*.[ch]' \
        ! -path 'tests/lint/planted/*' 2>/dev/null | LC_ALL=C sort | sed 's/^/code /'
    find Makefile CMakeLists.txt README.md .ci docs framework plugins models trainers tests \
        -type f \( -name '*.md' -o -name '*.ini' -o -name '*.sh' -o -name '*.cmake' \
        -o -name '*.txt' -o -name Makefile -o -name run -o -name packages -o -name pre-commit \) \
        ! -path 'tests/lint/planted/*' ! -path 'tests/golden/*' ! -name words.sh 2>/dev/null |
        LC_ALL=C sort | sed 's/^/text /'
} |
LC_ALL=C awk '
BEGIN {
    takes_memory = "malloc|calloc|realloc|reallocarray|aligned_alloc|posix_memalign" \
        "|strdup|strndup|asprintf|vasprintf"
    unsafe = "gets|strcpy|strcat|stpcpy|sprintf|vsprintf|strtok|atoi|atol|atoll|atof" \
        "|tmpnam|mktemp|alloca"
    to_terminal = "(fprintf|vfprintf|fputs|fputc|fwrite|write)[ \t]*\\(" \
        "[^;]*(stdout|stderr|STD(OUT|ERR)_FILENO)"
    top_level = "^(CMakeLists\\.txt|Makefile|README\\.md|LICENSE|\\.ci|\\.git|\\.clang-format" \
        "|\\.clang-tidy|\\.clangd|\\.gitignore|framework|plugins|models|trainers|tests|docs" \
        "|build|out|\\.cache|compile_commands\\.json)$"
    unfinished = "(^|[^A-Za-z0-9_])(TODO|FIXME|XXX|HACK)([^A-Za-z0-9_]|$)"
}
function bad(why) { print file ":" line ": " why; breaches++ }
function calls(names) { return code ~ ("(^|[^A-Za-z0-9_.>])(" names ")[ \t]*\\(") }
function strip(text,   out, c, i, n) { # code without comments and without what is inside quotes
    out = ""; n = length(text)
    for (i = 1; i <= n; i++) {
        c = substr(text, i, 1)
        if (comment) { if (substr(text, i, 2) == "*/") { comment = 0; i++ } }
        else if (quote) { if (c == "\\") i++; else if (c == quote) { quote = ""; out = out c } }
        else if (substr(text, i, 2) == "/*") { comment = 1; i++ }
        else if (substr(text, i, 2) == "//") break
        else { if (c == "\"" || c == "\047") quote = c; out = out c }
    }
    quote = ""
    return out
}
function check_code(   core, shipped) {
    core = file ~ /^framework\//; shipped = file !~ /^tests\//
    if (shipped && file !~ /^framework\/cli\//) {
        if (calls("exit|quick_exit|abort")) bad("only cli/ ends the process")
        if (file != "framework/src/base/log.c" &&
            (calls("printf|vprintf|puts|putchar|perror") || code ~ to_terminal))
            bad("only cli/ and log.c write to the terminal")
    }
    if (shipped && file != "framework/src/base/mem.c" && calls(takes_memory))
        bad(core ? "memory comes from base/mem.h" : "memory comes from host->heap_alloc")
    if (shipped && calls(unsafe)) bad("a call that cannot be used safely")
    if (shipped && calls("system|popen")) bad("no shell")
    if (!core && shipped && calls("signal|sigaction|setlocale|chdir|fesetround|dlopen"))
        bad("a plugin leaves the process as it is")
    if (code ~ /#[ \t]*pragma.*(FP_CONTRACT[ \t]+ON|optimize|fast.?math)/)
        bad("what a float expression means is not changed")
}
$1 == "top" {
    file = $2; line = 1
    if (file !~ top_level) bad("does not belong at the top level")
    next
}
{
    file = $2; line = 0; comment = 0
    while ((getline text < file) > 0) {
        line++
        if (text ~ unfinished) bad("do it, or say it in docs/")
        if ($1 == "text" && file ~ /(\.cmake|CMakeLists\.txt|Makefile)$/ &&
            text !~ /^[ \t]*#/ && text ~ /-Ofast|-ffast-math|use_fast_math|-funsafe-math/)
            bad("what a float expression means is not changed")
        if ($1 == "code") { code = strip(text); check_code() }
    }
    close(file)
}
END { exit breaches > 0 }'

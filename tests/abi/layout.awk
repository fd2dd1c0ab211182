# layout.awk -- from the preprocessed SDK, a C program that prints the offset, the size and the
# declaration of every struct member, and the value of every enumerator.

# Keep what the SDK's own headers say.
/^# [0-9]+ "/ { ours = $3 ~ /include\/qfw\//; next }
ours && NF { text = text " " $0 }

function trim(s) { gsub(/[ \t]+/, " ", s); sub(/^ /, "", s); sub(/ $/, "", s); return s }

# Cut `s` at every `mark` outside brackets, into cut[1..n].
function split_flat(s, mark, cut,   i, c, depth, n, from) {
    n = 0; depth = 0; from = 1
    for (i = 1; i <= length(s); i++) {
        c = substr(s, i, 1)
        if (index("([{", c)) depth++
        else if (index(")]}", c)) depth--
        else if (c == mark && !depth) { cut[++n] = trim(substr(s, from, i - from)); from = i + 1 }
    }
    if (trim(substr(s, from)) != "") cut[++n] = trim(substr(s, from))
    return n
}

function member_name(s) {
    if (match(s, /\(\*[A-Za-z_0-9]+\)/)) return substr(s, RSTART + 2, RLENGTH - 3)
    while (sub(/\[[^\]]*\] *$/, "", s)) ;
    match(s, /[A-Za-z_0-9]+ *$/)
    return trim(substr(s, RSTART, RLENGTH))
}

function struct_members(type, body,   members, names, n, m, i, j, name) {
    print "    printf(\"" type " %zu\\n\", sizeof(" type "));"
    n = split_flat(body, ";", members)
    for (i = 1; i <= n; i++) {
        m = split_flat(members[i], ",", names)
        for (j = 1; j <= m; j++) {
            name = member_name(names[j])
            print "    printf(\"    %zu %zu " (j == 1 ? "" : ", ") names[j] "\\n\", " \
                "offsetof(" type ", " name "), sizeof(((" type " *)0)->" name "));"
        }
    }
}

function enumerators(body,   items, n, i, name) {
    n = split_flat(body, ",", items)
    for (i = 1; i <= n; i++) {
        name = items[i]; sub(/[ =].*/, "", name)
        print "    printf(\"" name " = %lld\\n\", (long long)" name ");"
    }
}

function chunk(s,   open, body, type) {
    s = trim(s); open = index(s, "{")
    if (!open) return
    type = substr(s, 1, open - 1); body = substr(s, open + 1); sub(/\}[^}]*$/, "", body)
    if (type ~ /^enum /) { enumerators(body); return }
    if (type !~ /^(typedef )?struct [a-z_0-9]+ $/) return
    sub(/^typedef /, "", type)
    struct_members(trim(type), body)
}

END {
    print "#include <stddef.h>\n#include <stdio.h>\n#include \"all.h\"\nint main(void) {"
    depth = 0; from = 1
    for (i = 1; i <= length(text); i++) {
        c = substr(text, i, 1)
        if (c == "{") depth++
        else if (c == "}") depth--
        if (depth) continue
        # A function ends with its brace, everything else with a semicolon.
        if (c == ";" || (c == "}" && substr(text, from, i - from + 1) ~ /^[^{]*\) *\{/)) {
            chunk(substr(text, from, i - from + 1)); from = i + 1
        }
    }
    print "    return 0;\n}"
}

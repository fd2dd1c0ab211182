#!/bin/sh
# symbols.sh [BUILD] -- qfw exports nothing; a plugin exports its descriptor alone and needs nothing
# of qfw; models and trainers need nothing but libc and libm.
cd "${1:-${QFW_BUILD:-build}}" || exit 2
banned='abort|_?exit|quick_exit|signal|sigaction|setlocale|chdir'
banned="$banned|(__)?v?printf(_chk)?|puts|putchar|stdout"
bad=0
breach() { echo "$1:1: $2"; bad=1; }
# The linker's own marks, which a library on the line may ask for, name no code or data of ours.
marks='^(__bss_start|_edata|_end)$'
sanitizer='^(__(asan|ubsan|lsan|tsan|msan|sanitizer|odr_asan)|_ITM_|__gmon_start__|__cxa_finalize)'

joined() { paste -s -d ' ' -; }
exports() { # copies of libc's variables carry their version: they are not ours
    nm -D --defined-only "$1" | awk '$3 !~ /@/ { print $3 }' | grep -vE "$sanitizer" | joined
}
imports() { nm -D --undefined-only "$1" | awk '{ print $2 }' | grep -vE "$sanitizer"; }

check_plugin() {
    got=$(exports "$1")
    [ "$got" = qfw_plugin_abi0 ] || breach "$1" "exports '$got', wanted qfw_plugin_abi0 alone"
    got=$(imports "$1" | grep '^qfw_' | joined)
    [ -z "$got" ] || breach "$1" "needs $got of the host: plugins link nothing of qfw"
    got=$(imports "$1" | sed 's/@.*//' | grep -xE "$banned" | joined)
    [ -z "$got" ] || breach "$1" "calls $got: a plugin leaves the process and its output alone"
    got=$(readelf -d "$1" | grep -oE 'R(UN)?PATH|TEXTREL')
    [ -z "$got" ] || breach "$1" "has $got"
    readelf -d "$1" | grep -q 'BIND_NOW\|Flags:.* NOW' || breach "$1" "is not linked with -z now"
    readelf -SW "$1" | grep -q '\.note\.qfw' || breach "$1" "has no .note.qfw"
    case $1 in libqfw_model_* | libqfw_trainer_*)
        got=$(readelf -d "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' |
            grep -vE '^(libc|libm|ld-linux[^.]*|libasan|libubsan)\.so' | joined)
        [ -z "$got" ] || breach "$1" "needs $got: a model or trainer has libc and libm"
        ;;
    esac
}

for file in libqfw_*.so; do
    [ -e "$file" ] || { echo "no plugin in $PWD"; exit 2; }
    check_plugin "$file"
done
if [ -e qfw ] && ! nm -D qfw | grep -q __asan_init; then # clang's runtime exports itself
    got=$(exports qfw | tr ' ' '\n' | grep -vE "$marks" | joined)
    [ -z "$got" ] || breach qfw "exports $got: plugins must find nothing there"
fi
exit $bad

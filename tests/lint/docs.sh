#!/bin/sh
# docs.sh [ROOT] [--update] -- docs/ini.md is what the built command, in QFW_BUILD, says of itself.
cd "${1:-.}" || exit 2
[ -x "${QFW_BUILD:-}/qfw" ] || exit 77
page=$(mktemp)
trap 'rm -f "$page"' EXIT
{
    echo "# The INI"
    echo
    cat <<'END'
Made by `tests/lint/docs.sh . --update` from the option tables: `qfw help SECTION` prints the
same of one section, plugins' own among them.
Relative paths stand against the INI's folder; a comment begins a line with `;` or `#`, or
follows a value after a blank and `;`.
END
    echo
    echo '```'
    for section in run model adapter data trainer trainer.sft trainer.dpo optimizer backend \
        backend.cpu export generate rubric score evaluate pairs plugins; do
        "$QFW_BUILD/qfw" help "$section"
        echo
    done
    echo '```'
} >"$page" || exit 1
[ "${2:-}" != --update ] || cp "$page" docs/ini.md
diff -u docs/ini.md "$page" || { echo "docs/ini.md is not what qfw says: --update"; exit 1; }

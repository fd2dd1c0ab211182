#!/bin/sh
# demo.sh -- the main job on a tiny Phi-3: synthetic resumes, pretraining from scratch, QLoRA SFT of a scorer, and
# what it is worth on resumes that it has not seen. Everything lies in build/demo/ afterwards. Run by `make demo`.
set -eu
cd "$(dirname "$0")/../../.."
here=docs/examples/demo out=build/demo started=$(date +%s)

phase() { # TITLE
    now=$(date +%s)
    printf '\n=== %s  (%d s so far)\n\n' "$1" $((now - started))
}

rm -rf "$out"
mkdir -p "$out/data"
cp -r "$here/model" "$here/pretrain.ini" "$here/sft.ini" "$out/"

phase "1 of 3: resumes, made by $here/resumes.c"
"${CC:-cc}" -std=c11 -O2 -o "$out/resumes" "$here/resumes.c"
"$out/resumes" "$out/data" 2026
wc -l "$out"/data/*.jsonl

phase "2 of 3: a tiny Phi-3 from scratch on resume text: build/qfw --ini $out/pretrain.ini"
build/qfw --ini "$out/pretrain.ini"

phase "3 of 3: QLoRA SFT on scores and reasons: build/qfw --ini $out/sft.ini"
build/qfw --ini "$out/sft.ini"

phase "What it is worth: $out/data/test.jsonl, resumes that neither run has seen"
rows=$(wc -l <"$out/data/test.jsonl")
common=$(grep -o '"completion": " [0-5]' "$out/data/test.jsonl" | sort | uniq -c | sort -rn | awk 'NR == 1 { print $1, $NF }')
grep '"eval_loss"' "$out/sft/trainer_log.jsonl" | awk -v n="$rows" -v common="$common" '
function value(key) { # of this line
    match($0, "\"" key "\": [-+.0-9e]+")
    return substr($0, RSTART + length(key) + 4, RLENGTH - length(key) - 4) + 0
}
function wilson(p, sign,   z, m) { # 95 % interval of a share p of n
    z = 1.959964
    m = sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (p + z * z / (2 * n) + sign * z * m) / (1 + z * z / n)
}
{
    p = value("eval_first_token_accuracy")
    low[NR] = wilson(p, -1); high[NR] = wilson(p, 1)
    name = NR == 1 ? "base" : "after SFT"
    if (NR == 1) printf "  %-10s %12s %22s %20s\n", "", "eval loss", "right score", "95 % interval"
    printf "  %-10s %12.4f %21.1f%% %12.1f - %.1f%%\n", name, value("eval_loss"), 100 * p, 100 * low[NR], 100 * high[NR]
}
END {
    if (NR < 2) { print "  the log holds no two evaluations"; exit 1 }
    split(common, c, " ")
    printf "  %-10s %12s %21.1f%%   (for comparison)\n", "always " c[2], "", 100 * c[1] / n
    disjoint = low[NR] > high[1]
    printf "\n  %d rows (one a resume and skill); the intervals %s\n", n, disjoint ? "do not touch: SFT is better than the base" : "overlap: nothing is shown"
    exit !disjoint
}'
printf '  adapter    %s/sft/adapter_model.safetensors (loads in PEFT on %s/base)\n' "$out" "$out"
printf '  logs       %s/base/trainer_log.jsonl, %s/sft/trainer_log.jsonl\n' "$out" "$out"
printf '  in all     %d s\n' $(($(date +%s) - started))

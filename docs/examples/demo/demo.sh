#!/bin/sh
# demo.sh -- the main job on a tiny Phi-3: synthetic resumes, pretraining from scratch, QLoRA SFT of a scorer by a biased
# rater, preference pairs from its own answers, DPO, and what all that is worth on resumes that it has not seen.
# Everything lies in build/demo/ afterwards. Run by `make demo`.
set -eu
cd "$(dirname "$0")/../../.."
here=docs/examples/demo out=build/demo started=$(date +%s)

phase() { # TITLE
    now=$(date +%s)
    printf '\n=== %s  (%d s so far)\n\n' "$1" $((now - started))
}

rm -rf "$out"
mkdir -p "$out/data"
cp -r "$here/model" "$here"/*.ini "$out/"

phase "1 of 6: resumes, made by $here/resumes.c"
"${CC:-cc}" -std=c11 -O2 -o "$out/resumes" "$here/resumes.c"
"$out/resumes" "$out/data" 2026
wc -l "$out"/data/*.jsonl

phase "2 of 6: a tiny Phi-3 from scratch on resume text: build/qfw --ini $out/pretrain.ini"
build/qfw --ini "$out/pretrain.ini"

phase "3 of 6: QLoRA SFT on a biased rater's scores: build/qfw --ini $out/sft.ini"
build/qfw --ini "$out/sft.ini"
grep '"eval_loss"' "$out/sft/trainer_log.jsonl" | awk '
function value(key) { # of this line
    match($0, "\"" key "\": [-+.0-9e]+")
    return substr($0, RSTART + length(key) + 4, RLENGTH - length(key) - 4) + 0
}
NR == 1 { printf "\n  on rows that were not trained on   %12s %32s\n", "loss", "right token where the score stands" }
{ printf "    %-32s %12.4f %31.1f %%\n", NR == 1 ? "base" : "after SFT", value("eval_loss"), 100 * value("eval_first_token_accuracy") }'

phase "4 of 6: preference pairs from its own answers: build/qfw --ini $out/pairs.ini"
build/qfw --ini "$out/pairs.ini"
head -n 1 "$out/pairs/pairs.jsonl"

phase "5 of 6: DPO on them: build/qfw --ini $out/dpo.ini"
build/qfw --ini "$out/dpo.ini"

phase "6 of 6: base, SFT and DPO on resumes that no run has seen: build/qfw --ini $out/evaluate.ini"
build/qfw --ini "$out/evaluate.ini"
printf '  adapters   %s/sft, %s/dpo (load in PEFT on %s/base)\n' "$out" "$out" "$out"
printf '  in all     %d s\n' $(($(date +%s) - started))

#!/bin/sh
# Makes every fixture of tests/golden again.
# Usage: PYTHON=/path/to/venv/bin/python tests/parity/make_all.sh [topic...]
set -eu
cd "$(dirname "$0")"
export PYTHONHASHSEED=0 OMP_NUM_THREADS=1
all="synth quant4 logits generation lora_grads sft_curve full_curve dpo plugins torch_misc"
all="$all schedules dpo_table adamw8 packing assistant_only loraplus bf16 gguf"
topics=${*:-$all tokenizer small_tokenizers chat peft_io}
for topic in $topics; do
    echo "== $topic"
    "${PYTHON:-python3}" "make_$topic.py"
done

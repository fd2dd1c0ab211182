#!/bin/sh
# The plan's peak against the peak of the process, on a model of more than 1 GB with fresh weights:
#     QFW=BUILD/qfw sh tests/bench/plan_peak.sh fp32|nf4|full
# fp32 and nf4 train a LoRA on a frozen base, full trains everything. Two steps with a checkpoint;
# some minutes. Exit 0: they agree within 2 % + 32 MiB.
set -eu

kind=${1:-fp32}
qfw=${QFW:-build/qfw}
case $kind in
fp32) hidden=2048 inner=5632 layers=8 heads=16 tokens=512 adapter=lora more= ;;
full) hidden=1024 inner=2816 layers=16 heads=8 tokens=512 adapter=none more= ;;
nf4) hidden=2560 inner=8192 layers=24 heads=20 tokens=128 adapter=lora
    more='load_in_4bit = true
bnb_4bit_quant_type = nf4
bnb_4bit_use_double_quant = true' ;;
*) echo "plan_peak.sh: fp32, nf4 or full, found '$kind'" >&2; exit 64 ;;
esac

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/model"
cp tests/golden/tokenizer/bytefallback/tokenizer.json "$folder/model/"
cat >"$folder/model/config.json" <<EOF
{"model_type": "phi3", "vocab_size": 32064, "hidden_size": $hidden, "intermediate_size": $inner,
 "num_hidden_layers": $layers, "num_attention_heads": $heads, "num_key_value_heads": $heads,
 "hidden_act": "silu", "rms_norm_eps": 1e-5, "max_position_embeddings": 4096,
 "original_max_position_embeddings": 4096, "rope_theta": 10000.0, "tie_word_embeddings": false,
 "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2, "torch_dtype": "float32"}
EOF
awk -v n="$tokens" 'BEGIN {
    for (row = 0; row < 4; row++) {
        printf "{\"input_ids\": ["
        for (i = 0; i < n; i++) printf "%s%d", i ? ", " : "", (i * 7919 + row * 31) % 32000 + 3
        print "]}"
    }
}' >"$folder/rows.jsonl"
cat >"$folder/run.ini" <<EOF
[run]
output_dir = out
[model]
path = model
init = random
$more
[adapter]
use = $adapter
r = 16
lora_alpha = 32
target_modules = q_proj, k_proj, v_proj, o_proj
[data]
train = rows.jsonl
max_length = $tokens
[trainer]
per_device_train_batch_size = 1
max_steps = 2
logging_steps = 1
EOF

"$qfw" --ini "$folder/run.ini" >"$folder/stdout" || { cat "$folder/stdout"; exit 1; }
sed -n '/^Plan/,/peak/p; /^Done/,$p' "$folder/stdout"
awk -F'[:,]' -v kind="$kind" '
    /"plan_bytes"/ { plan = $2 / 1048576 }
    /"process_peak_bytes"/ { peak = $2 / 1048576 }
    END {
        allowed = 0.02 * plan + 32
        off = peak > plan ? peak - plan : plan - peak
        good = plan > 0 && peak > 0 && off <= allowed
        printf "%s: plan %.1f MiB, peak %.1f MiB, apart %.1f MiB, allowed %.1f MiB: %s\n", kind, \
            plan, peak, off, allowed, good ? "ok" : "MISMATCH"
        exit !good
    }' "$folder/out/manifest.json"

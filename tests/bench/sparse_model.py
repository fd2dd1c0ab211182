"""A Phi-3 of full size without its bytes: python3 sparse_model.py mini|medium FOLDER TOKENIZER.

Shards are sparse bf16 safetensors files: the first MiB of each tensor holds values of both signs,
the rest are holes, norms are ones. So memory and time of a run are those of the real model on a
disk that could not hold it. Beside them: config.json, the tokenizer, rows of 1024 tokens, run.ini.
"""
import json
import os
import random
import shutil
import struct
import sys

SIZES = {"mini": (3072, 8192, 32, 32, 32), "medium": (5120, 17920, 40, 40, 10)}
VOCAB, MIB, LAYERS_PER_SHARD, TOKENS = 32064, 1 << 20, 8, 1024


def tensors(kind):
    """One list of (name, shape) per shard."""
    hidden, inner, layers, heads, kv_heads = SIZES[kind]
    shards = [[("model.embed_tokens.weight", [VOCAB, hidden])]]
    for i in range(layers):
        if i % LAYERS_PER_SHARD == 0 and i:
            shards.append([])
        at = f"model.layers.{i}."
        qkv = hidden // heads * (heads + 2 * kv_heads)
        shards[-1] += [
            (at + "input_layernorm.weight", [hidden]),
            (at + "self_attn.qkv_proj.weight", [qkv, hidden]),
            (at + "self_attn.o_proj.weight", [hidden, hidden]),
            (at + "post_attention_layernorm.weight", [hidden]),
            (at + "mlp.gate_up_proj.weight", [2 * inner, hidden]),
            (at + "mlp.down_proj.weight", [hidden, inner]),
        ]
    shards[-1] += [("model.norm.weight", [hidden]), ("lm_head.weight", [VOCAB, hidden])]
    return shards


def random_values(n):
    """n bytes of bf16 between 2^-10 and 2^-5 of both signs."""
    draw = random.Random(1)
    high = bytes(draw.choice(b"\x3b\x3c\xbb\xbc") for _ in range(4096))
    out = bytearray(draw.randbytes(n))
    out[1::2] = (high * (n // 8192 + 1))[: len(out[1::2])]
    return bytes(out)


def write_shard(path, shard, values):
    header, at = {}, 0
    for name, shape in shard:
        size = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        f.truncate(8 + len(text) + at)
        for name, shape in shard:
            first, past = header[name]["data_offsets"]
            f.seek(8 + len(text) + first)
            f.write(b"\x80\x3f" * shape[0] if len(shape) == 1 else values[: past - first])


def write_json(path, value):
    with open(path, "w") as f:
        json.dump(value, f)


def write_model(kind, folder, tokenizer):
    hidden, inner, layers, heads, kv_heads = SIZES[kind]
    os.makedirs(folder + "/model")
    shutil.copy(tokenizer, folder + "/model/tokenizer.json")
    write_json(folder + "/model/config.json", {
        "model_type": "phi3", "vocab_size": VOCAB, "hidden_size": hidden,
        "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "hidden_act": "silu", "rms_norm_eps": 1e-5,
        "max_position_embeddings": 4096, "original_max_position_embeddings": 4096,
        "rope_theta": 10000.0, "tie_word_embeddings": False, "bos_token_id": 1,
        "eos_token_id": 2, "pad_token_id": 2, "torch_dtype": "bfloat16"})
    shards, where, values = tensors(kind), {}, random_values(MIB)
    for i, shard in enumerate(shards):
        name = f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        write_shard(f"{folder}/model/{name}", shard, values)
        where.update({tensor: name for tensor, _ in shard})
    write_json(folder + "/model/model.safetensors.index.json",
               {"metadata": {}, "weight_map": where})


def main():
    if len(sys.argv) != 4 or sys.argv[1] not in SIZES:
        sys.exit("usage: sparse_model.py mini|medium FOLDER tokenizer.json")
    kind, folder, tokenizer = sys.argv[1:]
    write_model(kind, folder, tokenizer)
    with open(folder + "/rows.jsonl", "w") as f:
        for row in range(2):
            ids = [(i * 7919 + row * 31) % 32000 + 3 for i in range(TOKENS)]
            f.write(json.dumps({"input_ids": ids}) + "\n")
    with open(folder + "/run.ini", "w") as f:
        f.write("""[run]
output_dir = out
[model]
path = model
load_in_4bit = true
bnb_4bit_quant_type = nf4
bnb_4bit_use_double_quant = true
[adapter]
use = lora
r = 16
lora_alpha = 32
target_modules = q_proj, k_proj, v_proj, o_proj
[data]
train = rows.jsonl
max_length = 1024
[trainer]
per_device_train_batch_size = 1
gradient_checkpointing = full
bf16 = true
max_steps = 1
logging_steps = 1
save_strategy = no
""")


if __name__ == "__main__":
    main()

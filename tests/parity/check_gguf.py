"""Reads qfw's GGUF files with the gguf package and compares them with the safetensors that they were made from. By hand:

    VENV/bin/python check_gguf.py --model OUT/model-q8_0.gguf --merged OUT [--adapter OUT/adapter.gguf --peft ADAPTER]

VENV has gguf, numpy, safetensors and torch. Exits 0 when names, shapes, types, keys and values are what llama.cpp's converters write.
"""

import argparse
import json
import math
import pathlib

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, quants
from gguf.constants import MODEL_ARCH, MODEL_ARCH_NAMES
from gguf.tensor_mapping import get_tensor_name_map
from gguf.utility import size_label
from safetensors.torch import load_file


def field(reader, key):
    f = reader.get_field(key)
    return None if f is None else f.contents()


def load_folder(folder):
    out = {}
    for path in sorted(pathlib.Path(folder).glob("*.safetensors")):
        out |= {k: v.float().numpy() for k, v in load_file(path).items()}
    return out


def check_keys(reader, config):
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    heads = config["num_attention_heads"]
    original = config.get("original_max_position_embeddings") or rope.get("original_max_position_embeddings") or config["max_position_embeddings"]
    part = config.get("partial_rotary_factor") or rope.get("partial_rotary_factor") or 1.0
    wanted = {"general.architecture": "phi3", "general.type": "model", "phi3.context_length": config["max_position_embeddings"],
              "phi3.rope.scaling.original_context_length": original, "phi3.embedding_length": config["hidden_size"],
              "phi3.feed_forward_length": config["intermediate_size"], "phi3.block_count": config["num_hidden_layers"],
              "phi3.attention.head_count": heads, "phi3.attention.head_count_kv": config.get("num_key_value_heads", heads),
              "phi3.rope.dimension_count": int(part * config["hidden_size"]) // heads,
              "phi3.attention.sliding_window": config.get("sliding_window") or 0, "general.quantization_version": 2}
    for key, value in wanted.items():
        assert field(reader, key) == value, (key, field(reader, key), value)
    for key, value in (("phi3.attention.layer_norm_rms_epsilon", config["rms_norm_eps"]),
                       ("phi3.rope.freq_base", config.get("rope_theta") or rope["rope_theta"])):
        assert math.isclose(field(reader, key), value, rel_tol=1e-6), key
    if rope.get("long_factor"):
        scale = config["max_position_embeddings"] / original
        wanted_factor = math.sqrt(1 + math.log(scale) / math.log(original)) if scale > 1 else 1.0
        assert math.isclose(field(reader, "phi3.rope.scaling.attn_factor"), wanted_factor, rel_tol=1e-6)
        for t in reader.tensors:
            if t.name.startswith("rope_factors_"):
                np.testing.assert_array_equal(t.data, np.float32(rope[t.name.split("_")[2].split(".")[0] + "_factor"]))


def check_tokens(reader, folder, vocab):
    data = json.loads((folder / "tokenizer.json").read_text())
    config = json.loads((folder / "tokenizer_config.json").read_text()) if (folder / "tokenizer_config.json").exists() else {}
    tokens, types = field(reader, "tokenizer.ggml.tokens"), field(reader, "tokenizer.ggml.token_type")
    assert len(tokens) == len(types) == vocab
    texts = dict(data["model"]["vocab"]) | {t["content"]: t["id"] for t in data["added_tokens"]}
    for text, i in texts.items():
        assert tokens[i] == text, (i, tokens[i], text)
    for t in data["added_tokens"]:
        assert types[t["id"]] == (3 if t["special"] else 4), t
    spm = data["model"].get("byte_fallback")
    assert field(reader, "tokenizer.ggml.model") == ("llama" if spm else "gpt2")
    if spm:
        scores = field(reader, "tokenizer.ggml.scores")
        made = [texts["".join(m) if isinstance(m, list) else m.replace(" ", "", 1)] for m in data["model"]["merges"]]
        order = [scores[i] for i in made if types[i] == 1]
        assert all(a >= b for a, b in zip(order, order[1:])), "scores do not fall with the merges"
        assert all(types[texts[f"<0x{b:02X}>"]] == 6 for b in range(256) if f"<0x{b:02X}>" in texts)
    else:
        assert len(field(reader, "tokenizer.ggml.merges")) == len(data["model"]["merges"])
    for name, key in (("bos_token", "bos_token_id"), ("eos_token", "eos_token_id"), ("pad_token", "padding_token_id")):
        text = config.get(name)
        text = text["content"] if isinstance(text, dict) else text
        assert field(reader, "tokenizer.ggml." + key) == (texts[text] if text else None), name
    template = folder / "chat_template.jinja"
    assert field(reader, "tokenizer.chat_template") == (template.read_text() if template.exists() else config.get("chat_template"))


def check_model(path, merged):
    reader, merged = GGUFReader(path), pathlib.Path(merged)
    config, weights = json.loads((merged / "config.json").read_text()), load_folder(merged)
    check_keys(reader, config)
    check_tokens(reader, merged, config["vocab_size"])
    names = get_tensor_name_map(MODEL_ARCH.PHI3, config["num_hidden_layers"])
    assert field(reader, "general.architecture") == MODEL_ARCH_NAMES[MODEL_ARCH.PHI3]
    found = {t.name: t for t in reader.tensors}
    assert field(reader, "general.size_label") == size_label(sum(int(t.n_elements) for t in reader.tensors), 0, 0, 0)
    exact = worst = 0
    for name, w in weights.items():
        t = found.pop(names.get_name(name, try_suffixes=(".weight",)))
        assert list(t.shape)[::-1] == list(w.shape), (name, t.shape, w.shape)
        if w.ndim < 2:
            assert t.tensor_type == GGMLQuantizationType.F32
        packed = quants.quantize(w, t.tensor_type)
        assert np.array_equal(np.asarray(packed).view(np.uint8).ravel(), np.asarray(t.data).view(np.uint8).ravel()), name
        exact += 1
        worst = max(worst, float(np.abs(quants.dequantize(t.data, t.tensor_type).reshape(w.shape) - w).max()))
    assert all(n.startswith("rope_factors_") for n in found), found
    print(f"{path}: {exact} tensors byte for byte what gguf makes of {merged}; off by {worst:.2e} at most; keys and tokenizer agree")


def check_adapter(path, peft):
    reader, peft = GGUFReader(path), pathlib.Path(peft)
    config, weights = json.loads((peft / "adapter_config.json").read_text()), load_folder(peft)
    names = get_tensor_name_map(MODEL_ARCH.PHI3, 256)
    assert field(reader, "general.type") == "adapter" and field(reader, "adapter.type") == "lora"
    alpha, found, worst = field(reader, "adapter.lora.alpha"), {t.name: t for t in reader.tensors}, 0
    for key in weights:
        if ".lora_A." not in key:
            continue
        module = key.removeprefix("base_model.model.").split(".lora_A.")[0]
        a, b = weights[key], weights[key.replace(".lora_A.", ".lora_B.")]
        match = lambda d, x: next((v for k, v in (d or {}).items() if module.endswith(k)), x)
        r, own = match(config.get("rank_pattern"), config["r"]), match(config.get("alpha_pattern"), config["lora_alpha"])
        scale = own / math.sqrt(r) if config.get("use_rslora") else own / r
        base = names.get_name(module) + ".weight"
        ga, gb = found.pop(base + ".lora_a"), found.pop(base + ".lora_b")
        rank = int(gb.shape[0])  # ggml's ne[0]: llama.cpp scales by alpha / that
        mine = alpha / rank * (gb.data.reshape(b.shape[0], rank) @ ga.data.reshape(rank, a.shape[1]))
        worst = max(worst, float(np.abs(mine - scale * (b @ a)).max() / max(1e-30, np.abs(scale * (b @ a)).max())))
    assert not found and worst < 1e-5, (found, worst)
    print(f"{path}: the same function as {peft}, within {worst:.2e}")


def main():
    parser = argparse.ArgumentParser()
    for name in ("--model", "--merged", "--adapter", "--peft"):
        parser.add_argument(name)
    args = parser.parse_args()
    if args.model:
        check_model(args.model, args.merged)
    if args.adapter:
        check_adapter(args.adapter, args.peft)


if __name__ == "__main__":
    main()

"""lora_grads: loss and gradients of one batch, with LoRA on an NF4 and on an fp32 base, and without adapter."""

import json

import common
import torch
import synth

RULES = synth.rules(embed=0.5, head=0.2, linear=0.15, lora_b=0.02)
LORA = {"r": 8, "lora_alpha": 16, "lora_dropout": 0.0, "bias": "none", "task_type": "CAUSAL_LM",
        "target_modules": ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]}
GQA = common.phi3_config()
SMALL = common.phi3_config(vocab_size=192, hidden_size=64, intermediate_size=128, num_attention_heads=2, num_key_value_heads=1)
SHAPES = [(20, 6), (33, 11), (12, 1)]  # row length, masked prompt length
WHOLE = ["model.embed_tokens.weight", "model.layers.0.self_attn.qkv_proj.weight", "model.layers.1.mlp.down_proj.weight",
         "model.layers.0.input_layernorm.weight", "model.norm.weight"]


def batch(vocab):
    """Right-padded rows; labels -100 on the prompt and on the padding."""
    rows = [synth.tokens(f"lora_grads.row{i}", n, vocab - 1) for i, (n, _) in enumerate(SHAPES)]
    width = max(n for n, _ in SHAPES)
    ids = [r + [vocab - 1] * (width - len(r)) for r in rows]
    labels = [[-100] * p + r[p:] + [-100] * (width - n) for r, (n, p) in zip(rows, SHAPES)]
    mask = [[1] * n + [0] * (width - n) for n, _ in SHAPES]
    record = [{"input_ids": r, "labels": [-100] * p + r[p:]} for r, (_, p) in zip(rows, SHAPES)]
    return {"input_ids": torch.tensor(ids), "labels": torch.tensor(labels), "attention_mask": torch.tensor(mask)}, record


def backward(model, inputs):
    """Sum of cross entropy over trained tokens, divided by their (shifted) number; returns loss and count."""
    model.train()
    count = int((inputs["labels"][:, 1:] != -100).sum())
    loss = model(**inputs, num_items_in_batch=torch.tensor(count)).loss
    loss.backward()
    return float(loss), count


def lora_case(name, model, arrays):
    from peft import LoraConfig, get_peft_model
    model.requires_grad_(False)
    quant = common.quant_record(model)
    model = get_peft_model(model, LoraConfig(**LORA))
    common.fill(model, RULES, common.plain_name, "lora_")
    inputs, rows = batch(GQA["vocab_size"])
    loss, count = backward(model, inputs)
    norms = {}
    for key, p in model.named_parameters():
        if p.requires_grad:
            key = common.plain_name(key)
            arrays[f"{name}/{key}"] = p.grad.numpy()
            norms[key] = float(p.grad.double().norm())
    assert len(norms) == 16
    return {"name": name, "config": "gqa.json", "lora": LORA, "quantised": quant, "rows": rows, "loss": loss,
            "trained_tokens": count, "grad_norm": sum(v * v for v in norms.values()) ** 0.5, "grad_norms": norms}


def full_case(name, config, arrays):
    model = common.build_model(config, RULES)
    inputs, rows = batch(config["vocab_size"])
    loss, count = backward(model, inputs)
    norms = {}
    for key, p in model.named_parameters():
        norms[key] = float(p.grad.double().norm())
        if key in WHOLE or key == "lm_head.weight":
            arrays[f"{name}/{key}"] = p.grad.numpy()
    return {"name": name, "config": f"{name}.json", "rows": rows, "loss": loss, "trained_tokens": count,
            "grad_norm": sum(v * v for v in norms.values()) ** 0.5, "grad_norms": norms}


def main():
    folder = common.topic("lora_grads")
    threads = common.threads()
    arrays = {}
    tied = {**SMALL, "tie_word_embeddings": True}
    cases = [lora_case("lora_fp32", common.build_model(GQA, RULES), arrays),
             lora_case("lora_nf4", common.nf4_model(GQA, RULES), arrays),
             full_case("full_untied", SMALL, arrays), full_case("full_tied", tied, arrays)]
    for name, config in (("gqa", GQA), ("full_untied", SMALL), ("full_tied", tied)):
        (folder / f"{name}.json").write_text(json.dumps(config, indent=2) + "\n")
    common.write_arrays(folder / "grads.safetensors", arrays)
    common.write_json(folder / "lora_grads.json", {"versions": common.versions(), "threads": threads, "synth": RULES, "cases": cases}, 4)


if __name__ == "__main__":
    main()

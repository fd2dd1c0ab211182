"""peft_io: adapters saved by PEFT (formula values) and the logits of base + adapter."""

import json

import common
import checks
import torch
import synth

RULES = synth.rules(embed=0.5, head=0.2, linear=0.15, lora_b=0.05)
CONFIG = common.phi3_config()
PLAIN = {"lora_dropout": 0.0, "bias": "none", "task_type": "CAUSAL_LM"}
ADAPTERS = {
    "plain": {"r": 8, "lora_alpha": 16, "target_modules": ["qkv_proj", "o_proj"]},
    "pattern": {"r": 4, "lora_alpha": 8, "target_modules": ["qkv_proj", "o_proj"], "rank_pattern": {"qkv_proj": 12}, "alpha_pattern": {"qkv_proj": 24}},
    "rslora_bf16": {"r": 4, "lora_alpha": 8, "target_modules": ["o_proj", "down_proj"], "use_rslora": True},
}
LENGTH = 24


def save(model, where, dtype):
    """PeftModel.save_pretrained without its README; the base has no path worth keeping."""
    model.peft_config["default"].base_model_name_or_path = "base"
    if dtype is not None:
        for name, p in model.named_parameters():
            if "lora_" in name:
                p.data = p.data.to(dtype)
    model.save_pretrained(str(where))
    (where / "README.md").unlink()
    (where / "adapter_model.safetensors").chmod(0o644)


def main():
    from peft import LoraConfig, PeftModel, get_peft_model
    folder = common.topic("peft_io")
    threads = common.threads()
    tokens = [synth.tokens(f"peft_io.row{i}", LENGTH, CONFIG["vocab_size"] - 1) for i in range(2)]
    arrays, records = {}, []
    for name, options in ADAPTERS.items():
        model = get_peft_model(common.build_model(CONFIG, RULES), LoraConfig(**options, **PLAIN))
        common.fill(model, RULES, common.plain_name, "lora_")
        save(model, folder / name, torch.bfloat16 if name.endswith("bf16") else None)
        record = {"name": name, "adapter": name, "positions": [0, LENGTH // 2] + list(range(LENGTH - 4, LENGTH)), "max_abs_logit": {}}
        for base_name, make in (("fp32", common.build_model), ("nf4", common.nf4_model)):
            base = make(CONFIG, RULES)
            without = checks.forward(base, tokens)
            logits = checks.forward(PeftModel.from_pretrained(base, str(folder / name)), tokens)
            assert abs(logits - without).max() > 0.1  # the adapter does something
            arrays[f"{name}.{base_name}"] = logits[:, record["positions"]]
            record["max_abs_logit"][base_name] = float(abs(logits).max())
        records.append(record)
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    common.write_json(folder / "tokens.json", tokens)
    common.write_arrays(folder / "logits.safetensors", arrays)
    common.write_json(folder / "peft_io.json", {"versions": common.versions(), "threads": threads, "synth": RULES, "cases": records})


if __name__ == "__main__":
    main()

"""plugins: what docs/examples/plugins computes, by the Python stack: logits of two tiny Llamas, the gradients of ORPO's
loss on one batch of pairs, and six steps of Lion on it."""

import json

import common
import torch
import synth

RULES = synth.rules(embed=0.5, head=0.2, linear=0.15)
STRETCH = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
           "original_max_position_embeddings": 64}
BASE = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 512, "hidden_size": 64,
        "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4,
        "hidden_act": "silu", "rms_norm_eps": 1e-6, "max_position_embeddings": 256, "rope_theta": 10000.0,
        "rope_scaling": None, "attention_bias": False, "mlp_bias": False, "attention_dropout": 0.0,
        "tie_word_embeddings": False, "initializer_range": 0.02, "bos_token_id": 1, "eos_token_id": 3,
        "pad_token_id": 511, "torch_dtype": "float32", "use_cache": False}
STRETCHED = {**BASE, "num_key_value_heads": 2, "head_dim": 32, "tie_word_embeddings": True}
for key in ("rope_theta", "rope_scaling", "torch_dtype"):  # as transformers 5 writes them
    del STRETCHED[key]
STRETCHED.update(dtype="float32", rope_parameters={"rope_theta": 10000.0, **STRETCH})
CASES = {"plain": BASE, "stretched": STRETCHED}
LENGTH = 70
TRAIN = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "max_steps": 6, "learning_rate": 1e-3,
         "max_grad_norm": 1.0, "weight_decay": 5.0, "beta1": 0.9, "beta2": 0.99, "beta": 0.1}
WHOLE = ["model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.k_proj.weight",
         "model.layers.1.mlp.gate_proj.weight", "model.layers.0.input_layernorm.weight", "model.norm.weight"]


def logits(config):
    ids = [synth.tokens(f"plugins.{row}", LENGTH, config["vocab_size"] - 1) for row in range(2)]
    with torch.no_grad():
        return ids, common.build_model(config, RULES).eval()(torch.tensor(ids)).logits.numpy()


def orpo(beta):
    """TRL's loss without the rest of its trainer."""
    from types import SimpleNamespace
    from trl.experimental.orpo import ORPOTrainer
    trainer = ORPOTrainer.__new__(ORPOTrainer)
    trainer.is_encoder_decoder, trainer.padding_value, trainer.aux_loss_enabled = False, BASE["pad_token_id"], False
    trainer.beta = beta
    trainer.accelerator = SimpleNamespace(device="cpu", gather_for_metrics=lambda x: x)
    return trainer.get_batch_loss_metrics


def pad(rows, value):
    width = max(map(len, rows))
    return torch.tensor([r + [value] * (width - len(r)) for r in rows])


def collate(pairs):
    batch = {}
    for which in ("chosen", "rejected"):
        whole = [p["prompt_ids"] + p[which + "_ids"] for p in pairs]
        batch[which + "_input_ids"] = pad(whole, BASE["pad_token_id"])
        batch[which + "_attention_mask"] = pad([[1] * len(w) for w in whole], 0)
        batch[which + "_labels"] = pad([[-100] * len(p["prompt_ids"]) + p[which + "_ids"] for p in pairs], -100)
    return batch


def lion_step(model, states):
    """The update of the paper's Algorithm 2; no decay on norms."""
    lr, b1, b2 = TRAIN["learning_rate"], TRAIN["beta1"], TRAIN["beta2"]
    with torch.no_grad():
        for name, p in model.named_parameters():
            m = states.setdefault(name, torch.zeros_like(p))
            update = (b1 * m + (1 - b1) * p.grad).sign()
            p.mul_(1 - lr * TRAIN["weight_decay"] * (p.ndim > 1)).sub_(lr * update)
            m.mul_(b2).add_(p.grad, alpha=1 - b2)


def train(config, pairs, arrays):
    model = common.build_model(config, RULES).train()
    loss_of, states, steps, at = orpo(TRAIN["beta"]), {}, [], 0
    n, parts = TRAIN["per_device_train_batch_size"], TRAIN["gradient_accumulation_steps"]
    for step in range(TRAIN["max_steps"]):
        model.zero_grad()
        total, kept = 0.0, []
        for _ in range(parts):
            loss, metrics = loss_of(model, collate(pairs[at:at + n]))
            (loss / parts).backward()
            total += float(loss.detach()) / parts
            kept.append(metrics)
            at = (at + n) % len(pairs)
        if not step:
            arrays.update({name: p.grad.numpy().copy() for name, p in model.named_parameters() if name in WHOLE})
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), TRAIN["max_grad_norm"])
        lion_step(model, states)
        means = {k: sum(m[k] for m in kept) / parts for k in kept[0] if not k.startswith("logits/")}
        steps.append({"loss": total, "grad_norm": float(norm), **means})
        print(steps[-1])
    return steps


def main():
    folder = common.topic("plugins")
    threads = common.threads()
    pairs = json.loads((common.GOLDEN / "dpo/dpo.json").read_text())["sets"]["rows"]
    arrays, records = {}, []
    positions = [0, 5, 31] + list(range(LENGTH - 3, LENGTH))
    for name, config in CASES.items():
        (folder / f"{name}.json").write_text(json.dumps(config, indent=2) + "\n")
        ids, values = logits(config)
        arrays[name] = values[:, positions]
        records.append({"name": name, "tokens": ids, "positions": positions})
    steps = train(STRETCHED, pairs, arrays)
    common.write_arrays(folder / "plugins.safetensors", arrays)
    common.write_json(folder / "plugins.json", {"versions": common.versions(), "threads": threads, "synth": RULES,
                                                "cases": records, "train": TRAIN, "steps": steps}, 4)


if __name__ == "__main__":
    main()

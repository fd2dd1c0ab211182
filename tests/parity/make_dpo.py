"""dpo: rows as TRL's DPOTrainer tokenises them, every loss with its gradient, and 50 steps of training, on an NF4 base
whose reference is the adapter that training starts from."""

import json
import os
import tempfile

import common
import torch
import synth

CONFIG = common.phi3_config(vocab_size=512, hidden_size=64, intermediate_size=128, bos_token_id=1, eos_token_id=3,
                            pad_token_id=511)
RULES = synth.rules(embed=0.5, head=0.2, linear=0.15, lora_b=0.05)
LORA = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "bias": "none", "task_type": "CAUSAL_LM",
        "target_modules": ["qkv_proj", "o_proj"]}
TRAIN = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4, "max_steps": 50, "learning_rate": 1e-3,
         "lr_scheduler_type": "cosine", "warmup_steps": 5, "weight_decay": 0.01, "max_grad_norm": 1.0, "seed": 42,
         "beta": 0.1}
PAIRS = 24  # six micro-batches an epoch: every second window has two of them instead of four
KEPT = ("step", "loss", "grad_norm", "learning_rate", "epoch", "num_tokens", "entropy", "mean_token_accuracy",
        "logits/chosen", "logits/rejected", "logps/chosen", "logps/rejected", "rewards/accuracies", "rewards/chosen",
        "rewards/margins", "rewards/rejected")
WORDS = ("java python sql review team lead wrote tested shipped five seven years built led spoke report clear poor strong "
         "weak score skill none some Java! resume: evidence, communication").split()
SMOOTHED = {"exo_pair": 0.1, "robust": 0.1, "aot": 0.1, "aot_unpaired": 0.1}
LOSSES = ["sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired",
          "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm"]
FIRST = "base_model.model.model.layers.0.self_attn.qkv_proj"


def text(name, fewest, most):
    words = synth.words(name, most + 1).tolist()
    return " ".join(WORDS[w % len(WORDS)] for w in words[1:1 + fewest + words[0] % (most - fewest + 1)])


def make_rows():
    return [{"prompt": text(f"dpo.{i}.prompt", 4, 12) + "\n", "chosen": text(f"dpo.{i}.chosen", 2, 9),
             "rejected": text(f"dpo.{i}.rejected", 2, 9)} for i in range(PAIRS)]


def spelled_rows():
    """Sets of rows that differ in how a prompt is given; each becomes a data set of its own."""
    say = lambda role, content: {"role": role, "content": content}
    return {
        "ended": [{"prompt": "score: ", "chosen": "five<|endoftext|>", "rejected": "none"},
                  {"prompt": "a b", "chosen": "c d", "rejected": " e"},
                  # The last id of the prompt is another one before one of the completions.
                  {"prompt": "score r", "chosen": "eview", "rejected": "x"},
                  {"prompt": "score te", "chosen": "am", "rejected": "x"},
                  {"prompt": "", "chosen": "clear", "rejected": "poor"}],
        "implicit": [{"chosen": "skill: java five", "rejected": "skill: java seven"},
                     {"chosen": "skill: python \u00e9 a", "rejected": "skill: python \u00e8 a"}],
        "messages": [{"prompt": [say("user", "java?")], "chosen": [say("assistant", "five")],
                      "rejected": [say("assistant", "none at all")]},
                     {"prompt": [say("user", "a"), say("assistant", "b"), say("user", "c")],
                      "chosen": [say("assistant", "d")], "rejected": [say("assistant", "e")]}],
        "implicit_messages": [{"chosen": [say("user", "java?"), say("assistant", "five")],
                               "rejected": [say("user", "java?"), say("assistant", "six")]}],
    }


def tokenizer():
    """The small byte-fallback tokenizer, with the chat template of Phi-3-mini."""
    from transformers import PreTrainedTokenizerFast
    models = os.environ.get("QFW_TOKENIZERS", str(common.HERE.parents[2] / "shared/data/tokenizers"))
    with open(f"{models}/phi-3-mini/tokenizer_config.json", encoding="utf-8") as f:
        template = json.load(f)["chat_template"]
    made = PreTrainedTokenizerFast(tokenizer_file=str(common.GOLDEN / "tokenizer/bytefallback/tokenizer.json"),
                                   bos_token="<s>", eos_token="<|endoftext|>", pad_token="<|placeholder2|>")
    made.chat_template = template
    return made


def plain(name):
    return common.plain_name(name).replace(".ref.", ".")


def set_adapters(model, policy_prefix):
    """Reference and policy by formula, fp32; the policy's B under names with the prefix."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_" not in name:
                continue
            own = policy_prefix if ".default." in name and "lora_B" in name else ""
            p.data = torch.from_numpy(synth.tensor(RULES, own + plain(name), p.shape))


def make_trainer(rows, out, policy_prefix="", **more):
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from trl import DPOConfig, DPOTrainer
    model = get_peft_model(common.nf4_model(CONFIG, RULES), LoraConfig(**LORA))
    args = DPOConfig(output_dir=out, use_cpu=True, bf16=False, report_to=[], save_strategy="no", logging_steps=1,
                     disable_tqdm=True, gradient_checkpointing=False, **{**TRAIN, **more})
    trainer = DPOTrainer(model=model, args=args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer())
    set_adapters(trainer.model, policy_prefix)
    return trainer


def tokenised(dataset):
    return [{k: row[k] for k in ("prompt_ids", "chosen_ids", "rejected_ids")} for row in dataset]


def loss_cases():
    """name, losses, weights, label smoothing, beta, divergence, ld_alpha."""
    case = lambda name, types, **o: {"name": name, "loss_type": types, "loss_weights": [1.0] * len(types),
                                     "label_smoothing": 0.0, "beta": 0.1, "f_divergence_type": "reverse_kl", "ld_alpha": None, **o}
    cases = [case(t, [t], label_smoothing=SMOOTHED.get(t, 0.0)) for t in LOSSES]
    cases += [case(f"{t}_steep", [t], label_smoothing=SMOOTHED.get(t, 0.0), beta=1.5) for t in ("sigmoid", "hinge", "discopop", "ipo")]
    cases += [case(f"sigmoid_{d}", ["sigmoid"], f_divergence_type=d) for d in ("forward_kl", "js_divergence", "alpha_divergence")]
    cases += [case("ipo_js_divergence", ["ipo"], f_divergence_type="js_divergence"),
              case("sum", ["sigmoid", "bco_pair", "sft"], loss_weights=[0.8, 0.2, 1.5]),
              case("ld_alpha", ["sigmoid"], ld_alpha=0.4),
              case("conservative", ["aot_unpaired"], label_smoothing=0.2)]
    return cases


def apply_case(trainer, c):
    trainer.loss_types, trainer.loss_weights = c["loss_type"], c["loss_weights"]
    trainer.label_smoothing, trainer.beta = c["label_smoothing"], c["beta"]
    trainer.f_divergence_type, trainer.ld_alpha = c["f_divergence_type"], c["ld_alpha"]


def losses(rows, out):
    trainer = make_trainer(rows, out, "dpo_policy.")
    trainer.model.train()
    trained = [(plain(n), p) for n, p in trainer.model.named_parameters() if p.requires_grad]
    examples = [trainer.train_dataset[i] for i in range(4)]
    arrays, records = {}, []
    for c in loss_cases():
        apply_case(trainer, c)
        # One pair at a time, aot_unpaired is conservative DPO, which TRL's sigmoid no longer is.
        batches = [[e] for e in examples] if c["name"] == "conservative" else [examples]
        trainer.model.zero_grad()
        value = 0.0
        for b in batches:
            loss = trainer.compute_loss(trainer.model, trainer.data_collator(b)) / len(batches)
            loss.backward()
            value += float(loss.detach())
        record = {k: v for k, v in c.items() if v is not None}
        if c["name"] == "conservative":
            record["loss_type"] = ["sigmoid"]
        record["loss"] = value
        record["grad_norms"] = {n: float(p.grad.norm()) for n, p in trained}
        records.append(record)
        for n, p in trained:
            if n.startswith(FIRST):
                arrays[f"{c['name']}/{n}"] = p.grad.numpy().copy()
        print(c["name"], value)
    return records, arrays


def curve(rows, out):
    trainer = make_trainer(rows, out)
    quant = common.quant_record(trainer.model.base_model.model)
    trainer.train()
    steps = [{k: log[k] for k in KEPT} for log in trainer.state.log_history if "learning_rate" in log]
    for s in steps:
        print(s["step"], s["loss"], s["grad_norm"], s["rewards/margins"])
    sums = {plain(n): [float(p.data.double().sum()), float(p.data.double().norm())]
            for n, p in trainer.model.named_parameters() if p.requires_grad}
    return steps, quant, sums


def main():
    threads = common.threads()
    rows = make_rows()
    folder = common.topic("dpo")
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    (folder / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    with tempfile.TemporaryDirectory() as out:
        sets = {"rows": tokenised(make_trainer(rows, out).train_dataset)}
        for name, more in spelled_rows().items():
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in more))
            sets[name] = tokenised(make_trainer(more, out).train_dataset)
        records, arrays = losses(rows, out)
        steps, quant, sums = curve(rows, out)
    common.write_arrays(folder / "grads.safetensors", arrays)
    common.write_json(folder / "dpo.json", {
        "versions": common.versions(), "threads": threads, "synth": RULES, "lora": LORA, "train": TRAIN, "sets": sets,
        "quantised": quant, "losses": records, "steps": steps, "final_sum_and_norm": sums})


if __name__ == "__main__":
    main()

"""sft_curve: 50 optimizer steps of TRL's SFTTrainer, LoRA on an NF4 base, fp32."""

import argparse
import json
import tempfile

import common
import torch
import curves
import synth

RULES = synth.rules(embed=0.5, head=0.2, linear=0.15, lora_b=0.0)
CONFIG = common.phi3_config()
LORA = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "bias": "none", "task_type": "CAUSAL_LM",
        "target_modules": ["qkv_proj", "o_proj"]}
TRAIN = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4, "max_steps": 50, "learning_rate": 5e-3,
         "lr_scheduler_type": "cosine", "warmup_steps": 10, "weight_decay": 0.01, "max_grad_norm": 1.0, "seed": 42}
ROWS = (42, 12, 60)  # count, shortest, longest


def tokenizer(vocab):
    """The trainer wants one for its special ids; no text is ever tokenised."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast
    words = {f"t{i}": i for i in range(vocab)}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="t0")), unk_token="t0",
                                   bos_token=f"t{vocab - 3}", eos_token=f"t{vocab - 2}", pad_token=f"t{vocab - 1}")


def trained(model):
    return [(common.plain_name(n), p.data) for n, p in model.named_parameters() if p.requires_grad]


def train(rows, lora=LORA, dtype="float32", **more):
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    class Trainer(curves.Recorder, SFTTrainer):
        pass

    model = common.nf4_model(CONFIG, RULES, dtype)
    quant = common.quant_record(model)
    with tempfile.TemporaryDirectory() as out:
        args = SFTConfig(output_dir=out, use_cpu=True, bf16=dtype == "bfloat16", report_to=[], save_strategy="no", logging_steps=1,
                         disable_tqdm=True, gradient_checkpointing=False, max_length=None, **TRAIN, **more)
        trainer = Trainer(model=model, args=args, train_dataset=Dataset.from_list(rows), peft_config=LoraConfig(**lora),
                          processing_class=tokenizer(CONFIG["vocab_size"]))
        for _, p in trainer.model.named_parameters():
            if p.requires_grad:
                p.data = p.data.float()  # undo the bf16 cast of adapters on a 4-bit base
        common.fill(trainer.model, RULES, common.plain_name, "lora_")
        trainer.start_recording(rows)
        trainer.train()
        return trainer.steps(), quant, curves.weight_sums(trained(trainer.model)), trainer.args


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--print-only", action="store_true", help="train and print, write nothing")
    only = parser.parse_args().print_only
    threads = common.threads()
    rows = curves.make_rows("sft_curve", ROWS[0], CONFIG["vocab_size"], *ROWS[1:])
    steps, quant, sums, args = train(rows)
    for s in steps:
        print(s["step"], s["loss"], s["grad_norm"], s["learning_rate"])
    if only:
        return
    folder = common.topic("sft_curve")
    curves.write_rows(folder / "rows.jsonl", rows)
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    adam = {"optim": str(args.optim.value), "adam_beta1": args.adam_beta1, "adam_beta2": args.adam_beta2, "adam_epsilon": args.adam_epsilon}
    common.write_json(folder / "sft_curve.json", {
        "versions": common.versions(), "threads": threads, "synth": RULES, "lora": LORA, "train": {**TRAIN, **adam},
        "quantised": quant, "steps": steps, "final_sum_and_norm": sums})


if __name__ == "__main__":
    main()

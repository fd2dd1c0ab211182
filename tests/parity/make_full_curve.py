"""full_curve: 20 optimizer steps of transformers' Trainer on every parameter, untied and tied, fp32."""

import json
import tempfile

import common
import curves
import synth

RULES = synth.rules(embed=0.5, head=0.2, linear=0.15)
UNTIED = common.phi3_config(vocab_size=192, hidden_size=64, intermediate_size=128, num_attention_heads=2, num_key_value_heads=1)
CASES = {"untied": UNTIED, "tied": {**UNTIED, "tie_word_embeddings": True}}
TRAIN = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "max_steps": 20, "learning_rate": 2e-3,
         "lr_scheduler_type": "linear", "warmup_steps": 4, "weight_decay": 0.1, "max_grad_norm": 1.0, "seed": 42}
ROWS = (26, 8, 40)  # 7 micro-batches an epoch, so every fourth window is short


def train(config, rows):
    from datasets import Dataset
    from transformers import Trainer, TrainingArguments

    class Recording(curves.Recorder, Trainer):
        pass

    with tempfile.TemporaryDirectory() as out:
        args = TrainingArguments(output_dir=out, use_cpu=True, bf16=False, report_to=[], save_strategy="no",
                                 logging_steps=1, disable_tqdm=True, **TRAIN)
        trainer = Recording(model=common.build_model(config, RULES), args=args, train_dataset=Dataset.from_list(rows),
                            data_collator=curves.collate(config["pad_token_id"]))
        trainer.start_recording(rows)
        trainer.train()
        decay = sorted(trainer.get_decay_parameter_names(trainer.model))
        groups = {"decay": decay, "no_decay": sorted(n for n, _ in trainer.model.named_parameters() if n not in decay)}
        adam = {"optim": str(args.optim.value), "adam_beta1": args.adam_beta1, "adam_beta2": args.adam_beta2, "adam_epsilon": args.adam_epsilon}
        sums = curves.weight_sums((n, p.data) for n, p in trainer.model.named_parameters())
        return {"train": {**TRAIN, **adam}, **groups, "steps": trainer.steps(), "final_sum_and_norm": sums}


def main():
    folder = common.topic("full_curve")
    threads = common.threads()
    rows = curves.make_rows("full_curve", ROWS[0], UNTIED["vocab_size"], *ROWS[1:])
    curves.write_rows(folder / "rows.jsonl", rows)
    for name, config in CASES.items():
        result = train(config, rows)
        for s in result["steps"]:
            print(name, s["step"], s["loss"], s["grad_norm"], s["learning_rate"])
        (folder / f"{name}.json").write_text(json.dumps(config, indent=2) + "\n")
        common.write_json(folder / f"{name}_curve.json", {"versions": common.versions(), "threads": threads, "synth": RULES, **result})


if __name__ == "__main__":
    main()

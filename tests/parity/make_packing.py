"""packing: 50 optimizer steps of SFTTrainer with packing="bfd", on the rows of sft_curve: the table of
tests/trainers/test_packing.c. Attention is eager, which transformers cuts at the restarts of the positions."""

import pathlib
import tempfile

import common
import curves
import make_sft_curve as sft

TRAIN = {**sft.TRAIN, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
LENGTH = 96


def packs_of(dataset, rows):
    """The indices of the rows in each pack."""
    index = {tuple(r["input_ids"]): i for i, r in enumerate(rows)}
    for ids, lengths in zip(dataset["input_ids"], dataset["seq_lengths"]):
        starts = [sum(lengths[:i]) for i in range(len(lengths))]
        yield [index[tuple(ids[at:at + n])] for at, n in zip(starts, lengths)]


def train(rows):
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    model = common.nf4_model(sft.CONFIG, sft.RULES)
    assert model.config._attn_implementation == "eager"
    with tempfile.TemporaryDirectory() as out:
        args = SFTConfig(output_dir=out, use_cpu=True, bf16=False, report_to=[], save_strategy="no", logging_steps=1,
                         disable_tqdm=True, gradient_checkpointing=False, packing=True, packing_strategy="bfd",
                         max_length=LENGTH, **TRAIN)
        trainer = SFTTrainer(model=model, args=args, train_dataset=Dataset.from_list(rows),
                             peft_config=LoraConfig(**sft.LORA), processing_class=sft.tokenizer(sft.CONFIG["vocab_size"]))
        for _, p in trainer.model.named_parameters():
            if p.requires_grad:
                p.data = p.data.float()  # undo the bf16 cast of adapters on a 4-bit base
        common.fill(trainer.model, sft.RULES, common.plain_name, "lora_")
        packs = list(packs_of(trainer.train_dataset, rows))
        trainer.train()
        return [h for h in trainer.state.log_history if "learning_rate" in h], packs


def main():
    common.threads()
    rows = curves.make_rows("sft_curve", sft.ROWS[0], sft.CONFIG["vocab_size"], *sft.ROWS[1:])
    logs, packs = train(rows)
    versions = common.versions()
    lines = [f"/* packing_table.h -- made by tests/parity/make_packing.py with trl {versions['trl']}: the rows of each",
             " * pack, in order; loss, gradient norm and epoch of each step. */", "/* clang-format off */",
             "static const int packs[] = {"]
    lines += ["    " + "".join(f"{i}, " for i in pack) + "-1," for pack in packs] + ["};"]
    lines += ["static const double packing_steps[][3] = {"]
    for s in logs:
        print(s["step"], s["loss"], s["grad_norm"], s["epoch"])
        lines.append(f"    {{{s['loss']!r}, {s['grad_norm']!r}, {s['epoch']!r}}},")
    (pathlib.Path(common.HERE).parent / "trainers" / "packing_table.h").write_text("\n".join([*lines, "};", "/* clang-format on */", ""]))


if __name__ == "__main__":
    main()

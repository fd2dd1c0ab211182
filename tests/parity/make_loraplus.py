"""loraplus: 30 optimizer steps of SFTTrainer with PEFT's LoRA+ optimizer, on the rows of sft_curve: a table of
tests/trainers/test_loraplus.c."""

import pathlib

import common
import curves
import make_sft_curve as sft
import torch

RATIO, STEPS = 16, 30


def main():
    from peft.optimizers import create_loraplus_optimizer
    from trl import SFTTrainer

    def create_optimizer(self, model=None):
        self.optimizer = create_loraplus_optimizer(self.model, torch.optim.AdamW, lr=self.args.learning_rate,
                                                   loraplus_lr_ratio=RATIO, loraplus_weight_decay=self.args.weight_decay)
        return self.optimizer

    SFTTrainer.create_optimizer = create_optimizer
    common.threads()
    rows = curves.make_rows("sft_curve", sft.ROWS[0], sft.CONFIG["vocab_size"], *sft.ROWS[1:])
    sft.TRAIN.update(max_steps=STEPS, learning_rate=5e-4)
    steps, _, _, _ = sft.train(rows)
    versions = common.versions()
    lines = [f"/* loraplus_table.h -- made by tests/parity/make_loraplus.py with peft {versions['peft']}: loss and",
             " * gradient norm of each step. */", "static const double loraplus_steps[][2] = {"]
    for s in steps:
        print(s["step"], s["loss"], s["grad_norm"])
        lines.append(f"    {{{s['loss']!r}, {s['grad_norm']!r}}},")
    (pathlib.Path(common.HERE).parent / "trainers" / "loraplus_table.h").write_text("\n".join([*lines, "};", ""]))


if __name__ == "__main__":
    main()

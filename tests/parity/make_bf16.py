"""bf16: 50 optimizer steps of SFTTrainer on a model loaded in bf16 (NF4 with compute dtype bf16, bf16 autocast, fp32 adapters), on the rows
of sft_curve; and the loss scales of torch's GradScaler: a table of tests/trainers/test_half.c."""

import pathlib

import common
import curves
import make_sft_curve as sft
import torch

# 1: an update whose gradients are not finite.
FOUND = "1101" + "0" * 5 + "1" + "0" * 9 + "1" + "0" * 8


def scales():
    """The scale before each update, with torch's defaults but for a short interval."""
    scaler, out = torch.amp.GradScaler("cpu", growth_interval=4), []
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    for found in FOUND:
        out.append(float(scaler.get_scale()) if out else 65536.0)
        scaler.scale(weight.sum()).backward()
        if found == "1":
            weight.grad.fill_(float("inf"))
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    return out


def main():
    common.threads()
    rows = curves.make_rows("sft_curve", sft.ROWS[0], sft.CONFIG["vocab_size"], *sft.ROWS[1:])
    steps, _, _, _ = sft.train(rows, dtype="bfloat16")
    versions = common.versions()
    lines = [f"/* half_table.h -- made by tests/parity/make_bf16.py with trl {versions['trl']} and torch {versions['torch']}: loss and",
             " * gradient norm of each step; the loss scale before each update, and whether it fails. */", "/* clang-format off */",
             "static const double bf16_steps[][2] = {"]
    for s in steps:
        print(s["step"], s["loss"], s["grad_norm"])
        lines.append(f"    {{{s['loss']!r}, {s['grad_norm']!r}}},")
    lines += ["};", f'static const char scaler_found[] = "{FOUND}";', "static const double scaler_scales[] = {"]
    lines += [f"    {s!r}," for s in scales()]
    (pathlib.Path(common.HERE).parent / "trainers" / "half_table.h").write_text("\n".join([*lines, "};", ""]))


if __name__ == "__main__":
    main()

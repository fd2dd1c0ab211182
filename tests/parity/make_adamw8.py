"""adamw8: 50 optimizer steps of SFTTrainer with bitsandbytes' 8-bit AdamW, on the rows of sft_curve: the table of
tests/trainers/test_adamw8.c.

bitsandbytes rounds to the nearest code on CUDA; on a CPU it looks codes up in a table of 65,536 entries, which knows no
second moment below 1.5e-5 of a block's largest. So the run is made twice: with exact rounding, and as it is."""

import pathlib

import common
import curves
import make_sft_curve as sft
import torch

LORA = {**sft.LORA, "r": 64, "lora_alpha": 64}  # tensors of 4096 values and more, which is where 8 bits begin


def nearest(a, code, absmax_out, out, block):
    """Exact, the upper one of two equally near, as QUANT8 is defined."""
    flat = torch.nn.functional.pad(a.reshape(-1), (0, -a.numel() % block)).reshape(-1, block)
    absmax = flat.abs().amax(1)
    x = torch.where(absmax[:, None] > 0, flat / absmax[:, None], flat).double()
    upper = torch.searchsorted(code.double(), x, right=True).clamp(1, 255)
    low, high = code.double()[upper - 1], code.double()[upper]
    index = torch.where(x - low < high - x, upper - 1, upper)
    out.copy_(index.reshape(-1)[:a.numel()].reshape(a.shape))
    absmax_out.copy_(absmax)


def curve(rows, round_exactly):
    import bitsandbytes.backends.cpu.ops as cpu
    as_it_is = cpu._quant_blockwise_fp32_direct
    if round_exactly:
        cpu._quant_blockwise_fp32_direct = nearest
    steps, _, _, _ = sft.train(rows, LORA, optim="adamw_bnb_8bit")
    cpu._quant_blockwise_fp32_direct = as_it_is
    return steps


def main():
    common.threads()
    rows = curves.make_rows("sft_curve", sft.ROWS[0], sft.CONFIG["vocab_size"], *sft.ROWS[1:])
    exact, table = curve(rows, True), curve(rows, False)
    versions = common.versions()
    import bitsandbytes.functional as bnb
    hashed = 0xCBF29CE484222325
    for byte in bnb.create_dynamic_map(signed=False).numpy().tobytes():
        hashed = (hashed ^ byte) * 0x100000001B3 % 2**64
    lines = [f"/* adamw8_table.h -- made by tests/parity/make_adamw8.py with trl {versions['trl']}, bitsandbytes "
             f"{versions['bitsandbytes']}:", " * loss and gradient norm of each step, with exact rounding, then with bitsandbytes' on a CPU. */",
             f"static const uint64_t unsigned_map_fnv1a = 0x{hashed:016X};",
             "static const double adamw8_steps[][2][2] = {"]
    for e, t in zip(exact, table):
        print(e["step"], e["loss"], t["loss"])
        lines.append(f"    {{{{{e['loss']!r}, {e['grad_norm']!r}}}, {{{t['loss']!r}, {t['grad_norm']!r}}}}},")
    (pathlib.Path(common.HERE).parent / "trainers" / "adamw8_table.h").write_text("\n".join([*lines, "};", ""]))


if __name__ == "__main__":
    main()

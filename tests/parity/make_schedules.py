"""schedules: learning rates of transformers' schedulers, step by step, as the table of tests/unit/test_schedule.c."""

import pathlib

import torch
import transformers
from transformers import get_scheduler

CASES = [  # name, peak, warmup, total, what the scheduler is told besides
    ("linear", 2e-4, 0, 20, {}),
    ("linear", 2e-4, 3, 20, {}),
    ("cosine", 2e-4, 10, 37, {}),
    ("cosine_with_restarts", 3e-4, 0, 24, {"num_cycles": 3}),
    ("cosine_with_restarts", 3e-4, 5, 31, {"num_cycles": 4}),
    ("polynomial", 1e-3, 0, 21, {"lr_end": 1e-7, "power": 1.0}),
    ("polynomial", 1e-3, 4, 23, {"lr_end": 1e-5, "power": 2.5}),
    ("constant", 5e-5, 3, 9, {}),
    ("constant_with_warmup", 5e-5, 3, 9, {}),
]


def rates(name, peak, warmup, total, more):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak)
    scheduler = get_scheduler(name, optimizer, warmup, total, scheduler_specific_kwargs=dict(more))
    out = []
    for _ in range(total):
        out.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    return out


def main():
    lines = [
        f"/* schedules.h -- made by tests/parity/make_schedules.py with transformers {transformers.__version__}. */",
        "/* clang-format off */",
        "static const double rates[][40] = {",
    ]
    for case in CASES:
        row = [x.hex() + "," for x in rates(*case)]
        lines += ["    {"] + ["        " + " ".join(row[i : i + 3]) for i in range(0, len(row), 3)] + ["    },"]
    lines += ["};", "static const schedule cases[] = {"]
    for name, peak, warmup, total, more in CASES:
        end, power, cycles = more.get("lr_end", 1e-7), more.get("power", 1.0), more.get("num_cycles", 1)
        lines.append(f'    {{"{name}", {peak}, {end}, {power}, {cycles}, {warmup}, {total}}},')
    lines += ["};", "/* clang-format on */", ""]
    folder = pathlib.Path(__file__).resolve().parent.parent / "unit"
    (folder / "schedules.h").write_text("\n".join(lines))


main()

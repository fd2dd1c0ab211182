"""torch_misc: permutations, learning-rate tables, AdamW and clipping vectors of torch and transformers."""

import hashlib

import common
import numpy as np
import torch
import synth

TABLES = [("cosine", 189, 10, 2e-4), ("linear", 189, 10, 2e-4), ("constant_with_warmup", 189, 10, 2e-4), ("constant", 20, 0, 2e-4),
          ("cosine", 50, 0, 5e-3), ("linear", 50, 0, 5e-3), ("cosine", 7, 3, 1e-3), ("linear", 7, 3, 1e-3), ("cosine", 1000, 100, 3.3e-5),
          ("linear", 1000, 100, 3.3e-5), ("cosine", 5, 5, 1e-4), ("cosine", 1, 0, 1e-4), ("linear", 3, 7, 1e-4)]
# name, items, steps, lr, weight decay; gradient of step t (from 0) is the formula tensor "adamw.<name>.grad<t>"
ADAMW = [("one_step", 37, 1, 2e-4, 0.01), ("hundred", 37, 100, 2e-4, 0.01), ("large_lr", 64, 100, 5e-3, 0.0),
         ("decay", 100, 20, 1e-2, 0.1), ("tiny_grad", 37, 100, 2e-4, 0.01), ("lr_table", 37, 50, 5e-3, 0.01)]


def permutations():
    out = []
    for n in (1, 2, 3, 10, 42, 1000, 100000):
        for seed in (42, 43, 0):
            order = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).numpy().astype("<i4")
            record = {"n": n, "seed": seed, "sha256_i32": hashlib.sha256(order.tobytes()).hexdigest(), "first": order[:10].tolist()}
            if n <= 42:
                record["order"] = order.tolist()
            out.append(record)
    return out


def uniforms():
    """torch.rand, fp32."""
    return [{"seed": s, "values": torch.rand(8, generator=torch.Generator().manual_seed(s)).tolist()} for s in (42, 0)]


def learning_rates(kind, total, warmup, lr):
    """Learning rate of every update, as the trainer's scheduler hands it to the optimizer."""
    from transformers import get_scheduler
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = get_scheduler(kind, optimizer, num_warmup_steps=warmup, num_training_steps=total)
    out = []
    for _ in range(total):
        out.append(float(scheduler.get_last_lr()[0]))
        optimizer.step()
        scheduler.step()
    return out


def adamw(name, n, steps, lr, decay, arrays):
    scale = 1e-7 if name == "tiny_grad" else 1.0
    p = torch.nn.Parameter(torch.from_numpy(synth.values(f"adamw.{name}.param", [n], 0.0, 0.5)))
    optimizer = torch.optim.AdamW([p], lr=lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=decay, fused=True)
    rates = learning_rates("cosine", steps, 10, lr) if name == "lr_table" else [lr] * steps
    for t in range(steps):
        p.grad = torch.from_numpy(synth.values(f"adamw.{name}.grad{t}", [n], 0.0, scale))
        optimizer.param_groups[0]["lr"] = rates[t]
        optimizer.step()
    state = optimizer.state[p]
    arrays.update({f"adamw.{name}.param": p.detach().numpy(), f"adamw.{name}.m": state["exp_avg"].numpy(), f"adamw.{name}.v": state["exp_avg_sq"].numpy()})
    return {"name": name, "n": n, "steps": steps, "lr": lr, "schedule": "cosine, warmup 10" if name == "lr_table" else "none",
            "weight_decay": decay, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "param_scale": 0.5, "grad_scale": scale}


def clipping(arrays):
    """clip_grad_norm_ over two tensors "clip.<case>.a" [33] and ".b" [5,7]."""
    out = []
    for case, scale in (("binds", 2.0), ("loose", 0.01), ("near", 0.2)):
        params = []
        for part, shape in (("a", [33]), ("b", [5, 7])):
            q = torch.nn.Parameter(torch.zeros(shape))
            q.grad = torch.from_numpy(synth.values(f"clip.{case}.{part}", shape, 0.0, scale))
            params.append(q)
        norm = float(torch.nn.utils.clip_grad_norm_(params, 1.0))
        arrays.update({f"clip.{case}.{part}": q.grad.numpy() for part, q in zip("ab", params)})
        out.append({"name": case, "scale": scale, "max_norm": 1.0, "norm": norm})
    return out


def main():
    folder = common.topic("torch_misc")
    common.threads()
    arrays, tables = {}, []
    for kind, total, warmup, lr in TABLES:
        rates = learning_rates(kind, total, warmup, lr)
        tables.append({"kind": kind, "T": total, "warmup": warmup, "lr": lr, "sha256_f64": common.sha256(np.array(rates, "<f8")),
                       "hex": [r.hex() for r in rates[:200]]})
    record = {"versions": common.versions(), "randperm": permutations(), "rand": uniforms(), "learning_rates": tables,
              "adamw": [adamw(*a, arrays) for a in ADAMW], "clip": clipping(arrays)}
    common.write_arrays(folder / "torch_misc.safetensors", arrays)
    common.write_json(folder / "torch_misc.json", record)


if __name__ == "__main__":
    main()

"""dpo_table: what TRL's DPOTrainer makes of given log-probabilities, in float64: the table of
tests/trainers/test_dpo_table.c.

The loss is TRL's own code (DPOTrainer._compute_loss); in place of the model stands one that answers with the
log-probabilities."""

import collections
import pathlib
import textwrap
import types

import common
import torch
import trl.trainer.dpo_trainer as dpo

PAIRS = [  # tokens of chosen and rejected; log-probability of chosen and rejected: policy, reference
    (2, 2, -3.0, -3.0, -3.0, -3.0),            # nothing between them, nothing learned
    (1, 1, -0.125, -0.1875, -0.1328125, -0.18),  # close to certain, barely moved
    (3, 1, -2.5, -45.0, -40.0, -6.0),          # chosen is far ahead
    (1, 4, -48.0, -3.25, -9.0, -42.0),         # rejected is far ahead
    (2, 5, -7.5, -11.25, -8.125, -10.5),
    (5, 3, -6.25, -4.5, -5.75, -5.0625),
]
LOSSES = ["sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired",
          "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm"]
STANDARD = {"beta": 0.1, "label_smoothing": 0.0, "f_divergence_type": "reverse_kl", "f_alpha_divergence_coef": 0.5,
            "discopop_tau": 0.05}


def cases():
    """Losses, their weights, and what is not STANDARD."""
    smooth = {"label_smoothing": 0.1}
    yield from (([loss], [1.0], smooth if loss in ("exo_pair", "robust") else {}) for loss in LOSSES)
    yield from (([loss], [1.0], {"label_smoothing": 0.3}) for loss in ("aot", "aot_unpaired", "exo_pair", "robust"))
    yield from (([loss], [1.0], {"beta": 1.5, **(smooth if loss in ("exo_pair", "robust") else {})}) for loss in LOSSES)
    for divergence in ("forward_kl", "js_divergence", "alpha_divergence"):
        yield from (([loss], [1.0], {"f_divergence_type": divergence}) for loss in ("sigmoid", "ipo", "hinge", "sigmoid_norm"))
    yield ["sigmoid"], [1.0], {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 1.25}
    yield ["discopop"], [1.0], {"discopop_tau": 0.5}
    yield ["sigmoid", "bco_pair", "sft"], [0.8, 0.2, 1.5], {}
    yield ["conservative"], [1.0], {"label_smoothing": 0.2}


class Wide:
    """torch, but TRL's clamp of alpha_divergence, which knows no float64, finds one."""

    def __getattr__(self, name):
        return torch.float64 if name == "float32" else getattr(torch, name)


class Answers:
    """A model that gives every token of sequence i its share of logp[i]."""
    training = True

    def __init__(self, logp, mask):
        self.log_probs = (logp / mask.sum(1))[:, None] * mask

    def __call__(self, **_):
        zero = torch.zeros_like(self.log_probs)
        return types.SimpleNamespace(log_probs=self.log_probs, entropy=zero, mean_logits=zero, is_top1=zero.bool())


def trainer(losses, weights, model, more):
    own = {**STANDARD, **more}
    alike = types.SimpleNamespace(device="cpu", gather=lambda x: x, gather_for_metrics=lambda x: x)
    return types.SimpleNamespace(
        model=model, accelerator=alike, aux_loss_enabled=False, ld_alpha=None, precompute_ref_logps=True,
        use_weighting=False, loss_types=losses, loss_weights=weights, args=types.SimpleNamespace(**own),
        _metrics=collections.defaultdict(lambda: collections.defaultdict(list)), _total_train_tokens=0, _tp_size=1, **own)


def evaluate(pairs, losses, weights, more):
    """The loss of these pairs as one batch, and its gradient by log-probability: all chosen, then all rejected."""
    lengths = torch.tensor([p[0] for p in pairs] + [p[1] for p in pairs])
    completion = (torch.arange(int(lengths.max()))[None, :] < lengths[:, None]).long()
    mask = torch.cat([torch.zeros(len(completion), 1, dtype=torch.long), completion], 1)  # a prompt of one token
    logp = torch.tensor([p[2] for p in pairs] + [p[3] for p in pairs], requires_grad=True)
    model = Answers(logp, completion)
    inputs = {"completion_mask": mask, "input_ids": mask, "attention_mask": torch.ones_like(mask),
              "ref_chosen_logps": torch.tensor([p[4] for p in pairs]),
              "ref_rejected_logps": torch.tensor([p[5] for p in pairs])}
    loss = dpo.DPOTrainer._compute_loss(trainer(losses, weights, model, more), model, inputs, False)
    loss.backward()
    assert loss.dtype == torch.float64
    return float(loss.detach()), logp.grad.tolist()


def conservative(pairs, more):
    """TRL's sigmoid knows no label smoothing; aot_unpaired of one pair at a time is what it would be."""
    n = len(pairs)
    each = [evaluate([p], ["aot_unpaired"], [1.0], more) for p in pairs]
    return sum(value for value, _ in each) / n, [grad[side] / n for side in (0, 1) for _, grad in each]


def row(losses, weights, more):
    if losses == ["conservative"]:
        losses, of = ["sigmoid"], lambda pairs: conservative(pairs, more)
    else:
        of = lambda pairs: evaluate(pairs, losses, weights, more)
    keys = [f"loss_type = {', '.join(losses)}"]
    keys += [f"loss_weights = {', '.join(map(str, weights))}"] if len(losses) > 1 else []
    keys += [f"{key} = {value}" for key, value in more.items()]
    value, grad = of(PAIRS)
    return keys, value, grad, [of([p])[0] for p in PAIRS]


def numbers(values):
    return textwrap.wrap(", ".join(map(repr, values)) + ",", 96, initial_indent=" " * 8, subsequent_indent=" " * 8)


def main():
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double
    dpo.torch = Wide()
    versions = common.versions()
    lines = [f"/* dpo_table.h -- made by tests/parity/make_dpo_table.py with trl {versions['trl']} and torch "
             f"{versions['torch']}. */", "/* clang-format off */", "static const pair pairs[] = {"]
    lines += [f"    {{{{{a}, {b}}}, {{{w!r}, {l!r}}}, {{{rw!r}, {rl!r}}}}}," for a, b, w, l, rw, rl in PAIRS] + ["};"]
    names = []
    for case in cases():
        keys, value, grad, alone = row(*case)
        names.append(f"&case_{len(names)}")
        lines += [f"static const loss_case case_{len(names) - 1} = {{",
                  *(f'    "{key}\\n"' for key in keys), f"    , {value!r}, {{", *numbers(grad), "    }, {", *numbers(alone), "    },", "};"]
        print("; ".join(keys), value)
    lines += ["static const loss_case *const cases[] = {"]
    lines += ["    " + ", ".join(names[i:i + 8]) + "," for i in range(0, len(names), 8)]
    lines += ["};", "/* clang-format on */", ""]
    (pathlib.Path(common.HERE).parent / "trainers" / "dpo_table.h").write_text("\n".join(lines))


if __name__ == "__main__":
    main()

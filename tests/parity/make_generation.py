"""generation: greedy continuations of tiny Phi-3 configs, one prompt at a time, with transformers' own cache."""

import common
import numpy as np
import synth
import torch
from make_logits import CASES, RULES

NAMES = ["gqa_4_2", "window", "tied", "longrope_short"]  # the last crosses its switch at 32
PROMPTS, NEW = 200, 64
CLOSE = 1e-4


def continue_prompt(model, ids):
    """The new tokens, and the first place where the two best logits are closer than CLOSE (NEW: nowhere)."""
    with torch.no_grad():
        out = model.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                             max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False, eos_token_id=None,
                             pad_token_id=0, use_cache=True, output_logits=True, return_dict_in_generate=True)
    best = torch.stack([x[0].topk(2).values for x in out.logits])
    close = (best[:, 0] - best[:, 1] < CLOSE).nonzero()
    return out.sequences[0, len(ids):].numpy(), int(close[0]) if len(close) else NEW


def main():
    folder = common.topic("generation")
    arrays, records = {}, []
    threads = common.threads()
    for name, _, over in CASES:
        if name not in NAMES:
            continue
        config = common.phi3_config(**over)
        model = common.build_model(config, RULES).eval()
        model.generation_config.eos_token_id = None
        tokens, close, lengths = [], [], []
        for i in range(PROMPTS):
            n = 1 + i % 24
            ids = synth.tokens(f"generation.{name}.{i}", n, config["vocab_size"] - 1)
            new, first = continue_prompt(model, ids)
            assert len(new) == NEW
            tokens.append(new)
            close.append(first)
            lengths.append(n)
        arrays[name] = np.array(tokens, dtype=np.uint8)
        records.append({"name": name, "prompts": PROMPTS, "new": NEW, "lengths": lengths, "close": close})
        print(name, "rows with a close call:", sum(c < NEW for c in close))
    common.write_arrays(folder / "generation.safetensors", arrays)
    common.write_json(folder / "generation.json", {"versions": common.versions(), "threads": threads, "synth": RULES,
                                                   "cases": records}, 4)


if __name__ == "__main__":
    main()

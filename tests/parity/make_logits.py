"""logits: fp32 eager logits of tiny Phi-3 configs, at a few positions of two rows."""

import json

import common
import numpy as np
import torch
import synth

RULES = synth.rules(embed=0.5, head=0.3, linear=0.2)


def longrope(rotary_dim):
    """Made-up factors with long decimals, as in published configs."""
    n = rotary_dim // 2
    return {"type": "longrope", "short_factor": [round(1.0 + 0.0137 * k, 10) for k in range(n)],
            "long_factor": [round(1.0800000429153442 * 1.13 ** k, 12) for k in range(n)]}


def head(nh, nkv, hd, **over):
    return {"hidden_size": nh * hd, "num_attention_heads": nh, "num_key_value_heads": nkv, **over}


LONG = {"max_position_embeddings": 1024, "original_max_position_embeddings": 32}

# name, T, config
CASES = [
    ("mha", 24, head(4, 4, 32)),
    ("gqa_4_2", 24, head(4, 2, 32)),
    ("gqa_4_1", 24, head(4, 1, 48)),
    ("gqa_8_2", 24, head(8, 2, 32, vocab_size=320)),
    ("head_64", 24, head(2, 1, 64, num_hidden_layers=3)),
    ("head_96", 24, head(4, 2, 96, vocab_size=512)),
    ("window", 48, head(4, 2, 32, sliding_window=7)),
    ("window_gqa", 40, head(4, 1, 48, sliding_window=16, rope_theta=250000.0)),
    ("tied", 24, head(4, 2, 32, tie_word_embeddings=True)),
    ("partial_075", 40, head(2, 1, 64, partial_rotary_factor=0.75)),
    ("partial_050", 40, head(2, 2, 96, partial_rotary_factor=0.5, hidden_size=192)),
    ("longrope_short", 20, head(4, 2, 32, rope_scaling=longrope(32), **LONG)),
    ("longrope_equal", 32, head(4, 2, 32, rope_scaling=longrope(32), **LONG)),
    ("longrope_over", 33, head(4, 2, 32, rope_scaling=longrope(32), **LONG)),
    ("longrope_long", 48, head(4, 2, 96, rope_scaling=longrope(96), **LONG)),
    ("longrope_no_scale", 24, head(4, 2, 32, rope_scaling=longrope(32), max_position_embeddings=32, original_max_position_embeddings=32)),
    ("partial_longrope_short", 32, head(2, 1, 64, partial_rotary_factor=0.75, rope_scaling=longrope(48), **LONG)),
    ("partial_longrope_long", 48, head(2, 1, 64, partial_rotary_factor=0.75, rope_scaling=longrope(48), tie_word_embeddings=True, **LONG)),
]
NEW_SPELLING = {"gqa_4_2", "tied", "partial_075", "longrope_long", "partial_longrope_short"}


def new_spelling(config):
    """dtype and rope_parameters, as transformers 5 writes them."""
    out = {k: v for k, v in config.items() if k not in ("torch_dtype", "rope_theta", "rope_scaling", "partial_rotary_factor")}
    scaling = dict(config["rope_scaling"] or {"type": "default"})
    out["dtype"] = config["torch_dtype"]
    out["rope_parameters"] = {"rope_type": scaling.pop("type"), "rope_theta": config["rope_theta"],
                              "partial_rotary_factor": config["partial_rotary_factor"], **scaling}
    return out


def run(config, ids):
    model = common.build_model(config, RULES).eval()
    with torch.no_grad():
        return model(torch.tensor(ids)).logits.numpy()


def save_config(folder, file, config):
    (folder / file).write_text(json.dumps(config, indent=2) + "\n")


def main():
    folder = common.topic("logits")
    threads = common.threads()
    arrays, records = {}, []
    for name, length, over in CASES:
        config = common.phi3_config(**over)
        ids = [synth.tokens(f"tokens.{name}.{row}", length, config["vocab_size"] - 1) for row in range(2)]
        logits = run(config, ids)
        positions = [0, length // 2] + list(range(length - 4, length))
        arrays[name] = logits[:, positions]
        where = folder / name
        where.mkdir(exist_ok=True)
        save_config(where, "config.json", config)
        if name in NEW_SPELLING:
            save_config(where, "config_new.json", new_spelling(config))
            assert np.array_equal(run(new_spelling(config), ids), logits), name
        if name == "longrope_short":  # the oldest spelling; transformers 5 refuses it, the meaning is the same
            save_config(where, "config_su.json", {**config, "rope_scaling": {**config["rope_scaling"], "type": "su"}})
        records.append({"name": name, "T": length, "positions": positions, "tokens": ids,
                        "max_abs_logit": float(np.abs(logits).max()), "std_logit": float(logits.std())})
    common.write_arrays(folder / "logits.safetensors", arrays)
    common.write_json(folder / "logits.json", {"versions": common.versions(), "threads": threads, "synth": RULES, "cases": records}, 4)


if __name__ == "__main__":
    main()

"""Weights and token ids by formula: fixtures hold no model weights, both sides make them (README.md, "Formula")."""

import numpy as np

MASK = (1 << 64) - 1
GOLDEN_RATIO = np.uint64(0x9E3779B97F4A7C15)


def fnv1a(name):
    """FNV-1a, 64 bits, of the UTF-8 name."""
    h = 0xCBF29CE484222325
    for byte in name.encode("utf-8"):
        h = ((h ^ byte) * 0x100000001B3) & MASK
    return h


def words(name, n, start=0):
    """n 64-bit words of the stream called name: splitmix64's finaliser of h + (i+1)*golden ratio."""
    i = np.arange(start, start + n, dtype=np.uint64)
    with np.errstate(over="ignore"):
        z = np.uint64(fnv1a(name)) + (i + np.uint64(1)) * GOLDEN_RATIO
        z ^= z >> np.uint64(30)
        z *= np.uint64(0xBF58476D1CE4E5B9)
        z ^= z >> np.uint64(27)
        z *= np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return z


def values(name, shape, base, scale):
    """fp32 tensor: base + scale * (2u + 1 - 2^24) / 2^24, in float64, rounded once."""
    n = int(np.prod(shape))
    u = (words(name, n) >> np.uint64(40)).astype(np.float64)
    unit = (2.0 * u + 1.0 - 16777216.0) / 16777216.0
    return (base + scale * unit).astype(np.float32).reshape(shape)


def tokens(name, n, bound, start=0):
    """n token ids in [0, bound)."""
    return [int(w % bound) for w in words(name, n, start).tolist()]


def rule(rules, name, shape):
    """(base, scale) of the first rule whose "match" is a substring of name; scale may be the text "1/sqrt(in)"."""
    for r in rules:
        if r["match"] in name:
            scale = r["scale"]
            return r["base"], 1.0 / np.sqrt(float(shape[-1])) if scale == "1/sqrt(in)" else scale
    raise KeyError(name)


def tensor(rules, name, shape):
    base, scale = rule(rules, name, shape)
    return values(name, tuple(shape), base, scale)


def rules(embed=0.5, head=0.25, linear=0.2, lora_b=0.02):
    """The rule list that goes into a fixture's JSON. First match wins; the empty match is the default."""
    return [
        {"match": "lora_A", "base": 0.0, "scale": "1/sqrt(in)"},
        {"match": "lora_B", "base": 0.0, "scale": lora_b},
        {"match": "norm.weight", "base": 1.0, "scale": 0.1},
        {"match": "embed_tokens", "base": 0.0, "scale": embed},
        {"match": "lm_head", "base": 0.0, "scale": head},
        {"match": "", "base": 0.0, "scale": linear},
    ]

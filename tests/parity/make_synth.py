"""synth: vectors of the formula itself, for the C twin's own test."""

import common
import synth

NAMES = ["", "tokens", "model.layers.0.self_attn.qkv_proj.weight", "base_model.model.model.layers.1.mlp.down_proj.lora_A.weight", "größe"]


def main():
    folder = common.topic("synth")
    rules = synth.rules()
    cases = []
    for name in NAMES:
        base, scale = synth.rule(rules, name, [64, 192])
        x = synth.tensor(rules, name, [64, 192])
        cases.append({"name": name, "fnv1a": f"{synth.fnv1a(name):016x}", "words": [f"{int(w):016x}" for w in synth.words(name, 4)],
                      "tokens_mod_255": synth.tokens(name, 8, 255), "base": base, "scale": scale,
                      "bits": [f"{int(b):08x}" for b in x.reshape(-1)[:8].view("<u4")], "sha256_64x192": common.sha256(x)})
    norm = synth.values("model.norm.weight", [128], 1.0, 0.1)
    common.write_json(folder / "synth.json", {"synth": rules, "cases": cases, "norm_weight_128_sha256": common.sha256(norm)}, 4)


if __name__ == "__main__":
    main()

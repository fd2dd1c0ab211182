"""quant4: NF4 and FP4 bytes, absmax, nested absmax and decoded values of bitsandbytes (CPU)."""

import common
import numpy as np
import torch
import synth
import torch_mean
from bitsandbytes import functional as F

MAP_SHA = "e732639a65f497b4ad684bb166a4467708255edd5207757de8b8f0c7e1fda89c"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

# name, shape, scale and what differs from the defaults below
CASES = [
    ("square", [64, 64], 0.2, {}),
    ("rect", [96, 128], 0.05, {}),
    ("nested4", [320, 192], 0.02, {}),                         # 960 blocks: 4 nested blocks, the last one short
    ("zero_block", [32, 64], 0.1, {"zero_blocks": [0, 3, 31]}),
    ("short_block", [1000], 0.1, {}),                           # last block has 40 items
    ("odd_count", [333], 0.1, {}),                              # last byte is padded
    ("large", [64, 64], 10000.0, {}),
    ("small", [64, 64], 1e-6, {}),
    ("tiny", [64, 64], 1e-20, {}),
    ("spread", [320, 64], 1.0, {"block_exp": True}),            # block b is scaled by 2^(b % 13 - 6)
    ("block32", [64, 64], 0.2, {"blocksize": 32}),
    ("block128", [64, 128], 0.2, {"blocksize": 128}),
    ("block256", [64, 256], 0.2, {"blocksize": 256}),
    ("bf16", [96, 128], 0.05, {"dtype": "bfloat16"}),
    ("fp16", [96, 128], 0.05, {"dtype": "float16"}),
]


def source(case):
    """The tensor to quantise; the name in the formula is "quant4.<case>"."""
    flat = synth.values("quant4." + case["name"], case["shape"], 0.0, case["scale"]).reshape(-1)
    size = case["blocksize"]
    for b in case["zero_blocks"]:
        flat[b * size:(b + 1) * size] = 0
    if case["block_exp"]:
        for b in range(0, len(flat) // size):
            flat[b * size:(b + 1) * size] *= np.float32(2.0 ** (b % 13 - 6))
    return torch.from_numpy(flat.reshape(case["shape"])).to(DTYPES[case["dtype"]])


def decoded(data, state):
    """Digest of the decoded tensor (its own dtype, little-endian) and its first 64 values as fp32."""
    y = F.dequantize_4bit(data, state).reshape(-1)
    raw = y.view(torch.int16) if y.element_size() == 2 else y
    return {"sha256": common.sha256(raw.numpy()), "first64": [float(v) for v in y[:64].float()]}


def check_decode(data, state, absmax):
    """bitsandbytes' own decode against the plain rule: code value times absmax, one fp32 product."""
    packed = data.numpy().reshape(-1)
    codes = np.stack([packed >> 4, packed & 15], axis=1).reshape(-1)[: int(np.prod(state.shape))]
    want = state.code.numpy()[codes] * np.repeat(absmax, state.blocksize)[: len(codes)]
    want = torch.from_numpy(want).to(state.dtype)
    got = F.dequantize_4bit(data, state).reshape(-1)
    assert torch.equal(got, want), (state.shape, state.blocksize)


def one(case, quant_type, arrays):
    key = f"{case['name']}.{quant_type}"
    x = source(case)
    data, state = F.quantize_4bit(x, blocksize=case["blocksize"], quant_type=quant_type)
    arrays[key + ".packed"] = data.numpy().reshape(-1)
    arrays[key + ".absmax"] = state.absmax.numpy()
    check_decode(data, state, state.absmax.numpy())
    data2, nested = F.quantize_4bit(x, blocksize=case["blocksize"], quant_type=quant_type, compress_statistics=True)
    assert torch.equal(data, data2)
    arrays[key + ".absmax_u8"] = nested.absmax.numpy()
    arrays[key + ".nested_absmax"] = nested.state2.absmax.numpy()
    assert torch_mean.mean(state.absmax.numpy()) == np.float32(nested.offset), key
    product = nested.state2.code.numpy()[nested.absmax.numpy()] * np.repeat(nested.state2.absmax.numpy(), 256)[: len(nested.absmax)]
    check_decode(data2, nested, product + np.float32(nested.offset))
    return {"source_sha256": common.sha256(x.view(torch.int16).numpy() if x.element_size() == 2 else x.numpy()),
            "decoded": decoded(data, state), "decoded_nested": decoded(data2, nested),
            "nested_offset": float(nested.offset)}


def main():
    folder = common.topic("quant4")
    common.threads()
    table = F.create_dynamic_map().numpy().astype("<f4")
    assert common.sha256(table) == MAP_SHA
    arrays, cases = {"dynamic_map": table}, []
    for name, shape, scale, extra in CASES:
        case = {"name": name, "shape": shape, "scale": scale, "blocksize": 64, "dtype": "float32",
                "zero_blocks": [], "block_exp": False, **extra}
        for quant_type in ("nf4", "fp4"):
            case[quant_type] = one(case, quant_type, arrays)
        cases.append(case)
    common.write_arrays(folder / "quant4.safetensors", arrays)
    common.write_json(folder / "quant4.json", {"versions": common.versions(), "dynamic_map_sha256": MAP_SHA, "cases": cases}, 4)


if __name__ == "__main__":
    main()

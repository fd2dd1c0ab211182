"""gguf: tests/unit/gguf_table.h, a small file as the gguf package writes it. The test computes the same values by
the same formula.
"""

import os
import tempfile

import gguf
import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
BLOCKS = 6


def values():
    """Row 0 is zeros; 1 has ties, largest 127; the others grow by 2^7 from 2^-20 on."""
    x = np.zeros((BLOCKS, 32), dtype=np.float32)
    for i in range(32):
        x[1, i] = (i * 8 - 123) / 2 if i < 31 else 127
        for b in range(2, BLOCKS):
            x[b, i] = np.float32((i * 37 + b * 11) % 101 - 50) * np.float32(2.0 ** (7 * b - 34))
    return x


def small_file():
    path = os.path.join(tempfile.mkdtemp(), "small.gguf")
    w = gguf.GGUFWriter(path, "phi3")
    w.add_string("general.name", "small")
    w.add_uint32("phi3.block_count", 2)
    w.add_float32("phi3.attention.layer_norm_rms_epsilon", 1e-5)
    w.add_bool("tokenizer.ggml.add_bos_token", False)
    w.add_array("tokenizer.ggml.tokens", ["<s>", "\u2581a", "b"])
    w.add_array("tokenizer.ggml.scores", [0.0, -1.0, -2.5])
    w.add_array("tokenizer.ggml.token_type", [3, 1, -1])
    x = values()
    w.add_tensor("token_embd.weight", x[:, :8].astype(np.float16))
    w.add_tensor("output_norm.weight", x[1, :5])
    w.add_tensor("output.weight", gguf.quants.quantize(x, gguf.GGMLQuantizationType.Q8_0),
                 raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    with open(path, "rb") as f:
        return f.read()


def table(name, data):
    rows = [", ".join(str(b) for b in data[i:i + 18]) for i in range(0, len(data), 18)]
    return "static const uint8_t %s[%d] = {\n    %s};\n" % (name, len(data), ",\n    ".join(rows))


def main():
    with open(os.path.join(HERE, "..", "unit", "gguf_table.h"), "w") as f:
        f.write("/* gguf_table.h -- what the gguf package makes: tests/parity/make_gguf.py. */\n"
                "#ifndef UNIT_GGUF_TABLE_H\n#define UNIT_GGUF_TABLE_H\n\n#include <stdint.h>\n\n"
                "/* clang-format off */\n")
        f.write(table("gguf_small", small_file()))
        f.write("/* clang-format on */\n\n#endif\n")


if __name__ == "__main__":
    main()

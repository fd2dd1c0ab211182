"""What every make_*.py shares. Import it first: it sets the environment before torch is loaded."""

import os

os.environ.update(HF_HUB_OFFLINE="1", CUDA_VISIBLE_DEVICES="", TOKENIZERS_PARALLELISM="false", TORCHDYNAMO_DISABLE="1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hashlib
import json
import pathlib
import tempfile

import numpy as np

import synth

HERE = pathlib.Path(__file__).resolve().parent
GOLDEN = HERE.parent / "golden"
VERSIONED = ["torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "datasets", "tokenizers", "numpy"]


def threads():
    """Fix torch's thread count to OMP_NUM_THREADS and return it."""
    import torch
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    return torch.get_num_threads()


def topic(name):
    folder = GOLDEN / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def versions():
    from importlib.metadata import version
    return {name: version(name) for name in VERSIONED}


def write_json(path, value, compact_depth=3):
    """JSON with one line per item down to compact_depth; lists of plain values always stay on one line."""
    def dump(v, depth, pad):
        plain_list = isinstance(v, list) and not any(isinstance(x, (dict, list)) for x in v)
        if not isinstance(v, (dict, list)) or depth >= compact_depth or plain_list:
            return json.dumps(v, ensure_ascii=False)
        inner = pad + " "
        if isinstance(v, dict):
            rows = [f"{inner}{json.dumps(k, ensure_ascii=False)}: {dump(x, depth + 1, inner)}" for k, x in v.items()]
            return "{\n" + ",\n".join(rows) + "\n" + pad + "}"
        rows = [inner + dump(x, depth + 1, inner) for x in v]
        return "[\n" + ",\n".join(rows) + "\n" + pad + "]"
    pathlib.Path(path).write_text(dump(value, 0, "") + "\n", encoding="utf-8")


def write_arrays(path, arrays):
    """A safetensors file of numpy arrays, written in name order."""
    from safetensors.numpy import save_file
    save_file({k: np.ascontiguousarray(arrays[k]) for k in sorted(arrays)}, str(path))
    os.chmod(path, 0o644)


def sha256(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def phi3_config(**over):
    """A tiny Phi-3 config as a dict in the old spelling. pad_token_id is V-1, which no formula token ever is."""
    vocab = over.get("vocab_size", 256)
    config = {
        "architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "vocab_size": vocab,
        "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_act": "silu", "rms_norm_eps": 1e-5,
        "max_position_embeddings": 128, "original_max_position_embeddings": 128, "sliding_window": None,
        "rope_theta": 10000.0, "rope_scaling": None, "partial_rotary_factor": 1.0, "tie_word_embeddings": False,
        "attention_bias": False, "attention_dropout": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0,
        "bos_token_id": vocab - 3, "eos_token_id": vocab - 2, "pad_token_id": vocab - 1,
        "initializer_range": 0.02, "torch_dtype": "float32", "use_cache": False,
    }
    config.update(over)
    return config


def load_config(config):
    """Phi3Config from a dict, read through a config.json as transformers reads it from a folder."""
    from transformers import AutoConfig
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "config.json").write_text(json.dumps(config))
        return AutoConfig.from_pretrained(folder)


def fill(model, rules, rename=lambda n: n, only=""):
    """Overwrite every parameter whose (renamed) name contains `only` with formula values."""
    import torch
    with torch.no_grad():
        for name, p in model.named_parameters():
            name = rename(name)
            if only in name:
                p.copy_(torch.from_numpy(synth.tensor(rules, name, p.shape)))


def build_model(config, rules):
    """Phi3ForCausalLM, fp32, eager attention, formula weights. A tied head has no name of its own: embed_tokens fills it."""
    import torch
    from transformers import AutoModelForCausalLM
    model = AutoModelForCausalLM.from_config(load_config(config), dtype=torch.float32, attn_implementation="eager")
    fill(model, rules)
    return model


def nf4_model(config, rules, dtype="float32"):
    """The same model saved and loaded again through bitsandbytes: NF4, double quantisation, everything in `dtype`."""
    import bitsandbytes.nn.modules as bnb_modules
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    bnb_modules.has_avx512bf16 = lambda: False  # the inference kernel's repack is lossy and has no gradient
    quant = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                               bnb_4bit_compute_dtype=getattr(torch, dtype))
    with tempfile.TemporaryDirectory() as folder:
        build_model(config, rules).save_pretrained(folder)
        return AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype), quantization_config=quant,
                                                    attn_implementation="eager")


def quant_record(model):
    """Per quantised weight: digests of its bytes, nested codes and nested absmax, and the offset."""
    out = {}
    for name, module in model.named_modules():
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        if state is not None:
            out[name + ".weight"] = {
                "shape": list(state.shape), "packed_sha256": sha256(module.weight.data.numpy()),
                "absmax_u8_sha256": sha256(state.absmax.numpy()),
                "nested_absmax_sha256": sha256(state.state2.absmax.numpy()),
                "nested_offset": float(state.offset),
            }
    return out


def plain_name(name):
    """PEFT's parameter name without the adapter's name: as in adapter_model.safetensors."""
    return name.replace(".default.", ".")

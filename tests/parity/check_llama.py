"""llama.cpp itself on qfw's GGUF files: the same tokens as Hugging Face's tokenizer, and the same logits as transformers.

    VENV/bin/python check_llama.py --model OUT/model-f16.gguf --merged OUT [--base BASE.gguf --adapter OUT/adapter.gguf]

VENV has llama-cpp-python==0.3.36, torch, transformers and tokenizers. With --adapter, the adapter is laid over the model of
--base. Lines whose white space behind a special token lies outside ASCII are told apart: llama.cpp does not strip it.
"""

import argparse
import json
import pathlib
import sys

import llama_cpp
import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

LINES = pathlib.Path(__file__).parent.parent / "golden" / "tokenizer" / "lines.jsonl"
TURNS = ["<|user|>\nHello there<|end|>\n<|assistant|>\nHi<|end|>\n<|endoftext|>",
         "<|system|>\nBe brief.<|end|>\n<|user|>\n  two<|end|>\n<|assistant|>\n"]
MOST_BYTES = 20000


def read_lines():
    with LINES.open() as file:
        texts = [json.loads(line) for line in file] + TURNS
    texts = [t for t in texts if not any("\ud800" <= c <= "\udfff" for c in t)]
    return [t for t in texts if len(t.encode()) < MOST_BYTES and "\0" not in t]


def check_tokens(model, folder):
    words, texts, other, known = Tokenizer.from_file(str(folder / "tokenizer.json")), read_lines(), [], 0
    for text in texts:
        mine = model.tokenize(text.encode(), add_bos=False, special=True)
        if mine != words.encode(text, add_special_tokens=False).ids:
            wide = any(c.isspace() and ord(c) > 127 or 28 <= ord(c) <= 31 for c in text)
            known += wide
            other += [] if wide else [text]
    print(f"tokens: {len(texts) - known - len(other)} of {len(texts)} lines the same, {known} others with white space outside ASCII")
    return other


def check_logits(model, folder, bound):
    ids = [1 + i * 37 % (model.n_vocab() // 2) for i in range(24)]
    model.reset()
    model.eval(ids)
    mine = np.array(model.scores[:len(ids)])
    with torch.no_grad():
        theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(torch.tensor([ids])).logits[0].numpy()
    off, largest = float(np.abs(mine - theirs).max()), float(np.abs(theirs).max())
    same = int((mine.argmax(1) == theirs.argmax(1)).sum())
    print(f"logits: off by {off:.2e} at most (largest {largest:.2f}); the same next token in {same} of {len(ids)}")
    return off <= bound * largest


def load(path, adapter=None):
    return llama_cpp.Llama(str(path), lora_path=adapter, n_ctx=256, n_batch=64, logits_all=True, n_threads=1, verbose=False)


def main():
    parser = argparse.ArgumentParser()
    for name in ("--model", "--merged", "--base", "--adapter"):
        parser.add_argument(name)
    args = parser.parse_args()
    folder, model = pathlib.Path(args.merged), load(args.model)
    bound = 5e-2 if "q8_0" in pathlib.Path(args.model).name else 2e-3
    other = check_tokens(model, folder)
    right = check_logits(model, folder, bound) and not other
    if args.adapter:
        right &= check_logits(load(args.base, args.adapter), folder, bound)
    if not right:
        sys.exit(f"llama.cpp sees another model; lines: {other[:3]}")


if __name__ == "__main__":
    main()

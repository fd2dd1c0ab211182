"""docs/examples/demo/model/tokenizer.json: a small Phi-3-style tokenizer, trained on the demo's own texts.

python make_demo_tokenizer.py DATA_FOLDER (as docs/examples/demo/resumes.c writes it) OUT_FILE
"""

import json
import sys

from tokenizers import Tokenizer, decoders, models, normalizers, trainers

RSTRIP = ["<|assistant|>", "<|placeholder1|>", "<|placeholder2|>", "<|system|>", "<|end|>", "<|user|>"]
BASE = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
SIZE = 1000


def words(folder):
    for name in ("pretrain", "train"):
        for line in open(f"{folder}/{name}.jsonl", encoding="utf-8"):
            row = json.loads(line)
            yield from (row["text"] if "text" in row else row["prompt"] + row["completion"]).split()


def main(folder, out):
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(vocab_size=SIZE, special_tokens=BASE, show_progress=False)
    tokenizer.train_from_iterator(words(folder), trainer)
    data = json.loads(tokenizer.to_str())
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    size = len(data["model"]["vocab"])
    added = [dict(id=i, content=t, **{**flags, "rstrip": t == "</s>", "special": t != "</s>"}) for i, t in enumerate(BASE[:3])]
    added += [dict(id=size + i, content=t, **{**flags, "rstrip": i > 0}) for i, t in enumerate(["<|endoftext|>"] + RSTRIP)]
    data["added_tokens"] = added
    with open(out, "w", encoding="utf-8") as f:
        json.dump(data, f, ensure_ascii=False, indent=0)
        f.write("\n")
    print(size + len(added) - 3, "tokens")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])

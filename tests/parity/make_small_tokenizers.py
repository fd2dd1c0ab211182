"""tokenizer/{bytelevel,bytelevel_split,bytefallback}: small tokenizers trained here, with the ids of about 300 lines each."""

import json

import common
import lines
from make_tokenizer import decode, encode
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

CL100K = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
RSTRIP = ["<|assistant|>", "<|placeholder1|>", "<|placeholder2|>", "<|system|>", "<|end|>", "<|user|>"]


def corpus():
    return [t for i, t in enumerate(lines.make()) if lines.kind(i) in (lines.english, lines.code, lines.names)]


def bytelevel(split):
    """GPT-2 style; with split, the pattern of later byte-level vocabularies and tokens that strip on both sides."""
    tokenizer = Tokenizer(models.BPE())
    if split:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(CL100K), "isolated"),
                                                           pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=470, special_tokens=[], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(corpus(), trainer)
    both = [AddedToken(t, lstrip=split, rstrip=split, normalized=False, special=True) for t in ("<|im_start|>", "<|im_end|>", "<|im_sep|>")]
    tokenizer.add_special_tokens([AddedToken("<|endoftext|>", normalized=False, special=True)] + both)
    return tokenizer


def bytefallback():
    """Phi-3 style: bytes as tokens <0x00>..<0xFF>, a "▁" before every segment, role tokens that swallow white space."""
    base = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    words = [w for t in corpus() for w in t.split()] + [" " * n for n in (1, 3, 7, 15) for _ in range(400)] + list("éüñ中") * 3
    trainer = trainers.BpeTrainer(vocab_size=490, special_tokens=base, limit_alphabet=90, show_progress=False)
    tokenizer.train_from_iterator(words, trainer)
    data = json.loads(tokenizer.to_str())
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [dict(id=i, content=t, **{**flags, "rstrip": t == "</s>", "special": t != "</s>"}) for i, t in enumerate(base[:3])]
    added += [dict(id=490 + i, content=t, **{**flags, "rstrip": i > 0}) for i, t in enumerate(["<|endoftext|>"] + RSTRIP)]
    data["added_tokens"] = added
    return Tokenizer.from_str(json.dumps(data, ensure_ascii=False))


def main():
    texts = lines.make()
    chosen = [i for i in range(len(texts)) if i % 7 == 3 and len(texts[i].encode()) <= 70][:280]
    chosen += [i for i in range(len(texts)) if i % 17 == 9 and len(texts[i].encode()) <= 330 and i not in chosen][:20]
    for name, tokenizer in (("bytelevel", bytelevel(False)), ("bytelevel_split", bytelevel(True)), ("bytefallback", bytefallback())):
        folder = common.topic("tokenizer/" + name)
        tokenizer.save(str(folder / "tokenizer.json"))
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        rows = []
        for i in chosen:
            ids = encode(tokenizer, texts[i])
            back = decode(tokenizer, ids)
            rows.append({"line": i, "ids": ids, "decoded": None if back == texts[i] else back})
        common.write_json(folder / "ids.json", {"versions": common.versions(), "vocab_size": tokenizer.get_vocab_size(), "rows": rows}, 2)
        print(name, tokenizer.get_vocab_size(), len(rows), sum(r["decoded"] is not None for r in rows))


if __name__ == "__main__":
    main()

"""tokenizer/<pipeline>: small tokenizers trained here, one for each published pipeline, with digests of the ids and texts of all lines."""

import json

import common
import lines
from make_tokenizer import decode, digests, encode, id_bytes
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

GROUP = 100
SUFFIX = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
CL100K = SUFFIX + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = CL100K.replace(r"\p{N}{1,3}", r"\p{N}")
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
O200K = (rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{SUFFIX}?|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{SUFFIX}?"
         r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
RSTRIP = ["<|assistant|>", "<|placeholder1|>", "<|placeholder2|>", "<|system|>", "<|end|>", "<|user|>"]
BASE = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]


def corpus():
    return [t for i, t in enumerate(lines.make()) if lines.kind(i) in (lines.english, lines.code, lines.names)]


def byte_level(pre, size, special, normalizer=None, **model):
    tokenizer = Tokenizer(models.BPE(**model))
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=[], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True, **flags) for t, flags in special])
    return tokenizer


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), behavior, invert),
                                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def bytelevel():
    """GPT-2."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im_sep|>"]
    return byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False), 470, [(t, {}) for t in special])


def bytelevel_split():
    """Phi-4: cl100k, with tokens that strip on both sides."""
    both = dict(lstrip=True, rstrip=True)
    return byte_level(split(CL100K), 470, [("<|endoftext|>", {})] + [(t, both) for t in ("<|im_start|>", "<|im_end|>", "<|im_sep|>")])


def llama3():
    """Llama 3: whole words of the vocabulary are not merged, and BOS comes first (which the caller of qfw adds)."""
    tokenizer = byte_level(split(CL100K), 600, [(t, {}) for t in ("<|begin_of_text|>", "<|end_of_text|>", "<|user|>", "<|end|>")], ignore_merges=True)
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", tokenizer.token_to_id("<|begin_of_text|>"))])])
    return tokenizer


def o200k():
    """Phi-4-mini: what the pattern does not match would be thrown away."""
    return byte_level(split(O200K, "removed", True), 600, [(t, {}) for t in ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")])


def qwen2():
    """Qwen 2: NFC first, digits one by one."""
    return byte_level(split(QWEN2), 600, [(t, {}) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")], normalizers.NFC())


def add_tokens(data, size):
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [dict(id=i, content=t, **{**flags, "rstrip": t == "</s>", "special": t != "</s>"}) for i, t in enumerate(BASE[:3])]
    added += [dict(id=size + i, content=t, **{**flags, "rstrip": i > 0}) for i, t in enumerate(["<|endoftext|>"] + RSTRIP)]
    data["added_tokens"] = added
    return Tokenizer.from_str(json.dumps(data, ensure_ascii=False))


def byte_fallback(tokenizer, size):
    words = [w for t in corpus() for w in t.split()] + [" " * n for n in (1, 3, 7, 15) for _ in range(400)] + list("éüñ中") * 3
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=BASE, limit_alphabet=90, show_progress=False)
    tokenizer.train_from_iterator(words, trainer)
    return add_tokens(json.loads(tokenizer.to_str()), size)


def bytefallback():
    """Phi-3 and old Llama 2: bytes as tokens <0x00>..<0xFF>, a "▁" before every segment, role tokens that swallow white space."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return byte_fallback(tokenizer, 490)


def llama2():
    """Llama 2 as newer libraries write it: Metaspace, a "▁" before the text alone."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return byte_fallback(tokenizer, 600)


def metaspace():
    """Metaspace that cuts at blanks and puts one before every segment, with its own decoder."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="always", split=True)
    tokenizer.decoder = decoders.Metaspace("▁", prepend_scheme="always")
    return byte_fallback(tokenizer, 600)


def main():
    texts = lines.make()
    shown = [i for i in range(0, len(texts), 131) if len(texts[i]) <= 70][:20]
    for make in (bytelevel, bytelevel_split, bytefallback, llama3, o200k, qwen2, llama2, metaspace):
        folder = common.topic("tokenizer/" + make.__name__)
        make().save(str(folder / "tokenizer.json"), pretty=make in (bytelevel, bytelevel_split, bytefallback))
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        ids = [encode(tokenizer, t) for t in texts]
        back = [decode(tokenizer, i) for i in ids]
        common.write_json(folder / "ids.json", {
            "versions": common.versions(), "vocab_size": tokenizer.get_vocab_size(), "group": GROUP, "total_ids": sum(map(len, ids)),
            "ids_sha256": digests([id_bytes(i) for i in ids], GROUP),
            "decoded_sha256": digests([b.encode("utf-8") + b"\xff" for b in back], GROUP),
            "ids": {str(i): ids[i] for i in shown}})
        print(make.__name__, tokenizer.get_vocab_size(), sum(map(len, ids)), sum(a == b for a, b in zip(texts, back)))


if __name__ == "__main__":
    main()

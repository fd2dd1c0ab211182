"""tokenizer: ids of the two published Phi-3 tokenizers on the lines of lines.py."""

import hashlib
import json
import os
import pathlib

import common
import lines
import numpy as np
from tokenizers import Tokenizer

DATA = pathlib.Path(os.environ.get("QFW_TOKENIZERS", common.HERE.parents[2] / "shared/data/tokenizers"))
NAMES = ("phi-3-mini", "phi-3-medium")
GROUP = 50


def open_tokenizer(name):
    return Tokenizer.from_file(str(DATA / name / "tokenizer.json"))


def encode(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False).ids


def decode(tokenizer, ids):
    return tokenizer.decode(ids, skip_special_tokens=False)


def digests(items, group=GROUP):
    """SHA-256 of the concatenated byte strings, `group` at a time."""
    return [hashlib.sha256(b"".join(items[i:i + group])).hexdigest() for i in range(0, len(items), group)]


def id_bytes(ids):
    return np.array(ids + [-1], "<i4").tobytes()


def main():
    folder = common.topic("tokenizer")
    texts = lines.make()
    assert len(texts) >= 5000
    (folder / "lines.jsonl").write_text("".join(json.dumps(t, ensure_ascii=False) + "\n" for t in texts), encoding="utf-8")
    shown = [i for i in range(0, len(texts), 131) if len(texts[i]) <= 200][:40]
    record = {"versions": common.versions(), "count": len(texts), "group": GROUP}
    for name in NAMES:
        tokenizer = open_tokenizer(name)
        ids = [encode(tokenizer, t) for t in texts]
        back = [decode(tokenizer, i) for i in ids]
        record[name] = {
            "tokenizer_sha256": hashlib.sha256((DATA / name / "tokenizer.json").read_bytes()).hexdigest(),
            "total_ids": sum(map(len, ids)),
            "ids_sha256": digests([id_bytes(i) for i in ids]),
            "decoded_sha256": digests([b.encode("utf-8") + b"\xff" for b in back]),
            "not_round_trip": [i for i, (a, b) in enumerate(zip(texts, back)) if a != b],
            "ids": {str(i): ids[i] for i in shown},
        }
    common.write_json(folder / "phi3.json", record)


if __name__ == "__main__":
    main()

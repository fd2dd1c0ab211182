"""The tokenizer against tokenizers, one thread each, on the same lines, round by round in turn.

    VENV/bin/python tests/bench/encode.py BUILD [FOLDER...]

after `cmake --build BUILD --target bench_encode`. FOLDER holds a tokenizer.json; without one the published Phi-3-mini's and two small
ones are taken. Prints the median ratio of processor times and its range, MB/s of both, and whether both gave as many ids.
"""

import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "parity"))

import lines  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

ROUNDS, MEGABYTES = 7, 2


def text(kind):
    """About MEGABYTES of different lines, for tokenizers keeps what it has encoded: of every kind, or plain English."""
    out, size, i = [], 0, 0
    while size < MEGABYTES * 1000000:
        line = lines.line(i)
        if line and "\n" not in line and "\0" not in line and (kind == "mixed" or lines.kind(i) is lines.english):
            out.append(line)
            size += len(line.encode()) + 1
        i += 1
    return out


def one(program, folder, kind, rows):
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ours, theirs, ids = [], [], set()
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".txt") as f:
        f.write("\n".join(rows))
        f.flush()
        for _ in range(ROUNDS):
            n, seconds, total = subprocess.run([program, folder, f.name, "1"], capture_output=True, check=True, text=True).stdout.split()
            ours.append(float(seconds))
            started = time.process_time()
            count = sum(len(tokenizer.encode(t, add_special_tokens=False).ids) for t in rows)
            theirs.append(time.process_time() - started)
            ids |= {int(total), count}
    ratios = sorted(b / a for a, b in zip(ours, theirs))
    megabytes = int(n) / 1e6
    print(f"{folder.name:16} {kind:8} {statistics.median(ratios):5.2f} times ({ratios[0]:.2f} .. {ratios[-1]:.2f})   "
          f"{megabytes / statistics.median(ours):6.2f} MB/s against {megabytes / statistics.median(theirs):5.2f}   "
          f"{'equal' if len(ids) == 1 else 'OTHER'} ids")


def main():
    program = pathlib.Path(sys.argv[1]) / "tests/bench/encode"
    shared = pathlib.Path(os.environ.get("QFW_TOKENIZERS", HERE.parents[2] / "shared/data/tokenizers")) / "phi-3-mini"
    golden = HERE.parent / "golden/tokenizer"
    folders = [pathlib.Path(f) for f in sys.argv[2:]] or [f for f in (shared, golden / "o200k", golden / "llama2") if f.exists()]
    for kind in ("english", "mixed"):
        rows = text(kind)
        for folder in folders:
            one(program, folder, kind, rows)
    print(f"peak memory of one encoding process: {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()

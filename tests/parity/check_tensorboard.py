"""Usage: check_tensorboard.py OUTPUT_DIR: TensorBoard's own reader finds the numbers of trainer_log.jsonl in runs/.

Needs a package of its own: pip install tensorboard==2.21.0
"""

import json
import pathlib
import sys

import numpy
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

folder = pathlib.Path(sys.argv[1])
events = EventAccumulator(str(folder / "runs"))
events.Reload()
found = {(tag, e.step, e.value) for tag in events.Tags()["scalars"] for e in events.Scalars(tag)}
wanted = set()
for line in (folder / "trainer_log.jsonl").read_text().splitlines():
    row = json.loads(line)
    step = row.pop("step")
    for key, value in row.items():
        tag = "eval/" + key[5:] if key.startswith("eval_") else "train/" + key
        wanted.add((tag, step, float(numpy.float32(value))))
if found != wanted:
    sys.exit(f"only in the log: {sorted(wanted - found)[:5]}; only in the events: {sorted(found - wanted)[:5]}")
print(f"{len(found)} numbers, all the same")

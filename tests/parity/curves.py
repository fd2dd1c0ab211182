"""What the two training curves share: rows by formula, the right-padding collator, and the recorder."""

import json

import torch
import synth

PAD_LABEL = -100


def make_rows(name, count, vocab, shortest, longest):
    """count rows of `shortest`..`longest` tokens; a prompt of 1 to half the row is masked, so the first label always is."""
    rows = []
    sizes = synth.words(name + ".sizes", 2 * count).tolist()
    for i in range(count):
        length = shortest + sizes[2 * i] % (longest - shortest + 1)
        prompt = 1 + sizes[2 * i + 1] % (length // 2)
        ids = synth.tokens(f"{name}.row{i}", length, vocab - 1)
        rows.append({"input_ids": ids, "labels": [PAD_LABEL] * prompt + ids[prompt:]})
    return rows


def write_rows(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))


def collate(pad_id):
    """Right padding, labels -100 and mask 0 on the padding."""
    def run(examples):
        width = max(len(e["input_ids"]) for e in examples)
        fill = lambda key, value: torch.tensor([list(e[key]) + [value] * (width - len(e[key])) for e in examples])
        mask = torch.tensor([[1] * len(e["input_ids"]) + [0] * (width - len(e["input_ids"])) for e in examples])
        return {"input_ids": fill("input_ids", pad_id), "labels": fill("labels", PAD_LABEL), "attention_mask": mask}
    return run


class Recorder:
    """Mixed into a Trainer: keeps the rows and the token count of every micro-batch."""

    def start_recording(self, rows):
        self.row_index = {tuple(r["input_ids"]): i for i, r in enumerate(rows)}
        assert len(self.row_index) == len(rows)
        self.seen = []

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        ids = [tuple(row[mask.bool()].tolist()) for row, mask in zip(inputs["input_ids"], inputs["attention_mask"])]
        trained = int((inputs["labels"][:, 1:] != PAD_LABEL).sum())
        result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        loss = result[0] if return_outputs else result
        self.seen.append({"rows": [self.row_index[i] for i in ids], "trained": trained,
                          "window": int(num_items_in_batch), "micro_loss": float(loss.detach())})
        return result

    def steps(self):
        """One record per optimizer step: the log entry and its micro-batches."""
        out, taken = [], 0
        for log in (h for h in self.state.log_history if "learning_rate" in h):
            micro, count = [], 0
            while not micro or count < micro[0]["window"]:
                micro.append(self.seen[taken])
                count += micro[-1]["trained"]
                taken += 1
            assert all(m["window"] == count for m in micro), "num_items_in_batch is not the shifted count"
            keep = ("step", "loss", "grad_norm", "learning_rate", "epoch", "num_tokens", "mean_token_accuracy", "entropy")
            record = {k: log[k] for k in keep if k in log}
            record["learning_rate_hex"] = float(log["learning_rate"]).hex()
            record["trained_tokens"] = count
            record["rows"] = [m["rows"] for m in micro]
            record["micro_losses"] = [m["micro_loss"] for m in micro]
            out.append(record)
        assert taken == len(self.seen)
        return out


def weight_sums(named):
    """Sum and L2 norm (float64) of each trained tensor, to compare the end of a run."""
    return {k: [float(p.double().sum()), float(p.double().norm())] for k, p in named}

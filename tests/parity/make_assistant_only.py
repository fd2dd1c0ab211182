"""assistant_only: 50 optimizer steps of SFTTrainer with assistant_only_loss=True on conversations, its own training
template of Phi-3 in place of the model's: the table of tests/trainers/test_assistant_only.c. Phi-3-medium, for which
TRL has no training template, is given one here; of it the masks alone are kept."""

import json
import pathlib
import tempfile

import common
import curves
import make_sft_curve as sft
import synth

CONFIG = common.phi3_config(vocab_size=500, bos_token_id=1, eos_token_id=490, pad_token_id=499)
WORDS = "the year for a of and in is it to was that on at with".split()
MEDIUM = ("{% for message in messages %}{% if message['role'] == 'user' %}{{ '<|user|>\n' + message['content'] + "
          "'<|end|>\n<|assistant|>\n' }}{% elif message['role'] == 'assistant' %}{% generation %}"
          "{{ message['content'] + '<|end|>\n' }}{% endgeneration %}{% endif %}{% endfor %}")


def text(name, most):
    at = synth.words(name, most + 1).tolist()
    return " ".join(WORDS[w % len(WORDS)] for w in at[1:2 + at[0] % most])


def conversation(i):
    turns = 1 + i % 3
    system = [{"role": "system", "content": text(f"assistant_only.{i}.s", 4)}] if i % 4 == 3 else []
    return system + [{"role": role, "content": text(f"assistant_only.{i}.{t}.{role}", 7)}
                     for t in range(turns) for role in ("user", "assistant")]


def tokenizer(template):
    from transformers import PreTrainedTokenizerFast
    golden = pathlib.Path(common.HERE).parent / "golden" / "tokenizer" / "bytefallback" / "tokenizer.json"
    return PreTrainedTokenizerFast(tokenizer_file=str(golden), eos_token="<|endoftext|>", pad_token="<|placeholder1|>",
                                   chat_template=template)


def train(rows, template, max_steps):
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    class Trainer(curves.Recorder, SFTTrainer):
        pass

    model = common.nf4_model(CONFIG, sft.RULES)
    with tempfile.TemporaryDirectory() as out:
        args = SFTConfig(output_dir=out, use_cpu=True, bf16=False, report_to=[], save_strategy="no", logging_steps=1,
                         disable_tqdm=True, gradient_checkpointing=False, max_length=None, assistant_only_loss=True,
                         **{**sft.TRAIN, "max_steps": max_steps})
        trainer = Trainer(model=model, args=args, train_dataset=Dataset.from_list([{"messages": r} for r in rows]),
                          peft_config=LoraConfig(**sft.LORA), processing_class=tokenizer(template))
        for _, p in trainer.model.named_parameters():
            if p.requires_grad:
                p.data = p.data.float()  # undo the bf16 cast of adapters on a 4-bit base
        common.fill(trainer.model, sft.RULES, common.plain_name, "lora_")
        made = [{"input_ids": list(x["input_ids"]), "labels": list(x["labels"])} for x in trainer.train_dataset]
        if max_steps == 1:
            return made, []
        trainer.start_recording(made)
        trainer.train()
        return made, trainer.steps()


def c_string(text, width=88):
    """A literal in lines of at most 100 columns."""
    pieces, at = [], 0
    while at < len(text):
        n = width
        while len(json.dumps(text[at:at + n])) > 94:
            n -= 1
        pieces.append("    " + json.dumps(text[at:at + n]))
        at += n
    return "\n".join(pieces)


def masks(made):
    """The tokens of each row, and a 1 or 0 for each."""
    return [c_string("".join("01"[label != curves.PAD_LABEL] for label in x["labels"])) + "," for x in made]


def main():
    from trl.chat_template_utils import phi3_chat_template
    common.threads()
    rows = [conversation(i) for i in range(24)]
    made, steps = train(rows, phi3_chat_template, sft.TRAIN["max_steps"])
    medium, _ = train([r for r in rows if r[0]["role"] != "system"], MEDIUM, 1)
    versions = common.versions()
    lines = [f"/* assistant_only_table.h -- made by tests/parity/make_assistant_only.py with trl {versions['trl']}: the model,",
             " * the rows, which of their tokens are trained under the template of Phi-3-mini and (rows without a",
             " * system turn) Phi-3-medium, and loss, gradient norm and trained tokens of each step. */",
             "/* clang-format off */", "static const char config[] =", c_string(json.dumps(CONFIG)) + ";",
             "static const char *const rows[] = {"]
    lines += [c_string(json.dumps({"messages": r})) + "," for r in rows]
    lines += ["};", "static const char *const mini_masks[] = {", *masks(made), "};"]
    lines += ["static const char *const medium_masks[] = {", *masks(medium), "};"]
    lines += ["static const double steps[][3] = {"]
    for s in steps:
        print(s["step"], s["loss"], s["grad_norm"], s["trained_tokens"])
        lines.append(f"    {{{s['loss']!r}, {s['grad_norm']!r}, {s['trained_tokens']}}},")
    table = pathlib.Path(common.HERE).parent / "trainers" / "assistant_only_table.h"
    table.write_text("\n".join([*lines, "};", "/* clang-format on */", ""]))


if __name__ == "__main__":
    main()

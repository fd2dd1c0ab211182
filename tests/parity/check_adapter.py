"""Load an adapter folder with PEFT on a formula base and compare its logits with a file. Exit 1 on a mismatch."""

import argparse
import json
import pathlib
import sys

import common
import checks


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, help="config.json of the base")
    parser.add_argument("--synth", required=True, help="JSON file whose `synth` list makes the base weights")
    parser.add_argument("--adapter", required=True, help="folder with adapter_config.json and adapter_model.safetensors")
    parser.add_argument("--nf4", action="store_true", help="base in NF4 with double quantisation")
    args = checks.arguments(parser)
    common.threads()
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import safe_open
    config = json.loads(pathlib.Path(args.config).read_text())
    rules = json.loads(pathlib.Path(args.synth).read_text())["synth"]
    base = (common.nf4_model if args.nf4 else common.build_model)(config, rules)
    model = PeftModel.from_pretrained(base, args.adapter)
    with safe_open(pathlib.Path(args.adapter, "adapter_model.safetensors"), "np") as file:
        differ = set(file.keys()) ^ set(get_peft_model_state_dict(model))
    if differ:
        print(f"tensors of the file and of the adapter differ: {sorted(differ)}")
        return 1
    return checks.finish(model, args)


if __name__ == "__main__":
    sys.exit(main())

"""Load a full model folder with transformers and compare its logits with a file. Exit 1 on a mismatch."""

import argparse
import sys

import common
import checks


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="folder with config.json and model*.safetensors")
    args = checks.arguments(parser)
    common.threads()
    import torch
    from transformers import AutoModelForCausalLM
    model, info = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32, attn_implementation="eager",
                                                       output_loading_info=True)
    wrong = {k: sorted(map(str, v)) for k, v in info.items() if v}
    if wrong:
        print(f"the folder does not fit the model: {wrong}")
        return 1
    return checks.finish(model, args)


if __name__ == "__main__":
    sys.exit(main())

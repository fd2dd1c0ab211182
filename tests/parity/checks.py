"""What check_adapter.py and check_full.py share: reading tokens and logits, comparing, the exit status."""

import json
import pathlib

import common
import numpy as np


def arguments(parser):
    parser.add_argument("--tokens", required=True, help="JSON: a list of rows of token ids, all of one length")
    parser.add_argument("--logits", help="logits to compare: safetensors with one F32 tensor `logits`, or raw fp32 (.bin), [rows, T, V]")
    parser.add_argument("--out", help="write the reference logits here (safetensors)")
    parser.add_argument("--tolerance", type=float, default=1e-5, help="largest |difference| over largest |logit|")
    return parser.parse_args()


def forward(model, tokens):
    import torch
    model.eval()
    with torch.no_grad():
        return model(torch.tensor(tokens), use_cache=False).logits.float().numpy()


def read_logits(path, shape):
    from safetensors.numpy import load_file
    if pathlib.Path(path).suffix == ".bin":
        return np.fromfile(path, "<f4").reshape(shape)
    return load_file(path)["logits"]


def finish(model, args):
    """Print the figures; 0 if the logits agree (or none were given), 1 if not."""
    tokens = json.loads(pathlib.Path(args.tokens).read_text())
    want = forward(model, tokens)
    print(f"reference logits {list(want.shape)}, max |logit| {np.abs(want).max():.6g}, first {want[0, 0, :4].tolist()}")
    if args.out:
        common.write_arrays(args.out, {"logits": want})
    if not args.logits:
        return 0
    got = read_logits(args.logits, want.shape)
    if got.shape != want.shape:
        print(f"shape {list(got.shape)}, expected {list(want.shape)}")
        return 1
    relative = float(np.abs(got - want).max() / np.abs(want).max())
    good = relative <= args.tolerance  # false for NaN too
    print(f"relative mismatch {relative:.3g}, tolerance {args.tolerance:g}: {'ok' if good else 'MISMATCH'}")
    return 0 if good else 1

"""Turns the averaged weights of a training run into a published model of the package.

    python -m recipes.export_weights --run runs/tiny --model cardiac_swin_tiny --tag synthetic --metrics figures.json

The model card's provenance names every command and commit that trained the file, in order. Beside the weights lies
``test/golden.safetensors``: an input (1, 1, 32, 32, 32) and every head's logits at every second voxel, made from the
file as it was written; ``tests/test_golden.py`` replays it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from cardiac_ct_fm.model import create_model, from_pretrained
from cardiac_ct_fm.publish import export_pretrained
from cardiac_ct_fm.tensor_files import read_metadata

ASSETS = Path(__file__).parents[1] / "cardiac_ct_fm" / "assets"


def golden(folder: Path) -> None:
    """Write the input and the logits that the exported model gives, in float32 on a CPU."""
    x = torch.randn(1, 1, 32, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits = from_pretrained(folder).eval()(x)
    tensors = {"input": x} | {f"logits.{k}": v[..., ::2, ::2, ::2].contiguous() for k, v in logits.items()}
    (folder / "test").mkdir(exist_ok=True)
    save_file(tensors, folder / "test" / "golden.safetensors")


def main() -> None:
    """Export; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--run",
        type=Path,
        nargs="+",
        required=True,
        help="folders of recipes.pretrain, in order; the last counts",
    )
    parser.add_argument("--model", default="cardiac_swin_tiny")
    parser.add_argument("--tag", default="synthetic")
    parser.add_argument("--metrics", type=Path, help="JSON: group → figures, each group says what it was measured on")
    parser.add_argument("--out", type=Path, default=ASSETS)
    args = parser.parse_args()
    model = create_model(args.model)
    model.load_state_dict(load_file(args.run[-1] / "average.safetensors"))
    provenance = {
        "data": "digital cohort only: no image of any person was used for training",
        "recipe": "recipes/pretrain.py",
        "steps": sum(int(read_metadata(run / "average.safetensors")["step"]) for run in args.run),
        "runs": [piece for run in args.run for piece in json.loads((run / "runs.json").read_text())],
    }
    model._set_config(model.config.replace(provenance=provenance))
    folder = export_pretrained(
        model,
        args.out,
        tag=args.tag,
        description="trained on one machine on the digital cohort alone; not federated",
        metrics=json.loads(args.metrics.read_text()) if args.metrics else {},
        default=True,
    )
    golden(folder)
    for file in sorted(folder.rglob("*.*")):
        print(file.name, file.stat().st_size, "bytes")


if __name__ == "__main__":
    main()

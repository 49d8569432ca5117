"""Turns the averaged weights of a training run into a published model of the package.

    python -m recipes.export_weights --run runs/tiny --model cardiac_swin_tiny --tag synthetic --metrics figures.json

The model card's provenance names every command and commit that trained the file, in order.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from safetensors.torch import load_file

from cardiac_ct_fm.model import create_model
from cardiac_ct_fm.publish import export_pretrained

ASSETS = Path(__file__).parents[1] / "cardiac_ct_fm" / "assets"


def main() -> None:
    """Export; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="folder that recipes.pretrain wrote")
    parser.add_argument("--model", default="cardiac_swin_tiny")
    parser.add_argument("--tag", default="synthetic")
    parser.add_argument("--metrics", type=Path, help="JSON: group → figures, each group says what it was measured on")
    parser.add_argument("--out", type=Path, default=ASSETS)
    args = parser.parse_args()
    model = create_model(args.model)
    model.load_state_dict(load_file(args.run / "average.safetensors"))
    step = json.loads((args.run / "progress.json").read_text())["step"]
    provenance = {
        "data": "digital cohort only: no image of any person was used for training",
        "recipe": "recipes/pretrain.py",
        "seed": 0,
        "steps": step,
        "runs": json.loads((args.run / "runs.json").read_text()),
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
    for file in sorted(folder.iterdir()):
        print(file.name, file.stat().st_size, "bytes")


if __name__ == "__main__":
    main()

"""Turns the averaged weights of a training run into a published model of the package.

    WEIGHTS=cardiac_swin_tiny=runs/tiny/average.safetensors
    python -m recipes.benchmarks.heldout --model $WEIGHTS --n 12 --strength 0.7 --out out/heldout
    python -m recipes.benchmarks.real_scan --model $WEIGHTS > out/real.json
    python -m recipes.export_weights --run runs/tiny --heldout out/heldout/summary.json --real out/real.json

The model card's provenance names every command and commit that trained the file, in order; its figures are those of the
two benchmarks. Beside the weights lies
``test/golden.safetensors``: an input (1, 1, 32, 32, 32) and every head's logits at every second voxel, made from the
file as it was written; ``tests/test_golden.py`` replays it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from cardiac_ct_fm.model import create_model, from_pretrained
from cardiac_ct_fm.publish import export_pretrained
from cardiac_ct_fm.tensor_files import read_metadata

DESCRIPTION = "100 % synthetic: trained on one machine on the digital cohort alone; not federated, not distilled."
ASSETS = Path(__file__).parents[1] / "cardiac_ct_fm" / "assets"


def golden(folder: Path) -> None:
    """Write the input and the logits that the exported model gives, in float32 on a CPU."""
    x = torch.randn(1, 1, 32, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits = from_pretrained(folder).eval()(x)
    tensors = {"input": x} | {f"logits.{k}": v[..., ::2, ::2, ::2].contiguous() for k, v in logits.items()}
    (folder / "test").mkdir(exist_ok=True)
    save_file(tensors, folder / "test" / "golden.safetensors")


def held_out_figures(summary: dict[str, Any]) -> dict[str, Any]:
    """A group of the card: medians with quartiles, a miss counted as infinitely far, and the command."""
    data = summary["data"]
    figures: dict[str, Any] = {}
    for name in ("hinge points", "ostia", "septum"):
        v = summary["landmarks"][name]
        figures[name] = (
            f"{v['median']:.2f} mm [{v['q25']:.2f}–{v['q75']:.2f}], {v['success']['4_mm']['rate']:.0%} within 4 mm, "
            f"{v['found']} of {v['asked']} found"
        )
        if v["confidence_auroc"] is not None:
            figures[name] += f", AUROC of the confidence {v['confidence_auroc']:.2f}"
    angle = summary["plane"]["plane_angle_deg"]
    figures["annulus plane"] = f"{angle['median']:.1f}° [{angle['q25']:.1f}–{angle['q75']:.1f}]"
    figures["Dice"] = ", ".join(f"{name} {v['dice']['median']:.2f}" for name, v in summary["segmentation"].items())
    figures["command"] = (
        f"`python -m recipes.benchmarks.heldout --model cardiac_swin_tiny --n {summary['scans']} "
        f"--strength {data['strength']}`"
    )
    return {f"{summary['scans']} held-out digital patients, misses counted as failures": figures}


def real_scan_figures(found: dict[str, Any]) -> dict[str, Any]:
    """A group of the card: agreement on the demonstration scan, and the command."""
    figures = {
        "Dice of the ascending aorta": f"{found['ascending_aorta_dice']:.2f}",
        "hinge-point circle to the annulus disc": f"{found['circle_centre_mm']:.1f} mm, {found['plane_deg']:.0f}°",
        "confidence of the points": {
            k: "not found" if v is None else f"{v:.2f}" for k, v in found["landmarks"].items()
        },
        "command": "`python -m recipes.benchmarks.real_scan`",
    }
    return {"The real demonstration scan, agreement with TotalSegmentator, n=1": figures}


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
    parser.add_argument("--heldout", type=Path, required=True, help="summary.json of recipes.benchmarks.heldout")
    parser.add_argument("--real", type=Path, required=True, help="what recipes.benchmarks.real_scan printed")
    parser.add_argument("--limitation", action="append", default=[], help="a sentence for the card; may be repeated")
    parser.add_argument("--out", type=Path, default=ASSETS)
    args = parser.parse_args()
    model = create_model(args.model)
    model.load_state_dict(load_file(args.run[-1] / "average.safetensors"))
    provenance = {
        "data": "digital cohort only: no image of any person was used for training",
        "synthetic_share": "100 %",
        "seed": "in each command; 0 where none is named",
        "recipe": "recipes/pretrain.py",
        "steps": sum(int(read_metadata(run / "average.safetensors")["step"]) for run in args.run),
        "runs": [piece for run in args.run for piece in json.loads((run / "runs.json").read_text())],
    }
    if args.limitation:
        provenance["limitations"] = args.limitation
    model._set_config(model.config.replace(provenance=provenance))
    folder = export_pretrained(
        model,
        args.out,
        tag=args.tag,
        description=DESCRIPTION,
        metrics=held_out_figures(json.loads(args.heldout.read_text()))
        | real_scan_figures(json.loads(args.real.read_text())),
        default=True,
    )
    golden(folder)
    for file in sorted(folder.rglob("*.*")):
        print(file.name, file.stat().st_size, "bytes")


if __name__ == "__main__":
    main()

"""What of the digital cohort carries the transfer to a real scan? Four short trainings, each with a part left out.

    python -m recipes.benchmarks.ablation --steps 1000 --out runs/ablation

Each variant trains ``cardiac_swin_tiny`` from the same random weights with the same seed on its own cohort, only the
looks at 4 and 2 mm, and is judged at ``fast`` on the demonstration scan (agreement with TotalSegmentator, n = 1) and
on held-out patients of the whole cohort. Every training resumes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cardiac_ct_fm.errors import ImageError
from cardiac_ct_fm.inference import Predictor
from cardiac_ct_fm.tensor_files import read_metadata
from cardiac_ct_fm.training.digital import digital_source
from cardiac_ct_fm.training.evaluate import evaluate
from recipes.benchmarks.heldout import load
from recipes.benchmarks.real_scan import SCAN, agreement
from recipes.poorer_cohorts import WITHOUT

MODEL = "cardiac_swin_tiny"
SCHEDULE = [
    "--lr", "2e-3", "--warmup", "50", "--seed", "0", "--share", "0.25", "0.75", "0",
    "--locate-window", "48", "--heart-window", "48",
]  # fmt: skip


def train(variant: str, steps: int, out: Path, threads: int) -> Path:
    """Train one variant, or go on with it; returns its weights."""
    command = [sys.executable, "-m", "recipes.pretrain", "--model", MODEL, "--out", str(out), "--steps", str(steps)]
    command += [*SCHEDULE, "--threads", str(threads)]
    if variant in WITHOUT:
        command += ["--without", variant]
    weights = out / "average.safetensors"
    if not weights.exists() or int(read_metadata(weights)["step"]) < steps:
        subprocess.run(command, check=True)
    return weights


def judge(weights: Path, patients: int, out: Path) -> dict[str, Any]:
    """Figures on the real scan and on held-out digital patients; a scan that is refused counts as one."""
    model = load(f"{MODEL}={weights}")
    try:
        pred = Predictor(model)(SCAN / "ct_cropped.nii.gz", heads=["heart"], quality="fast", measure=False)
        real: dict[str, Any] = agreement(pred)
        real = {k: real[k] for k in ("ascending_aorta_dice", "volumes_ml")}
    except ImageError as error:
        real = {"ascending_aorta_dice": 0.0, "refused": str(error)}
    data = digital_source(f"0-{patients - 1}", spacing_mm=2.0, shape=(96, 96, 96), cache=out.parent / "scans")
    summary = evaluate(model, data, out / "heldout", heads=["heart"], quality="fast").summary
    dice = {name: v["dice"]["median"] for name, v in summary["segmentation"].items()}
    return {"real": real, "digital_dice": dice, "digital_failed": len(summary["failed"])}


def main() -> None:
    """Train, judge, and print the table; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--patients", type=int, default=8, help="held-out digital patients")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    result: dict[str, Any] = {"steps": args.steps, "schedule": SCHEDULE, "variants": {}}
    for variant in ("nothing", *WITHOUT):
        folder = args.out / variant
        result["variants"][variant] = judge(train(variant, args.steps, folder, args.threads), args.patients, folder)
    print("| left out | real scan: ascending aorta Dice | digital: mean Dice of 7 structures | refused |")
    print("|---|---|---|---|")
    for variant, figures in result["variants"].items():
        # a structure that no prediction found has no median
        dice = np.mean([v or 0.0 for v in figures["digital_dice"].values()])
        refused = figures["digital_failed"] + ("refused" in figures["real"])
        print(f"| {variant} | {figures['real']['ascending_aorta_dice']:.3f} | {dice:.3f} | {refused} |")
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

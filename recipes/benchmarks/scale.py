"""How the cost of a prediction grows: with slices, with the voxels' size, with the number of scans.

    python -m recipes.benchmarks.scale --out docs/speed

Slices and sizes run through :mod:`recipes.benchmarks.predict`, each in a process of its own; scans run through the
command line with a folder of copies, start-up included.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from cardiac_ct_fm.registry import list_models
from recipes.benchmarks.predict import QUALITIES, apart
from recipes.benchmarks.scans import write_scan
from recipes.benchmarks.tables import scale_picture, scale_table

IN_PLANE_MM, SLICE_MM = 0.4, 0.5
"""Voxels of a planning scan (0.3–0.7 mm in plane, slices of 0.5–1.0 mm)."""

EXTENT_MM = (205.0, 205.0, 246.0)
"""Field of view of the scans of different voxel sizes."""

SLICES, SPACINGS, SCANS = (100, 200, 400, 700, 1200), (0.3, 0.5, 1.0, 2.0, 3.0), (1, 10, 100)


def one(model: str, quality: str, threads: int, shape: tuple[int, ...], spacing: tuple[float, ...]) -> dict[str, Any]:
    """Cost of one scan."""
    given = ["--out", ".", "--threads", str(threads), "--shape", *map(str, shape), "--spacing", *map(str, spacing)]
    apart("scan", given)
    stages = apart(f"{model} {quality}", given)["stages"]
    total = {k: round(sum(s[k] for s in stages.values()), 2) for k in ("wall_s", "cpu_s")}
    return {
        "shape": list(shape),
        **total,
        "peak_mb": round(max(s["peak_mb"] for s in stages.values())),
        "stages": stages,
    }


def many(count: int, model: str, threads: int, quality: str, folder: Path) -> dict[str, Any]:
    """Cost per scan of a folder of ``count`` scans through the command line, with a published model."""
    shape, spacing = (256, 256, 246), (0.8, 0.8, 1.0)
    scan = write_scan(folder / "one.nii.gz", shape, spacing)
    cohort = folder / f"cohort{count}"
    cohort.mkdir(exist_ok=True)
    for i in range(count):
        link = cohort / f"scan{i:03d}.nii.gz"
        if not link.exists():
            os.link(scan, link)
    command = [sys.executable, "-m", "cardiac_ct_fm", "predict", str(cohort), "-o", str(folder / f"out{count}"), "-q"]
    command += ["--model", f"cardiac_swin_{model}", "--quality", quality, "--threads", str(threads)]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    if status:
        raise SystemExit(f"predict failed on {cohort}")
    cpu = used.ru_utime + used.ru_stime
    return {
        "of": count,
        "shape": list(shape),
        "wall_s": round(wall / count, 2),
        "cpu_s": round(cpu / count, 2),
        "peak_mb": round(used.ru_maxrss / 1024),
    }


def main() -> None:
    """Run and write ``scale.json``, ``scale.md`` and ``scale.png``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="tiny", choices=("tiny", "small", "base"))
    parser.add_argument("--quality", default="standard", choices=QUALITIES)
    parser.add_argument("--slices", type=int, nargs="*", default=SLICES)
    parser.add_argument("--spacings", type=float, nargs="*", default=SPACINGS)
    parser.add_argument("--scans", type=int, nargs="*", default=SCANS)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    if args.scans and not list_models(f"cardiac_swin_{args.model}.*", pretrained=True):
        parser.error(f"a folder of scans needs published weights; there are none of {args.model}: leave --scans empty")
    result: dict[str, Any] = {"model": args.model, "quality": args.quality, "threads": args.threads}
    spacing: tuple[float, ...] = (IN_PLANE_MM, IN_PLANE_MM, SLICE_MM)
    result["slices"] = [
        {"of": n, **one(args.model, args.quality, args.threads, (512, 512, n), spacing)} for n in args.slices
    ]
    result["spacing"] = [
        {"of": s, **one(args.model, args.quality, args.threads, tuple(round(e / s) for e in EXTENT_MM), (s, s, s))}
        for s in args.spacings
    ]
    with tempfile.TemporaryDirectory() as folder:
        result["scans"] = [many(n, args.model, args.threads, args.quality, Path(folder)) for n in args.scans]
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "scale.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (args.out / "scale.md").write_text(scale_table(result), encoding="utf-8")
    scale_picture(result, args.out / "scale.png")
    print(scale_table(result))


if __name__ == "__main__":
    main()

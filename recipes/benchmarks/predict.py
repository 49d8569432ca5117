"""What a prediction costs: the original's way beside ours, stage by stage, each in a process of its own.

    python -m recipes.benchmarks.predict --out docs/speed              # all of it
    python -m recipes.benchmarks.predict --out docs/speed --windows 2  # 2 of the original's 27 windows per task

Every way starts in a fresh process, so its memory is its own; ``--repeats`` goes through all of them again, and the
fastest run of each counts. Where only some of the equal windows were computed, the network's time is scaled up and the
table says so. Weights of ``small`` and ``base`` are random, and so are the original's (see ``standins``).
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from cardiac_ct_fm import inference
from cardiac_ct_fm.model import CardiacCTModel, create_model, from_pretrained
from cardiac_ct_fm.process import keep_freed_memory
from recipes.benchmarks import original
from recipes.benchmarks.meter import Cost, StageClock, gflops, machine_peak, measured
from recipes.benchmarks.scans import write_scan
from recipes.benchmarks.standins import Known, stand_in
from recipes.benchmarks.tables import predict_table

SHAPE, SPACING = (512, 512, 492), (0.4, 0.4, 0.5)
"""A planning scan: the demonstration scan's 246 mm in slices of 0.5 mm."""

MODELS, QUALITIES = ("tiny", "small", "base"), ("fast", "standard", "full")


def ours(model: str, quality: str, scan: Path, cache: Path) -> dict[str, Any]:
    """One of our models at one quality, from the file to the folder of results, as the command line does it."""
    keep_freed_memory()
    clocks: list[StageClock] = []

    class Clock(StageClock):
        def __init__(self) -> None:
            super().__init__()
            clocks.append(self)

    network: CardiacCTModel
    if model == "tiny":
        network = from_pretrained("cardiac_swin_tiny")
    else:
        stand_in(Known.look(cache / "known.npz"), lambda: clocks[-1])
        network = create_model(f"cardiac_swin_{model}", seed=0).eval()
    spent = _watch(network)
    inference.Clock = Clock
    predictor = inference.Predictor(network, "cpu")
    from cardiac_ct_fm.outputs import write_outputs

    pred = predictor(scan, quality=quality)  # type: ignore[arg-type]
    write_outputs(pred, cache / f"out-{model}-{quality}")
    clocks[-1].lap("write")
    work = sum(n * gflops(network, window) for window, n in spent.windows.items())
    return {"stages": _plain(clocks[-1].costs), "network": spent.to_dict(work)}


def one_pass(windows: int, scan: Path, cache: Path) -> dict[str, Any]:
    """All heads of ``base`` in one pass over 192³ voxels of 1 mm, 27 windows of 96³."""
    keep_freed_memory()
    del scan, cache
    network = create_model("cardiac_swin_base", seed=0).eval()
    spent = _watch(network)
    image = torch.randn(1, 1, original.WINDOW, original.WINDOW, original.WINDOW)

    def work() -> None:
        with torch.inference_mode():
            for _ in range(windows):
                network(image)

    cost = measured(work)[1]
    factor = original.WINDOWS / windows
    arithmetic = windows * gflops(network, original.WINDOW)
    return {"stages": _plain({"network": cost.scaled(factor)}), "network": spent.to_dict(arithmetic, factor)}


def original_way(windows: int, scan: Path, cache: Path) -> dict[str, Any]:
    """Three networks, three times 27 windows; see :mod:`recipes.benchmarks.original`."""
    costs, seen = original.predict(scan, cache / "calc.nii.gz", windows)
    network = create_model("cardiac_swin_base").eval()  # its heads are 0.3 % of the arithmetic
    work = 3 * windows * gflops(network, original.WINDOW)
    spent = _Spent(cpu_s=seen["network"].cpu_s, windows={original.WINDOW: 3 * windows})
    return {"stages": _plain(costs), "network": spent.to_dict(work, original.WINDOWS / windows)}


class _Spent:
    """CPU seconds and windows of a network."""

    def __init__(self, cpu_s: float = 0.0, windows: dict[int, int] | None = None) -> None:
        self.cpu_s, self.windows = cpu_s, dict(windows or {})

    def to_dict(self, work: float, factor: float = 1.0) -> dict[str, Any]:
        return {
            "cpu_s": round(self.cpu_s * factor, 2),
            "gflop": round(work * factor, 1),
            "gflop_per_cpu_s": round(work / self.cpu_s, 1),
            "windows": {str(k): round(n * factor) for k, n in self.windows.items()},
            "scaled_by": round(factor, 3),
        }


def _watch(network: CardiacCTModel) -> _Spent:
    """Count the network's own seconds and windows from now on."""
    spent, began = _Spent(), [0.0]

    def before(_module: torch.nn.Module, _given: tuple[Any, ...]) -> None:
        began[0] = time.process_time()

    def after(_module: torch.nn.Module, given: tuple[torch.Tensor, ...], _result: Any) -> None:
        spent.cpu_s += time.process_time() - began[0]
        spent.windows[given[0].shape[-1]] = spent.windows.get(given[0].shape[-1], 0) + 1

    network.register_forward_pre_hook(before)
    network.register_forward_hook(after)
    return spent


def _plain(costs: dict[str, Cost]) -> dict[str, Any]:
    return {name: cost.to_dict() for name, cost in costs.items()}


def work(way: str, args: argparse.Namespace) -> dict[str, Any]:
    """One way, in this process."""
    torch.set_num_threads(args.threads)
    if way == "peak":
        return dict(machine_peak())
    if way == "scan":
        write_scan(args.scan, tuple(args.shape), tuple(args.spacing))
        Known.look(args.cache / "known.npz")
        return {}
    if way == "original":
        return original_way(args.windows, args.scan, args.cache)
    if way == "one pass":
        return one_pass(args.windows, args.scan, args.cache)
    model, quality = way.split()
    return ours(model, quality, args.scan, args.cache)


def apart(way: str, given: list[str]) -> dict[str, Any]:
    """One way in a process of its own; its last line of output is its result."""
    command = [sys.executable, "-m", "recipes.benchmarks.predict", *given, "--way", way]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Run all ways and write ``predict.json`` and ``predict.md``; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scan", type=Path, help="NIfTI; made from the demonstration scan when left out")
    parser.add_argument("--shape", type=int, nargs=3, default=SHAPE)
    parser.add_argument("--spacing", type=float, nargs=3, default=SPACING)
    parser.add_argument("--models", nargs="*", default=MODELS, choices=MODELS)
    parser.add_argument("--qualities", nargs="*", default=QUALITIES, choices=QUALITIES)
    parser.add_argument("--windows", type=int, default=original.WINDOWS, help="of the original's 27 per task")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "cardiac-ct-fm-benchmarks")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.cache.mkdir(parents=True, exist_ok=True)
    name = "x".join(f"{v:g}" for v in (*args.shape, *args.spacing))
    args.scan = args.scan or args.cache / f"{name}.nii.gz"
    if args.way:
        print(json.dumps(work(args.way, args)))
        return
    given = sys.argv[1:]
    apart("scan", given)
    ways = [*(f"{m} {q}" for m in args.models for q in args.qualities), "original", "one pass"]
    best: dict[str, dict[str, Any]] = {}
    peak = apart("peak", given)
    for _ in range(args.repeats):
        for way in ways:
            row = apart(way, given)
            print(way, row["network"], file=sys.stderr, flush=True)
            if way not in best or _seconds(row) < _seconds(best[way]):
                best[way] = row
    result = {
        "machine": {"cores": args.threads, "processor": platform.machine(), "torch": torch.__version__, "peak": peak},
        "scan": {"shape": list(args.shape), "spacing_mm": list(args.spacing)},
        "repeats": args.repeats,
        "ways": best,
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "predict.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    table = predict_table(result)
    (args.out / "predict.md").write_text(table, encoding="utf-8")
    print(table)


def _seconds(row: dict[str, Any]) -> float:
    return sum(stage["cpu_s"] for stage in row["stages"].values())


if __name__ == "__main__":
    main()

"""How good are weights on digital patients that no training has seen? Through the whole predictor, misses counted.

    python -m recipes.benchmarks.heldout --model cardiac_swin_tiny --n 200 --out out/heldout-tiny

``--model`` is a name, a folder, a Hub repository or, for a training that is under way, ``NAME=weights.safetensors``
(an architecture and its state dict). Rendering a scan costs more than predicting it: ``--cache`` keeps them.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

from cardiac_ct_fm.model import CardiacCTModel, create_model, from_pretrained
from cardiac_ct_fm.tensor_files import read_tensors
from cardiac_ct_fm.training.digital import digital_source
from cardiac_ct_fm.training.evaluate import evaluate


def load(model: str) -> CardiacCTModel:
    """A published model, or an architecture with a state dict."""
    name, _, weights = model.partition("=")
    if not weights:
        return from_pretrained(model)
    network = create_model(name)
    network.load_state_dict(read_tensors([Path(weights)]), strict=False)
    return network.eval()


def lines(summary: dict[str, Any]) -> list[str]:
    """The summary as a table for people."""
    out = [
        f"{summary['model']} on {summary['scans']} scans ({summary['data']['name']}), {len(summary['failed'])} failed"
    ]
    heads = ("median", "q25", "q75", "<2", "<2.5", "<3", "<4 mm", "found", "swap", "AUROC")
    out.append(f"{'point':14s} " + " ".join(f"{h:>6s}" for h in heads))
    for name, v in summary["landmarks"].items():
        rates = [v["success"][f"{r}_mm"]["rate"] for r in ("2", "2.5", "3", "4")]
        cells = [v["median"], v["q25"], v["q75"], *rates, v["detection_rate"], v["swap_rate"], v["confidence_auroc"]]
        out.append(f"{name:14s} " + " ".join(_cell(c) for c in cells))
    for name, v in summary["plane"].items():
        spread = f"{_cell(v['median'])} [{_cell(v['q25'])} {_cell(v['q75'])}]"
        out.append(f"{name:26s} median {spread} missed {v['missed']}/{v['asked']}")
    out.append(f"{'structure':14s} {'Dice':>6s} {'q25':>6s} {'NSD':>6s} {'HD95':>6s} {'missed':>7s} {'invented':>9s}")
    for name, v in summary["segmentation"].items():
        cells = [v["dice"]["median"], v["dice"]["q25"], v["nsd"]["median"], v["hd95_mm"]["median"]]
        out.append(
            f"{name:14s} " + " ".join(_cell(c) for c in cells) + f" {v['dice']['missed']:7d} {v['dice']['invented']:9d}"
        )
    for name, v in summary["volumes"].items():
        out.append(
            f"{name:14s} volume bias {_cell(v['bias'], 9)} mm3, limits {_cell(v['lower'], 9)} … {_cell(v['upper'], 9)}"
        )
    return out


def _cell(value: float | None, width: int = 6) -> str:
    return f"{'-' if value is None else f'{value:.2f}':>{width}s}"


def main() -> None:
    """Evaluate and print; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--n", type=int, default=20, help="patients of no site, from seed 0 on")
    parser.add_argument("--cohort", help="which patients instead, for example 1-8/0-199: 200 of each site")
    parser.add_argument("--strength", type=float, help="dial of the domain randomisation")
    parser.add_argument("--spacing", type=float, default=1.0, help="mm")
    parser.add_argument("--shape", type=int, nargs=3, default=(192, 192, 192))
    parser.add_argument("--heads", nargs="+", help="heads to measure (default: all of the model's)")
    parser.add_argument("--quality", default="standard")
    parser.add_argument("--out", type=Path, help="folder for the tables; an interrupted run goes on")
    parser.add_argument("--cache", type=Path, help="folder that keeps the rendered scans")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    shape = tuple(args.shape)
    patients = args.cohort or f"0-{args.n - 1}"
    data = digital_source(patients, strength=args.strength, spacing_mm=args.spacing, shape=shape, cache=args.cache)

    def tell(scan: str, done: int, total: int) -> None:
        print(f"{scan} {done}/{total}", file=sys.stderr, flush=True)

    result = evaluate(load(args.model), data, args.out, heads=args.heads, quality=args.quality, progress=tell)
    print(json.dumps(result.summary, indent=2) if args.json else "\n".join(lines(result.summary)))


if __name__ == "__main__":
    main()

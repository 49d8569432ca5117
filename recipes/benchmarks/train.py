"""What a training step costs, and how much of it is making the data.

    python -m recipes.benchmarks.train --out docs/speed

Looks of digital patients as :mod:`recipes.pretrain` draws them, one at a time; the step in float32 and, where the
machine multiplies bfloat16 in hardware, in bfloat16 too.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from pathlib import Path
from typing import Any

import torch

from cardiac_ct_fm.model import create_model
from cardiac_ct_fm.process import keep_freed_memory
from cardiac_ct_fm.runtime import fast_bf16
from cardiac_ct_fm.training.looks import CohortLooks, LookPlan
from cardiac_ct_fm.training.losses import partial_label_loss
from recipes.pretrain import collate


def steps(name: str, window: int, count: int, half: bool) -> dict[str, Any]:
    """CPU seconds per step of data and of the network, batch 1, on this process' threads."""
    model = create_model(name, seed=0).train().to(memory_format=torch.channels_last_3d)
    optimiser = torch.optim.AdamW(model.param_groups(1e-4, weight_decay=0.01))
    looks = ("locate", "heart", "root")
    plan = LookPlan(dict.fromkeys(looks, 1.0), dict.fromkeys(looks, (window,)))
    stream = iter(CohortLooks(model.config.looks, model.config.intensity, plan))
    data = network = 0.0
    began = time.perf_counter()
    for step in itertools.count(-1):  # the first is to warm up
        if step == 0:
            data = network = 0.0
            began = time.perf_counter()
        if step == count:
            break
        start = time.process_time()
        example = collate([next(stream)])
        made = time.process_time()
        image = example.pop("image").contiguous(memory_format=torch.channels_last_3d)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            logits = model(image, heads=list(example))
        partial_label_loss(logits, example)[0].backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        data, network = data + made - start, network + time.process_time() - made
    wall = time.perf_counter() - began
    return {
        "model": name,
        "window": window,
        "precision": "bfloat16" if half else "float32",
        "steps_per_s": round(count / wall, 3),
        "data_cpu_s": round(data / count, 3),
        "network_cpu_s": round(network / count, 3),
        "data_share": round(data / (data + network), 3),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| model | window | precision | steps/s | data CPU s | network CPU s | data share |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        lines.append(
            f"| {r['model']} | {r['window']}³ | {r['precision']} | {r['steps_per_s']} | {r['data_cpu_s']} | "
            f"{r['network_cpu_s']} | {r['data_share']:.0%} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and write ``train.json`` and ``train.md``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--models", nargs="+", default=["cardiac_swin_tiny"])
    parser.add_argument("--windows", type=int, nargs="+", default=[64])
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    halves = [False, True] if fast_bf16("cpu") else [False]
    rows = [steps(m, w, args.steps, h) for m in args.models for w in args.windows for h in halves]
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "train.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    (args.out / "train.md").write_text(table(rows), encoding="utf-8")
    print(table(rows))


if __name__ == "__main__":
    main()

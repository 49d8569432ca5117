"""Plain training of a foundation model on the digital cohort, on one machine, with every label at hand.

It makes the ``…​.synthetic`` weights: the upper bound that the federation of ``federated_distillation`` is
compared with. Goes on where its last checkpoint was written, as if it had not been stopped:

    python -m recipes.pretrain --model cardiac_swin_tiny --steps 12000 --seed 0 --out runs/tiny
"""

from __future__ import annotations

import argparse
import copy
import csv
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader

from cardiac_ct_fm.anatomy import HINGE_POINTS
from cardiac_ct_fm.cpu_layers import channels_last
from cardiac_ct_fm.files import atomic_write, write_json
from cardiac_ct_fm.model import CardiacCTModel, create_model, from_pretrained
from cardiac_ct_fm.process import keep_freed_memory
from cardiac_ct_fm.runtime import fast_bf16
from cardiac_ct_fm.tensor_files import read_metadata, read_tensors
from cardiac_ct_fm.training.denormals import denormals_as_zero
from cardiac_ct_fm.training.evaluate import weights_sha256
from cardiac_ct_fm.training.looks import CohortLooks, LookPlan
from cardiac_ct_fm.training.losses import partial_label_loss
from cardiac_ct_fm.training.schedule import load_moments, moments, part
from recipes import sinus_labels
from recipes.grown import grown
from recipes.poorer_cohorts import WITHOUT
from recipes.turned_roots import turned_roots

torch.multiprocessing.set_sharing_strategy("file_system")

SAVE_EVERY = 250
"""Steps between two checkpoints."""

STARTED_FROM = "started_from.json"
"""Where :func:`note_start` writes."""

OF_A_SECOND_LOOK = "refiners."
"""Where the weights stand that :mod:`recipes.refine` trains, without any trunk."""

FOR_TRAINING = f"heads.{sinus_labels.HEAD}."
"""Where the weights stand that are not published."""


def quiet_worker(_: int) -> None:
    """Make looks on one thread and the last core, in the time that others leave."""
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {(os.cpu_count() or 1) - 1})


def collate(batch: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Stack the images and the labels that every example of the batch has."""
    shared = [k for k in batch[0] if all(k in example for example in batch)]
    return {k: torch.stack([example[k] for example in batch]) for k in shared}


def main(arguments: Sequence[str]) -> None:
    """Train; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="cardiac_swin_tiny")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=12000)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--warmup", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--share", type=float, nargs=3, default=(0.2, 0.4, 0.4), metavar=("LOCATE", "HEART", "ROOT"))
    for name in ("locate", "heart", "root"):
        parser.add_argument(f"--{name}-window", type=int, nargs="+", default=[48, 64], help="drawn evenly per look")
    parser.add_argument(
        "--start-from", help="for a new schedule: another run's average.safetensors, or what from_pretrained takes"
    )
    cohort = parser.add_mutually_exclusive_group()
    cohort.add_argument("--without", choices=list(WITHOUT), help="leave a part of the cohort out, for an ablation")
    cohort.add_argument("--turned-roots", action="store_true", help="make half of the roots unlike published ones")
    parser.add_argument(
        "--sinuses", action="store_true", help="teach a head beside the others which cusp's sinus a voxel lies in"
    )
    parser.add_argument(
        "--centre-weight", type=float, default=0.0, help="what a landmark's distance counts beside its sphere's overlap"
    )
    parser.add_argument("--log-every", type=int, default=50)
    parser.add_argument("--skip", type=int, default=0, help="patients to skip when a new schedule starts")
    args = parser.parse_args(arguments)
    with denormals_as_zero():
        train(args, arguments)


def train(args: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Train as the command line says; ``arguments`` are noted in ``runs.json``."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = create_model(args.model)
    if args.sinuses:
        model.add_head(sinus_labels.HEAD, HINGE_POINTS, looks=["root"])
    model.to(device).to(memory_format=torch.channels_last_3d)
    average = copy.deepcopy(model).eval()
    optimiser = torch.optim.AdamW(model.param_groups(args.lr, weight_decay=0.01), lr=args.lr)
    args.out.mkdir(parents=True, exist_ok=True)
    step = resume(args.out, model, average, optimiser)
    if step == 0 and args.start_from:
        weights = start_weights(args.start_from, dict(model.state_dict()))
        model.load_state_dict(weights)
        average.load_state_dict(weights)
        if not Path(args.start_from).is_file():
            note_start(args.out, from_pretrained(args.start_from))
    note_run(args.out, step, "recipes.pretrain", arguments)
    names = ("locate", "heart", "root")
    windows = {name: tuple(getattr(args, f"{name}_window")) for name in names}
    plan = LookPlan(dict(zip(names, args.share, strict=True)), windows)
    config = model.config
    draw = turned_roots if args.turned_roots else WITHOUT.get(args.without)
    looks = CohortLooks(
        config.looks, config.intensity, plan, args.seed,
        start=args.skip, done=step, draw=draw, labellers={sinus_labels.HEAD: sinus_labels.sinus_labels},
    )  # fmt: skip
    loader = DataLoader(
        looks, batch_size=1, num_workers=args.workers, collate_fn=collate, prefetch_factor=8,
        worker_init_fn=quiet_worker,
    )  # fmt: skip
    half = fast_bf16(device)
    print(
        f"{args.model}: {model.num_parameters / 1e6:.2f} M parameters, step {step}/{args.steps}, bf16={half}",
        flush=True,
    )
    history = args.out / "history.csv"
    new = not history.exists()
    heads = list(model.heads)
    sums: dict[str, list[float]] = {}
    begin = time.time()
    with history.open("a", newline="") as log:
        writer = csv.writer(log)
        if new:
            writer.writerow(["step", "seconds", "lr", *heads])
        for example in islice(loader, max(0, args.steps - step)):
            lr = set_rate(optimiser, args, step)
            image = channels_last(example.pop("image").to(device))
            targets = {k: v.to(device) for k, v in example.items()}
            with torch.autocast(device, dtype=torch.bfloat16, enabled=half):
                logits = model(image, heads=list(targets))
            loss, parts = partial_label_loss(logits, targets, centre_weight=args.centre_weight)
            step += 1
            learn(model, average, optimiser, loss, step)
            for head, value in parts.items():
                sums.setdefault(head, []).append(value)
            if step % args.log_every == 0:
                row = [sum(v) / len(v) if (v := sums.get(h)) else math.nan for h in heads]
                writer.writerow([step, round(time.time() - begin, 1), f"{lr:.2e}", *[f"{x:.4f}" for x in row]])
                log.flush()
                print(f"step {step} {time.time() - begin:.0f} s  " + "  ".join(f"{x:.3f}" for x in row), flush=True)
                sums.clear()
            if step % SAVE_EVERY == 0 or step == args.steps:
                save(args.out, model, average, optimiser, step)


def set_rate(optimiser: torch.optim.Optimizer, args: argparse.Namespace, step: int) -> float:
    """The rate after ``step`` updates: it rises over ``args.warmup`` and falls as a cosine to ``args.steps``."""
    lr = float(args.lr * min(1.0, (step + 1) / args.warmup) * (0.5 + 0.5 * math.cos(math.pi * step / args.steps)))
    for group in optimiser.param_groups:
        group["lr"] = lr
    return lr


def learn(
    model: torch.nn.Module,
    average: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    loss: torch.Tensor,
    step: int,
) -> None:
    """Update number ``step``, counted from 1, and the average of the weights, which remembers about 500 updates."""
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), 2.0)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    decay = min(0.998, (1 + step) / (10 + step))
    with torch.no_grad():
        for slow, fast in zip(average.parameters(), model.parameters(), strict=True):
            slow.lerp_(fast, 1 - decay)


def start_weights(source: str, own: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict of a run's file, or of a published model (whose file lacks what can be computed).

    Args:
        source: the file or the model; of three stages where the model that is trained has four, it is grown.
        own: state dict of the model that is trained.
    """
    weights = load_file(source) if Path(source).is_file() else dict(from_pretrained(source).float().state_dict())
    weights = {k: v for k, v in weights.items() if not k.startswith(OF_A_SECOND_LOOK)}
    weights |= {k: v for k, v in own.items() if k.startswith(FOR_TRAINING)}
    return weights if weights.keys() == own.keys() else grown(weights, own)


def note_start(out: Path, published: CardiacCTModel) -> None:
    """Write how the published weights came about that a training starts from: their name may mean others one day."""
    facts = {"weights_sha256": weights_sha256(published), "provenance": published.config.provenance}
    write_json(out / STARTED_FROM, facts)


def note_run(out: Path, step: int, module: str, arguments: Sequence[str]) -> None:
    """Append to ``runs.json`` from which step on which command ran at which commit; it becomes the provenance."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    file = out / "runs.json"
    runs = json.loads(file.read_text()) if file.exists() else []
    runs.append({"from_step": step, "command": ["python", "-m", module, *arguments], "commit": commit})
    file.write_text(json.dumps(runs, indent=1))


def save(
    out: Path, model: torch.nn.Module, average: torch.nn.Module, optimiser: torch.optim.Optimizer, step: int
) -> None:
    """Write the averaged weights, then the state, each whole with its step: the state alone says where to go on.

    The averaged weights are those to publish, without the head that serves the training alone.
    """
    state = {f"model.{k}": v for k, v in model.state_dict().items()}
    state |= {f"average.{k}": v for k, v in average.state_dict().items()}
    state |= {f"optimiser.{k}": v for k, v in moments(optimiser).items()}
    published = {k: v for k, v in average.state_dict().items() if not k.startswith(FOR_TRAINING)}
    for name, tensors in (("average.safetensors", published), ("state.safetensors", state)):
        whole = {k: v.contiguous().clone() for k, v in tensors.items()}
        with atomic_write(out / name) as temporary:
            save_file(whole, temporary, metadata={"format": "pt", "step": str(step)})


def resume(out: Path, model: torch.nn.Module, average: torch.nn.Module, optimiser: torch.optim.Optimizer) -> int:
    """Put back what :func:`save` wrote.

    Returns:
        Steps done, 0 where nothing was written yet.
    """
    file = out / "state.safetensors"
    if not file.exists():
        return 0
    saved = read_tensors([file])
    model.load_state_dict(part(saved, "model."))
    average.load_state_dict(part(saved, "average."))
    load_moments(optimiser, part(saved, "optimiser."))
    return int(read_metadata(file)["step"])


if __name__ == "__main__":
    keep_freed_memory()
    main(sys.argv[1:])

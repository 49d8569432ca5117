"""Training of the network that looks once more at hinge points and ostia (``cardiac_ct_fm/refiner.py``).

It needs no trunk: every step renders one digital patient at 1 mm, puts first guesses beside the true points, as far off
as a trunk's are and now and then further, and learns where in the patches around the guesses the points lie. Every
other patient has a root unlike published ones (``recipes/turned_roots.py``). Goes on where its last checkpoint was
written:

    python -m recipes.refine --steps 6000 --seed 40 --out runs/refine

``recipes.export_weights --refiner runs/refine`` puts it into published weights.
"""

from __future__ import annotations

import argparse
import copy
import csv
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from cardiac_ct_fm.anatomy import HEADS, HINGE_POINTS
from cardiac_ct_fm.config import IntensityConfig
from cardiac_ct_fm.errors import DataError
from cardiac_ct_fm.files import atomic_write
from cardiac_ct_fm.geometry import FloatArray
from cardiac_ct_fm.preprocess import normalise
from cardiac_ct_fm.process import keep_freed_memory
from cardiac_ct_fm.refinement import EDGE, SPACING_MM, frames, lattice, patches, places
from cardiac_ct_fm.refiner import PointRefiner
from cardiac_ct_fm.runtime import fast_bf16
from cardiac_ct_fm.training.denormals import denormals_as_zero
from recipes.pretrain import learn, note_run, quiet_worker, resume, save, set_rate
from recipes.turned_roots import turned_roots

HEAD = "hps"
NAMES = HEADS[HEAD].classes
HINGES = [NAMES.index(name) for name in HINGE_POINTS]

SHAPE, ABOVE_MM, AIM_MM = (68, 68, 68), 8.0, 3.0
"""What is rendered of a patient: voxels, how far its middle lies above the hinge points', and how far off (SD).

Points lie up to 14 mm from the axis and guesses 3 mm off; a patch reaches 17 mm around the axis from there. Of smaller
boxes (56×56×64, with two guesses: the first 3000 steps of the published run) 5 % of the patches' voxels lay outside,
where the rim goes on, and a rim tells where the middle is.
"""

GUESSES = 3
"""First guesses per patient: drawing a patient costs as much as learning from three."""

TURN_DEG, SHIFT_MM, OWN_MM = 7.0, 0.8, 1.0
"""SD by which guesses are turned together about the root's axis, moved together and each on its own, along each axis:
2.5 mm off in the median, where ``cardiac_swin_tiny`` is 1.7 mm off."""

INSIDE_MM = (EDGE / 2 - 1) * SPACING_MM
"""A point further from its guess along an axis of the patch is not learned from: the patch hardly shows it."""

SPACING_SPREAD = 0.04
"""SD of the logarithm of the voxel size, as in ``training/looks.py``."""

STREAM = 5
"""Keeps these random numbers apart from those that draw the patient."""

STRAY_MM, STRAY_SHARE = 4.0, 0.07
"""Some guesses are off by this SD instead of ``OWN_MM``, so that the network learns what it cannot know."""

TARGET_MM = 1.0
"""SD of the sphere of probability that is asked for."""

SAVE_EVERY = 250
"""Steps between two checkpoints."""

COLUMNS = ["step", "seconds", "lr", "loss", "hinge_mm", "ostia_mm"]
"""Of ``history.csv``."""

Batch = tuple[Tensor, Tensor, Tensor]
"""Patches (N, 1, E, E, E), where in them the points lie (N, 3) mm, and which these are (N,)."""


def first_guesses(true: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Points (N, 3) beside the true ones, in the order of :data:`NAMES`."""
    middle = true[HINGES].mean(0)
    right, left, non = true[HINGES]
    x, y, z = np.cross(non - right, left - right) / np.linalg.norm(np.cross(non - right, left - right))
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    angle = np.radians(rng.normal(0.0, TURN_DEG))
    turn = np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * cross @ cross
    sd = np.where(rng.random((len(true), 1)) < STRAY_SHARE, STRAY_MM, OWN_MM)
    moved: FloatArray = (true - middle) @ turn.T + middle + rng.normal(0.0, SHIFT_MM, 3) + rng.normal(0, sd, true.shape)
    return moved


class RootPatches(IterableDataset[Batch]):
    """An endless stream of patches, one digital patient after another.

    Args:
        seed: first patient, as in :class:`~cardiac_ct_fm.training.looks.CohortLooks`.
        done: patients to skip.
    """

    def __init__(self, seed: int, done: int = 0) -> None:
        super().__init__()
        self.seed, self.done = seed, done

    def __iter__(self) -> Iterator[Batch]:
        patient = 10_000_000 * (self.seed + 1) + self.done
        while True:
            yield self.of(patient)
            patient += 1

    def of(self, patient: int) -> Batch:
        """All patches of one patient; points that the scan or the patch does not show are left out."""
        rng = np.random.default_rng([patient, STREAM])
        case = turned_roots(patient)
        marks = [case.heart.landmarks[name] for name in NAMES]
        true = torch.stack(marks).double().numpy()
        shown = torch.stack([case.shows(mark) for mark in marks])
        middle = true[HINGES].mean(0) + rng.normal((0.0, 0.0, ABOVE_MM), AIM_MM)
        spacing = SPACING_MM * float(np.exp(rng.normal(0.0, SPACING_SPREAD)))
        centre = torch.from_numpy(middle).float()
        hu, _ = case.look(centre, spacing, SHAPE, int(rng.integers(2**31)))
        image = normalise(hu, IntensityConfig())
        to_voxel = torch.eye(4) / spacing
        to_voxel[:3, 3] = (torch.tensor(SHAPE) - 1) / 2 - centre / spacing
        parts = []
        for _ in range(GUESSES):
            guesses = torch.from_numpy(first_guesses(true, rng)).float()
            axes = frames(guesses, guesses[HINGES])
            offsets = torch.einsum("nji,nj->ni", axes, torch.from_numpy(true).float() - guesses)
            kept = shown & (offsets.abs().amax(1) < INSIDE_MM)
            seen = patches(image, to_voxel, guesses[kept], axes[kept])
            parts.append((seen, offsets[kept], kept.nonzero().flatten()))
        seen, offsets, kinds = (torch.cat(values) for values in zip(*parts, strict=True))
        return seen, offsets, kinds


def cross_entropy(logits: Tensor, offsets: Tensor) -> Tensor:
    """Of the probability over a patch's voxels against a sphere of :data:`TARGET_MM` around the point; mean of patches.

    Args:
        logits: (N, E, E, E).
        offsets: (N, 3) mm, where the points lie.
    """
    away = (lattice()[None] - offsets[:, None, None, None]).square().sum(-1)
    wanted = (away.flatten(1) / (-2 * TARGET_MM**2)).softmax(1)
    return -(wanted * logits.float().flatten(1).log_softmax(1)).sum(1).mean()


def main(arguments: Sequence[str]) -> None:
    """Train; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--warmup", type=int, default=100)
    parser.add_argument("--seed", type=int, default=40)
    parser.add_argument("--width", type=int, default=32, help="channels of the network")
    parser.add_argument("--log-every", type=int, default=100)
    args = parser.parse_args(arguments)
    with denormals_as_zero():
        train(args, arguments)


def train(args: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Train as the command line says; ``arguments`` are noted in ``runs.json``."""
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    network = PointRefiner(len(NAMES), args.width).to(memory_format=torch.channels_last_3d)
    average = copy.deepcopy(network).eval()
    optimiser = torch.optim.AdamW(network.parameters(), lr=args.lr, weight_decay=0.01)
    args.out.mkdir(parents=True, exist_ok=True)
    step = resume(args.out, network, average, optimiser)
    if step < args.steps:
        note_run(args.out, step, "recipes.refine", arguments)
    stream = DataLoader(
        RootPatches(args.seed, step), batch_size=None, num_workers=1, prefetch_factor=8, worker_init_fn=quiet_worker
    )
    half = fast_bf16("cpu")
    rows: list[tuple[float, float, float]] = []
    begin = time.time()
    for seen, offsets, kinds in islice(stream, max(0, args.steps - step)):
        lr = set_rate(optimiser, args, step)
        step += 1
        if len(kinds):  # a scan that shows no root teaches nothing, and a mean of nothing is no number
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                logits = network(seen, kinds)
            loss = cross_entropy(logits, offsets)
            if not bool(loss.detach().isfinite()):
                raise DataError(f"The loss of step {step} is {float(loss)}; the last checkpoint is whole.")
            learn(network, average, optimiser, loss, step)
            errors = (places(logits.detach().float())[0] - offsets).norm(dim=1)
            hinge = torch.isin(kinds, torch.tensor(HINGES))
            rows.append((float(loss.detach()), float(errors[hinge].nanmedian()), float(errors[~hinge].nanmedian())))
        if step % args.log_every == 0 and rows:
            log(args.out / "history.csv", step, time.time() - begin, lr, np.nanmean(np.array(rows), axis=0).tolist())
            rows.clear()
        if step % SAVE_EVERY == 0 or step == args.steps:
            save(args.out, network, average, optimiser, step)


def log(file: Path, step: int, seconds: float, lr: float, means: Sequence[float]) -> None:
    """Append means since the last row: loss, and median errors (mm) of a patient's hinge points and ostia."""
    text = [f"{step}", f"{seconds:.1f}", f"{lr:.2e}", *(f"{value:.4f}" for value in means)]
    print("  ".join(text), flush=True)
    rows = [COLUMNS]
    if file.exists():  # what was logged after the checkpoint that a killed training went on from comes again
        with file.open(newline="") as stream:
            rows += [row for row in list(csv.reader(stream))[1:] if int(row[0]) < step]
    with atomic_write(file) as temporary, temporary.open("w", newline="") as stream:
        csv.writer(stream).writerows([*rows, text])


if __name__ == "__main__":
    keep_freed_memory()
    main(sys.argv[1:])

"""Answers for networks that were never trained: theirs are computed, then the bundled model's take their place.

Random logits are noise: thousands of components, a border at every voxel, a heart of any size. What comes after the
network would then cost what it never costs. So the bundled model looks at the demonstration scan once, and its label
maps and points, on whatever lattice is asked for, stand in for what a random network says.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cardiac_ct_fm import inference
from cardiac_ct_fm.geometry import Grid
from cardiac_ct_fm.looks import Answer
from recipes.benchmarks.meter import StageClock
from recipes.benchmarks.scans import DEMO

SURE = 8.0
"""Logit of the class that stands at a voxel; the others have 0."""

SPHERE_MM = 4.0
"""Radius of a landmark's sphere (the paper's research code)."""


@dataclass(frozen=True)
class Known:
    """What the bundled model found on the demonstration scan.

    Attributes:
        grid: the scan's lattice.
        labels: label map per segmentation head.
        points: RAS mm per landmark head, in the order of its classes; None where not found.
    """

    grid: Grid
    labels: dict[str, NDArray[np.uint8]]
    points: dict[str, list[list[float] | None]]

    @classmethod
    def look(cls, path: Path) -> Known:
        """From a file that an earlier run left, or anew."""
        if not path.exists():
            pred = inference.Predictor("cardiac_swin_tiny", "cpu")(DEMO, measure=False)
            heads = [name for name in pred.classes if name not in pred.label_maps]
            found = {h: [pred.landmarks[c].ras_mm for c in pred.classes[h]] for h in heads}
            np.savez(path, affine=pred.grid.affine, points=json.dumps(found), **pred.label_maps)
        with np.load(path) as file:
            labels = {name: file[name] for name in file.files if name not in ("affine", "points")}
            shape = next(iter(labels.values())).shape
            return cls(Grid(shape, file["affine"]), labels, json.loads(str(file["points"])))

    def logits(self, head: str, grid: Grid, like: torch.Tensor) -> torch.Tensor:
        """Logits of a head, (C, X, Y, Z) as ``like``, on any lattice."""
        world = grid.points()
        if head in self.labels:
            size = np.array(self.grid.shape) - 1
            index = np.rint(self.grid.voxel(world)).astype(np.int64)
            inside = ((index >= 0) & (index <= size)).all(-1)
            labels = np.where(inside, self.labels[head][tuple(np.moveaxis(index.clip(0, size), -1, 0))], 0)
        else:
            labels = np.zeros(grid.shape, np.int64)
            for value, point in enumerate(self.points[head], start=1):
                if point is not None:
                    labels[((world - np.array(point, np.float32)) ** 2).sum(-1) <= SPHERE_MM**2] = value
        return torch.zeros_like(like).scatter_(0, torch.from_numpy(labels.astype(np.int64))[None], SURE)


def stand_in(known: Known, clock: Callable[[], StageClock]) -> None:
    """From now on, predictors of this process answer as ``known`` says, after having computed their own answer.

    Args:
        known: what to answer.
        clock: gives the clock that runs; it is stopped meanwhile.
    """
    computed = inference.answer

    def answer(*args: Any, **options: Any) -> Answer:
        own = computed(*args, **options)
        with clock().paused():
            return Answer(own.grid, {name: known.logits(name, own.grid, v) for name, v in own.logits.items()})

    inference.answer = answer

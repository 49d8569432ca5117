"""One label map on the scan's own grid from looks of different spacing: the finer look rules where it looked."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F

from cardiac_ct_fm.geometry import Grid
from cardiac_ct_fm.label_resampling import resample_logits_to_grid
from cardiac_ct_fm.looks import Answer
from cardiac_ct_fm.result import LabelMap

RIM_MM = 16.0
"""Width of the rim of a finer look over which its answer passes into the coarser one's; near its rim it sees less
(a choice of this project)."""


def label_map(answers: Sequence[Answer], head: str, target: Grid) -> LabelMap:
    """The label map of one head.

    Args:
        answers: coarse to fine, each with logits of ``head``.
        head: a segmentation head.
        target: the scan's lattice.

    Returns:
        (X, Y, Z) uint8 on ``target``.
    """
    labels = resample_logits_to_grid(answers[0].logits[head], answers[0].grid, target)
    for coarse, fine in pairwise(answers):
        blended = _blend(coarse.logits[head], coarse.grid, fine.logits[head], fine.grid)
        labels = resample_logits_to_grid(blended, fine.grid, target, out=labels)
    return labels


def _blend(coarse: torch.Tensor, coarse_grid: Grid, fine: torch.Tensor, fine_grid: Grid) -> torch.Tensor:
    """Log-probabilities (C, X, Y, Z) on the fine lattice that equal the coarse ones at its rim."""
    # The fine lattice in the coarse one's voxels, then in −1…1 from its first voxel centre to its last.
    half = np.diag([*(np.maximum(np.array(coarse_grid.shape) - 1, 1) / 2), 1.0])
    half[:3, 3] = half[:3, :3].sum(1)
    lattice = Grid(fine_grid.shape, np.linalg.inv(coarse_grid.affine @ half) @ fine_grid.affine)
    place = torch.from_numpy(lattice.points()).flip(-1)[None]
    chances = coarse.softmax(0)[None].contiguous(memory_format=torch.channels_last_3d)
    below = F.grid_sample(chances, place, align_corners=True, padding_mode="border")[0]
    weight = torch.ones(fine_grid.shape)
    for axis, (n, spacing) in enumerate(zip(fine_grid.shape, fine_grid.spacing, strict=True)):
        index = torch.arange(n, dtype=torch.float32)
        rim = (torch.minimum(index, n - 1 - index) * spacing / RIM_MM).clamp(0, 1)
        shape = [1, 1, 1]
        shape[axis] = n
        weight = torch.minimum(weight, rim.reshape(shape))
    outside = (place[0].abs() > 1).any(-1)
    weight = torch.where(outside, torch.ones(()), weight)
    return (weight * fine.softmax(0) + (1 - weight) * below).clamp_min(1e-7).log()

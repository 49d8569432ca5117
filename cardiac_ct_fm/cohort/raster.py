"""Smooth fields on regular grids at little cost: half resolution where it suffices, tubes only where they pass."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from cardiac_ct_fm.cohort.vessels import Tube

CELL = 4
"""Edge in voxels of the blocks in which it is decided whether a tube comes near."""

FAR_MM = 25.0
"""Distances are not followed further out than this; template fields end there too."""


def half_grid(points: Tensor) -> Tensor:
    """Every second point of a regular grid (X, Y, Z, 3), and one plane beyond, so that :func:`double` covers it."""
    origin = points[0, 0, 0]
    result = origin
    for axis in range(3):
        place = [0, 0, 0]
        place[axis] = 1
        step = 2 * (points[tuple(place)] - origin)
        count = torch.arange((points.shape[axis] + 1) // 2 + 1, device=points.device)
        shape = [1, 1, 1, 1]
        shape[axis] = -1
        result = result + count.reshape(shape) * step
    return result


def double(values: Tensor, shape: Sequence[int]) -> Tensor:
    """Linear interpolation of (C, a, b, c), given on :func:`half_grid`, to the full grid (C, X, Y, Z)."""
    for axis, size in enumerate(shape, start=1):
        count = values.shape[axis] - 1
        first, second = values.narrow(axis, 0, count), values.narrow(axis, 1, count)
        values = torch.stack([first, (first + second) / 2], axis + 1).flatten(axis, axis + 1).narrow(axis, 0, size)
    return values


@lru_cache(maxsize=16)
def _cells(shape: tuple[int, int, int], device: torch.device) -> Tensor:
    """Flat indices (cells, CELL³) of the voxels of every block; rim blocks repeat their last voxels."""
    axes = []
    for n in shape:
        blocks = torch.arange((n + CELL - 1) // CELL, device=device)[:, None] * CELL
        axes.append((blocks + torch.arange(CELL, device=device)).clamp_max(n - 1))
    x, y, z = axes
    index = (x[:, None, None, :, None, None] * shape[1] + y[None, :, None, None, :, None]) * shape[2]
    return (index + z[None, None, :, None, None, :]).reshape(-1, CELL**3)


def tube_field(tubes: Sequence[Tube], q: Tensor, step: float) -> Tensor:
    """Signed distance (X, Y, Z) to the nearest of some tubes, positive inside.

    Exact near the surface of a tube; farther in and out interpolated from blocks of 4³ voxels, down to −25 mm.

    Args:
        tubes: vessels in template mm.
        q: (X, Y, Z, 3) template coordinates of the grid.
        step: spacing of the grid in template mm.
    """
    shape = (q.shape[0], q.shape[1], q.shape[2])
    index = _cells(shape, q.device)
    flat = q.reshape(-1, 3)
    middle = (flat[index[:, 0]] + flat[index[:, -1]]) / 2
    reach = step * (CELL * 0.87 - 0.37) + 1.2
    blocks = torch.full((len(index),), -FAR_MM, device=q.device)
    passing: list[tuple[Tube, Tensor]] = []
    for tube in tubes:
        margin = float(tube.radius.max()) + FAR_MM
        low, high = tube.line.min(0).values - margin, tube.line.max(0).values + margin
        near = ((middle > low) & (middle < high)).all(-1).nonzero()[:, 0]
        if not len(near):
            continue
        distance = tube.distance(middle[near])
        blocks[near] = torch.maximum(blocks[near], distance)
        close = near[distance.abs() < reach]
        if len(close):
            passing.append((tube, close))
    coarse = [(n + CELL - 1) // CELL for n in shape]
    field = F.interpolate(blocks.reshape(1, 1, *coarse), scale_factor=CELL, mode="trilinear", align_corners=False)[0, 0]
    field = field[: shape[0], : shape[1], : shape[2]].reshape(-1)
    for _, close in passing:
        where = index[close].reshape(-1)
        field[where] = torch.where(field[where] > reach, field[where], torch.full_like(field[where], -FAR_MM))
    for tube, close in passing:
        where = index[close].reshape(-1)
        field[where] = torch.maximum(field[where], tube.distance(flat[where]))
    return field.reshape(shape)

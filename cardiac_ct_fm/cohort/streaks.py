"""Streaks of dense objects: the dense part of each axial slice is projected, falsified and reconstructed, coarsely.

Iodine, calcium and metal falsify projections in two ways. The beam hardens, so long dense paths read too low:
dark bands between dense objects. And projections of one turn do not agree, because blood and wires move while the
gantry turns and few photons get through: bright and dark lines that radiate from the object. Both errors are made
in the projections and reconstructed by filtered back projection, so that they lie where real ones lie.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from cardiac_ct_fm.cohort.noise import interpolation_matrix

DENSE_HU = 250.0
"""Iodine and bone above this count as dense."""
PLANE, ANGLES = 32, 60
"""Pixels per side and directions of the coarse reconstruction: lines two look voxels wide at 64³."""
HARDENING = 9.0
"""HU·cm of missing attenuation per (1000 HU·cm)² of dense path [chosen by eye on the demonstration scan]."""
DISAGREEMENT = 0.15
"""Relative error of the dense path from one direction to the next [by eye, as above]."""
SHIFT_PIXELS = 0.30
"""Movement of dense objects between directions, in coarse pixels [by eye, as above]."""


@lru_cache(maxsize=4)
def _projector(device: str) -> tuple[Tensor, Tensor]:
    """(ANGLES·BINS, PLANE²) line weights and the (BINS, BINS) ramp filter."""
    bins = int(PLANE * 1.5)
    c = torch.arange(PLANE) - 0.5 * (PLANE - 1)
    x, y = torch.meshgrid(c, c, indexing="ij")
    angle = torch.arange(ANGLES) * (math.pi / ANGLES)
    s = x.flatten() * torch.cos(angle)[:, None] + y.flatten() * torch.sin(angle)[:, None] + 0.5 * (bins - 1)
    centre = torch.arange(bins)
    weights = (1 - (s[:, None, :] - centre[None, :, None]).abs()).clamp(min=0)
    # Ram–Lak in the sample domain: 1/4 in the middle, −1/(π k)² at odd distances
    k = centre[:, None] - centre[None, :]
    ramp = torch.where(k % 2 == 1, -1 / (math.pi**2 * (k.float() ** 2).clamp(min=1)), torch.zeros(()))
    ramp = torch.where(k == 0, torch.full((), 0.25), ramp)
    return weights.flatten(0, 1).to(device), ramp.to(device)


def dense_streaks(image: Tensor, spacing_mm: float, rng: torch.Generator) -> Tensor:
    """Additive HU error around dense objects at unit strength.

    Args:
        image: (X, Y, Z) HU; x and y span the axial plane.
        spacing_mm: voxel size.
        rng: a CPU generator for the disagreement of the projections.

    Returns:
        (X, Y, Z) HU, within ±500.
    """
    nx, ny, nz = image.shape
    turns = draw_turns(nz, rng)
    small = condensed(image)
    if float(small.max()) == 0:
        return torch.zeros_like(image)
    return spread(falsified(small, turns, 0.05 * spacing_mm * (nx + ny) / PLANE), (nx, ny, nz))


def draw_turns(slices: int, rng: torch.Generator) -> Tensor:
    """Random disagreement of the projections of an image with so many slices, (2, ANGLES, 1, turns), on the CPU."""
    return torch.randn((2, ANGLES, 1, max(2, slices // 12)), generator=rng)


def condensed(image: Tensor) -> Tensor:
    """The dense part of each slice of an image (X, Y, Z), in 1000 HU: (PLANE, PLANE, Z)."""
    nx, ny, nz = image.shape
    dense = (image - DENSE_HU).clamp_(0, 2500) * (1 / 1000)
    px, py = _pool(nx, PLANE), _pool(ny, PLANE)
    small = torch.matmul(px.to(image.device), dense.flatten(1)).view(PLANE, ny, nz)
    return torch.matmul(py.to(image.device), small)


def falsified(small: Tensor, turns: Tensor, pixel_cm: float) -> Tensor:
    """What the false projections of all slices together reconstruct to.

    Args:
        small: of all slices, see :func:`condensed`.
        turns: of :func:`draw_turns`.
        pixel_cm: edge of a coarse pixel.

    Returns:
        (PLANE, PLANE, half) HU, for every second slice.
    """
    half = max(2, small.shape[2] // 2)
    small = torch.matmul(small, _pool(small.shape[2], half).to(small.device).T).flatten(0, 1)
    project, ramp = _projector(str(small.device))
    path = ((project @ small) * pixel_cm).view(ANGLES, ramp.shape[0], half)
    wobble = torch.matmul(
        turns.to(small.device), interpolation_matrix(half, turns.shape[-1], "linear").to(small.device).T
    )
    slope = torch.diff(path, dim=1, append=path[:, -1:])
    error = path * (DISAGREEMENT * wobble[0] - 1e-3 * HARDENING * path) + SHIFT_PIXELS * wobble[1] * slope
    filtered = torch.matmul(ramp, error).flatten(0, 1)
    back: Tensor = (project.T @ filtered) * (1000 * math.pi / ANGLES / pixel_cm)
    return back.view(PLANE, PLANE, half)


def spread(back: Tensor, shape: tuple[int, int, int], slices: slice = slice(None)) -> Tensor:
    """Interpolate :func:`falsified` to some ``slices`` of an image of ``shape``: (X, Y, slices) HU, within ±500."""
    device, half = back.device, back.shape[2]
    ux, uy, uz = (interpolation_matrix(n, m, "linear") for n, m in zip(shape, (PLANE, PLANE, half), strict=True))
    wide = torch.matmul(ux.to(device), back.view(PLANE, -1)).view(shape[0], PLANE, half)
    return torch.matmul(torch.matmul(uy.to(device), wide), uz[slices].to(device).T).clamp_(-500, 500)


@lru_cache(maxsize=64)
def _pool(n: int, m: int) -> Tensor:
    """(m, n) averaging of n samples into m bins, or interpolation when there are fewer."""
    if n <= m:
        return interpolation_matrix(m, n, "linear")
    edges = torch.linspace(0, n, m + 1)
    i = torch.arange(n)
    overlap = torch.minimum(edges[1:, None], i[None, :] + 1) - torch.maximum(edges[:-1, None], i[None, :])
    overlap = overlap.clamp(min=0)
    return overlap / overlap.sum(1, keepdim=True)

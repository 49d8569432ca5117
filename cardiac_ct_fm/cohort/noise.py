"""Smooth random fields: control grids drawn on the CPU and interpolated at points, alike on any grid and machine.

A control grid is a (C, n, n, n) tensor whose nodes span a cube of ``extent_mm`` around ``origin`` in body
coordinates (RAS mm). Because the values depend on the point only, a patient looks the same at 4 mm and at
1 mm. The small interpolation matrices used to refine control grids and to move fields between a coarse and
a fine grid also live here.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from cardiac_ct_fm.errors import ConfigError

Kernel = Literal["linear", "cubic", "bspline"]
Padding = Literal["border", "reflection"]


def uniform(rng: torch.Generator, low: float, high: float) -> float:
    """One number drawn evenly from [low, high] (a CPU generator, so the same everywhere)."""
    return low + (high - low) * float(torch.rand(1, generator=rng))


def normal(rng: torch.Generator, mean: float, sd: float, limit: float = 2.5) -> float:
    """One normal number, clipped to ``limit`` standard deviations so that no patient becomes impossible."""
    z = float(torch.randn(1, generator=rng))
    return mean + sd * max(-limit, min(limit, z))


def chance(rng: torch.Generator, probability: float) -> bool:
    """True with the given probability."""
    return float(torch.rand(1, generator=rng)) < probability


def draw_control(rng: torch.Generator, channels: int, nodes: int) -> Tensor:
    """A (channels, nodes, nodes, nodes) control grid of independent standard normal values, on the CPU."""
    return torch.randn((channels, nodes, nodes, nodes), generator=rng, dtype=torch.float32)


@lru_cache(maxsize=256)
def interpolation_matrix(n_out: int, n_in: int, kernel: Kernel) -> Tensor:
    """The (n_out, n_in) matrix that resamples ``n_in`` samples to ``n_out``, first and last samples aligned.

    Args:
        n_out: number of samples wanted.
        n_in: number of samples given.
        kernel: ``linear``, ``cubic`` (Catmull–Rom, passes through the samples) or ``bspline`` (smooths).

    Returns:
        float32 on the CPU; each row sums to one. Beyond the ends samples repeat (``cubic``: go on straight).
    """
    position = torch.linspace(0, n_in - 1, n_out, dtype=torch.float64) if n_out > 1 else torch.zeros(1).double()
    base = position.floor()
    t = position - base
    if kernel == "linear":
        taps = {0: 1 - t, 1: t}
    elif kernel == "cubic":
        taps = {
            -1: -0.5 * t + t**2 - 0.5 * t**3,
            0: 1 - 2.5 * t**2 + 1.5 * t**3,
            1: 0.5 * t + 2 * t**2 - 1.5 * t**3,
            2: -0.5 * t**2 + 0.5 * t**3,
        }
    else:
        taps = {
            -1: (1 - t) ** 3 / 6,
            0: (3 * t**3 - 6 * t**2 + 4) / 6,
            1: (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
            2: t**3 / 6,
        }
    matrix = torch.zeros(n_out, n_in, dtype=torch.float64)
    for offset, weight in taps.items():
        wanted = base + offset
        index = wanted.clamp(0, n_in - 1)
        if kernel == "cubic" and n_in > 1:
            # beyond the ends the line through the last two samples goes on
            beyond = (wanted - index).abs() * weight
            inner = torch.where(index == 0, index + 1, index - 1)
            matrix.scatter_add_(1, inner.clamp(0, n_in - 1).long()[:, None], -beyond[:, None])
            weight = weight + beyond
        matrix.scatter_add_(1, index.long()[:, None], weight[:, None])
    return matrix.float()


def apply_matrices(field: Tensor, mx: Tensor, my: Tensor, mz: Tensor) -> Tensor:
    """Apply one matrix per spatial axis to ``field`` (..., x, y, z) → (..., X, Y, Z)."""
    mx, my, mz = (m.to(field.device) for m in (mx, my, mz))
    out = torch.matmul(mx, field.flatten(-2)).reshape(*field.shape[:-3], mx.shape[0], *field.shape[-2:])
    out = torch.matmul(my, out)
    return torch.matmul(out, mz.T)


def resample(field: Tensor, shape: tuple[int, int, int], kernel: Kernel = "linear") -> Tensor:
    """Resample ``field`` (..., x, y, z) to (..., *shape), corner samples aligned."""
    mx, my, mz = (interpolation_matrix(out, n, kernel) for out, n in zip(shape, field.shape[-3:], strict=True))
    return apply_matrices(field, mx, my, mz)


def refine(control: Tensor, factor: int = 2, kernel: Kernel = "bspline") -> Tensor:
    """A control grid with ``factor`` times more cells, smooth where trilinear interpolation would show kinks.

    Args:
        control: (C, n, n, n).
        factor: new cells per old cell, at least 1.
        kernel: ``bspline`` has continuous second derivatives (and damps the values); ``cubic`` keeps the nodes.

    Returns:
        (C, m, m, m) with m = factor·(n − 1) + 1, spanning the same cube.
    """
    if factor < 1:
        raise ConfigError(f"refine factor is {factor}; it must be at least 1.")
    nx, ny, nz = (factor * (n - 1) + 1 for n in control.shape[-3:])
    return resample(control, (nx, ny, nz), kernel)


BSPLINE_SD = (151 / 315) ** 1.5
"""SD of cubic B-spline interpolated white noise of unit SD: the spline's mean square weight is 151/315 per axis."""


def smooth_control(rng: torch.Generator, channels: int, nodes: int, factor: int = 2) -> Tensor:
    """A smooth random control grid of unit SD.

    Args:
        rng: a CPU generator.
        channels: number of independent fields.
        nodes: random nodes per axis.
        factor: cells per random cell of the refined grid.

    Returns:
        (channels, m, m, m) with m = factor·(nodes − 1) + 1, on the CPU.
    """
    return refine(draw_control(rng, channels, nodes), factor) * (1 / BSPLINE_SD)


def smooth_field(
    points: Tensor,
    control: Tensor,
    extent_mm: float,
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0),
    padding: Padding = "border",
) -> Tensor:
    """Trilinear interpolation of a control grid at points.

    Args:
        points: (X, Y, Z, 3) RAS mm.
        control: (C, n, n, n); node (0, 0, 0) lies at ``origin − extent/2``, the last one at ``origin + extent/2``.
            Pass it through :func:`refine` first for a field with smooth derivatives.
        extent_mm: edge length of the cube that the nodes span.
        origin: centre of the cube, RAS mm.
        padding: outside the cube the ``border`` value, or the field mirrored (``reflection``) without end.

    Returns:
        (C, X, Y, Z) on the device of ``points``.

    Raises:
        ConfigError: the extent is not positive or the control grid has not four axes.
    """
    if extent_mm <= 0:
        raise ConfigError(f"extent_mm is {extent_mm}; the cube of a control grid must have a positive edge.")
    if control.ndim != 4:
        raise ConfigError(f"the control grid has shape {tuple(control.shape)}; expected (C, n, n, n).")
    centre = torch.tensor(origin, dtype=points.dtype, device=points.device)
    # grid_sample wants the coordinates in the order of the last array axis first
    grid = ((points - centre) * (2 / extent_mm)).flip(-1)
    sampled = functional.grid_sample(
        control.to(points.device)[None], grid[None], mode="bilinear", padding_mode=padding, align_corners=True
    )
    return sampled[0]

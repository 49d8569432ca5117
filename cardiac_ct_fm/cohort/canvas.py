"""The grid that surroundings are painted on: coarse sub-grid, partial-volume coverage, local boxes.

Smooth things are computed on a coarse sub-grid and brought up by cubic interpolation; small things are
computed at full resolution inside the box that they touch, and cost nothing when they miss the grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cardiac_ct_fm.cohort.noise import resample
from cardiac_ct_fm.errors import ConfigError

COARSE_MM = (3.0, 6.0)
"""Limits of the coarse spacing (twice the look's spacing in between): fine enough for organ surfaces."""

Box = tuple[slice, slice, slice]


class Canvas:
    """A regular grid of points and the HU image on it.

    Args:
        points: (X, Y, Z, 3) float32 RAS mm, a regular grid with at least two points per axis.

    Attributes:
        hu: (X, Y, Z) the image, starts as air (−1024 HU).
        coarse: (x, y, z, 3) the coarse sub-grid, its corners on the corners of ``points``.
        spacing: mean distance between neighbours, mm.

    Raises:
        ConfigError: ``points`` has another shape.
    """

    def __init__(self, points: Tensor) -> None:
        if points.ndim != 4 or points.shape[-1] != 3 or min(points.shape[:3]) < 2:
            raise ConfigError(f"points have shape {tuple(points.shape)}; expected (X, Y, Z, 3) with X, Y, Z >= 2.")
        self.points = points
        self.shape = (points.shape[0], points.shape[1], points.shape[2])
        corner = points[0, 0, 0].double().cpu()
        last = [points[-1, 0, 0], points[0, -1, 0], points[0, 0, -1]]
        edges = [(p.double().cpu() - corner) / (n - 1) for p, n in zip(last, self.shape, strict=True)]
        axes = torch.stack(edges, dim=1)
        self.spacing = float(axes.norm(dim=0).mean())
        self._corner, self._inverse = corner, torch.linalg.inv(axes)
        step = min(max(2 * self.spacing, COARSE_MM[0]), COARSE_MM[1])
        lengths = axes.norm(dim=0).tolist()
        counts = [min(n, max(2, round(length * (n - 1) / step) + 1)) for n, length in zip(self.shape, lengths, strict=True)]
        self.coarse_shape = (counts[0], counts[1], counts[2])
        self.coarse = self._coarse_points(corner, axes)
        self.hu = torch.full(self.shape, -1024.0, device=points.device)

    def _coarse_points(self, corner: Tensor, axes: Tensor) -> Tensor:
        grids = [torch.linspace(0, n - 1, m, dtype=torch.float64) for n, m in zip(self.shape, self.coarse_shape, strict=True)]
        i, j, k = grids[0][:, None, None, None], grids[1][None, :, None, None], grids[2][None, None, :, None]
        coarse = corner + i * axes[:, 0] + j * axes[:, 1] + k * axes[:, 2]
        return coarse.float().to(self.points.device)

    def down(self, field: Tensor) -> Tensor:
        """A field of the grid (…, X, Y, Z) at the coarse points."""
        return resample(field, self.coarse_shape, "linear")

    def up(self, fields: Sequence[Tensor]) -> list[Tensor]:
        """Coarse fields (x, y, z) brought to the full grid, in one go."""
        return list(resample(torch.stack(list(fields)), self.shape, "cubic").unbind(0))

    def cover(self, depth_mm: Tensor) -> Tensor:
        """Share of a voxel that lies inside, from the signed depth (mm, positive inside)."""
        return (depth_mm * (1 / self.spacing) + 0.5).clamp_(0, 1)

    def shell(self, depth_mm: Tensor, thickness_mm: float) -> Tensor:
        """Share of a voxel taken by the layer of depth 0…thickness; right also when it is thinner than a voxel."""
        return self.cover(depth_mm) - self.cover(depth_mm - thickness_mm)

    def paint(self, share: Tensor, value: Tensor | float, box: Box | None = None) -> None:
        """Replace ``share`` (0…1) of the image by ``value`` HU, everywhere or inside ``box``."""
        target = self.hu if box is None else self.hu[box]
        target += share * (value - target)

    def box(self, low: Sequence[float], high: Sequence[float]) -> Box | None:
        """Index box that holds the RAS box low…high mm, or None when they do not meet."""
        bounds = torch.tensor([list(low), list(high)], dtype=torch.float64)
        corners = torch.cartesian_prod(bounds[:, 0], bounds[:, 1], bounds[:, 2]) - self._corner
        index = corners @ self._inverse.T
        slices = []
        for axis in range(3):
            first = max(0, int(index[:, axis].min()) - 1)
            stop = min(self.shape[axis], int(index[:, axis].max()) + 3)
            if first >= stop:
                return None
            slices.append(slice(first, stop))
        return slices[0], slices[1], slices[2]

    def capsule(self, a: Sequence[float], b: Sequence[float], radius: float, margin: float = 0.0) -> tuple[Box, Tensor] | None:
        """Box and signed depth (mm) of a rod from ``a`` to ``b`` with round ends; None when it misses the grid."""
        reach = radius + margin + self.spacing
        box = self.box([min(p, q) - reach for p, q in zip(a, b, strict=True)], [max(p, q) + reach for p, q in zip(a, b, strict=True)])
        if box is None:
            return None
        return box, capsule_depth(self.points[box], a, b, radius)


def capsule_depth(points: Tensor, a: Sequence[float], b: Sequence[float], radius: float) -> Tensor:
    """Signed depth (mm, positive inside) of points (…, 3) in a rod from ``a`` to ``b``."""
    start = points.new_tensor(list(a))
    axis = points.new_tensor(list(b)) - start
    rel = points - start
    along = (rel @ axis / axis.dot(axis).clamp_min(1e-6)).clamp_(0, 1)
    return radius - (rel - along[..., None] * axis).norm(dim=-1)


def ellipsoid_depth(points: Tensor, centre: Sequence[float], radii: Sequence[float]) -> Tensor:
    """Approximate signed depth (mm, positive inside) of points (…, 3) in an ellipsoid along the axes."""
    scaled = (points - points.new_tensor(list(centre))) / points.new_tensor(list(radii))
    return (1 - scaled.norm(dim=-1)) * (sum(radii) / len(radii))

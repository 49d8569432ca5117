"""The grid that surroundings are painted on: coarse sub-grid, partial-volume coverage, local boxes.

Smooth things are computed on a coarse sub-grid and brought up by cubic interpolation; small things are
computed at full resolution inside the box that they touch, and cost nothing when they miss the grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy

import torch
from torch import Tensor

from cardiac_ct_fm.cohort.noise import apply_matrices, interpolation_matrix, resample
from cardiac_ct_fm.errors import ConfigError

COARSE_MM = (3.0, 8.0)
"""Limits of the coarse spacing (twice the look's spacing in between): fine enough for organ surfaces."""

Box = tuple[slice, slice, slice]


class Canvas:
    """A regular grid of points and the HU image on it.

    Args:
        points: (X, Y, Z, 3) float32 RAS mm, a regular grid with at least two points per axis.

    Attributes:
        points: (X, Y, Z, 3) RAS mm.
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
        self.hu = torch.full(points.shape[:3], -1024.0, device=points.device)
        corner = points[0, 0, 0].double().cpu()
        last = [points[-1, 0, 0], points[0, -1, 0], points[0, 0, -1]]
        edges = [(p.double().cpu() - corner) / (n - 1) for p, n in zip(last, points.shape, strict=False)]
        axes = torch.stack(edges, dim=1)
        lengths = axes.norm(dim=0).tolist()
        self.spacing = float(sum(lengths) / 3)
        self._corner, self._inverse = corner, torch.linalg.inv(axes)
        step = min(max(2 * self.spacing, COARSE_MM[0]), COARSE_MM[1])
        counts = [min(n, max(2, round(w * (n - 1) / step) + 1)) for w, n in zip(lengths, points.shape, strict=False)]
        rows = [interpolation_matrix(n, m, "cubic") for m, n in zip(counts, points.shape, strict=False)]
        self._rows = (rows[0], rows[1], rows[2])
        grids = [torch.linspace(0, n - 1, m, dtype=torch.float64) for m, n in zip(counts, points.shape, strict=False)]
        i, j, k = grids[0][:, None, None, None], grids[1][None, :, None, None], grids[2][None, None, :, None]
        coarse = corner + i * axes[:, 0] + j * axes[:, 1] + k * axes[:, 2]
        self.coarse = coarse.float().to(points.device)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Points per axis."""
        return self.hu.shape[0], self.hu.shape[1], self.hu.shape[2]

    def window(self, box: Box) -> Canvas:
        """A part of this canvas; what is painted on it is painted here."""
        part = copy(self)
        part.points, part.hu = self.points[box], self.hu[box]
        start = torch.tensor([float(s.start) for s in box], dtype=torch.float64)
        part._corner = self._corner + torch.linalg.inv(self._inverse) @ start
        part._rows = (self._rows[0][box[0]], self._rows[1][box[1]], self._rows[2][box[2]])
        return part

    def layer(self, hu: Tensor) -> Canvas:
        """The same points with another image: paint an organ's inside here, then paint the whole with its share.

        Painting part by part would leave a rim of what lay below at every border.
        """
        other = copy(self)
        other.hu = hu
        return other

    def where(self, mask: Tensor) -> Box | None:
        """Index box around the coarse points where ``mask`` is true, one coarse cell wider; None where nowhere.

        For the whole canvas only, not for a window.
        """
        slices = []
        for axis in range(3):
            others = [a for a in range(3) if a != axis]
            hit = torch.nonzero(mask.any(dim=others[1]).any(dim=others[0])).flatten().tolist()
            if not hit:
                return None
            n, m = self.shape[axis], mask.shape[axis]
            step = (n - 1) / (m - 1)
            slices.append(slice(max(0, int((hit[0] - 1) * step)), min(n, int((hit[-1] + 1) * step) + 2)))
        return slices[0], slices[1], slices[2]

    def down(self, field: Tensor) -> Tensor:
        """A field of the grid (…, X, Y, Z) at the coarse points."""
        return resample(field, (self.coarse.shape[0], self.coarse.shape[1], self.coarse.shape[2]), "linear")

    def up(self, *fields: Tensor) -> list[Tensor]:
        """Coarse fields (x, y, z) brought to the points of this canvas, in one go."""
        return list(apply_matrices(torch.stack(fields), *self._rows).unbind(0))

    def cover(self, depth_mm: Tensor) -> Tensor:
        """Share of a voxel that lies inside, from the signed depth (mm, positive inside)."""
        return (depth_mm * (1 / self.spacing)).add_(0.5).clamp_(0, 1)

    def shell(self, depth_mm: Tensor, thickness_mm: float) -> Tensor:
        """Share of a voxel taken by the layer of depth 0…thickness; right also when it is thinner than a voxel."""
        scaled = depth_mm * (1 / self.spacing)
        inner = (scaled + (0.5 - thickness_mm / self.spacing)).clamp_(0, 1)
        return scaled.add_(0.5).clamp_(0, 1).sub_(inner)

    def paint(self, share: Tensor, value: Tensor | float, box: Box | None = None) -> None:
        """Replace ``share`` (0…1) of the image by ``value`` HU, everywhere or inside ``box``."""
        target = self.hu if box is None else self.hu[box]
        target.lerp_(value if isinstance(value, Tensor) else share.new_tensor(value), share)

    def box(self, low: Sequence[float], high: Sequence[float]) -> Box | None:
        """Index box that holds the RAS box low…high mm, or None when they do not meet."""
        first, stop = [], []
        inverse, corner = self._inverse.tolist(), self._corner.tolist()
        for axis, row in enumerate(inverse):
            ends = [sorted((r * (a - c), r * (b - c))) for r, a, b, c in zip(row, low, high, corner, strict=True)]
            first.append(max(0, math.floor(sum(e[0] for e in ends))))
            stop.append(min(self.shape[axis], math.ceil(sum(e[1] for e in ends)) + 1))
        if any(a >= b for a, b in zip(first, stop, strict=True)):
            return None
        return slice(first[0], stop[0]), slice(first[1], stop[1]), slice(first[2], stop[2])

    def around(self, centre: Sequence[float], radii: Sequence[float]) -> Box | None:
        """Index box of ``centre`` ± ``radii`` mm, or None when it misses the grid."""
        pairs = list(zip(centre, radii, strict=True))
        return self.box([c - r for c, r in pairs], [c + r for c, r in pairs])

    def capsule(self, a: Sequence[float], b: Sequence[float], radius: float) -> tuple[Box, Tensor] | None:
        """Box and signed depth (mm) of a rod from ``a`` to ``b`` with round ends; None when it misses the grid."""
        reach = radius + self.spacing
        pairs = list(zip(a, b, strict=True))
        box = self.box([min(p) - reach for p in pairs], [max(p) + reach for p in pairs])
        return None if box is None else (box, capsule_depth(self.points[box], a, b, radius))


def capsule_depth(points: Tensor, a: Sequence[float], b: Sequence[float], radius: float) -> Tensor:
    """Signed depth (mm, positive inside) of points (…, 3) in a rod from ``a`` to ``b``."""
    x, y, z = (points[..., i] - a[i] for i in range(3))
    dx, dy, dz = (q - p for p, q in zip(a, b, strict=True))
    length2 = dx * dx + dy * dy + dz * dz
    if length2 > 1e-6:
        along = (x * (dx / length2)).add_(y, alpha=dy / length2).add_(z, alpha=dz / length2).clamp_(0, 1)
        x, y, z = x.sub_(along, alpha=dx), y.sub_(along, alpha=dy), z.sub_(along, alpha=dz)
    return x.square_().addcmul_(y, y).addcmul_(z, z).sqrt_().neg_().add_(radius)


def ellipsoid_depth(points: Tensor, centre: Sequence[float], radii: Sequence[float]) -> Tensor:
    """Approximate signed depth (mm, positive inside) of points (…, 3) in an ellipsoid along the axes."""
    x, y, z = ((points[..., i] - centre[i]).mul_(1 / radii[i]) for i in range(3))
    mean = sum(radii) / len(radii)
    return x.square_().addcmul_(y, y).addcmul_(z, z).sqrt_().mul_(-mean).add_(mean)


def smooth_max(a: Tensor, b: Tensor, width: float) -> Tensor:
    """The larger of two depths with the groove between them filled; ``width`` mm across."""
    overlap = (width - (a - b).abs()).clamp(min=0)
    return torch.maximum(a, b) + overlap.square() * (0.25 / width)

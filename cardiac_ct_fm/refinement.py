"""A second look at each landmark: patches along the root's own axes, and points from what the refiner says of them.

The first look places a point by what surrounds it; :class:`~cardiac_ct_fm.refiner.PointRefiner` sees every patch from
the same side, whatever way the root is turned, and says where in it the point lies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cardiac_ct_fm.anatomy import HINGE_POINTS
from cardiac_ct_fm.decode import fit
from cardiac_ct_fm.geometry import FloatArray, Grid
from cardiac_ct_fm.landmark import Landmark
from cardiac_ct_fm.model import CardiacCTModel
from cardiac_ct_fm.preprocess import look_tensor
from cardiac_ct_fm.volume_io import Volume

EDGE = 24
"""Voxels along each edge of a patch."""

SPACING_MM = 1.0
"""Edge of a patch's voxel: 24 mm in all hold a leaflet with its sinus, whose edge is 20–25 mm long."""

NEAR_MM = 3.0
"""A point is the mean of the probability within this distance of its peak, so that a second peak does not pull it (a
choice of this project)."""

PASSES = 2
"""The second pass turns the patches by the points of the first (a choice of this project)."""

STEADY_MM = 2.0
"""A pass that moves a point further than this, and is less sure of it than the pass before, is not believed (a choice
of this project: the right ostium of the demonstration scan went 7 mm astray so)."""

FURTHEST_MOVE_MM = 11.0
"""A point that would move further stays where it was: no training looks further along an axis of a patch
(``recipes/refine.py``)."""

LEAST_TRIANGLE_MM2 = 50.0
"""Twice the least area of the triangle of hinge points that gives axes; an annulus of 10 mm has 65 mm²."""


def frames(points: Tensor, hinges: Tensor) -> Tensor:
    """Axes of each point's patch as columns: away from the root's axis, around it, down into the ventricle.

    Args:
        points: (N, 3) mm, none of them on the axis, whose axes would be zero.
        hinges: (3, 3) hinge points in the order of :data:`~cardiac_ct_fm.anatomy.HINGE_POINTS`, not on one line, of
            which all axes would be zero.

    Returns:
        (N, 3, 3), rotations.
    """
    right, left, non = hinges
    down = F.normalize(torch.linalg.cross(non - right, left - right), dim=0).expand_as(points)
    out = points - hinges.mean(0)
    out = F.normalize(out - (out * down).sum(-1, keepdim=True) * down, dim=-1)
    return torch.stack([out, torch.linalg.cross(down, out), down], -1)


def lattice() -> Tensor:
    """(E, E, E, 3) mm from the middle of a patch, along its axes."""
    axis = (torch.arange(EDGE) - (EDGE - 1) / 2) * SPACING_MM
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)


def patches(image: Tensor, to_voxel: Tensor, points: Tensor, axes: Tensor) -> Tensor:
    """What lies around each point, along its axes.

    Args:
        image: (X, Y, Z) normalised; beyond its rim the rim goes on.
        to_voxel: (4, 4) from mm to voxels of the image.
        points: (N, 3) mm.
        axes: (N, 3, 3), as :func:`frames` gives them.

    Returns:
        (N, 1, E, E, E) trilinear samples.
    """
    where = torch.einsum("nij,abcj->nabci", axes, lattice().to(points)) + points[:, None, None, None]
    voxels = where @ to_voxel[:3, :3].T + to_voxel[:3, 3]
    size = torch.tensor(image.shape, dtype=voxels.dtype, device=voxels.device)
    grid = (voxels / (size - 1) * 2 - 1).flip(-1).to(image)
    return F.grid_sample(image.expand(len(grid), 1, *image.shape), grid, padding_mode="border", align_corners=True)


def places(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Where the points lie in their patches, and how sure that is.

    Args:
        logits: (N, E, E, E).

    Returns:
        (N, 3) mm from the patch's middle along its axes, and (N,) the probability within :data:`NEAR_MM` of the peak,
        at most 1.
    """
    at = lattice().to(logits).reshape(-1, 3)
    probability = logits.flatten(1).softmax(1)
    near = (at - at[probability.argmax(1)][:, None]).norm(dim=-1) <= NEAR_MM
    weight = probability * near
    sure = weight.sum(1)
    return (weight @ at) / sure[:, None], sure.clamp(max=1.0)


def around(points: FloatArray, grid: Grid) -> Grid:
    """The part of a lattice, or what lies beside it, that holds the patches of all points (N, 3), RAS mm."""
    reach = np.sqrt(3) * EDGE / 2 * SPACING_MM + NEAR_MM  # the second pass looks around points that have moved
    corners = grid.voxel(np.array(list(product(*np.stack([points.min(0) - reach, points.max(0) + reach], 1)))))
    first, last = np.floor(corners.min(0)).astype(int), np.ceil(corners.max(0)).astype(int)
    x, y, z = (int(n) for n in last - first + 1)
    return grid.block((int(first[0]), int(first[1]), int(first[2])), (x, y, z))


def looks_again(model: CardiacCTModel, head: str, grid: Grid) -> bool:
    """Whether there is a second look at a head's points: it has a refiner, and the first look was fine enough."""
    return head in model.refiners and max(grid.spacing) <= SPACING_MM + 1e-6


@torch.inference_mode()
def refined(
    model: CardiacCTModel, head: str, points: Mapping[str, Landmark], volume: Volume, grid: Grid
) -> dict[str, Landmark]:
    """Look once more at the points of a landmark head that has a refiner.

    Args:
        model: in evaluation mode, float32.
        head: its name.
        points: what the first look found, by name; what it did not find stays so.
        volume: the scan.
        grid: lattice of the first look, so that the same voxels are seen.

    Returns:
        The same names. A point's confidence is that of the first look (is this the root, and which point?) times the
        second look's (where in the patch?). A place outside of the scan, further off than :data:`FURTHEST_MOVE_MM` or
        too far from the others of its root (:data:`~cardiac_ct_fm.anatomy.FURTHEST_MM`) is not believed: the point
        stays where it was. All stay as they were where a hinge point is missing or the three lie nearly on one line,
        because the patches' axes follow from these.
    """
    names = model.config.head(head).classes
    found = [name for name in names if points[name].found]
    if not set(HINGE_POINTS) <= set(found):
        return dict(points)
    start = np.array([points[name].ras_mm for name in found], dtype=np.float64)
    hinges = [found.index(name) for name in HINGE_POINTS]
    right, left, non = start[hinges]
    if np.linalg.norm(np.cross(non - right, left - right)) < LEAST_TRIANGLE_MM2:
        return dict(points)
    part = around(start, grid)
    device = next(model.parameters()).device
    image = look_tensor(volume, part, model.config.intensity, device)[0, 0]
    to_voxel = torch.from_numpy(np.linalg.inv(part.affine)).to(device)
    ras = torch.from_numpy(start).to(device)  # in float64: a scan may lie a metre from its origin
    kinds = torch.tensor([names.index(name) for name in found], device=device)
    sure = ras.new_zeros(len(found))
    for number in range(PASSES):
        axes = frames(ras, ras[hinges])
        offsets, now = places(model.refiners[head](patches(image, to_voxel, ras, axes), kinds).double())
        astray = (offsets.norm(dim=1) > STEADY_MM) & (now < sure) & (number > 0)
        ras = torch.where(astray[:, None], ras, ras + torch.einsum("nij,nj->ni", axes, offsets))
        sure = torch.where(astray, sure, now)
    seen = {
        name: replace(points[name], ras_mm=(x, y, z), confidence=points[name].confidence * p)
        for name, (x, y, z), p in zip(found, ras.tolist(), sure.tolist(), strict=True)
    }
    return {**points, **_believed(points, seen, volume.grid)}


def _believed(first: Mapping[str, Landmark], seen: Mapping[str, Landmark], scan: Grid) -> dict[str, Landmark]:
    """The points of the second look where they can be one root's, else those of the first."""
    stay = {name: replace(first[name], confidence=again.confidence) for name, again in seen.items()}
    kept = {name: again if _possible(first[name], again, scan) else stay[name] for name, again in seen.items()}
    while strange := [name for name in kept if kept[name] is not stay[name] and not _fits(kept[name], kept)]:
        kept |= {name: stay[name] for name in strange}
    return kept


def _possible(first: Landmark, again: Landmark, scan: Grid) -> bool:
    """Whether a point can have moved so far, and lies in the scan."""
    assert first.ras_mm is not None and again.ras_mm is not None  # both were found
    return math.dist(first.ras_mm, again.ras_mm) <= FURTHEST_MOVE_MM and bool(scan.contains(np.array(again.ras_mm)))


def _fits(point: Landmark, root: Mapping[str, Landmark]) -> bool:
    """Whether a point can belong to the root of the others."""
    return all(fit(point, other) for other in root.values())

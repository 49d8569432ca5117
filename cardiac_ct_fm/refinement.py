"""A second look at each landmark: patches along the root's own axes, and points from what the refiner says of them.

The first look places a point by what surrounds it; :class:`~cardiac_ct_fm.refiner.PointRefiner` sees every patch from
the same side, whatever way the root is turned, and says where in it the point lies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cardiac_ct_fm.anatomy import HINGE_POINTS
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
"""A point is the mean of the probability within this distance of its peak, so that a second peak does not pull it."""

PASSES = 2
"""The second pass turns the patches by the points of the first."""


def frames(points: Tensor, hinges: Tensor) -> Tensor:
    """Axes of each point's patch as columns: away from the root's axis, around it, down into the ventricle.

    Args:
        points: (N, 3) RAS mm, none of them on the axis.
        hinges: (3, 3) hinge points in the order of :data:`~cardiac_ct_fm.anatomy.HINGE_POINTS`, not on one line.

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
    grid = (voxels / (size - 1) * 2 - 1).flip(-1)
    return F.grid_sample(image.expand(len(grid), 1, *image.shape), grid, padding_mode="border", align_corners=True)


def places(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Where the points lie in their patches, and how sure that is.

    Args:
        logits: (N, E, E, E).

    Returns:
        (N, 3) mm from the patch's middle along its axes, and (N,) the probability within :data:`NEAR_MM` of the peak.
    """
    at = lattice().to(logits).reshape(-1, 3)
    probability = logits.flatten(1).softmax(1)
    near = (at - at[probability.argmax(1)][:, None]).norm(dim=-1) <= NEAR_MM
    weight = probability * near
    sure = weight.sum(1)
    return (weight @ at) / sure[:, None], sure


def around(points: FloatArray, grid: Grid) -> Grid:
    """The part of a lattice, or what lies beside it, that holds the patches of all points (N, 3), RAS mm."""
    reach = np.sqrt(3) * EDGE / 2 * SPACING_MM
    corners = grid.voxel(np.array(list(product(*np.stack([points.min(0) - reach, points.max(0) + reach], 1)))))
    first, last = np.floor(corners.min(0)).astype(int), np.ceil(corners.max(0)).astype(int)
    x, y, z = (int(n) for n in last - first + 1)
    return grid.block((int(first[0]), int(first[1]), int(first[2])), (x, y, z))


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
        The same names. All points as they were where a hinge point is missing: the patches' axes follow from these.
    """
    names = model.config.head(head).classes
    found = [name for name in names if points[name].found]
    if not set(HINGE_POINTS) <= set(found):
        return dict(points)
    start = np.array([points[name].ras_mm for name in found], dtype=np.float64)
    part = around(start, grid)
    device = next(model.parameters()).device
    image = look_tensor(volume, part, model.config.intensity, device)[0, 0]
    to_voxel = torch.from_numpy(np.linalg.inv(part.affine)).float().to(device)
    ras = torch.from_numpy(start).float().to(device)
    kinds = torch.tensor([names.index(name) for name in found], device=device)
    hinges = [found.index(name) for name in HINGE_POINTS]
    sure = ras.new_ones(len(found))
    for _ in range(PASSES):
        axes = frames(ras, ras[hinges])
        offsets, sure = places(model.refiners[head](patches(image, to_voxel, ras, axes), kinds).float())
        ras = ras + torch.einsum("nij,nj->ni", axes, offsets)
    moved = {
        name: replace(points[name], ras_mm=(x, y, z), confidence=p)
        for name, (x, y, z), p in zip(found, ras.tolist(), sure.tolist(), strict=True)
    }
    return {**points, **moved}

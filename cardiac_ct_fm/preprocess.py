"""From a scan to what a network sees: one look, resampled without aliasing and normalised.

The same normalisation serves training and prediction. Only the part of the scan that a look covers is touched, a
few slices at a time, so memory does not grow with the scan's resolution.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from cardiac_ct_fm.config import IntensityConfig
from cardiac_ct_fm.geometry import FloatArray, Grid, parallel_axes

if TYPE_CHECKING:
    from cardiac_ct_fm.volume_io import Volume

OBLIQUE_OVERSAMPLING = 2.0
"""Samples per look voxel of the filtered lattice between scan and oblique look.

The trilinear step that follows then blurs with a variance of at most (1/2)²/4 = 1/16 look voxels squared, less than the
1/12 of the look's own voxel.
"""

_SLAB_VOXELS = 4_000_000
"""Voxels of the scan that are held as float32 at once (16 MB)."""

_NO_BOX = 1e-3
"""Boxes narrower than this many voxels change nothing in float32 and are left out."""

_BLOCK_EDGE = 96
"""Edge, in voxels, of the blocks of an oblique look; the lattice between stays below 100 MB."""


def normalise(hu: torch.Tensor, intensity: IntensityConfig) -> torch.Tensor:
    """Hounsfield units of any shape → network input: ``(clip(HU, low, high) - mean) / std``, float32."""
    return (hu.float().clamp(intensity.low_hu, intensity.high_hu) - intensity.mean_hu) / intensity.std_hu


def look_tensor(
    volume: Volume, grid: Grid, intensity: IntensityConfig, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """What a network sees of ``volume`` on ``grid``.

    Args:
        volume: the scan in HU, any orientation, oblique or not.
        grid: the look.
        intensity: normalisation; outside of the scan there is air (``low_hu``).
        device: where the result lives and the work is done.

    Returns:
        (1, 1, X, Y, Z) float32, normalised.
    """
    return normalise(resample_hu(volume, grid, intensity.low_hu, device), intensity)[None, None]


def resample_hu(volume: Volume, grid: Grid, low_hu: float, device: torch.device | str = "cpu") -> torch.Tensor:
    """The scan on another grid: linear interpolation, averaged over the footprint where the grid is coarser.

    Along each axis of the scan its linear interpolant is averaged over a box, so that scan voxel and box together are
    as wide (in variance) as a voxel of ``grid``; where ``grid`` is finer this is plain linear interpolation. A straight
    ramp comes back as itself. Padding below ``low_hu`` (−3024 outside of the reconstruction circle) counts as
    ``low_hu``.

    Returns:
        (X, Y, Z) float32 HU on ``device``; ``low_hu`` outside of the scan.
    """
    # Work in the order of memory: slowest axis first, so that slabs are contiguous.
    order = sorted(range(3), key=lambda a: -abs(volume.data.strides[a]))
    data = volume.data.transpose(order)
    scan = Grid((data.shape[0], data.shape[1], data.shape[2]), volume.affine[:, [*order, 3]])
    to_scan = np.linalg.inv(scan.affine) @ grid.affine
    width = _footprint(scan, grid)
    parallel = parallel_axes(to_scan, grid.shape)
    if parallel is not None:
        # Axis a of the scan runs along axis parallel[a] of the look: one separable pass is exact.
        positions = [to_scan[a, parallel[a]] * np.arange(grid.shape[parallel[a]]) + to_scan[a, 3] for a in range(3)]
        result = _aligned(data, positions, width, low_hu, device)
        return result.permute([parallel.index(b) for b in range(3)]).contiguous()
    return _oblique(data, to_scan, grid.shape, width, low_hu, device)


def _footprint(scan: Grid, grid: Grid) -> FloatArray:
    """(3,) size of a voxel of ``grid`` along each axis of the scan, in voxels of the scan; at least 1."""
    spacing = np.asarray(scan.spacing)
    directions = scan.affine[:3, :3] / spacing
    along = np.linalg.norm(grid.affine[:3, :3].T @ directions, axis=0)
    result: FloatArray = np.maximum(along / spacing, 1.0)
    return result


def _weights(
    positions: FloatArray, size: int, width: float, device: torch.device | str
) -> tuple[torch.Tensor, int, int]:
    """Weights that carry ``size`` samples to ``positions``, cut to the samples that are needed.

    Args:
        positions: (P,) in samples; beyond the first and last centre the edge sample goes on.
        size: number of samples.
        width: of the result's voxel, in samples, at least 1.
        device: where the weights live.

    Returns:
        (P, stop - start) float32 whose rows sum to 1; ``start`` and ``stop``.
    """
    # A scan voxel is a box of width 1 itself; variances (width²/12) add up.
    box = float(np.sqrt(width**2 - 1))
    reach = box / 2 + 1
    first, last = int(np.floor(positions.min() - reach)), int(np.ceil(positions.max() + reach))
    offsets = positions[:, None] - np.arange(first, last + 1)
    if box < _NO_BOX:
        weights = np.maximum(1 - np.abs(offsets), 0)
    else:
        weights = (_triangle_integral(offsets + box / 2) - _triangle_integral(offsets - box / 2)) / box
    start, stop = min(max(first, 0), size - 1), max(min(last + 1, size), 1)
    folded = np.zeros((stop - start, len(positions)))
    np.add.at(folded, np.clip(np.arange(first, last + 1), start, stop - 1) - start, weights.T)
    return torch.from_numpy(np.ascontiguousarray(folded.T, dtype=np.float32)).to(device), start, stop


def _triangle_integral(u: FloatArray) -> FloatArray:
    """Integral from −∞ to ``u`` of the kernel of linear interpolation, ``max(1 - |t|, 0)``."""
    v = np.clip(u, -1, 1)
    result: FloatArray = np.where(v < 0, (v + 1) ** 2 / 2, 1 - (1 - v) ** 2 / 2)
    return result


def _separable(
    data: npt.NDArray[Any], positions: list[FloatArray], width: FloatArray, low_hu: float, device: torch.device | str
) -> torch.Tensor:
    """``data`` at the lattice of ``positions`` (voxel coordinates per axis); edges go on outside of it."""
    plan = [_weights(p, n, float(w), device) for p, n, w in zip(positions, data.shape, width, strict=True)]
    (w0, a0, b0), (w1, a1, b1), (w2, a2, b2) = plan
    out = torch.zeros(len(positions[0]), len(positions[1]), len(positions[2]), device=device)
    step = max(1, _SLAB_VOXELS // ((b1 - a1) * (b2 - a2)))
    for begin in range(a0, b0, step):
        end = min(begin + step, b0)
        slab = _to_float(data[begin:end, a1:b1, a2:b2], device).clamp_(min=low_hu)
        slab = torch.matmul(w1, torch.matmul(slab, w2.T))
        rows = w0[:, begin - a0 : end - a0]
        used = torch.nonzero(rows.any(dim=1)).flatten()
        if len(used):
            first, last = int(used[0]), int(used[-1]) + 1
            out[first:last] += torch.tensordot(rows[first:last], slab, dims=1)
    return out


def _aligned(
    data: npt.NDArray[Any], positions: list[FloatArray], width: FloatArray, low_hu: float, device: torch.device | str
) -> torch.Tensor:
    """``data`` on a grid that is parallel to it: one separable pass over the part that lies inside."""
    inside = [np.flatnonzero((p >= -0.5) & (p <= n - 0.5)) for p, n in zip(positions, data.shape, strict=True)]
    out = torch.full([len(p) for p in positions], low_hu, dtype=torch.float32, device=device)
    if min(map(len, inside)) > 0:
        # Positions grow or fall evenly, so those inside follow each other.
        where = tuple(slice(int(i[0]), int(i[-1]) + 1) for i in inside)
        out[where] = _separable(data, [p[w] for p, w in zip(positions, where, strict=True)], width, low_hu, device)
    return out


def _oblique(
    data: npt.NDArray[Any],
    to_scan: FloatArray,
    shape: tuple[int, int, int],
    width: FloatArray,
    low_hu: float,
    device: torch.device | str,
) -> torch.Tensor:
    """``data`` on a grid that is turned against it, block by block."""
    result = torch.empty(shape, device=device)
    for start in product(*[range(0, n, _BLOCK_EDGE) for n in shape]):
        stop = [min(a + _BLOCK_EDGE, n) for a, n in zip(start, shape, strict=True)]
        block = Grid((stop[0] - start[0], stop[1] - start[1], stop[2] - start[2]), _shifted(to_scan, start))
        where = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        result[where] = _oblique_block(data, block, width, low_hu, device)
    return result


def _oblique_block(
    data: npt.NDArray[Any], block: Grid, width: FloatArray, low_hu: float, device: torch.device | str
) -> torch.Tensor:
    """``data`` on a block whose "world" are the voxels of ``data``: filtered along those axes, then trilinear."""
    size = np.asarray(data.shape)
    corners = block.corners()
    if (corners.max(axis=0) < -0.5).any() or (corners.min(axis=0) > size - 0.5).any():
        return torch.full(block.shape, low_hu, dtype=torch.float32, device=device)
    # The lattice between: the scan's own voxels where the look is as fine, else finer than the look's. It is counted
    # from the scan's middle: neighbouring blocks share it, and a flip of the scan does not move it.
    step = np.where(width > 1, width / OBLIQUE_OVERSAMPLING, 1.0)
    middle = np.where(width > 1, (size - 1) / 2, 0.0)
    first = np.floor((np.clip(corners.min(axis=0), 0, size - 1) - middle) / step)
    count = np.ceil((np.clip(corners.max(axis=0), 0, size - 1) - middle) / step) - first + 1
    positions = [middle[a] + step[a] * (first[a] + np.arange(max(count[a], 2))) for a in range(3)]
    lattice = _separable(data, positions, width, low_hu, device)

    ijk = block.points_tensor(device)
    border = torch.from_numpy((size - 0.5).astype(np.float32)).to(device)
    inside = ((ijk >= -0.5) & (ijk <= border)).all(dim=-1)
    # grid_sample counts from -1 (first sample) to 1 (last) and names the last axis first.
    start = torch.tensor([p[0] for p in positions], dtype=torch.float32, device=device)
    span = torch.tensor([p[-1] - p[0] for p in positions], dtype=torch.float32, device=device)
    where = ((ijk.clamp(min=torch.zeros(3, device=device), max=border - 0.5) - start) * 2 / span - 1).flip(-1)
    values = F.grid_sample(lattice[None, None], where[None], "bilinear", "border", align_corners=True)[0, 0]
    return torch.where(inside, values, torch.tensor(low_hu, dtype=torch.float32, device=device))


def _shifted(affine: FloatArray, start: tuple[int, ...]) -> FloatArray:
    """``affine`` of the block that begins at voxel ``start``."""
    result = affine.copy()
    result[:3, 3] += affine[:3, :3] @ np.asarray(start, dtype=np.float64)
    return result


def _to_float(block: npt.NDArray[Any], device: torch.device | str) -> torch.Tensor:
    """A float32 copy of a block on ``device``; it travels in its own, smaller type."""
    native = np.array(block, dtype=block.dtype.newbyteorder("="), order="C")
    return torch.from_numpy(native).to(device).float()

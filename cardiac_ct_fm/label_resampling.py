"""From a look back to the scan: logits or label maps on one grid become a label map on another.

Between voxels, logits are interpolated linearly and the largest wins. Where all eight neighbours agree, linear
interpolation cannot change the winner, so only the cells along borders are computed; the result is the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from cardiac_ct_fm.errors import DataError
from cardiac_ct_fm.geometry import FloatArray, Grid, parallel_axes

LabelMap = npt.NDArray[np.uint8]

_MIXED = 255
"""Marks a cell whose corners disagree; so there can be at most 255 channels."""

_SLAB_VOXELS = 8_000_000
"""Voxels of the target that are worked on at once (8 MB of labels; 96 MB of coordinates when oblique)."""

_CHUNK_POINTS = 200_000
"""Border points whose logits are interpolated at once (6 MB for 8 channels, which stays in a cache)."""


def resample_logits_to_grid(logits: torch.Tensor, look: Grid, target: Grid, out: LabelMap | None = None) -> LabelMap:
    """The winning channel at every voxel of ``target``.

    Args:
        logits: (C, x, y, z) on ``look``, any floating type, any device; channel 0 is background.
        look: their grid.
        target: the grid of the result, usually the scan's.
        out: a label map on ``target`` to write into; voxels outside of ``look`` keep their value.

    Returns:
        (X, Y, Z) uint8 in Fortran order; 0 outside of ``look`` unless ``out`` says otherwise.

    Raises:
        DataError: shapes do not fit, or more than 255 channels.
    """
    channels = logits.shape[0]
    if tuple(logits.shape[1:]) != look.shape or channels > _MIXED:
        raise DataError(
            f"Logits of shape {tuple(logits.shape)} do not fit a grid of {look.shape} and a byte per label."
        )
    result = _prepared(target, out)
    values = logits.float()
    cells = _cells(winning_channel(values))
    # All channels of a voxel together: a point then reads eight places of memory, not eight per channel.
    values = values[None].contiguous(memory_format=torch.channels_last_3d)
    # Without a map below, only the box around what is not background has to be looked at.
    box = _occupied(cells, 1.0, 0.0) if out is None else _whole(look)
    for part in _parts(look, target, box):
        labels, inside = part.lookup(cells)
        mixed = np.flatnonzero(labels == _MIXED)
        for begin in range(0, len(mixed), _CHUNK_POINTS):
            chosen = mixed[begin : begin + _CHUNK_POINTS]
            labels.reshape(-1)[chosen] = _winners(values, part.places(chosen))
        part.store(labels, inside, result)
    return result


def winning_channel(values: torch.Tensor) -> LabelMap:
    """The channel with the largest value, the first where several are equal; many times faster than torch's argmax.

    Args:
        values: (C, …) float32, at most 255 channels.

    Returns:
        (…) uint8.
    """
    first, *others = values.detach().cpu().numpy()
    winners = np.zeros(first.shape, np.uint8)
    best, better = first.copy(), np.empty(first.shape, bool)
    for channel, own in enumerate(others, start=1):
        np.greater(own, best, out=better)
        np.maximum(best, own, out=best)
        np.maximum(winners, better.view(np.uint8) * np.uint8(channel), out=winners)
    return winners


def resample_label_map(labels: LabelMap, source: Grid, target: Grid) -> LabelMap:
    """A label map on another grid, nearest neighbour; 0 outside of ``source``.

    Args:
        labels: (x, y, z) uint8 on ``source``.
        source: their grid.
        target: the grid of the result.

    Returns:
        (X, Y, Z) uint8 in Fortran order.

    Raises:
        DataError: the shape is not that of ``source``.
    """
    if labels.shape != source.shape:
        raise DataError(f"A label map of shape {labels.shape} does not lie on a grid of {source.shape}.")
    result = _prepared(target, None)
    for part in _parts(source, target, _occupied(labels, 0.5, 0.5)):
        part.store(*part.lookup(labels, nearest=True), result)
    return result


def _prepared(target: Grid, out: LabelMap | None) -> LabelMap:
    """The label map that is filled in."""
    if out is None:
        return np.zeros(target.shape, np.uint8, order="F")
    if out.shape != target.shape or out.dtype != np.uint8:
        raise DataError(f"out must be uint8 {target.shape}, not {out.dtype} {out.shape}.")
    return out


def _cells(winners: LabelMap) -> LabelMap:
    """(x+1, y+1, z+1): the label that all corners of a cell share, or ``_MIXED``; cell i lies between i-1 and i."""
    low = high = np.pad(winners, 1, mode="edge")
    for axis in range(3):
        first = tuple(slice(0, -1) if a == axis else slice(None) for a in range(3))
        second = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
        low, high = np.minimum(low[first], low[second]), np.maximum(high[first], high[second])
    return np.where(low == high, low, np.uint8(_MIXED))


def _winners(values: torch.Tensor, places: npt.NDArray[np.float32]) -> LabelMap:
    """The largest channel of ``values`` (1, C, x, y, z) at places (N, 3) as grid_sample has them; edges go on."""
    where = torch.from_numpy(places).to(values.device)[None, None, None]
    return winning_channel(F.grid_sample(values, where, "bilinear", "border", align_corners=True)[0, :, 0, 0])


@dataclass(frozen=True)
class _Part:
    """Some slices of the target, cut to where the source lies.

    Attributes:
        start: first voxel of the part in the target.
        shape: its size (X, Y, Z); arrays of its voxels are (Z, Y, X), contiguous.
        to_source: (4, 4), voxel of the part → voxel of the source.
        source_shape: size of the source.
    """

    start: tuple[int, int, int]
    shape: tuple[int, int, int]
    to_source: FloatArray
    source_shape: tuple[int, int, int]

    def lookup(self, table: LabelMap, nearest: bool = False) -> tuple[LabelMap, npt.NDArray[np.bool_] | None]:
        """``table`` at every voxel, (Z, Y, X): per nearest voxel of the source, or per cell as ``_cells`` counts.

        Returns:
            The labels, 0 outside of the source, and where the voxels lie inside (None: everywhere).
        """
        partner = parallel_axes(self.to_source, self.shape)
        if partner is not None:
            # Source axis a depends on part axis partner[a] alone: whole rows and planes are copied.
            turned = table.transpose([partner.index(axis) for axis in (2, 1, 0)])
            for place, axis in ((2, 0), (1, 1), (0, 2)):
                a = partner.index(axis)
                positions = self.to_source[a, axis] * np.arange(self.shape[axis]) + self.to_source[a, 3]
                turned = turned.take(self._index(positions, a, nearest), axis=place)
            return turned, None
        x, y, z = (np.arange(n, dtype=np.float32) for n in self.shape)
        linear, offset = self.to_source[:3, :3].astype(np.float32), self.to_source[:3, 3].astype(np.float32)
        index: list[npt.NDArray[Any]] = []
        inside = np.ones(self.shape[::-1], dtype=bool)
        for a, n in enumerate(self.source_shape):
            position = (linear[a, 2] * z + offset[a])[:, None, None] + (linear[a, 1] * y)[:, None] + linear[a, 0] * x
            inside &= (position >= -0.5) & (position <= n - 0.5)
            index.append(self._index(position, a, nearest))
        return np.where(inside, table[tuple(index)], np.uint8(0)), inside

    def places(self, flat: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        """Where voxels lie in the source, as torch's grid_sample wants it.

        Args:
            flat: (N,) index in (Z, Y, X).

        Returns:
            (N, 3) axes z, y, x, each −1…1 from the source's first voxel centre to its last.
        """
        index = np.unravel_index(flat, self.shape[::-1])[::-1]
        # Of each axis of the part its share of the coordinates: where grids are parallel, one axis tells one of them.
        half = np.maximum(np.asarray(self.source_shape, dtype=np.float64) - 1, 1) / 2
        scaled, offset = self.to_source[:3, :3] / half[:, None], self.to_source[:3, 3] / half - 1
        result = np.empty((len(flat), 3), np.float32)
        for a in range(3):
            axes = np.flatnonzero(scaled[a])
            tables = [scaled[a, axis] * np.arange(self.shape[axis]) for axis in axes]
            tables[0] += offset[a]
            result[:, 2 - a] = sum(table[index[axis]] for table, axis in zip(tables, axes, strict=True))
        return result

    def store(self, labels: LabelMap, inside: npt.NDArray[np.bool_] | None, result: LabelMap) -> None:
        """Write the labels (Z, Y, X) of this part into the whole map where they are ``inside``."""
        (i, j, k), (nx, ny, nz) = self.start, self.shape
        np.copyto(result[i : i + nx, j : j + ny, k : k + nz].T, labels, where=True if inside is None else inside)

    def _index(self, positions: npt.NDArray[Any], axis: int, nearest: bool) -> npt.NDArray[np.intp]:
        """Index into a table of voxels (nearest) or of cells along one axis of the source."""
        n = self.source_shape[axis]
        index: npt.NDArray[np.intp] = np.floor(positions + (0.5 if nearest else 1.0)).astype(np.intp)
        return index.clip(0, n - 1 if nearest else n, out=index)


def _whole(source: Grid) -> FloatArray:
    """(3, 2) from where to where the voxels of ``source`` reach, in its voxel coordinates."""
    return np.array([(-0.5, n - 0.5) for n in source.shape])


def _occupied(table: LabelMap, before: float, after: float) -> FloatArray | None:
    """(3, 2) the box around all entries that are not background, or None if there are none.

    Args:
        table: voxels or cells.
        before: how far, in voxels, entry i reaches below coordinate i.
        after: and how far above.
    """
    box = []
    for axis in range(3):
        used = np.flatnonzero(table.any(axis=tuple(a for a in range(3) if a != axis)))
        if not len(used):
            return None
        box.append((used[0] - before, used[-1] + after))
    return np.array(box)


def _parts(source: Grid, target: Grid, box: FloatArray | None) -> Iterator[_Part]:
    """The target's slices, a slab at a time, cut to where a box (3, 2) of the source's voxel coordinates lies."""
    if box is None:
        return
    to_source = np.linalg.inv(source.affine) @ target.affine
    whole = _whole(source)
    outer = np.stack(np.meshgrid(*box.clip(whole[:, :1], whole[:, 1:]), indexing="ij"), axis=-1).reshape(8, 3)
    corners = target.voxel(source.world(outer))
    aligned = parallel_axes(to_source, target.shape) is not None
    # Parallel grids: exactly the voxels inside. Oblique ones: the box around them.
    low = np.clip(np.ceil(corners.min(axis=0) - 1e-6), 0, None).astype(int)
    high = np.minimum(np.floor(corners.max(axis=0) + 1e-6).astype(int) + 1, target.shape)
    if (high <= low).any():
        return
    step = max(1, _SLAB_VOXELS // int(np.prod(high[:2] - low[:2])) // (1 if aligned else 4))
    for k in range(low[2], high[2], step):
        start = (int(low[0]), int(low[1]), int(k))
        shape = (int(high[0] - low[0]), int(high[1] - low[1]), int(min(k + step, high[2]) - k))
        affine = to_source.copy()
        affine[:3, 3] += to_source[:3, :3] @ np.asarray(start, dtype=np.float64)
        yield _Part(start, shape, affine, source.shape)

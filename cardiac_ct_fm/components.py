"""Connected regions, counts and edges of label maps, at a cost that hardly depends on the scan around them.

A scan of 512×512×700 voxels is mostly background. Regions are counted in parts of the array in its own order of memory,
so nothing as wide as a 64-bit index per voxel is ever held. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import cc3d
import numpy as np
import numpy.typing as npt

LabelMap = npt.NDArray[np.uint8]
Regions = npt.NDArray[np.unsignedinteger]
Box = tuple[slice, slice, slice]

_PART = 4_000_000
"""Voxels that are counted at once (32 MB of indices)."""


def largest_regions(labels: LabelMap) -> LabelMap:
    """Keep the largest connected region (6-neighbourhood) of every label; the rest becomes background.

    Args:
        labels: (X, Y, Z), any order of memory.

    Returns:
        A new label map in the same order of memory; of regions of equal size the first in memory stays.
    """
    box = occupied_box(labels)
    result = np.zeros_like(labels)
    if box is None:
        return result
    inner = labels[box]
    inner = inner.copy(order="F" if abs(inner.strides[0]) < abs(inner.strides[2]) else "C")
    regions, count = cc3d.connected_components(inner, connectivity=6, return_N=True)
    size, value = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.uint8)
    for own, number in _parts(inner, regions):
        size += np.bincount(number, minlength=count + 1)
        value[number] = own
    keep = np.zeros(count + 1, np.uint8)
    for v in np.unique(value[1:]):
        own_regions = 1 + np.flatnonzero(value[1:] == v)
        keep[own_regions[size[own_regions].argmax()]] = v
    for own, number in _parts(inner, regions):
        own[:] = keep[number]
    result[box] = inner
    return result


def voxel_counts(labels: LabelMap) -> npt.NDArray[np.int64]:
    """(256,) how many voxels carry each value; one comparison per value that occurs, in the box that holds labels."""
    counts = np.zeros(256, np.int64)
    box = occupied_box(labels)
    if box is not None:
        inner = labels[box]
        for value in range(1, int(inner.max()) + 1):
            counts[value] = np.count_nonzero(inner == value)
    counts[0] = labels.size - counts.sum()
    return counts


def labels_at_edge(labels: LabelMap, margins: Sequence[int]) -> set[int]:
    """Values, background left out, that occur within so many voxels of a face, per axis."""
    found: set[int] = set()
    for axis, depth in enumerate(margins):
        along = np.moveaxis(labels, axis, 0)
        for face in (along[:depth], along[-depth:]):
            found |= {int(v) for v in np.flatnonzero(np.bincount(face.ravel(order="K"), minlength=1))}
    return found - {0}


def occupied_box(labels: LabelMap) -> Box | None:
    """The smallest box that holds all labels; None where there are none."""
    # Along the axis that lies furthest apart in memory first: what is left is small.
    box = [slice(None)] * 3
    for axis in sorted(range(3), key=lambda a: -abs(labels.strides[a])):
        others = tuple(a for a in range(3) if a != axis)
        used = np.flatnonzero(labels[tuple(box)].any(axis=others))
        if not len(used):
            return None
        box[axis] = slice(int(used[0]), int(used[-1]) + 1)
    return box[0], box[1], box[2]


def _parts(labels: LabelMap, regions: Regions) -> Iterator[tuple[LabelMap, Regions]]:
    """Both arrays voxel by voxel in the order of memory, some at a time; writing into the first changes it."""
    order: Literal["F", "C"] = "F" if labels.flags.f_contiguous else "C"
    flat, numbers = labels.reshape(-1, order=order), regions.reshape(-1, order=order)
    for begin in range(0, flat.size, _PART):
        yield flat[begin : begin + _PART], numbers[begin : begin + _PART]

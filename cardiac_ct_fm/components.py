"""Connected regions, counts and edges of label maps, at a cost that hardly depends on the scan around them.

A scan of 512×512×700 voxels is mostly background, and what is not lies in long runs of one label: regions are made of
runs, so nothing wider than the labels themselves is held per voxel. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

LabelMap = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.intp]
Box = tuple[slice, slice, slice]


def largest_regions(labels: LabelMap, in_place: bool = False) -> LabelMap:
    """Keep the largest connected region (6-neighbourhood) of every label; the rest becomes background.

    Args:
        labels: (X, Y, Z), any order of memory.
        in_place: change ``labels`` itself; else a new label map in the same order of memory is returned.

    Returns:
        The label map; of regions of equal size the first in memory stays.
    """
    result = labels if in_place else labels.copy(order="K")
    box = occupied_box(labels)
    if box is None:
        return result
    inner = result[box]
    inner = inner if abs(inner.strides[0]) < abs(inner.strides[2]) else inner.T
    begin, length, value, region = _regions(inner)
    size, of = np.bincount(region, weights=length), np.zeros(region.max() + 1, np.uint8)
    of[region] = value
    keep = of == 0
    for v in np.unique(of[of > 0]):
        own = np.flatnonzero(of == v)
        keep[own[size[own].argmax()]] = True
    lost = np.flatnonzero(~keep[region])
    voxels = _counted_up(begin[lost], length[lost])
    inner[np.unravel_index(voxels, inner.shape, order="F")] = 0
    return result


def _regions(labels: LabelMap) -> tuple[Indices, Indices, LabelMap, npt.NDArray[np.int32]]:
    """Connected regions by runs of one label along the first axis, of which there are few: neighbours are joined.

    Returns:
        Of every run, in Fortran order: its first voxel, its length, its label (background has runs too), and the
        number of its region, in the order of first voxels.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    nx, ny, _ = labels.shape
    flat = labels.ravel(order="F")
    changes = np.empty(flat.size, bool)
    np.not_equal(flat[1:], flat[:-1], out=changes[1:])
    changes[::nx] = True
    begin = np.flatnonzero(changes)
    length, value = np.diff(begin, append=flat.size), flat[begin]
    pairs = []
    for step, after in ((nx, begin // nx % ny < ny - 1), (nx * ny, begin < flat.size - nx * ny)):
        run = np.flatnonzero(after & (value > 0))
        low = np.searchsorted(begin, begin[run] + step, "right") - 1
        high = np.searchsorted(begin, begin[run] + length[run] - 1 + step, "right") - 1
        one, other = np.repeat(run, high - low + 1), _counted_up(low, high - low + 1)
        pairs.append(np.stack([one, other])[:, value[one] == value[other]])
    where = np.concatenate(pairs, axis=1)
    graph = coo_array((np.ones(where.shape[1], bool), (where[0], where[1])), shape=(len(begin), len(begin)))
    region: npt.NDArray[np.int32] = connected_components(graph, directed=False)[1]
    return begin, length, value, region


def _counted_up(first: Indices, count: Indices) -> Indices:
    """``first[0]``, ``first[0] + 1`` … as many as ``count[0]`` says, then those of the next."""
    before = np.cumsum(count) - count
    result: Indices = np.arange(count.sum()) + np.repeat(first - before, count)
    return result


def voxel_counts(labels: LabelMap, box: Box | None = None) -> npt.NDArray[np.int64]:
    """(256,) how many voxels carry each value; one comparison per value that occurs, in the box that holds labels.

    Args:
        labels: (X, Y, Z).
        box: :func:`occupied_box`, where it is known.
    """
    counts = np.zeros(256, np.int64)
    box = box or occupied_box(labels)
    if box is not None:
        inner = labels[box]
        highest = int(inner.max())
        # Plane by plane, so that what is compared over and over stays in a cache.
        for plane in inner if abs(inner.strides[0]) > abs(inner.strides[2]) else inner.T:
            for value in range(1, highest + 1):
                counts[value] += np.count_nonzero(plane == value)
    counts[0] = labels.size - counts.sum()
    return counts


def labels_at_edge(labels: LabelMap, margins: Sequence[int], box: Box | None = None) -> set[int]:
    """Values, background left out, that occur within so many voxels of a face, per axis.

    Args:
        labels: (X, Y, Z).
        margins: voxels per axis.
        box: :func:`occupied_box`, where it is known.
    """
    found: set[int] = set()
    box = box or occupied_box(labels)
    if box is None:
        return found
    for axis, depth in enumerate(margins):
        along = np.moveaxis(labels[box], axis, 0)
        first = max(depth - box[axis].start, 0)
        last = max(labels.shape[axis] - depth - box[axis].start, 0)
        for face in (along[:first], along[last:]):
            found |= {int(v) for v in np.flatnonzero(np.bincount(face.ravel(order="K"), minlength=1))}
    return found - {0}


def occupied_box(labels: LabelMap) -> Box | None:
    """The smallest box that holds all labels; None where there are none."""
    # Along the axis that lies furthest apart in memory first, then what is left seen along it: two passes in order.
    slow = max(range(3), key=lambda a: abs(labels.strides[a]))
    along = np.moveaxis(labels, slow, 0)
    used = np.flatnonzero(along.any(axis=(1, 2)))
    if not len(used):
        return None
    inside = slice(int(used[0]), int(used[-1]) + 1)
    shadow: npt.NDArray[np.bool_] = np.logical_or.reduce(along[inside], axis=0)
    box = [np.flatnonzero(shadow.any(axis=other)) for other in (1, 0)]
    first, second = (slice(int(found[0]), int(found[-1]) + 1) for found in box)
    x, y, z = {0: (inside, first, second), 1: (first, inside, second), 2: (first, second, inside)}[slow]
    return x, y, z

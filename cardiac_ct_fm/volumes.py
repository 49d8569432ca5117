"""Volumes of the segmented structures, as measurements; what touches the edge of the scan is marked as incomplete."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from cardiac_ct_fm.geometry import Grid
from cardiac_ct_fm.result import Measurement, Prediction

MM3_PER_ML = 1000.0

EDGE_MM = 2.0
"""A structure that comes closer than this to the edge of the scan goes on beyond it, as prediction counts it too."""


def structure_volumes(prediction: Prediction) -> dict[str, Measurement]:
    """``LV_volume_ml`` and so on for every class of every label map.

    Returns:
        Name → measurement in mL. A structure that was not found has status ``not_found`` and no value; one that
        reaches the edge of the scan has the volume that can be seen and status ``truncated``.
    """
    found: dict[str, Measurement] = {}
    for head, labels in prediction.label_maps.items():
        classes = prediction.classes[head]
        counts = _voxels(labels, len(classes))
        cut = _at_edge(labels, prediction.grid)
        for value, structure in enumerate(classes, start=1):
            name = f"{structure}_volume_ml"
            if not counts[value]:
                found[name] = Measurement(name, None, "mL", "not_found")
                continue
            volume = float(counts[value]) * prediction.grid.voxel_mm3 / MM3_PER_ML
            found[name] = Measurement(name, volume, "mL", "truncated" if value in cut else "ok")
    return found


def _voxels(labels: npt.NDArray[np.uint8], classes: int) -> npt.NDArray[np.int64]:
    """Voxels per label value 0…classes; slice by slice, because counting widens what it counts to 64 bits."""
    counts = np.zeros(classes + 1, np.int64)
    for k in range(labels.shape[2]):
        counts += np.bincount(labels[..., k].ravel(order="K"), minlength=classes + 1)
    return counts


def _at_edge(labels: npt.NDArray[np.uint8], grid: Grid) -> set[int]:
    """Label values within :data:`EDGE_MM` of a face of the scan."""
    return {int(v) for face in _faces(labels, grid) for v in np.unique(face)} - {0}


def _faces(labels: npt.NDArray[np.uint8], grid: Grid) -> Iterator[npt.NDArray[np.uint8]]:
    """The six layers of voxels along the faces."""
    for axis, spacing in enumerate(grid.spacing):
        depth = max(1, int(np.ceil(EDGE_MM / spacing)))
        along = np.moveaxis(labels, axis, 0)
        yield from (along[:depth], along[-depth:])

"""Volumes of the segmented structures, as measurements; what touches the edge of the scan is marked as incomplete."""

from __future__ import annotations

import numpy as np

from cardiac_ct_fm.components import label_extents
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
        extents = label_extents(labels)
        margin = np.maximum(1, np.ceil(EDGE_MM / np.array(prediction.grid.spacing))).astype(int)
        for value, structure in enumerate(prediction.classes[head], start=1):
            name = f"{structure}_volume_ml"
            if value not in extents:
                found[name] = Measurement(name, None, "mL", "not_found")
                continue
            own = extents[value]
            cut = (own.first < margin).any() or (own.last >= np.array(labels.shape) - margin).any()
            volume = own.voxels * prediction.grid.voxel_mm3 / MM3_PER_ML
            found[name] = Measurement(name, volume, "mL", "truncated" if cut else "ok")
    return found

"""Volumes of the segmented structures, as measurements; what touches the edge of the scan is marked as incomplete."""

from __future__ import annotations

import numpy as np

from cardiac_ct_fm.components import labels_at_edge, voxel_counts
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
        counts = voxel_counts(labels)
        margins = [max(1, int(np.ceil(EDGE_MM / spacing))) for spacing in prediction.grid.spacing]
        cut = labels_at_edge(labels, margins)
        for value, structure in enumerate(prediction.classes[head], start=1):
            name = f"{structure}_volume_ml"
            if not counts[value]:
                found[name] = Measurement(name, None, "mL", "not_found")
                continue
            volume = float(counts[value]) * prediction.grid.voxel_mm3 / MM3_PER_ML
            found[name] = Measurement(name, volume, "mL", "truncated" if value in cut else "ok")
    return found

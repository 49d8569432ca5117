"""Volumes of the segmented structures, as measurements, and which structures go on beyond what the scan shows."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cardiac_ct_fm.components import Box, LabelMap, labels_at_edge, occupied_box, voxel_counts
from cardiac_ct_fm.image_checks import PADDING_HU
from cardiac_ct_fm.result import Measurement, Prediction
from cardiac_ct_fm.volume_io import Volume

MM3_PER_ML = 1000.0

EDGE_MM = 2.0
"""A structure that comes closer than this to the edge of what the scan shows goes on beyond it: one voxel of the look
that finds chambers."""


def structure_volumes(prediction: Prediction) -> dict[str, Measurement]:
    """``LV_volume_ml`` and so on for every class of every label map.

    Returns:
        Name → measurement in mL. A structure that was not found has status ``not_found``, a reason and no value; one
        that reaches the edge of the scan has the volume that can be seen and status ``truncated``.
    """
    found: dict[str, Measurement] = {}
    for head, labels in prediction.label_maps.items():
        counts, cut = _seen(labels, prediction.volume)
        for value, structure in enumerate(prediction.classes[head], start=1):
            name = f"{structure}_volume_ml"
            if not counts[value]:
                why = {"reason": "no_label", "message": f"The head {head} marked none."}
                found[name] = Measurement(name, None, "mL", "not_found", details=why)
                continue
            volume = float(counts[value]) * prediction.grid.voxel_mm3 / MM3_PER_ML
            found[name] = Measurement(name, volume, "mL", "truncated" if value in cut else "ok")
    return found


def cut_off(prediction: Prediction) -> list[str]:
    """A sentence for every heart structure that was not found or goes on beyond what the scan shows."""
    if "heart" not in prediction.label_maps:
        return []
    counts, beyond = _seen(prediction.label_maps["heart"], prediction.volume)
    cut = []
    for value, name in enumerate(prediction.classes["heart"], start=1):
        if not counts[value]:
            cut.append(f"{name} was not found.")
        elif value in beyond:
            cut.append(f"{name} is cut off by the edge of the scan; its volume and what lies there are incomplete.")
    return cut


def _seen(labels: LabelMap, volume: Volume) -> tuple[npt.NDArray[np.int64], set[int]]:
    """How many voxels carry each value, and :func:`labels_cut_off`."""
    box = occupied_box(labels)
    return voxel_counts(labels, box), labels_cut_off(labels, volume, box)


def labels_cut_off(labels: LabelMap, volume: Volume, box: Box | None = None) -> set[int]:
    """Values that come closer than :data:`EDGE_MM` to a face of the scan or to padding in it.

    Padding (:data:`~cardiac_ct_fm.image_checks.PADDING_HU` and less) is what was not reconstructed. A scan that is
    padded with the value of air shows only its faces.

    Args:
        labels: (X, Y, Z) on the scan's grid.
        volume: the scan.
        box: :func:`~cardiac_ct_fm.components.occupied_box` of the labels, where it is known.
    """
    box = box or occupied_box(labels)
    if box is None:
        return set()
    margins = [max(1, math.ceil(EDGE_MM / spacing)) for spacing in volume.grid.spacing]
    found = labels_at_edge(labels, margins, box)
    around = tuple(slice(max(0, s.start - m), s.stop + m) for s, m in zip(box, margins, strict=True))
    near = volume.data[around] <= PADDING_HU
    if not near.any():
        return found
    for axis, margin in enumerate(margins):
        near = ndimage.maximum_filter1d(near, 2 * margin + 1, axis, mode="constant")
    return found | set(np.flatnonzero(np.bincount(labels[around][near], minlength=1)).tolist()) - {0}

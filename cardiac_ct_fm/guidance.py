"""What one look tells the next: where the root lies, and where the chambers."""

from __future__ import annotations

import cc3d
import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

from cardiac_ct_fm.anatomy import HEADS, HEART_LABELS, HINGE_POINTS
from cardiac_ct_fm.components import largest_regions
from cardiac_ct_fm.decode import decode_landmarks
from cardiac_ct_fm.geometry import FloatArray, Grid
from cardiac_ct_fm.label_resampling import resample_label_map
from cardiac_ct_fm.looks import Answer
from cardiac_ct_fm.result import LabelMap

CHAMBERS: tuple[str, ...] = ("Myo", "LA", "LV", "RA", "RV")

ROOT_ABOVE_MM = 4.0
"""The root look is centred this far above the middle of the hinge points, as in training: ostia lie above them."""

SURE = 0.25
"""Confidence from which a hinge point of a coarser look may say where the root is."""

NEAR_BOUNDARY_MM = 25.0
"""Hinge points whose middle lies further than this from the boundary of LV and aorta are not believed: the annulus
*is* that boundary, and no annulus is wider than 40 mm."""

STRAY_PERCENT = 0.2
"""Share of the chambers' voxels, on each side of each axis, that may lie beyond the box around them: stray ones."""

AROUND_MM = 12.0
"""Room around that box: coronary arteries run on the chambers, at most a fat layer and a lumen away from them."""

TREE_MM = 15.0
"""Coronary arteries lie no further than this from chambers and muscle (at most 14.3 mm in 6 digital patients); vessels
further away are none."""


def root_centre(seen: Answer, boundary: FloatArray | None) -> FloatArray:
    """Where the root look belongs, RAS mm: just above the hinge points, or the boundary of LV and aorta.

    Args:
        seen: an answer with logits of ``heart`` and, where the model has it, ``hps``.
        boundary: where :func:`root_boundary` sees it in the heart look, which shows the chambers whole.
    """
    above = np.array([0.0, 0.0, ROOT_ABOVE_MM])
    if "hps" in seen.logits:
        points = decode_landmarks(seen.logits["hps"], seen.grid, HEADS["hps"].classes, boundary)
        at = [points[k].ras_mm for k in HINGE_POINTS if points[k].found and points[k].confidence >= SURE]
        if len(at) >= 2:
            middle: FloatArray = np.mean(np.array(at, dtype=np.float64), axis=0)
            if boundary is None or np.linalg.norm(middle - boundary) <= NEAR_BOUNDARY_MM:
                return np.asarray(middle + above)
    if boundary is not None:
        return np.asarray(boundary + above)
    heart = (seen.logits["heart"].argmax(0) > 0).nonzero().double()
    if not len(heart):
        return seen.grid.centre_ras
    centre: FloatArray = seen.grid.world(heart.mean(0).numpy())
    return centre


def root_boundary(seen: Answer) -> FloatArray | None:
    """Middle of the voxels of the aorta that touch the left ventricle, RAS mm; None where they do not touch.

    Of the ventricle the largest part counts, of the aorta the largest that touches it: streaks of contrast can pass for
    a second root, and a descending aorta is an aorta too.

    Args:
        seen: an answer with logits of ``heart``.
    """
    labels = seen.logits["heart"].argmax(0).cpu().numpy()
    ventricle = largest_regions((labels == HEART_LABELS["LV"]).astype(np.uint8))
    beside = F.max_pool3d(torch.from_numpy(ventricle).float()[None, None], 3, 1, 1)[0, 0].numpy() > 0
    regions = np.asarray(cc3d.connected_components(labels == HEART_LABELS["Aorta"], connectivity=6))
    touching = regions * beside
    own = np.unique(touching[touching > 0])
    if not len(own):
        return None
    sizes = np.bincount(regions.ravel())
    where = np.argwhere(touching == own[sizes[own].argmax()])
    middle: FloatArray = seen.grid.world(np.median(where, axis=0))
    return middle


def chambers_box(seen: Answer) -> tuple[FloatArray, FloatArray] | None:
    """Middle (RAS mm) and size (mm) of the box around chambers and muscle with room for what runs on them.

    Args:
        seen: an answer with logits of ``heart``.

    Returns:
        None where there are none.
    """
    chambers = torch.tensor([HEART_LABELS[c] for c in CHAMBERS])
    voxels = torch.isin(seen.logits["heart"].argmax(0), chambers).nonzero().double().numpy()
    if not len(voxels):
        return None
    where = seen.grid.world(voxels)
    low, high = np.percentile(where, STRAY_PERCENT, axis=0), np.percentile(where, 100 - STRAY_PERCENT, axis=0)
    return (low + high) / 2, high - low + 2 * AROUND_MM


def near_chambers(labels: LabelMap, grid: Grid, seen: Answer) -> LabelMap:
    """What of a thin tree's labels lies within :data:`TREE_MM` of chambers or muscle; all of it where there are none.

    Args:
        labels: (X, Y, Z) uint8 on ``grid``.
        grid: their lattice.
        seen: the heart look, with logits of ``heart``.
    """
    values = [HEART_LABELS[c] for c in CHAMBERS]
    chambers = largest_regions(np.isin(seen.logits["heart"].argmax(0).cpu().numpy(), values).astype(np.uint8)) > 0
    if not chambers.any():
        return labels
    near = ndimage.distance_transform_edt(~chambers, sampling=seen.grid.spacing) <= TREE_MM
    return labels * resample_label_map(near.astype(np.uint8), seen.grid, grid)

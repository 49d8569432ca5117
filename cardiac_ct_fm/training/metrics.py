"""How one prediction is scored against one reference: points, the annulus plane, label maps, thin trees.

Conventions of the field, with failures kept: a point that was not found has no error and counts as a failure in every
rate; a structure that was not found has Dice 0. What cannot be asked (a point or structure that the scan does not
show) is not scored, but inventing it is noted. How scores are pooled over patients lives in ``statistics``.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from cardiac_ct_fm.anatomy import HEADS, HINGE_POINTS
from cardiac_ct_fm.errors import DataError, MissingExtraError
from cardiac_ct_fm.geometry import FloatArray
from cardiac_ct_fm.landmark_io import Landmark

Status = Literal["ok", "missed", "invented", "absent"]
"""``ok``: both have it. ``missed``: only the reference. ``invented``: only the prediction. ``absent``: neither."""

Mask = npt.NDArray[np.bool_]

NSD_TOLERANCE_MM = 1.0
"""Tolerance of the normalised surface Dice: about the spacing of the finest look."""

HAUSDORFF_PERCENTILE = 95.0
"""HD95: the percentile of surface distances that outliers of a few voxels do not reach."""


@dataclass(frozen=True)
class Score:
    """One measured value of one case.

    Attributes:
        head: head that was scored.
        structure: class, or ``annulus``.
        measure: ``error_mm``, ``dice``, ``nsd``, ``hd95_mm``, ….
        value: the number; None where there is none (``missed`` distances, ``absent`` structures).
        unit: code of :data:`cardiac_ct_fm.anatomy.UNITS`.
        status: see :data:`Status`.
        confidence: of the point (landmarks only).
        swapped: whether the point lies nearer to another point of its head than to its own (landmarks only).
    """

    head: str
    structure: str
    measure: str
    value: float | None
    unit: str
    status: Status
    confidence: float | None = None
    swapped: bool | None = None


def landmark_scores(
    head: str, names: Sequence[str], reference: Mapping[str, Landmark], predicted: Mapping[str, Landmark]
) -> list[Score]:
    """Distance of every point to its reference.

    Args:
        head: name of the head.
        names: its points.
        reference: points of the reference; one that is not found there is not shown by the scan.
        predicted: points of the prediction; one that is not listed counts as not found.

    Returns:
        One ``error_mm`` per name.

    Raises:
        DataError: the reference does not list a name.
    """
    unlisted = [name for name in names if name not in reference]
    if unlisted:
        raise DataError(
            f"The reference lists no {', '.join(unlisted)}; list points that the scan does not show as not found."
        )
    shown = {name: np.array(reference[name].ras_mm) for name in names if reference[name].ras_mm is not None}
    scores = []
    for name in names:
        point = predicted.get(name, Landmark.missing(name))
        if point.ras_mm is None or name not in shown:
            status: Status = "missed" if name in shown else "absent" if point.ras_mm is None else "invented"
            scores.append(Score(head, name, "error_mm", None, "mm", status, point.confidence))
            continue
        away = {other: float(np.linalg.norm(np.array(point.ras_mm) - at)) for other, at in shown.items()}
        nearest = min(away, key=lambda other: away[other])
        scores.append(Score(head, name, "error_mm", away[name], "mm", "ok", point.confidence, nearest != name))
    return scores


def plane_scores(reference: Mapping[str, Landmark], predicted: Mapping[str, Landmark]) -> list[Score]:
    """The annulus as three hinge points give it: angle and offset of its plane, centre and diameter of its circle.

    The angle lies in 0…90° (a plane has no front; swapped names are counted on their own). The offset is the distance
    of the predicted points' mean from the reference plane, the centre's distance is that of the circles' centres.

    Returns:
        Four scores of the structure ``annulus``; without three points in the reference none, without three predicted
        ones all are ``missed``.
    """
    measures = (
        ("plane_angle_deg", "deg"),
        ("plane_offset_mm", "mm"),
        ("circle_centre_mm", "mm"),
        ("circle_diameter_error_mm", "mm"),
    )
    true, mine = _hinges(reference), _hinges(predicted)
    if true is None:
        return []
    geometry = None if mine is None else _circle(mine)
    real = _circle(true)
    if real is None:
        raise DataError("The reference's hinge points lie on one line; they span no annulus. Check the landmark file.")
    if mine is None or geometry is None:
        return [Score("hps", "annulus", name, None, unit, "missed") for name, unit in measures]
    normal, centre, diameter = real
    angle = float(np.degrees(np.arccos(np.clip(abs(normal @ geometry[0]), 0, 1))))
    offset = abs(float((mine.mean(0) - true.mean(0)) @ normal))
    values = (angle, offset, float(np.linalg.norm(geometry[1] - centre)), geometry[2] - diameter)
    return [Score("hps", "annulus", name, v, unit, "ok") for (name, unit), v in zip(measures, values, strict=True)]


def _hinges(points: Mapping[str, Landmark]) -> FloatArray | None:
    """(3, 3) hinge points in RAS mm, or None where one is missing."""
    at = [points[name].ras_mm for name in HINGE_POINTS if name in points]
    found = [p for p in at if p is not None]
    return np.array(found, dtype=np.float64) if len(found) == len(HINGE_POINTS) else None


def _circle(points: FloatArray) -> tuple[FloatArray, FloatArray, float] | None:
    """Unit normal, centre (3,) and diameter of the circle through three points, or None where they are in line."""
    a, b = points[1] - points[0], points[2] - points[0]
    normal = np.cross(a, b)
    area = float(np.linalg.norm(normal))
    if area < 1e-6 * float(np.linalg.norm(a) * np.linalg.norm(b)) or area == 0:
        return None
    towards = (np.cross(normal, a) * (b @ b) + np.cross(b, normal) * (a @ a)) / (2 * area**2)
    return normal / area, points[0] + towards, 2 * float(np.linalg.norm(towards))


def segmentation_scores(
    head: str, structure: str, reference: Mask, predicted: Mask, spacing: Sequence[float], *, thin: bool = False
) -> list[Score]:
    """Dice, surface Dice (1 mm), HD95 and volume of one structure; clDice where it is a thin tree.

    On empty masks: both empty → ``absent``, no value but the volumes (0). Only the prediction empty → ``missed``, only
    the reference empty → ``invented``: Dice, surface Dice and clDice are 0, HD95 has no value.

    Args:
        head: name of the head.
        structure: name of the class.
        reference: (X, Y, Z) boolean.
        predicted: (X, Y, Z) boolean on the same grid.
        spacing: voxel size in mm along each axis (orthogonal axes).
        thin: also measure clDice.

    Raises:
        DataError: the shapes differ.
        MissingExtraError: ``thin`` needs scikit-image.
    """
    if reference.shape != predicted.shape:
        raise DataError(f"Reference {reference.shape} and prediction {predicted.shape} of {structure} differ in shape.")
    voxel = float(np.prod(spacing))
    volumes = (float(reference.sum()) * voxel, float(predicted.sum()) * voxel)
    status: Status = "ok"
    if not (volumes[0] and volumes[1]):
        status = "missed" if volumes[0] else "invented" if volumes[1] else "absent"
    shares = ["dice", "nsd", *(["cldice"] if thin else [])]
    values: dict[str, float | None] = dict.fromkeys(shares, None if status == "absent" else 0.0) | {"hd95_mm": None}
    if status == "ok":
        box = _box(reference | predicted)
        ours, theirs = predicted[box], reference[box]
        values["dice"] = dice(ours, theirs)
        values["nsd"], values["hd95_mm"] = surface_scores(ours, theirs, spacing)
        if thin:
            values["cldice"] = cldice(ours, theirs)
    values |= {"volume_mm3": volumes[1], "reference_volume_mm3": volumes[0]}
    units = {"hd95_mm": "mm", "volume_mm3": "mm3", "reference_volume_mm3": "mm3"}
    return [Score(head, structure, name, value, units.get(name, "ratio"), status) for name, value in values.items()]


def dice(a: Mask, b: Mask) -> float:
    """``2·|a∩b| / (|a|+|b|)`` of two masks that are not both empty."""
    return 2 * float(np.count_nonzero(a & b)) / float(np.count_nonzero(a) + np.count_nonzero(b))


def surface_scores(a: Mask, b: Mask, spacing: Sequence[float]) -> tuple[float, float]:
    """Surface Dice at :data:`NSD_TOLERANCE_MM` and HD95 in mm, symmetric, by MONAI.

    Args:
        a: (X, Y, Z), not empty.
        b: the same shape, not empty.
        spacing: voxel size in mm.
    """
    import torch
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice

    pad = [(1, 1)] * 3
    one, two = (torch.from_numpy(np.pad(m, pad))[None, None] for m in (a, b))
    voxel = tuple(float(s) for s in spacing)
    tolerance = [NSD_TOLERANCE_MM]
    whole = {"include_background": True, "spacing": voxel}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI 1.6 calls its own deprecated argument
        nsd = compute_surface_dice(one, two, tolerance, use_subvoxels=True, **whole)
        hd = compute_hausdorff_distance(one, two, percentile=HAUSDORFF_PERCENTILE, **whole)
    return float(nsd), float(hd)


def cldice(predicted: Mask, reference: Mask) -> float:
    """Centreline Dice of two masks that are not empty: does each hold the other's centreline? (Shit et al. 2021, CVPR).

    Raises:
        MissingExtraError: scikit-image is not installed.
    """
    try:
        from skimage.morphology import skeletonize
    except ImportError as error:
        raise MissingExtraError("clDice (the skeleton of a mask)", "train") from error
    ours, theirs = (skeletonize(np.pad(m, 1))[1:-1, 1:-1, 1:-1] for m in (predicted, reference))
    precision = float(np.count_nonzero(ours & reference)) / max(float(np.count_nonzero(ours)), 1.0)
    sensitivity = float(np.count_nonzero(theirs & predicted)) / max(float(np.count_nonzero(theirs)), 1.0)
    return 2 * precision * sensitivity / (precision + sensitivity) if precision + sensitivity else 0.0


def is_thin(head: str) -> bool:
    """Whether a head's structures are thin trees, which clDice is for."""
    return head in HEADS and "coronar" in HEADS[head].title


def _box(mask: Mask) -> tuple[slice, ...]:
    """The box around a mask that is not empty."""
    used = [np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    return tuple(slice(int(u[0]), int(u[-1]) + 1) for u in used)

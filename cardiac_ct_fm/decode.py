"""From logits to answers: points with sub-voxel positions and a confidence, and clean label maps.

A point is the probability-weighted centre of a connected region, the largest that can belong to one root with the
other points; what is too faint or too small is reported as not found, under its own name. Nothing here knows the
scan; positions are world RAS mm of the look.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import cc3d
import numpy as np
import numpy.typing as npt
import torch

from cardiac_ct_fm.anatomy import FURTHEST_FROM_BOUNDARY_MM, FURTHEST_MM
from cardiac_ct_fm.components import largest_regions
from cardiac_ct_fm.geometry import FloatArray, Grid
from cardiac_ct_fm.landmark_io import Landmark

SPHERE_RADIUS_MM = 4.0
"""Radius of the spheres that landmarks are learned as (the paper's research code)."""

SPHERE_MM3 = 4 / 3 * math.pi * SPHERE_RADIUS_MM**3

REGION_SHARE = 0.4
"""A point's region holds the voxels with at least this share of its highest probability (a choice of this project)."""

MIN_PEAK = 0.3
"""Highest probability below which a point counts as not found.

With five or two classes beside the background, a class can win a voxel from 1/6 or 1/3 on; below 0.3 the network
prefers another answer nearly everywhere.
"""

MIN_MASS = 0.15
"""Probability mass, as a share of the sphere's volume, below which a point counts as not found (a choice of
this project)."""


PLACES = 3
"""At most so many regions of a point are weighed against each other."""


def decode_landmarks(
    logits: torch.Tensor, grid: Grid, names: Sequence[str], boundary_ras: FloatArray | None = None
) -> dict[str, Landmark]:
    """Points of one landmark head.

    Where a class lights up in several places, the places are chosen that can belong to one root
    (:data:`~cardiac_ct_fm.anatomy.FURTHEST_MM`) with the highest confidence in all; a point with no such place is not
    found.

    Args:
        logits: (C, X, Y, Z) with C = 1 + len(names), background first.
        grid: the look's lattice.
        names: class names in channel order.
        boundary_ras: middle of the boundary between left ventricle and aorta, RAS mm, where it is known: points of the
            root are sought only as far from it as :data:`~cardiac_ct_fm.anatomy.FURTHEST_FROM_BOUNDARY_MM`.

    Returns:
        Every name, found or not. The confidence is the mean probability of the region times the share of the
        learned sphere that it fills (at most 1).
    """
    probability = logits.float().softmax(0).cpu().numpy()
    if boundary_ras is not None:
        away = np.linalg.norm(grid.points() - np.asarray(boundary_ras, np.float32), axis=-1)
        for i, name in enumerate(names):
            probability[i + 1][away > FURTHEST_FROM_BOUNDARY_MM.get(name, math.inf)] = 0.0
    places = [_places(probability[i + 1], grid, name) for i, name in enumerate(names)]
    return {point.name: point for point in _one_root(places, [Landmark(name, False, None, 0.0) for name in names])}


def _places(probability: npt.NDArray[np.float32], grid: Grid, name: str) -> list[Landmark]:
    """Where one point may be, by its probability map (X, Y, Z): the regions with the largest mass, largest first."""
    peak = float(probability.max())
    if peak < MIN_PEAK:
        return []
    regions, count = cc3d.connected_components(probability >= REGION_SHARE * peak, return_N=True)
    mass = np.bincount(regions.ravel(), weights=probability.ravel(), minlength=count + 1) * grid.voxel_mm3
    found = []
    for region in np.argsort(-mass[1:])[:PLACES] + 1:
        inside = np.argwhere(regions == region)
        weight = probability[tuple(inside.T)].astype(np.float64)
        filled = float(weight.sum()) * grid.voxel_mm3 / SPHERE_MM3
        if filled < MIN_MASS:
            break
        x, y, z = (float(v) for v in grid.world((inside * weight[:, None]).sum(0) / weight.sum()))
        found.append(Landmark(name, True, (x, y, z), min(1.0, float(weight.mean()) * min(1.0, filled))))
    return found


def _one_root(places: list[list[Landmark]], missing: list[Landmark]) -> list[Landmark]:
    """Of each point's places the one that fits the others, so that the sum of the confidences is the largest."""
    limited = {name for pair in FURTHEST_MM for name in pair}
    choices = [
        [*own, none] if none.name in limited else [own[0] if own else none]
        for own, none in zip(places, missing, strict=True)
    ]
    best, total = missing, -1.0
    for chosen in itertools.product(*choices):
        confidence = sum(point.confidence for point in chosen)
        if confidence > total and all(fit(a, b) for a, b in itertools.combinations(chosen, 2)):
            best, total = list(chosen), confidence
    return best


def fit(a: Landmark, b: Landmark) -> bool:
    """Whether two points can belong to one root: a point always fits itself, and one that was not found."""
    if a.ras_mm is None or b.ras_mm is None:
        return True
    return math.dist(a.ras_mm, b.ras_mm) <= FURTHEST_MM.get(frozenset((a.name, b.name)), math.inf)


def within(points: dict[str, Landmark], grid: Grid) -> dict[str, Landmark]:
    """The same points; those outside of a lattice are not found."""
    return {
        name: point
        if point.ras_mm is None or bool(grid.contains(np.array(point.ras_mm)))
        else Landmark(name, False, None, 0.0)
        for name, point in points.items()
    }


def largest_components(labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Keep the largest connected region (6-neighbourhood) of every label; the rest becomes background.

    Args:
        labels: (X, Y, Z) uint8; changed in place, so that a scan's label map is held once.

    Returns:
        ``labels``.
    """
    return largest_regions(labels, in_place=True)

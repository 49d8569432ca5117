"""From logits to answers: points with sub-voxel positions and a confidence, and clean label maps.

A point is the probability-weighted centre of its largest connected region; what is too faint or too small is
reported as not found, under its own name. Nothing here knows the scan; positions are world RAS mm of the look.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cc3d
import numpy as np
import numpy.typing as npt
import torch

from cardiac_ct_fm.geometry import Grid
from cardiac_ct_fm.landmark_io import Landmark

SPHERE_RADIUS_MM = 4.0
"""Radius of the spheres that landmarks are learned as (the paper's research code)."""

SPHERE_MM3 = 4 / 3 * math.pi * SPHERE_RADIUS_MM**3

REGION_SHARE = 0.4
"""A point's region holds the voxels with at least this share of its highest probability."""

MIN_PEAK = 0.3
"""Highest probability below which a point counts as not found.

With five or two classes beside the background, a class can win a voxel from 1/6 or 1/3 on; below 0.3 the network
prefers another answer nearly everywhere.
"""

MIN_MASS = 0.15
"""Probability mass, as a share of the sphere's volume, below which a point counts as not found."""


def decode_landmarks(logits: torch.Tensor, grid: Grid, names: Sequence[str]) -> dict[str, Landmark]:
    """Points of one landmark head.

    Args:
        logits: (C, X, Y, Z) with C = 1 + len(names), background first.
        grid: the look's lattice.
        names: class names in channel order.

    Returns:
        Every name, found or not. The confidence is the mean probability of the region times the share of the
        learned sphere that it fills (at most 1).
    """
    probability = logits.float().softmax(0).cpu().numpy()
    return {name: _decode(probability[i + 1], grid, name) for i, name in enumerate(names)}


def _decode(probability: npt.NDArray[np.float32], grid: Grid, name: str) -> Landmark:
    """One point from its probability map (X, Y, Z)."""
    missing = Landmark(name, False, None, 0.0)
    peak = float(probability.max())
    if peak < MIN_PEAK:
        return missing
    regions, count = cc3d.connected_components(probability >= REGION_SHARE * peak, return_N=True)
    mass = np.bincount(regions.ravel(), weights=probability.ravel(), minlength=count + 1)
    best = int(mass[1:].argmax()) + 1
    inside = np.argwhere(regions == best)
    weight = probability[tuple(inside.T)].astype(np.float64)
    filled = float(weight.sum()) * grid.voxel_mm3 / SPHERE_MM3
    if filled < MIN_MASS:
        return missing
    centre = grid.world((inside * weight[:, None]).sum(0) / weight.sum())
    confidence = float(weight.mean()) * min(1.0, filled)
    x, y, z = (float(v) for v in centre)
    return Landmark(name, True, (x, y, z), min(1.0, confidence))


def largest_components(labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Keep the largest connected region (6-neighbourhood) of every label; the rest becomes background.

    Args:
        labels: (X, Y, Z) uint8.
    """
    regions, count = cc3d.connected_components(labels, connectivity=6, return_N=True)
    if count == 0:
        return labels
    size = np.bincount(regions.ravel(), minlength=count + 1)
    first = np.zeros(count + 1, np.uint8)
    first[regions.ravel()] = labels.ravel()
    keep = np.zeros(count + 1, bool)
    for value in np.unique(first[1:]):
        if value:
            own = np.flatnonzero(first == value)
            keep[own[size[own].argmax()]] = True
    return np.where(keep[regions], labels, np.uint8(0))

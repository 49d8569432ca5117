"""Which sinus of Valsalva a voxel of the root belongs to: a label for training alone, dropped before publishing.

Three spheres of 4 mm say little about where the leaflets are attached, and a network may place them by the chambers
instead (``turned_roots``). This label fills the root with the same knowledge: every voxel of blood above the leaflets
names its cusp, so each sinus ends below where its leaflet does, down to its hinge point, and beside the commissures.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cardiac_ct_fm.anatomy import HEART_LABELS, HINGE_POINTS
from cardiac_ct_fm.cohort.case import Case
from cardiac_ct_fm.cohort.raster import double, half_grid
from cardiac_ct_fm.cohort.render import Look
from cardiac_ct_fm.cohort.valve import above_leaflets

HEAD = "sinuses"
"""Name of the head that learns it; its classes are named after the hinge points."""

HIGH_MM = 16.0
"""Height above the annulus up to which the sinuses are labelled: most of them (they end at 1.7 annulus radii, about
20 mm, ``cohort/patient.py``). A choice of this project."""


def sinus_labels(case: Case, centre: Tensor, spacing_mm: float, look: Look) -> Tensor:
    """Label map (X, Y, Z) uint8: 1, 2, 3 for the cusps of ``HINGE_POINTS``, by the nearest azimuth; else 0.

    Args:
        case: the patient.
        centre: middle of the look, body mm (3,).
        spacing_mm: its voxel size.
        look: its labels.
    """
    heart, shape = case.heart, tuple(look.seen.shape)
    points = half_grid(case.grid(centre, spacing_mm, (shape[0], shape[1], shape[2])))
    q = double(heart.warp.to_template(points).permute(3, 0, 1, 2), shape).reshape(3, -1).T
    local = heart.local(q)
    blood = ((look.heart == HEART_LABELS["Aorta"]) | (look.heart == HEART_LABELS["LV"])) & look.seen
    inside = (blood.reshape(-1) & (local[:, 2] <= HIGH_MM * heart.shape.scale)).nonzero()[:, 0]
    azimuth, radius, height = heart.shape.polar(local[inside])
    near = (radius <= heart.shape.lumen_radius(azimuth, height)) & above_leaflets(heart.shape, local[inside])
    inside, azimuth = inside[near], azimuth[near]
    cusps = torch.tensor([heart.patient.root.cusp_deg[name] for name in HINGE_POINTS], device=azimuth.device)
    away = ((azimuth[:, None] - cusps + 180) % 360 - 180).abs()
    label = torch.zeros(look.heart.numel(), dtype=torch.uint8, device=azimuth.device)
    label[inside] = (away.argmin(1) + 1).to(torch.uint8)
    return label.reshape(shape)

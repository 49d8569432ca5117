"""Which sinus of Valsalva a voxel of the root belongs to: a label for training alone, dropped before publishing.

Three spheres of 4 mm say little about how the cusps are turned, and a network may place them by the chambers instead of
the leaflets (``turned_roots``). This label fills the root with the same knowledge: every voxel names its cusp.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cardiac_ct_fm.anatomy import HEART_LABELS, HINGE_POINTS, OSTIA
from cardiac_ct_fm.cohort.case import Case
from cardiac_ct_fm.cohort.render import Look

HEAD = "sinuses"
"""Name of the head that learns it; its classes are named after the hinge points."""

LOW_MM, HIGH_MM, RADIUS_MM = -2.0, 16.0, 24.0
"""Heights above the plane of the hinge points and distance from their axis that are labelled: most of the sinuses
(they end at 1.7 annulus radii, about 20 mm, ``cohort/patient.py``). A choice of this project."""


def sinus_labels(case: Case, centre: Tensor, spacing_mm: float, look: Look) -> Tensor:
    """Label map (X, Y, Z) uint8: 1, 2, 3 for the cusps of ``HINGE_POINTS``, by the nearest direction; else 0.

    Args:
        case: the patient.
        centre: middle of the look, body mm (3,).
        spacing_mm: its voxel size.
        look: its labels.
    """
    shape = tuple(look.seen.shape)
    points = case.grid(centre, spacing_mm, (shape[0], shape[1], shape[2]))
    hinges = torch.stack([case.heart.landmarks[k] for k in HINGE_POINTS]).to(points)
    ostia = torch.stack([case.heart.landmarks[k] for k in OSTIA]).to(points)
    middle = hinges.mean(0)
    up = torch.linalg.cross(hinges[1] - hinges[0], hinges[2] - hinges[0])
    up = up / up.norm() * torch.sign((ostia.mean(0) - middle) @ up)
    height = (points - middle) @ up
    flat = points - middle - height[..., None] * up
    rays = hinges - middle
    cusp = (flat @ (rays / rays.norm(dim=1, keepdim=True)).T).argmax(-1) + 1
    blood = (look.heart == HEART_LABELS["Aorta"]) | (look.heart == HEART_LABELS["LV"])
    inside = (height >= LOW_MM) & (height <= HIGH_MM) & (flat.norm(dim=-1) <= RADIUS_MM) & blood & look.seen
    return torch.where(inside, cusp, torch.zeros_like(cusp)).to(torch.uint8)

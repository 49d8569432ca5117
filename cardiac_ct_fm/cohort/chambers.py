"""How chambers get a patient's volumes, and how they meet: at the valves, and beside the left outflow tract.

Signed distances are in template mm, positive inside, one row per structure in the order of the heart label.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cardiac_ct_fm.anatomy import HEADS
from cardiac_ct_fm.cohort.patient import Patient
from cardiac_ct_fm.cohort.root import RootShape, smooth
from cardiac_ct_fm.cohort.templates import Template

MYO, LA, LV, RA, RV, AORTA, PA = range(7)
NAMES: tuple[str, ...] = HEADS["heart"].classes

CURTAIN_Z_MM: tuple[float, float] = (-24.0, 6.0)
CURTAIN_REACH_MM = 10.0
"""Heights from the annulus, and distance, over which the left atrium comes up to the outflow tract. Neither muscle nor
fat lies between them, only the mitral valve's anterior leaflet (Anderson 2000, Heart 84:670). The extent is chosen by
eye."""

LEAFLET_MM = 0.8
"""Half of what lies between outflow tract and left or right heart, below the annulus; chosen by eye."""

VALVE_GAP_MM, WALL_MM = 5.0, 2.0
"""Atrium and ventricle meet where both are no further away than this and every other structure is further than a wall.
Growing and shrinking to a patient's volumes opens gaps at the valves, which hearts do not have. Chosen by eye."""


def curtain(d: Tensor, outside: Tensor, height: Tensor, keep_off: Tensor, wall_mm: float) -> None:
    """Where the left atrium is near the outflow tract it lies at it, instead of fat or muscle.

    Args:
        d: (7, N) distances, changed in place.
        outside: (N,) mm outside of the outflow tract and root.
        height: (N,) mm above the annulus.
        keep_off: (N,) positive where a chamber beside the root may be.
        wall_mm: thickness of the atrium's wall.
    """
    low, high = CURTAIN_Z_MM
    grown = CURTAIN_REACH_MM * smooth((height - low) / 8) * smooth((high - height) / 8)
    beside = torch.minimum(torch.minimum(d[LA] + grown, keep_off), 2 * CURTAIN_REACH_MM - outside)
    d[LA] = torch.maximum(d[LA], beside)
    d[MYO] = torch.minimum(d[MYO], -beside - wall_mm)


def meet(d: Tensor) -> None:
    """Atria and ventricles grow until they touch where no muscle and only a narrow gap parts them: at their valves.

    Args:
        d: (7, N) signed distances, changed in place.
    """
    for atrium, ventricle in ((LA, LV), (RA, RV)):
        others = [k for k in range(len(NAMES)) if k not in (atrium, ventricle)]
        free = torch.minimum(torch.minimum(d[atrium], d[ventricle]) + VALVE_GAP_MM, -d[others].max(0).values - WALL_MM)
        gap = (free > 0).nonzero()[:, 0]
        one, two, free = d[atrium, gap], d[ventricle, gap], free[gap]
        half = (one - two) / 2
        d[atrium, gap] = torch.maximum(one, torch.minimum(half, free))
        d[ventricle, gap] = torch.maximum(two, torch.minimum(-half, free))


def solve_volumes(patient: Patient, template: Template, shape: RootShape, determinant: float) -> tuple[Tensor, float]:
    """Growth (7,) mm that gives the chambers the patient's volumes, and the growth of the epicardium.

    Newton steps on a 4 mm grid: the derivative of a volume by its growth is the surface area.

    Args:
        patient: his volumes.
        template: whose chambers grow.
        shape: his root, at which the left atrium grows too.
        determinant: of the map from his body to the template.
    """
    fields = template.fields[:, ::2, ::2, ::2]
    index = torch.stack(torch.meshgrid(*(torch.arange(n) for n in fields.shape[1:]), indexing="ij"), -1).reshape(-1, 3)
    local = (template.low + 2 * template.spacing_mm * index - template.root_origin) @ template.root_axes.T
    near = ((local[:, 2] - CURTAIN_Z_MM[0]) * (local[:, 2] - CURTAIN_Z_MM[1]) < 0).nonzero()[:, 0]
    near = near[local[near, :2].norm(dim=-1) < 3 * CURTAIN_REACH_MM]
    azimuth, radius, height = shape.polar(local[near])
    outside = radius - shape.lumen_radius(azimuth, height)
    voxel = (2 * template.spacing_mm) ** 3 / 1000
    offsets = torch.zeros(7)
    epicardium = 0.0
    goal = {k: v * determinant for k, v in patient.targets_ml.items()}
    for _ in range(6):
        d = fields + offsets[:, None, None, None]
        outer = torch.maximum(fields[MYO], fields[LV]) + epicardium
        d[MYO] = torch.minimum(torch.minimum(outer, -d[LV]), fields[MYO] + 5.0 + abs(epicardium))
        flat = d.reshape(7, -1)
        beside = flat[:, near]
        curtain(beside, outside, height, outside - LEAFLET_MM, patient.wall_atrium_mm * shape.scale)
        flat[:, near] = beside
        meet(flat)
        best = d.max(0)
        for k, name in ((LV, "LV"), (RV, "RV"), (LA, "LA"), (RA, "RA"), (MYO, "Myo")):
            own = (best.indices == k) & (best.values > 0)
            soft = ((d[k] / 4 + 0.5).clamp(0, 1) * (best.indices == k)).sum() * voxel
            area = float(((d[k].abs() < 2) & (best.indices == k)).sum()) * voxel / 4
            volume = float(own.sum()) * voxel * 0.5 + float(soft) * 0.5
            step = max(-1.5, min(1.5, (goal[name] - volume) / max(area, 1.0) * 0.5))
            if k == MYO:
                epicardium += step
            else:
                offsets[k] += step
    return offsets.clamp(-8, 8), max(-6.0, min(8.0, epicardium))

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

CURTAIN_Z_MM: tuple[float, float] = (-28.0, 6.0)
CURTAIN_FADE_MM: tuple[float, float] = (16.0, 8.0)
CURTAIN_REACH_MM = 8.0
"""Heights from the annulus over which the left atrium comes up to the outflow tract, the height over which it begins
and ends to do so (so that nothing ends in a plane), and how wide a gap of the template it closes. Neither muscle nor
fat lies between them, only the mitral valve's anterior leaflet (Anderson 2000, Heart 84:670). The extent is chosen by
eye."""

BESIDE_MM, BESIDE_FADE_MM = 20.0, 8.0
"""What lies further from the outflow tract's and root's wall is not beside them, and how that begins."""

LEAFLET_MM = 0.8
"""Half of what lies between outflow tract and left or right heart, below the annulus; chosen by eye."""

VALVE_GAP_MM, WALL_MM = 3.0, 2.0
"""Atrium and ventricle meet where the template's were no further apart than this, no muscle lies and other chambers and
vessels are further away than a wall. Growing and shrinking to a patient's volumes opens gaps at the valves, which
hearts do not have. The grooves beside the valves, where the coronary arteries lie, are wider. Chosen by eye."""

MUSCLE_EDGE_MM, BRIDGE_MM = 5.0, 1.0
"""How far muscle follows a shrunken cavity at the valves, and how deep it is at the least where it touched the cavity
of the template; chosen by eye."""

EPICARDIUM_MM: tuple[float, float] = (-3.0, 8.0)
"""Growth of the outer surface. Walls of the templates (measured: median 9 to 10 mm, a quarter below 7 to 8 mm) would
not get thinner if it shrank more."""


def muscle(raw: Tensor, cavity: Tensor, epicardium: float) -> Tensor:
    """The left ventricle's muscle, from a cavity that grew or shrank to an epicardium that did, without a gap.

    Args:
        raw: (7, …) signed distances of the template. Muscle and cavity are both at 0 where they touch.
        cavity: (…) the patient's left ventricle.
        epicardium: growth of the outer surface.
    """
    whole = torch.maximum(raw[MYO], raw[LV]) + epicardium
    touch = torch.minimum(raw[MYO], raw[LV]) + BRIDGE_MM + max(-epicardium, 0.0)
    edge = raw[MYO] + MUSCLE_EDGE_MM + abs(epicardium)
    return torch.minimum(torch.minimum(torch.maximum(whole, touch), -cavity), edge)


def curtain(
    d: Tensor, raw: Tensor, outside: Tensor, radial: Tensor, height: Tensor, keep_off: Tensor, wall_mm: float
) -> Tensor:
    """Where the template's left atrium is near the outflow tract his lies at it, instead of fat or muscle.

    Args:
        d: (7, N) distances, changed in place.
        raw: (N,) the template's, of the left atrium.
        outside: (N,) mm outside of left ventricle, outflow tract and root.
        radial: (N,) mm outside of the tube of outflow tract and root.
        height: (N,) mm above the annulus.
        keep_off: (N,) positive where a chamber beside the root may be.
        wall_mm: thickness of the atrium's wall.

    Returns:
        (N,) mm by which left atrium and ventricle need not meet here: they would spoil the root's own outline.
    """
    beside = smooth((height - CURTAIN_Z_MM[0]) / CURTAIN_FADE_MM[0]) * smooth((BESIDE_MM - radial) / BESIDE_FADE_MM)
    near = beside * smooth((CURTAIN_Z_MM[1] - height) / CURTAIN_FADE_MM[1])
    grown = d[LA] + near * (raw - d[LA] + CURTAIN_REACH_MM)
    filled = torch.minimum(grown - outside.clamp_min(0), keep_off)
    d[LA] = torch.maximum(d[LA], filled)
    d[MYO] = torch.minimum(d[MYO], -filled - wall_mm)
    return VALVE_GAP_MM * beside


def meet(d: Tensor, raw: Tensor, near: Tensor, apart: Tensor) -> None:
    """Atria and ventricles grow until they touch where those of the template do: at their valves.

    Args:
        d: (7, N) signed distances, changed in place.
        raw: (7, N) the template's.
        near: (M,) indices of points near the root.
        apart: (M,) mm by which left atrium and ventricle stay apart there.
    """
    for atrium, ventricle in ((LA, LV), (RA, RV)):
        free = raw[atrium] + raw[ventricle] + VALVE_GAP_MM
        if ventricle == LV:
            free[near] -= apart
        gap = (free > 0).nonzero()[:, 0]
        there = d[:, gap]
        others = [k for k in range(len(NAMES)) if k not in (MYO, atrium, ventricle)]
        taken = torch.maximum(there[MYO], there[others].max(0).values + WALL_MM)
        free = torch.minimum(free[gap], -taken)
        empty = free > 0
        gap, one, two, free = gap[empty], there[atrium, empty], there[ventricle, empty], free[empty]
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
    near = near[local[near, :2].norm(dim=-1) < 2 * BESIDE_MM]
    azimuth, radius, height = shape.polar(local[near])
    radial = radius - shape.lumen_radius(azimuth, height)
    tube = smooth((height + 13) / 7)
    raw = fields.reshape(7, -1)
    voxel = (2 * template.spacing_mm) ** 3 / 1000
    offsets = torch.zeros(7)
    epicardium = 0.0
    goal = {k: v * determinant for k, v in patient.targets_ml.items()}
    for _ in range(6):
        d = fields + offsets[:, None, None, None]
        d[MYO] = muscle(fields, d[LV], epicardium)
        flat = d.reshape(7, -1)
        beside = flat[:, near]
        outside = tube * radial - (1 - tube) * torch.maximum(beside[LV], beside[AORTA])
        wall = patient.wall_atrium_mm * shape.scale
        apart = curtain(beside, raw[LA, near], outside, radial, height, outside - LEAFLET_MM, wall)
        flat[:, near] = beside
        meet(flat, raw, near, apart)
        best = d.max(0)
        for k, name in ((LV, "LV"), (RV, "RV"), (LA, "LA"), (RA, "RA"), (MYO, "Myo")):
            own = (best.indices == k) & (best.values > 0)
            soft = ((d[k] / 4 + 0.5).clamp(0, 1) * (best.indices == k)).sum() * voxel
            area = float(((d[k].abs() < 2) & (best.indices == k)).sum()) * voxel / 4
            volume = float(own.sum()) * voxel * 0.5 + float(soft) * 0.5
            step = max(-1.5, min(1.5, (goal[name] - volume) / max(area, 1.0) * 0.5))
            if k == MYO:
                epicardium = max(EPICARDIUM_MM[0], min(EPICARDIUM_MM[1], epicardium + step))
            else:
                offsets[k] += step
    return offsets.clamp(-8, 8), epicardium

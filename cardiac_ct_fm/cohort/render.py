"""From a digital heart to one look: HU image, label maps and landmarks on any grid.

Structures are painted with partial volume (a voxel's share follows from its signed distance), in the order
surroundings, walls, blood and muscle, valves, coronary arteries, implants, calcium; then the scanner adds blur and
noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cardiac_ct_fm.cohort.chambers import AORTA, LA, LV, MYO, NAMES, PA, RA, RV
from cardiac_ct_fm.cohort.heart import DigitalHeart, Fields
from cardiac_ct_fm.cohort.raster import double, half_grid, tube_field
from cardiac_ct_fm.cohort.valve import calcium, leaflets

COARSE_WARP_MM = 2.6
COARSE_FIELDS_MM = 1.3
"""Up to these spacings the warp, and the template's distances, are worked out on every second point of a grid and
interpolated; both are smooth at twice the spacing (the template is stored at 2 mm, the warp at 8 mm)."""


VESSEL_WALL_MM = 1.0
"""Wall of great vessels other than the aorta, near the 1 mm of a normal pulmonary artery (textbook)."""


TRABECULAE_MM: dict[str, float] = {"LV": 7.0, "RV": 6.0}
"""Depth below the endocardium over which trabeculae and papillary muscles thin out; chosen by eye."""

SMOOTH_MM = 20.0
"""Distance from a valve within which a ventricle's wall grows smooth: outflow tracts have no trabeculae (Anderson 2000,
Heart 84:670), and papillary muscles stand further down. Chosen by eye."""

VALVES: dict[str, tuple[int, int]] = {"LV": (LA, AORTA), "RV": (RA, PA)}
"""What a ventricle opens into. Its border with them is no endocardium."""

MIXING_MM = 15.0
"""Way along the axis over which contrast in the left ventricle turns into that in the aorta, twice as far at the wall:
blood does not change in the valve's plane. Chosen by eye."""


@dataclass(frozen=True)
class Look:
    """One rendered grid.

    Attributes:
        hu: (X, Y, Z) image before the scanner, Hounsfield units.
        heart, calc, coronaries: (X, Y, Z) uint8 label maps.
        heart_distance: (X, Y, Z) mm, positive inside heart and great vessels.
        seen: (X, Y, Z) bool, what lies in the scan's field of view.
    """

    hu: Tensor
    heart: Tensor
    calc: Tensor
    coronaries: Tensor
    heart_distance: Tensor
    seen: Tensor

    def within(self, seen: Tensor) -> Look:
        """The same look where labels end at the scan's field of view."""
        cut = seen.to(torch.uint8)
        return Look(self.hu, self.heart * cut, self.calc * cut, self.coronaries * cut, self.heart_distance, seen)


def share(distance: Tensor, voxel_mm: float) -> Tensor:
    """Part of a voxel that lies inside a surface at a signed distance (mm, positive inside)."""
    return (distance * (1 / voxel_mm)).add_(0.5).clamp_(0, 1)


def render(
    heart: DigitalHeart, points: Tensor, voxel_mm: float, background: Callable[[Tensor], Tensor] | None = None
) -> Look:
    """Render the heart on a grid.

    Args:
        heart: the patient.
        points: (X, Y, Z, 3) body mm, isotropic, finer than 6 mm.
        voxel_mm: spacing of ``points``.
        background: HU (X, Y, Z) of everything else, given the signed distance (X, Y, Z) in mm to heart and great
            vessels; ``None`` paints fat (for tests of the heart alone).
    """
    shape = points.shape[:3]
    step = voxel_mm * heart.shape.scale
    q, fields = _fields(heart, points, voxel_mm)
    carried = {
        kind: [t for t in heart.tubes if t.blood == kind] for kind in dict.fromkeys(t.blood for t in heart.tubes)
    }
    tubes = {kind: tube_field(group, q, step).reshape(-1) for kind, group in carried.items()}
    arch = tube_field(heart.tubes[:1], q, step).reshape(-1)
    blood = fields.blood
    blood[AORTA] = torch.maximum(blood[AORTA], arch)
    label = _label(fields, arch).reshape(shape)
    distance = blood.max(0).values
    for tube in tubes.values():
        distance = torch.maximum(distance, tube)
    away = distance.reshape(shape) / heart.shape.scale
    around = background(away) if background else torch.full_like(away, heart.patient.tissue["fat"])
    valve = _near_valve(heart, fields)
    hu = _paint(heart, fields, valve, tubes, around.reshape(-1).clone(), points, step)
    tree = tube_field(heart.coronaries, q, step).reshape(-1)
    free = torch.minimum(tree, -blood[[LA, LV, RA, RV, AORTA, PA]].max(0).values)
    hu = _over(hu, share(free + 0.7 * heart.shape.scale, step), heart.patient.tissue["wall"])
    hu = _over(hu, share(free, step), heart.patient.blood["coronary"])
    hu = heart.implants.paint(hu, q, step)
    hard = torch.full_like(hu, -25.0)
    if len(valve):
        inside = fields.root[valve]
        hard[inside], hard_hu = calcium(heart.shape, fields.local[valve])
        hu[inside] = _over(hu[inside], share(hard[inside], step), hard_hu)
    return Look(
        hu.reshape(shape),
        label,
        (hard > 0).reshape(shape).to(torch.uint8),
        (free > 0).reshape(shape).to(torch.uint8),
        away,
        torch.ones_like(label, dtype=torch.bool),
    )


def heart_labels(heart: DigitalHeart, points: Tensor, voxel_mm: float) -> Tensor:
    """Only the heart label map (X, Y, Z) uint8 of a grid, without painting an image."""
    q, fields = _fields(heart, points, voxel_mm)
    arch = tube_field(heart.tubes[:1], q, voxel_mm * heart.shape.scale).reshape(-1)
    return _label(fields, arch).reshape(points.shape[:3])


def _fields(heart: DigitalHeart, points: Tensor, voxel_mm: float) -> tuple[Tensor, Fields]:
    """Template coordinates (X, Y, Z, 3) of a grid, and all structures there."""
    shape = points.shape[:3]
    if voxel_mm > COARSE_WARP_MM:
        q = heart.warp.to_template(points)
        return q, heart.fields(q.reshape(-1, 3))
    half = heart.warp.to_template(half_grid(points))
    q = double(half.permute(3, 0, 1, 2), shape).permute(1, 2, 3, 0).contiguous()
    raw = None
    if voxel_mm <= COARSE_FIELDS_MM:
        raw = double(heart.template.sample(half), shape).reshape(7, -1)
    return q, heart.fields(q.reshape(-1, 3), raw)


def _near_valve(heart: DigitalHeart, fields: Fields) -> Tensor:
    """Which of the points near the root lie at the valve (leaflets, calcium), as indices into ``fields.root``."""
    top = (max(heart.patient.root.commissure_z_mm) + 6) * heart.shape.scale
    height = fields.local[:, 2]
    return ((fields.lumen > -4) & (height > -8) & (height < top)).nonzero()[:, 0]


def _label(fields: Fields, arch: Tensor) -> Tensor:
    """The heart label map, flat, uint8."""
    label = fields.label
    label[AORTA] = torch.maximum(label[AORTA], torch.minimum(arch, fields.ascending))
    best = label.max(0)
    return torch.where(best.values > 0, best.indices + 1, torch.zeros_like(best.indices)).to(torch.uint8)


def _over(hu: Tensor, cover: Tensor, value: Tensor | float) -> Tensor:
    """Paint ``value`` over an image with a cover of 0…1."""
    return hu + cover * (value - hu)


def _paint(
    heart: DigitalHeart,
    fields: Fields,
    valve: Tensor,
    tubes: dict[str, Tensor],
    hu: Tensor,
    points: Tensor,
    step: float,
) -> Tensor:
    """Walls, vessels, blood, muscle and valves, in HU, flat."""
    p, scale = heart.patient, heart.shape.scale
    d = fields.blood
    wall = d[RV] + p.wall_rv_mm * scale
    thickness = {RA: p.wall_atrium_mm, LA: p.wall_atrium_mm, AORTA: p.root.wall_mm, PA: VESSEL_WALL_MM}
    for k, mm in thickness.items():
        wall = torch.maximum(wall, d[k] + mm * scale, out=wall)
    for tube in tubes.values():
        wall = torch.maximum(wall, tube + VESSEL_WALL_MM * scale, out=wall)
    hu = _over(hu, share(wall, step), p.tissue["wall"])
    for kind, tube in tubes.items():
        hu = _over(hu, share(tube, step), p.blood[kind])
    texture = heart.texture(points)
    aortic = ((d[AORTA] - d[LV]) / (2 * MIXING_MM * scale)).add_(0.5).clamp_(0, 1)
    left = p.blood["LV"] + aortic * (p.blood["Aorta"] - p.blood["LV"])
    blood: dict[str, Tensor | float] = {**p.blood, "LV": left, "Aorta": left}
    total, blend = torch.zeros_like(hu), torch.zeros_like(hu)
    for k, name in enumerate(NAMES):
        cover = share(d[k], step)
        total += cover
        depth = d[k]
        if name in VALVES:
            depth = torch.maximum(depth, torch.maximum(*(d[v] for v in VALVES[name])) + SMOOTH_MM)
        blend += cover.mul_(_tissue(heart, name, blood, depth, texture, step))
    outside = (1 - total).clamp_min_(0)
    hu = hu.mul_(outside).add_(blend.div_(total.clamp_min_(1)))
    for atrium, ventricle in ((LA, LV), (RA, RV)):
        deep = torch.minimum(d[atrium], d[ventricle]) + 4.0
        near = (deep > -step).nonzero()[:, 0]
        gap = (d[atrium, near] - d[ventricle, near] + 2.5 * texture[2, near]).abs() / 2
        sheet = torch.minimum(p.valve_mm * scale / 2 - gap, deep[near])
        elsewhere = [k for k in (MYO, LA, LV, RA, RV, AORTA, PA) if k not in (atrium, ventricle)]
        sheet = torch.minimum(sheet, -d[:, near][elsewhere].max(0).values)
        hu[near] = _over(hu[near], share(sheet, step) * 0.9, p.root.leaflet_hu)
    if len(valve):
        inside = fields.root[valve]
        sheet = torch.minimum(leaflets(heart.shape, fields.local[valve]), fields.lumen[valve] + 1)
        hu[inside] = _over(hu[inside], share(sheet, step), p.root.leaflet_hu)
    return hu


def _tissue(
    heart: DigitalHeart, name: str, blood: dict[str, Tensor | float], depth: Tensor, texture: Tensor, step: float
) -> Tensor | float:
    """HU inside one structure: uneven muscle, clouds of contrast in the right heart, trabeculae in the ventricles."""
    p = heart.patient
    if name == "Myo":
        return p.tissue["myo"] * (1 + 0.06 * texture[0])
    value = blood[name]
    if name in ("RA", "RV"):
        strength = p.mixing * (1.0 if name == "RA" else 0.7)
        mixed = (1 + strength * texture[0].clamp(-1.2, 1.2)).clamp_min_(0.05)
        value = p.tissue["wall"] + (p.blood[name] - p.tissue["wall"]) * mixed
    if name in TRABECULAE_MM:
        trabecular = share((texture[1] - 0.35 - depth.clamp_min(0) / TRABECULAE_MM[name]) * 4, step)
        value = trabecular * (p.tissue["myo"] - value) + value
    return value

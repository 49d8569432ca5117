"""One patient's heart as continuous fields: chambers of his own volumes, his aortic root, his vessels, his landmarks.

Everything is evaluated in template coordinates at any points; :mod:`render` turns it into images and labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cardiac_ct_fm.anatomy import LANDMARKS
from cardiac_ct_fm.cohort.chambers import (
    AORTA,
    CURTAIN_Z_MM,
    LA,
    LEAFLET_MM,
    LV,
    MYO,
    PA,
    RA,
    RV,
    curtain,
    meet,
    muscle,
    solve_volumes,
)
from cardiac_ct_fm.cohort.implants import NO_IMPLANTS, Implants, draw_implants
from cardiac_ct_fm.cohort.patient import Patient
from cardiac_ct_fm.cohort.root import HIGH_MM, RootShape, build_root, smooth
from cardiac_ct_fm.cohort.templates import Template, load_template
from cardiac_ct_fm.cohort.vessels import ARCH_NORMAL, Tube, coronary_tubes, great_vessels
from cardiac_ct_fm.cohort.warp import Warp, bspline_upsample, rotation, sample_cube

HEART_CENTRE_MM: tuple[float, float, float] = (-8.0, 0.0, -98.0)
"""Middle of the templates' chambers in template mm; it is the origin of body coordinates."""

ABOVE_ROOT_Z_MM = -70.0
"""Above this height (template mm) aorta is ascending aorta or arch; the root lies below."""

ROOT_REACH_MM, ROOT_RADIUS_MM = 56.0, 40.0
"""The analytic root acts within this box and cylinder (template mm): twice the largest sinus."""

TEXTURE_MM = 200.0
"""Edge of the cube on which the heart's inner texture is defined."""

LABEL_RA_Z_MM: tuple[float, float] = (-144.0, -67.0)
LABEL_LA_X_MM: tuple[float, float] = (-40.0, 34.0)
"""Where the labels RA and LA end and the caval and pulmonary veins begin, template mm: the template without
vein inlets ends there, the one with inlets goes on."""


@dataclass(frozen=True)
class Fields:
    """Signed distances (template mm, positive inside) at N points.

    Attributes:
        blood: (7, N) in the order of the heart label; includes parts of vessels that carry no label.
        label: (7, N) the same, cut where labels end.
        ascending: (N,) distance to the plane at which the label Aorta ends; −25 at and below the root.
        root: indices (M,) of the points near the root; local: (M, 3) root-frame coordinates of these.
        lumen: (M,) lumen of outflow tract, root and ascending aorta at those points.
    """

    blood: Tensor
    label: Tensor
    ascending: Tensor
    root: Tensor
    local: Tensor
    lumen: Tensor


@dataclass(frozen=True)
class DigitalHeart:
    """A patient's heart, ready to be evaluated.

    Attributes:
        patient: the drawn numbers.
        template, warp, shape: template heart, body ↔ template map, root tables.
        offsets: (7,) growth of each structure, mm; ``epicardium`` growth of the outer myocardial surface.
        tubes: great vessels; coronaries: coronary arteries.
        landmarks: body mm (3,) of every landmark.
        plane: hinge-point plane in template mm as (normal (3,), offset).
        grain: (3, n, n, n) smooth random fields of about unit SD over :data:`TEXTURE_MM`.
        arch_apex: (3,) template mm, top of the aortic arch.
        implants: coronary plaques, stents and leads.
    """

    patient: Patient
    template: Template
    warp: Warp
    shape: RootShape
    offsets: Tensor
    epicardium: float
    tubes: tuple[Tube, ...]
    coronaries: tuple[Tube, ...]
    landmarks: dict[str, Tensor]
    plane: tuple[Tensor, float]
    grain: Tensor
    arch_apex: Tensor
    implants: Implants = NO_IMPLANTS

    def texture(self, points: Tensor) -> Tensor:
        """Smooth random fields (3, N) at body points (X, Y, Z, 3): mixing of contrast, trabeculae, valve bulge."""
        if (points[1, 0, 0] - points[0, 0, 0]).norm() > 1.5:
            return sample_cube(self.grain, points, TEXTURE_MM).reshape(-1, 3).T
        coarse = sample_cube(self.grain, points[::2, ::2, ::2], TEXTURE_MM).permute(3, 0, 1, 2)
        return F.interpolate(coarse[None], size=points.shape[:3], mode="trilinear")[0].reshape(3, -1)

    def before_arch(self, q: Tensor) -> Tensor:
        """Signed distance (N,) of template points to the plane where the label Aorta ends, positive before it."""
        normal = torch.tensor(ARCH_NORMAL, device=q.device)
        distance: Tensor = (q - self.arch_apex) @ normal / normal.norm()
        return distance

    def local(self, q: Tensor) -> Tensor:
        """Root-frame coordinates of template points (N, 3)."""
        return (q - self.template.root_origin) @ self.template.root_axes.T

    def fields(self, q: Tensor, raw: Tensor | None = None) -> Fields:
        """All structures at template points ``q`` (N, 3); ``raw`` (7, N) are the template's distances, if known."""
        if raw is None:
            raw = self.template.sample(q)
        d = raw + self.offsets[:, None]
        d[MYO] = muscle(raw, d[LV], self.epicardium)
        near = ((q - self.template.root_origin).abs() < ROOT_REACH_MM).all(-1).nonzero()[:, 0]
        local = self.local(q[near])
        within = (
            (local[:, :2].norm(dim=-1) < ROOT_RADIUS_MM) & (local[:, 2] > CURTAIN_Z_MM[0]) & (local[:, 2] < HIGH_MM)
        )
        near, local = near[within], local[within]
        lumen = apart = torch.empty(0, device=q.device)
        if len(near):
            d[:, near], lumen, apart = self._with_root(d[:, near], raw[LA, near], local, q[near])
        meet(d, raw, near, apart)
        label = d.clone()
        x, _, z = q.unbind(-1)
        label[RA] = torch.minimum(label[RA], torch.minimum(z - LABEL_RA_Z_MM[0], LABEL_RA_Z_MM[1] - z))
        label[LA] = torch.minimum(label[LA], torch.minimum(x - LABEL_LA_X_MM[0], LABEL_LA_X_MM[1] - x))
        before = self.before_arch(q)
        high = z > ABOVE_ROOT_Z_MM
        label[AORTA] = torch.where(high, torch.minimum(label[AORTA], before), label[AORTA])
        return Fields(d, label, torch.where(high, before, torch.full_like(z, -25.0)), near, local, lumen)

    def _with_root(self, d: Tensor, atrium: Tensor, local: Tensor, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The structures around the analytic root: its lumen replaces the template's, neighbours give way.

        Returns distances, lumen, and by how much left atrium and ventricle stay apart.
        """
        shape, root, scale = self.shape, self.patient.root, self.shape.scale
        azimuth, radius, height = shape.polar(local)
        wall_radius = shape.lumen_radius(azimuth, height)
        analytic = wall_radius - radius
        top = root.stj_height_mm * scale
        weight = smooth((wall_radius + 10 - radius) / 6) * smooth((height + 13) / 7) * smooth((top + 18 - height) / 14)
        template = torch.maximum(d[LV], d[AORTA])
        lumen = (1 - weight) * template + weight * analytic
        above = q @ self.plane[0] - self.plane[1]
        split = (radius < wall_radius + 6) & (height > -16) & (height < top + 20)
        d[AORTA] = torch.where(split, torch.minimum(lumen, above), d[AORTA])
        d[LV] = torch.where(split, torch.minimum(lumen, -above), d[LV])
        wall = root.wall_mm * scale
        rim = shape.along(shape.rim, azimuth)
        wedge = 2.0 * torch.exp(-(((height - shape.along(shape.attachment, azimuth)) / 3) ** 2)) * (1 - rim)
        keep_off = -(lumen + torch.where(height > -1, wall + wedge, torch.full_like(height, LEAFLET_MM)))
        acts = weight > 0
        kept = torch.where(acts, keep_off, torch.full_like(keep_off, torch.inf))
        for k in (LA, RA, RV, PA):
            d[k] = torch.minimum(d[k], kept)
        grown = d[MYO] + (template - lumen).clamp(0, 8) * smooth((4 - height) / 3)
        d[MYO] = torch.where(acts, torch.minimum(grown, -lumen), d[MYO])
        atrial = self.patient.wall_atrium_mm * scale
        apart = curtain(d, atrium, -lumen, radius - wall_radius, height, keep_off, atrial)
        return self._membranous_septum(d, azimuth, radius - wall_radius, wall_radius, height), lumen, apart

    def _membranous_septum(self, d: Tensor, azimuth: Tensor, outside: Tensor, wall: Tensor, height: Tensor) -> Tensor:
        """A thin wall between outflow tract and right heart from MS1 down to the muscular crest MS2."""
        root, scale = self.patient.root, self.shape.scale
        top = root.septum_top_mm * scale
        crest = root.septum_crest_mm * scale
        sideways = torch.deg2rad((azimuth - root.septum_deg + 180) % 360 - 180).abs() * wall
        window = torch.minimum(
            root.septum_width_mm * scale / 2 - sideways, torch.minimum(height - crest, top + 2.5 - height)
        )
        patch = torch.minimum(torch.minimum(window, 9.0 - outside), outside - root.septum_mm * scale)
        valve = crest + 0.45 * (top - crest)
        d[RA] = torch.maximum(d[RA], torch.minimum(patch, height - valve))
        d[RV] = torch.maximum(d[RV], torch.minimum(patch, valve - height))
        d[MYO] = torch.minimum(d[MYO], torch.maximum(-window, -(outside + 0.3)))
        return d


def build_heart(patient: Patient, device: torch.device | str = "cpu", template: Template | None = None) -> DigitalHeart:
    """Everything that has to be worked out once per patient (about 0.1 CPU-s); ``template`` replaces the patient's."""
    template = template or load_template(patient.template)
    displacement = sum(
        (bspline_upsample(torch.from_numpy(c).float()) for c in patient.controls), torch.zeros(3, 41, 41, 41)
    )
    pose = rotation(torch.from_numpy(patient.rotation_deg).float())
    linear = torch.linalg.inv(pose @ torch.diag(torch.from_numpy(patient.scale).float()))
    warp = Warp(linear, torch.tensor(HEART_CENTRE_MM), displacement)
    root_body = warp.to_body(template.root_origin[None])
    scale = float(torch.linalg.det(warp.jacobian(root_body))[0].abs() ** (1 / 3))
    shape = build_root(patient.root, template.centreline, scale)
    offsets, epicardium = solve_volumes(patient, template, shape, float(torch.linalg.det(linear)))
    ascending = patient.root.ascending_mm * scale / 2
    offsets[AORTA] = ascending - 17.0
    local = shape.landmarks()
    in_template = {k: v @ template.root_axes + template.root_origin for k, v in local.items()}
    hinge = torch.stack([in_template[k] for k in ("RCC", "LCC", "NCC")])
    normal = torch.linalg.cross(hinge[1] - hinge[0], hinge[2] - hinge[0])
    normal = normal / normal.norm() * torch.sign(normal @ template.root_axes[2])
    points = torch.stack([in_template[k] for k in LANDMARKS])
    body = warp.to_body(points)
    size = float(torch.linalg.det(linear)) ** (-1 / 3)

    def place(control: Tensor) -> Tensor:
        """Far from the heart vessels follow the body, not the heart's pose."""
        away = smooth(((control - warp.centre).norm(dim=-1, keepdim=True) - 60) / 60)
        upright = warp.to_template((control - warp.centre) * size)
        return (1 - away) * control + away * upright

    tubes, apex = great_vessels(patient.vessel_shift, patient.vessel_scale, ascending, place)
    heart = DigitalHeart(
        patient, template, warp, shape, offsets, epicardium,
        tuple(tubes), (),
        dict(zip(LANDMARKS, body, strict=True)), (normal, float(hinge.mean(0) @ normal)), _grain(patient.seed),
        apex,
    )  # fmt: skip
    coronaries = tuple(_coronaries(heart, in_template))
    implants = draw_implants(patient.seed, patient.template, coronaries, heart.tubes, scale)
    return _moved(heart, coronaries, implants, device)


def _moved(
    heart: DigitalHeart, coronaries: tuple[Tube, ...], implants: Implants, device: torch.device | str
) -> DigitalHeart:
    return DigitalHeart(
        heart.patient, heart.template.to(device), heart.warp.to(device), heart.shape.to(device),
        heart.offsets.to(device), heart.epicardium, tuple(t.to(device) for t in heart.tubes),
        tuple(t.to(device) for t in coronaries), heart.landmarks, (heart.plane[0].to(device), heart.plane[1]),
        heart.grain.to(device), heart.arch_apex.to(device), implants.to(device),
    )  # fmt: skip


def _grain(seed: int) -> Tensor:
    """Random fields of the heart's inside, the same for a patient on every grid."""
    generator = torch.Generator().manual_seed(seed + 7)
    coarse = torch.randn(3, 24, 24, 24, generator=generator)
    fine = torch.randn(3, 48, 48, 48, generator=generator)
    weight = torch.tensor([0.8, 0.3, 0.7])[:, None, None, None]
    return weight * bspline_upsample(coarse, 96) * 2.2 + (1 - weight) * bspline_upsample(fine, 96) * 2.6


def _coronaries(heart: DigitalHeart, at: dict[str, Tensor]) -> list[Tube]:
    """Coronary arteries that start at the patient's ostia and lie on his own surfaces."""
    scale, root = heart.shape.scale, heart.patient.root
    courses = {}
    for name, line in heart.template.coronaries.items():
        moved = line.clone()
        for _ in range(3):
            moved = moved + _push_out(heart, moved, 2.5)
        smooth = moved.clone()
        smooth[1:-1] = (moved[:-2] + 2 * moved[1:-1] + moved[2:]) / 4
        courses[name] = smooth
    starts = {}
    for name, vessel in (("RCA", "RCA"), ("LCA", "LM")):
        turn = torch.deg2rad(torch.tensor(root.ostium_deg[name]))
        tilt = torch.deg2rad(torch.tensor(root.ostium_tilt_deg[name]))
        leave = torch.stack([turn.cos() * tilt.cos(), turn.sin() * tilt.cos(), tilt.sin()])
        starts[vessel] = (at[name], leave @ heart.template.root_axes)
    return coronary_tubes(courses, starts, heart.patient.coronary_mm, scale, heart.patient.right_dominant)


def _push_out(heart: DigitalHeart, points: Tensor, clear_mm: float) -> Tensor:
    """Displacement (N, 3) that brings points at least ``clear_mm`` out of all chambers, along the steepest descent."""
    step = 1.0

    def depth(q: Tensor) -> Tensor:
        d = heart.template.sample(q) + heart.offsets[:, None]
        d[MYO] += heart.epicardium
        deepest: Tensor = d.max(0).values
        return deepest

    gradient = torch.stack([depth(points + step * e) - depth(points - step * e) for e in torch.eye(3)], -1) / (2 * step)
    excess = (depth(points) + clear_mm).clamp(0, 6)
    away: Tensor = -excess[:, None] * gradient / gradient.norm(dim=-1, keepdim=True).clamp_min(0.3)
    return away

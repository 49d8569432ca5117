"""Lungs and airways: their borders, parenchyma with vessels, disease now and then; trachea, bronchi, oesophagus.

Lung about −850 HU (domain facts), here −920…−750 by patient as in the first transfer trial.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cardiac_ct_fm.cohort.canvas import Canvas, capsule_depth, smooth_max
from cardiac_ct_fm.cohort.noise import chance, uniform
from cardiac_ct_fm.cohort.thorax import Trunk, TrunkParameters, profile, spine_axis

Triple = tuple[float, float, float]
Rod = tuple[Triple, Triple, float]

LARGE_SLOPE = 0.07
"""Mean slope per mm of the slow fields (control cells of 21 mm, unit SD)."""


@dataclass(frozen=True)
class LungParameters:
    """Numbers of lungs and airways; densities in HU, places in RAS mm from the heart's centre.

    Attributes:
        density: of the parenchyma in front; gradient: how much denser it is at the back; texture: SD of its clouds.
        vessel: density of the vessels; vessel_radius: of the larger ones, mm.
        hila: middle of the right and of the left hilum; branches: vessels that leave them, as rods.
        airways: trachea and bronchi, as rods; airway_wall: mm.
        effusion: fluid in the right and left pleural space, up to this share of the chest's depth (0: none).
        consolidation: threshold of dense patches (large: none); fibrosis: weight of coarse lines.
        oesophagus: (side offset from the spine axis, distance in front of it, half width).
        oesophagus_air: radius of the gas in it.
        nodules: (place, radius, HU) of round things in the lung.
    """

    density: float
    gradient: float
    texture: float
    vessel: float
    vessel_radius: float
    hila: tuple[Triple, Triple]
    branches: tuple[Rod, ...]
    airways: tuple[Rod, ...]
    airway_wall: float
    effusion: tuple[float, float]
    consolidation: float
    fibrosis: float
    oesophagus: Triple
    oesophagus_air: float
    nodules: tuple[tuple[Triple, float, float], ...]


def draw_lungs(rng: torch.Generator, trunk: TrunkParameters, vessel_hu: float | None = None) -> LungParameters:
    """Random lungs for this trunk; the blood in them has ``vessel_hu``, or is drawn when None."""
    x0 = trunk.midline
    carina = (x0 + uniform(rng, -4, 8), trunk.spine_y + uniform(rng, 28, 42), uniform(rng, 55, 78))
    right = (carina[0] + uniform(rng, 34, 44), carina[1] - 2, carina[2] - uniform(rng, 22, 34))
    left = (carina[0] - uniform(rng, 40, 52), carina[1] - 6, carina[2] - uniform(rng, 24, 36))
    neck = (x0 + uniform(rng, -5, 5), trunk.spine_y + uniform(rng, 32, 50), trunk.apex + 60)
    wide = uniform(rng, 6.5, 10.5)
    airways: list[Rod] = [
        (neck, carina, wide),
        (carina, right, 0.75 * wide),
        (carina, left, 0.68 * wide),
    ]
    branches: list[Rod] = []
    for sign, hilum in ((1.0, right), (-1.0, left)):
        for height, out, forward in ((35, 18, 8), (5, 26, 22), (-45, 22, -18)):
            jitter = [uniform(rng, -8, 8) for _ in range(3)]
            end = (hilum[0] + sign * out + jitter[0], hilum[1] + forward + jitter[1], hilum[2] + height + jitter[2])
            airways.append((hilum, end, 0.42 * wide))
        for _ in range(7):
            direction = torch.randn(3, generator=rng)
            direction[0] = sign * direction[0].abs()
            direction = direction / direction.norm()
            start = tuple(h + 6 * float(d) for h, d in zip(hilum, direction, strict=True))
            length = uniform(rng, 25, 60)
            end = (
                hilum[0] + length * float(direction[0]),
                hilum[1] + length * float(direction[1]),
                hilum[2] + length * float(direction[2]),
            )
            bend = tuple(0.5 * (p + q) + uniform(rng, -7, 7) for p, q in zip(start, end, strict=True))
            radius = uniform(rng, 1.8, 4.5)
            branches.append(((start[0], start[1], start[2]), (bend[0], bend[1], bend[2]), radius))
            branches.append(((bend[0], bend[1], bend[2]), end, 0.65 * radius))
    contrast = uniform(rng, 60, 550)
    nodules = tuple(
        (
            (x0 + uniform(rng, -130, 130), uniform(rng, -90, 50), uniform(rng, -80, 130)),
            uniform(rng, 2, 5) if chance(rng, 0.8) else uniform(rng, 6, 16),
            uniform(rng, 0, 90) if chance(rng, 0.7) else uniform(rng, 300, 900),
        )
        for _ in range(int(uniform(rng, 0, 4)))
    )
    return LungParameters(
        density=uniform(rng, -920, -780),
        gradient=uniform(rng, 0, 110) if chance(rng, 0.7) else uniform(rng, 110, 250),
        texture=uniform(rng, 5, 30),
        vessel=contrast if vessel_hu is None else vessel_hu,
        vessel_radius=uniform(rng, 1.8, 3.6),
        hila=(right, left),
        branches=tuple(branches),
        airways=tuple(airways),
        airway_wall=uniform(rng, 1.0, 2.2),
        effusion=(
            uniform(rng, 0.05, 0.45) if chance(rng, 0.14) else 0.0,
            uniform(rng, 0.05, 0.45) if chance(rng, 0.12) else 0.0,
        ),
        consolidation=uniform(rng, 1.2, 2.0) if chance(rng, 0.10) else 9.0,
        fibrosis=uniform(rng, 0.5, 1.0) if chance(rng, 0.1) else 0.0,
        oesophagus=(uniform(rng, -16, 0), uniform(rng, 22, 32), uniform(rng, 6, 10)),
        oesophagus_air=uniform(rng, 1.5, 5) if chance(rng, 0.35) else 0.0,
        nodules=nodules,
    )


def lung_fields(
    points: Tensor, depth: Tensor, way_back: Tensor, cells: Tensor, large: Tensor, g: LungParameters
) -> tuple[Tensor, Tensor, Tensor]:
    """Coarse fields of the lungs: parenchyma (HU), radius of the small vessels (mm), depth in the large ones (mm).

    Args:
        points: (x, y, z, 3) coarse points.
        depth: (x, y, z) depth in the lungs, mm.
        way_back: (x, y, z) 0 at the back wall, 1 at the front wall.
        cells: (3, x, y, z) smooth unit noise.
        large: (2, x, y, z) unit noise a few cm long, for large vessels and dense patches.
        g: the lungs.
    """
    tissue = g.density + g.gradient * (1 - way_back).clamp(0, 1) ** 2 + g.texture * cells[1]
    if g.fibrosis > 0:
        tissue += g.fibrosis * 350 * (1 - (cells[2] * 4).abs()).clamp(min=0) * (1 - depth / 40).clamp(0, 1)
    if g.consolidation < 5:
        dense = large[1] - g.consolidation + 0.8 * (0.5 - way_back)
        tissue += dense.mul(2.5).clamp(0, 1) * (30 - tissue)
    near = -torch.maximum(*(capsule_depth(points, hilum, hilum, 0.0) for hilum in g.hila))
    # calibre falls with the distance from the hilum, down to what a scan still shows under the pleura
    radius = g.vessel_radius * torch.exp(-near / 65) + 0.75
    radius = torch.minimum(radius, 0.35 + 0.1 * depth.clamp(min=0))
    # the large vessels at the hilum run where two slow fields vanish
    trunks = -(large[0].square() + large[1].square()).sqrt_() / LARGE_SLOPE + 2.4 * g.vessel_radius * torch.exp(
        -near / 30
    )
    return tissue, radius, trunks


def paint_lungs(
    canvas: Canvas,
    depth: Tensor,
    tubes: Tensor,
    fields: tuple[Tensor, Tensor, Tensor],
    trunk: TrunkParameters,
    g: LungParameters,
) -> None:
    """Parenchyma, vessels and disease inside the lungs.

    Args:
        canvas: where to paint.
        depth: (X, Y, Z) depth in the lungs, mm.
        tubes: (X, Y, Z) depth in a net of random vessels for radius 0, mm (so ``tubes + r`` is a net of radius r).
        fields: as made by :func:`lung_fields`, at full resolution.
        trunk: the trunk.
        g: the lungs.
    """
    tissue, radius, trunks = fields
    inner = canvas.layer(tissue)
    inner.paint(inner.cover(tubes + radius) * (radius * (2 / canvas.spacing)).clamp_(max=1), g.vessel)
    inner.paint(inner.cover(trunks), g.vessel)
    for a, b, r in g.branches:
        hit = inner.capsule(a, b, r)
        if hit is not None:
            inner.paint(inner.cover(hit[1]), g.vessel, hit[0])
    for place, r, value in g.nodules:
        hit = inner.capsule(place, place, r)
        if hit is not None:
            inner.paint(inner.cover(hit[1]), value, hit[0])
    for level, right in zip(g.effusion, (True, False), strict=True):
        if level > 0:
            surface = trunk.back + level * (trunk.front - trunk.back)
            x, y, _ = canvas.points.unbind(-1)
            inner.paint(inner.cover(surface - y) * ((x > trunk.midline) == right), 8.0)
    canvas.paint(canvas.cover(depth), inner.hu)


def paint_tubes(canvas: Canvas, heart_distance: Tensor, trunk: TrunkParameters, g: LungParameters) -> None:
    """Oesophagus, trachea and bronchi, painted where there is no heart."""
    free = canvas.cover(-heart_distance - 1.5)
    offset, ahead, half = g.oesophagus
    box = canvas.box((trunk.spine_x - 60, trunk.spine_y - 20, -1e4), (trunk.spine_x + 40, trunk.spine_y + 80, 1e4))
    if box is not None:
        x, y, z = canvas.points[box].unbind(-1)
        spine_x, spine_y = spine_axis(z, trunk)
        u, v = x - spine_x - offset, y - spine_y - ahead
        depth = half - (u**2 + (1.5 * v) ** 2).sqrt()
        canvas.paint(canvas.cover(depth) * free[box], 45.0, box)
        if g.oesophagus_air > 0:
            canvas.paint(canvas.cover(depth - half + g.oesophagus_air) * free[box], -700.0, box)
    for value, grow in ((30.0, g.airway_wall), (-1000.0, 0.0)):
        for a, b, r in g.airways:
            hit = canvas.capsule(a, b, r + grow)
            if hit is not None:
                canvas.paint(canvas.cover(hit[1]) * free[hit[0]], value, hit[0])


def lung_depth(
    trunk: Trunk, points: Tensor, heart_distance: Tensor, margin: Tensor, wobble: Tensor, p: TrunkParameters
) -> Tensor:
    """Signed depth (mm, positive inside) of the two lungs.

    Args:
        trunk: depths of the trunk.
        points: (x, y, z, 3) coarse points.
        heart_distance: (x, y, z) signed mm, positive inside.
        margin: (x, y, z) thickness of fat around the heart, mm.
        wobble: (x, y, z) sideways shift of the borders of the mediastinum, mm.
        p: the trunk.
    """
    z = points[..., 2]
    # the mediastinum: a strip that is thin behind the breast bone, wide at the great vessels, narrow beside the spine
    strip = p.mediastinum * profile(z, [(-80, 1.0), (30, 0.85), (60, 1.25), (100, 1.4), (p.apex, 1.2)])
    behind = profile(trunk.depth, [(0.3, 0.9), (0.5, 1.1), (0.65, 1.0), (0.8, 0.0)])
    ahead = profile(trunk.depth, [(0.6, 0.0), (0.85, 1.0), (0.96, 1.1), (1.0, 1.8)]) * profile(
        z, [(0, p.junction), (40, 0.35)]
    )
    depth = torch.minimum(trunk.side - strip * (behind + ahead) - wobble, trunk.spine - 2.5)
    # fat fills the wedges between heart, diaphragm and chest wall
    closed = smooth_max(heart_distance + margin, trunk.abdomen + 1.5, 12 + p.fat)
    closed = smooth_max(closed, 1.5 - trunk.cage, 14.0 + 0.5 * p.fat)
    return torch.minimum(depth, -closed)
